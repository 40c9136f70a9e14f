/** Tables for people. */
import type { Output } from "./Output.ts"
import * as Text from "./text.ts"

export interface Column {
  readonly title: string
  readonly align?: "right" | undefined
  /** Columns that are shortened last: names that an operator copies. */
  readonly keep?: boolean | undefined
}

const gap = "  "
const narrowest = 6

/** The widths of the columns in a terminal: the widest column that may be shortened loses a character at a time. */
const fitted = (natural: ReadonlyArray<number>, columns: ReadonlyArray<Column>, limit: number): Array<number> => {
  const widths = [...natural]
  const room = limit - gap.length * (widths.length - 1)
  for (let total = widths.reduce((a, b) => a + b, 0); total > room; total--) {
    const candidates = [false, true].flatMap((keep) => {
      const found = widths
        .map((width, i) => ({ width, i }))
        .filter(({ i, width }) => (columns[i]?.keep ?? false) === keep && width > narrowest)
      return found.length === 0 ? [] : [found.reduce((a, b) => (b.width > a.width ? b : a))]
    })
    const widest = candidates[0]
    if (widest === undefined) break
    widths[widest.i] = widest.width - 1
  }
  return widths
}

/**
 * The lines of a table, without columns that are empty. Every cell is escaped here. In a terminal no line is wider than
 * it, if it has room at all.
 */
export const table = (
  { color, columns: limit }: Output["Service"],
  all: ReadonlyArray<Column>,
  rows: ReadonlyArray<ReadonlyArray<string>>
): Array<string> => {
  const isUsed = (i: number) => rows.some((row) => (row[i] ?? "") !== "")
  const columns = all.filter((_, i) => isUsed(i))
  const cells = rows.map((row) => row.filter((_, i) => isUsed(i)).map(Text.line))
  const natural = columns.map(({ title }, i) =>
    cells.reduce((widest, row) => Math.max(widest, Text.width(row[i] ?? "")), Text.width(title))
  )
  const widths = limit === undefined ? natural : fitted(natural, columns, limit)
  const lineOf = (row: ReadonlyArray<string>) =>
    columns
      .map(({ align }, i) => {
        const cell = Text.truncate(row[i] ?? "", widths[i]!)
        if (align === "right") return " ".repeat(widths[i]! - Text.width(cell)) + cell
        return i === columns.length - 1 ? cell : Text.padEnd(cell, widths[i]!)
      })
      .join(gap)
      .trimEnd()
  return [color("bold", lineOf(columns.map(({ title }) => title))), ...cells.map(lineOf)]
}
