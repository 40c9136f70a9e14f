/**
 * Common shapes of topologies: their options, and the names in them.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type { ExchangeDeclareOptions, QueueDeclareOptions } from "./channel.ts"
import type { DeadLetter, Retry } from "./policies.ts"
import type { AmqpTopology } from "./topology.ts"

/**
 * Options of the delay queues of a work queue.
 *
 * **When to use**
 *
 * Use with `retryQueues` where delay queues are not durable quorum queues.
 *
 * @see {@link retryQueues} for the function that takes these options
 * @category options
 * @since 0.1.0
 */
export interface RetryQueueOptions {
  /**
   * The type of the delay queues, independent of the type of the work queue. Default: `"quorum"`.
   *
   * Quorum queues dead-letter at least once. Classic queues do so at most once: a message is lost if a node dies at
   * that moment, or while the full work queue refuses it.
   */
  readonly queueType?: "classic" | "quorum" | undefined
  /**
   * Whether the delay queues are durable. `false` is for classic queues; a quorum queue is always durable. Default:
   * `true`.
   */
  readonly durable?: boolean | undefined
}

/**
 * Options of `workQueue`: those of the work queue itself, of its delay queues and of its dead-letter queue.
 *
 * **When to use**
 *
 * Use with `workQueue` to choose a queue type, delays and limits.
 *
 * @see {@link workQueue} for the function that takes these options
 * @category options
 * @since 0.1.0
 */
export interface WorkQueueOptions extends Omit<
  QueueDeclareOptions,
  "exclusive" | "autoDelete" | "queueType" | "deadLetterExchange" | "deadLetterRoutingKey"
> {
  /**
   * The type of the work queue and of its dead-letter queue. `"quorum"` stores messages on several nodes. Default:
   * `"classic"`.
   */
  readonly queueType?: "classic" | "quorum" | undefined
  /** The delays of the delay queues, one queue per delay; see `retryQueues`. Default: none. */
  readonly retryDelays?: ReadonlyArray<Duration.DurationInput> | undefined
  /** The type of the delay queues. `"classic"` can lose messages; see `RetryQueueOptions`. Default: `"quorum"`. */
  readonly retryQueueType?: "classic" | "quorum" | undefined
  /** Further options of the dead-letter queue, such as a `messageTtl` or a `maxLength`. Default: none. */
  readonly deadLetterQueue?: Omit<QueueDeclareOptions, "exclusive" | "autoDelete" | "queueType" | "durable"> | undefined
}

/**
 * The topology of a work queue, the names in it, and the failure policy that fits it.
 *
 * **When to use**
 *
 * Use as the single source of the names and of the policy, so that the topology and its consumers cannot disagree.
 *
 * @see {@link workQueue} for creating one
 * @category models
 * @since 0.1.0
 */
export interface WorkQueue extends AmqpTopology {
  /** The work queue's name. */
  readonly queue: string
  /** The name of the dead-letter exchange: `<queue>.dlx`, a fanout exchange. */
  readonly deadLetterExchange: string
  /** The name of the dead-letter queue: `<queue>.dlq`. */
  readonly deadLetterQueue: string
  /** The names of the delay queues, in the order of `retryDelays`. */
  readonly retryQueues: ReadonlyArray<string>
  /**
   * The failure policy for consumers of this queue: `AmqpConsumer.retry` after each of `retryDelays`, then the
   * dead-letter queue. Without `retryDelays` it is the dead-letter queue at once.
   */
  readonly onFailure: Retry | DeadLetter
}

/**
 * A subscriber's queue: its options, and the routing keys of the messages that it receives.
 *
 * **When to use**
 *
 * Use in the record of subscribers that `publishSubscribe` takes.
 *
 * @see {@link publishSubscribe} for the function that takes subscribers
 * @category options
 * @since 0.1.0
 */
export interface Subscriber extends QueueDeclareOptions {
  /**
   * The routing keys that the queue is bound by: patterns for a topic exchange. A fanout exchange ignores them.
   * Default: every message.
   */
  readonly routingKeys?: ReadonlyArray<string> | undefined
}

/**
 * Options of the exchange of `publishSubscribe`.
 *
 * **When to use**
 *
 * Use with `publishSubscribe` to choose a fanout exchange, or options such as an `alternateExchange`.
 *
 * @see {@link publishSubscribe} for the function that takes these options
 * @category options
 * @since 0.1.0
 */
export interface PublishSubscribeOptions extends ExchangeDeclareOptions {
  /**
   * The type of the exchange: with `"topic"` subscribers choose by routing key, with `"fanout"` they receive
   * everything. Default: `"topic"`.
   */
  readonly type?: "topic" | "fanout" | undefined
}

/**
 * The topology of an exchange and its subscribers' queues, and the names in it.
 *
 * **When to use**
 *
 * Use as the single source of the names of the exchange and the queues.
 *
 * @see {@link publishSubscribe} for creating one
 * @category models
 * @since 0.1.0
 */
export interface PublishSubscribe extends AmqpTopology {
  /** The exchange's name. */
  readonly exchange: string
  /** The names of the subscribers' queues. */
  readonly subscribers: ReadonlyArray<string>
}
