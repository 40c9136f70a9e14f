/** `docs/failure-model.md` names tests that exist. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

const page = readFileSync(new URL("../../../docs/failure-model.md", import.meta.url), "utf8")

/** The last cells of the tables whose last column is headed "tested by". */
const cells = page
  .split(/\n{2,}/)
  .map((paragraph) => paragraph.split("\n").filter((line) => line.startsWith("|")))
  .filter(([header]) => /\| tested by +\|$/.test(header ?? ""))
  .flatMap((lines) =>
    lines.slice(2).map(
      (line) =>
        line
          .split(/(?<!\\)\|/)
          .at(-2)
          ?.trim() ?? ""
    )
  )

/** `AmqpConnection.faults`: "a title", "another one"; `AmqpPool`: "a third". */
const titlesOf = (cell: string) => {
  let file: string | undefined
  return [...cell.matchAll(/`([\w.]+)`: |"([^"]+)"/g)].flatMap(([, name, title]) => {
    file = name ?? file
    return file === undefined || title === undefined ? [] : [{ file, title }]
  })
}

describe("docs/failure-model.md", () => {
  it("has a test in every row of its tables, and the titles of all tests of a row are found", () => {
    assert.isAbove(cells.length, 30)
    assert.deepStrictEqual(
      cells.filter((cell) => titlesOf(cell).length === 0),
      []
    )
    assert.deepStrictEqual(titlesOf('`A.b`: "one" and "two"; `C`: "three"'), [
      { file: "A.b", title: "one" },
      { file: "A.b", title: "two" },
      { file: "C", title: "three" }
    ])
  })

  for (const { file, title } of cells.flatMap(titlesOf)) {
    it(`${file}: ${title}`, () => {
      const source = readFileSync(new URL(`${file}.test.ts`, import.meta.url), "utf8")
      assert.include(source, title)
    })
  }
})
