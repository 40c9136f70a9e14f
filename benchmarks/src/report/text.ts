/** Results as plain text. */
import type { Result, Standing } from "../contest.ts"
import type { Figure } from "../statistics.ts"

const count = (value: number) => Math.round(value).toLocaleString("en")
const percent = (share: number) => `±${(share * 100).toFixed(0)} %`
const ratio = (figure: Figure | undefined) => (figure === undefined ? "" : figure.median.toFixed(2))
const milliseconds = (value: number | undefined) =>
  value === undefined ? "" : value < 10 ? value.toFixed(2) : value.toFixed(0)
const microseconds = (value: number) => (value < 10 ? value.toFixed(2) : value.toFixed(1))

const lines = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)))
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ")
  return [line(head), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(line)].join("\n")
}

export const table = (result: Result): string => {
  const row = (standing: Standing) => [
    standing.name,
    count(standing.perSecond.median),
    percent(standing.perSecond.spread),
    ratio(standing.ofBase),
    ratio(standing.ofBest),
    microseconds(standing.cpu.median),
    percent(standing.cpu.spread),
    ratio(standing.cpuOfBase),
    milliseconds(standing.p50),
    milliseconds(standing.p99),
    count(standing.peak / 1_048_576)
  ]
  const head = [
    "",
    `${result.unit}/s`,
    "",
    "of first",
    "of best peer",
    "CPU µs",
    "",
    "of first",
    "p50 ms",
    "p99 ms",
    "peak MiB"
  ]
  return [
    `${result.id}: ${result.title}; ${result.rounds} rounds${result.best === undefined ? "" : `; best peer: ${result.best}`}`,
    lines(head, result.standings.map(row)),
    ...result.failures.map(({ message, name }) => `${name} FAILED: ${message}`)
  ].join("\n")
}
