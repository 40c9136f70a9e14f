/**
 * Policies of streams: what happens to a delivery of a stream that was not handled, as plain values.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */

/**
 * The policy that ends the consumer of a stream, with `StreamStopped`.
 *
 * **When to use**
 *
 * Use as the type of `stop`.
 *
 * @see {@link stop}
 *
 * @category models
 * @since 0.1.0
 */
export interface Stop {
  readonly _tag: "Stop"
}

/**
 * The policy that logs and passes over a message of a stream.
 *
 * **When to use**
 *
 * Use as the type of `skip`.
 *
 * @see {@link skip}
 *
 * @category models
 * @since 0.1.0
 */
export interface Skip {
  readonly _tag: "Skip"
}

/**
 * The policy that publishes a copy of a message of a stream elsewhere, and passes over the message when the copy is
 * confirmed.
 *
 * **When to use**
 *
 * Use as the type of what `publishTo` returns.
 *
 * @see {@link publishTo}
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishTo {
  readonly _tag: "PublishTo"
  /** The exchange of the copy; `""` is the default exchange. */
  readonly exchange: string
  /** The routing key of the copy. */
  readonly routingKey: string
}

/**
 * What happens to a delivery of a stream that was not handled: `stop`, `skip` or `publishTo`.
 *
 * **When to use**
 *
 * Use as the result type of a function that chooses a policy by the error, for a consumer of a stream.
 *
 * @category models
 * @since 0.1.0
 */
export type StreamPolicy = Stop | Skip | PublishTo

/**
 * Ends the consumer of a stream at the message that was not handled.
 *
 * **When to use**
 *
 * Use when no message may be passed over. It is the default for streams.
 *
 * **Details**
 *
 * The consumer fails with `StreamStopped`, which has the offset of the message and the cause. No message is passed
 * over: a consumer that starts again, from that offset or with an offset store, gets the message again.
 *
 * @see {@link skip}
 * @see {@link publishTo}
 *
 * @category constructors
 * @since 0.1.0
 */
export const stop: Stop = { _tag: "Stop" }

/**
 * Passes over a message of a stream that was not handled.
 *
 * **When to use**
 *
 * Use for messages whose loss is acceptable.
 *
 * **Details**
 *
 * The message stays in the stream, and this consumer does not get it again. It is logged with its offset, and counted
 * as `skipped` (`AmqpMetrics.settledMessages`).
 *
 * @see {@link publishTo} for keeping a copy
 *
 * @category constructors
 * @since 0.1.0
 */
export const skip: Skip = { _tag: "Skip" }

/**
 * Publishes a copy of a message of a stream that was not handled, and passes over the message when the broker has
 * confirmed the copy.
 *
 * **When to use**
 *
 * Use for a dead-letter queue of a stream, because streams have no dead-letter exchange of their own.
 *
 * **Details**
 *
 * The copy has the content, properties and headers of the message, and the headers `x-failed-*` of a dead letter: the
 * stream and the offset (`x-failed-offset`), the exchange and the routing key, the error's tag and message, the
 * consumer, the host, the time, and the trace. docs/when-a-message-fails.md describes them; `AmqpDeadLetters` reads
 * them. With `retrySecret` they are signed. Where the message's own headers leave too little room in a frame, the
 * error's message is left out first, then everything but stream, offset, exchange, routing key and attempt.
 * `expiration`, a `userId` other than the connection's, and the headers `CC` and `BCC` are not kept.
 *
 * The copy is published with `mandatory`, at least once. While publishing is not possible it is tried again, after 1
 * second, doubled up to 30 seconds, and the message occupies its worker. If publishing cannot succeed (no such
 * exchange, no queue that takes the copy, no permission), the consumer ends with `StreamStopped` instead of passing
 * over the message.
 *
 * **Gotchas**
 *
 * An error's message is sent to the broker in a header, without the secrets that can be recognized: keep secrets out
 * of errors.
 *
 * @see {@link stop} for ending the consumer instead
 *
 * @category constructors
 * @since 0.1.0
 */
export const publishTo = (options: {
  /** The exchange of the copy. Default: `""`, the default exchange. */
  readonly exchange?: string | undefined
  /** The routing key of the copy. */
  readonly routingKey: string
}): PublishTo => ({ _tag: "PublishTo", exchange: options.exchange ?? "", routingKey: options.routingKey })
