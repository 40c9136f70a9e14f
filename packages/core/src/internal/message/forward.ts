/** A delivery as a message to be published. */
import type { Properties, Message, Delivery } from "../../model/message.ts"

/**
 * A message that says what a delivery said, to the same exchange with the same routing key and properties, except for
 * what `overrides` says. For retrying, forwarding and copying.
 *
 * What RabbitMQ has added goes along. A header `CC` sends copies again. A `userId` that is not this connection's user is
 * refused by the broker: override it with `undefined`.
 *
 * @example
 * ```ts
 * import { AmqpChannel, AmqpMessage } from "@effect-amqp/core"
 *
 * declare const delivery: AmqpMessage.Delivery
 *
 * // To the queue "later" instead, for a minute.
 * const postponed = AmqpMessage.fromDelivery(delivery, { exchange: "", routingKey: "later", expiration: "1 minute" })
 * const postpone = AmqpChannel.use((channel) => channel.publish(postponed))
 * ```
 */
export const fromDelivery = (
  delivery: Pick<Delivery, "content" | "exchange" | "routingKey"> & { readonly properties: Properties },
  overrides?: Partial<Message>
): Message => {
  const { content, exchange, properties, routingKey } = delivery
  return { exchange, routingKey, content, ...properties, ...(overrides as Message | undefined) }
}
