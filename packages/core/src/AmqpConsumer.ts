/**
 * Consumers: handlers whose result settles their deliveries, batches of deliveries, and streams of deliveries.
 *
 * **When to use**
 *
 * `consume` is for services: it runs a handler for each delivery, acknowledges what succeeded, and applies its policies
 * to what failed. `consumeBatch` does the same for many deliveries together. `stream` returns the deliveries one by
 * one, for programs that settle them themselves.
 *
 * **Details**
 *
 * All consumers of a layer share one connection, separate from that of the publishers: a broker that is short of memory
 * blocks connections that publish, and deliveries and acknowledgements have to continue during that time. The
 * connection is opened for the first consumer, and closed some seconds after the last one has ended. Each consumer has
 * a channel of its own on it.
 *
 * **Gotchas**
 *
 * - Messages are delivered at least once: after a lost connection, a shutdown or a failure the same message is
 *   delivered again, perhaps after it was handled. Handlers have to be idempotent.
 * - Handlers are fibers, so heartbeats and acknowledgements continue while they wait, however long. A handler that
 *   computes without ever waiting stops the whole process: after two to three heartbeats the broker considers the
 *   connection dead. Let such a handler yield with `Effect.yieldNow`, or compute in a worker thread.
 *
 * @see {@link consume}
 * @see {@link consumeBatch}
 * @see {@link stream}
 *
 * @since 0.1.0
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { AmqpConnection } from "./model/connection.ts"
import type { AmqpError } from "./model/error.ts"
import { InsideId } from "./model/inside.ts"
import { json } from "./AmqpMessage.ts"
import { AmqpPublisher } from "./model/publisher.ts"
import { background, type WhenFailed } from "./internal/consumer/background.ts"
import { sharedConnection } from "./internal/consumer/sharedConnection.ts"
import { reportRefusal } from "./internal/consumer/consuming.ts"
import { handleBatches, handleEach } from "./internal/consumer/handling.ts"
import { readBatching, readHandling, readStream } from "./internal/consumer/options.ts"
import {
  accessOf,
  ConsumerInside,
  queuesOf,
  RunningConsumers,
  runningConsumersOf
} from "./internal/consumer/runningConsumers.ts"
import * as Streaming from "./internal/consumer/streaming.ts"
import { isInvalidArgument } from "./internal/wire/optionTable.ts"
import {
  type Delivery,
  type ConsumeOptions,
  type DecodeOptions,
  type HandlerInput,
  type InboxOptions,
  type BatchOptions,
  type StreamOptions,
  type Services,
  type Status,
  AmqpConsumer
} from "./model/consumer.ts"

export * from "./model/consumer.ts"

export * from "./model/policies.ts"

export * from "./model/streamPolicies.ts"

/**
 * Runs a handler for each delivery of a queue, and settles the delivery by how the handler ends.
 *
 * **When to use**
 *
 * Use in services. For work that is cheaper in bulk use `consumeBatch`, and to settle deliveries yourself use `stream`.
 *
 * **Details**
 *
 * | the handler          | the delivery                                                                                         |
 * | -------------------- | ---------------------------------------------------------------------------------------------------- |
 * | succeeds             | is acknowledged                                                                                      |
 * | fails                | `onFailure`, by default `redeliver`                                                                  |
 * | dies of a defect     | `onDefect`, by default `redeliver`; logged as an error                                               |
 * | is interrupted       | is returned: at once when the consumer ends; as by `redeliver` if the handler has interrupted itself |
 * | settles it itself    | stays as the handler has settled it; how the handler ends is only logged                             |
 * | is not called at all | `onDecodeFailure` if it could not be decoded, `onPoison` if it was delivered too often               |
 *
 * With a `schema` the handler gets the decoded value, and the delivery as its second argument.
 *
 * Each call of the handler has a scope of its own, which is closed before the delivery is settled, so `AmqpChannel.use`
 * in a handler borrows for that call.
 *
 * With an `inbox` the handler runs inside of it, for example in a transaction that records the message as handled: the
 * inbox decides whether the handler runs, and what both end with settles the delivery.
 *
 * As many fibers exist as handlers run at a time, and at most `prefetch` deliveries are in memory, however slow the
 * handlers are.
 *
 * It runs until it is interrupted, or fails with an `AmqpError`. It never ends silently: a failure is also logged as an
 * error. It fails with:
 *
 * - `InvalidArgument`: an option was refused, and nothing was sent;
 * - the reason why there will be no connection (credentials, virtual host, certificate);
 * - `NotFound` or `AccessRefused`: it cannot consume;
 * - the reasons that the option `resubscribe` lists;
 * - `StreamStopped`: a message of a stream was not handled;
 * - `ConnectionClosed`: the scope of the `AmqpConsumer` has closed.
 *
 * *Shutdown.* Interrupted, it ends in order. The broker stops delivering (`basic.cancel`). Running handlers may
 * continue for `shutdownTimeout`, then they are interrupted. When no handler runs any more, one `basic.nack` returns
 * the deliveries that no handler has seen, together with those of the interrupted handlers; what is still unsettled
 * then is returned when the channel closes. The single active consumer of a classic queue on RabbitMQ 3 is not
 * cancelled, because that can crash the queue: the close of its channel ends it. Handlers that are running when their
 * channel is lost continue too, but cannot settle: their deliveries are delivered again. If it is not interrupted
 * before the scope of the `AmqpConsumer` closes, it ends in the same order at that time, with `ConnectionClosed`;
 * handlers can publish and borrow channels until they are done.
 *
 * *Streams.* A stream is consumed in the same way, with these differences:
 *
 * - Messages stay in the stream, so no message is returned: a message that is not handled ends the consumer (`stop`,
 *   the default, with `StreamStopped`), or is passed over (`skip`, `publishTo`).
 * - The policies of queues are refused, and so are the options for repeated deliveries: `maxDeliveries`, `sharedCount`,
 *   `onPoison`, `deliveryLimit` and `retrySecret`.
 * - The consumer has a position, the lowest offset that is not handled, and continues there after each reconnect: no
 *   message is passed over, and messages that handlers are working on are not handed to them again. With `offsets` it
 *   continues there after a restart, too.
 * - At most `prefetch` messages (and the rest of a chunk) are above the position, so a message that takes long blocks
 *   the others when that many have been handled after it.
 * - A consumer that begins at `"next"` and loses its connection before its first message may get the messages of the
 *   last 5 seconds before it began; one that begins at `"last"`, those of the last minute.
 *
 * **Gotchas**
 *
 * - Use `Effect.forkScoped` for fibers that have to end with the call of the handler: calls take turns on the same
 *   fibers, so what `Effect.forkChild` starts continues until the consumer ends.
 * - RabbitMQ takes back a delivery that is not settled within 30 minutes: see `consumerTimeout`.
 *
 * **Example** (Handling decoded orders with retries)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { AmqpConsumer } from "@effect-amqp/core"
 *
 * class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { item: Schema.String }) {}
 * class Timeout extends Schema.TaggedError<Timeout>()("Timeout", {}) {}
 *
 * const Order = Schema.Struct({ id: Schema.Int, item: Schema.String })
 * declare const fulfil: (order: typeof Order.Type) => Effect.Effect<void, OutOfStock | Timeout>
 *
 * const orders = AmqpConsumer.consume("orders", fulfil, {
 *   schema: Order,
 *   concurrency: 10,
 *   onFailure: (error) =>
 *     error._tag === "Timeout"
 *       ? AmqpConsumer.retry({ delays: ["1 second", "10 seconds", "1 minute"] })
 *       : AmqpConsumer.deadLetter
 * })
 *
 * // It runs next to the rest of the application, which ends if the consumer ends.
 * declare const server: Effect.Effect<never>
 * const main = Effect.raceFirst(server, orders)
 * ```
 *
 * @see {@link consumeBatch} for work that is cheaper in bulk
 * @see {@link stream} for settling deliveries yourself
 *
 * @category consuming
 * @since 0.1.0
 */
export const consume = <A, E, R, S extends Schema.Constraint = never, IE = never, IR = never>(
  queue: string,
  handler: (value: HandlerInput<S>, delivery: Delivery) => Effect.Effect<A, E, R>,
  options?: ConsumeOptions<NoInfer<E | IE>> & DecodeOptions<S> & InboxOptions<IE, IR>
): Effect.Effect<never, AmqpError, Services<R | IR | S["DecodingServices"]>> =>
  Effect.flatMap(AmqpConsumer, (consumer) => {
    const settings = readHandling(queue, options, handler, queuesOf(consumer))
    return isInvalidArgument(settings)
      ? reportRefusal(consumer, accessOf(consumer), queue, options, settings)
      : handleEach(consumer, settings, decoderOf(settings), handler)
  }) as Effect.Effect<never, AmqpError, Services<R | IR | S["DecodingServices"]>>

/**
 * Options of consumers and servers that run as a layer.
 *
 * **When to use**
 *
 * Use with `layerConsume` and `AmqpRpc.layerServe`, together with the options of `consume` or `serve`.
 *
 * @see {@link layerConsume} for a consumer as a layer
 *
 * @category options
 * @since 0.1.0
 */
export interface LayerOptions {
  /**
   * What follows when the consumer or server ends with an error.
   *
   * - `"end"`: the application that `Amqp.launch` runs ends with that error, after its other parts have stopped in order.
   *   Without `Amqp.launch` an error is logged, and health is not ready.
   * - `"unready"`: the application continues, and health is not ready (see `requiredForReadiness`).
   *
   * Default: `"end"`.
   */
  readonly whenFailed?: WhenFailed | undefined
}

/**
 * A consumer as a layer: it runs a handler for each delivery of a queue, as `consume` does, for as long as the layer
 * exists.
 *
 * **When to use**
 *
 * Use in services, to run consumers as parts of the application. `Amqp.launch` runs the application, and ends it when a
 * consumer ends with an error. Use `consume` for a consumer that ends before the application does.
 *
 * **Details**
 *
 * The layer is built at once; the consumer starts in the background and waits for its broker. When the layer's scope
 * closes, the consumer stops in order, as `consume` does when it is interrupted, before the services that its handler
 * uses are released.
 *
 * The options are those of `consume`, and `whenFailed`.
 *
 * **Gotchas**
 *
 * `onFailure` is for handlers that fail. A handler that throws, or whose promise rejects in `Effect.promise`, dies of a
 * defect, which `onDefect` decides; by default it is delivered again without end.
 *
 * With `Layer.launch` instead of `Amqp.launch` nothing ends an application whose consumer has ended: an error is
 * logged, and health is not ready.
 *
 * **Example** (An application with a consumer)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Amqp, AmqpConsumer, AmqpLive } from "@effect-amqp/core"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const Order = Schema.Struct({ id: Schema.Int, product: Schema.String })
 *
 * const Shipping = AmqpConsumer.layerConsume("orders", (order) => Effect.log("shipping", order.product), {
 *   schema: Order,
 *   concurrency: 10
 * })
 *
 * Shipping.pipe(Layer.provide(AmqpLive), Amqp.launch, NodeRuntime.runMain)
 * ```
 *
 * @see {@link consume} for what happens to deliveries
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConsume = <A, E, R, S extends Schema.Constraint = never, IE = never, IR = never>(
  queue: string,
  handler: (value: HandlerInput<S>, delivery: Delivery) => Effect.Effect<A, E, R>,
  options?: ConsumeOptions<NoInfer<E | IE>> & DecodeOptions<S> & InboxOptions<IE, IR> & LayerOptions
): Layer.Layer<never, never, Services<R | IR | S["DecodingServices"]>> => {
  const { whenFailed = "end", ...consumeOptions } = options ?? {}
  return background(
    "AmqpConsumer.layerConsume",
    consume<A, E, R, S, IE, IR>(
      queue,
      handler,
      consumeOptions as ConsumeOptions<NoInfer<E | IE>> & DecodeOptions<S> & InboxOptions<IE, IR>
    ),
    whenFailed
  ) as Layer.Layer<never, never, Services<R | IR | S["DecodingServices"]>>
}

/**
 * Runs a handler for many deliveries together.
 *
 * **When to use**
 *
 * Use for work that is cheaper in bulk, such as inserting rows.
 *
 * **Details**
 *
 * A batch has at least one delivery. It is complete when it has `size` deliveries, or when its first delivery has
 * waited for `within`, whichever comes first. Messages that cannot be decoded or were delivered too often are taken out
 * beforehand.
 *
 * If the handler succeeds, all deliveries are acknowledged, with one `multiple` acknowledgement as far as that covers
 * no delivery outside the batch; with a `concurrency` above 1 an earlier batch may still be handled. If the handler
 * fails, dies or is interrupted, each delivery is settled by the policy, and a function may choose one for each
 * delivery. A delivery that the handler has settled itself stays as it is.
 *
 * With a `schema` the handler gets the decoded values, and the deliveries in the same order as its second argument.
 *
 * In all other respects it is like `consume`: it fails with the same errors, and has the same shutdown and the same
 * rules for streams.
 *
 * **Gotchas**
 *
 * A batch has many messages, so its handler has the baggage of none of them: use `AmqpBaggage.fromDelivery`.
 *
 * **Example** (Inserting rows in bulk)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { AmqpConsumer } from "@effect-amqp/core"
 *
 * const Reading = Schema.Struct({ sensor: Schema.String, celsius: Schema.Number })
 * declare const insert: (rows: ReadonlyArray<typeof Reading.Type>) => Effect.Effect<void, Error>
 *
 * const readings = AmqpConsumer.consumeBatch("readings", (rows) => insert(rows), {
 *   schema: Reading,
 *   size: 500,
 *   within: "200 millis",
 *   onFailure: AmqpConsumer.retry({ delay: "5 seconds", times: 10 })
 * })
 * ```
 *
 * @see {@link consume} for one delivery at a time
 *
 * @category consuming
 * @since 0.1.0
 */
export const consumeBatch = <A, E, R, S extends Schema.Constraint = never>(
  queue: string,
  handler: (
    values: NonEmptyReadonlyArray<HandlerInput<S>>,
    deliveries: NonEmptyReadonlyArray<Delivery>
  ) => Effect.Effect<A, E, R>,
  options: BatchOptions & ConsumeOptions<NoInfer<E>> & DecodeOptions<S>
): Effect.Effect<never, AmqpError, Services<R | S["DecodingServices"]>> =>
  Effect.flatMap(AmqpConsumer, (consumer) => {
    const settings = readBatching(queue, options, handler, queuesOf(consumer))
    return isInvalidArgument(settings)
      ? reportRefusal(consumer, accessOf(consumer), queue, options, settings)
      : handleBatches(consumer, settings, decoderOf(settings), handler)
  }) as Effect.Effect<never, AmqpError, Services<R | S["DecodingServices"]>>

const decoderOf = ({ schema }: { readonly schema: Schema.Constraint | undefined }) =>
  schema === undefined ? undefined : json(schema).decode

/**
 * The deliveries of a queue as a stream, which settles none of them.
 *
 * **When to use**
 *
 * Use to settle each delivery yourself, by its `ack`, `nack` or `reject`, and to take a number of deliveries and then
 * stop. To consume without acknowledgements (`noAck`) use `consume` of an `AmqpChannel`: nothing would limit what the
 * broker sends ahead.
 *
 * **Details**
 *
 * Deliveries are pulled one by one; up to `prefetch` wait in memory.
 *
 * The stream never ends on its own: it fails, or its consumer takes no more, as `Stream.take(10)` does after ten. It
 * fails with:
 *
 * - `InvalidArgument`: an option was refused, and nothing was sent;
 * - the reason why there will be no connection (credentials, virtual host, certificate);
 * - `NotFound` or `AccessRefused`: it cannot consume;
 * - the reasons that the option `resubscribe` lists; its default is `"never"` here, so also with `ConnectionClosed`,
 *   `ChannelClosed` or `ConsumerCancelled`;
 * - `InactivityTimeout`: no delivery arrived within `inactivityTimeout`.
 *
 * In every case it cancels its consumer, the broker requeues what was sent ahead and what was not settled, and the
 * channel is closed before the stream ends. `onEnd` and the log report how many there were.
 *
 * **Gotchas**
 *
 * Settle deliveries inside of the stream: after its end, `ack` fails with `DeliverySettled`.
 *
 * **Example** (Taking ten deliveries)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
 *
 * const firstTen = AmqpConsumer.stream("orders", { inactivityTimeout: "30 seconds" }).pipe(
 *   Stream.tap((delivery) => Effect.andThen(Effect.log(AmqpMessage.text(delivery)), delivery.ack)),
 *   Stream.take(10),
 *   Stream.runDrain
 * )
 * ```
 *
 * @see {@link consume} for handlers whose result settles their deliveries
 *
 * @category consuming
 * @since 0.1.0
 */
export const stream = (queue: string, options?: StreamOptions): Stream.Stream<Delivery, AmqpError, AmqpConsumer> =>
  Stream.unwrap(
    Effect.map(AmqpConsumer, (consumer) => {
      const settings = readStream(queue, options, queuesOf(consumer))
      return isInvalidArgument(settings)
        ? Stream.fromEffect(reportRefusal(consumer, accessOf(consumer), queue, options, settings))
        : Streaming.stream(consumer, settings)
    })
  )

/**
 * Makes what consumers share, from the connection and the publisher in the context, until the scope closes.
 *
 * **When to use**
 *
 * Use to provide `AmqpConsumer` with a scope of your own. Otherwise use `layer`.
 *
 * **Details**
 *
 * It connects nothing: the consumers' connection is opened for the first consumer.
 *
 * @see {@link layer}
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<AmqpConsumer["Service"], never, AmqpConnection | AmqpPublisher | Scope.Scope> =
  Effect.gen(function* () {
    const main = yield* AmqpConnection
    const publisher = yield* AmqpPublisher
    const connection = yield* SubscriptionRef.make<AmqpConnection["Service"] | undefined>(undefined)
    const running = new RunningConsumers(main, connection, yield* Clock.Clock)
    // Finalizers run in reverse order: this one is added first, so it runs after the consumers have ended.
    yield* Effect.addFinalizer(() => Effect.sync(() => running.health.end()))
    return {
      connection: yield* sharedConnection(main, running),
      publisher,
      [InsideId]: new ConsumerInside(running)
    }
  })

/**
 * The consumers' own connection as it is opened and closed.
 *
 * **When to use**
 *
 * Use to observe the connection without opening it. `connection` of the service opens one, and keeps it open.
 *
 * **Details**
 *
 * The value is `undefined` while there are no consumers, from some seconds after the last one has ended.
 *
 * **Example** (Logging the state of the consumers' connection)
 *
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const { value } = yield* AmqpConsumer.ownConnection
 *   yield* Effect.log(value === undefined ? "no consumers" : value.state.value._tag)
 * })
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const ownConnection: Effect.Effect<
  SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>,
  never,
  AmqpConsumer
> = Effect.flatMap(AmqpConsumer, (consumer) => {
  const running = runningConsumersOf(consumer)
  return running === undefined
    ? SubscriptionRef.make<AmqpConnection["Service"] | undefined>(undefined)
    : Effect.succeed(running.connection)
})

/**
 * The statuses of all consumers and RPC servers of the service: those that run, and those that have ended.
 *
 * **When to use**
 *
 * Use to show which consumers run, or to find out how one has ended. Health checks use `AmqpConnection.conditions`.
 *
 * **Details**
 *
 * It reads memory only. Of the consumers that have ended, it has the last 100 that have failed and the last 20 that the
 * application has stopped, and none with `requiredForReadiness: false`. For a service that was written by hand it is
 * empty.
 *
 * **Example** (Logging the consumers that do not run)
 *
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   for (const { lastEnd, name, state } of yield* AmqpConsumer.statuses) {
 *     if (state !== "Running") yield* Effect.logWarning(name, state, lastEnd?.tag)
 *   }
 * })
 * ```
 *
 * @see {@link Status} for the states
 *
 * @category accessors
 * @since 0.1.0
 */
export const statuses: Effect.Effect<ReadonlyArray<Status>, never, AmqpConsumer> = Effect.map(
  AmqpConsumer,
  (consumer) => runningConsumersOf(consumer)?.health.statuses ?? []
)

/**
 * Provides consumers, with a connection of their own.
 *
 * **When to use**
 *
 * Use to provide `AmqpConsumer` where you compose layers yourself. `Amqp.layer` contains it.
 *
 * **Details**
 *
 * The consumers' connection uses the settings of the `AmqpConnection` in the context and goes to the same broker. Its
 * name ends in ` consumers`.
 *
 * @see {@link make}
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<AmqpConsumer, never, AmqpConnection | AmqpPublisher> = Layer.effect(AmqpConsumer, make)
