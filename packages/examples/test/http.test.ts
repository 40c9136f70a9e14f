/** The examples of HTTP in front of AMQP, run as programs. */
import { assert, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { run } from "./support/program.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect(
    "api.ts prints what its client gets, including its typed error, ends automatically, and leaves nothing open",
    () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const program = yield* run("api.ts", { AMQP_URL: url })
        assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
        assert.include(program.output(), 'The price of "tea" is 3.95.\n')
        assert.include(program.output(), "There is no such article.\n")
        assert.notMatch(program.output(), /WARN|ERROR/)
        yield* awaitCensus({ connections: 0, channels: 0, messages: 0 })
      }),
    120_000
  )

  it.effect(
    "live.ts sends every browser what is published, and ends at once although browsers are connected",
    () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const program = yield* run("live.ts", { AMQP_URL: url, PORT: "0" })
        const [, service = ""] = yield* program.until(/News are on (http:\S+)\./)
        assert.include(yield* Effect.promise(() => fetch(service).then((it) => it.text())), 'EventSource("/news")')
        const browsers = yield* Effect.forEach([1, 2], () =>
          Effect.promise(() =>
            fetch(`${service}/news`).then(({ body }) => body!.pipeThrough(new TextDecoderStream()).getReader())
          )
        )
        yield* awaitCensus({ consumers: 2 })
        const published = yield* Effect.promise(() => fetch(`${service}/news`, { method: "POST", body: "It\nworks" }))
        assert.strictEqual(published.status, 202)
        for (const browser of browsers) {
          let seen = ""
          while (!seen.includes("data:")) seen += (yield* Effect.promise(() => browser.read())).value
          assert.include(seen, 'data: "It\\nworks"\n\n')
        }
        const since = performance.now()
        yield* program.kill("SIGTERM")
        assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
        assert.isBelow(performance.now() - since, 9000)
        yield* awaitCensus({ connections: 0, channels: 0, queues: 1 })
      }),
    120_000
  )
})
