/** The counts since the start, and what is wrong by the rules of health checks. */
import { AmqpConnection, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { diagnose, type Finding as Found } from "../health/rules.ts"
import { poolOf, type QueueCounts } from "../health/situation.ts"
import type { Finding, Phase, Totals } from "./events.ts"
import type { RecentCounts } from "./recentCounts.ts"
import { outcomes, type Snapshot } from "./sampler.ts"

const mostFindings = 20
const mostFailures = 10
/** A condition's text may be long. */
const mostCharacters = 500

const shown = ({ reason, rule, since, subject, todo, what }: Found): Finding => ({
  rule,
  subject: subject ?? null,
  what: what.length > mostCharacters ? `${what.slice(0, mostCharacters)}…` : what,
  todo,
  since: since ?? null,
  notReady: reason !== undefined
})

/** Adds up the failures of the consumers of each queue. */
const failuresOf = (statuses: ReadonlyArray<AmqpConsumer.Status>): Totals["failures"] => {
  const counts = new Map<string, [queue: string, tag: string, count: number]>()
  for (const { failures, queue } of statuses) {
    for (const [tag, count] of Object.entries(failures)) {
      const key = JSON.stringify([queue, tag])
      const known = counts.get(key)
      if (known === undefined) counts.set(key, [queue, tag, count])
      else known[2] += count
    }
  }
  return Array.from(counts.values())
    .sort(([, , a], [, , b]) => b - a)
    .slice(0, mostFailures)
}

/** Adds up the dead letters of the consumers of each queue. */
const deadLettersOf = (statuses: ReadonlyArray<AmqpConsumer.Status>): Totals["deadLetters"] => {
  type Row = [queue: string, tag: string, count: number, firstAt: number, lastAt: number]
  const rows = new Map<string, Row>()
  for (const { deadLetters, queue } of statuses) {
    for (const [tag, { count, firstAt, lastAt }] of Object.entries(deadLetters)) {
      const key = JSON.stringify([queue, tag])
      const known = rows.get(key)
      if (known === undefined) rows.set(key, [queue, tag, count, firstAt, lastAt])
      else {
        known[2] += count
        known[3] = Math.min(known[3], firstAt)
        known[4] = Math.max(known[4], lastAt)
      }
    }
  }
  return Array.from(rows.values())
    .sort(([, , a], [, , b]) => b - a)
    .slice(0, mostFailures)
}

export interface Histories {
  readonly phases: ReadonlyArray<Phase>
  readonly consumers: ReadonlyArray<Phase>
}

/** Makes a function that judges a snapshot. */
export const make = Effect.fnUntraced(function* (
  histories: Histories,
  recent: RecentCounts,
  queues: ReadonlyMap<string, QueueCounts> | undefined,
  blocked: "ready" | "notReady"
) {
  const connection = yield* AmqpConnection.AmqpConnection
  const publisher = yield* AmqpPublisher.AmqpPublisher
  const own = yield* AmqpConsumer.ownConnection
  const clock = yield* Clock.Clock
  const conditions = Effect.provideService(AmqpConnection.conditions, AmqpConnection.AmqpConnection, connection)
  let calmSince: number | undefined
  /** When each finding was made first, for those whose rules do not know since when. */
  let madeAt = new Map<string, number>()

  return (snapshot: Snapshot): Effect.Effect<Totals> =>
    Effect.map(conditions, (lasting) => {
      const now = clock.currentTimeMillisUnsafe()
      const { found, pools, published, statuses } = snapshot
      const findings = diagnose({
        state: connection.state.value,
        flow: connection.flow.value,
        stateSince: histories.phases.at(-1)?.at,
        blocked,
        pool: poolOf(connection.config, pools[0]!),
        // The streams end as soon as the server begins to stop.
        stopping: false,
        conditions: lasting.toSorted((a, b) => a.since - b.since),
        consumers: statuses,
        consumersState:
          own.value === undefined ? undefined : { state: own.value.state.value, since: histories.consumers.at(-1)?.at },
        recent: recent.until(now, snapshot),
        queues
      })
      const known = madeAt
      madeAt = new Map()
      const since = (finding: Found) => {
        const key = JSON.stringify([finding.rule, finding.subject])
        const first = known.get(key) ?? now
        madeAt.set(key, first)
        return finding.since ?? first
      }
      const dated = findings.map((finding) => ({ ...finding, since: since(finding) }))
      calmSince = findings.length > 0 ? undefined : (calmSince ?? now)
      return {
        pools: pools.map(({ created, discarded, recycled, timedOut }) => [created, recycled, discarded, timedOut]),
        published: Object.fromEntries(outcomes.map((outcome) => [outcome, published[outcome]])) as Totals["published"],
        settled: found.settled ?? null,
        failures: failuresOf(statuses),
        deadLetters: deadLettersOf(statuses),
        flow: publisher.flow.value._tag,
        findings: dated.slice(0, mostFindings).map(shown),
        moreFindings: Math.max(0, findings.length - mostFindings),
        calmSince: calmSince ?? null
      }
    })
})
