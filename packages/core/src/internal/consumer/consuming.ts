/** What all ways to consume have in common: from the connection to the source of deliveries, and the report when it has ended. */
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
import type { Terms } from "../channel/handle.ts"
import { type Links, linksOf } from "../connection/links.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import { AttemptTracking } from "./attemptTracking.ts"
import { presenceOf, type Subscribing } from "./options.ts"
import { type Access, attemptsOf, begin, isEndOfService, measuresOf, runningOf } from "./running.ts"
import { Source } from "./source.ts"
import type { StreamPosition } from "./streamPosition.ts"
import { positionOf, type Reader, readerOf } from "./streamReader.ts"

/** Fails when the service ends, whether its consumers have or not. */
export const endOf = (consumer: AmqpConsumer["Service"]): Effect.Effect<never, AmqpError> =>
  runningOf(consumer)?.ended ?? Effect.never

/** Tells whoever wants to know that it has ended, and why if that was by itself: the log, and `onEnd`. */
export const report = (
  access: Access,
  settings: Subscribing,
  end: Omit<End, "queue" | "reason">,
  cause: Cause.Cause<AmqpError> | undefined,
  timeout: Duration.Input
): Effect.Effect<void> => {
  const { onEnd } = settings
  const { queue } = settings.start
  const about = { queue, ...end, ...access.annotations }
  const reason = cause === undefined ? undefined : Option.getOrUndefined(Cause.findErrorOption(cause))
  const title = "AMQP consumer ended"
  const isAsked =
    cause === undefined || Cause.hasInterruptsOnly(cause) || (reason !== undefined && isEndOfService(reason))
  // Whoever sets an inactivity timeout asks for that end.
  if (!isAsked && reason?.reason._tag !== "InactivityTimeout") {
    access.presence?.failed(reason === undefined ? String(Cause.squash(cause)) : reason.message)
  }
  const log = isAsked
    ? Effect.annotateLogs(Effect.logDebug(title), about)
    : reason === undefined
      ? Effect.annotateLogs(Effect.logError(title, cause), about)
      : Effect.annotateLogs(Effect.logError(title), { ...about, reason: reason.message })
  if (onEnd === undefined) return log
  return Effect.andThen(
    log,
    Effect.suspend(() => onEnd({ queue, ...end, reason })).pipe(
      Effect.timeoutOption(timeout),
      Effect.catchCause((cause) => Effect.annotateLogs(Effect.logError("AMQP consumer: onEnd failed", cause), about))
    )
  )
}

/** What was given is refused. A consumer is often forked, and its failure awaited by nobody: its health reports it. */
export const refuse = (
  consumer: AmqpConsumer["Service"],
  access: Access,
  queue: string,
  options: unknown,
  refused: InvalidArgument
): Effect.Effect<never, AmqpError> =>
  Effect.andThen(
    Effect.sync(() => {
      const { essential, name } = presenceOf(queue, options)
      if (essential) runningOf(consumer)?.presences.enter(name).failed(refused.message)
    }),
    Effect.andThen(
      Effect.annotateLogs(Effect.logError("AMQP consumer not started"), {
        queue,
        reason: refused.message,
        ...access.annotations
      }),
      fail(refused)
    )
  )

/** Waits while the connection is made for the first time; fails with why it is away. */
const whenOpen = ({ state }: AmqpConnection["Service"]) =>
  SubscriptionRef.changes(state).pipe(
    Stream.filter((now) => now._tag !== "Connecting" || now.reason !== undefined),
    Stream.take(1),
    Stream.runForEach((now) =>
      now._tag === "Open" || now.reason === undefined ? Effect.void : Effect.fail(fromReason(now.reason))
    )
  )

/**
 * The connection to consume by; if there is none, the consumer has ended before it began. One that does not subscribe again
 * does not wait for the broker to come back, either.
 */
const connectionOf = (
  consumer: AmqpConsumer["Service"],
  access: Access,
  settings: Subscribing,
  timeout: Duration.Input
) => {
  const enter = runningOf(consumer)?.enter ?? Effect.void
  const connection = settings.resubscribe === "never" ? Effect.tap(access.connection, whenOpen) : access.connection
  return Effect.andThen(enter, Effect.raceFirst(connection, endOf(consumer))).pipe(
    Effect.tapCause((cause) => report(access, settings, { requeued: 0, unsettled: 0 }, cause, timeout))
  )
}

/** A consumer that has begun. */
export interface Consuming {
  readonly access: Access
  readonly connection: AmqpConnection["Service"]
  readonly links: Links
  readonly clock: Clock.Clock
  readonly terms: Terms
  readonly measures: ConsumerMeasures
  readonly source: Source
  /** Of a stream. */
  readonly position: StreamPosition | undefined
  readonly reader: Reader
}

/**
 * Begins to consume, until the scope closes: nothing is subscribed to yet, that is `source.run`.
 *
 * @param maxDeliveries no more failures than these are believed of what headers say
 * @param timeout how long `onEnd` may take if there is no connection
 */
export const consuming = Effect.fnUntraced(function* (
  consumer: AmqpConsumer["Service"],
  given: Access,
  settings: Subscribing,
  options: { readonly fork: Fork; readonly maxDeliveries: number; readonly timeout: Duration.Input }
): Effect.fn.Return<Consuming, AmqpError, Scope.Scope> {
  const { fork, maxDeliveries, timeout } = options
  const access = yield* begin(consumer, given, settings)
  const connection = yield* connectionOf(consumer, access, settings, timeout)
  const clock = yield* Clock.Clock
  const links = linksOf(connection)
  const { config } = connection
  const terms: Terms = {
    continuationTimeout: config.continuationTimeout,
    publishTimeout: Duration.toMillis(config.publishTimeout),
    deadlines: new Deadlines(clock, fork),
    queues: links.queues
  }
  const measures = measuresOf(consumer)
  const position = positionOf(settings, clock, terms, measures)
  const source = new Source({
    settings,
    position,
    links,
    terms,
    measures,
    tracking: new AttemptTracking({
      queue: settings.start.queue,
      secrets: settings.retrySecret,
      memory: attemptsOf(consumer),
      maxDeliveries
    }),
    clock,
    config,
    fork,
    alone: access.alone,
    presence: access.presence
  })
  const reader = yield* readerOf(position, settings, connection, source)
  return { access, connection, links, clock, terms, measures, source, position, reader }
})
