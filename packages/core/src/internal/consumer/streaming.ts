/** Consuming by a stream: deliveries one after the other, settled by whoever takes them. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AmqpConsumer, Delivery } from "../../model/consumer.ts"
import * as AmqpError from "../../model/error.ts"
import { consumerTimeoutOf } from "./consumerTimeout.ts"
import { consuming, endOf, report } from "./consuming.ts"
import type { Streaming } from "./options.ts"
import { accessOf } from "./running.ts"
import type { Source } from "./source.ts"
import { warnOfWaiting } from "./waiting.ts"

/** What has come, or why there will be nothing more; waits, if it has to, up to the inactivity timeout. */
const pullOf = (
  source: Source,
  inactivityTimeout: number | undefined
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
  // One at a time: what stays behind when the stream ends was seen by nobody, and is counted so.
  const pull: Effect.Effect<NonEmptyReadonlyArray<Delivery>, AmqpError.AmqpError> = Effect.suspend(() => {
    const delivery = source.take()
    if (delivery !== undefined) return Effect.succeed([delivery])
    if (source.failure !== undefined) return Effect.failCause(source.failure)
    return Effect.andThen(wait, pull)
  })
  return pull
}

export const stream = (
  consumer: AmqpConsumer["Service"],
  settings: Streaming
): Stream.Stream<Delivery, AmqpError.AmqpError> =>
  Stream.unwrap(
    Effect.gen(function* (): Effect.fn.Return<
      Stream.Stream<Delivery, AmqpError.AmqpError>,
      AmqpError.AmqpError,
      Scope.Scope
    > {
      const fork = Effect.runForkWith(yield* Effect.context())
      const begun = yield* consuming(consumer, accessOf(consumer), settings, {
        fork,
        maxDeliveries: Infinity,
        timeout: "10 seconds"
      })
      const { access, links, reader, source, terms } = begun
      const { shutdown } = links
      yield* Effect.addFinalizer(() =>
        shutdown.during(
          Effect.gen(function* () {
            const end = yield* source.stop(Effect.void)
            yield* reader.finish(shutdown.answering())
            yield* report(access, settings, end, source.failure, shutdown.answering())
          })
        )
      )
      // After the finalizer, so that it is interrupted before that.
      yield* Effect.forkScoped(
        warnOfWaiting(source, terms.deadlines, {
          consumerTimeout: () => consumerTimeoutOf(terms.queues, settings.start),
          prefetch: settings.start.prefetch,
          concurrency: undefined,
          leastPrefetch: 1,
          annotations: access.annotations
        })
      )
      yield* Effect.forkScoped(Effect.exit(source.run(reader.prepare, Effect.raceFirst(endOf(consumer), reader.ended))))
      return Stream.fromPull(Effect.succeed(pullOf(source, settings.inactivityTimeout)))
    })
  )
