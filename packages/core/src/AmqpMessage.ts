/**
 * Messages as plain data: what is published, and what is delivered.
 *
 * A message is an object: where it goes, what it says, and its properties beside each other. A delivery has the same
 * parts, read from the wire. What a value becomes on the way, and what it is when it arrives, is told at `FieldValue`.
 *
 * @example
 * ```ts
 * import { AmqpChannel, AmqpMessage } from "@effect-amqp/core"
 * import { Effect, Option, Schema } from "effect"
 *
 * const Order = AmqpMessage.json(Schema.Struct({ id: Schema.Int, placed: Schema.Date }))
 *
 * const program = AmqpChannel.use((channel) =>
 *   Effect.gen(function* () {
 *     const message = yield* Order.encode({ id: 7, placed: new Date() }, { routingKey: "orders", messageId: "7" })
 *     yield* channel.publish(message)
 *     const delivery = yield* channel.get("orders")
 *     return Option.isSome(delivery) ? yield* Order.decode(delivery.value) : undefined
 *   })
 * )
 * ```
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"
import type * as Tracer from "effect/Tracer"
import * as internal from "./internal/message/json.ts"
import { contextOf } from "./internal/telemetry/tracingContext.ts"
import type { Properties, Delivery, Json } from "./model/message.ts"

export * from "./model/message.ts"
export { fromDelivery } from "./internal/message/forward.ts"

/**
 * The content as text, read as UTF-8. What is not UTF-8 becomes U+FFFD; a byte order mark stays.
 *
 * @example
 * ```ts
 * import { AmqpMessage } from "@effect-amqp/core"
 *
 * declare const delivery: AmqpMessage.Delivery
 *
 * const lines = AmqpMessage.text(delivery).split("\n")
 * ```
 */
export const text = (delivery: Pick<Delivery, "content">): string => internal.viewOf(delivery.content).toString()

/**
 * The content as bytes of its own. `delivery.content` is a view into what the socket has read, and keeps all of that in
 * memory: take a copy to hold on to a small content for long.
 *
 * @example
 * ```ts
 * import { AmqpMessage } from "@effect-amqp/core"
 *
 * declare const delivery: AmqpMessage.Delivery
 *
 * const cache = new Map<string, Uint8Array>()
 * cache.set(delivery.routingKey, AmqpMessage.bytes(delivery))
 * ```
 */
export const bytes = (delivery: Pick<Delivery, "content">): Uint8Array => new Uint8Array(delivery.content)

/**
 * The trace context that a message was published in, from its header `traceparent` (W3C Trace Context), as the parent or the
 * link of a span; `undefined` if it has none, or none that can be read.
 *
 * Handlers of `AmqpConsumer.consume`, `consumeBatch` and `AmqpRpc.serve` run in a span that has it already. It is for those
 * who take deliveries by a stream, or by a channel.
 *
 * @example
 * ```ts
 * import { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
 * import { Effect, Stream } from "effect"
 *
 * declare const handle: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void>
 *
 * const orders = Stream.runForEach(AmqpConsumer.stream("orders"), (delivery) =>
 *   Effect.andThen(handle(delivery), delivery.ack).pipe(
 *     Effect.withSpan("process orders", { kind: "consumer", parent: AmqpMessage.traceContext(delivery) })
 *   )
 * )
 * ```
 */
export const traceContext = (delivery: { readonly properties: Properties }): Tracer.ExternalSpan | undefined =>
  contextOf(delivery.properties.headers ?? {})

/**
 * JSON content by a schema. Make it once and keep it: the schema is compiled here, not for each message.
 *
 * Values that JSON does not have are written as the schema's JSON codec (`Schema.toCodecJson`) says: a `Date` as an ISO
 * 8601 string, a `bigint` as a string.
 *
 * @example
 * ```ts
 * import { AmqpMessage } from "@effect-amqp/core"
 * import { Effect, Schema } from "effect"
 *
 * const Order = AmqpMessage.json(Schema.Struct({ id: Schema.Int, total: Schema.BigDecimal }))
 *
 * declare const delivery: AmqpMessage.Delivery
 *
 * const program = Effect.gen(function* () {
 *   const order = yield* Order.decode(delivery)
 *   return yield* Order.encode({ ...order, id: order.id + 1 }, { exchange: "orders", routingKey: "order.created" })
 * })
 * ```
 */
export const json: <S extends Schema.Constraint>(schema: S) => Json<S> = internal.json
