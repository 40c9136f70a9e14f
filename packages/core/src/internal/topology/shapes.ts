/** The usual shapes, each a topology and the names in it. */
import * as Duration from "effect/Duration"
import type { ExchangeDeclareOptions, QueueDeclareOptions } from "../../model/channel.ts"
import { type DeadLetter, deadLetter, type Retry, retry } from "../../model/policies.ts"
import { delayQueueName, delayQueueOptions } from "./delayQueues.ts"
import * as Values from "./values.ts"
import { type Queue, type AmqpTopology, type Part } from "../../model/topology.ts"

/**
 * The name of the queue in which messages wait before they come back to `queue`: `orders.delay.10000` for ten seconds.
 *
 * Where that name would be longer than AMQP's 255 bytes, or begin with `amq.`, a hash of the queue's name takes the place
 * of a part of it. Up to version 0.1 the name was `orders.retry.10000`: see `AmqpConsumer.retry`.
 */
export const retryQueueName = (queue: string, delay: Duration.Input): string =>
  delayQueueName(queue, Duration.toMillis(delay))

/** Options of the delay queues of a work queue. */
export interface RetryQueueOptions {
  /**
   * Quorum queues hand their messages on at least once. Classic ones do it at most once: a message is lost if a node dies
   * at that moment, and while the work queue refuses it, being full. Default: `"quorum"`, whatever the type of the work
   * queue.
   */
  readonly queueType?: "classic" | "quorum" | undefined
  /** `false` is for classic ones: a quorum queue is always durable. Default: `true`. */
  readonly durable?: boolean | undefined
}

/**
 * Delay queues, one per delay: what is published to `retryQueueName(queue, delay)` through the default exchange comes back
 * to `queue` after that delay.
 *
 * Each delay has a queue of its own, since RabbitMQ drops expired messages at the head of a queue only: with a time of its
 * own on every message, a long wait would hold up the short ones behind it
 * (https://www.rabbitmq.com/docs/ttl#per-message-ttl-caveats).
 *
 * They are quorum queues that dead-letter at least once. RabbitMQ 3.10 and 3.11 do that only with the feature flag
 * `stream_queue`; without it they dead-letter at most once, and do not say so. A consumer that retries checks the flag and
 * logs a warning. While the work queue refuses what comes back, being full, a message stays in its delay queue and is
 * offered again every three minutes (RabbitMQ's `dead_letter_worker_publisher_confirm_timeout`).
 *
 * `workQueue` has these with `retryDelays`; use this for a queue that is described otherwise.
 */
export const retryQueues = (
  queue: string,
  delays: ReadonlyArray<Duration.Input>,
  options: RetryQueueOptions = {}
): AmqpTopology =>
  Values.make(
    Values.externalQueue(queue),
    ...delays.map((delay) =>
      Values.queue(retryQueueName(queue, delay), {
        ...(options.durable === undefined ? undefined : { durable: options.durable }),
        ...delayQueueOptions(queue, Duration.toMillis(delay), options.queueType ?? "quorum")
      })
    )
  )

/** Options of `workQueue`: those of the work queue itself, and of what stands around it. */
export interface WorkQueueOptions extends Omit<
  QueueDeclareOptions,
  "exclusive" | "autoDelete" | "queueType" | "deadLetterExchange" | "deadLetterRoutingKey"
> {
  /** Of the work queue and its dead-letter queue. `"quorum"` keeps messages on several nodes. Default: `"classic"`. */
  readonly queueType?: "classic" | "quorum" | undefined
  /** A delay queue per delay, see `retryQueues`. Default: none. */
  readonly retryDelays?: ReadonlyArray<Duration.Input> | undefined
  /** The type of the delay queues. `"classic"` loses messages, see `RetryQueueOptions`. Default: `"quorum"`. */
  readonly retryQueueType?: "classic" | "quorum" | undefined
  /** Further options of the dead-letter queue, such as a `messageTtl` or a `maxLength`. */
  readonly deadLetterQueue?: Omit<QueueDeclareOptions, "exclusive" | "autoDelete" | "queueType" | "durable"> | undefined
}

/** A work queue, and what stands around it. */
export interface WorkQueue extends AmqpTopology {
  /** The work queue's name. */
  readonly queue: string
  /** `<queue>.dlx`, a fanout exchange. */
  readonly deadLetterExchange: string
  /** `<queue>.dlq`. */
  readonly deadLetterQueue: string
  /** The names of the delay queues, in the order of `retryDelays`. */
  readonly retryQueues: ReadonlyArray<string>
  /**
   * The policy for this queue's consumers that uses what is declared here: `AmqpConsumer.retry` after each of
   * `retryDelays`, then the dead-letter queue; without `retryDelays` the dead-letter queue at once.
   */
  readonly onFailure: Retry | DeadLetter
}

// A dead letter leaves a classic queue before it is known to have arrived. Quorum queues can do better, if told so.
const safely = (queueType: "classic" | "quorum" | undefined): QueueDeclareOptions =>
  queueType === "quorum" ? { deadLetterStrategy: "at-least-once", overflow: "reject-publish" } : {}

const isLimited = ({ maxLength, maxLengthBytes }: QueueDeclareOptions): boolean =>
  (maxLength ?? maxLengthBytes) !== undefined

/** What loses messages although each queue by itself is as it was meant. */
const lossesOf = (work: Queue, deadLetters: Queue, hasDelays: boolean): ReadonlyArray<string> => {
  const losses: Array<string> = []
  const [name, dlq] = [work.name, deadLetters.name].map((name) => JSON.stringify(name))
  if (hasDelays && isLimited(work.options) && work.options.overflow === "reject-publish-dlx") {
    losses.push(
      `queue ${name}: with overflow "reject-publish-dlx", a message that comes back from a delay queue while this one is full is dead-lettered each time it is offered, and comes back all the same: use overflow "reject-publish"`
    )
  }
  if (isLimited(deadLetters.options) && deadLetters.options.deadLetterExchange === undefined) {
    const isRefusing = deadLetters.options.overflow === "reject-publish"
    if (!isRefusing) {
      losses.push(
        `queue ${dlq}: when it is full, it drops the oldest dead letter for each new one. Leave maxLength and maxLengthBytes out, give it a deadLetterExchange of its own, or use queueType "quorum" with overflow "reject-publish": dead letters then wait in queue ${name}`
      )
    } else if (work.options.deadLetterStrategy !== "at-least-once") {
      losses.push(
        `queue ${dlq}: when it is full, it refuses dead letters, which queue ${name} then drops, since it dead-letters at most once. Use queueType "quorum" without a deadLetterStrategy: they then wait in queue ${name}. Or leave maxLength and maxLengthBytes out`
      )
    }
  }
  return losses
}

/**
 * A work queue: several consumers share what is in it, and what they reject is kept in a dead-letter queue, with its
 * routing key as it was, instead of being dropped. With `retryDelays` there are delay queues for trying again later.
 *
 * `onFailure` is the policy that goes with it, so that topology and consumer cannot disagree.
 *
 * With `queueType: "quorum"` the work queue dead-letters at least once, by `overflow: "reject-publish"`: a dead letter
 * leaves it when the dead-letter queue has confirmed it, and counts towards `maxLength` until then. A classic one dead-letters
 * at most once: a dead letter is lost if a node dies at that moment.
 *
 * It sets no `deliveryLimit`: on RabbitMQ 4 the broker's own of 20 is in force, and sends what has come back so often to the
 * dead-letter queue. That is more than failures: a lost connection, and every `channel.close`, counts for all that was sent ahead
 * and that no handler has seen. Count failures by `maxDeliveries` of the consumer, and choose a `deliveryLimit` that is well
 * above the connections that may be lost while a message waits.
 *
 * Combinations that lose messages are mistakes, which `check` reports and `declare` and `layer` refuse, with what to do:
 * classic delay queues before a queue that refuses when it is full, a dead-letter queue that drops when it is full, a
 * `deadLetterStrategy` that would not be in force.
 *
 * @example
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
 * // What the orders are about comes from an exchange of another team.
 * const topology = AmqpTopology.make(
 *   orders,
 *   AmqpTopology.externalExchange("shop"),
 *   AmqpTopology.queueBinding("orders", "shop", "order.created")
 * )
 *
 * declare const fulfil: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void, Error>
 *
 * // Tried again after 1 second and after 1 minute, then dead-lettered.
 * const consumer = AmqpConsumer.consume(orders.queue, fulfil, { onFailure: orders.onFailure })
 * ```
 */
export const workQueue = (name: string, options: WorkQueueOptions = {}): WorkQueue => {
  const { deadLetterQueue: ofDeadLetterQueue, retryDelays = [], retryQueueType, ...ofQueue } = options
  const around = { queueType: options.queueType, durable: options.durable }
  const deadLetterExchange = `${name}.dlx`
  const work = Values.queue(name, { ...safely(options.queueType), ...ofQueue, deadLetterExchange })
  const deadLetters = Values.queue(`${name}.dlq`, { ...ofDeadLetterQueue, ...around })
  const issues = lossesOf(work, deadLetters, retryDelays.length > 0)
  return {
    ...Values.make(
      Values.exchange(deadLetterExchange, "fanout", { durable: options.durable }),
      deadLetters,
      Values.queueBinding(deadLetters.name, deadLetterExchange),
      work,
      { ...retryQueues(name, retryDelays, { queueType: retryQueueType }), external: [] }
    ),
    ...(issues.length === 0 ? undefined : { issues }),
    queue: name,
    deadLetterExchange,
    deadLetterQueue: deadLetters.name,
    retryQueues: retryDelays.map((delay) => retryQueueName(name, delay)),
    onFailure: retryDelays.length === 0 ? deadLetter : retry({ delays: retryDelays, queueType: retryQueueType })
  }
}

/** One of the queues that get a copy of what is published. */
export interface Subscriber extends QueueDeclareOptions {
  /** What it wants to get: patterns for a topic exchange. A fanout exchange ignores them. Default: everything. */
  readonly routingKeys?: ReadonlyArray<string> | undefined
}

/** The exchange of `publishSubscribe`: `"topic"` lets subscribers choose by routing key, `"fanout"` does not. */
export interface PublishSubscribeOptions extends ExchangeDeclareOptions {
  /** Default: `"topic"`. */
  readonly type?: "topic" | "fanout" | undefined
}

/** An exchange and its subscribers' queues. */
export interface PublishSubscribe extends AmqpTopology {
  /** The exchange's name. */
  readonly exchange: string
  /** The names of the subscribers' queues. */
  readonly subscribers: ReadonlyArray<string>
}

/**
 * An exchange to publish to, and a queue for each subscriber, which gets a copy of every message, or of those that it
 * wants. What is published before a subscriber's queue exists does not reach it.
 *
 * Publisher and subscribers may be services of their own. Each describes the exchange in the same way and, if it
 * subscribes, its own queue: whoever starts first declares the exchange.
 *
 * @example
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
