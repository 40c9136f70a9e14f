/** Requests that wait for their replies, found by correlation id as in a `Map`. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"
import { correlationIdOf, numberOf } from "../src/internal/rpc/correlation.ts"
import { type Numbered, PendingCalls } from "../src/internal/rpc/pendingCalls.ts"

class Call implements Numbered<Call> {
  readonly correlationId: string
  readonly number: number
  nextInChain: Call | undefined = undefined

  constructor(correlationId: string) {
    this.correlationId = correlationId
    this.number = numberOf(correlationId)
  }
}

describe("pending requests", () => {
  it.effect("are those that were added and not deleted, whatever the order", () => {
    const step = Arbitrary.schema(
      Schema.Struct({ of: Schema.Literals(["a", "b-"]), number: Schema.Int, adds: Schema.Boolean })
    )
    // The numbers are close together and far apart, and more than there are chains at first.
    const steps = Arbitrary.array(step, { maxLength: 400 })
    return Effect.map(
      Arbitrary.checkEffect(
        steps,
        (steps) => {
          const pending = new PendingCalls<Call>()
          const model = new Map<string, Call>()
          for (const { adds, number, of } of steps) {
            const id = correlationIdOf(of, number % 1000)
            const known = model.get(id)
            if (pending.find(id, numberOf(id)) !== known) return false
            if (adds && known === undefined) {
              const call = new Call(id)
              pending.add(call)
              model.set(id, call)
            } else if (!adds && known !== undefined) {
              pending.delete(known)
              // A second delete does no harm.
              pending.delete(known)
              model.delete(id)
            }
            if (pending.size !== model.size) return false
          }
          const all = new Set(pending)
          return all.size === model.size && Array.from(model.values()).every((call) => all.has(call))
        },
        { runs: 300, size: 400 }
      ),
      (result) => assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
    )
  })

  it("hold nothing of requests that have ended", () => {
    const pending = new PendingCalls<Call>()
    const calls = Array.from({ length: 1000 }, (_, i) => new Call(correlationIdOf("x", i)))
    for (const call of calls) pending.add(call)
    for (const call of calls) pending.delete(call)
    assert.deepStrictEqual([...pending], [])
    for (const { nextInChain: sibling } of calls) assert.isUndefined(sibling)
  })

  it("are not found by an id that another client has made up", () => {
    const pending = new PendingCalls<Call>()
    pending.add(new Call(correlationIdOf("x", 7)))
    for (const id of ["", "7", "y-7", "x-07", "x-7.0", "x-", "-", "x-1e400", "x-NaN"]) {
      assert.isUndefined(pending.find(id, numberOf(id)), id)
    }
    assert.isDefined(pending.find("x-7", numberOf("x-7")))
  })
})
