/** `docs/pika.md` says what these tests do: each row names a test, and its code is that of the test. */
import { assert, describe, it } from "@effect/vitest"
import { globSync, readFileSync } from "node:fs"
import { join } from "node:path"

const here = import.meta.dirname
const page = readFileSync(join(here, "../../../../docs/pika.md"), "utf8")

/** Formatting is ignored. */
const squeezed = (code: string) => code.replaceAll(/\s+/g, "").replaceAll('"', "'")

const sources = globSync("{,programs/}*.ts", { cwd: here })
  .filter((name) => name !== "docs.test.ts")
  .map((name) => ({ name, text: readFileSync(join(here, name), "utf8") }))

/** The programs that code names, in order to run them. */
const programsOf = (text: string) =>
  sources.filter(({ name }) => name.startsWith("programs/") && text.includes(`"${name.slice("programs/".length)}"`))

/**
 * The code of each test, by its title, with the definitions that its file shares between its tests, and the programs
 * that it runs.
 */
const tests = new Map<string, string>()
const repeated: Array<string> = []
for (const { text } of sources) {
  const found = [...text.matchAll(/^ *it\.(?:effect|live)\(\s*"((?:[^"\\]|\\.)*)"/gm)]
  found.forEach((match, i) => {
    const title = match[1]!
    if (tests.has(title)) repeated.push(title)
    const own = text.slice(match.index, found[i + 1]?.index)
    const code = [text.slice(0, found[0]!.index), own, ...programsOf(own).map((program) => program.text)]
    tests.set(title, squeezed(code.join("")))
  })
}

interface Row {
  readonly pika: string
  readonly ours: string
  readonly test: string
}

const cellsOf = (line: string) =>
  line
    .slice(1, -1)
    .split("|")
    .map((cell) => cell.trim())

const rows: ReadonlyArray<Row> = page
  .split("\n")
  .filter((line) => line.startsWith("|") && !/^\|[\s|:-]+\|$/.test(line))
  .map(cellsOf)
  .map((cells) => ({ pika: cells[0]!, ours: cells.at(-2)!, test: cells.at(-1)! }))
  .filter(({ test }) => test !== "test")

const escaped = (text: string) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")

/** Whether code contains an excerpt, in which `...` before a bracket, a quote or the end stands for anything. */
const has = (code: string, excerpt: string) => {
  const parts = squeezed(excerpt).split(/\.\.\.(?![a-z])/)
  return new RegExp(parts.map(escaped).join("[^]*?")).test(code)
}

describe("docs/pika.md", () => {
  it("has rows, and the tests have titles of their own", () => {
    assert.isAtLeast(rows.length, 100)
    assert.deepStrictEqual(repeated, [])
  })

  it("names in each row a test that there is, or says why there is no counterpart", () => {
    const reason = /^(?:cannot happen|left out|RabbitMQ does not|every RabbitMQ)/
    for (const { ours, pika, test } of rows) {
      if (test === "") assert.match(ours, reason, pika)
      else assert.isTrue(tests.has(test), `${pika}: there is no test ${JSON.stringify(test)}`)
    }
  })

  it("shows in each row code that is the named test's", () => {
    const missing: Array<string> = []
    for (const { ours, test } of rows) {
      const code = tests.get(test)
      if (code === undefined) continue
      for (const [, excerpt] of ours.matchAll(/`([^`]+)`/g)) {
        if (!has(code, excerpt!)) missing.push(`${excerpt!} is not in ${JSON.stringify(test)}`)
      }
    }
    assert.deepStrictEqual(missing, [])
  })

  it("names every test", () => {
    const named = new Set(rows.map(({ test }) => test))
    assert.deepStrictEqual(
      [...tests.keys()].filter((title) => !named.has(title)),
      []
    )
  })

  it("shows as examples what the tests run", () => {
    const run = sources.map(({ text }) => squeezed(text))
    const missing: Array<string> = []
    for (const [, block] of page.matchAll(/^```ts\n([^]*?)^```/gm)) {
      for (const paragraph of block!.split(/\n\n/)) {
        // Only the page contains these: imports, and a name for what the test provides.
        if (/^(?:import|const queue = ")/.test(paragraph)) continue
        const code = squeezed(paragraph)
        if (!run.some((text) => text.includes(code))) missing.push(paragraph)
      }
    }
    assert.deepStrictEqual(missing, [])
  })
})
