/** Common shapes, each a topology together with the names in it. */
import * as Duration from "effect/Duration"
import type { ExchangeDeclareOptions, QueueDeclareOptions } from "../../model/channel.ts"
import { type DeadLetter, deadLetter, type Retry, retry } from "../../model/policies.ts"
import { delayQueueName, delayQueueOptions } from "./delayQueues.ts"
import { boolean, choice, isInvalidArgument, readerOf, type Table, withDefault } from "../wire/optionTable.ts"
import { textOf } from "./check.ts"
import * as Values from "./values.ts"
import { type Queue, type AmqpTopology, type Part } from "../../model/topology.ts"

/**
 * The name of the delay queue in which messages wait before they return to `queue`: `orders.delay.10000` for ten
 * seconds.
 *
 * **When to use**
 *
 * Use to publish to a delay queue directly, or to name it in permissions and policies.
 *
 * **Details**
 *
 * Where the name would be longer than AMQP's 255 bytes, or begin with `amq.`, a hash of the queue's name replaces a
 * part of it.
 *
 * **Gotchas**
 *
 * Up to version 0.1 the name was `orders.retry.10000`: see `AmqpConsumer.retry`.
 *
 * @see {@link retryQueues} for declaring delay queues
 * @category accessors
 * @since 0.1.0
 */
export const retryQueueName = (queue: string, delay: Duration.Input): string =>
  delayQueueName(queue, Duration.toMillis(delay))

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
 * Creates the topology of delay queues, one per delay: a message that is published to `retryQueueName(queue, delay)`
 * through the default exchange returns to `queue` after that delay.
 *
 * **When to use**
 *
 * Use for a work queue that is not described by `workQueue`, which has delay queues with its option `retryDelays`.
 *
 * **Details**
 *
 * Each delay has a queue of its own, because RabbitMQ drops expired messages only at the head of a queue: with an
 * individual time to live per message, a long wait would hold up the short waits behind it
 * (https://www.rabbitmq.com/docs/ttl#per-message-ttl-caveats).
 *
 * By default they are quorum queues that dead-letter at least once. While the full work queue refuses a message, the
 * message stays in its delay queue, which offers it again every three minutes (RabbitMQ's
 * `dead_letter_worker_publisher_confirm_timeout`).
 *
 * An option that is unknown or not valid is a mistake in the topology, which `check` reports.
 *
 * **Gotchas**
 *
 * RabbitMQ 3.10 and 3.11 dead-letter at least once only with the feature flag `stream_queue`. Without the flag they
 * dead-letter at most once and do not report it. A consumer that retries checks the flag and logs a warning.
 *
 * **Example** (Adding delay queues to an existing queue)
 *
 * ```ts
 * import { AmqpTopology } from "@effect-amqp/core"
 *
 * const topology = AmqpTopology.retryQueues("orders", ["10 seconds", "5 minutes"])
 * ```
 *
 * @see {@link workQueue} for a work queue with delay queues
 * @see {@link retryQueueName} for the names of the delay queues
 * @category constructors
 * @since 0.1.0
 */
export const retryQueues = (
  queue: string,
  delays: ReadonlyArray<Duration.Input>,
  options?: RetryQueueOptions
): AmqpTopology => delayQueuesOf(queue, delays, retryQueueOptionsOf("AmqpTopology.retryQueues", options))

const retryQueueRules = {
  queueType: withDefault(choice(["classic", "quorum"]), "quorum"),
  durable: boolean
} satisfies Table<RetryQueueOptions>

const retryQueueOptionsOf = readerOf(retryQueueRules)

// A refused option is a mistake in the topology, which `check` reports. Its delay queues are the default ones.
const delayQueuesOf = (
  queue: string,
  delays: ReadonlyArray<Duration.Input>,
  read: ReturnType<typeof retryQueueOptionsOf>
): AmqpTopology => {
  const isRefused = isInvalidArgument(read)
  const { durable, queueType } = isRefused ? ({ durable: undefined, queueType: "quorum" } as const) : read
  const topology = Values.make(
    Values.externalQueue(queue),
    ...delays.map((delay) =>
      Values.queue(retryQueueName(queue, delay), {
        ...(durable === undefined ? undefined : { durable }),
        ...delayQueueOptions(queue, Duration.toMillis(delay), queueType)
      })
    )
  )
  return isRefused ? { ...topology, issues: [textOf(read)] } : topology
}

const workQueueRetryTypeOf = readerOf({ retryQueueType: retryQueueRules.queueType })

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
  readonly retryDelays?: ReadonlyArray<Duration.Input> | undefined
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

// A dead letter leaves a classic queue before its arrival is confirmed. Quorum queues dead-letter at least once, but
// only with these options.
const safely = (queueType: "classic" | "quorum" | undefined): QueueDeclareOptions =>
  queueType === "quorum" ? { deadLetterStrategy: "at-least-once", overflow: "reject-publish" } : {}

const isLimited = ({ maxLength, maxLengthBytes }: QueueDeclareOptions): boolean =>
  (maxLength ?? maxLengthBytes) !== undefined

/** Combinations that lose messages although each queue on its own is valid. */
const lossesOf = (work: Queue, deadLetters: Queue, hasDelays: boolean): ReadonlyArray<string> => {
  const losses: Array<string> = []
  const [name, dlq] = [work.name, deadLetters.name].map((name) => JSON.stringify(name))
  if (hasDelays && isLimited(work.options) && work.options.overflow === "reject-publish-dlx") {
    losses.push(
      `queue ${name}: with overflow "reject-publish-dlx", a message that comes back from a delay queue while this one is full is dead-lettered each time the delay queue offers it, and is still returned later: use overflow "reject-publish"`
    )
  }
  if (isLimited(deadLetters.options) && deadLetters.options.deadLetterExchange === undefined) {
    const isRefusing = deadLetters.options.overflow === "reject-publish"
    if (!isRefusing) {
      losses.push(
        `queue ${dlq}: when it is full, it drops the oldest dead letter for each new one. Leave maxLength and maxLengthBytes out, give it a deadLetterExchange of its own, or use queueType "quorum" with overflow "reject-publish", so that dead letters wait in queue ${name}`
      )
    } else if (work.options.deadLetterStrategy !== "at-least-once") {
      losses.push(
        `queue ${dlq}: when it is full, it refuses dead letters, which queue ${name} then drops, because it dead-letters at most once. Use queueType "quorum" without a deadLetterStrategy, so that dead letters wait in queue ${name}, or leave maxLength and maxLengthBytes out`
      )
    }
  }
  return losses
}

/**
 * Creates the topology of a work queue: several consumers share its messages, and rejected messages go to a dead-letter
 * queue with their original routing key.
 *
 * **When to use**
 *
 * Use for work that several consumers share and that must not be lost when a handler fails. With `retryDelays` it also
 * has delay queues for later attempts.
 *
 * **Details**
 *
 * - `onFailure` is the failure policy that fits the topology. Pass it to `AmqpConsumer.consume` as `onFailure`, and as
 *   `onDefect` for handlers that throw or reject: by default these are redelivered and never dead-lettered.
 * - With `queueType: "quorum"` the work queue dead-letters at least once, by `overflow: "reject-publish"`: a dead
 *   letter leaves the work queue when the dead-letter queue has confirmed it, and counts towards `maxLength` until
 *   then. A classic work queue dead-letters at most once: a dead letter is lost if a node dies at that moment.
 * - `check` reports combinations that lose messages, and `declare` and `layer` refuse them, with what to do: classic
 *   delay queues in front of a queue that refuses messages when it is full, a dead-letter queue that drops messages
 *   when it is full, and a `deadLetterStrategy` that would not be in force.
 *
 * **Gotchas**
 *
 * It sets no `deliveryLimit`. On RabbitMQ 4 the broker's own limit of 20 applies, and a message that has returned that
 * often goes to the dead-letter queue. Not only failures count: a lost connection, and every `channel.close`, counts
 * for all messages that were sent ahead and that no handler has seen. Count failures with `maxDeliveries` of the
 * consumer, and choose a `deliveryLimit` well above the number of connections that may be lost while a message waits.
 *
 * **Example** (Retrying with delays, then dead-lettering)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpConsumer, AmqpTopology } from "@effect-amqp/core"
 *
 * const orders = AmqpTopology.workQueue("orders", {
 *   queueType: "quorum",
 *   retryDelays: ["1 second", "1 minute"]
 * })
 *
 * orders.deadLetterQueue // "orders.dlq"
 * orders.retryQueues // ["orders.delay.1000", "orders.delay.60000"]
 *
 * // The orders are published to an exchange of another team.
 * const topology = AmqpTopology.make(
 *   orders,
 *   AmqpTopology.externalExchange("shop"),
 *   AmqpTopology.queueBinding("orders", "shop", "order.created")
 * )
 *
 * declare const fulfil: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void, Error>
 *
 * // A failed message is handled again after 1 second and after 1 minute, then dead-lettered.
 * const consumer = AmqpConsumer.consume(orders.queue, fulfil, {
 *   onFailure: orders.onFailure,
 *   onDefect: orders.onFailure
 * })
 * ```
 *
 * @see {@link retryQueues} for delay queues of another queue
 * @see {@link publishSubscribe} for copies to several subscribers
 * @category constructors
 * @since 0.1.0
 */
export const workQueue = (name: string, options: WorkQueueOptions = {}): WorkQueue => {
  const { deadLetterQueue: ofDeadLetterQueue, retryDelays = [], retryQueueType, ...ofQueue } = options
  const around = { queueType: options.queueType, durable: options.durable }
  const deadLetterExchange = `${name}.dlx`
  const work = Values.queue(name, { ...safely(options.queueType), ...ofQueue, deadLetterExchange })
  const deadLetters = Values.queue(`${name}.dlq`, { ...ofDeadLetterQueue, ...around })
  const retryType = workQueueRetryTypeOf("AmqpTopology.workQueue", { retryQueueType })
  const delayQueues = isInvalidArgument(retryType)
    ? delayQueuesOf(name, retryDelays, retryType)
    : retryQueues(name, retryDelays, { queueType: retryType.retryQueueType })
  const topology = Values.make(
    Values.exchange(deadLetterExchange, "fanout", { durable: options.durable }),
    deadLetters,
    Values.queueBinding(deadLetters.name, deadLetterExchange),
    work,
    { ...delayQueues, external: [] }
  )
  const issues = [...(topology.issues ?? []), ...lossesOf(work, deadLetters, retryDelays.length > 0)]
  return {
    ...topology,
    ...(issues.length === 0 ? undefined : { issues }),
    queue: name,
    deadLetterExchange,
    deadLetterQueue: deadLetters.name,
    retryQueues: retryDelays.map((delay) => retryQueueName(name, delay)),
    onFailure: retryDelays.length === 0 ? deadLetter : retry({ delays: retryDelays, queueType: retryQueueType })
  }
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

/**
 * Creates the topology of an exchange and a queue per subscriber, which receives a copy of every message, or of the
 * messages with the routing keys that it names.
 *
 * **When to use**
 *
 * Use for events that several services receive independently of each other.
 *
 * **Details**
 *
 * The publisher and the subscribers may be separate services. Each describes the exchange in the same way and, if it
 * subscribes, its own queue. The service that starts first declares the exchange.
 *
 * **Gotchas**
 *
 * A message that is published before a subscriber's queue exists does not reach that subscriber.
 *
 * **Example** (A publisher and a subscriber in separate services)
 *
 * ```ts
 * import { AmqpTopology } from "@effect-amqp/core"
 *
 * // In the service that publishes:
 * const shop = AmqpTopology.publishSubscribe("shop", {})
 *
 * // In one that subscribes:
 * const billing = AmqpTopology.publishSubscribe("shop", {
 *   billing: { routingKeys: ["order.*", "refund.*"], queueType: "quorum" }
 * })
 * ```
 *
 * @see {@link workQueue} for work that consumers share
 * @category constructors
 * @since 0.1.0
 */
export const publishSubscribe = (
  exchange: string,
  subscribers: Readonly<Record<string, Subscriber>>,
  options: PublishSubscribeOptions = {}
): PublishSubscribe => {
  const { type = "topic", ...ofExchange } = options
  const parts: Array<Part> = [Values.exchange(exchange, type, ofExchange)]
  for (const [name, { routingKeys, ...ofQueue }] of Object.entries(subscribers)) {
    parts.push(Values.queue(name, ofQueue))
    for (const key of routingKeys ?? [type === "topic" ? "#" : ""]) {
      parts.push(Values.queueBinding(name, exchange, key))
    }
  }
  return { ...Values.make(...parts), exchange, subscribers: Object.keys(subscribers) }
}
