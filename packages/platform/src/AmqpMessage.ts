/**
 * Messages as plain data: what is published and what is delivered.
 *
 * @since 0.1.0
 */
import { AmqpMessage as Core } from "@effect-amqp/core"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import type * as Runtime from "effect/Runtime"
import type * as Schema from "effect/Schema"
import type * as Tracer from "effect/Tracer"
import { outside, run4 } from "./internal/run.ts"
import { CallerRuntime, toSchema4 } from "./internal/schemas.ts"
import { toSpan3 } from "./internal/tracing.ts"
import { toOptions4 } from "./internal/values.ts"
import type { AmqpError } from "./model/error.ts"
import type { Delivery, Envelope, Message, Properties } from "./model/message.ts"

export * from "./model/message.ts"

/**
 * Encodes values to messages with JSON content, and decodes deliveries to values, by a schema.
 *
 * **When to use**
 *
 * Use as the type of what `AmqpMessage.json` returns.
 *
 * @category models
 * @since 0.1.0
 */
export interface Json<A, R> {
  /**
   * Makes a message with a value as its JSON content. `contentType` is `application/json` and `contentEncoding` is
   * `utf-8`, unless the envelope sets them. It fails with `InvalidArgument` if the value does not match the schema.
   */
  readonly encode: {
    /** Makes messages with the same envelope from values: for `Effect.flatMap`, or for a `Stream.mapEffect`. */
    (envelope: Envelope): (value: A) => Effect.Effect<Message, AmqpError, R>
    /** Makes a message from a value and an envelope. */
    (value: A, envelope: Envelope): Effect.Effect<Message, AmqpError, R>
  }
  /**
   * Decodes the value of a delivery. It fails with `DecodeFailed`, whose message says what is wrong and where, but not
   * what the content is, for a `contentType` that is not JSON, a `contentEncoding` other than `utf-8` or `identity`, and
   * content that is not UTF-8, is not JSON, or does not match the schema.
   */
  readonly decode: (
    delivery: Pick<Delivery, "content"> & { readonly properties: Properties }
  ) => Effect.Effect<A, AmqpError, R>
}

/**
 * The content of a delivery as text, decoded as UTF-8.
 *
 * **When to use**
 *
 * Use for contents that are text. `json` decodes and checks JSON.
 *
 * @category decoding
 * @since 0.1.0
 */
export const text = (delivery: Pick<Delivery, "content">): string => Core.text(delivery)

/**
 * A copy of the content of a delivery, which holds nothing else in memory.
 *
 * **When to use**
 *
 * Use to keep a content for longer than its delivery: the content itself is a view into what the socket has read.
 *
 * @category decoding
 * @since 0.1.0
 */
export const bytes = (delivery: Pick<Delivery, "content">): Uint8Array => Core.bytes(delivery)

/**
 * Creates a message from a delivery: the same content, exchange, routing key and properties, except for `overrides`.
 *
 * **When to use**
 *
 * Use to retry, forward or copy a delivery.
 *
 * **Details**
 *
 * Headers that RabbitMQ has added are kept.
 *
 * **Gotchas**
 *
 * - A header `CC` sends copies again.
 * - The broker refuses a `userId` that is not the user of the connection: override it with `undefined`.
 *
 * **Example** (Postponing a message by a minute)
 *
 * ```ts
 * import { AmqpChannel, AmqpMessage } from "@effect-amqp/platform"
 *
 * declare const delivery: AmqpMessage.Delivery
 *
 * // To the queue "later", for one minute.
 * const postponed = AmqpMessage.fromDelivery(delivery, { exchange: "", routingKey: "later", expiration: "1 minute" })
 * const postpone = AmqpChannel.use((channel) => channel.publish(postponed))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromDelivery = (
  delivery: Pick<Delivery, "content" | "exchange" | "routingKey"> & { readonly properties: Properties },
  overrides?: Partial<Message>
): Message => Core.fromDelivery(delivery as never, overrides as never) as Message

/**
 * The span that a message was published in, from its headers.
 *
 * **When to use**
 *
 * Use with deliveries that no consumer handles, such as those of `get`, to continue the trace of their publisher.
 *
 * @category tracing
 * @since 0.1.0
 */
export const traceContext = (delivery: { readonly properties: Properties }): Option.Option<Tracer.AnySpan> => {
  const span = Core.traceContext(delivery as never)
  return span === undefined ? Option.none() : Option.some(toSpan3(span))
}

/**
 * Encodes and decodes JSON by a schema.
 *
 * **When to use**
 *
 * Use to publish values, and to decode deliveries of `get` and `AmqpConsumer.stream`. `AmqpConsumer.consume` takes the
 * schema itself.
 *
 * **Details**
 *
 * The content is what `Schema.parseJson` of Effect 3 writes: a key that is `undefined` is left out. A whole content of
 * `undefined` is `null`, as in the core. `encode` fails with `InvalidArgument` for what JSON does not have, such as `NaN`,
 * a `bigint`, or `undefined` in an array: the schema would not decode what JSON makes of it. `encode` and `decode` fail
 * with `InvalidArgument` if `schema` is no schema.
 *
 * @category encoding
 * @since 0.1.0
 */
export const json = <A, I, R>(schema: Schema.Schema<A, I, R>): Json<A, R> => {
  const codec = Core.json(toSchema4(schema))
  const run = <B, C>(effect: Effect4.Effect<B, unknown>, map: (value: B) => C): Effect.Effect<C, AmqpError, R> =>
    Effect.flatMap(Effect.runtime<R>(), (runtime) =>
      run4<never, B, AmqpError, C>(
        outside,
        Effect4.provideService(effect, CallerRuntime, runtime as Runtime.Runtime<never>),
        map
      )
    )
  return {
    encode: dual(2, (value: A, envelope: Envelope) =>
      run(codec.encode(value, toOptions4(envelope)), (message) => message as Message)
    ),
    decode: (delivery) => run(codec.decode(delivery as never), (value) => value as A)
  }
}
