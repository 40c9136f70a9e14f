/** The index of the test support. */
import { assert, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

it("the index of test/support names every file once, and no other", () => {
  const folder = join(import.meta.dirname, "support")
  const files = readdirSync(folder, { withFileTypes: true })
    .map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name))
    .filter((name) => name !== "README.md")
  const rows = readFileSync(join(folder, "README.md"), "utf8").matchAll(/^\| `([^`]+)`/gm)
  const named = Array.from(rows, ([, name]) => name)
  assert.deepStrictEqual(named.toSorted(), files.toSorted())
})
