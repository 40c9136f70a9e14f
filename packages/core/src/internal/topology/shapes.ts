/** The usual shapes, each a topology and the names in it. */
import * as Duration from "effect/Duration"
import type { ExchangeDeclareOptions, QueueDeclareOptions } from "../../AmqpChannel.ts"
import * as Values from "./values.ts"

/** The queue in which messages wait before they come back to `queue`: `orders.retry.10000` for ten seconds. */
export const retryQueueName = (queue: string, delay: Duration.Input): string =>
  `${queue}.retry.${Duration.toMillis(delay)}`

/** Options of the queues around a work queue. */
export interface RetryQueueOptions {
  /** Quorum queues hand their messages on at least once, classic ones at most once. Default: `"classic"`. */
  readonly queueType?: "classic" | "quorum" | undefined
  /** Default: `true`. */
  readonly durable?: boolean | undefined
}

// A dead letter leaves a classic queue before it is known to have arrived. Quorum queues can do better, if told so.
const safely = (queueType: "classic" | "quorum" | undefined): QueueDeclareOptions =>
  queueType === "quorum" ? { deadLetterStrategy: "at-least-once", overflow: "reject-publish" } : {}

/**
 * Queues in which messages wait for a while, one for each delay: what is published to `retryQueueName(queue, delay)`
 * through the default exchange comes back to `queue` after that delay.
 *
 * A queue for each delay, since RabbitMQ drops expired messages at the head of a queue only: with a time of its own on
 * every message, a long wait would hold up the short ones behind it (https://www.rabbitmq.com/docs/ttl#per-message-ttl-caveats).
 *
 * `workQueue` has these with `retryDelays`; use this for a queue that is described otherwise.
 */
export const retryQueues = (
  queue: string,
  delays: ReadonlyArray<Duration.Input>,
  options: RetryQueueOptions = {}
): Values.AmqpTopology =>
  Values.make(
    Values.externalQueue(queue),
    ...delays.map((delay) =>
      Values.queue(retryQueueName(queue, delay), {
        ...options,
        ...safely(options.queueType),
        messageTtl: Duration.toMillis(delay),
        deadLetterExchange: "",
        deadLetterRoutingKey: queue
      })
    )
  )

/** Options of `workQueue`: those of the work queue itself, and of what stands around it. */
export interface WorkQueueOptions extends Omit<
  QueueDeclareOptions,
  "exclusive" | "autoDelete" | "queueType" | "deadLetterExchange" | "deadLetterRoutingKey"
> {
  /** Of the work queue and all around it. `"quorum"` keeps messages on several nodes. Default: `"classic"`. */
  readonly queueType?: "classic" | "quorum" | undefined
  /** A queue for each delay, see `retryQueues`. Default: none. */
  readonly retryDelays?: ReadonlyArray<Duration.Input> | undefined
  /** Further options of the dead-letter queue, such as a `messageTtl` or a `maxLength`. */
  readonly deadLetterQueue?: Omit<QueueDeclareOptions, "exclusive" | "autoDelete" | "queueType" | "durable"> | undefined
}

/** A work queue, and what stands around it. */
export interface WorkQueue extends Values.AmqpTopology {
  /** The work queue's name. */
  readonly queue: string
  /** `<queue>.dlx`, a fanout exchange. */
  readonly deadLetterExchange: string
  /** `<queue>.dlq`. */
  readonly deadLetterQueue: string
  /** The names of the queues with a delay, in the order of `retryDelays`. */
  readonly retryQueues: ReadonlyArray<string>
}

/**
 * A work queue: several consumers share what is in it, and what they reject is kept in a dead-letter queue, with its
 * routing key as it was, instead of being dropped. With `retryDelays` there are queues for trying again later.
 *
 * @example
 * ```ts
 * import { AmqpTopology } from "@effect-amqp/core"
 *
 * const orders = AmqpTopology.workQueue("orders", {
 *   queueType: "quorum",
 *   retryDelays: ["1 second", "1 minute"]
 * })
 *
 * orders.deadLetterQueue // "orders.dlq"
 * orders.retryQueues // ["orders.retry.1000", "orders.retry.60000"]
 *
 * // What the orders are about comes from an exchange of another team.
 * const topology = AmqpTopology.make(
 *   orders,
 *   AmqpTopology.externalExchange("shop"),
 *   AmqpTopology.queueBinding("orders", "shop", "order.created")
 * )
 * ```
 */
export const workQueue = (name: string, options: WorkQueueOptions = {}): WorkQueue => {
  const { deadLetterQueue: ofDeadLetterQueue, retryDelays = [], ...ofQueue } = options
  const around = { queueType: options.queueType, durable: options.durable }
  const deadLetterExchange = `${name}.dlx`
  const deadLetterQueue = `${name}.dlq`
  return {
    ...Values.make(
      Values.exchange(deadLetterExchange, "fanout", { durable: options.durable }),
      Values.queue(deadLetterQueue, { ...ofDeadLetterQueue, ...around }),
      Values.queueBinding(deadLetterQueue, deadLetterExchange),
      Values.queue(name, { ...safely(options.queueType), ...ofQueue, deadLetterExchange }),
      { ...retryQueues(name, retryDelays, around), external: [] }
    ),
    queue: name,
    deadLetterExchange,
    deadLetterQueue,
    retryQueues: retryDelays.map((delay) => retryQueueName(name, delay))
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
export interface PublishSubscribe extends Values.AmqpTopology {
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
  const parts: Array<Values.Part> = [Values.exchange(exchange, type, ofExchange)]
  for (const [name, { routingKeys, ...ofQueue }] of Object.entries(subscribers)) {
    parts.push(Values.queue(name, ofQueue))
    for (const key of routingKeys ?? [type === "topic" ? "#" : ""]) {
      parts.push(Values.queueBinding(name, exchange, key))
    }
  }
  return { ...Values.make(...parts), exchange, subscribers: Object.keys(subscribers) }
}
