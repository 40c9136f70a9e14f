/** Dead letters with headers that no consumer and no broker has written, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpDeadLetters, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Redacted } from "effect"
import { declareQueue, next, onBroker, untilQueue } from "./support/consumers.ts"
import { hostileHeaders } from "./support/hostileLetters.ts"

const secret = Redacted.make("0123456789abcdef")

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("Whatever the headers of dead letters are,", () => {
    for (const queueType of ["classic", "quorum"] as const) {
      it.effect(`they are read, redriven and removed, and one ends no operation (${queueType})`, () =>
        Effect.gen(function* () {
          const dead = yield* declareQueue({ queueType })
          const target = yield* declareQueue()
          const all = hostileHeaders
          for (const headers of all) yield* AmqpPublisher.publish({ routingKey: dead, content: "letter", headers })
          for (const options of [{}, { secret }]) {
            const letters = AmqpDeadLetters.of(dead, options)
            const page = yield* letters.peek({ limit: 10_000 })
            assert.deepStrictEqual([page.scanned, page.letters.length, page.unreadable], [all.length, all.length, 0])
            assert.isTrue(page.letters.every(({ reason }) => !reason.verified))
            const dry = yield* letters.redrive({ dryRun: true })
            assert.include(dry, { scanned: all.length, redriven: "secret" in options ? 0 : dry.redriven })
            const report = yield* letters.redrive()
            assert.include(report, {
              scanned: all.length,
              redriven: 0,
              left: all.length,
              failed: all.length,
              duplicates: 0
            })
            assert.include(yield* letters.discard({ where: ({ reason }) => reason.verified }), { discarded: 0 })
          }
          const report = yield* AmqpDeadLetters.of(dead, { secret }).redrive({ to: target })
          assert.include(report, { redriven: all.length, left: 0, failed: 0, duplicates: 0 })
          yield* untilQueue(target, { ready: all.length })
          yield* untilQueue(dead, { messages: 0 })
          assert.include(yield* AmqpDeadLetters.of(target).discard({ all: true }), { discarded: all.length })
        }).pipe(onBroker)
      )
    }

    it.effect("a trace id is one of W3C Trace Context, or there is none", () =>
      Effect.gen(function* () {
        const dead = yield* declareQueue()
        const id = "0af7651916cd43dd8448eb211c80319c"
        const parents = [
          `00-${id}-b7ad6b7169203331-01`,
          `00-${id}-`,
          `00-${"0".repeat(32)}-b7ad6b7169203331-01`,
          `ff-${id}-b7ad6b7169203331-01`
        ]
        for (const traceparent of parents)
          yield* AmqpPublisher.publish({ routingKey: dead, content: "", headers: { traceparent } })
        const { letters } = yield* AmqpDeadLetters.of(dead).peek()
        assert.deepStrictEqual(
          letters.map(({ reason }) => reason.traceId),
          [id, undefined, undefined, undefined]
        )
      }).pipe(onBroker)
    )

    it.effect("a letter that names its dead-letter queue as its origin stays, and says why", () =>
      Effect.gen(function* () {
        const dead = yield* declareQueue()
        yield* AmqpPublisher.publish({ routingKey: dead, content: "", headers: { "x-death": [{ queue: dead }] } })
        const { failures, ...report } = yield* AmqpDeadLetters.of(dead).redrive()
        assert.include(report, { redriven: 0, failed: 1, left: 1 })
        assert.include(failures[0]!.message, "this dead-letter queue itself")
        assert.strictEqual((yield* next(dead)).routingKey, dead)
      }).pipe(onBroker)
    )
  })
})
