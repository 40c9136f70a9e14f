/** What becomes of a delivery of a stream that was not handled, as plain values. */

/** The consumer ends there, with `StreamStopped`. See `stop`. */
export interface Stop {
  readonly _tag: "Stop"
}

/** Logged and passed over. See `skip`. */
export interface Skip {
  readonly _tag: "Skip"
}

/** Published elsewhere, confirmed, and then passed over. See `publishTo`. */
export interface PublishTo {
  readonly _tag: "PublishTo"
  readonly exchange: string
  readonly routingKey: string
}

/** What becomes of a delivery of a stream that was not handled: `stop`, `skip` or `publishTo`. */
export type StreamPolicy = Stop | Skip | PublishTo

/**
 * The consumer of a stream ends at the message that was not handled, with `StreamStopped`, which has its offset and why:
 * the default for streams. Nothing is passed over: who consumes again, from that offset or with an offset store, meets
 * the message again.
 */
export const stop: Stop = { _tag: "Stop" }

/**
 * Passes over a message of a stream that was not handled. It stays in the stream, and this consumer does not see it again.
 * It is logged with its offset, and counted as `skipped` (`AmqpMetrics.settledMessages`).
 */
export const skip: Skip = { _tag: "Skip" }

/**
 * Publishes a copy of a message of a stream that was not handled, and passes over it when the broker has confirmed the
 * copy: a dead-letter queue, since streams have none of their own.
 *
 * The copy has the content, properties and headers of the message, and `x-failed-queue`, `x-failed-offset`,
 * `x-failed-exchange`, `x-failed-routing-key`, of the error its tag or name in `x-failed-error` and its message in
 * `x-failed-reason`, at most 1024 characters. An error's message goes to the broker with it: keep secrets out of errors.
 * Not kept are `expiration`, a `userId` other than the connection's, and the headers `CC` and `BCC`.
 *
 * The copy is published with `mandatory`, at least once. While publishing is not possible it is tried again, after 1
 * second, doubled up to 30 seconds, and the message holds its worker. If publishing cannot succeed (no such exchange, no
 * queue that takes it, no permission), the consumer ends with `StreamStopped` instead of passing over it.
 *
 * @example
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 *
 * // By the default exchange, straight to a queue.
 * const policy = AmqpConsumer.publishTo({ routingKey: "orders.failed" })
 * ```
 */
export const publishTo = (options: {
  /** Default: `""`, the default exchange. */
  readonly exchange?: string | undefined
  readonly routingKey: string
}): PublishTo => ({ _tag: "PublishTo", exchange: options.exchange ?? "", routingKey: options.routingKey })
