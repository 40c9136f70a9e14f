/** Consuming as a `Stream`: deliveries one after the other, which the stream's user settles. */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AmqpConsumer, Delivery } from "../../model/consumer.ts"
import * as AmqpError from "../../model/error.ts"
import { consumerTimeoutOf } from "./consumerTimeout.ts"
import { startConsuming, endOf, reportEnd } from "./consuming.ts"
import type { StreamSettings } from "./options.ts"
import { accessOf, clockOf } from "./runningConsumers.ts"
import { type AsCaller, onClock, withCaller } from "../waiting/onClock.ts"
import type { Source } from "./source.ts"
import { warnOfLongWaits } from "./longWaits.ts"

/** Pulls the next delivery, or the reason why there will be none. Waits if necessary, up to the inactivity timeout. */
const pullOf = (
  source: Source,
  inactivityTimeout: number | undefined,
  clock: Clock.Clock
): Effect.Effect<NonEmptyReadonlyArray<Delivery>, AmqpError.AmqpError> => {
  const { queue } = source
  const changed = Effect.callback<void>((resume) => {
    const look = () => {
      if (source.size > 0 || source.failure !== undefined) resume(Effect.void)
    }
    source.onChange = look
    look()
    return Effect.sync(() => {
      source.onChange = () => {}
    })
  })
  const wait: Effect.Effect<void, AmqpError.AmqpError> =
    inactivityTimeout === undefined
      ? changed
      : Effect.timeoutOrElse(changed, {
          duration: inactivityTimeout,
          orElse: () => {
            const error = AmqpError.fromReason(
              new AmqpError.InactivityTimeout({
                message: `basic.consume: nothing was delivered from the queue ${JSON.stringify(queue)} for ${Duration.format(Duration.millis(inactivityTimeout))} (inactivityTimeout)`,
                operation: "basic.consume",
                queue
              })
            )
            source.failure = Cause.fail(error)
            return Effect.fail(error)
          }
        })
  // Deliveries are taken one at a time: those that are left when the stream ends were not seen by the user, and are
  // counted accordingly.
  const pull: Effect.Effect<NonEmptyReadonlyArray<Delivery>, AmqpError.AmqpError> = Effect.suspend(() => {
    const delivery = source.take()
    if (delivery !== undefined) return Effect.succeed([delivery])
    if (source.failure !== undefined) return Effect.failCause(source.failure)
    return Effect.andThen(onClock(clock, wait), pull)
  })
  return pull
}

export const stream = (
  consumer: AmqpConsumer["Service"],
  settings: StreamSettings
): Stream.Stream<Delivery, AmqpError.AmqpError> =>
  Stream.unwrap(withCaller(clockOf(consumer), (asCaller) => started(asCaller, consumer, settings)))

const started = Effect.fnUntraced(function* (
  asCaller: AsCaller,
  consumer: AmqpConsumer["Service"],
  settings: StreamSettings
): Effect.fn.Return<Stream.Stream<Delivery, AmqpError.AmqpError>, AmqpError.AmqpError, Scope.Scope> {
  const fork = Effect.runForkWith(yield* Effect.context())
  const begun = yield* startConsuming(consumer, accessOf(consumer), settings, {
    fork,
    maxDeliveries: Infinity,
    timeout: "10 seconds",
    asCaller
  })
  const { access, clock, internals, reader, source, timeouts } = begun
  const { shutdown } = internals
  yield* Effect.addFinalizer(() =>
    shutdown.during(
      Effect.gen(function* () {
        const end = yield* source.stop(Effect.void)
        yield* reader.finish(shutdown.answerTimeLeft())
        yield* reportEnd(access, settings, end, source.failure, shutdown.answerTimeLeft(), asCaller)
      })
    )
  )
  // This is forked after the finalizer is added, so that it is interrupted before the finalizer runs.
  yield* Effect.forkScoped(
    warnOfLongWaits(source, timeouts.deadlines, {
      consumerTimeout: () => consumerTimeoutOf(timeouts.queues, settings.start),
      prefetch: settings.start.prefetch,
      concurrency: undefined,
      leastPrefetch: 1,
      annotations: access.annotations
    })
  )
  yield* Effect.forkScoped(Effect.exit(source.run(reader.prepare, Effect.raceFirst(endOf(consumer), reader.ended))))
  return Stream.fromPull(Effect.succeed(pullOf(source, settings.inactivityTimeout, clock)))
})
