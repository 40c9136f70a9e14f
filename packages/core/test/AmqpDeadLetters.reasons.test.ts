/** The reasons that consumers write into dead letters, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import {
  type AmqpChannel,
  AmqpConsumer,
  AmqpDeadLetters,
  type AmqpMessage,
  AmqpPool,
  AmqpPublisher
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Redacted, Schema } from "effect"
import { hostname } from "node:os"
import { declareWithDeadLetters, logged, next, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import * as Users from "./support/users.ts"

class CardRefused extends Schema.TaggedError<CardRefused>()("CardRefused", { message: Schema.String }) {}

const refuse = (message = "no money") => Effect.fail(new CardRefused({ message }))

const headersOf = ({ properties }: { readonly properties: AmqpMessage.Properties }) =>
  ({ ...properties.headers }) as Record<string, unknown>

/** Waits for one dead letter and reads it. */
const deadLetter = (queue: string, options?: AmqpDeadLetters.Options) =>
  Effect.gen(function* () {
    yield* untilQueue(queue, { ready: 1 })
    const { letters } = yield* AmqpDeadLetters.of(queue, options).peek()
    return letters[0]!
  })

const consume = <E>(
  queue: string,
  handler: (delivery: AmqpConsumer.Delivery) => Effect.Effect<void, E>,
  options?: AmqpConsumer.ConsumeOptions<E>
) =>
  Effect.forkScoped(AmqpConsumer.consume(queue, handler, { onFailure: AmqpConsumer.deadLetter, ...options } as object))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A message that a policy dead-letters says why.", () => {
    for (const queueType of ["classic", "quorum"] as const) {
      it.effect(`with everything that is known, from a ${queueType} queue`, () =>
        Effect.gen(function* () {
          const { deadLetters, queue } = yield* declareWithDeadLetters({ queueType })
          yield* consume(queue, () => refuse("no money at https://me:s3cret@bank/pay, password=hunter2"), {
            name: "payments"
          })
          const before = Date.now()
          yield* AmqpPublisher.publish({ routingKey: queue, content: "pay", messageId: "1", headers: { mine: 1 } })
          const letter = yield* deadLetter(deadLetters)
          const { firstAt, lastAt, ...reason } = letter.reason
          assert.deepStrictEqual(reason, {
            kind: "failed",
            error: "CardRefused",
            message: "no money at https://<redacted>@bank/pay, password=<redacted>",
            attempt: 1,
            consumer: "payments",
            host: hostname(),
            traceId: undefined,
            verified: false
          })
          assert.deepStrictEqual(firstAt, lastAt)
          assert.isAtLeast(lastAt!.getTime(), before)
          assert.isAtMost(lastAt!.getTime(), Date.now())
          assert.deepStrictEqual(letter.origin, { queue, offset: undefined, exchange: "", routingKey: queue })
          assert.strictEqual(letter.id, "1")
          const headers = headersOf(letter)
          assert.strictEqual(headers["mine"], 1)
          assert.strictEqual(headers["x-failed-version"], 1)
          // Whatever reads `x-death` sees what the broker would have written.
          const [death] = headers["x-death"] as ReadonlyArray<Record<string, unknown>>
          assert.instanceOf(death!["time"], Date)
          assert.deepStrictEqual(
            { ...death, time: 0 },
            { count: 1, reason: "rejected", queue, exchange: "", "routing-keys": [queue], time: 0 }
          )
          assert.strictEqual(headers["x-first-death-queue"], queue)
        }).pipe(onBroker)
      )
    }

    it.effect("after its retries, with their number and the time of the first failure", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        yield* consume(queue, () => refuse(), { onFailure: AmqpConsumer.retry({ delay: 50, times: 2 }) })
        yield* send(queue, "pay")
        const { reason } = yield* deadLetter(deadLetters)
        assert.include(reason, { error: "CardRefused", attempt: 3 })
        assert.isAtLeast(reason.lastAt!.getTime() - reason.firstAt!.getTime(), 90)
      }).pipe(onBroker)
    )

    it.effect("after redeliveries that maxDeliveries ends", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        yield* consume(queue, () => refuse(), { onFailure: AmqpConsumer.redeliver, maxDeliveries: 1 })
        yield* send(queue, "pay")
        const { reason } = yield* deadLetter(deadLetters)
        assert.include(reason, { error: "MaxDeliveries", attempt: 2 })
        assert.isAtLeast(reason.lastAt!.getTime() - reason.firstAt!.getTime(), 900)
      }).pipe(onBroker)
    )

    it.effect("if it cannot be decoded, or its handler dies", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(queue, () => Effect.die(new RangeError("too large")), {
            schema: Schema.Struct({ amount: Schema.Number }),
            onDecodeFailure: AmqpConsumer.deadLetter,
            onDefect: AmqpConsumer.deadLetter
          })
        )
        yield* send(queue, "not JSON", '{"amount": 1}')
        yield* untilQueue(deadLetters, { ready: 2 })
        const { letters } = yield* AmqpDeadLetters.of(deadLetters).peek()
        assert.deepStrictEqual(
          letters.map(({ reason }) => reason.error),
          ["DecodeFailed", "RangeError"]
        )
      }).pipe(onBroker)
    )

    it.effect("and is verified only with the signature of a secret that the reader has", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const secret = Redacted.make("0123456789abcdef")
        yield* consume(queue, () => refuse(), { retrySecret: secret })
        yield* send(queue, "pay")
        const signed = yield* deadLetter(deadLetters, { secret })
        assert.isTrue(signed.reason.verified)
        assert.strictEqual(signed.origin?.queue, queue)
        assert.isFalse((yield* deadLetter(deadLetters)).reason.verified)
        const other = yield* deadLetter(deadLetters, { secret: Redacted.make("fedcba9876543210") })
        assert.isFalse(other.reason.verified)
        // A forger changes the origin of a signed message.
        yield* next(deadLetters)
        yield* AmqpPublisher.publish({
          routingKey: deadLetters,
          content: signed.content,
          headers: { ...signed.properties.headers, "x-failed-queue": "victims", "x-death": [] }
        })
        const forged = yield* deadLetter(deadLetters, { secret })
        assert.isFalse(forged.reason.verified)
        assert.isUndefined(forged.origin)
        const report = yield* AmqpDeadLetters.of(deadLetters, { secret }).redrive()
        assert.include(report, { redriven: 0, failed: 1, left: 1 })
        // The broker keeps an x-death that a client has written.
        yield* next(deadLetters)
        const death = { queue: "victims", reason: "rejected", count: 1, exchange: "", "routing-keys": ["victims"] }
        yield* AmqpPublisher.publish({ routingKey: deadLetters, content: "pay", headers: { "x-death": [death] } })
        assert.isUndefined((yield* deadLetter(deadLetters, { secret })).origin)
        assert.strictEqual((yield* deadLetter(deadLetters)).origin?.queue, "victims")
      }).pipe(onBroker)
    )
  })

  describe("A message that cannot be published with its reason is dead-lettered by the broker, and the log says so", () => {
    const rejected = (
      declare: ReturnType<typeof declareWithDeadLetters>,
      options?: AmqpConsumer.ConsumeOptions<CardRefused>,
      headers?: Record<string, string>
    ) =>
      logged((lines) =>
        Effect.gen(function* () {
          const { deadLetters, queue } = yield* declare
          yield* consume(queue, () => refuse(), options)
          yield* AmqpPublisher.publish({ routingKey: queue, content: "pay", ...(headers && { headers }) })
          const { reason } = yield* deadLetter(deadLetters)
          assert.strictEqual(reason.kind, "rejected")
          return lines.map(({ text }) => text)
        })
      )

    it.effect("if this application has not declared the queue", () =>
      Effect.gen(function* () {
        // Another application declares the queues.
        const queues = yield* onBroker(declareWithDeadLetters())
        const lines = yield* onBroker(rejected(Effect.succeed(queues)))
        assert.isTrue(lines.some((line) => line.includes("its dead-letter exchange is not known")))
      })
    )

    it.effect("unless its exchange is given", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* onBroker(declareWithDeadLetters())
        yield* onBroker(
          Effect.gen(function* () {
            yield* consume(queue, () => refuse(), { deadLettering: { exchange: "", routingKey: deadLetters } })
            yield* send(queue, "pay")
            assert.strictEqual((yield* deadLetter(deadLetters)).reason.error, "CardRefused")
          })
        )
      })
    )

    it.effect("if that is chosen, silently", () =>
      Effect.gen(function* () {
        const lines = yield* rejected(declareWithDeadLetters(), { deadLettering: "reject" })
        assert.isFalse(lines.some((line) => line.includes("reason")))
      }).pipe(onBroker)
    )

    it.effect("if the user may not write to the exchange", () =>
      Effect.gen(function* () {
        const { vhost, url } = yield* TestBroker.TestBroker
        const { deadLetters, queue } = yield* onBroker(declareWithDeadLetters())
        const user = yield* Users.make("s3cret")
        // Everything but publishing by the default exchange.
        yield* user.permit(".*", "queue-.*", ".*")
        const address = new URL(url)
        address.username = user.name
        address.password = "s3cret"
        const lines = yield* logged((lines) =>
          withConsumers(address.href)(
            Effect.gen(function* () {
              yield* consume(queue, () => refuse(), { deadLettering: { exchange: "", routingKey: deadLetters } })
              yield* onBroker(send(queue, "pay"))
              yield* untilQueue(deadLetters, { ready: 1 })
            })
          ).pipe(Effect.as(lines))
        )
        void [vhost, lines]
        const { reason } = yield* onBroker(deadLetter(deadLetters))
        assert.strictEqual(reason.kind, "rejected")
      })
    )
  })

  it.effect("large headers leave out the message of the error first", () =>
    Effect.gen(function* () {
      const { deadLetters, queue } = yield* declareWithDeadLetters()
      yield* consume(queue, () => refuse("x".repeat(1000)))
      for (const size of [129_600, 130_560]) {
        yield* AmqpPublisher.publish({ routingKey: queue, content: "", headers: { large: "x".repeat(size) } })
        const { origin, reason } = yield* deadLetter(deadLetters)
        assert.strictEqual(origin?.queue, queue)
        assert.isUndefined(reason.message)
        assert.strictEqual(reason.error, size === 129_600 ? "CardRefused" : undefined)
        yield* next(deadLetters)
      }
    }).pipe(onBroker)
  )

  it.effect("attempts count in a topology that brings dead letters back through a queue with a time to live", () =>
    Effect.gen(function* () {
      const pool = yield* AmqpPool.AmqpPool
      const name = "circle"
      yield* pool.use((channel: AmqpChannel.AmqpChannel) =>
        Effect.gen(function* () {
          yield* channel.queueDeclare(name, { deadLetterExchange: "", deadLetterRoutingKey: `${name}.wait` })
          yield* channel.queueDeclare(`${name}.wait`, {
            messageTtl: 20,
            deadLetterExchange: "",
            deadLetterRoutingKey: name
          })
        })
      )
      const attempts: Array<number> = []
      const done = yield* Deferred.make<void>()
      yield* consume(name, ({ attempt }) => {
        attempts.push(attempt)
        return attempt < 4 ? refuse() : Deferred.succeed(done, undefined).pipe(Effect.asVoid)
      })
      yield* send(name, "pay")
      yield* Effect.timeout(Deferred.await(done), "10 seconds")
      assert.deepStrictEqual(attempts, [1, 2, 3, 4])
    }).pipe(onBroker)
  )
})
