/** The numbers above the plots: always those of now. */
import type { Sample } from "../src/internal/dashboard/events.ts"
import { byId, make } from "./elements.ts"
import { state } from "./state.ts"
import type { View } from "./view.ts"
import { count, rate, span, states, time } from "./words.ts"

/** Makes a tile. The result sets it. */
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

/** Makes the tiles. The result sets them. */
export const tiles = () => {
  const connection = tile("Connection")
  const used = tile("Channels in use")
  const waiting = tile("In line")
  const published = tile("Published")
  const consumed = tile("Consumed")
  const confirming = tile("Confirm, 95 %")

  return (seen: View, moment: Sample | undefined): void => {
    const phase = state.phases[state.phases.length - 1]
    if (phase !== undefined) {
      const [word, colour] = states[phase.name]
      connection(word, `for ${span(seen.to - phase.at)}`, colour)
    }
    if (moment === undefined) return
    const { max } = state.hello
    const [inUse = 0] = moment.pools[0] ?? []
    const isFull = max !== null && inUse >= max
    used(count(inUse), max === null ? "" : `of ${count(max)}`, isFull ? "warn" : "")
    const pending = moment.pools.reduce((sum, [, , pending]) => sum + pending, 0)
    waiting(count(pending), pending === 1 ? "borrower" : "borrowers", pending > 0 ? "warn" : "")
    published(moment.published === null ? "–" : rate(moment.published[0]), "a second")
    consumed(
      moment.consumed === null ? "–" : rate(moment.consumed[0]),
      moment.consumed === null ? "no data" : "a second"
    )
    confirming(
      moment.confirming === null ? "–" : time(moment.confirming[1]),
      moment.confirming === null ? "no data" : ""
    )
  }
}
