/** A stream is read to its end while connections are cut often, and the process is killed once. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Random, Stream } from "effect"
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { configOf } from "./support/amqp.ts"
import { declareQueue, onBroker } from "./support/consumers.ts"
import { environment } from "./support/environment.ts"
import { until } from "./support/polling.ts"

const program = join(import.meta.dirname, "support/programs/streamReader.ts")

/** Reconnects soon: the tests are about many cuts, not about long ones. */
const reconnect = {
  ...configOf("amqp://localhost").reconnect,
  minDelay: Duration.millis(10),
  maxDelay: Duration.millis(50)
}

/** A process can take seconds to start on a busy machine. */
const timeoutSeconds = 60

const total = 10_000
const cuts = 50

/** Publishes numbers until all are confirmed. A number whose confirm was cut off is published again. */
const publishAll = (queue: string) =>
  Effect.forEach(
    Array.from({ length: total }, (_, n) => String(n)),
    (content, n) =>
      Effect.andThen(
        // Some time passes, so that messages are still published while connections are cut.
        n % 100 === 99 ? Effect.sleep("20 millis") : Effect.void,
        AmqpPublisher.publish({ routingKey: queue, content }).pipe(
          Effect.retry({ while: (error) => error.isRetryable })
        )
      ),
    { concurrency: 20, discard: true }
  )

/** Cuts all connections each time that some more messages were handled, for this number of times. */
const cutting = Effect.fnUntraced(function* (cuts: number, handled: () => number) {
  const broker = yield* TestBroker.TestBroker
  for (let cut = 0; cut < cuts; cut++) {
    const before = handled()
    yield* until(
      Effect.sync(handled),
      (now) => now >= Math.min(total, before + 50),
      `after ${cut} cuts, of ${before} handled`,
      timeoutSeconds
    )
    yield* Effect.sleep(yield* Random.nextIntBetween(0, 20))
    yield* broker.killConnections
  }
})

/** Evaluates `offset content` lines: how often each offset was handled, and which contents were. */
const tally = (lines: ReadonlyArray<readonly [offset: number, content: string]>) => {
  const times = new Map<number, number>()
  for (const [offset] of lines) times.set(offset, (times.get(offset) ?? 0) + 1)
  const offsets = Array.from(times.keys()).sort((a, b) => a - b)
  const contents = new Set(lines.map(([, content]) => content))
  return {
    skipped: offsets.filter((offset, i) => offset !== i).length + (total - contents.size),
    repeats: lines.length - offsets.length
  }
}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("10,000 messages of a stream while the connection is cut 50 times", () => {
    for (const mode of ["each", "batch"] as const) {
      it.effect(
        `and the process is killed once: none is skipped, and few are handled twice (${mode})`,
        () =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const queue = yield* declareQueue({ queueType: "stream" })
            const folder = yield* Effect.acquireRelease(
              Effect.sync(() => mkdtempSync(join(tmpdir(), "stream-"))),
              (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
            )
            const file = join(folder, "handled")
            const lines = () => {
              let text = ""
              try {
                text = readFileSync(file, "utf8")
              } catch {
                // No message was handled yet.
              }
              return text
                .split("\n")
                .slice(0, -1)
                .map((line) => line.split(" ") as [string, string])
            }
            const start = Effect.acquireRelease(
              Effect.sync(() =>
                spawn(
                  process.execPath,
                  ["--conditions=@effect-amqp/source", program, mode, queue, file, join(folder, "positions")],
                  {
                    env: { ...environment(), AMQP_URL: broker.url },
                    stdio: ["ignore", "inherit", "inherit"]
                  }
                )
              ),
              (child) => Effect.promise(() => stop(child, "SIGKILL"))
            )
            const publishing = yield* Effect.forkScoped(publishAll(queue))
            const handled = () => lines().length
            const first = yield* start
            yield* cutting(cuts / 2, handled)
            yield* Effect.promise(() => stop(first, "SIGKILL"))
            const second = yield* start
            yield* cutting(cuts / 2, handled)
            yield* Fiber.join(publishing)
            yield* until(
              Effect.sync(() => new Set(lines().map(([, content]) => content)).size),
              (contents) => contents === total,
              "handled",
              timeoutSeconds
            )
            // The process is stopped in order: its position is saved then.
            yield* Effect.promise(() => stop(second, "SIGTERM"))
            const before = lines().map(([offset, content]) => [Number(offset), content] as const)
            const { repeats, skipped } = tally(before)
            console.log(`${mode}: handled ${before.length}, skipped ${skipped}, repeats ${repeats}`)
            assert.strictEqual(skipped, 0)
            // Messages that the killed process had handled since its last save: at most `every` and the prefetch. A
            // reconnect repeats nothing.
            assert.isAtMost(repeats, 100 + 100 + 100)
            const third = yield* start
            const end = `${before.length}`
            yield* AmqpPublisher.publish({ routingKey: queue, content: end })
            yield* until(Effect.sync(lines), (lines) => lines.at(-1)?.[1] === end, "the last line", timeoutSeconds)
            yield* Effect.promise(() => stop(third, "SIGTERM"))
            assert.strictEqual(lines().length, before.length + 1, "a restart in order repeats nothing")
          }).pipe((effect) => onBroker(effect, { reconnect })),
        300_000
      )
    }

    it.effect(
      "none is skipped or handled twice where the deliveries of a stream are acknowledged out of order",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue({ queueType: "stream" })
          const lines: Array<readonly [number, string]> = []
          const publishing = yield* Effect.forkScoped(publishAll(queue))
          const reading = yield* AmqpConsumer.stream(queue, {
            queueType: "stream",
            offset: "first",
            prefetch: 100,
            resubscribe: "lost"
          }).pipe(
            Stream.mapEffect(
              (delivery) =>
                Effect.flatMap(Random.nextIntBetween(0, 4), (millis) =>
                  Effect.sleep(millis).pipe(
                    Effect.andThen(
                      Effect.sync(() => lines.push([delivery.offset!, AmqpMessage.text(delivery)] as const))
                    ),
                    Effect.andThen(delivery.ack)
                  )
                ),
              { concurrency: 20, unordered: true }
            ),
            Stream.runDrain,
            Effect.forkScoped
          )
          yield* cutting(cuts, () => lines.length)
          yield* Fiber.join(publishing)
          yield* until(
            Effect.sync(() => new Set(lines.map(([, content]) => content)).size),
            (contents) => contents === total,
            "handled"
          )
          yield* Fiber.interrupt(reading)
          const { repeats, skipped } = tally(lines)
          assert.deepStrictEqual({ repeats, skipped }, { repeats: 0, skipped: 0 })
        }).pipe((effect) => onBroker(effect, { reconnect })),
      120_000
    )
  })
})

const stop = (child: ReturnType<typeof spawn>, signal: "SIGKILL" | "SIGTERM") =>
  new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.once("exit", () => resolve())
    child.kill(signal)
  })
