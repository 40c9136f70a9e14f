/**
 * Policies: what happens to a delivery that was not handled, as plain values.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"

/**
 * The policy that returns a delivery to its queue after a pause, to be delivered again.
 *
 * **When to use**
 *
 * Use as the type of `redeliver`.
 *
 * **Details**
 *
 * The next delivery goes to this consumer or to another one. The message is never dropped, and comes back until it is
 * handled.
 *
 * @see {@link redeliver}
 * @see {@link requeue} for what counts towards the queue's limit
 *
 * @category models
 * @since 0.1.0
 */
export interface Redeliver {
  readonly _tag: "Redeliver"
}

/**
 * The policy that returns a delivery to its queue after a pause, by `basic.reject`.
 *
 * **When to use**
 *
 * Use as the type of `requeue`.
 *
 * **Details**
 *
 * The return counts towards the delivery limit of a quorum queue. When a message has come back more often than the
 * limit, the broker removes it from the queue: it moves it to the queue's dead-letter exchange, or drops it if the
 * queue has none.
 *
 * @see {@link requeue}
 *
 * @category models
 * @since 0.1.0
 */
export interface Requeue {
  readonly _tag: "Requeue"
}

/**
 * The policy that moves a delivery to the queue's dead-letter exchange.
 *
 * **When to use**
 *
 * Use as the type of `deadLetter`.
 *
 * **Gotchas**
 *
 * A queue without a dead-letter exchange drops the message.
 *
 * @see {@link deadLetter}
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter {
  readonly _tag: "DeadLetter"
}

/**
 * The policy that acknowledges a delivery as if it had been handled.
 *
 * **When to use**
 *
 * Use as the type of `drop`.
 *
 * **Gotchas**
 *
 * The message is gone, and does not go to a dead-letter exchange.
 *
 * @see {@link drop}
 *
 * @category models
 * @since 0.1.0
 */
export interface Drop {
  readonly _tag: "Drop"
}

/**
 * The policy that publishes a message to a queue in which it waits, and acknowledges the delivery when that is
 * confirmed.
 *
 * **When to use**
 *
 * Use as the type of what `retry` returns.
 *
 * @see {@link retry}
 *
 * @category models
 * @since 0.1.0
 */
export interface Retry {
  readonly _tag: "Retry"
  readonly options: RetryOptions
}

/**
 * What happens to a delivery that was not handled: `redeliver`, `requeue`, `deadLetter`, `drop` or `retry`.
 *
 * **When to use**
 *
 * Use as the result type of a function that chooses a policy by the error (`onFailure`, `onDefect`, `onDecodeFailure`).
 *
 * **Gotchas**
 *
 * These policies are for queues. For streams use a `StreamPolicy`.
 *
 * @see {@link FinalPolicy} for the policies after which a message does not come back
 *
 * @category models
 * @since 0.1.0
 */
export type Policy = Redeliver | Requeue | DeadLetter | Drop | Retry

/**
 * A policy after which a message does not come back: `deadLetter` or `drop`.
 *
 * **When to use**
 *
 * Use for messages that are given up (`onPoison` of a consumer, `onExhausted` of a retry).
 *
 * @see {@link Policy}
 *
 * @category models
 * @since 0.1.0
 */
export type FinalPolicy = DeadLetter | Drop

/**
 * Options of `retry`: the delays, the number of retries, and what happens afterwards.
 *
 * **When to use**
 *
 * Use with `retry`. Give either `delay` and `times`, the same delay before each retry, or `delays`, a delay for each
 * retry.
 *
 * @see {@link retry}
 *
 * @category models
 * @since 0.1.0
 */
export type RetryOptions = {
  /** What happens to the message when all retries have failed. Default: `deadLetter`. */
  readonly onExhausted?: FinalPolicy | undefined
  /**
   * The type of the delay queues. A quorum queue passes its messages on at least once. A classic queue does so at most
   * once: a message is lost if a node dies at that moment, or if the work queue refuses it because it is full.
   *
   * Default: `"quorum"`, whatever the type of the work queue is, but `"classic"` for a queue that is deleted with its
   * consumers. See `retry`.
   */
  readonly queueType?: "classic" | "quorum" | undefined
} & (
  | {
      /** The delay before each retry. 1 ms to 3650 days. A number is milliseconds. */
      readonly delay: Duration.DurationInput
      /** Number of retries after the first attempt. 1 to 1,000,000. */
      readonly times: number
    }
  | {
      /**
       * The delays before the retries, in order; the last one is used for all further retries. Each 1 ms to 3650 days.
       * A number is milliseconds.
       */
      readonly delays: ReadonlyArray<Duration.DurationInput>
      /** Number of retries after the first attempt. 1 to 1,000,000. Default: as many as there are delays. */
      readonly times?: number | undefined
    }
)

/**
 * Returns a delivery to its queue after a pause, to be delivered again, to this consumer or to another one.
 *
 * **When to use**
 *
 * Use for failures that are expected to pass, such as a database that is down. It is the default of all consumers of
 * queues.
 *
 * **Details**
 *
 * The pause is 1 second, and doubles with `Delivery.attempt` up to 30 seconds. A paused delivery counts towards
 * `prefetch`, but does not occupy a worker: other deliveries are handled during the pause. Up to half of the prefetch
 * may hold full pauses. Beyond that, the delivery that has paused longest is returned as soon as its pause has lasted 1
 * second. With a prefetch of 1, and on a queue that was declared here with a single active consumer, every pause is a
 * full one. No pause lasts longer than three quarters of the consumer timeout. All pauses end at once when the consumer
 * ends, and with their channel.
 *
 * The delivery is returned by `basic.nack`. Since RabbitMQ 4.3 that does not count towards the delivery limit of a
 * quorum queue. Up to 4.2 it counts, and the broker removes messages that have come back more often
 * (`ConsumeOptions.deliveryLimit`). In a queue that is not known to have a dead-letter exchange such a message would be
 * lost. There, one return before the limit, the delivery is retained: it is handled again from memory after each pause,
 * and the consumer takes no other deliveries until it has succeeded. A warning and a condition in the health report say
 * so. When the consumer ends, or when the consumer timeout is near, the delivery is returned; if it has already come
 * back for the last time, it is published again at the end of its queue.
 *
 * **Gotchas**
 *
 * - A message that always fails comes back forever, unless `maxDeliveries` is set.
 * - As many such messages as `prefetch` at the head of a queue block those behind them: `retry` moves them out of the
 *   way.
 *
 * @see {@link requeue} for returns that count towards the delivery limit on every version
 * @see {@link retry} for longer delays
 *
 * @category constructors
 * @since 0.1.0
 */
export const redeliver: Redeliver = { _tag: "Redeliver" }

/**
 * Returns a delivery to its queue after a pause, by `basic.reject`.
 *
 * **When to use**
 *
 * Use when the delivery limit of a quorum queue should end a message that always fails.
 *
 * **Details**
 *
 * The return counts towards the delivery limit of a quorum queue, on every version of RabbitMQ. When a message has come
 * back more often than the limit, the broker removes it from the queue: it moves it to the queue's dead-letter
 * exchange, or drops it if the queue has none. `redeliver` never lets the broker drop a message that way.
 *
 * | policy      | returned by    | counts towards the queue's limit | may be removed by the broker                         |
 * | ----------- | -------------- | -------------------------------- | ---------------------------------------------------- |
 * | `redeliver` | `basic.nack`   | up to RabbitMQ 4.2               | only to a dead-letter exchange, and only up to 4.2   |
 * | `requeue`   | `basic.reject` | on every version                 | yes; dropped in a queue without a dead-letter exchange |
 *
 * The limit is `QueueDeclareOptions.deliveryLimit`; without that option it is 20 on RabbitMQ 4, and there is none on
 * earlier versions.
 *
 * The pause is that of `redeliver`: 1 second, doubled with `Delivery.attempt` up to 30 seconds, within the same bounds.
 * What a handler returns itself (`Delivery.reject`, `Delivery.nack`) is returned at once.
 *
 * **Gotchas**
 *
 * A classic queue has no delivery limit. There a message that always fails comes back forever, unless `maxDeliveries`
 * ends it, which counts on every type of queue and on every version.
 *
 * @see {@link redeliver} for returns that never lose a message
 *
 * @category constructors
 * @since 0.1.0
 */
export const requeue: Requeue = { _tag: "Requeue" }

/**
 * Moves a delivery to the queue's dead-letter exchange.
 *
 * **When to use**
 *
 * Use for messages that will never succeed, such as invalid ones.
 *
 * **Details**
 *
 * If this application has declared the queue, the message is published there with the reason in its headers, and
 * acknowledged when that is confirmed; otherwise it is rejected. See `DeadLettering`. `AmqpDeadLetters` reads the
 * reasons, and brings messages back.
 *
 * **Gotchas**
 *
 * A queue without a dead-letter exchange drops the message.
 *
 * @see {@link drop} for messages that are not kept
 *
 * @category constructors
 * @since 0.1.0
 */
export const deadLetter: DeadLetter = { _tag: "DeadLetter" }

/**
 * Acknowledges a delivery as if it had been handled: the message is gone.
 *
 * **When to use**
 *
 * Use for messages that are no longer of interest, such as outdated ones.
 *
 * @see {@link deadLetter} for keeping the message in a dead-letter queue
 *
 * @category constructors
 * @since 0.1.0
 */
export const drop: Drop = { _tag: "Drop" }

/**
 * Tries again later: the message waits in a delay queue, and then comes back at the end of its queue.
 *
 * **When to use**
 *
 * Use for delays longer than the 30 seconds of `redeliver`, for a bounded number of retries, and where messages that
 * fail must not block those behind them.
 *
 * **Details**
 *
 * The consumer declares the delay queue (`AmqpTopology.retryQueueName`) and publishes the message to it. When the delay
 * is over, the broker puts the message back at the end of its queue. The delivery is acknowledged when the broker has
 * confirmed the publish. If it does not confirm, for instance because the delay queue has no majority of its nodes, the
 * delivery is returned as by `redeliver`, and may be delivered twice.
 *
 * If the broker or a check refuses the message for a reason that does not pass (no permission to write to the default
 * exchange, headers that leave no room in a frame, content larger than the broker accepts), `onExhausted` applies at
 * once, and an error is logged with the reason. Content above the publisher's own `maxMessageSize` is not such a
 * reason: the broker has delivered it, and so the message is published again unless the broker refuses it.
 *
 * *Delay queues.* A delay queue is a quorum queue that dead-letters at least once. No message is lost when a node dies,
 * and a message that the work queue refuses because it is full waits in the delay queue and is offered again every
 * three minutes (RabbitMQ's `dead_letter_worker_publisher_confirm_timeout`). RabbitMQ 3.10 and 3.11 require the feature
 * flag `stream_queue` for that: a warning is logged if it is disabled. RabbitMQ before 3.10 does not support it.
 *
 * Queues that are deleted with their consumers are exceptions, as far as this application has declared them. An
 * exclusive queue has exclusive delay queues. An auto-delete queue, and one that the broker has named, have classic
 * delay queues, which the consumer renews and which expire ten minutes after their last message when the consumer has
 * ended. If another application has declared such a queue, set `queueType: "classic"`.
 *
 * A delay queue that exists with other properties is used as it is, and a warning is logged. Version 0.1 had classic
 * delay queues by another name (`orders.retry.1000` instead of `orders.delay.1000`), which drain automatically. A
 * consumer removes them when it has found them empty ten times, up to a second apart, and checks once more ten minutes
 * later: consumers of both versions can run at the same time. Quorum queues among them stay, because RabbitMQ cannot
 * delete a quorum queue on the condition that it is empty.
 *
 * *What the message keeps.* Content, headers and properties stay as they were, headers byte for byte. `exchange` and
 * `routingKey` of the next delivery are those of the way back, the default exchange and the queue's name, by which the
 * broker also routes a later dead letter; `Delivery.origin` has those of the first publish. These are not kept:
 * `expiration`, which would cut the delay short; a `userId` other than the connection's, which the broker would refuse;
 * the headers `CC` and `BCC`, which would send copies again; and the broker's own record of earlier deliveries
 * (`x-death`, `x-delivery-count`).
 *
 * *What is added.* The headers `x-retry-queue`, `x-retry-count` (1 for the first retry), `x-retry-deliveries`,
 * `x-retry-exchange`, `x-retry-routing-key` and `x-retry-first-at` (when it failed first), with `retrySecret` also
 * `x-retry-signature`, and from the error its tag or name in `x-retry-error` and its message in `x-retry-reason`, at
 * most 1024 characters, without the secrets that can be recognized. Where they do not fit into a
 * frame with large headers, the error is left out, then `x-retry-exchange` and `x-retry-routing-key`; if the rest does
 * not fit either, `onExhausted` applies.
 *
 * The count applies to this queue only, and only while the message comes straight from a delay queue: in another queue
 * it starts again, and so it does for a dead letter that is moved back.
 *
 * **Gotchas**
 *
 * An error's message is sent to the broker in a header: keep secrets out of errors.
 *
 * @see {@link redeliver} for pauses of up to 30 seconds without a delay queue
 *
 * @category constructors
 * @since 0.1.0
 */
export const retry = (options: RetryOptions): Retry => ({ _tag: "Retry", options })
