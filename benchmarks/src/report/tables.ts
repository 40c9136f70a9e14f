/** Findings as tables, for the terminal and for the documents. */
import type { Result } from "../contest.ts"
import type { Table } from "../fresh.ts"
import * as Format from "./format.ts"

export interface Grid {
  readonly head: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<string>>
}

const isEmpty = (grid: Grid, column: number) => column > 0 && grid.rows.every((row) => row[column] === "")

/** Removes columns without values. */
const dense = (grid: Grid): Grid => {
  const wanted = grid.head.map((_, column) => !isEmpty(grid, column))
  const pick = (row: ReadonlyArray<string>) => row.filter((_, column) => wanted[column])
  return { head: pick(grid.head), rows: grid.rows.map(pick) }
}

export const ofContest = ({ base, best, standings, unit }: Result): Grid => {
  const ratio = base.length > 20 ? "× first" : `× ${base}`
  return dense({
    head: ["", `${unit}/s`, "±", ratio, "× best peer", "CPU µs", "±", ratio, "p50 ms", "p99 ms", "peak MiB"],
    rows: standings.map((standing) => [
      standing.name,
      Format.count(standing.perSecond.median),
      Format.spread(standing.perSecond),
      Format.ratio(standing.ofBase),
      standing.name === best ? "best" : Format.ratio(standing.ofBest),
      Format.short(standing.cpu.median),
      Format.spread(standing.cpu),
      Format.ratio(standing.cpuOfBase),
      Format.optional(standing.p50),
      Format.optional(standing.p99),
      Format.mebibytes(standing.peak)
    ])
  })
}

export const ofTable = ({ columns, rows }: Table): Grid =>
  dense({
    head: ["", ...columns.flatMap((column) => [column, "±"])],
    rows: rows.map(({ figures, name }) => [
      name,
      ...figures.flatMap((figure) => [Format.short(figure.median), figure.spread === 0 ? "" : Format.spread(figure)])
    ])
  })

export const text = ({ head, rows }: Grid): string => {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)))
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ")
  return [line(head), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(line)].join("\n")
}

export const markdown = ({ head, rows }: Grid): string => {
  const line = (cells: ReadonlyArray<string>) => `| ${cells.join(" | ")} |`
  return [line(head), line(head.map((_, i) => (i === 0 ? "---" : "--:"))), ...rows.map(line)].join("\n")
}
