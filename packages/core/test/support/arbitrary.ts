/** Property testing: what most properties need. */
import { assert } from "@effect/vitest"
import { Arbitrary, Effect, Schema } from "effect"

/** An integer, both limits included. */
export const int = (minimum: number, maximum: number): Arbitrary.Arbitrary<number> =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))

/** Fails with the smallest found value for which the property does not hold. */
export const holds = <A>(
  self: Arbitrary.Arbitrary<A>,
  property: (value: A) => boolean,
  { runs, size }: { readonly runs: number; readonly size: number }
): Effect.Effect<void> =>
  Effect.map(Arbitrary.checkEffect(self, property, { runs, size }), (result) =>
    assert.strictEqual(Arbitrary.formatCheckFailure(result), undefined)
  )

/** This many bytes, cut at up to 40 positions. */
export const pieces = (bytes: Buffer): Arbitrary.Arbitrary<ReadonlyArray<Buffer>> =>
  Arbitrary.map(Arbitrary.array(int(0, bytes.length), { maxLength: 40 }), (cuts) => {
    const at = [0, ...cuts.toSorted((a, b) => a - b), bytes.length]
    return at.slice(1).map((end, i) => bytes.subarray(at[i], end))
  })
