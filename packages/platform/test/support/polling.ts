// Waits for what no event announces.
import { AmqpPool } from "@effect-amqp/platform"
import { Effect } from "effect"

/** One turn of the event loop. */
export const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

/** Repeats an effect, a turn of the event loop apart, until its value is as expected. */
export const until = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  isExpected: (value: A) => boolean
): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.zipLeft(effect, turn), (value) =>
    isExpected(value) ? Effect.succeed(value) : until(effect, isExpected)
  )

export const untilStats = (isExpected: (stats: AmqpPool.Stats) => boolean) => until(AmqpPool.stats, isExpected)
