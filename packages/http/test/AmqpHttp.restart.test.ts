/** A rolling restart under load: one process takes over from another while clients continue to send requests. */
import { assert, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { connect, type Socket } from "node:net"
import { drainQueue } from "./support/queues.ts"
import { makeClients, makeSwitch, start } from "./support/RestartableService.ts"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect(
    "a rolling restart fails no request, and loses none that was answered with success",
    () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const queue = "restarts"
        const env = { AMQP_URL: url, QUEUE: queue }
        const line = yield* makeSwitch

        const [first, second] = yield* Effect.all([start(env), start(env)], { concurrency: 2 })

        line.to(first.port)
        const { stop, tally } = yield* makeClients(16, line.port)
        const answers = (n: number) =>
          Effect.repeat(Effect.sleep("5 millis"), { until: () => tally.answered.size >= n || tally.failed.length > 0 })
        yield* answers(200)
        // Browsers connect in advance and send nothing.
        yield* Effect.forEach([1, 2, 3], () =>
          Effect.acquireRelease(
            Effect.callback<Socket>((resume) => {
              const socket = connect(line.port, "127.0.0.1", () => resume(Effect.succeed(socket)))
              socket.on("error", () => {})
            }),
            (socket) => Effect.sync(() => socket.destroy())
          )
        )

        line.to(second.port)
        const before = tally.answered.size
        const since = performance.now()
        const code = yield* first.stop
        const took = performance.now() - since
        const during = tally.answered.size - before
        yield* answers(tally.answered.size + 200)
        yield* stop

        const queued = yield* drainQueue(queue)
        const lost = [...tally.answered].filter((id) => !queued.includes(id))
        assert.deepStrictEqual({ failed: tally.failed, lost, code }, { failed: [], lost: [], code: 0 }, first.output())
        // Each client was asked to close its keep-alive connection.
        assert.isAtLeast(tally.letGo, 16)
        assert.isBelow(took, 3000, "the server waited for its clients until the shutdown timeout")
        yield* awaitCensus({ connections: 1 })
        assert.strictEqual(yield* second.stop, 0)
        yield* awaitCensus({ connections: 0, channels: 0 })
        console.log(
          [
            "rolling restart under load, 16 clients",
            `  answered ${tally.answered.size}, of these ${during} while the first stopped (${Math.round(took)} ms)`,
            `  asked to close ${tally.letGo}, sent again ${tally.retried}, failed ${tally.failed.length}, lost ${lost.length}`,
            `  duplicates ${queued.length - new Set(queued).size}`
          ].join("\n")
        )
      }).pipe(Effect.scoped),
    // Two processes start, and each one reads its sources.
    120_000
  )
})
