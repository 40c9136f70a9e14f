/** Deliveries and what can settle them, and what handlers and policies receive. */
import {
  type AmqpChannel,
  AmqpConsumer,
  type AmqpError,
  AmqpEvent,
  AmqpLive,
  type AmqpMessage,
  AmqpPublisher
} from "@effect-amqp/core"
import { type Context, Data, Effect, type Layer, Schema, type Scope, Stream } from "effect"

declare const channel: AmqpChannel.AmqpChannel
declare const ofConsumer: AmqpConsumer.Delivery
declare const ofChannel: AmqpMessage.Delivery

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const is = <_T extends true>() => {}

// --- A delivery is settled where it came from -------------------------------------------------------------------------

void ofConsumer.ack
channel.ack(ofChannel)
// @ts-expect-error a consumer's delivery has its own channel, and no tag that this channel could use
channel.ack(ofConsumer)
// @ts-expect-error it cannot be rejected here either
channel.nack(ofConsumer)
// @ts-expect-error a delivery of a borrowed channel is settled by that channel
void ofChannel.ack
// @ts-expect-error there is no tag that could be misused
void ofConsumer.deliveryTag
AmqpConsumer.stream("q").pipe(Stream.mapEffect((delivery) => delivery.ack))
// @ts-expect-error the same holds for a delivery of a stream
AmqpConsumer.stream("q").pipe(Stream.mapEffect((delivery) => channel.ack(delivery)))

// --- Handlers ---------------------------------------------------------------------------------------------------------

class Passing extends Data.TaggedError("Passing")<{}> {}
class Lasting extends Data.TaggedError("Lasting")<{}> {}
declare const work: Effect.Effect<void, Passing | Lasting>

const consuming = AmqpConsumer.consume("q", () => work, {
  onFailure: (error) => {
    is<Equals<typeof error, Passing | Lasting>>()
    return error._tag === "Passing" ? AmqpConsumer.requeue : AmqpConsumer.deadLetter
  }
})
is<Equals<typeof consuming, Effect.Effect<never, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer>>>()
void Effect.runPromise(consuming.pipe(Effect.provide(AmqpLive)))
// @ts-expect-error the policy handles a handler's failure, but not the consumer's own
const unfailing: Effect.Effect<never, never, AmqpConsumer.AmqpConsumer> = consuming
// @ts-expect-error only the existing policies are allowed
AmqpConsumer.consume("q", () => work, { onFailure: "requeue" })

AmqpConsumer.consume("q", (order) => Effect.log(order.id.toFixed()), { schema: Schema.Struct({ id: Schema.Int }) })
// @ts-expect-error a field that is not in the schema is not in the value
AmqpConsumer.consume("q", (order) => Effect.log(order.name), { schema: Schema.Struct({ id: Schema.Int }) })

declare const perhaps: Schema.Struct<{ readonly id: Schema.Int }> | undefined
// @ts-expect-error without a schema the handler would get the delivery, whatever its type says
AmqpConsumer.consume("q", () => Effect.void, { schema: perhaps })

/** A function over all events, which knows the schema of none. */
export const consumeEvent = <S extends Schema.Constraint>(
  event: AmqpEvent.Event<S>,
  handler: (value: S["Type"]) => Effect.Effect<void>
) => AmqpEvent.consume(event, "q", handler, { onDecodeFailure: AmqpConsumer.deadLetter })

// --- Inboxes ----------------------------------------------------------------------------------------------------------

class Locked extends Data.TaggedError("Locked")<{}> {}
declare const database: Context.Service<"Database", { readonly table: string }>
declare const inbox: AmqpConsumer.Inbox<Locked, "Database">

const handledOnce = AmqpConsumer.consume("q", () => work, {
  onFailure: (error) => {
    is<Equals<typeof error, Passing | Lasting | Locked>>()
    return AmqpConsumer.redeliver
  },
  inbox
})
is<Equals<typeof handledOnce, Effect.Effect<never, AmqpError.AmqpError, "Database" | AmqpConsumer.AmqpConsumer>>>()
const layerOnce = AmqpConsumer.layerConsume("q", (order) => Effect.log(order.id), {
  schema: Schema.Struct({ id: Schema.Int }),
  inbox,
  whenFailed: "unready"
})
is<Equals<typeof layerOnce, Layer.Layer<never, never, "Database" | AmqpConsumer.AmqpConsumer>>>()
declare const event: AmqpEvent.Event<Schema.Struct<{ readonly id: Schema.Int }>>
const eventOnce = AmqpEvent.consume(event, "q", (order) => Effect.log(order.id), {
  inbox,
  onFailure: (error) => {
    is<Equals<typeof error, Locked>>()
    return AmqpConsumer.redeliver
  }
})
is<Equals<typeof eventOnce, Effect.Effect<never, AmqpError.AmqpError, "Database" | AmqpConsumer.AmqpConsumer>>>()
const scoped: AmqpConsumer.Inbox<never, Scope.Scope> = {
  make: () => Effect.succeed((_delivery, handler) => Effect.asVoid(Effect.andThen(Effect.scope, handler)))
}
const scopedOnce = AmqpConsumer.consume("q", () => work, { inbox: scoped })
is<Equals<typeof scopedOnce, Effect.Effect<never, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer>>>()
const unfailingInbox: AmqpConsumer.Inbox = {
  // @ts-expect-error the errors of an inbox are part of its type
  make: () => Effect.succeed((_delivery, _handler) => Effect.fail(new Locked()))
}
// @ts-expect-error a batch has many messages, and no inbox
AmqpConsumer.consumeBatch("q", () => work, { inbox, size: 2, within: 1 })
// @ts-expect-error deliveries of a stream have no handler
AmqpConsumer.stream("q", { inbox })
void [database, unfailingInbox]

// --- Publishing -------------------------------------------------------------------------------------------------------

declare const tellCustomer: (proof: AmqpChannel.Confirmed) => Effect.Effect<void>
const publishing = AmqpPublisher.publish({ routingKey: "q", content: "" })
Effect.flatMap(publishing, tellCustomer)
// @ts-expect-error its failures are part of its type
const unchecked: Effect.Effect<AmqpChannel.Confirmed, never, AmqpPublisher.AmqpPublisher> = publishing
AmqpPublisher.publishAll([{ routingKey: "q", content: "" }], { failures: "values" }).pipe(
  // @ts-expect-error with failures as values, each element may be a failure
  Stream.mapEffect(tellCustomer)
)
AmqpPublisher.publishAll([{ routingKey: "q", content: "" }]).pipe(Stream.mapEffect(tellCustomer))

export { unchecked, unfailing }
