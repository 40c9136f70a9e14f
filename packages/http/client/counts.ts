/** Figures that have tables without a plot: counts since the start. */
import type { Totals } from "../src/internal/dashboard/events.ts"
import { figure, make, setName, setText, type Table, table } from "./elements.ts"
import { kinds } from "./state.ts"
import { count, duration } from "./format.ts"

interface Contents {
  readonly head: ReadonlyArray<string>
  readonly rows: ReadonlyArray<
    readonly [name: string | readonly [name: string, detail: string], counts: ReadonlyArray<number | string>]
  >
}

/** The declaration of a figure. */
export interface Counts {
  readonly title: string
  readonly tables: (totals: Totals, now: number) => ReadonlyArray<Contents>
  /** What to do about it. */
  readonly advice?: string
  /** Whether its names are long. */
  readonly isWide?: boolean
}

const listed = (counts: Readonly<Record<string, number>>) =>
  Object.entries(counts).map(
    ([name, value]) => [name.replace("timedOut", "timed out").replace(/_/g, " "), [value]] as const
  )

export const published: Counts = {
  title: "Published since start",
  tables: ({ published }) => [{ head: ["Outcome", "messages"], rows: listed(published) }]
}

export const channelsAndDeliveries: Counts = {
  title: "Channels and deliveries since start",
  tables: ({ pools, settled }) => {
    const channels: Contents = {
      head: ["Channels", "opened", "recycled", "discarded", "timeouts"],
      rows: kinds.map((kind, i) => [kind, pools[i] ?? []] as const)
    }
    return settled === null ? [channels] : [channels, { head: ["Deliveries", "count"], rows: listed(settled) }]
  }
}

export const failures: Counts = {
  isWide: true,
  title: "Failures by queue and reason since start",
  tables: ({ failures }) => [
    {
      head: ["Handlers", "failures"],
      rows:
        failures.length === 0
          ? [["none", [0]]]
          : failures.map(([queue, tag, count]) => [[queue, tag], [count]] as const)
    }
  ]
}

export const deadLetters: Counts = {
  isWide: true,
  title: "Dead letters by queue and reason since start",
  tables: ({ deadLetters }, now) => [
    {
      head: ["Failed in", "dead letters", "first", "last"],
      rows:
        deadLetters.length === 0
          ? [["none", [0, "", ""]]]
          : deadLetters.map(([queue, tag, count, firstAt, lastAt]) => [
              [queue, tag],
              [count, `${duration(now - firstAt)} ago`, `${duration(now - lastAt)} ago`]
            ])
    }
  ],
  advice:
    "To see why: npx effect-amqp peek, with the name of the dead-letter queue. To bring them back: npx effect-amqp redrive."
}

/** Makes the figure. The returned function fills it. */
export const countsFigure = ({ advice, isWide = false, tables, title }: Counts, id: string) => {
  const element = figure(title, undefined, id)
  const nothing = make("p", { class: "none" }, "no data")
  if (isWide) element.className = "names"
  element.append(nothing)
  const made: Array<Table> = []

  return (totals: Totals | undefined, now: number): void => {
    if (totals === undefined) return
    nothing.remove()
    tables(totals, now).forEach(({ head, rows }, t) => {
      let present = made[t]
      if (present === undefined) {
        present = table(head)
        made.push(present)
        element.append(present.element)
        if (advice !== undefined) element.append(make("p", { class: "advice" }, advice))
      }
      rows.forEach(([name, counts], i) => {
        const [heading, ...cells] = present.row(i)
        if (typeof name === "string") setName(heading!, name)
        else setName(heading!, ...name)
        cells.forEach((cell, k) => {
          const value = counts[k] ?? 0
          setText(cell, typeof value === "string" ? value : count(value))
        })
      })
      present.limit(rows.length)
    })
  }
}
