/**
 * Metrics of connection, pool, publisher, consumers and requests, as Effect `Metric`s.
 *
 * **When to use**
 *
 * Use with an exporter of Effect's metrics, such as `PrometheusMetrics` or `OtlpMetrics` of `effect/observability`, or
 * to read a metric in a program.
 *
 * **Details**
 *
 * `Amqp.layer` and `AmqpLive` register the metrics. Counters and gauges are computed when an exporter collects them,
 * and cost nothing in between; durations are added to the fixed buckets of a histogram.
 *
 * Metrics have OpenTelemetry's names where it defines one
 * (https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/); the other names follow its database
 * pool's. Each attribute has a handful of values: queues, exchanges and routing keys are attributes of spans, not of
 * metrics. If a connection has a `connectionName`, its metrics carry the attribute `amqp.connection.name`, which
 * distinguishes several connections in one process.
 *
 * **Example** (Reading a counter)
 *
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
import { measuresOf } from "./internal/consumer/runningConsumers.ts"
import { ConnectionInside } from "./internal/connection/connectionInternals.ts"
import { type ConnectionMeasures, watchConnection, watchConnections } from "./internal/metrics/connection.ts"
import { boundaries } from "./internal/metrics/histogram.ts"
import { discardReasons, PoolInside, replyOutcomes, settlements } from "./internal/metrics/measures.ts"
import { Registry } from "./internal/metrics/registry.ts"
import { publisherOf } from "./internal/publisher/publisher.ts"
import { RpcInside } from "./internal/rpc/client.ts"

/** Exporters read the unit from this attribute and do not export it as a label. */
const seconds = { unit: "s" }

// --- The connection ----------------------------------------------------------------------------------------------------

/**
 * A gauge that is 1 for the connection's current state and 0 for the others, by `amqp.connection.state`.
 *
 * **When to use**
 *
 * Use to alert when the connection is not open.
 *
 * **Details**
 *
 * Metric `amqp.client.connection.state`. The connection of the consumers has this metric too, as well as `reconnects`
 * and `connectAttempts`. Its `amqp.connection.name` is the name of the other connection followed by ` consumers`, or
 * `consumers`. All its states are 0 while no consumer runs.
 *
 * @category connection
 * @since 0.1.0
 */
export const connectionState = Metric.gauge("amqp.client.connection.state", {
  description: "1 for the current state of the connection (amqp.connection.state), 0 for the others"
})

/**
 * A counter of connections that were made after the first one.
 *
 * **When to use**
 *
 * Use to find networks, brokers or proxies that drop connections.
 *
 * **Details**
 *
 * Metric `amqp.client.connection.reconnects`.
 *
 * @category connection
 * @since 0.1.0
 */
export const reconnects = Metric.counter("amqp.client.connection.reconnects", {
  description: "Connections that were made after the first one",
  incremental: true
})

/**
 * A gauge of the failed attempts to connect since the connection was last open.
 *
 * **When to use**
 *
 * Use to alert when the broker is unreachable.
 *
 * **Details**
 *
 * Metric `amqp.client.connection.failed_attempts`.
 *
 * @category connection
 * @since 0.1.0
 */
export const connectAttempts = Metric.gauge("amqp.client.connection.failed_attempts", {
  description: "Failed attempts to connect since the connection was last open"
})

/**
 * A counter of the time for which the broker has blocked publishers, in seconds; it also grows during a block.
 *
 * **When to use**
 *
 * Use to find a broker that is short of memory or disk space.
 *
 * **Details**
 *
 * Metric `amqp.client.connection.blocked_time`.
 *
 * @category connection
 * @since 0.1.0
 */
export const blockedTime = Metric.counter("amqp.client.connection.blocked_time", {
  description: "Seconds for which the broker has blocked publishers",
  incremental: true,
  attributes: seconds
})

/**
 * A counter of messages that were not delivered to consumers because their properties could not be decoded.
 *
 * **When to use**
 *
 * Use to find publishers that send invalid properties.
 *
 * **Details**
 *
 * Metric `amqp.client.connection.undecodable_messages`. Each of these messages is rejected without requeue (in a
 * stream: acknowledged), and is logged as an error.
 *
 * @category connection
 * @since 0.1.0
 */
export const undecodableMessages = Metric.counter("amqp.client.connection.undecodable_messages", {
  description: "Messages that were not delivered to consumers because their properties could not be decoded",
  incremental: true
})

/**
 * A gauge of the conditions that need an operator's attention, by `amqp.condition.kind`.
 *
 * **When to use**
 *
 * Use to alert on what `AmqpConnection.conditions` lists, such as a consumer that has ended.
 *
 * **Details**
 *
 * Metric `amqp.client.conditions`. The kinds of consumers' conditions have a series from the start, other kinds from
 * their first condition on.
 *
 * @category connection
 * @since 0.1.0
 */
export const conditions = Metric.gauge("amqp.client.conditions", {
  description: "Conditions that need an operator's attention, such as consumers that have ended, by kind"
})

// --- The pool ----------------------------------------------------------------------------------------------------------

/**
 * A gauge of the pool's open channels, by `amqp.channel.kind` (`regular`, `confirm`, `transaction`) and `state`
 * (`idle`, `used`).
 *
 * **When to use**
 *
 * Use together with `channelMax` to see how much of the pool is in use.
 *
 * **Details**
 *
 * Metric `amqp.client.channel.count`.
 *
 * @category pool
 * @since 0.1.0
 */
export const channelCount = Metric.gauge("amqp.client.channel.count", {
  description: "Open channels of the pool, by kind and state"
})

/**
 * A gauge of the maximum number of channels that may be open at once, by `amqp.channel.kind`.
 *
 * **When to use**
 *
 * Use as the limit of `channelCount`.
 *
 * **Details**
 *
 * Metric `amqp.client.channel.max`.
 *
 * @category pool
 * @since 0.1.0
 */
export const channelMax = Metric.gauge("amqp.client.channel.max", {
  description: "Maximum number of channels that may be open at once, by kind"
})

/**
 * A gauge of the borrowers in the wait queue, by `amqp.channel.kind`.
 *
 * **When to use**
 *
 * Use to find a pool that is too small.
 *
 * **Details**
 *
 * Metric `amqp.client.channel.pending_requests`.
 *
 * @category pool
 * @since 0.1.0
 */
export const pendingRequests = Metric.gauge("amqp.client.channel.pending_requests", {
  description: "Borrowers that wait for a channel, by kind"
})

/**
 * A counter of the borrowers that failed with `AcquireTimeout`, by `amqp.channel.kind`.
 *
 * **When to use**
 *
 * Use to alert on a pool that is exhausted.
 *
 * **Details**
 *
 * Metric `amqp.client.channel.timeouts`.
 *
 * @category pool
 * @since 0.1.0
 */
export const acquireTimeouts = Metric.counter("amqp.client.channel.timeouts", {
  description: "Borrowers that timed out while they waited for a channel, by kind",
  incremental: true
})

/**
 * A counter of the channels that the pool has opened, by `amqp.channel.kind`.
 *
 * **When to use**
 *
 * Use to find channels that are replaced often.
 *
 * **Details**
 *
 * Metric `amqp.client.channel.created`.
 *
 * @category pool
 * @since 0.1.0
 */
export const channelsCreated = Metric.counter("amqp.client.channel.created", {
  description: "Channels that the pool has opened, by kind",
  incremental: true
})

/**
 * A histogram of the time that borrowers waited until they got a channel, in seconds, by `amqp.channel.kind`.
 *
 * **When to use**
 *
 * Use to size the pool.
 *
 * **Details**
 *
 * Metric `amqp.client.channel.wait_time`. Borrowers that got no channel are not included.
 *
 * @category pool
 * @since 0.1.0
 */
export const waitTime = Metric.histogram("amqp.client.channel.wait_time", {
  description: "Seconds that borrowers waited until they got a channel, by kind",
  boundaries,
  attributes: seconds
})

/**
 * A histogram of the time for which channels were borrowed, in seconds, by `amqp.channel.kind`.
 *
 * **When to use**
 *
 * Use to find code that borrows channels for longer than it needs them.
 *
 * **Details**
 *
 * Metric `amqp.client.channel.use_time`.
 *
 * @category pool
 * @since 0.1.0
 */
export const useTime = Metric.histogram("amqp.client.channel.use_time", {
  description: "Seconds for which channels were borrowed, by kind",
  boundaries,
  attributes: seconds
})

/**
 * A counter of the channels that were discarded instead of reused, by `amqp.channel.kind` and `reason`.
 *
 * **When to use**
 *
 * Use to find why channels are not reused.
 *
 * **Details**
 *
 * Metric `amqp.client.channel.discarded`. The reasons are:
 *
 * - `interrupted`: the borrower left while a reply from the broker was outstanding.
 * - `defect`: an operation failed unexpectedly (`ProtocolError`, `UnknownError`).
 * - `unclean`: the next borrower would have found a consumer, a prefetch, an open transaction or outstanding confirms.
 * - `refused`: the broker refused messages on the channel.
 * - `channel_error`: the broker closed the channel.
 * - `connection_lost`: the connection ended.
 *
 * @category pool
 * @since 0.1.0
 */
export const channelsDiscarded = Metric.counter("amqp.client.channel.discarded", {
  description: "Channels that were discarded, by kind and reason",
  incremental: true
})

/**
 * A counter of the channels that the pool has closed, by `amqp.channel.kind` and `reason` (`recycled`: too old or idle;
 * `discarded`: dead or not reusable).
 *
 * **When to use**
 *
 * Use to distinguish planned replacements from failures. `channelsDiscarded` has the reasons of the failures.
 *
 * **Details**
 *
 * Metric `amqp.client.channel.closed`.
 *
 * @category pool
 * @since 0.1.0
 */
export const channelsClosed = Metric.counter("amqp.client.channel.closed", {
  description: "Channels that were recycled or discarded, by kind and reason",
  incremental: true
})

// --- The publisher -----------------------------------------------------------------------------------------------------

/**
 * A counter of the publisher's messages whose outcome is known, by `amqp.outcome`.
 *
 * **When to use**
 *
 * Use to alert on messages that were not confirmed.
 *
 * **Details**
 *
 * Metric `messaging.client.sent.messages`. The outcomes are `confirmed`, `nacked`, `returned`, `unknown`, `timed_out`,
 * `forbidden` (the broker blocked publishers) and `refused` (nothing was sent).
 *
 * @category publisher
 * @since 0.1.0
 */
export const sentMessages = Metric.counter("messaging.client.sent.messages", {
  description: "Messages of the publisher whose outcome is known, by outcome",
  incremental: true
})

/**
 * A histogram of the duration of publishes and calls, in seconds, by `messaging.operation.name` and `amqp.outcome`.
 *
 * **When to use**
 *
 * Use to measure how long confirms and replies take.
 *
 * **Details**
 *
 * Metric `messaging.client.operation.duration`. The operations are:
 *
 * - `publish`: from the call to the confirm or another outcome, with the outcomes of `sentMessages`.
 * - `call`: from the request to its reply, with the outcome `replied`.
 *
 * `messaging.system` is `rabbitmq`.
 *
 * @category publisher
 * @since 0.1.0
 */
export const operationDuration = Metric.histogram("messaging.client.operation.duration", {
  description: "Seconds from a publish to its confirm, and from a call to its reply, by operation and outcome",
  boundaries,
  attributes: seconds
})

/**
 * A gauge of the messages that were sent and are not confirmed yet.
 *
 * **When to use**
 *
 * Use to see how much of the publisher's capacity in flight is in use.
 *
 * **Details**
 *
 * Metric `amqp.client.publisher.in_flight`.
 *
 * @category publisher
 * @since 0.1.0
 */
export const inFlight = Metric.gauge("amqp.client.publisher.in_flight", {
  description: "Messages that were sent and are not confirmed yet"
})

/**
 * A gauge of the messages in the publisher's backlog.
 *
 * **When to use**
 *
 * Use to find a publisher that produces more than the broker accepts.
 *
 * **Details**
 *
 * Metric `amqp.client.publisher.waiting`.
 *
 * @category publisher
 * @since 0.1.0
 */
export const waiting = Metric.gauge("amqp.client.publisher.waiting", {
  description: "Messages in the publisher's backlog"
})

/**
 * A gauge of the publisher's open channels.
 *
 * **When to use**
 *
 * Use to see how many channels the load needs.
 *
 * **Details**
 *
 * Metric `amqp.client.publisher.channels`.
 *
 * @category publisher
 * @since 0.1.0
 */
export const publisherChannels = Metric.gauge("amqp.client.publisher.channels", {
  description: "Open channels of the publisher"
})

// --- Consumers -------------------------------------------------------------------------------------------------------

/**
 * A counter of the deliveries that were passed to handlers and streams.
 *
 * **When to use**
 *
 * Use to measure the throughput of consumers.
 *
 * **Details**
 *
 * Metric `messaging.client.consumed.messages`.
 *
 * @category consumers
 * @since 0.1.0
 */
export const consumedMessages = Metric.counter("messaging.client.consumed.messages", {
  description: "Deliveries that were passed to handlers and streams",
  incremental: true
})

/**
 * A counter of the deliveries that the broker had delivered before; `consumedMessages` includes them.
 *
 * **When to use**
 *
 * Use to find handlers that fail, and connections that are lost during handling.
 *
 * **Details**
 *
 * Metric `amqp.client.consumer.redeliveries`.
 *
 * @category consumers
 * @since 0.1.0
 */
export const redeliveries = Metric.counter("amqp.client.consumer.redeliveries", {
  description: "Deliveries that the broker had delivered before",
  incremental: true
})

/**
 * A counter of the settled deliveries, by `amqp.settlement`.
 *
 * **When to use**
 *
 * Use to alert on deliveries that were dead-lettered, dropped or lost.
 *
 * **Details**
 *
 * Metric `amqp.client.consumer.settled`. The settlements are:
 *
 * - `acked`: acknowledged.
 * - `requeued`: returned to the queue.
 * - `dead_lettered`: rejected; the broker drops the message if its queue has no dead-letter exchange.
 * - `dropped`: acknowledged, by the policy `drop`.
 * - `retried`: acknowledged, after the message was published for its next attempt.
 * - `skipped`: passed over in a stream, by the policy `skip`.
 * - `lost`: not settled, because the channel ended before the handler; the message is delivered again.
 *
 * @category consumers
 * @since 0.1.0
 */
export const settledMessages = Metric.counter("amqp.client.consumer.settled", {
  description: "Deliveries by how they were settled",
  incremental: true
})

/**
 * A histogram of the duration of handlers, in seconds, by `amqp.outcome` (`succeeded`, `failed`).
 *
 * **When to use**
 *
 * Use to find slow handlers and to measure their failures.
 *
 * **Details**
 *
 * Metric `messaging.process.duration`. A batch counts once. `messaging.system` is `rabbitmq`,
 * `messaging.operation.name` is `process`.
 *
 * @category consumers
 * @since 0.1.0
 */
export const processDuration = Metric.histogram("messaging.process.duration", {
  description: "Duration of handlers in seconds, by outcome",
  boundaries,
  attributes: seconds
})

// --- Requests --------------------------------------------------------------------------------------------------------

/**
 * A counter of the requests that have ended, by `amqp.outcome`: `replied`, `failed`, `timed_out`, `given_up`
 * (interrupted).
 *
 * **When to use**
 *
 * Use to alert on requests that get no reply.
 *
 * **Details**
 *
 * Metric `amqp.rpc.client.calls`. It does not include requests that are refused before they enter the backlog.
 *
 * @category requests
 * @since 0.1.0
 */
export const calls = Metric.counter("amqp.rpc.client.calls", {
  description: "Requests that have ended, by outcome",
  incremental: true
})

/**
 * A counter of the replies that matched no waiting request.
 *
 * **When to use**
 *
 * Use to find servers that reply after their clients have timed out.
 *
 * **Details**
 *
 * Metric `amqp.rpc.client.unclaimed_replies`.
 *
 * @category requests
 * @since 0.1.0
 */
export const unclaimedReplies = Metric.counter("amqp.rpc.client.unclaimed_replies", {
  description: "Replies that matched no waiting request",
  incremental: true
})

/**
 * A counter of the requests that this process's servers have answered, by `amqp.rpc.reply` (`success`, `failure`,
 * `defect`).
 *
 * **When to use**
 *
 * Use to alert on defects of handlers.
 *
 * **Details**
 *
 * Metric `amqp.rpc.server.replies`. It includes requests without `replyTo`.
 *
 * @category requests
 * @since 0.1.0
 */
export const serverReplies = Metric.counter("amqp.rpc.server.replies", {
  description: "Requests that servers have answered, by type of the reply",
  incremental: true
})

// --- Registration ----------------------------------------------------------------------------------------------------

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
  watched: Pick<ConnectionMeasures, "reconnects" | "failedAttempts">
): void => {
  for (const tag of states) {
    registry.gauge(connectionState, { "amqp.connection.state": tag.toLowerCase() }, () => (state() === tag ? 1 : 0))
  }
  registry.counter(reconnects, {}, () => watched.reconnects)
  registry.gauge(connectAttempts, {}, () => watched.failedAttempts)
}

/**
 * A layer that registers the metrics of the services in context until its scope closes.
 *
 * **When to use**
 *
 * Use with an `AmqpConnection`, `AmqpPool` and `AmqpPublisher` that are combined by hand. `Amqp.layer` and `AmqpLive`
 * include it.
 *
 * **Details**
 *
 * The metrics of an `AmqpConsumer` and an `AmqpRpc` are registered if these are in context, too.
 *
 * @category layers
 * @since 0.1.0
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
    const internals = ConnectionInside.of(connection)
    if (internals !== undefined) {
      const { conditions: reported, unread } = internals
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
      registry.histogram(waitTime, of, measures.waitTime)
      registry.histogram(useTime, of, measures.useTime)
      for (const reason of discardReasons) {
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
      for (const reply of replyOutcomes) {
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
