/**
 * Consuming: handlers that settle by how they end, streams of deliveries, batches.
 *
 * `consume` is for services: it runs a handler for each delivery, acknowledges what succeeded, and does with what failed
 * what its policies say. `consumeBatch` does the same for many deliveries together. `stream` hands deliveries out one by
 * one, for whoever settles them himself.
 *
 * All consumers of a layer share one connection, apart from that of the publishers: a broker that is short of memory
 * blocks connections that publish, and deliveries and acknowledgements have to go on meanwhile. It is made for the first
 * consumer, and closed some seconds after the last. Each consumer has a channel of its own on it.
 *
 * Deliveries come at least once: after a lost connection, a shutdown or a failure the same message comes again, perhaps
 * after it was handled. Handlers have to be idempotent.
 *
 * Handlers are fibers, so heartbeats and acknowledgements go on while they wait, however long. One that computes without
 * ever waiting holds up the whole process: after two to three heartbeats the broker takes the connection for dead. Let it
 * pause with `Effect.yieldNow`, or compute in a worker thread.
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
import { sharedConnection } from "./internal/consumer/connection.ts"
import { refuse } from "./internal/consumer/consuming.ts"
import { handleBatches, handleEach } from "./internal/consumer/handling.ts"
import { readBatching, readHandling, readStream } from "./internal/consumer/options.ts"
import { accessOf, ConsumerInside, queuesOf, Running, runningOf } from "./internal/consumer/running.ts"
import * as Streaming from "./internal/consumer/streaming.ts"
import { isRefused } from "./internal/wire/optionTable.ts"
import {
  type Delivery,
  type ConsumeOptions,
  type DecodeOptions,
  type BatchOptions,
  type StreamOptions,
  type Services,
  AmqpConsumer
} from "./model/consumer.ts"

export * from "./model/consumer.ts"

export * from "./model/policies.ts"

export * from "./model/streamPolicies.ts"

/**
 * Runs a handler for each delivery of a queue, and settles the delivery by how the handler ends:
 *
 * | the handler          | the delivery                                                                   |
 * | -------------------- | ------------------------------------------------------------------------------ |
 * | succeeds             | acknowledged                                                                   |
 * | fails                | `onFailure`, by default `redeliver`                                            |
 * | dies of a defect     | `onDefect`, by default `redeliver`; logged as an error                         |
 * | is interrupted       | given back: at once when the consumer ends, like `redeliver` if it was by itself |
 * | settles it itself    | as the handler did; how it ends is logged only                                 |
 * | is not even called   | `onDecodeFailure` if it could not be decoded, `onPoison` if it comes too often |
 *
 * With a `schema` the handler gets the decoded value, and the delivery as its second argument. Each call has a scope of
 * its own, closed before the delivery is settled, so `AmqpChannel.use` in a handler borrows for that call. Fork with
 * `Effect.forkScoped` what is to end with the call: calls take turns on the same fibers, so what `Effect.forkChild` starts
 * goes on until the consumer ends.
 *
 * It runs until it is interrupted, or fails with an `AmqpError`; never does it end in silence, and a failure is logged as
 * an error besides. It fails with `InvalidArgument` (an option was refused, nothing was sent), with why there will be
 * no connection (login, virtual host, certificate), with `NotFound` or `AccessRefused` when it cannot consume, and as `resubscribe` says.
 *
 * Interrupted, it ends in order. The broker is asked for no more (`basic.cancel`); running handlers may go on for
 * `shutdownTimeout`, then they are interrupted. When nothing is in hand, one `basic.nack` gives back what nobody has seen,
 * together with what the interrupted handlers had; what is still in hand then goes back when the channel closes. The
 * single active consumer of a classic queue on RabbitMQ 3 is not cancelled, since that can crash the queue: the close of
 * its channel ends it.
 * Handlers that are running when their channel is lost go on too, but cannot settle: their deliveries come again.
 * If nobody interrupts it before the scope of the `AmqpConsumer` closes, it ends in the same order then, with
 * `ConnectionClosed`; handlers can publish and borrow until they are done.
 *
 * A stream is consumed in the same way, with these differences. Messages stay in it, so nothing is given back: what is not
 * handled ends the consumer (`stop`, the default, with `StreamStopped`), or is passed over (`skip`, `publishTo`). The policies
 * of queues are refused, and so are the options for what comes again: `maxDeliveries`, `sharedCount`, `onPoison`,
 * `deliveryLimit` and `retrySecret`. The consumer has a position, the lowest offset that is not handled,
 * and goes on there after each reconnect: nothing is passed over, and what handlers have in hand meanwhile is not handed to
 * them again. With `offsets` it goes on there after a restart, too. At most `prefetch` messages (and what is left of a chunk) are
 * above the position, so a message that takes long holds up the others when that many have been handled behind it. A
 * consumer that begins at `"next"` and is cut off before its first message may get those of the last 5 seconds before it began, one
 * that begins at `"last"` those of the last minute.
 *
 * There are as many fibers as handlers run at a time, and `prefetch` deliveries in memory, however slow the handlers are.
 * RabbitMQ takes a delivery back that is not settled within 30 minutes: see `consumerTimeout`.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
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
 * // Beside the rest of the application, which ends if this does.
 * declare const server: Effect.Effect<never>
 * const main = Effect.raceFirst(server, orders)
 * ```
 */
export const consume: {
  <S extends Schema.Constraint, A, E, R>(
    queue: string,
    handler: (value: S["Type"], delivery: Delivery) => Effect.Effect<A, E, R>,
    options: ConsumeOptions<NoInfer<E>> & DecodeOptions<S>
  ): Effect.Effect<never, AmqpError, Services<R | S["DecodingServices"]>>
  <A, E, R>(
    queue: string,
    handler: (delivery: Delivery) => Effect.Effect<A, E, R>,
    options?: ConsumeOptions<NoInfer<E>>
  ): Effect.Effect<never, AmqpError, Services<R>>
} = <A, E, R>(
  queue: string,
  handler: (...args: ReadonlyArray<never>) => Effect.Effect<A, E, R>,
  options?: ConsumeOptions<never> & Partial<DecodeOptions<Schema.Constraint>>
): Effect.Effect<never, AmqpError, Services<R>> =>
  Effect.flatMap(AmqpConsumer, (consumer) => {
    const settings = readHandling(queue, options, handler, queuesOf(consumer))
    return isRefused(settings)
      ? refuse(consumer, accessOf(consumer), queue, options, settings)
      : handleEach(consumer, settings, decoderOf(settings), handler)
  }) as Effect.Effect<never, AmqpError, Services<R>>

/**
 * Runs a handler for many deliveries together: for work that is cheaper in bulk, such as inserting rows.
 *
 * A batch has at least one delivery, and is complete with `size` of them or `within` a time of its first, whichever comes
 * first. If the handler succeeds, all of them are acknowledged, with one `multiple` acknowledgement as far as that
 * covers no delivery outside the batch; with a `concurrency` above 1 an earlier batch may still be at work. If it fails,
 * dies or is interrupted, each delivery is settled by the policy, which a function may choose for each: a delivery that
 * the handler has settled itself stays as it is. Those that cannot be decoded or come too often are taken out before.
 *
 * With a `schema` the handler gets the decoded values, and the deliveries in the same order as its second argument. For
 * the rest it is like `consume`.
 *
 * @example
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
 */
export const consumeBatch: {
  <S extends Schema.Constraint, A, E, R>(
    queue: string,
    handler: (
      values: NonEmptyReadonlyArray<S["Type"]>,
      deliveries: NonEmptyReadonlyArray<Delivery>
    ) => Effect.Effect<A, E, R>,
    options: BatchOptions & ConsumeOptions<NoInfer<E>> & DecodeOptions<S>
  ): Effect.Effect<never, AmqpError, Services<R | S["DecodingServices"]>>
  <A, E, R>(
    queue: string,
    handler: (deliveries: NonEmptyReadonlyArray<Delivery>) => Effect.Effect<A, E, R>,
    options: BatchOptions & ConsumeOptions<NoInfer<E>>
  ): Effect.Effect<never, AmqpError, Services<R>>
} = <A, E, R>(
  queue: string,
  handler: (...args: ReadonlyArray<never>) => Effect.Effect<A, E, R>,
  options: BatchOptions & ConsumeOptions<never> & Partial<DecodeOptions<Schema.Constraint>>
): Effect.Effect<never, AmqpError, Services<R>> =>
  Effect.flatMap(AmqpConsumer, (consumer) => {
    const settings = readBatching(queue, options, handler, queuesOf(consumer))
    return isRefused(settings)
      ? refuse(consumer, accessOf(consumer), queue, options, settings)
      : handleBatches(consumer, settings, decoderOf(settings), handler)
  }) as Effect.Effect<never, AmqpError, Services<R>>

const decoderOf = ({ schema }: { readonly schema: Schema.Constraint | undefined }) =>
  schema === undefined ? undefined : json(schema).decode

/**
 * The deliveries of a queue as a stream, to be settled by `ack`, `nack` or `reject` of each.
 *
 * They are pulled one by one; up to `prefetch` wait in memory. The stream never ends by itself: it fails, as `resubscribe`
 * says, or it is left: `Stream.take(10)` gets ten. Whatever the way, it cancels its consumer, the broker requeues what
 * was sent ahead and what was not settled, and the channel is closed before the stream's end is seen. `onEnd` and the
 * log tell how many there were. So settle deliveries inside of the stream: later, `ack` fails with `DeliverySettled`.
 *
 * To consume without acknowledgements (`noAck`) use `AmqpChannel`'s `consume`: nothing would limit what is sent ahead.
 *
 * @example
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
 */
export const stream = (queue: string, options?: StreamOptions): Stream.Stream<Delivery, AmqpError, AmqpConsumer> =>
  Stream.unwrap(
    Effect.map(AmqpConsumer, (consumer) => {
      const settings = readStream(queue, options, queuesOf(consumer))
      return isRefused(settings)
        ? Stream.fromEffect(refuse(consumer, accessOf(consumer), queue, options, settings))
        : Streaming.stream(consumer, settings)
    })
  )

/** What consumers share, made of the connection and the publisher in context, until the scope closes. */
export const make: Effect.Effect<AmqpConsumer["Service"], never, AmqpConnection | AmqpPublisher | Scope.Scope> =
  Effect.gen(function* () {
    const main = yield* AmqpConnection
    const publisher = yield* AmqpPublisher
    const connection = yield* SubscriptionRef.make<AmqpConnection["Service"] | undefined>(undefined)
    const running = new Running(main, connection, yield* Clock.Clock)
    // First, so last: until its consumers have ended.
    yield* Effect.addFinalizer(() => Effect.sync(() => running.presences.end()))
    return {
      connection: yield* sharedConnection(main, running),
      publisher,
      [InsideId]: new ConsumerInside(running)
    }
  })

/**
 * The consumers' own connection as it comes and goes: `undefined` while nobody consumes, and has consumed for some seconds.
 * For whoever wants to look at it; `connection` of the service makes one, and keeps it.
 *
 * @example
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const { value } = yield* AmqpConsumer.ownConnection
 *   yield* Effect.log(value === undefined ? "nobody consumes" : value.state.value._tag)
 * })
 * ```
 */
export const ownConnection: Effect.Effect<
  SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>,
  never,
  AmqpConsumer
> = Effect.flatMap(AmqpConsumer, (consumer) => {
  const running = runningOf(consumer)
  return running === undefined
    ? SubscriptionRef.make<AmqpConnection["Service"] | undefined>(undefined)
    : Effect.succeed(running.connection)
})

/**
 * Consumers as a layer. They connect with the settings of the `AmqpConnection` in context, to the same broker, by a
 * connection of their own, whose name ends in ` consumers`.
 */
export const layer: Layer.Layer<AmqpConsumer, never, AmqpConnection | AmqpPublisher> = Layer.effect(AmqpConsumer, make)
