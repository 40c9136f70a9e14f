/** `docs/failure-model.md` names tests that exist. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

const page = readFileSync(new URL("../../../docs/failure-model.md", import.meta.url), "utf8")

// `AmqpConnection.faults`: "a title"
const named = [...page.matchAll(/`([\w.]+)`: "([^"]+)"/g)].map(([, file = "", title = ""]) => ({ file, title }))

describe("docs/failure-model.md", () => {
  it("has a test in every row of its tables", () => {
    const rows = page.split("\n").filter((line) => /^\| (?!---|fault|weather)/.test(line) && line.includes("`: "))
    assert.isAbove(rows.length, 30)
    assert.strictEqual(named.length, rows.length)
  })

  for (const { file, title } of named) {
    it(`${file}: ${title}`, () => {
      const source = readFileSync(new URL(`${file}.test.ts`, import.meta.url), "utf8")
      assert.include(source, title)
    })
  }
})
