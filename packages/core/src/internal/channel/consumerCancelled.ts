/**
 * The error for the broker's `basic.cancel`. The broker gives no reason, so the message says what is known here.
 *
 * Up to RabbitMQ 4.2 the queue was deleted, its node has stopped, or the user may no longer read from it. Since 4.3 the
 * reason can also be a delivery of a quorum queue that was not settled within its consumer timeout. In that case the
 * consumer still exists in the broker: an ack would resume it, and its deliveries would have no receiver.
 */
import * as Duration from "effect/Duration"
import * as AmqpError from "../../model/error.ts"
import { isAtLeast } from "../wire/versions.ts"
import { type KnownQueue, typeOf } from "../connection/knownQueues.ts"

/** Whether the broker may cancel a consumer of this queue because a delivery was not settled in time. */
export const cancelsForTimeout = (product: string, queue: KnownQueue | undefined): boolean => {
  const type = typeOf(queue)
  return isAtLeast(product, 4, 3) && (type === undefined || type === "quorum")
}

/** What is known about the unsettled deliveries of a cancelled consumer. Times are in milliseconds. */
export interface Held {
  /** How long the oldest unsettled delivery was held; undefined if it is not known. */
  readonly held: number | undefined
  /** The consumer timeout; undefined unless this application has set it. */
  readonly timeout: number | undefined
  /** Whether the timeout is the reason for the cancel. */
  readonly isTimeout: boolean
}

const formatMillis = (millis: number | undefined) => Duration.format(Duration.millis(Math.round(millis ?? 0)))

export const consumerCancelled = (
  queue: string,
  consumerTag: string,
  /** Undefined if the consumer timeout cannot be the reason. */
  held: Held | undefined
): AmqpError.ConsumerCancelled => {
  const consumer = `basic.consume: the broker cancelled the consumer ${JSON.stringify(consumerTag)}`
  const name = JSON.stringify(queue)
  const others = `its queue ${name} was deleted, or the queue's node is gone`
  const oldest = held?.held === undefined ? "" : ` (the oldest was held for ${formatMillis(held.held)})`
  const message =
    held === undefined
      ? `${consumer}: ${others}`
      : held.isTimeout
        ? `${consumer} of the queue ${name}: a delivery was not settled within the consumer timeout of ${formatMillis(held.timeout)}; it was held for ${formatMillis(held.held)}. The broker delivers it again. Settle sooner, lower the prefetch, or raise consumerTimeout of the queue or the consumer.`
        : `${consumer}: ${others}, or a delivery was not settled within the consumer timeout${oldest}`
  return new AmqpError.ConsumerCancelled({ message, operation: "basic.consume", queue, consumerTag })
}
