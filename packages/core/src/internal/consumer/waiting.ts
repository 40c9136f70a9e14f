/** Deliveries that wait in memory for long, because more are sent ahead than the handlers get done: a warning, once. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Deadlines } from "../waiting/deadlines.ts"
import type { Source } from "./source.ts"

const shown = (millis: number) => Duration.format(Duration.millis(Math.round(millis)))

/** What there is to be said about it, in words and numbers. Times are in milliseconds. */
export const adviceOf = (about: {
  readonly waited: number
  readonly consumerTimeout: number
  readonly prefetch: number
  /** How many are handled at a time; undefined if that is not known. */
  readonly concurrency: number | undefined
  /** The smallest prefetch that the consumer takes. */
  readonly leastPrefetch: number
  /** How many were taken in the last third of the consumer timeout. */
  readonly taken: number
}): string => {
  const { concurrency, consumerTimeout, leastPrefetch, prefetch, taken, waited } = about
  const most = Math.max(leastPrefetch, Math.floor(taken / 2))
  const last =
    taken === 0 ? "" : `, and the last of ${prefetch} waits about ${shown((prefetch / taken) * (consumerTimeout / 3))}`
  // With as many at a time as the prefetch allows, none waits.
  const perWorker = concurrency === undefined ? 1 : leastPrefetch / concurrency
  const wanted = concurrency === undefined ? 0 : Math.ceil((concurrency * prefetch) / taken) + concurrency
  const concurrent = Math.min(wanted, Math.floor(prefetch / perWorker))
  const cures = [
    ...(most < prefetch ? [`lower prefetch from ${prefetch} to ${most}`] : []),
    ...(concurrency === undefined
      ? ["take deliveries faster"]
      : concurrent > concurrency
        ? [`raise concurrency from ${concurrency} to ${concurrent}`]
        : [])
  ]
  return (
    `AMQP deliveries have waited in memory for ${shown(waited)}, a third of the consumer timeout of ${shown(consumerTimeout)}, ` +
    `after which the broker takes them back: ${taken} were taken in that time${last}. To do: ${cures.join(", or ")}`
  )
}

/** How many times within a third of the timeout is looked. */
const looks = 20

/** Watches what waits, and warns once. Interruptible. */
export const warnOfWaiting = (
  source: Source,
  deadlines: Deadlines,
  about: {
    readonly consumerTimeout: () => number
    readonly prefetch: number
    readonly concurrency: number | undefined
    readonly leastPrefetch: number
    readonly annotations: Readonly<Record<string, unknown>>
  }
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const samples = [{ at: deadlines.now, taken: source.taken }]
    while (true) {
      const consumerTimeout = about.consumerTimeout()
      const third = consumerTimeout / 3
      const { waited } = source
      if (waited >= third) {
        const taken = source.taken - samples[0]!.taken
        const text = adviceOf({ ...about, consumerTimeout, waited, taken })
        return yield* Effect.annotateLogs(Effect.logWarning(text), { queue: source.queue, ...about.annotations })
      }
      yield* Effect.sleep(Math.max(third - waited, third / looks, 1))
      const { now } = deadlines
      samples.push({ at: now, taken: source.taken })
      while (samples.length > 1 && samples[1]!.at <= now - third) samples.shift()
    }
  })
