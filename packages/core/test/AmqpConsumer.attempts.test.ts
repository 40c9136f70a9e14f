/** Which attempts count towards `maxDeliveries`, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Latch, Queue, Schedule } from "effect"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { AttemptMemory } from "../src/internal/consumer/attemptMemory.ts"
import {
  declareQueue,
  declareWithDeadLetters,
  layerOf,
  logged,
  nextText,
  onBroker,
  send,
  untilQueue
} from "./support/consumers.ts"
import { configOf, type Overrides } from "./support/amqp.ts"
import { environment } from "./support/environment.ts"
import * as Users from "./support/users.ts"

/** Runs as another application: with its own connections, and only the broker in common with the others. */
const another = <A, E, R>(effect: Effect.Effect<A, E, R>, overrides?: Overrides) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
    Effect.scoped(effect).pipe(Effect.provide(layerOf(url, overrides), { local: true }))
  )

/** Reconnects soon, however often the connection is lost. */
const eager = {
  reconnect: { ...configOf("amqp://127.0.0.1").reconnect, maxDelay: Duration.millis(100) }
} satisfies Overrides

const numbers = (count: number) => Array.from({ length: count }, (_, i) => String(i))

/** The queues that count attempts at messages of this queue. */
const countsOf = (queue: string) =>
  Effect.gen(function* () {
    const { queues } = yield* TestBroker.TestBroker
    return (yield* queues).filter(({ name }) => name.startsWith(`${queue}.attempts.`))
  })

const untilNoCounts = (queue: string) =>
  countsOf(queue).pipe(
    Effect.repeat({ until: (counts) => counts.length === 0, schedule: Schedule.spaced("10 millis") }),
    Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => Effect.die("counts are left behind") })
  )

const types = ["classic", "quorum"] as const

layer(TestBroker.layer, { excludeTestServices: true, timeout: "3 minutes" })((it) => {
  describe("A message is given up only if its handlers have failed.", () => {
    for (const queueType of types) {
      it.effect(`lost connections do not count (${queueType} queue)`, () =>
        Effect.gen(function* () {
          const { killConnections } = yield* TestBroker.TestBroker
          const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType })
          yield* send(queue, ...numbers(40))
          const handled = yield* Queue.unbounded<string>()
          const consume = AmqpConsumer.consume(
            queue,
            (delivery) => Effect.andThen(Effect.sleep("20 millis"), Queue.offer(handled, AmqpMessage.text(delivery))),
            { maxDeliveries: 2 }
          )
          // Two applications consume, so that a message that one of them has not seen goes to the other one.
          yield* Effect.forkScoped(consume)
          yield* Effect.forkScoped(another(consume, eager))
          const seen = new Set<string>()
          for (let round = 0; round < 4; round++) {
            for (const text of yield* Queue.takeN(handled, 4)) seen.add(text)
            yield* killConnections
          }
          while (seen.size < 40) seen.add(yield* Queue.take(handled))
          yield* untilQueue(queue, { messages: 0, unacked: 0 })
          yield* untilQueue(deadLetters, { messages: 0 })
          yield* untilNoCounts(queue)
        }).pipe((effect) => onBroker(effect, eager))
      )

      it.effect(`stopped consumers do not count, however much they have prefetched (${queueType} queue)`, () =>
        Effect.gen(function* () {
          const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType })
          yield* send(queue, ...numbers(20))
          const seen = new Set<string>()
          // Each deployment handles a few messages, is stopped with one in progress, and has not seen the rest.
          for (let deployment = 0; deployment < 6; deployment++) {
            const handled = yield* Queue.unbounded<string>()
            const begun = yield* Latch.make()
            yield* another(
              Effect.gen(function* () {
                let left = 2
                const fiber = yield* Effect.forkScoped(
                  AmqpConsumer.consume(
                    queue,
                    (delivery) =>
                      left-- > 0
                        ? Queue.offer(handled, AmqpMessage.text(delivery))
                        : Effect.andThen(begun.open, Effect.never),
                    { maxDeliveries: 2, shutdownTimeout: 0 }
                  )
                )
                yield* begun.await
                yield* Fiber.interrupt(fiber)
              })
            )
            for (const text of yield* Queue.takeN(handled, 2)) seen.add(text)
          }
          yield* untilQueue(queue, { ready: 8, unacked: 0 })
          yield* untilQueue(deadLetters, { messages: 0 })
          yield* untilNoCounts(queue)
          assert.strictEqual(seen.size, 12)
        }).pipe(onBroker)
      )
    }

    it.effect("messages that are indistinguishable are counted one by one", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const attempts = yield* Queue.unbounded<number>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            ({ attempt }) =>
              Effect.andThen(Queue.offer(attempts, attempt), attempt < 3 ? Effect.fail("again") : Effect.void),
            { maxDeliveries: 3, onFailure: AmqpConsumer.requeue, prefetch: 5, concurrency: 5 }
          )
        )
        yield* send(queue, ...numbers(5).map(() => "tick"))
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
        yield* untilQueue(deadLetters, { messages: 0 })
        // Each of them was handled three times at least, and none was taken for one that has failed more often.
        const seen = yield* Queue.takeAll(attempts)
        assert.isAtLeast(seen.length, 15)
        assert.lengthOf(
          seen.filter((attempt) => attempt === 3),
          5
        )
      }).pipe(onBroker)
    )

    it.effect("a handler that succeeds after its connection was lost has not failed", () =>
      Effect.gen(function* () {
        const { killConnections } = yield* TestBroker.TestBroker
        const queue = yield* declareQueue()
        const attempts = yield* Queue.unbounded<number>()
        const gate = yield* Queue.unbounded<void>()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            ({ attempt }) => Effect.andThen(Queue.offer(attempts, attempt), Queue.take(gate)),
            { maxDeliveries: 1 }
          )
        )
        yield* send(queue, "a")
        for (let i = 0; i < 3; i++) {
          assert.strictEqual(yield* Queue.take(attempts), 1)
          yield* killConnections
          yield* untilQueue(queue, { consumers: 1 })
          yield* Queue.offer(gate, undefined)
        }
        assert.strictEqual(yield* Queue.take(attempts), 1)
        yield* Queue.offer(gate, undefined)
        yield* untilQueue(queue, { messages: 0, unacked: 0 })
      }).pipe((effect) => onBroker(effect, eager))
    )
  })

  describe("A message that always fails is given up at the application's limit.", () => {
    for (const queueType of types) {
      it.effect(`in whichever process it fails (${queueType} queue)`, () =>
        Effect.gen(function* () {
          const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType })
          const attempts = yield* Queue.unbounded<number>()
          yield* send(queue, "a")
          // One process after the other, each of which handles the message once.
          for (let process = 1; process <= 4; process++) {
            const failed = yield* Deferred.make<void>()
            yield* another(
              Effect.gen(function* () {
                const fiber = yield* Effect.forkScoped(
                  AmqpConsumer.consume(
                    queue,
                    ({ attempt }) => Effect.andThen(Queue.offer(attempts, attempt), Effect.fail("no")),
                    {
                      maxDeliveries: 3,
                      onFailure: () => {
                        Deferred.doneUnsafe(failed, Effect.void)
                        return AmqpConsumer.redeliver
                      }
                    }
                  )
                )
                yield* Deferred.await(failed)
                yield* Fiber.interrupt(fiber)
              })
            )
          }
          yield* Effect.forkScoped(AmqpConsumer.consume(queue, () => Effect.void, { maxDeliveries: 3 }))
          assert.strictEqual(yield* nextText(deadLetters), "a")
          // The first process did not record that it had handled the message.
          assert.deepStrictEqual(yield* Queue.takeAll(attempts), [1, 1, 2, 3])
          yield* untilNoCounts(queue)
        }).pipe(onBroker)
      )

      it.effect(
        `if it kills its process, and the messages behind it are handled (${queueType} queue)`,
        () =>
          Effect.gen(function* () {
            const { url } = yield* TestBroker.TestBroker
            const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType })
            yield* send(queue, "first", "poison", ...numbers(30))
            const program = join(import.meta.dirname, "support", "programs", "poisoned.ts")
            const lines: Array<string> = []
            const worker = Effect.callback<number | null>((resume) => {
              const child = spawn(process.execPath, ["--conditions=@effect-amqp/source", program, queue], {
                stdio: ["ignore", "pipe", "inherit"],
                env: { ...environment(), AMQP_URL: url }
              })
              child.stdout.on("data", (data: Buffer) => lines.push(...data.toString().trim().split("\n")))
              child.once("close", (code) => resume(Effect.succeed(code)))
              return Effect.sync(() => child.kill("SIGKILL"))
            })
            // The first death is not recorded, and three attempts are.
            for (let death = 0; death < 4; death++) {
              assert.strictEqual(yield* worker, 9)
              yield* untilQueue(queue, { unacked: 0, consumers: 0 })
            }
            assert.deepStrictEqual(lines, ["first"])
            yield* Effect.forkScoped(worker)
            // A process can take seconds to start on a busy machine.
            yield* Effect.retry(untilQueue(deadLetters, { messages: 1 }).pipe(Effect.catchDefect(Effect.fail)), {
              times: 5
            })
            assert.strictEqual(yield* nextText(deadLetters), "poison")
            yield* untilQueue(queue, { messages: 0, unacked: 0 })
            yield* untilQueue(deadLetters, { messages: 0 })
            assert.deepStrictEqual(lines.slice(1).sort(), numbers(30).sort())
            yield* untilNoCounts(queue)
          }).pipe(onBroker),
        120_000
      )
    }

    it.effect("in batches, too", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const attempts = yield* Queue.unbounded<ReadonlyArray<number>>()
        yield* send(queue, "a", "b")
        yield* Effect.forkScoped(
          AmqpConsumer.consumeBatch(
            queue,
            (batch) =>
              Effect.andThen(
                Queue.offer(
                  attempts,
                  batch.map(({ attempt }) => attempt)
                ),
                Effect.fail("no")
              ),
            { size: 2, within: "100 millis", maxDeliveries: 3, onFailure: AmqpConsumer.requeue }
          )
        )
        yield* untilQueue(deadLetters, { messages: 2 })
        assert.deepStrictEqual(yield* Queue.takeAll(attempts), [
          [1, 1],
          [2, 2],
          [3, 3]
        ])
        yield* untilNoCounts(queue)
      }).pipe(onBroker)
    )

    it.effect("if its handler returns it to the queue each time", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const attempts = yield* Queue.unbounded<number>()
        yield* send(queue, "a")
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (delivery) => Effect.andThen(Queue.offer(attempts, delivery.attempt), delivery.nack()),
            { maxDeliveries: 2 }
          )
        )
        assert.strictEqual(yield* nextText(deadLetters), "a")
        assert.deepStrictEqual(yield* Queue.takeAll(attempts), [1, 2])
      }).pipe(onBroker)
    )
  })

  describe("Counts that processes share", () => {
    it.effect(
      "need permissions: without them handling continues, attempts are counted in the process, and a warning is logged",
      () =>
        logged((lines) =>
          Effect.gen(function* () {
            const { url } = yield* TestBroker.TestBroker
            const { deadLetters, queue } = yield* declareWithDeadLetters()
            const user = yield* Users.make("secret")
            yield* user.permit("^$", ".*", ".*")
            yield* send(queue, "a")
            const attempts = yield* Queue.unbounded<number>()
            const authority = new URL(url)
            authority.username = user.name
            authority.password = "secret"
            const consume = AmqpConsumer.consume(
              queue,
              ({ attempt }) => Effect.andThen(Queue.offer(attempts, attempt), Effect.fail("no")),
              { maxDeliveries: 3, onFailure: AmqpConsumer.requeue }
            )
            yield* Effect.forkScoped(Effect.provide(consume, layerOf(authority.href), { local: true }))
            assert.strictEqual(yield* nextText(deadLetters), "a")
            assert.deepStrictEqual(yield* Queue.takeAll(attempts), [1, 2, 3])
            const warnings = lines.filter(({ text }) => text.includes("could not record an attempt"))
            assert.lengthOf(warnings, 1)
            assert.include(warnings[0]!.text, queue)
          }).pipe(another)
        )
    )

    it.effect("are not recorded where sharedCount is false", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const most = yield* Queue.unbounded<number>()
        yield* send(queue, "a")
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            () =>
              Effect.flatMap(countsOf(queue), (counts) =>
                Effect.andThen(Queue.offer(most, counts.length), Effect.fail("no"))
              ),
            { maxDeliveries: 2, sharedCount: false, onFailure: AmqpConsumer.requeue }
          )
        )
        assert.strictEqual(yield* nextText(deadLetters), "a")
        assert.deepStrictEqual(yield* Queue.takeAll(most), [0, 0])
      }).pipe(onBroker)
    )
  })

  describe("The memory of failed attempts is bounded.", () => {
    it("the oldest key is evicted first", () => {
      const memory = new AttemptMemory()
      for (let i = 0; i < 10_001; i++) memory.add(String(i), 1)
      assert.strictEqual(memory.size, 10_000)
      assert.strictEqual(memory.take("0"), 0)
      assert.strictEqual(memory.take("1"), 1)
    })

    it("a message takes the lowest count of the messages equal to it, once", () => {
      const memory = new AttemptMemory()
      for (const failures of [2, 1, 3]) memory.add("a", failures)
      assert.deepStrictEqual(
        [0, 0, 0, 0].map(() => memory.take("a")),
        [1, 2, 3, 0]
      )
      assert.strictEqual(memory.size, 0)
    })
  })
})
