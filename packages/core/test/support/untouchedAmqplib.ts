/**
 * For each test file of `npm run test:untouched`: amqplib's prototypes and modules are frozen before any module loads
 * it. At the end, no other code may have written to its objects, or read from them what it does not declare, except a
 * channel's number.
 */
import { afterAll, assert } from "vitest"
import { record } from "./amqplibRecorder.ts"

const { reads, writes } = record()

const known = new Set(["Channel.ch by packages/core/src/internal/driver/amqplib.ts"])

afterAll(() => {
  assert.deepStrictEqual(
    { reads: Array.from(reads).filter((read) => !known.has(read)), writes: Array.from(writes) },
    { reads: [], writes: [] }
  )
})
