/**
 * The broker's `basic.cancel`: it gives no reason, so the reason is told as far as it is known here.
 *
 * Up to RabbitMQ 4.2 a queue was deleted, its node has stopped, or the user may not read from it any more. Since 4.3 it may
 * also be a delivery of a quorum queue that was not settled within its consumer timeout. Then the consumer is still there for
 * the broker: an ack would wake it up, and it would get deliveries that nobody takes.
 */
import * as Duration from "effect/Duration"
import * as AmqpError from "../../model/error.ts"
import { isFrom } from "../wire/versions.ts"
import { type KnownQueue, typeOf } from "../connection/knownQueues.ts"

/** Whether the broker may cancel a consumer of this queue for a delivery that was not settled in time. */
export const cancelsForTimeout = (product: string, queue: KnownQueue | undefined): boolean => {
  const type = typeOf(queue)
  return isFrom(product, 4, 3) && (type === undefined || type === "quorum")
}

/** What is known of its deliveries when a consumer is cancelled, in milliseconds. */
export interface Held {
  /** How long the oldest delivery in hand was held; undefined if that is not known. */
  readonly held: number | undefined
  /** The consumer timeout; undefined if nothing here has set it. */
  readonly timeout: number | undefined
  /** Whether that is why. */
  readonly isTimeout: boolean
}

const shown = (millis: number | undefined) => Duration.format(Duration.millis(Math.round(millis ?? 0)))

export const consumerCancelled = (
  queue: string,
  consumerTag: string,
  /** Undefined: it cannot be the consumer timeout. */
  held: Held | undefined
): AmqpError.ConsumerCancelled => {
  const consumer = `basic.consume: the broker ended the consumer ${JSON.stringify(consumerTag)}`
  const name = JSON.stringify(queue)
  const others = `its queue ${name} was deleted, or the node that held it is gone`
  const oldest = held?.held === undefined ? "" : ` (the oldest was held for ${shown(held.held)})`
  const message =
    held === undefined
      ? `${consumer}: ${others}`
      : held.isTimeout
        ? `${consumer} of the queue ${name}: a delivery was not settled within the consumer timeout of ${shown(held.timeout)}, it was held for ${shown(held.held)}. The broker delivers it again. Settle sooner, lower prefetch, or raise consumerTimeout of the queue or of the consumer`
        : `${consumer}: ${others}, or a delivery was not settled within the consumer timeout${oldest}`
  return new AmqpError.ConsumerCancelled({ message, operation: "basic.consume", queue, consumerTag })
}
