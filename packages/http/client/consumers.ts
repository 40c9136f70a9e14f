/** The table of consumers, with its filter. */
import type { ConsumerRow } from "../src/internal/dashboard/events.ts"
import { isCounted, ready } from "./queues.ts"
import { byId, make, setName, setText } from "./elements.ts"
import { clock, consumerStates, count, duration, rate } from "./format.ts"
import { type Data, state } from "./state.ts"

/** Rows that are shown at first. Those that are not running come first, and are always shown. */
const fewRows = 12

interface Column {
  readonly title: string
  /** The kind of its cells, which decides how wide they are. */
  readonly key: string
  readonly fill: (cell: HTMLElement, row: ConsumerRow, now: number) => void
  /** Whether it says something. Default: always. */
  readonly isWanted?: (data: Data) => boolean
}

const isCounting = ({ hello }: Data) => hello.queueCounts !== null

const columns: ReadonlyArray<Column> = [
  { title: "Queue", key: "name", fill: (cell, { queue }) => setName(cell, queue) },
  {
    title: "Consumer",
    key: "name",
    // By default a consumer has the name of its queue.
    isWanted: ({ table }) => table?.rows.some(({ name, queue }) => name !== queue) === true,
    fill: (cell, { name }) => setName(cell, name)
  },
  {
    title: "State",
    key: "state",
    fill: (cell, { since, state }, now) => {
      const [words, colour] = consumerStates[state]
      setText(cell, `${words} for ${duration(now - since)}`, colour)
    }
  },
  {
    title: "Running",
    key: "few",
    fill: (cell, { running, wanted }) =>
      setText(cell, `${count(running)} of ${count(wanted)}`, running < wanted ? "bad" : "")
  },
  {
    title: "In flight",
    key: "few",
    fill: (cell, { buffered, inFlight }) =>
      setText(cell, buffered === 0 ? count(inFlight) : `${count(inFlight)} + ${count(buffered)} waiting`)
  },
  { title: "Per second", key: "few", fill: (cell, row) => setText(cell, row.rate === null ? "–" : rate(row.rate)) },
  {
    title: "Last error",
    key: "long",
    fill: (cell, { error }) => setName(cell, error === null ? "–" : `${error[0]} at ${clock(error[1])}`)
  },
  {
    title: "Last end",
    key: "long",
    fill: (cell, { end }) =>
      setText(
        cell,
        end === null ? "–" : `${end[0]} at ${clock(end[2])}: ${end[1]}`,
        end !== null && end[0] === "failed" ? "bad" : ""
      )
  },
  {
    title: "Ready in the queue",
    key: "broker",
    isWanted: isCounting,
    fill: (cell, { broker }) => {
      setText(cell, ...ready(broker))
    }
  },
  {
    title: "Consumers of the queue",
    key: "broker",
    isWanted: isCounting,
    fill: (cell, { broker }) => {
      setText(cell, isCounted(broker) ? count(broker[1]) : "–")
    }
  }
]

/** Makes the table. The returned function fills it. */
export const consumers = (later: () => void) => {
  const element = byId("consumers")
  const filter = byId("filter") as HTMLInputElement
  const summary = byId("filtered")
  const body = make("tbody", { role: "rowgroup" })
  const head = make("tr", { role: "row" })
  // On a narrow screen the rows are shown as blocks, which would take the roles away.
  const table = make("table", { role: "table", "aria-labelledby": "consumers-title" })
  table.append(make("thead", { role: "rowgroup" }, head), body)
  const whole = make("button", { type: "button", hidden: "" })
  let isWhole = false
  whole.addEventListener("click", () => {
    isWhole = !isWhole
    later()
  })
  element.append(table, whole)
  const rows: Array<ReadonlyArray<HTMLTableCellElement>> = []
  let present: ReadonlyArray<Column> = []
  filter.addEventListener("input", later)

  const arrange = (wanted: ReadonlyArray<Column>) => {
    if (wanted.length === present.length && wanted.every((column, i) => column === present[i])) return
    present = wanted
    head.replaceChildren(
      ...wanted.map(({ key, title }) => make("th", { scope: "col", role: "columnheader", "data-kind": key }, title))
    )
    rows.length = 0
    body.replaceChildren()
  }
  const rowAt = (index: number): ReadonlyArray<HTMLTableCellElement> => {
    const known = rows[index]
    if (known !== undefined) return known
    const cells = present.map(({ key, title }, i) =>
      i === 0
        ? make("th", { scope: "row", role: "rowheader", "data-title": title, "data-kind": key })
        : make("td", { role: "cell", "data-title": title, "data-kind": key })
    )
    body.append(make("tr", { role: "row" }, ...cells))
    rows.push(cells)
    return cells
  }

  return (now: number): void => {
    const { table: data } = state.data
    if (data === undefined) return
    arrange(columns.filter(({ isWanted }) => isWanted === undefined || isWanted(state.data)))
    const wanted = filter.value.trim().toLowerCase()
    const matching = data.rows.filter(({ name, queue }) => `${queue}\n${name}`.toLowerCase().includes(wanted))
    const most = Math.max(fewRows, data.rows.filter(({ state }) => state !== "running").length)
    const isLong = wanted === "" && matching.length > most
    const listed = isLong && !isWhole ? matching.slice(0, most) : matching
    listed.forEach((row, i) => {
      const cells = rowAt(i)
      present.forEach(({ fill }, k) => {
        const cell = cells[k]!
        fill(cell, row, now)
        // A narrow screen leaves out what says nothing.
        cell.toggleAttribute(
          "data-none",
          cell.textContent === "–" || (present[k]!.title === "Consumer" && row.name === row.queue)
        )
      })
    })
    for (const [first] of rows.splice(listed.length)) first?.parentElement?.remove()
    table.hidden = matching.length === 0
    whole.hidden = !isLong
    setText(whole, isWhole ? `Show ${count(most)} rows` : `Show all ${count(matching.length)} rows`)
    const all = data.rows.length + data.more
    const more = data.more === 0 ? "" : `; ${count(data.more)} more are not listed`
    setText(
      summary,
      all === 0
        ? "There are no consumers."
        : wanted === ""
          ? `${count(data.rows.length)} ${data.rows.length === 1 ? "row" : "rows"}${more}.`
          : `${count(matching.length)} of ${count(data.rows.length)} rows match${more}.`
    )
  }
}
