/** Tables of options: what they require of their author, and of the caller that gives options. */
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import type { AmqpError } from "@effect-amqp/core"
import type { Duration } from "effect"
import {
  boolean,
  choice,
  integer,
  isInvalidArgument,
  withDefault,
  passThrough,
  readFlags,
  readerOf,
  required,
  rule,
  type Table,
  toMillis,
  type Values
} from "../src/internal/wire/optionTable.ts"

interface Options {
  readonly size: number
  readonly mode?: "wait" | "fail" | undefined
  readonly within?: Duration.Input | undefined
  readonly durable?: boolean | undefined
}

const within = rule<Duration.Input, number>("a duration", toMillis)

const rules = {
  size: required(integer(1, 10)),
  mode: withDefault(choice(["wait", "fail"]), "wait"),
  within,
  durable: boolean
} satisfies Table<Options>

const readOptions = readerOf(rules)

const refusal = (read: unknown): string | undefined => (isInvalidArgument(read) ? read.message : undefined)

describe("A table of options", () => {
  it("does not compile without an option that its type has", () => {
    const table = {
      size: required(integer(1, 10)),
      within,
      durable: boolean
      // @ts-expect-error the mode is missing
    } satisfies Table<Options>
    assert.isDefined(table)
  })

  it("does not compile with an option that its type lacks", () => {
    const table = {
      ...rules,
      // @ts-expect-error there is no such option
      colour: boolean
    } satisfies Table<Options>
    assert.isDefined(table)
  })

  it("does not compile if a rule refuses what the type allows", () => {
    const table = {
      ...rules,
      // @ts-expect-error "fail" is missing
      mode: choice(["wait"]),
      // @ts-expect-error a duration is not a number
      within: integer(1, 10)
    } satisfies Table<Options>
    assert.isDefined(table)
  })

  it("has a rule for each option of each member of a union", () => {
    type Either = { readonly delay: number } | { readonly delays: ReadonlyArray<number> }
    const table = {
      delay: integer(0, 1)
      // @ts-expect-error the delays are missing
    } satisfies Table<Either>
    assert.isDefined(table)
  })

  it("gives its result a type: undefined for what may be left out and has no default", () => {
    expectTypeOf<Values<typeof rules>>().toEqualTypeOf<{
      readonly size: number
      readonly mode: "wait" | "fail"
      readonly within: number | undefined
      readonly durable: boolean | undefined
    }>()
    expectTypeOf(readOptions).returns.toEqualTypeOf<Values<typeof rules> | AmqpError.InvalidArgument>()
  })
})

describe("Options", () => {
  it("are read with their defaults, and undefined counts as not given", () => {
    assert.deepStrictEqual(readOptions("op", { size: 3, within: "1 second" }), {
      size: 3,
      mode: "wait",
      within: 1000,
      durable: undefined
    })
    assert.deepStrictEqual(readOptions("op", { size: 3, mode: undefined }), readOptions("op", { size: 3 }))
    // A read with no options is not changed by a later one.
    const read = readerOf({ durable: withDefault(boolean, true) })
    assert.deepStrictEqual(read("op", { durable: false }), { durable: false })
    assert.deepStrictEqual(read("op", undefined), { durable: true })
  })

  it("are refused by their name, with what was expected, what was given, and the names that exist", () => {
    const known = "size, mode, within, durable"
    for (const [options, wants] of [
      [{ size: 3, colour: 1 }, `colour: expected one of the options ${known}, got an unknown option`],
      [{ size: 3, toString: 1 }, `toString: expected one of the options ${known}, got an unknown option`],
      [{ size: 3, colour: undefined }, `colour: expected one of the options ${known}, got an unknown option`],
      [{ size: 3, Mode: "wait" }, "Mode: expected mode (rename or remove it), got an unknown option"],
      [{ size: 3, durabel: undefined }, "durabel: expected durable (rename or remove it), got an unknown option"],
      [{ size: 11 }, "size: expected an integer from 1 to 10, got 11"],
      [{ size: 3, mode: "go" }, 'mode: expected "wait" or "fail", got "go"'],
      [{ size: 3, durable: 1 }, "durable: expected true or false, got 1"],
      [{ mode: "wait" }, "size: expected an integer from 1 to 10, got undefined"],
      [undefined, "size: expected an integer from 1 to 10, got undefined"],
      [null, "options: expected an object, got null"],
      [[], "options: expected an object, got an array"],
      ["size", 'options: expected an object, got "size"']
    ] as const) {
      assert.strictEqual(refusal(readOptions("op", options)), `op: ${wants}. Nothing was sent.`)
    }
  })

  it("with nested options are refused by the nested names", () => {
    const inner = readerOf({ name: required(choice(["a"])) })
    const outer = readerOf({ offsets: rule("an object", (value, operation) => inner(`${operation}: offsets`, value)) })
    assert.deepStrictEqual(outer("op", { offsets: { name: "a" } }), { offsets: { name: "a" } })
    assert.strictEqual(
      refusal(outer("op", { offsets: {} })),
      'op: offsets: name: expected "a", got undefined. Nothing was sent.'
    )
  })

  it("that another operation reads are passed on, and others are not", () => {
    const handedOn = readerOf(passThrough({ within }))
    const given = { within: "soon" }
    assert.deepStrictEqual(handedOn("op", given), given as never)
    assert.isTrue(isInvalidArgument(handedOn("op", { size: 1 })))
  })

  it("that are booleans have defaults for all of them, or do not compile", () => {
    const options: { readonly multiple?: boolean; readonly requeue?: boolean } = { requeue: false }
    assert.deepStrictEqual(readFlags("op", options, { multiple: true, requeue: true }), {
      multiple: true,
      requeue: false
    })
    assert.deepStrictEqual(readFlags("op", undefined, { requeue: true }), { requeue: true })
    assert.strictEqual(
      refusal(readFlags("op", { requeue: 1 } as never, { requeue: true })),
      "op: requeue: expected true or false, got 1. Nothing was sent."
    )
    // @ts-expect-error multiple has no default
    readFlags("op", options, { requeue: true })
  })
})
