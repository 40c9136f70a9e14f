/** The findings of runs, stored in files: those of the last run, and those that the documents are written from. */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import type { Result } from "../contest.ts"
import { type Environment, root } from "../environment.ts"
import type { Table } from "../fresh.ts"

/** Each finding has its environment: a part can be measured again without the rest. */
export type Finding =
  | { readonly _tag: "Contest"; readonly environment: Environment; readonly result: Result }
  | { readonly _tag: "Table"; readonly environment: Environment; readonly table: Table }

export const idOf = (finding: Finding) => (finding._tag === "Contest" ? finding.result.id : finding.table.id)

/** This file is not in the repository. */
export const last = `${root}benchmarks/last.json`

/** docs/performance.md is written from this file. */
export const kept = `${root}benchmarks/results.json`

export const read = (file: string): ReadonlyArray<Finding> =>
  existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as ReadonlyArray<Finding>) : []

export const write = (file: string, findings: ReadonlyArray<Finding>) =>
  writeFileSync(file, `${JSON.stringify(findings, null, 2)}\n`)

/** The new findings replace the old ones, in the order that `ids` gives. */
export const merge = (old: ReadonlyArray<Finding>, found: ReadonlyArray<Finding>, ids: ReadonlyArray<string>) => {
  const all = new Map([...old, ...found].map((finding) => [idOf(finding), finding]))
  return ids.flatMap((id) => all.get(id) ?? [])
}
