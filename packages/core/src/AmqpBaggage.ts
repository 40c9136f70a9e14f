/**
 * Baggage: a few names and values that go along with a piece of work through all services that take part in it, such as
 * the tenant that it is for, as W3C has it (https://www.w3.org/TR/baggage/). OpenTelemetry's libraries in other languages
 * read and write the same.
 *
 * **When to use**
 *
 * For what handlers further on should know without being told in the message's content: what metrics are counted by, what
 * logs are searched for. Not for secrets: everybody on the way sees it. Not for what a handler depends on: anybody on the way
 * may change it, or leave it out.
 *
 * **Details**
 *
 * It travels where the trace context does (docs/observability.md): in the header `baggage` of messages, where a tracer has
 * been provided. A handler of `AmqpConsumer.consume` or `AmqpRpc.serve` has what came with its delivery, and what it
 * publishes and calls takes that along. Handlers behind `AmqpHttp`, `AmqpHttpApi` and the gateway have what came with their requests.
 *
 * - A message that has a header `traceparent` or `baggage` keeps what it has.
 * - A header has at most 180 members and 8192 bytes: what goes beyond is left out, whole members at the end. Headers that
 *   would become too large for a frame are sent without it.
 * - A batch has many messages, so its handler has none of their baggage. Nor has who takes deliveries by a stream or a
 *   channel: use `fromDelivery`.
 *
 * @example
 * ```ts
 * import { AmqpBaggage, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const order = AmqpPublisher.publish({ exchange: "orders", routingKey: "created", content: "..." }).pipe(
 *   AmqpBaggage.add({ tenant: "acme" })
 * )
 *
 * // In another service. What it publishes has the tenant, too.
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
 * The value of a name in the current baggage; `undefined` if it is not there.
 *
 * @category accessors
 * @since 0.1.0
 */
export const get = (name: string): Effect.Effect<string | undefined> =>
  Effect.map(Current, (baggage) => baggage.get(name)?.value)

/**
 * Runs an effect with these values in its baggage, beside what is there already. `undefined` takes a name out. A name that is
 * no token cannot be sent, and is left out of the header. Messages carry it only where a tracer is provided.
 *
 * @example
 * ```ts
 * import { AmqpBaggage, AmqpPublisher } from "@effect-amqp/core"
 *
 * const sent = AmqpPublisher.publish({ routingKey: "orders", content: "..." }).pipe(
 *   AmqpBaggage.add({ tenant: "acme", region: { value: "eu", metadata: "internal" }, user: undefined })
 * )
 * ```
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
 * @category conversions
 * @since 0.1.0
 */
export const header = Header.name

/**
 * Reads a header `baggage`, as HTTP and AMQP have it. Members that W3C's grammar does not allow are left out, and so is what
 * goes beyond 180 members or 8192 bytes.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromHeader = (header: string): Baggage => Header.parse(header)

/**
 * The header `baggage` for what has these values; `undefined` if there is nothing to say. Members whose names are no tokens, or
 * whose values are no strings, are left out.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toHeader = (baggage: Baggage): string | undefined => Header.format(baggage)

/**
 * What came with a delivery: for those who take deliveries by a stream, a batch or a channel. Handlers of
 * `AmqpConsumer.consume` and `AmqpRpc.serve` have it already, as `Current`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromDelivery = (delivery: { readonly properties: Properties }): Baggage =>
  delivery.properties.headers === undefined ? Header.none : Header.ofHeaders(delivery.properties.headers)
