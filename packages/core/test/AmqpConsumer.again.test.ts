/**
 * A retry that cannot be published ends as the policy says, and a retry that cannot be published for now does not delay
 * other messages.
 */
import { assert, layer } from "@effect/vitest"
import { type AmqpChannel, AmqpConnection, AmqpConsumer, AmqpMessage, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Layer } from "effect"
import { configOf } from "./support/amqp.ts"
import {
  declareQueue,
  declareWithDeadLetters,
  logged,
  onBroker,
  untilQueue,
  withConsumers
} from "./support/consumers.ts"
import { longText, rawProperties, rawPublish, rawTable } from "./support/rawMessages.ts"
import * as Users from "./support/users.ts"
import { limitBodies } from "./support/versions.ts"

const large = (bytes: number) => rawProperties(0x2000, rawTable(["large", longText("x".repeat(bytes))]))

/** Size of the headers of a message that has no other header than the large one, without that header's text. */
const besides = 4 + 1 + 5 + 5
/** The space for headers in a frame of 128 KiB. */
const room = 131_072 - 8 - 14 - 1

/** Runs with a publisher of these options. */
const withPublisher =
  (options: AmqpPublisher.Options) =>
  <A, E, R>(program: Effect.Effect<A, E, R>) =>
    Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
      program.pipe(
        Effect.scoped,
        Effect.provide(
          AmqpConsumer.layer.pipe(
            Layer.provideMerge(AmqpPublisher.layerWith(options)),
            Layer.provideMerge(AmqpPool.layer),
            Layer.provideMerge(AmqpConnection.layer(configOf(url)))
          ),
          { local: true }
        )
      )
    )

/** Consumes with a handler that fails this many times and records each attempt, until the message is handled. */
const attemptsOf = Effect.fnUntraced(function* (queue: string, failures: number, error: unknown = "no") {
  const attempts: Array<number> = []
  const handled = yield* Deferred.make<AmqpConsumer.Delivery>()
  yield* Effect.forkScoped(
    AmqpConsumer.consume(
      queue,
      (delivery): Effect.Effect<unknown, unknown> => {
        attempts.push(delivery.attempt)
        return attempts.length <= failures ? Effect.fail(error) : Deferred.succeed(handled, delivery)
      },
      { onFailure: AmqpConsumer.retry({ delay: 1, times: 5 }) }
    )
  )
  return { attempts, handled: Effect.timeout(Deferred.await(handled), "20 seconds") }
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("a content above the publisher's own limit is retried, on a broker that accepts it", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const queue = yield* declareQueue()
      const body = Buffer.alloc(200_000, "x")
      yield* rawPublish(url, { routingKey: queue, properties: rawProperties(0), body })
      const { attempts, handled } = yield* attemptsOf(queue, 2)
      assert.isTrue(body.equals((yield* handled).content))
      assert.deepStrictEqual(attempts, [1, 2, 3])
      yield* untilQueue(queue, { ready: 0, unacked: 0 })
    }).pipe(withPublisher({ maxMessageSize: 1000 }))
  )

  it.effect(
    "a content that the broker no longer accepts ends as the policy says, and no other publish is of unknown outcome",
    () =>
      logged((lines) =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const { deadLetters, queue } = yield* declareWithDeadLetters()
          yield* rawPublish(url, { routingKey: queue, properties: rawProperties(0), body: Buffer.alloc(200_000) })
          yield* limitBodies(100_000)
          const { attempts } = yield* attemptsOf(queue, 1)
          yield* untilQueue(deadLetters, { ready: 1 })
          for (let i = 0; i < 100; i++) yield* AmqpPublisher.publish({ routingKey: deadLetters, content: "x" })
          assert.deepStrictEqual(attempts, [1])
          const line = lines.find(({ text }) => text.startsWith("AMQP delivery given up: its retry was refused"))
          assert.strictEqual(line?.level, "Error")
          assert.include(line?.text, "100000")
          assert.strictEqual((yield* (yield* AmqpPublisher.AmqpPublisher).stats).unknown, 0)
        }).pipe(withPublisher({ maxMessageSize: 1000 }))
      )
  )

  it.effect("headers that leave no room for the count of a retry end as the policy says, at once", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const { deadLetters, queue } = yield* declareWithDeadLetters()
      yield* rawPublish(url, { routingKey: queue, properties: large(room - besides - 2) })
      const { attempts } = yield* attemptsOf(queue, 1)
      yield* untilQueue(deadLetters, { ready: 1 })
      assert.deepStrictEqual(attempts, [1])
    }).pipe(onBroker)
  )

  it.effect(
    "what a retry adds is left out where it does not fit: the error first, then where the message was first published",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const queue = yield* declareQueue()
        const added = ["queue", "count", "deliveries", "first-at", "exchange", "routing-key", "error", "reason"]
        for (const [free, fitting] of [
          [2000, added],
          [500, added.slice(0, 6)],
          [150, added.slice(0, 4)]
        ] as const) {
          yield* Effect.gen(function* () {
            yield* rawPublish(url, { routingKey: queue, properties: large(room - besides - free) })
            const { attempts, handled } = yield* attemptsOf(queue, 1, new Error("x".repeat(1000)))
            const { properties } = yield* handled
            const found = Object.keys(properties.headers).filter((name) => name.startsWith("x-retry-"))
            assert.sameMembers(
              found,
              fitting.map((name) => `x-retry-${name}`)
            )
            assert.deepStrictEqual(attempts, [1, 2])
          }).pipe(Effect.scoped)
        }
      }).pipe(onBroker)
  )

  const poison = 300
  const good = 1000

  /** Handles good messages behind others that always fail, which are published once the consumer is subscribed. */
  const mixed = Effect.fnUntraced(function* (
    queue: string,
    options: AmqpConsumer.ConsumeOptions<unknown>,
    beforePublishing: Effect.Effect<unknown, TestBroker.TestBrokerError> = Effect.void
  ) {
    const { url } = yield* TestBroker.TestBroker
    const seen = new Set<string>()
    let failures = 0
    const done = yield* Deferred.make<void>()
    yield* Effect.forkScoped(
      AmqpConsumer.consume(
        queue,
        (delivery): Effect.Effect<unknown, string> => {
          const text = AmqpMessage.text(delivery)
          if (text === "poison") {
            failures++
            return Effect.fail(text)
          }
          seen.add(text)
          return seen.size === good ? Deferred.succeed(done, undefined) : Effect.void
        },
        { concurrency: 4, ...options }
      )
    )
    yield* untilQueue(queue, { consumers: 1 })
    yield* beforePublishing
    const message = (text: string) => ({ routingKey: queue, properties: rawProperties(0), body: Buffer.from(text) })
    yield* rawPublish(
      url,
      ...Array.from({ length: poison }, () => message("poison")),
      ...Array.from({ length: good }, (_, i) => message(`good ${i}`))
    )
    yield* Deferred.await(done).pipe(
      Effect.timeoutOrElse({
        duration: "25 seconds",
        orElse: () => Effect.die(new Error(`${seen.size} good ones were handled`))
      })
    )
    return () => failures
  })

  it.effect("300 retries without permission end as the policy says, and 1,000 others are handled", () =>
    Effect.gen(function* () {
      const { deadLetters, queue } = yield* declareWithDeadLetters()
      const { url } = yield* TestBroker.TestBroker
      const user = yield* Users.make("secret")
      const own = new URL(url)
      own.username = user.name
      own.password = "secret"
      yield* Effect.gen(function* () {
        const failures = yield* mixed(
          queue,
          { onFailure: AmqpConsumer.retry({ delay: "1 second", times: 5 }), maxDeliveries: 3 },
          user.permit(".*", "^(?!amq.default$).*$", ".*")
        )
        yield* untilQueue(deadLetters, { ready: poison })
        // Some retries may have been under way when the broker closed the channel because of another one.
        assert.isBelow(failures(), 2 * poison)
      }).pipe((program) => withConsumers(own.href)(program))
      yield* untilQueue(queue, { ready: 0, unacked: 0 })
    }).pipe(onBroker)
  )

  it.effect("300 retries that the broker accepts later are paced, and 1,000 others are handled in the meantime", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const full: AmqpChannel.QueueDeclareOptions = { maxLength: 0, overflow: "reject-publish" }
      yield* declareQueue(full, `${queue}.delay.1000`)
      const startedAt = performance.now()
      // Half of the prefetch is for pauses.
      const failures = yield* mixed(queue, {
        prefetch: 3 * poison,
        onFailure: AmqpConsumer.retry({ delay: "1 second", times: 5 })
      })
      const seconds = (performance.now() - startedAt) / 1000
      // No message was retried in a busy loop.
      assert.isBelow(failures(), poison * (2 + seconds))
    }).pipe(onBroker)
  )

  it.effect("a retry that was refused is published again when the refusal has ended", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const delay = yield* declareQueue({ maxLength: 0, overflow: "reject-publish" }, `${queue}.delay.1`)
      yield* AmqpPublisher.publish({ routingKey: queue, content: "a" })
      const { attempts, handled } = yield* attemptsOf(queue, 2)
      yield* Effect.sleep(Duration.millis(300))
      const pool = yield* AmqpPool.AmqpPool
      yield* pool.use((channel) => channel.queueDelete(delay))
      yield* handled
      assert.isAtLeast(attempts.length, 3)
      assert.isAtMost(attempts.length, 4)
    }).pipe(onBroker)
  )
})
