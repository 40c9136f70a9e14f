/**
 * An application with traffic under way, which a test stops with SIGTERM. It publishes numbers to the queue `work` as
 * fast as they are confirmed, handles them, and writes events into a file: `p 7` when 7 was confirmed, `h 7` when it
 * was handled.
 *
 * Run as `main` it ends as `NodeRuntime.runMain` ends it. Run as `plain` it ends automatically, when nothing is left
 * that keeps the process alive, and then writes `r` with what there is.
 */
import { type Amqp, AmqpConsumer, AmqpLive, AmqpMessage, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { NodeRuntime } from "@effect/platform-node"
import { Effect, References, Stream } from "effect"
import { appendFileSync } from "node:fs"

const [mode, file] = process.argv.slice(2) as ["main" | "plain", string]

const write = (line: string) => Effect.sync(() => appendFileSync(file, `${line}\n`))

const publishing = Effect.forEach(
  [0, 1, 2, 3],
  (lane) =>
    Stream.iterate(lane, (n) => n + 4).pipe(
      Stream.runForEach((n) =>
        Effect.andThen(
          AmqpPublisher.publish({ routingKey: "work", content: String(n) }, { mandatory: true }),
          write(`p ${n}`)
        )
      )
    ),
  { concurrency: "unbounded", discard: true }
)

const consuming = AmqpConsumer.consume(
  "work",
  (delivery) => Effect.andThen(Effect.sleep("100 millis"), write(`h ${AmqpMessage.text(delivery)}`)),
  { concurrency: 8 }
)

const borrowing = Effect.forever(
  Effect.andThen(
    Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use((channel) => channel.queueDeclarePassive("work"))),
    Effect.sleep("5 millis")
  )
)

// Under a bad condition some operations fail: it continues as well as it can until it is stopped.
const on = <A, E>(effect: Effect.Effect<A, E, Amqp.Amqp>) => Effect.forkChild(Effect.exit(effect))

const main = Effect.gen(function* () {
  yield* on(consuming)
  yield* on(borrowing)
  yield* on(publishing)
  yield* write("started")
  return yield* Effect.never
}).pipe(Effect.provide(AmqpLive), Effect.provideService(References.MinimumLogLevel, "None"))

if (mode === "main") NodeRuntime.runMain(main)
else {
  const fiber = Effect.runFork(main)
  // This timer keeps nothing alive, but a connection that is left behind would.
  process.once("SIGTERM", () => fiber.interruptUnsafe())
  fiber.addObserver(() => {
    const look = () => appendFileSync(file, `r ${process.getActiveResourcesInfo().join(" ")}\n`)
    // Not at once: whatever has just been closed, and the timer, are gone a moment later.
    setTimeout(() => setImmediate(look), 100)
  })
}
