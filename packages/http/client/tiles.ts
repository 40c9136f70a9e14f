/** The numbers above the plots. They are always the latest ones. */
import type { Sample } from "../src/internal/dashboard/events.ts"
import { byId, make } from "./elements.ts"
import { state } from "./state.ts"
import type { View } from "./view.ts"
import { count, rate, duration, states, time } from "./format.ts"

/** Makes a tile. The returned function sets it. */
const tile = (name: string) => {
  const value = make("dd", {}, "–")
  byId("tiles").append(make("div", {}, make("dt", {}, name), value))
  return (text: string, unit = "", className = ""): void => {
    if (value.textContent !== (unit === "" ? text : `${text} ${unit}`)) {
      value.replaceChildren(text, unit === "" ? "" : make("small", {}, ` ${unit}`))
    }
    value.className = className
  }
}

/** The time over which counts that should not rise are watched, in milliseconds. */
const watched = 5 * 60_000

/** Makes the tiles. The returned function sets them. */
export const tiles = () => {
  const connection = tile("Connection")
  const consumers = tile("Consumers")
  const used = tile("Channels in use")
  const waiting = tile("Waiting")
  const published = tile("Published")
  const consumed = tile("Consumed")
  const confirming = tile("Time to confirm, p95")
  const counts = [
    [tile("Returned"), "bad"],
    [tile("Dead letters"), "bad"],
    [tile("Redeliveries"), "warn"]
  ] as const
  let outbox: ReturnType<typeof tile> | undefined

  /** The oldest sample of this process in the last minutes. */
  const before = (moment: Sample): Sample => {
    const { coarse, instance, samples } = state.data
    const from = Math.max(moment.at - watched, instance?.startedAt ?? 0)
    let oldest = moment
    for (const all of [coarse, samples]) {
      const first = all.find(({ at }) => at >= from)
      if (first !== undefined && first.at < oldest.at) oldest = first
    }
    return oldest
  }

  const showConsumers = (): void => {
    const { table } = state.data
    if (table === undefined) return
    const [running, wanted] = table.rows.reduce(([r, w], row) => [r + row.running, w + row.wanted], [0, 0])
    if (wanted === 0) consumers("none")
    else if (running === wanted) consumers(count(running), "all running", "good")
    else consumers(count(running), `of ${count(wanted)} running`, "bad")
  }

  return (seen: View, moment: Sample | undefined): void => {
    const { hello, phases } = state.data
    const phase = phases[phases.length - 1]
    if (phase !== undefined) {
      const [word, colour] = states[phase.name]
      connection(word, `for ${duration(seen.to - phase.at)}`, colour)
    }
    showConsumers()
    if (moment === undefined) return
    const { max } = hello
    const [inUse = 0] = moment.pools[0] ?? []
    const isFull = max !== null && inUse >= max
    used(count(inUse), max === null ? "" : `of ${count(max)}`, isFull ? "warn" : "")
    const pending = moment.pools.reduce((sum, [, , pending]) => sum + pending, 0)
    waiting(count(pending), pending === 1 ? "borrower" : "borrowers", pending > 0 ? "warn" : "")
    published(moment.published === null ? "–" : rate(moment.published[0]), "per second")
    consumed(
      moment.consumed === null ? "–" : rate(moment.consumed[0]),
      moment.consumed === null ? "no data" : "per second"
    )
    confirming(
      moment.confirming === null ? "–" : time(moment.confirming[1]),
      moment.confirming === null ? "no data" : ""
    )
    const oldest = before(moment)
    counts.forEach(([set, colour], i) => {
      const now = moment.counts[i] ?? null
      if (now === null) return set("–", "no data")
      const risen = Math.max(0, now - (oldest.counts[i] ?? 0))
      const since = duration(Math.min(watched, moment.at - oldest.at))
      set(count(risen), `${risen > 0 ? "more " : ""}in ${since}, ${count(now)} in all`, risen > 0 ? colour : "")
    })
    if (moment.outbox !== null) {
      const [messages, oldestAge, setAside] = moment.outbox
      const age = messages === 0 ? "waiting" : `waiting for ${duration(oldestAge * 1000)}`
      outbox ??= tile("Outbox")
      outbox(count(messages), setAside === 0 ? age : `${age}, ${count(setAside)} set aside`, setAside > 0 ? "warn" : "")
    }
  }
}
