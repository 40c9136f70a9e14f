/** Deliveries, and who may settle them; what handlers and policies see. */
import {
  type AmqpChannel,
  AmqpConsumer,
  type AmqpError,
  AmqpLive,
  type AmqpMessage,
  AmqpPublisher
} from "@effect-amqp/core"
import { Data, Effect, Schema, Stream } from "effect"

declare const channel: AmqpChannel.AmqpChannel
declare const ofConsumer: AmqpConsumer.Delivery
declare const ofChannel: AmqpMessage.Delivery

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const is = <_T extends true>() => {}

// --- A delivery is settled where it came from -------------------------------------------------------------------------

void ofConsumer.ack
channel.ack(ofChannel)
// @ts-expect-error the delivery of a consumer has a channel of its own, and no tag that this one could use
channel.ack(ofConsumer)
// @ts-expect-error nor can it be rejected here
channel.nack(ofConsumer)
// @ts-expect-error a delivery of a borrowed channel is settled by that channel
void ofChannel.ack
// @ts-expect-error there is no tag to be misused
void ofConsumer.deliveryTag
AmqpConsumer.stream("q").pipe(Stream.mapEffect((delivery) => delivery.ack))
// @ts-expect-error the same with a stream's
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
// @ts-expect-error a handler's failure is the policy's business, but the consumer's own is not
const unfailing: Effect.Effect<never, never, AmqpConsumer.AmqpConsumer> = consuming
// @ts-expect-error a policy is one of those that there are
AmqpConsumer.consume("q", () => work, { onFailure: "requeue" })

AmqpConsumer.consume("q", (order) => Effect.log(order.id.toFixed()), { schema: Schema.Struct({ id: Schema.Int }) })
// @ts-expect-error what is not in the schema is not in the value
AmqpConsumer.consume("q", (order) => Effect.log(order.name), { schema: Schema.Struct({ id: Schema.Int }) })

// --- Publishing -------------------------------------------------------------------------------------------------------

declare const tellCustomer: (proof: AmqpChannel.Confirmed) => Effect.Effect<void>
const publishing = AmqpPublisher.publish({ routingKey: "q", content: "" })
Effect.flatMap(publishing, tellCustomer)
// @ts-expect-error its failures are part of its type
const unchecked: Effect.Effect<AmqpChannel.Confirmed, never, AmqpPublisher.AmqpPublisher> = publishing
AmqpPublisher.publishAll([{ routingKey: "q", content: "" }], { failures: "values" }).pipe(
  // @ts-expect-error with failures as values each element may be one
  Stream.mapEffect(tellCustomer)
)
AmqpPublisher.publishAll([{ routingKey: "q", content: "" }]).pipe(Stream.mapEffect(tellCustomer))

export { unchecked, unfailing }
