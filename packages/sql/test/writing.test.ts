import { assert, describe, it } from "@effect/vitest"
import { groupsOf } from "../src/internal/outbox/writing.ts"

const rows = (sizes: ReadonlyArray<number>, properties = 0) =>
  sizes.map((size) => ({
    encoded: {
      exchange: "",
      routingKey: "q",
      properties: { byteLength: properties } as Uint8Array,
      content: { byteLength: size } as Uint8Array
    }
  }))

const sizes = (groups: ReturnType<typeof groupsOf>) =>
  groups.map((group) => group.map(({ encoded }) => encoded.content.byteLength))

describe("One statement of publishAll", () => {
  it("has at most 1,000 rows, in their order", () => {
    const groups = groupsOf(rows(Array.from({ length: 2001 }, (_, n) => n)))
    assert.deepStrictEqual(
      groups.map((group) => group.length),
      [1000, 1000, 1]
    )
    assert.deepStrictEqual(
      sizes(groups).flat(),
      Array.from({ length: 2001 }, (_, n) => n)
    )
  })

  it("has at most 16 MiB of contents, or one row", () => {
    const mib = 2 ** 20
    assert.deepStrictEqual(sizes(groupsOf(rows([10 * mib, 6 * mib, 1, 15 * mib, 16 * mib, 17 * mib, 1, 2]))), [
      [10 * mib, 6 * mib],
      [1, 15 * mib],
      [16 * mib],
      [17 * mib],
      [1, 2]
    ])
  })

  it("counts the properties of its rows", () => {
    const groups = groupsOf(
      rows(
        Array.from({ length: 200 }, () => 1),
        128 * 1024
      )
    )
    assert.deepStrictEqual(
      groups.map((group) => group.length),
      [127, 73]
    )
  })

  it("does not exist without rows", () => {
    assert.deepStrictEqual(groupsOf([]), [])
  })
})
