/** Reading, redriving and discarding dead letters, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpDeadLetters, type AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Stream } from "effect"
import { declareQueue, next, onBroker, untilQueue } from "./support/consumers.ts"

type Headers = NonNullable<AmqpMessage.Properties["headers"]>

/** Publishes dead letters: message `i` of queue `from`, with the headers of a consumer that failed. */
const fill = (queue: string, from: string, count: number, headers: (i: number) => Headers = () => ({})) =>
  AmqpPublisher.publishAll(
    Stream.map(Stream.range(1, count), (i) => ({
      routingKey: queue,
      content: `letter ${i}`,
      messageId: `${i}`,
      headers: {
        "x-failed-version": 1,
        "x-failed-queue": from,
        "x-failed-exchange": "shop",
        "x-failed-routing-key": "created",
        "x-failed-error": i % 2 === 0 ? "Even" : "Odd",
        "x-failed-reason": `it was ${i}`,
        "x-failed-attempt": 3,
        "x-failed-last-at": new Date(1_700_000_000_000 + i * 1000).toISOString(),
        ...headers(i)
      }
    }))
  ).pipe(Stream.runDrain)

/** The message ids of a queue in order; the queue is empty afterwards. */
const idsOf = (queue: string, count: number) =>
  Effect.forEach(Array.from({ length: count }), () => Effect.map(next(queue), ({ properties }) => properties.messageId))

const range = (from: number, to: number, step = 1) =>
  Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => String(from + i * step))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  for (const queueType of ["classic", "quorum"] as const) {
    describe(`A ${queueType} queue`, () => {
      const queues = Effect.suspend(() => Effect.all({ work: declareQueue(), dead: declareQueue({ queueType }) }))

      it.effect("has letters with an empty message id, which are chosen one by one", () =>
        Effect.gen(function* () {
          const { dead } = yield* queues
          for (const content of ["one", "two"])
            yield* AmqpPublisher.publish({ routingKey: dead, content, messageId: "" })
          const letters = AmqpDeadLetters.of(dead)
          const [one, two] = (yield* letters.peek()).letters
          assert.match(one!.id, /^sha256:/)
          assert.notStrictEqual(one!.id, two!.id)
          assert.include(yield* letters.discard({ ids: [one!.id] }), { discarded: 1 })
          assert.deepStrictEqual(
            (yield* letters.peek()).letters.map(({ id }) => id),
            [two!.id]
          )
        }).pipe(onBroker)
      )

      it.effect("is peeked without a change of its messages or their order, grouped by error and origin", () =>
        Effect.gen(function* () {
          const { dead, work } = yield* queues
          yield* fill(dead, work, 50)
          const letters = AmqpDeadLetters.of(dead)
          for (let i = 0; i < 3; i++) {
            const page = yield* letters.peek({ limit: 20, maxContent: 6 })
            assert.strictEqual(page.total, 50)
            assert.strictEqual(page.scanned, 20)
            assert.deepStrictEqual(
              page.letters.map(({ id }) => id),
              range(1, 20)
            )
            const [first] = page.letters
            assert.deepStrictEqual(first!.origin, {
              queue: work,
              offset: undefined,
              exchange: "shop",
              routingKey: "created"
            })
            assert.strictEqual(Buffer.from(first!.content).toString(), "letter")
            assert.strictEqual(first!.size, 8)
            assert.include(first!.reason, { kind: "failed", error: "Odd", message: "it was 1", attempt: 3 })
            assert.isFalse(first!.reason.verified)
            assert.deepStrictEqual(
              page.groups.map(({ count, error, origin }) => [error, origin, count]),
              [
                ["Odd", work, 10],
                ["Even", work, 10]
              ]
            )
            assert.deepStrictEqual(page.groups[0]!.lastAt, new Date(1_700_000_019_000))
          }
          yield* untilQueue(dead, { messages: 50, unacked: 0 })
          assert.deepStrictEqual(yield* idsOf(dead, 50), range(1, 50))
        }).pipe(onBroker)
      )

      it.effect("is redriven: what is chosen is back in order, without the past, and the rest stays in order", () =>
        Effect.gen(function* () {
          const { dead, work } = yield* queues
          yield* fill(dead, work, 500, () => ({ "x-retry-count": 3, mine: "kept" }))
          const report = yield* AmqpDeadLetters.of(dead).redrive({ where: ({ reason }) => reason.error === "Even" })
          assert.deepStrictEqual(report, {
            total: 500,
            scanned: 500,
            redriven: 250,
            discarded: 0,
            left: 250,
            duplicates: 0,
            failed: 0,
            dryRun: false,
            unreadable: 0,
            failures: []
          })
          const { properties } = yield* next(work)
          assert.deepStrictEqual({ ...properties.headers, "x-redriven-run": "" }, {
            mine: "kept",
            "x-redriven": 1,
            "x-redriven-run": ""
          } as object)
          assert.deepStrictEqual(yield* idsOf(work, 249), range(4, 500, 2))
          assert.deepStrictEqual(yield* idsOf(dead, 250), range(1, 500, 2))
        }).pipe(onBroker)
      )

      it.effect("is discarded by ids, and a dry run changes nothing", () =>
        Effect.gen(function* () {
          const { dead, work } = yield* queues
          yield* fill(dead, work, 100)
          const letters = AmqpDeadLetters.of(dead)
          const ids = range(10, 19)
          const dry = yield* letters.discard({ ids, dryRun: true })
          assert.include(dry, { scanned: 100, discarded: 10, left: 90, dryRun: true })
          yield* untilQueue(dead, { messages: 100, unacked: 0 })
          assert.include(yield* letters.redrive({ dryRun: true }), { redriven: 100, dryRun: true })
          assert.include(yield* letters.discard({ ids }), { discarded: 10, left: 90, dryRun: false })
          assert.deepStrictEqual(yield* idsOf(dead, 90), [...range(1, 9), ...range(20, 100)])
        }).pipe(onBroker)
      )
    })
  }
})
