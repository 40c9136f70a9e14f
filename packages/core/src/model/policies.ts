/** What becomes of a delivery that was not handled, as plain values. */
import type * as Duration from "effect/Duration"

/**
 * Back into the queue after a pause, to be delivered again, here or to another consumer. It is never dropped, and comes
 * back until it is handled. See `redeliver`, and `requeue` for what counts towards the queue's limit.
 */
export interface Redeliver {
  readonly _tag: "Redeliver"
}

/**
 * Back into the queue after a pause, by `basic.reject`, which counts towards the delivery limit of a quorum queue. The broker
 * takes a message out that has come back more often: to the queue's dead-letter exchange, or for good. See `requeue`.
 */
export interface Requeue {
  readonly _tag: "Requeue"
}

/** Rejected: to the queue's dead-letter exchange. A queue without one drops the message. */
export interface DeadLetter {
  readonly _tag: "DeadLetter"
}

/** Acknowledged as if it had been handled: gone, and in no dead-letter queue. */
export interface Drop {
  readonly _tag: "Drop"
}

/** Published again to a queue in which it waits, and acknowledged when that is confirmed. See `retry`. */
export interface Retry {
  readonly _tag: "Retry"
  readonly options: RetryOptions
}

/** What becomes of a delivery that was not handled: `redeliver`, `requeue`, `deadLetter`, `drop` or `retry`. */
export type Policy = Redeliver | Requeue | DeadLetter | Drop | Retry

/** What ends it: the policies after which a message does not come back. */
export type FinalPolicy = DeadLetter | Drop

/** When to try again, how often, and what then. Either the same delay each time, or one for each time. */
export type RetryOptions = {
  /** What becomes of the message when all tries have failed. Default: `deadLetter`. */
  readonly then?: FinalPolicy | undefined
  /**
   * The type of the delay queues. Classic ones hand their messages on at most once: a message is lost if a node dies at
   * that moment, and while its queue refuses it, being full. Default: `"quorum"`, at least once, whatever the type of the
   * work queue; but classic ones for a queue that goes with its consumers. See `retry`.
   */
  readonly queueType?: "classic" | "quorum" | undefined
} & (
  | {
      /** 1 ms to 3650 days. A number is milliseconds. */
      readonly delay: Duration.Input
      /** How often it is tried again after the first time. 1 to 1,000,000. */
      readonly times: number
    }
  | {
      /** One after the other; the last one for all further tries. Each 1 ms to 3650 days. */
      readonly delays: ReadonlyArray<Duration.Input>
      /** Default: as many as there are delays. */
      readonly times?: number | undefined
    }
)

/**
 * Back into the queue after a pause, to be delivered again, here or to another consumer: the default of all consumers.
 *
 * The pause is 1 second, and doubles with `Delivery.attempt` up to 30 seconds. A paused delivery counts towards `prefetch`
 * and takes no worker: others are handled meanwhile. Half of the prefetch is for full pauses; beyond that the delivery
 * that has paused longest goes back as soon as its pause has lasted 1 second. With a prefetch of 1, and on a queue that was
 * declared here with a single active consumer, every pause is a full one. No pause lasts beyond three quarters of the
 * consumer timeout, and all end at once when the consumer ends, and with their channel.
 *
 * A message that always fails comes back forever, unless `maxDeliveries` is set. As many of them as `prefetch` at the head of
 * a queue hold up those behind: `retry` moves them out of the way.
 *
 * It goes back by `basic.nack`. Since RabbitMQ 4.3 that does not count towards the delivery limit of a quorum queue. Up to 4.2
 * it does, and the broker takes out what has come back more often (`ConsumeOptions.deliveryLimit`). In a queue that is not known to have a dead-letter exchange that
 * would be loss: one return before the limit the delivery is kept and handled again from memory after each pause, and the
 * consumer takes no others until it has succeeded. A warning and a condition in the health say so. When the consumer ends,
 * or the consumer timeout draws near, the delivery goes back, or is published again at the end of its queue if it has come
 * back for the last time.
 */
export const redeliver: Redeliver = { _tag: "Redeliver" }

/**
 * Back into the queue after a pause, by `basic.reject`: what comes back counts towards the delivery limit of a quorum queue, on
 * every version of RabbitMQ. A message that has come back more often than the limit says is taken out by the broker: to the
 * queue's dead-letter exchange, or for good if it has none. `redeliver` never lets a message be taken out so.
 *
 * | policy      | goes back by   | counts towards the queue's limit | may be taken out by the broker                    |
 * | ----------- | -------------- | -------------------------------- | ------------------------------------------------- |
 * | `redeliver` | `basic.nack`   | up to RabbitMQ 4.2               | only to a dead-letter exchange, and up to 4.2     |
 * | `requeue`   | `basic.reject` | on every version                 | yes; for good in a queue without such an exchange |
 *
 * The limit is `QueueDeclareOptions.deliveryLimit`, without one 20 on RabbitMQ 4 and none before. A classic queue has none:
 * there a message that always fails comes back forever, unless `maxDeliveries` ends it, which counts on every type of queue
 * and every version.
 *
 * It pauses like `redeliver`: 1 second, doubled with `Delivery.attempt` up to 30 seconds, within the same bounds. What a handler
 * gives back itself (`Delivery.reject`, `Delivery.nack`) goes back at once.
 */
export const requeue: Requeue = { _tag: "Requeue" }

/** To the queue's dead-letter exchange; dropped if it has none. */
export const deadLetter: DeadLetter = { _tag: "DeadLetter" }

/** Gone, as if it had been handled. */
export const drop: Drop = { _tag: "Drop" }

/**
 * Tries again later: the message is published to a delay queue (`AmqpTopology.retryQueueName`, declared by the consumer),
 * from which the broker puts it back at the end of its queue when the delay is over. The delivery is acknowledged when the
 * broker has confirmed that. If it does not, for instance because the delay queue has no majority of its nodes, the delivery
 * goes back as by `redeliver`, and may come twice. If the broker or a check refuses the message, which no waiting helps (no
 * permission to write to the default exchange, headers that leave no room in a frame, a content larger than the broker
 * takes), it ends as `then` says, at once, and an error is logged with the reason. A content above the publisher's own
 * `maxMessageSize` is no reason: the broker has delivered it, and takes it again unless it says no.
 *
 * A delay queue is a quorum queue that dead-letters at least once: no message is lost when a node dies, and what comes back
 * while the queue refuses it, being full, waits in the delay queue and is offered again every three minutes (RabbitMQ's
 * `dead_letter_worker_publisher_confirm_timeout`). RabbitMQ 3.10 and 3.11 need the feature flag `stream_queue` for that: a
 * warning says so if it is disabled. RabbitMQ before 3.10 cannot do it.
 *
 * Exceptions are queues that go with their consumers, as far as this application has declared them: an exclusive queue has
 * exclusive delay queues; an auto-delete one, and one that the broker has named, has classic delay queues that the consumer
 * renews, and that expire ten minutes after their last message when it has ended. If another application has declared such
 * a queue, give `queueType: "classic"`.
 *
 * A delay queue that exists with other properties is used as it is, and a warning is logged. Version 0.1 had classic delay
 * queues by another name (`orders.retry.1000` instead of `orders.delay.1000`). They drain by themselves. A consumer removes
 * them when it has found them empty ten times, up to a second apart, and looks once more ten minutes later: consumers of
 * both versions can run side by side. Quorum queues among them stay, since RabbitMQ cannot delete one only if it is empty.
 *
 * Content, headers and properties stay as they were, headers byte for byte. `exchange` and `routingKey` of the delivery are those of the way back,
 * the default exchange and the queue's name, by which the broker also routes a later dead letter; `Delivery.origin` has
 * those of the first time. Not kept are `expiration`, which would cut the delay short; a `userId` other than the
 * connection's, which the broker would refuse; the headers `CC` and `BCC`, which would send copies again; and the broker's
 * own record of earlier deliveries (`x-death`, `x-delivery-count`).
 *
 * Added are `x-retry-queue`, `x-retry-count` (1 for the first retry), `x-retry-deliveries`, `x-retry-exchange`,
 * `x-retry-routing-key`, with `retrySecret` `x-retry-signature`, and of the error its tag or name in `x-retry-error` and
 * its message in `x-retry-reason`, at most 1024 characters. An error's message goes to the broker with it: keep secrets
 * out of errors. The count holds for this queue alone, and while the message comes straight from a delay queue: in another
 * queue it is new, and so is a dead letter that is moved back.
 * Where they do not fit into a frame beside large headers, the error is left out, then `x-retry-exchange` and
 * `x-retry-routing-key`; if the rest does not fit either, the message ends as `then` says.
 *
 * @example
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 *
 * // After 1 s, 10 s, and a minute three times; then it is dead-lettered.
 * const policy = AmqpConsumer.retry({ delays: ["1 second", "10 seconds", "1 minute"], times: 5 })
 * ```
 */
export const retry = (options: RetryOptions): Retry => ({ _tag: "Retry", options })
