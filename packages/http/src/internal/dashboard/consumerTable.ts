/** The table of consumers: one row per queue and name. */
import type { AmqpConsumer } from "@effect-amqp/core"
import { endOf } from "../health/causes.ts"
import type { BrokerCounts, ConsumerRow, Table } from "./events.ts"
import type { Counted } from "./queueCounter.ts"
import type { Snapshot } from "./sampler.ts"

const mostRows = 200

/** Rates are taken over this time, in nanoseconds: over one second, slow consumers would seem to stop. */
const rateNanos = 10_000_000_000n

const isStopped = ({ lastEnd, state }: AmqpConsumer.Status) => state === "Ended" && lastEnd?.how === "stopped"

// The one that is the furthest from running is first.
const states = [
  ["Ended", "ended"],
  ["WaitingForQueue", "waiting"],
  ["Reconnecting", "reconnecting"],
  ["Starting", "starting"],
  ["Running", "running"]
] as const

const order: ReadonlyArray<ConsumerRow["state"]> = [...states.map(([, state]) => state), "stopped"]

const keyOf = ({ name, queue }: Pick<AmqpConsumer.Status, "name" | "queue">) => JSON.stringify([queue, name])

type Delivered = ReadonlyMap<string, number>

const latest = <A extends { readonly at: number }>(all: ReadonlyArray<A | undefined>): A | undefined =>
  all.reduce((last, one) => (one !== undefined && one.at >= (last?.at ?? 0) ? one : last), undefined)

const brokerOf = ({ counts, refused }: Counted, queue: string): BrokerCounts | null => {
  const tag = refused.get(queue)
  if (tag !== undefined) return { refused: tag }
  if (!counts.has(queue)) return null
  const known = counts.get(queue)
  return known === undefined ? "missing" : [known.ready, known.consumers, known.at]
}

const rowOf = (
  consumers: ReadonlyArray<AmqpConsumer.Status>,
  rate: number | null,
  broker: BrokerCounts | null
): ConsumerRow => {
  const wanted = consumers.filter((consumer) => !isStopped(consumer))
  const [found, state] = states.find(([found]) => wanted.some((consumer) => consumer.state === found)) ?? [
    "Ended",
    "stopped" as const
  ]
  const error = latest(consumers.map(({ lastError }) => lastError))
  const ended = consumers.map(({ lastEnd }) => lastEnd)
  // That one was stopped must not hide that another one has failed.
  const end = latest(ended.filter((end) => end?.how === "failed" && state !== "running")) ?? latest(ended)
  const sum = (key: "inFlight" | "buffered") => consumers.reduce((sum, consumer) => sum + consumer[key], 0)
  const { name, queue } = consumers[0]!
  return {
    queue,
    name,
    state,
    since: Math.min(...consumers.filter((consumer) => consumer.state === found).map(({ since }) => since)),
    running: wanted.filter(({ state }) => state === "Running").length,
    wanted: wanted.length,
    inFlight: sum("inFlight"),
    buffered: sum("buffered"),
    rate,
    error: error === undefined ? null : [error.tag, error.at],
    end: end === undefined ? null : [end.how, whyOf(end), end.at],
    broker
  }
}

const whyOf = ({ how, tag }: { readonly how: string; readonly tag: string | undefined }): string =>
  how === "stopped" ? "by the application" : `${endOf(tag ?? "").why}${tag === undefined ? "" : ` (${tag})`}`

export class ConsumerTable {
  readonly #history: Array<{ readonly nanos: bigint; readonly delivered: Delivered }> = []

  /** Makes the table. `queues` are the counts of queues, if there are any. */
  of({ nanos, statuses }: Snapshot, queues: Counted | undefined): Table {
    const groups = new Map<string, Array<AmqpConsumer.Status>>()
    for (const status of statuses) {
      const key = keyOf(status)
      const group = groups.get(key)
      if (group === undefined) groups.set(key, [status])
      else group.push(status)
    }
    const delivered = new Map<string, number>()
    for (const [key, group] of groups)
      delivered.set(
        key,
        group.reduce((sum, status) => sum + status.delivered, 0)
      )
    const [before] = this.#history
    const seconds = before === undefined ? 0 : Number(nanos - before.nanos) / 1e9
    const rateOf = (key: string) => {
      const from = before?.delivered.get(key)
      if (from === undefined || seconds <= 0) return null
      return Number((Math.max(0, delivered.get(key)! - from) / seconds).toPrecision(3))
    }
    const rows = Array.from(groups, ([key, group]) => {
      const { queue } = group[0]!
      return rowOf(group, rateOf(key), queues === undefined ? null : brokerOf(queues, queue))
    }).sort(
      (a, b) =>
        order.indexOf(a.state) - order.indexOf(b.state) ||
        (a.queue < b.queue ? -1 : a.queue > b.queue ? 1 : a.name < b.name ? -1 : 1)
    )
    this.#history.push({ nanos, delivered })
    while (this.#history.length > 1 && this.#history[1]!.nanos <= nanos - rateNanos) this.#history.shift()
    const consumed = new Set(rows.map(({ queue }) => queue))
    const others = queues === undefined ? [] : [...queues.counts.keys(), ...queues.refused.keys()]
    return {
      rows: rows.slice(0, mostRows),
      more: Math.max(0, rows.length - mostRows),
      queues: others
        .filter((queue) => !consumed.has(queue))
        .sort()
        .map((queue) => [queue, brokerOf(queues!, queue)!] as const)
    }
  }
}
