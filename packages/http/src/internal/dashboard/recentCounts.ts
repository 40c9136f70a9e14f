/** Counts of the last minutes, from snapshots that are taken every few seconds. */
import type { Counts, Recent } from "../health/situation.ts"
import type { Snapshot } from "./sampler.ts"

/** Length of the time that is looked back on, in milliseconds. */
export const length = 5 * 60_000

interface Entry {
  readonly at: number
  readonly counts: Counts
}

const add = (to: Record<string, number>, counts: Readonly<Record<string, number>>) => {
  for (const [name, count] of Object.entries(counts)) to[name] = (to[name] ?? 0) + count
}

const countsOf = ({ found, pools, published, statuses }: Snapshot): Counts => {
  const failures: Record<string, number> = {}
  for (const status of statuses) add(failures, status.failures)
  const { forbidden, nacked, refused, returned, timedOut, unknown } = published
  return {
    delivered: found.delivered ?? 0,
    redelivered: found.redelivered ?? 0,
    deadLettered: found.settled?.["dead_lettered"] ?? 0,
    returned,
    failedPublishes: { nacked, timedOut, unknown, forbidden, refused },
    failures,
    acquireTimeouts: pools.reduce((sum, { timedOut }) => sum + timedOut, 0)
  }
}

/** The growth of each count. One that has become smaller, because its consumer is forgotten, has not grown. */
const growth = (from: Readonly<Record<string, number>>, to: Readonly<Record<string, number>>) => {
  const grown: Record<string, number> = {}
  for (const [name, count] of Object.entries(to)) {
    const by = count - (from[name] ?? 0)
    if (by > 0) grown[name] = by
  }
  return grown
}

const sum = (count: number | Readonly<Record<string, number>>) =>
  typeof count === "number" ? count : Object.values(count).reduce((all, one) => all + one, 0)

const watched = ["deadLettered", "redelivered", "returned", "failedPublishes", "acquireTimeouts"] as const

export class RecentCounts {
  readonly #entries: Array<Entry> = []

  /** Remembers the counts of a snapshot. Call it every few seconds, whether or not there are viewers. */
  remember(at: number, snapshot: Snapshot): void {
    this.#entries.push({ at, counts: countsOf(snapshot) })
    // One entry is kept that is older, so that the whole time is covered.
    while (this.#entries.length > 1 && this.#entries[1]!.at <= at - length) this.#entries.shift()
  }

  /** What has happened since the oldest entry that is remembered. */
  until(at: number, snapshot: Snapshot): Recent | undefined {
    const [first] = this.#entries
    if (first === undefined) return undefined
    const from = first.counts
    const to = countsOf(snapshot)
    const since: { -readonly [Name in keyof Recent["since"]]: Recent["since"][Name] } = {}
    for (const name of watched) {
      if (sum(to[name]) <= sum(from[name])) continue
      since[name] = this.#entries.find(({ counts }) => sum(counts[name]) > sum(from[name]))?.at ?? at
    }
    return {
      length: Math.max(1000, at - first.at),
      delivered: to.delivered - from.delivered,
      redelivered: to.redelivered - from.redelivered,
      deadLettered: to.deadLettered - from.deadLettered,
      returned: to.returned - from.returned,
      acquireTimeouts: to.acquireTimeouts - from.acquireTimeouts,
      failedPublishes: growth(from.failedPublishes, to.failedPublishes),
      failures: growth(from.failures, to.failures),
      since
    }
  }
}
