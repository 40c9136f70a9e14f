/**
 * Baggage: a few names and values that accompany a piece of work through all services that take part in it, such as the
 * tenant that it is for.
 *
 * **When to use**
 *
 * Use for what later handlers need to know in addition to the content of the message: attributes of metrics, or terms
 * that logs are searched for. Do not use it for secrets, because every service and broker on the way can read it. Do
 * not use it for what a handler depends on, because every service on the way can change it or leave it out.
 *
 * **Details**
 *
 * The format is W3C's (https://www.w3.org/TR/baggage/), which OpenTelemetry's libraries in other languages read and
 * write too.
 *
 * Baggage is sent where the trace context is sent (docs/observability.md): in the header `baggage` of messages, where a
 * tracer is provided. A handler of `AmqpConsumer.consume` or `AmqpRpc.serve` has the baggage of its delivery, and what
 * it publishes and calls carries that baggage. Handlers behind `AmqpHttp`, `AmqpHttpApi` and the gateway have the
 * baggage of their requests.
 *
 * **Gotchas**
 *
 * - A message that already has a header `traceparent` or `baggage` keeps it.
 * - A header has at most 180 members and 8192 bytes: what exceeds these limits is left out, whole members from the end.
 *   Headers that would become too large for a frame are sent without baggage.
 * - A batch has many messages, so its handler has the baggage of none of them. Deliveries that you take from a stream
 *   or a channel do not set the baggage either. Use `fromDelivery` for these.
 *
 * **Example** (Sending the tenant along)
 *
 * ```ts
 * import { AmqpBaggage, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const order = AmqpPublisher.publish({ exchange: "orders", routingKey: "created", content: "..." }).pipe(
 *   AmqpBaggage.add({ tenant: "acme" })
 * )
 *
 * // In another service. What it publishes carries the tenant, too.
 * const consumer = AmqpConsumer.consume("orders", () =>
 *   Effect.gen(function* () {
 *     const tenant = yield* AmqpBaggage.get("tenant")
 *     yield* Effect.annotateLogs(Effect.logInfo("an order"), { tenant })
 *     yield* AmqpPublisher.publish({ routingKey: "mails", content: "..." })
 *   })
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { Properties } from "./model/message.ts"
import * as Header from "./internal/telemetry/baggageHeader.ts"
import { type Entry, type Baggage, Current } from "./model/baggage.ts"

export * from "./model/baggage.ts"

/**
 * Reads the value of a name in the current baggage.
 *
 * **When to use**
 *
 * Use in a handler, to read what an earlier service has added.
 *
 * **Details**
 *
 * The result is `undefined` if the baggage does not have the name.
 *
 * **Example** (Annotating logs with the tenant)
 *
 * ```ts
 * import { AmqpBaggage } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const tenant = yield* AmqpBaggage.get("tenant")
 *   yield* Effect.annotateLogs(Effect.logInfo("Order accepted"), { tenant })
 * })
 * ```
 *
 * @see {@link Current} for the whole baggage, with metadata
 * @see {@link add} for adding values
 *
 * @category accessors
 * @since 0.1.0
 */
export const get = (name: string): Effect.Effect<string | undefined> =>
  Effect.map(Current, (baggage) => baggage.get(name)?.value)

/**
 * Runs an effect with these values added to its baggage.
 *
 * **When to use**
 *
 * Use where a piece of work begins, to add what later services need to know.
 *
 * **Details**
 *
 * The values are added to the current baggage. A value of `undefined` removes its name.
 *
 * **Gotchas**
 *
 * - A name that is not a token cannot be sent, and is left out of the header.
 * - Messages carry baggage only where a tracer is provided.
 *
 * **Example** (Adding and removing values)
 *
 * ```ts
 * import { AmqpBaggage, AmqpPublisher } from "@effect-amqp/core"
 *
 * const sent = AmqpPublisher.publish({ routingKey: "orders", content: "..." }).pipe(
 *   AmqpBaggage.add({ tenant: "acme", region: { value: "eu", metadata: "internal" }, user: undefined })
 * )
 * ```
 *
 * @see {@link get} for reading a value
 *
 * @category combinators
 * @since 0.1.0
 */
export const add =
  (values: Readonly<Record<string, string | Entry | undefined>>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Current, (baggage) => {
      const all = new Map(baggage)
      for (const [name, value] of Object.entries(values)) {
        if (value === undefined) all.delete(name)
        else all.set(name, typeof value === "string" ? { value } : value)
      }
      return Effect.provideService(effect, Current, all)
    })

/**
 * The name of the header, in HTTP and in messages: `baggage`.
 *
 * **When to use**
 *
 * Use to read or write the header in a protocol that this library does not handle.
 *
 * @see {@link fromHeader}
 * @see {@link toHeader}
 *
 * @category conversions
 * @since 0.1.0
 */
export const header = Header.headerName

/**
 * Parses a `baggage` header of HTTP or AMQP.
 *
 * **When to use**
 *
 * Use for headers of a protocol that this library does not handle. For deliveries use `fromDelivery`.
 *
 * **Details**
 *
 * Members that W3C's grammar does not allow are left out, and so is what exceeds 180 members or 8192 bytes.
 *
 * @see {@link toHeader} for the reverse
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromHeader = (header: string): Baggage => Header.parse(header)

/**
 * Formats baggage as a `baggage` header.
 *
 * **When to use**
 *
 * Use for headers of a protocol that this library does not handle. Messages carry their baggage automatically.
 *
 * **Details**
 *
 * The result is `undefined` if there is nothing to send. Members whose names are not tokens, or whose values are not
 * strings, are left out.
 *
 * @see {@link fromHeader} for the reverse
 *
 * @category conversions
 * @since 0.1.0
 */
export const toHeader = (baggage: Baggage): string | undefined => Header.format(baggage)

/**
 * Reads the baggage of a delivery.
 *
 * **When to use**
 *
 * Use for deliveries that you take from a stream, a batch or a channel. Handlers of `AmqpConsumer.consume` and
 * `AmqpRpc.serve` already have it as `Current`.
 *
 * **Example** (Handling a delivery of a stream with its baggage)
 *
 * ```ts
 * import { AmqpBaggage, AmqpConsumer } from "@effect-amqp/core"
 * import { Effect, Stream } from "effect"
 *
 * declare const handle: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void>
 *
 * const orders = Stream.runForEach(AmqpConsumer.stream("orders"), (delivery) =>
 *   Effect.andThen(handle(delivery), delivery.ack).pipe(
 *     Effect.provideService(AmqpBaggage.Current, AmqpBaggage.fromDelivery(delivery))
 *   )
 * )
 * ```
 *
 * @see {@link Current}
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromDelivery = (delivery: { readonly properties: Properties }): Baggage =>
  delivery.properties.headers === undefined ? Header.emptyBaggage : Header.extract(delivery.properties.headers)
