/**
 * Warns once if deliveries wait in memory for long, because the prefetch is larger than what the handlers can process
 * in time.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Deadlines } from "../waiting/deadlines.ts"
import type { Source } from "./source.ts"

const shown = (millis: number) => Duration.format(Duration.millis(Math.round(millis)))

/** The text of the warning, with numbers and advice. All times are in milliseconds. */
export const adviceOf = (about: {
  readonly waited: number
  readonly consumerTimeout: number
  readonly prefetch: number
  /** The number of deliveries that are handled at a time; `undefined` if it is not known. */
  readonly concurrency: number | undefined
  /** The smallest prefetch that the consumer accepts. */
  readonly leastPrefetch: number
  /** The number of deliveries that were taken in the last third of the consumer timeout. */
  readonly taken: number
}): string => {
  const { concurrency, consumerTimeout, leastPrefetch, prefetch, taken, waited } = about
  const most = Math.max(leastPrefetch, Math.floor(taken / 2))
  const last =
    taken === 0 ? "" : `, and the last of ${prefetch} waits about ${shown((prefetch / taken) * (consumerTimeout / 3))}`
  // If as many deliveries are handled at a time as the prefetch allows, none waits.
  const perWorker = concurrency === undefined ? 1 : leastPrefetch / concurrency
  const wanted = concurrency === undefined ? 0 : Math.ceil((concurrency * prefetch) / taken) + concurrency
  const concurrent = Math.min(wanted, Math.floor(prefetch / perWorker))
  const advice = [
    ...(most < prefetch ? [`lower prefetch from ${prefetch} to ${most}`] : []),
    ...(concurrency === undefined
      ? ["take deliveries faster"]
      : concurrent > concurrency
        ? [`raise concurrency from ${concurrency} to ${concurrent}`]
        : [])
  ]
  return (
    `AMQP deliveries have waited in memory for ${shown(waited)}, a third of the consumer timeout of ${shown(consumerTimeout)}, ` +
    `after which the broker takes them back: ${taken} were taken in that time${last}. To avoid this, ${advice.join(", or ")}`
  )
}

/** The number of checks per third of the timeout. */
const checks = 20

/** Watches the deliveries that wait, and warns once. Interruptible. */
export const warnOfLongWaits = (
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
      yield* Effect.sleep(Math.max(third - waited, third / checks, 1))
      const { now } = deadlines
      samples.push({ at: now, taken: source.taken })
      while (samples.length > 1 && samples[1]!.at <= now - third) samples.shift()
    }
  })
