/**
 * Exchanges, queues and bindings as values: described, checked and declared.
 *
 * @since 0.1.0
 */
import { AmqpTopology as Core } from "@effect-amqp/core"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope4 from "@effect-amqp/effect4/Scope"
import * as Layer4 from "@effect-amqp/effect4/Layer"
import type { AmqpConnection } from "./AmqpConnection.ts"
import { insideOf } from "./internal/inside.ts"
import { closeScope, run4, start4 } from "./internal/run.ts"
import { toOptions4 } from "./internal/values.ts"
import type { BindOptions, ExchangeDeclareOptions, ExchangeType, QueueDeclareOptions } from "./model/channel.ts"
import type { AmqpError } from "./model/error.ts"
import { AmqpPool } from "./model/pool.ts"
import type { AmqpTopology, Binding, Exchange, External, Part, Queue } from "./model/topology.ts"
import type {
  PublishSubscribe,
  PublishSubscribeOptions,
  RetryQueueOptions,
  Subscriber,
  WorkQueue,
  WorkQueueOptions
} from "./model/topologyShapes.ts"

export * from "./model/topology.ts"

export * from "./model/topologyShapes.ts"

/**
 * An exchange.
 *
 * **When to use**
 *
 * Use as a part of a topology.
 *
 * @category constructors
 * @since 0.1.0
 */
export const exchange = (name: string, type: ExchangeType, options?: ExchangeDeclareOptions): Exchange =>
  Core.exchange(name, type, toOptions4(options)) as Exchange

/**
 * A queue.
 *
 * **When to use**
 *
 * Use as a part of a topology.
 *
 * @category constructors
 * @since 0.1.0
 */
export const queue = (name: string, options?: QueueDeclareOptions): Queue =>
  Core.queue(name, toOptions4(options)) as Queue

/**
 * A binding that routes messages from an exchange to a queue.
 *
 * **When to use**
 *
 * Use as a part of a topology.
 *
 * @category constructors
 * @since 0.1.0
 */
export const queueBinding = (queue: string, exchange: string, routingKey?: string, options?: BindOptions): Binding =>
  Core.queueBinding(queue, exchange, routingKey, toOptions4(options)) as Binding

/**
 * A binding that routes messages from the exchange `source` to the exchange `destination`.
 *
 * **When to use**
 *
 * Use as a part of a topology.
 *
 * @category constructors
 * @since 0.1.0
 */
export const exchangeBinding = (
  destination: string,
  source: string,
  routingKey?: string,
  options?: BindOptions
): Binding => Core.exchangeBinding(destination, source, routingKey, toOptions4(options)) as Binding

/**
 * An exchange that another application declares.
 *
 * **When to use**
 *
 * Use to bind to an exchange that this application does not own.
 *
 * @category constructors
 * @since 0.1.0
 */
export const externalExchange = (name: string): External => Core.externalExchange(name)

/**
 * A queue that another application declares.
 *
 * **When to use**
 *
 * Use to bind a queue that this application does not own.
 *
 * @category constructors
 * @since 0.1.0
 */
export const externalQueue = (name: string): External => Core.externalQueue(name)

/**
 * A topology of these parts. Equal parts are declared once.
 *
 * **When to use**
 *
 * Use to combine exchanges, queues, bindings and other topologies.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (...parts: ReadonlyArray<Part>): AmqpTopology =>
  Core.make(...toOptions4<ReadonlyArray<Core.Part>>(parts)) as AmqpTopology

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
export const retryQueueName = (queue: string, delay: Duration.DurationInput): string =>
  Core.retryQueueName(queue, toOptions4(delay))

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
 * import { AmqpTopology } from "@effect-amqp/platform"
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
  delays: ReadonlyArray<Duration.DurationInput>,
  options?: RetryQueueOptions
): AmqpTopology => Core.retryQueues(queue, toOptions4(delays), options) as AmqpTopology

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
 * import { AmqpConsumer, AmqpTopology } from "@effect-amqp/platform"
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
export const workQueue = (name: string, options?: WorkQueueOptions): WorkQueue =>
  Core.workQueue(name, toOptions4(options)) as WorkQueue

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
 * import { AmqpTopology } from "@effect-amqp/platform"
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
  options?: PublishSubscribeOptions
): PublishSubscribe => Core.publishSubscribe(exchange, toOptions4(subscribers), toOptions4(options)) as PublishSubscribe

/**
 * The mistakes in a topology or a single part, each as a sentence; none if it can be declared.
 *
 * **When to use**
 *
 * Use in a test of an application's topology. `declare` and `layer` check it themselves.
 *
 * @category checking
 * @since 0.1.0
 */
export const check = (topology: Part): ReadonlyArray<string> => Core.check(toOptions4(topology))

/**
 * Declares a topology or a single part.
 *
 * **When to use**
 *
 * Use to declare once. `layer` also declares again what is lost.
 *
 * **Details**
 *
 * Fails with `InvalidTopology`, which lists every mistake, before anything is sent; or with the error of the declaration
 * that fails, such as `PreconditionFailed`.
 *
 * @see {@link layer} for an application's own topology
 *
 * @category declaring
 * @since 0.1.0
 */
export const declare = (topology: Part): Effect.Effect<void, AmqpError, AmqpPool> =>
  Effect.flatMap(AmqpPool, (pool) => run4(insideOf("AmqpTopology.declare", pool), Core.declare(toOptions4(topology))))

/**
 * Verifies that the exchanges and queues of a topology, or a single one, exist.
 *
 * **When to use**
 *
 * Use in a service that may not declare. Fails with `NotFound`, whose message lists everything that is missing.
 *
 * @category declaring
 * @since 0.1.0
 */
export const verify = (topology: Part): Effect.Effect<void, AmqpError, AmqpPool> =>
  Effect.flatMap(AmqpPool, (pool) => run4(insideOf("AmqpTopology.verify", pool), Core.verify(toOptions4(topology))))

/**
 * Options of `layer`.
 *
 * **When to use**
 *
 * Use to change how often the layer verifies that its exchanges and queues exist.
 *
 * @category options
 * @since 0.1.0
 */
export interface LayerOptions {
  /**
   * How often the layer verifies that its exchanges and queues exist. 1 second to 1 day; 0 or `"never"`: not at all.
   * Default: 30 seconds.
   */
  readonly checkInterval?: Duration.DurationInput | "never" | undefined
}

/**
 * Declares a topology or a single part when an application starts, and declares again what is lost.
 *
 * **When to use**
 *
 * Use for the exchanges and queues that an application owns.
 *
 * @see {@link declare} for declaring once
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  topology: Part,
  options?: LayerOptions
): Layer.Layer<never, AmqpError, AmqpConnection | AmqpPool> =>
  Layer.scopedDiscard(
    Effect.flatMap(AmqpPool, (pool) =>
      Effect.flatMap(Effect.acquireRelease(Effect.sync(Scope4.makeUnsafe), closeScope), (scope) =>
        start4(
          insideOf("AmqpTopology.layer", pool),
          Layer4.buildWithScope(Core.layer(toOptions4(topology), toOptions4(options)), scope)
        )
      )
    )
  ) as Layer.Layer<never, AmqpError, AmqpConnection | AmqpPool>
