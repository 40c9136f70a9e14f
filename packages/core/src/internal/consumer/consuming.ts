/**
 * What all ways to consume have in common: from the connection to the source of deliveries, and the report of the end.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpConsumer, End } from "../../model/consumer.ts"
import { type AmqpError, fromReason, type InvalidArgument } from "../../model/error.ts"
import { fail } from "../../model/failures.ts"
import { Deadlines } from "../waiting/deadlines.ts"
import type { Fork } from "../waiting/fork.ts"
import type { ChannelTimeouts } from "../channel/channelHandle.ts"
import { type ConnectionInternals, connectionInternals } from "../connection/connectionInternals.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import { AttemptTracking } from "./attemptTracking.ts"
import { healthOptionsOf, type SubscriptionSettings } from "./options.ts"
import {
  type Access,
  attemptsOf,
  registerHealth,
  isEndOfService,
  measuresOf,
  runningConsumersOf
} from "./runningConsumers.ts"
import { errorTypeIn } from "../telemetry/tracing.ts"
import type { AsCaller } from "../waiting/onClock.ts"
import { Source } from "./source.ts"
import type { StreamPosition } from "./streamPosition.ts"
import { positionOf, type StreamReader, makeStreamReader } from "./streamReader.ts"

/** Fails when the service ends, even if its consumers have not ended yet. */
export const endOf = (consumer: AmqpConsumer["Service"]): Effect.Effect<never, AmqpError> =>
  runningConsumersOf(consumer)?.ended ?? Effect.never

/** Reports the end of a consumer to the log and to `onEnd`. An unexpected end is also reported as a condition. */
export const reportEnd = (
  access: Access,
  settings: SubscriptionSettings,
  end: Omit<End, "queue" | "reason">,
  cause: Cause.Cause<AmqpError> | undefined,
  timeout: Duration.Input,
  asCaller: AsCaller
): Effect.Effect<void> => {
  const { onEnd } = settings
  const { consumerTag, queue } = settings.start
  const about = { queue, consumerTag, ...end, ...access.annotations }
  const reason = cause === undefined ? undefined : Option.getOrUndefined(Cause.findErrorOption(cause))
  const title = "AMQP consumer ended and does not subscribe again"
  const isAsked =
    cause === undefined ||
    Cause.hasInterruptsOnly(cause) ||
    // An inactivity timeout is an end that the application asked for. The caller gets it as a failure.
    (reason !== undefined && (isEndOfService(reason) || reason.reason._tag === "InactivityTimeout"))
  if (!isAsked) {
    access.health?.failed(
      reason === undefined ? String(Cause.squash(cause)) : reason.message,
      errorTypeIn(cause) ?? "_OTHER"
    )
  } else access.health?.stopped(reason?.reason._tag)
  const log = isAsked
    ? Effect.annotateLogs(
        Effect.logDebug("AMQP consumer ended"),
        reason === undefined ? about : { ...about, reason: reason.message }
      )
    : reason === undefined
      ? Effect.annotateLogs(Effect.logError(title, cause), about)
      : Effect.annotateLogs(Effect.logError(title), { ...about, reason: reason.message })
  if (onEnd === undefined) return log
  return Effect.andThen(
    log,
    asCaller(Effect.suspend(() => onEnd({ queue, ...end, reason }))).pipe(
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.annotateLogs(Effect.logWarning("AMQP consumer ended, and its onEnd was interrupted by its timeout"), {
            ...about,
            timeout: Duration.format(Duration.millis(Math.round(Duration.toMillis(timeout))))
          })
      }),
      Effect.catchCause((cause) =>
        Effect.annotateLogs(Effect.logError("AMQP consumer ended, and its onEnd failed", cause), about)
      )
    )
  )
}

/**
 * Reports a consumer whose options are refused. A consumer is often forked and its failure awaited by no fiber, so its
 * health reports it too.
 */
export const reportRefusal = (
  consumer: AmqpConsumer["Service"],
  access: Access,
  queue: string,
  options: unknown,
  refused: InvalidArgument
): Effect.Effect<never, AmqpError> =>
  Effect.andThen(
    Effect.sync(() => {
      const { requiredForReadiness, name } = healthOptionsOf(queue, options)
      const registry = requiredForReadiness ? runningConsumersOf(consumer)?.health : undefined
      registry?.register(String(queue), name, true).failed(refused.message, refused._tag)
    }),
    Effect.andThen(
      Effect.annotateLogs(Effect.logError("AMQP consumer not started: its options are refused"), {
        queue,
        reason: refused.message,
        ...access.annotations
      }),
      fail(refused)
    )
  )

/** Waits while the connection is opened for the first time. Fails with the reason if the connection is unavailable. */
const awaitOpen = ({ state }: AmqpConnection["Service"]) =>
  SubscriptionRef.changes(state).pipe(
    Stream.filter((now) => now._tag !== "Connecting" || now.reason !== undefined),
    Stream.take(1),
    Stream.runForEach((now) =>
      now._tag === "Open" || now.reason === undefined ? Effect.void : Effect.fail(fromReason(now.reason))
    )
  )

/**
 * The connection to consume on. If there is none, the consumer ends before it starts. A consumer that does not
 * subscribe again does not wait for the broker to come back either.
 */
const connectionOf = (
  consumer: AmqpConsumer["Service"],
  access: Access,
  settings: SubscriptionSettings,
  timeout: Duration.Input,
  asCaller: AsCaller
) => {
  const enter = runningConsumersOf(consumer)?.enter ?? Effect.void
  const connection = settings.resubscribe === "never" ? Effect.tap(access.connection, awaitOpen) : access.connection
  return Effect.andThen(enter, Effect.raceFirst(connection, endOf(consumer))).pipe(
    Effect.tapCause((cause) => reportEnd(access, settings, { requeued: 0, unsettled: 0 }, cause, timeout, asCaller))
  )
}

/** A consumer that has started. */
export interface Consuming {
  readonly access: Access
  readonly connection: AmqpConnection["Service"]
  readonly internals: ConnectionInternals
  readonly clock: Clock.Clock
  readonly timeouts: ChannelTimeouts
  readonly measures: ConsumerMeasures
  readonly source: Source
  /** The position in the stream; `undefined` if the queue is not a stream. */
  readonly position: StreamPosition | undefined
  readonly reader: StreamReader
}

/**
 * Starts a consumer, until the scope closes. Nothing is subscribed yet: `source.run` does that.
 *
 * @param maxDeliveries the highest count of failures that is accepted from headers
 * @param timeout how long `onEnd` may take if there is no connection
 */
export const startConsuming = Effect.fnUntraced(function* (
  consumer: AmqpConsumer["Service"],
  given: Access,
  settings: SubscriptionSettings,
  options: {
    readonly fork: Fork
    readonly maxDeliveries: number
    readonly timeout: Duration.Input
    readonly asCaller: AsCaller
  }
): Effect.fn.Return<Consuming, AmqpError, Scope.Scope> {
  const { asCaller, fork, maxDeliveries, timeout } = options
  const access = yield* registerHealth(consumer, given, settings)
  const connection = yield* connectionOf(consumer, access, settings, timeout, asCaller)
  const clock = yield* Clock.Clock
  const internals = connectionInternals(connection)
  const { config } = connection
  const timeouts: ChannelTimeouts = {
    continuationTimeout: config.continuationTimeout,
    publishTimeout: Duration.toMillis(config.publishTimeout),
    deadlines: new Deadlines(clock, fork),
    queues: internals.queues
  }
  const measures = measuresOf(consumer)
  const position = positionOf(settings, clock, timeouts, measures)
  const source = new Source({
    settings,
    position,
    internals,
    timeouts,
    measures,
    tracking: new AttemptTracking({
      queue: settings.start.queue,
      secrets: settings.retrySecret,
      memory: attemptsOf(consumer),
      maxDeliveries,
      timeOfDay: () => clock.currentTimeMillisUnsafe()
    }),
    clock,
    config,
    fork,
    openDedicated: access.openDedicated,
    health: access.health
  })
  access.health?.record.attach(source)
  const reader = yield* makeStreamReader(position, settings, connection, source)
  return { access, connection, internals, clock, timeouts, measures, source, position, reader }
})
