/** Makes a message to publish from a delivery. */
import type { Properties, Message, Delivery } from "../../model/message.ts"

/**
 * Creates a message from a delivery: the same content, exchange, routing key and properties, except for `overrides`.
 *
 * **When to use**
 *
 * Use to retry, forward or copy a delivery.
 *
 * **Details**
 *
 * Headers that RabbitMQ has added are kept.
 *
 * **Gotchas**
 *
 * - A header `CC` sends copies again.
 * - The broker refuses a `userId` that is not the user of the connection: override it with `undefined`.
 *
 * **Example** (Postponing a message by a minute)
 *
 * ```ts
 * import { AmqpChannel, AmqpMessage } from "@effect-amqp/core"
 *
 * declare const delivery: AmqpMessage.Delivery
 *
 * // To the queue "later", for one minute.
 * const postponed = AmqpMessage.fromDelivery(delivery, { exchange: "", routingKey: "later", expiration: "1 minute" })
 * const postpone = AmqpChannel.use((channel) => channel.publish(postponed))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromDelivery = (
  delivery: Pick<Delivery, "content" | "exchange" | "routingKey"> & { readonly properties: Properties },
  overrides?: Partial<Message>
): Message => {
  const { content, exchange, properties, routingKey } = delivery
  return { exchange, routingKey, content, ...properties, ...(overrides as Message | undefined) }
}
