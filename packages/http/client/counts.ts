/** Figures of tables without a plot: counts since the start. */
import type { Totals } from "../src/internal/dashboard/events.ts"
import { figure, make, put, type Table, table } from "./elements.ts"
import { kinds } from "./state.ts"
import { count } from "./words.ts"

interface Contents {
  readonly head: ReadonlyArray<string>
  readonly rows: ReadonlyArray<readonly [name: string, counts: ReadonlyArray<number>]>
}

/** A figure, as it is declared. */
export interface Counts {
  readonly title: string
  readonly tables: (totals: Totals) => ReadonlyArray<Contents>
}

const listed = (counts: Readonly<Record<string, number>>) =>
  Object.entries(counts).map(
    ([name, value]) => [name.replace("timedOut", "timed out").replace(/_/g, " "), [value]] as const
  )

export const published: Counts = {
  title: "Published since the start",
  tables: ({ published }) => [{ head: ["Outcome", "messages"], rows: listed(published) }]
}

export const channelsAndDeliveries: Counts = {
  title: "Channels and deliveries since the start",
  tables: ({ pools, settled }) => {
    const channels: Contents = {
      head: ["Channels", "opened", "recycled", "discarded", "timeouts"],
      rows: kinds.map((kind, i) => [kind, pools[i] ?? []] as const)
    }
    return settled === null ? [channels] : [channels, { head: ["Deliveries", "count"], rows: listed(settled) }]
  }
}

/** Makes the figure. The result fills it. */
export const countsFigure = ({ tables, title }: Counts, id: string) => {
  const element = figure(title, undefined, id)
  const nothing = make("p", { class: "none" }, "no data")
  element.append(nothing)
  const made: Array<Table> = []

  return (totals: Totals | undefined): void => {
    if (totals === undefined) return
    nothing.remove()
    tables(totals).forEach(({ head, rows }, t) => {
      let present = made[t]
      if (present === undefined) {
        present = table(head)
        made.push(present)
        element.append(present.element)
      }
      rows.forEach(([name, counts], i) => {
        const [heading, ...cells] = present.row(i)
        put(heading!, name)
        cells.forEach((cell, k) => put(cell, count(counts[k] ?? 0)))
      })
    })
  }
}
