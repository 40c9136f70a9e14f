/** The shop as its users run it: an order is charged once, whatever dies. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, type Scope } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { run } from "./support/program.ts"

const databaseFile: Effect.Effect<string, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "shop-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
  ),
  (folder) => join(folder, "shop.db")
)

const start = Effect.fn("start")(function* (DATABASE: string) {
  const { url } = yield* TestBroker.TestBroker
  const program = yield* run("shop.ts", { AMQP_URL: url, DATABASE, DATABASE_URL: "", PORT: "0" })
  const [, address = ""] = yield* program.until(/The shop listens on (\S+)\./)
  return { program, address }
})

const post = (address: string, body: string) =>
  Effect.promise(async () => {
    const headers = { "content-type": "application/json" }
    const response = await fetch(`${address}/orders`, { method: "POST", body, headers })
    return { status: response.status, text: await response.text() }
  })

const order = JSON.stringify({ product: "tea", cents: 395 })

/** How often each order was paid. */
const payments = (path: string) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new DatabaseSync(path, { readOnly: true })),
    (database) =>
      Effect.sync(() =>
        database
          .prepare("SELECT (SELECT count(*) FROM payments WHERE order_id = orders.id) AS count FROM orders")
          .all()
          .map((row) => row["count"])
      ),
    (database) => Effect.sync(() => database.close())
  )

// Two programs start, and the second one waits for the lease of the first.
const timeout = 180_000

/** Matches a text that occurs as often. It never tries a second way to match: there are too many. */
const times = (count: number, text: string) => new RegExp(`^(?:(?:(?!${text})[^])*${text}){${count}}`)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("shop.ts", () => {
    it.effect(
      "charges each order once, also if it is killed in between, and refuses what is no order",
      () =>
        Effect.gen(function* () {
          const { awaitCensus } = yield* TestBroker.TestBroker
          const DATABASE = yield* databaseFile
          const first = yield* start(DATABASE)
          assert.strictEqual((yield* post(first.address, "{}")).status, 400)
          const answers = yield* Effect.forEach(Array.from({ length: 20 }), () => post(first.address, order), {
            concurrency: 5
          })
          assert.deepStrictEqual(new Set(answers.map(({ status }) => status)), new Set([201]))
          yield* first.program.until(/charged for tea/)
          // What is charged and not acknowledged, and what is published and not removed, comes again.
          yield* first.program.kill("SIGKILL")
          yield* first.program.ended
          const second = yield* start(DATABASE)
          assert.strictEqual((yield* post(second.address, order)).status, 201)
          const charged = (first.program.output().match(/charged for tea/g) ?? []).length
          assert.isAtLeast(charged, 1)
          yield* awaitCensus({ messages: 0, unacked: 0 }, { timeout: "30 seconds" })
          yield* second.program.until(times(21 - charged, "charged for tea"))
          yield* second.program.kill("SIGINT")
          assert.deepStrictEqual(yield* second.program.ended, { code: 0, signal: null }, second.program.output())
          assert.deepStrictEqual(
            yield* payments(DATABASE),
            Array.from({ length: 21 }, () => 1)
          )
          yield* awaitCensus({ connections: 0, channels: 0 })
        }),
      timeout
    )
  })
})
