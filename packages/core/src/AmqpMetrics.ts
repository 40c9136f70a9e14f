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
import * as Option from "effect/Option"
import { AmqpConnection } from "./model/connection.ts"
import { AmqpConsumer } from "./model/consumer.ts"
import { ownConnection } from "./AmqpConsumer.ts"
import { AmqpPool } from "./model/pool.ts"
import { AmqpPublisher } from "./model/publisher.ts"
import { AmqpRpc } from "./model/rpc.ts"
import { ownConfig } from "./internal/consumer/ownConfig.ts"
import { measuresOf } from "./internal/consumer/running.ts"
import { ConnectionInside } from "./internal/connection/links.ts"
import { type Watched, watchConnection, watchConnections } from "./internal/metrics/connection.ts"
import { boundaries } from "./internal/metrics/histogram.ts"
import { discards, PoolInside, replies, settlements } from "./internal/metrics/measures.ts"
import { Registry } from "./internal/metrics/registry.ts"
import { publisherOf } from "./internal/publisher/publisher.ts"
import { RpcInside } from "./internal/rpc/client.ts"

/** What exporters take for the unit, and make no label of. */
const seconds = { unit: "s" }

// --- The connection ----------------------------------------------------------------------------------------------------

/**
 * 1 for the state that the connection is in, 0 for the others. By `amqp.connection.state`. Consumers' own connection has it
 * too, as have `reconnects` and `connectAttempts`, by its name: that of the other and ` consumers`, or `consumers`. All of its
 * states are 0 while nobody consumes.
 */
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
  incremental: true,
  attributes: seconds
})

/**
 * Messages whose properties could not be read, so that they were not taken in: each was rejected without requeue (or
 * acknowledged, in a stream), and is logged as an error.
 */
export const undecodableMessages = Metric.counter("amqp.client.connection.undecodable_messages", {
  description: "Messages whose properties could not be read, and that were not taken in",
  incremental: true
})

/**
 * Conditions that need an operator's attention, by `amqp.condition.kind`: those of `AmqpConnection.conditions`. Those of
 * consumers have a series from the start, other kinds from their first condition on.
 */
export const conditions = Metric.gauge("amqp.client.conditions", {
  description: "Conditions that need an operator's attention, such as consumers that have ended, by kind"
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

/** How long borrowers waited who got a channel, in seconds, by `amqp.channel.kind`. */
export const waitTime = Metric.histogram("amqp.client.channel.wait_time", {
  description: "Seconds that borrowers waited who got a channel, by kind",
  boundaries,
  attributes: seconds
})

/** How long channels were borrowed, in seconds, by `amqp.channel.kind`. */
export const useTime = Metric.histogram("amqp.client.channel.use_time", {
  description: "Seconds for which channels were borrowed, by kind",
  boundaries,
  attributes: seconds
})

/**
 * Why channels were discarded, by `amqp.channel.kind` and `reason`: `interrupted` (its borrower left while a reply was due),
 * `defect`, `unclean` (a consumer, a prefetch, an open transaction or confirms that were due would have met the next
 * borrower), `refused` (the broker refused messages on it), `channel_error` (the broker closed it), `connection_lost`.
 */
export const channelsDiscarded = Metric.counter("amqp.client.channel.discarded", {
  description: "Channels that were discarded, by kind and reason",
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

/**
 * How long operations took, in seconds, by `messaging.operation.name` and `amqp.outcome`: `publish`, from the call to the
 * confirm or what else became of it, with the outcomes of `sentMessages`; `call`, from the request to its reply
 * (`replied`). `messaging.system` is `rabbitmq`.
 */
export const operationDuration = Metric.histogram("messaging.client.operation.duration", {
  description: "Seconds from a publish to its confirm, and from a call to its reply, by operation and outcome",
  boundaries,
  attributes: seconds
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

// --- Consumers -------------------------------------------------------------------------------------------------------

/** Deliveries that were handed to handlers and streams. */
export const consumedMessages = Metric.counter("messaging.client.consumed.messages", {
  description: "Deliveries that were handed to handlers and streams",
  incremental: true
})

/** Of these, how many the broker had handed out before. */
export const redeliveries = Metric.counter("amqp.client.consumer.redeliveries", {
  description: "Deliveries that the broker had handed out before",
  incremental: true
})

/**
 * What became of deliveries, by `amqp.settlement`: `acked`, `requeued`, `dead_lettered` (or dropped by the broker, for a queue
 * without a dead-letter exchange), `dropped` (acknowledged, by the policy `drop`), `retried` (acknowledged, after it was
 * published for its next try), `skipped` (of a stream, by the policy `skip`), `lost` (its channel ended before its handler: it comes again).
 */
export const settledMessages = Metric.counter("amqp.client.consumer.settled", {
  description: "Deliveries by what became of them",
  incremental: true
})

/**
 * How long handlers took, in seconds, by `amqp.outcome` (`succeeded`, `failed`); of a batch once. `messaging.system` is
 * `rabbitmq`, `messaging.operation.name` is `process`.
 */
export const processDuration = Metric.histogram("messaging.process.duration", {
  description: "Seconds that handlers took, by outcome",
  boundaries,
  attributes: seconds
})

// --- Requests --------------------------------------------------------------------------------------------------------

/**
 * Requests by how they have ended, by `amqp.outcome`: `replied`, `failed`, `timed_out`, `given_up` (interrupted). What is
 * refused before it is in line is not among them.
 */
export const calls = Metric.counter("amqp.rpc.client.calls", {
  description: "Requests by how they have ended",
  incremental: true
})

/** Replies that nobody waited for. */
export const unclaimedReplies = Metric.counter("amqp.rpc.client.unclaimed_replies", {
  description: "Replies that nobody waited for",
  incremental: true
})

/** What servers have answered, by `amqp.rpc.reply` (`success`, `failure`, `defect`). */
export const serverReplies = Metric.counter("amqp.rpc.server.replies", {
  description: "Requests by what they were answered with",
  incremental: true
})

// --- Their registration ------------------------------------------------------------------------------------------------

const operation = (name: string, outcome: string) => ({
  "messaging.system": "rabbitmq",
  "messaging.operation.name": name,
  "amqp.outcome": outcome
})

const states = ["Connecting", "Open", "Reconnecting", "Closed"] as const
const outcomes = ["confirmed", "nacked", "returned", "unknown", "timedOut", "forbidden", "refused"] as const
const named = (outcome: string) => outcome.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

const registerConnection = (
  registry: Registry,
  state: () => (typeof states)[number] | undefined,
  watched: Pick<Watched, "reconnects" | "failedAttempts">
): void => {
  for (const tag of states) {
    registry.gauge(connectionState, { "amqp.connection.state": tag.toLowerCase() }, () => (state() === tag ? 1 : 0))
  }
  registry.counter(reconnects, {}, () => watched.reconnects)
  registry.gauge(connectAttempts, {}, () => watched.failedAttempts)
}

/**
 * Registers the metrics of the services in context, until the scope closes. `Amqp.layer` and `AmqpLive` do; use it beside
 * an `AmqpConnection`, `AmqpPool` and `AmqpPublisher` that were put together by hand. Those of an `AmqpConsumer` and an
 * `AmqpRpc` are registered if these are in context, too.
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
    registerConnection(registry, () => connection.state.value._tag, watched)
    registry.counter(blockedTime, {}, () => watched.blockedSeconds)
    const links = ConnectionInside.of(connection)
    if (links !== undefined) {
      const { conditions: reported, unread } = links
      const unwatch = reported.watchKinds((kind) =>
        registry.gauge(conditions, { "amqp.condition.kind": kind }, () => reported.countOf(kind))
      )
      yield* Effect.addFinalizer(() => Effect.sync(unwatch))
      registry.counter(undecodableMessages, {}, () => unread.undecodable)
    }

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

    const pools = PoolInside.of(pool)
    for (const kind of ["regular", "confirm", "transaction"] as const) {
      const measures = pools?.[kind]
      if (measures === undefined) continue
      const of = { "amqp.channel.kind": kind }
      registry.histogram(waitTime, of, measures.waits)
      registry.histogram(useTime, of, measures.uses)
      for (const reason of discards) {
        registry.counter(channelsDiscarded, { ...of, reason }, () => measures.discarded[reason])
      }
    }

    const published = () => Effect.runSync(publisher.stats)
    for (const outcome of outcomes) {
      registry.counter(sentMessages, { "amqp.outcome": named(outcome) }, () => published()[outcome])
      const durations = publisherOf(publisher)?.durations
      if (durations !== undefined) {
        const of = operation("publish", named(outcome))
        registry.histogram(operationDuration, of, durations[outcome])
      }
    }
    registry.gauge(inFlight, {}, () => published().inFlight)
    registry.gauge(waiting, {}, () => published().waiting)
    registry.gauge(publisherChannels, {}, () => published().channels)

    const consumer = yield* Effect.serviceOption(AmqpConsumer)
    if (Option.isSome(consumer)) {
      const own = yield* Effect.provideService(ownConnection, AmqpConsumer, consumer.value)
      const ofOwn = new Registry(yield* Effect.context(), {
        "amqp.connection.name": ownConfig(connection.config).connectionName ?? "consumers"
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => ofOwn.clear()))
      registerConnection(ofOwn, () => own.value?.state.value._tag, yield* watchConnections(own))
      const measures = measuresOf(consumer.value)
      registry.counter(consumedMessages, {}, () => measures.deliveries)
      registry.counter(redeliveries, {}, () => measures.redeliveries)
      for (const settlement of settlements) {
        registry.counter(settledMessages, { "amqp.settlement": settlement }, () => measures.settled[settlement])
      }
      registry.histogram(processDuration, operation("process", "succeeded"), measures.succeeded)
      registry.histogram(processDuration, operation("process", "failed"), measures.failed)
      for (const reply of replies) {
        registry.counter(serverReplies, { "amqp.rpc.reply": reply }, () => measures.replies[reply])
      }
    }

    const rpc = yield* Effect.serviceOption(AmqpRpc)
    const client = Option.isSome(rpc) ? RpcInside.of(rpc.value) : undefined
    if (client !== undefined) {
      for (const outcome of ["replied", "failed", "timedOut", "givenUp"] as const) {
        registry.counter(calls, { "amqp.outcome": named(outcome) }, () => client.outcomes[outcome])
      }
      registry.counter(unclaimedReplies, {}, () => client.stats.unclaimed)
      registry.histogram(operationDuration, operation("call", "replied"), client.durations)
    }
  })
)
