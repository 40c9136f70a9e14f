/**
 * Messages as plain data: what is published, and what is delivered.
 *
 * A message is an object that has its destination, its content and its properties as fields. A delivery has the same
 * fields, read from the wire. `FieldValue` describes how values of headers are encoded, and what they are when they are
 * delivered.
 *
 * **Example** (Publishing and getting a typed message)
 *
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
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Tracer from "effect/Tracer"
import * as internal from "./internal/message/json.ts"
import * as tracing from "./internal/telemetry/tracing.ts"
import { extractContext } from "./internal/telemetry/tracingContext.ts"
import * as encoded from "./internal/publisher/encoded.ts"
import type { AmqpError } from "./model/error.ts"
import type { Delivery, EncodeOptions, Encoded, Json, Message, Properties } from "./model/message.ts"

export * from "./model/message.ts"
export { fromDelivery } from "./internal/message/forward.ts"

/**
 * Reads the content of a delivery as UTF-8 text.
 *
 * **When to use**
 *
 * Use for content that is text. For JSON use `json`, which also checks the content type and the schema.
 *
 * **Gotchas**
 *
 * Bytes that are not UTF-8 become U+FFFD. A byte order mark stays.
 *
 * **Example** (Splitting the content into lines)
 *
 * ```ts
 * import { AmqpMessage } from "@effect-amqp/core"
 *
 * declare const delivery: AmqpMessage.Delivery
 *
 * const lines = AmqpMessage.text(delivery).split("\n")
 * ```
 *
 * @see {@link json} for JSON content
 * @see {@link bytes} for a copy of the bytes
 *
 * @category conversions
 * @since 0.1.0
 */
export const text = (delivery: Pick<Delivery, "content">): string => internal.asBuffer(delivery.content).toString()

/**
 * Copies the content of a delivery.
 *
 * **When to use**
 *
 * Use when you keep a small content for long.
 *
 * **Details**
 *
 * `delivery.content` is a view into what the socket has read, and keeps all of that in memory. The copy has memory of
 * its own.
 *
 * **Example** (Keeping the content in a cache)
 *
 * ```ts
 * import { AmqpMessage } from "@effect-amqp/core"
 *
 * declare const delivery: AmqpMessage.Delivery
 *
 * const cache = new Map<string, Uint8Array>()
 * cache.set(delivery.routingKey, AmqpMessage.bytes(delivery))
 * ```
 *
 * @see {@link text} for content that is text
 *
 * @category conversions
 * @since 0.1.0
 */
export const bytes = (delivery: Pick<Delivery, "content">): Uint8Array => new Uint8Array(delivery.content)

/**
 * The trace context that a message was published in, from its header `traceparent` (W3C Trace Context).
 *
 * **When to use**
 *
 * Use as the parent or the link of a span for deliveries that you take from a stream or a channel. Handlers of
 * `AmqpConsumer.consume`, `consumeBatch` and `AmqpRpc.serve` already run in a span that has it.
 *
 * **Details**
 *
 * The result is `undefined` if the message has no such header, or one that cannot be read.
 *
 * **Example** (Tracing deliveries of a stream)
 *
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
 *
 * @category tracing
 * @since 0.1.0
 */
export const traceContext = (delivery: { readonly properties: Properties }): Tracer.ExternalSpan | undefined =>
  extractContext(delivery.properties.headers ?? {})

/**
 * Creates a message in a span of its own, whose context travels with the message.
 *
 * **When to use**
 *
 * Use for a message that is stored now and published later, by another fiber or process: what happens to it then is in
 * the trace of the code that created it. `publish` of a channel and of `AmqpPublisher` open a span already.
 *
 * **Details**
 *
 * `create` gets the message with the headers `traceparent`, `tracestate` and `baggage`, unless the message has a context
 * already. The span is a producer span, with `create` as its operation (OpenTelemetry's semantic conventions for
 * messaging). Callers without a tracer get the message as it is.
 *
 * **Example** (Storing a message)
 *
 * ```ts
 * import { AmqpMessage } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * declare const store: (message: AmqpMessage.Encoded) => Effect.Effect<void>
 *
 * const storeLater = (message: AmqpMessage.Message) =>
 *   AmqpMessage.withCreateSpan(message, (traced) => Effect.flatMap(AmqpMessage.toEncoded(traced), store))
 * ```
 *
 * @see {@link traceContext} for the context of a delivery
 *
 * @category tracing
 * @since 0.1.0
 */
export const withCreateSpan: <A, E, R>(
  message: Message,
  create: (message: Message) => Effect.Effect<A, E, R>
) => Effect.Effect<A, E, R> = tracing.withCreateSpan

/**
 * Encodes and decodes JSON content by a schema.
 *
 * **When to use**
 *
 * Use to publish values and to decode deliveries of a channel or a stream. `AmqpConsumer.consume` and `consumeBatch`
 * decode with their option `schema`.
 *
 * **Details**
 *
 * `encode` fails with `InvalidArgument` if a value does not match the schema; `decode` fails with `DecodeFailed`: see
 * `Json`. Both fail with `InvalidArgument` if `schema` is no schema.
 *
 * Values that JSON does not have are written by the schema's JSON codec (`Schema.toCodecJson`): a `Date` as an ISO 8601
 * string, a `bigint` as a string.
 *
 * **Gotchas**
 *
 * The schema is compiled when `json` is called. Call it once and keep the result, not for each message.
 *
 * **Example** (Decoding an order and encoding the next one)
 *
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
 *
 * @see {@link Json} for `encode` and `decode`
 *
 * @category constructors
 * @since 0.1.0
 */
export const json: <S extends Schema.Constraint>(schema: S) => Json<S> = internal.json

/**
 * Encodes a message for storage: what is published later is what would be published now, byte for byte.
 *
 * **When to use**
 *
 * Use to keep messages outside of the broker, for instance in a table that is written in the transaction of the change
 * that they report. `fromEncoded` reads them.
 *
 * **Details**
 *
 * The message is checked as `AmqpPublisher.publish` checks it before anything is sent, and refused with the same errors:
 * `InvalidArgument`, and `MessageTooLarge`. There is no connection here, so the limits are options. A broker with
 * smaller limits refuses the message when it is published.
 *
 * Everything that the message has is kept: every type of header, also those that other clients chose for a delivery that
 * is forwarded (`fromDelivery`). The options of `publish`, such as `mandatory`, are not part of a message.
 *
 * **Gotchas**
 *
 * - Content that is bytes is not copied: do not change it before it is stored.
 * - `expiration` counts from the time at which the message is published, not from now.
 * - No trace context is added. `publish` adds that of its own span, unless the headers have a `traceparent`.
 *
 * **Example** (Storing a message and publishing it later)
 *
 * ```ts
 * import { AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * declare const insert: (row: AmqpMessage.Encoded) => Effect.Effect<void>
 * declare const oldest: Effect.Effect<AmqpMessage.Encoded>
 *
 * const store = (message: AmqpMessage.Message) => Effect.flatMap(AmqpMessage.toEncoded(message), insert)
 *
 * const relay = oldest.pipe(
 *   Effect.flatMap(AmqpMessage.fromEncoded),
 *   Effect.flatMap((message) => AmqpPublisher.publish(message, { mandatory: true }))
 * )
 * ```
 *
 * @see {@link fromEncoded} for the way back
 * @see {@link Encoded} for the parts
 *
 * @category conversions
 * @since 0.1.0
 */
export const toEncoded: (message: Message, options?: EncodeOptions) => Effect.Effect<Encoded, AmqpError> =
  encoded.toEncoded

/**
 * Reads a message that `toEncoded` has encoded.
 *
 * **When to use**
 *
 * Use to publish messages that were stored.
 *
 * **Details**
 *
 * Published, the message has the same exchange, routing key, properties and content as the one that was encoded, byte
 * for byte. It fails with `InvalidArgument` if `properties` is not a property list, or has a property that a message
 * cannot be published with: AMQP's deprecated cluster id, an expiration that is not a number, or a timestamp beyond the
 * years of a `Date`. The other parts are checked when the message is published.
 *
 * **Gotchas**
 *
 * Headers whose types other clients chose keep them as long as they are in the same object: see `FieldValue`. To add a
 * header, set it before the message is encoded.
 *
 * **Example** (Publishing a message that was stored)
 *
 * ```ts
 * import { AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * declare const row: AmqpMessage.Encoded
 *
 * const publish = Effect.flatMap(AmqpMessage.fromEncoded(row), (message) => AmqpPublisher.publish(message))
 * ```
 *
 * @see {@link toEncoded} for encoding
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromEncoded: (encoded: Encoded) => Effect.Effect<Message, AmqpError> = encoded.fromEncoded
