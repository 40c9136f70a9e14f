/** What handlers receive, and what their errors and requirements become, in Effect 3's types. */
import type { KeyValueStore } from "@effect/platform"
import {
  Amqp,
  type AmqpChannel,
  AmqpConsumer,
  type AmqpError,
  AmqpEvent,
  AmqpLive,
  type AmqpMessage,
  AmqpOffsetStore,
  type AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/platform"
import {
  BigDecimal,
  type ConfigError,
  Context,
  Data,
  Effect,
  Layer,
  Schedule,
  Schema,
  type Scope,
  Stream
} from "effect"

declare const channel: AmqpChannel.AmqpChannel
declare const ofConsumer: AmqpConsumer.Delivery
declare const ofChannel: AmqpMessage.Delivery

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const is = <_T extends true>() => {}

class Store extends Context.Tag("Store")<Store, { readonly put: (n: number) => Effect.Effect<void> }>() {}

// --- A delivery is settled where it came from -------------------------------------------------------------------------

void ofConsumer.ack
channel.ack(ofChannel)
// @ts-expect-error a consumer's delivery has its own channel, and no tag that this channel could use
channel.ack(ofConsumer)
// @ts-expect-error a delivery of a borrowed channel is settled by that channel
void ofChannel.ack
AmqpConsumer.stream("q").pipe(Stream.mapEffect((delivery) => delivery.ack))

// --- Channels ---------------------------------------------------------------------------------------------------------

declare const use: typeof AmqpChannel.use
const used = use((channel) => Effect.flatMap(Store, () => channel.queueDeclarePassive("q")))
is<Equals<Effect.Effect.Error<typeof used>, AmqpError.AmqpError>>()
// @ts-expect-error a borrowed channel needs a scope, the pool, and what the function needs
export const unscoped: Effect.Effect<unknown, AmqpError.AmqpError> = used

// --- Handlers ---------------------------------------------------------------------------------------------------------

class Passing extends Data.TaggedError("Passing")<{}> {}
class Lasting extends Data.TaggedError("Lasting")<{}> {}
declare const work: Effect.Effect<void, Passing | Lasting, Store | Scope.Scope>

const consuming = AmqpConsumer.consume("q", () => work, {
  onFailure: (error) => {
    is<Equals<typeof error, Passing | Lasting>>()
    return error._tag === "Passing" ? AmqpConsumer.requeue : AmqpConsumer.deadLetter
  }
})
// The handler's errors are handled by its policy; its services are required, and its scope is not.
is<Equals<typeof consuming, Effect.Effect<never, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer | Store>>>()
// @ts-expect-error nothing provides the handler's service
void Effect.runPromise(consuming.pipe(Effect.provide(AmqpLive)))
// @ts-expect-error the policy handles a handler's failure, but not the consumer's own
export const unfailing: Effect.Effect<never, never, AmqpConsumer.AmqpConsumer | Store> = consuming
// @ts-expect-error only the existing policies are allowed
AmqpConsumer.consume("q", () => work, { onFailure: "requeue" })
// @ts-expect-error a handler is an effect
AmqpConsumer.consume("q", async () => {})

AmqpConsumer.consume("q", (order) => Effect.log(order.id.toFixed()), { schema: Schema.Struct({ id: Schema.Int }) })
// @ts-expect-error a field that is not in the schema is not in the value
AmqpConsumer.consume("q", (order) => Effect.log(order.name), { schema: Schema.Struct({ id: Schema.Int }) })

declare const stored: Schema.Schema<number, string, Store>
const decoding = AmqpConsumer.consume("q", (n) => Effect.log(n.toFixed()), { schema: stored })
is<Equals<typeof decoding, Effect.Effect<never, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer | Store>>>()

// --- Positions, and the delays of reconnecting ---------------------------------------------------------------------------

declare const positions: AmqpOffsetStore.OffsetStore<Passing>
AmqpConsumer.consume("q", () => work, { offsets: { store: positions, name: "reader" } })
AmqpConsumer.stream("q", { offsets: { store: AmqpOffsetStore.memory(), name: "reader", saveWithin: "1 second" } })
// @ts-expect-error a position has a name
AmqpConsumer.stream("q", { offsets: { store: positions } })
declare const keys: KeyValueStore.KeyValueStore
is<
  Equals<
    ReturnType<typeof AmqpOffsetStore.fromKeyValueStore>,
    AmqpOffsetStore.OffsetStore<AmqpOffsetStore.OffsetStoreError>
  >
>()
AmqpOffsetStore.fromKeyValueStore(keys, { prefix: "positions/" })

Amqp.layer({ reconnect: { schedule: Schedule.exponential("100 millis").pipe(Schedule.jittered) } })
Amqp.layer({
  reconnect: {
    schedule: Schedule.recurWhile((reason: AmqpError.AmqpErrorReason) => reason._tag === "ConnectionClosed")
  }
})
declare const ofStore: Schedule.Schedule<number, unknown, Store>
// @ts-expect-error a schedule has no services
Amqp.layer({ reconnect: { schedule: ofStore } })

// --- Layers -----------------------------------------------------------------------------------------------------------

const consumer = AmqpConsumer.layerConsume("q", () => work, { whenFailed: "unready" })
is<Equals<typeof consumer, Layer.Layer<never, never, AmqpConsumer.AmqpConsumer | Store>>>()
// @ts-expect-error a consumer that fails ends the application, or leaves it unready
AmqpConsumer.layerConsume("q", () => work, { whenFailed: "continue" })

const application = Amqp.launch(Layer.provide(consumer, AmqpLive))
is<Equals<typeof application, Effect.Effect<never, AmqpError.AmqpError | ConfigError.ConfigError, Store>>>()

// --- Events -----------------------------------------------------------------------------------------------------------

const Counted = AmqpEvent.make("Counted", { schema: stored, routingKey: (n) => n.toFixed(), bindingKey: "*" })
const counted = AmqpEvent.publish(Counted, 7)
is<
  Equals<typeof counted, Effect.Effect<AmqpChannel.Confirmed, AmqpError.AmqpError, AmqpPublisher.AmqpPublisher | Store>>
>()
// @ts-expect-error an event is published by a value of its schema
AmqpEvent.publish(Counted, "7")
// @ts-expect-error a routing key that depends on the value needs a binding key
AmqpEvent.make("Counted", { schema: stored, routingKey: () => "x" })
const counting = AmqpEvent.layerConsume(Counted, "q", (n) =>
  Effect.asVoid(Effect.zipRight(work, Effect.log(n.toFixed())))
)
is<Equals<typeof counting, Layer.Layer<never, never, AmqpConsumer.AmqpConsumer | Store>>>()
AmqpEvent.consume(Counted, "q", () => work, {
  onFailure: (error) => {
    is<Equals<typeof error, Passing | Lasting>>()
    return AmqpConsumer.deadLetter
  },
  onDecodeFailure: AmqpConsumer.deadLetter
})

// --- Request and reply ------------------------------------------------------------------------------------------------

class Unknown extends Schema.TaggedError<Unknown>()("Unknown", {}) {}

const PriceOf = AmqpRpc.make("price", { payload: { item: Schema.String }, success: stored, error: Unknown })
const priceOf = AmqpRpc.client(PriceOf)
const price = priceOf({ item: "tea" })
is<Equals<typeof price, Effect.Effect<number, Unknown | AmqpError.AmqpError, AmqpRpc.AmqpRpc | Store>>>()
// @ts-expect-error the payload has the type of its schema
priceOf({ item: 7 })
// @ts-expect-error a payload has all fields of its schema
priceOf({})
// @ts-expect-error a call can fail with the procedure's error
export const unfailingPrice: Effect.Effect<number, AmqpError.AmqpError, AmqpRpc.AmqpRpc | Store> = price
const handledPrice = Effect.catchTag(price, "Unknown", () => Effect.succeed(0))
is<Equals<Effect.Effect.Error<typeof handledPrice>, AmqpError.AmqpError>>()

const serving = AmqpRpc.serve(PriceOf, ({ item }) => Effect.map(Effect.scope, () => item.length))
is<Equals<typeof serving, Effect.Effect<never, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer | Store>>>()
// @ts-expect-error a handler fails with the procedure's error only
AmqpRpc.serve(PriceOf, () => new Passing())
// @ts-expect-error a handler succeeds with the procedure's success only
AmqpRpc.serve(PriceOf, () => Effect.succeed("3.95"))

// @ts-expect-error a field that is not in the payload is not in the request
AmqpRpc.serve(PriceOf, ({ name }) => Effect.succeed(name.length))
// @ts-expect-error a handler is an effect
AmqpRpc.serve(PriceOf, async () => 7)
// @ts-expect-error the same holds for a server as a layer
AmqpRpc.layerServe(PriceOf, () => Effect.succeed("3.95"))
// @ts-expect-error failures of requests are replies, so no policy chooses for them
AmqpRpc.serve(PriceOf, () => Effect.succeed(7), { onFailure: AmqpConsumer.requeue })

// A handler receives the decoded payload, and returns the decoded success.
const At = AmqpRpc.make("at", { payload: Schema.Date, success: Schema.BigDecimal })
AmqpRpc.serve(At, (payload, request) => {
  is<Equals<typeof payload, Date>>()
  is<Equals<typeof request, AmqpConsumer.Delivery>>()
  return Effect.succeed(BigDecimal.fromBigInt(1n))
})
const at = AmqpRpc.client(At)
is<Equals<Effect.Effect.Success<ReturnType<typeof at>>, BigDecimal.BigDecimal>>()
// @ts-expect-error a payload is sent by its decoded value
at("2026-01-01")
// @ts-expect-error a handler succeeds with the decoded value
AmqpRpc.serve(At, () => Effect.succeed("1"))

const Ping = AmqpRpc.make("ping")
const ping = AmqpRpc.client(Ping)()
// @ts-expect-error a procedure without a payload takes none
AmqpRpc.client(Ping)({ item: "tea" })
is<Equals<typeof ping, Effect.Effect<void, AmqpError.AmqpError, AmqpRpc.AmqpRpc>>>()
// @ts-expect-error a procedure without an error does not fail
AmqpRpc.serve(Ping, () => Effect.fail("no"))

const server = AmqpRpc.layerServe(PriceOf, ({ item }) => Effect.map(Store, () => item.length))
is<Equals<typeof server, Layer.Layer<never, never, AmqpConsumer.AmqpConsumer | Store>>>()
