/** The table of consumers, with its filter. */
import type { ConsumerRow } from "../src/internal/dashboard/events.ts"
import { byId, make, setName, setText } from "./elements.ts"
import { clock, consumerStates, count, duration, rate } from "./format.ts"
import { state } from "./state.ts"

interface Column {
  readonly title: string
  readonly fill: (cell: HTMLElement, row: ConsumerRow, now: number) => void
  /** Whether only a dashboard that counts queues has it. */
  readonly isOfBroker?: boolean
}

const columns: ReadonlyArray<Column> = [
  { title: "Queue", fill: (cell, { queue }) => setName(cell, queue) },
  { title: "Consumer", fill: (cell, { name }) => setName(cell, name) },
  {
    title: "State",
    fill: (cell, { since, state }, now) => {
      const [words, colour] = consumerStates[state]
      setText(cell, `${words} for ${duration(now - since)}`, colour)
    }
  },
  {
    title: "Running",
    fill: (cell, { running, wanted }) =>
      setText(cell, `${count(running)} of ${count(wanted)}`, running < wanted ? "bad" : "")
  },
  {
    title: "In flight",
    fill: (cell, { buffered, inFlight }) =>
      setText(cell, buffered === 0 ? count(inFlight) : `${count(inFlight)} + ${count(buffered)} waiting`)
  },
  { title: "Per second", fill: (cell, row) => setText(cell, row.rate === null ? "–" : rate(row.rate)) },
  {
    title: "Last error",
    fill: (cell, { error }) => setName(cell, error === null ? "–" : `${error[0]} at ${clock(error[1])}`)
  },
  {
    title: "Last end",
    fill: (cell, { end }) =>
      setText(
        cell,
        end === null ? "–" : `${end[0]} at ${clock(end[2])}: ${end[1]}`,
        end !== null && end[0] === "failed" ? "bad" : ""
      )
  },
  {
    title: "Ready in the queue",
    isOfBroker: true,
    fill: (cell, { broker }) => {
      if (broker === null) setText(cell, "–", "")
      else if (broker === "missing") setText(cell, "no such queue", "bad")
      else setText(cell, `${count(broker[0])} at ${clock(broker[2])}`, "")
    }
  },
  {
    title: "Consumers of the queue",
    isOfBroker: true,
    fill: (cell, { broker }) => {
      if (broker === null || broker === "missing") setText(cell, "–", "")
      else setText(cell, count(broker[1]), broker[1] === 0 ? "warn" : "")
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
  element.append(table)
  const rows: Array<ReadonlyArray<HTMLTableCellElement>> = []
  let present: ReadonlyArray<Column> = []
  filter.addEventListener("input", later)

  const arrange = (wanted: ReadonlyArray<Column>) => {
    if (wanted.length === present.length) return
    present = wanted
    head.replaceChildren(...wanted.map(({ title }) => make("th", { scope: "col", role: "columnheader" }, title)))
    rows.length = 0
    body.replaceChildren()
  }
  const rowAt = (index: number): ReadonlyArray<HTMLTableCellElement> => {
    const known = rows[index]
    if (known !== undefined) return known
    const cells = present.map(({ title }, i) =>
      i === 0
        ? make("th", { scope: "row", role: "rowheader", "data-title": title })
        : make("td", { role: "cell", "data-title": title })
    )
    body.append(make("tr", { role: "row" }, ...cells))
    rows.push(cells)
    return cells
  }

  return (now: number): void => {
    const { hello, table: data } = state.data
    if (data === undefined) return
    arrange(columns.filter(({ isOfBroker = false }) => !isOfBroker || hello.queueCounts !== null))
    const wanted = filter.value.trim().toLowerCase()
    const matching = data.rows.filter(({ name, queue }) => `${queue}\n${name}`.toLowerCase().includes(wanted))
    matching.forEach((row, i) => {
      const cells = rowAt(i)
      present.forEach(({ fill }, k) => {
        const cell = cells[k]!
        fill(cell, row, now)
        // A narrow screen leaves out what says nothing.
        cell.toggleAttribute("data-none", cell.textContent === "–" || (k === 1 && row.name === row.queue))
      })
    })
    for (const [first] of rows.splice(matching.length)) first?.parentElement?.remove()
    table.hidden = matching.length === 0
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
