/**
 * What can be counted and measured, as Effect `Metric`s: exported by whatever exports these, such as `PrometheusMetrics` or
 * `OtlpMetrics` of `effect/observability`.
 *
 * `Amqp.layer` and `AmqpLive` register them. They are read when somebody collects them, so they cost an application
 * nothing in between; times are added up in the fixed buckets of a histogram.
 *
 * Names are OpenTelemetry's where it has one (https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/), and
 * formed like its database pool's otherwise. No attribute takes more than a handful of values: queues, exchanges and
 * routing keys are in spans, not here. A connection with a `connectionName` has it as `amqp.connection.name`, so that
 * several in one process can be told apart.
 *
 * @example
 * ```ts
 * import { AmqpMetrics } from "@effect-amqp/core"
 * import { Effect, Metric } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const { count } = yield* Metric.value(Metric.withAttributes(AmqpMetrics.sentMessages, { "amqp.outcome": "confirmed" }))
 *   yield* Effect.log(`${count} messages confirmed`)
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import { AmqpConnection } from "./AmqpConnection.ts"
import { AmqpPool } from "./AmqpPool.ts"
import { AmqpPublisher } from "./AmqpPublisher.ts"
import { watchConnection } from "./internal/metrics/connection.ts"
import { Registry } from "./internal/metrics/registry.ts"

// --- The connection ----------------------------------------------------------------------------------------------------

/** 1 for the state that the connection is in, 0 for the others. By `amqp.connection.state`. */
export const connectionState = Metric.gauge("amqp.client.connection.state", {
  description: "1 for the state that the connection is in (amqp.connection.state), 0 for the others"
})

/** Connections that were made after the first. */
export const reconnects = Metric.counter("amqp.client.connection.reconnects", {
  description: "Connections that were made after the first",
  incremental: true
})

/** Attempts to connect that failed, since the last connection was open. */
export const connectAttempts = Metric.gauge("amqp.client.connection.failed_attempts", {
  description: "Attempts to connect that have failed since the connection was open"
})

/** How long the broker has blocked publishers, in seconds; grows while it does. */
export const blockedTime = Metric.counter("amqp.client.connection.blocked_time", {
  description: "Seconds for which the broker has blocked publishers",
  incremental: true
})

// --- The pool ----------------------------------------------------------------------------------------------------------

/** Channels of the pool, by `amqp.channel.kind` (`regular`, `confirm`, `transaction`) and `state` (`idle`, `used`). */
export const channelCount = Metric.gauge("amqp.client.channel.count", {
  description: "Open channels of the pool, by kind and state"
})

/** Channels that may be open at once, by `amqp.channel.kind`. */
export const channelMax = Metric.gauge("amqp.client.channel.max", {
  description: "Channels that may be open at once, by kind"
})

/** Borrowers in line, by `amqp.channel.kind`. */
export const pendingRequests = Metric.gauge("amqp.client.channel.pending_requests", {
  description: "Borrowers in line for a channel, by kind"
})

/** Borrowers that left with `AcquireTimeout`, by `amqp.channel.kind`. */
export const acquireTimeouts = Metric.counter("amqp.client.channel.timeouts", {
  description: "Borrowers that waited for a channel until their time was up, by kind",
  incremental: true
})

/** Channels opened, by `amqp.channel.kind`. */
export const channelsCreated = Metric.counter("amqp.client.channel.created", {
  description: "Channels that were opened, by kind",
  incremental: true
})

/** Channels that ended, by `amqp.channel.kind` and `reason` (`recycled`: age or idleness; `discarded`: dead or unfit). */
export const channelsClosed = Metric.counter("amqp.client.channel.closed", {
  description: "Channels that were recycled or discarded, by kind",
  incremental: true
})

// --- The publisher -----------------------------------------------------------------------------------------------------

/**
 * Messages whose outcome is known, by `amqp.outcome`: `confirmed`, `nacked`, `returned`, `unknown`, `timed_out`,
 * `forbidden` (the broker blocked), `refused` (nothing was sent).
 */
export const sentMessages = Metric.counter("messaging.client.sent.messages", {
  description: "Messages of the publisher whose outcome is known, by outcome",
  incremental: true
})

/** Messages sent that the broker has not answered for. */
export const inFlight = Metric.gauge("amqp.client.publisher.in_flight", {
  description: "Messages sent that the broker has not answered for"
})

/** Messages in line. */
export const waiting = Metric.gauge("amqp.client.publisher.waiting", {
  description: "Messages in line"
})

/** Open channels of the publisher. */
export const publisherChannels = Metric.gauge("amqp.client.publisher.channels", {
  description: "Open channels of the publisher"
})

// --- Their registration ------------------------------------------------------------------------------------------------

const states = ["Connecting", "Open", "Reconnecting", "Closed"] as const
const outcomes = ["confirmed", "nacked", "returned", "unknown", "timedOut", "forbidden", "refused"] as const
const named = (outcome: (typeof outcomes)[number]) => (outcome === "timedOut" ? "timed_out" : outcome)

/**
 * Registers the metrics of the services in context, until the scope closes. `Amqp.layer` and `AmqpLive` do; use it beside
 * an `AmqpConnection`, `AmqpPool` and `AmqpPublisher` that were put together by hand.
 */
export const layer: Layer.Layer<never, never, AmqpConnection | AmqpPool | AmqpPublisher> = Layer.effectDiscard(
  Effect.gen(function* () {
    const connection = yield* AmqpConnection
    const pool = yield* AmqpPool
    const publisher = yield* AmqpPublisher
    const { connectionName } = connection.config
    const registry = new Registry(
      yield* Effect.context(),
      connectionName === undefined ? {} : { "amqp.connection.name": connectionName }
    )
    yield* Effect.addFinalizer(() => Effect.sync(() => registry.clear()))

    const watched = yield* watchConnection(connection)
    for (const tag of states) {
      registry.gauge(connectionState, { "amqp.connection.state": tag.toLowerCase() }, () =>
        connection.state.value._tag === tag ? 1 : 0
      )
    }
    registry.counter(reconnects, {}, () => watched.reconnects)
    registry.gauge(connectAttempts, {}, () => watched.failedAttempts)
    registry.counter(blockedTime, {}, () => watched.blockedSeconds)

    for (const [kind, { stats }] of [
      ["regular", pool],
      ["confirm", pool.confirm],
      ["transaction", pool.transaction]
    ] as const) {
      const of = { "amqp.channel.kind": kind }
      const read = () => Effect.runSync(stats)
      registry.gauge(channelCount, { ...of, state: "idle" }, () => read().idle)
      registry.gauge(channelCount, { ...of, state: "used" }, () => read().used)
      registry.gauge(channelMax, of, () => read().max)
      registry.gauge(pendingRequests, of, () => read().pending)
      registry.counter(acquireTimeouts, of, () => read().timedOut)
      registry.counter(channelsCreated, of, () => read().created)
      registry.counter(channelsClosed, { ...of, reason: "recycled" }, () => read().recycled)
      registry.counter(channelsClosed, { ...of, reason: "discarded" }, () => read().discarded)
    }

    const published = () => Effect.runSync(publisher.stats)
    for (const outcome of outcomes) {
      registry.counter(sentMessages, { "amqp.outcome": named(outcome) }, () => published()[outcome])
    }
    registry.gauge(inFlight, {}, () => published().inFlight)
    registry.gauge(waiting, {}, () => published().waiting)
    registry.gauge(publisherChannels, {}, () => published().channels)
  })
)
