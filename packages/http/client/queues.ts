/** What the broker says about queues, and the figure of those that have no consumer in this process. */
import type { BrokerCounts } from "../src/internal/dashboard/events.ts"
import { byId, figure, setName, setText, type Table, table } from "./elements.ts"
import { clock, count } from "./format.ts"
import { state } from "./state.ts"

export const isCounted = (broker: BrokerCounts | null): broker is readonly [number, number, number] =>
  Array.isArray(broker)

/** How many messages are ready, with its class. */
export const ready = (broker: BrokerCounts | null): readonly [text: string, className: string] => {
  if (broker === null) return ["–", ""]
  if (broker === "missing") return ["no such queue", "bad"]
  if (!isCounted(broker)) return [`not counted: ${broker.refused}`, "warn"]
  return [`${count(broker[0])} at ${clock(broker[2])}`, ""]
}

/** Makes the figure, as soon as there are such queues. The returned function fills it. */
export const otherQueues = (id: string) => {
  let made: Table | undefined

  return (): void => {
    const queues = state.data.table?.queues ?? []
    if (made === undefined) {
      if (queues.length === 0) return
      made = table(["Queue", "ready", "consumers"])
      const element = figure("Other queues", "counted by the broker", id)
      element.className = "names"
      element.append(made.element)
    }
    const rows = made
    queues.forEach(([queue, broker], i) => {
      const [name, messages, consumers] = rows.row(i)
      setName(name!, queue)
      setText(messages!, ...ready(broker))
      setText(consumers!, isCounted(broker) ? count(broker[1]) : "–")
    })
    rows.limit(queues.length)
    byId(id).parentElement!.hidden = queues.length === 0
  }
}
