/** The order of messages with a key. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpError, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpOutbox } from "@effect-amqp/sql"
import { Clock, Effect, Fiber, Latch, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { until } from "../../core/test/support/polling.ts"
import { shardOf } from "../src/internal/outbox/orderKey.ts"
import { databases } from "./support/databases.ts"
import {
  depth,
  drained,
  emptied,
  freshQueue,
  jumpingClock,
  range,
  setAside,
  startRelay,
  take,
  texts,
  unknownName,
  untilShards,
  waiting
} from "./support/outbox.ts"

/** The first arrival of each message: a repeat is recognized by its id. */
const firsts = (deliveries: ReadonlyArray<AmqpMessage.Delivery>) => {
  const seen = new Set<string | undefined>()
  return deliveries.filter(({ properties: { messageId } }) => !seen.has(messageId) && seen.add(messageId))
}

/** The numbers of each key, in the order of their arrival. */
const byKey = (deliveries: ReadonlyArray<AmqpMessage.Delivery>) => {
  const numbers = new Map<string, Array<number>>()
  for (const delivery of firsts(deliveries)) {
    const [key = "", number] = AmqpMessage.text(delivery).split(" ")
    numbers.set(key, [...(numbers.get(key) ?? []), Number(number)])
  }
  return numbers
}

const assertInOrder = (deliveries: ReadonlyArray<AmqpMessage.Delivery>, keys: ReadonlyArray<string>, each: number) => {
  const found = byKey(deliveries)
  for (const key of keys) assert.deepStrictEqual(found.get(key), range(each), key)
}

/** Everything that a queue has. */
const all = (queue: string) => Effect.flatMap(depth(queue), (count) => take(queue, count))

/** Keys of one shard. */
const ofOneShard = (count: number) => {
  const keys: Array<string> = []
  for (let n = 0; keys.length < count; n++) if (shardOf(`k${n}`) === 5) keys.push(`k${n}`)
  return keys
}

for (const [name, database] of databases) {
  layer(Layer.merge(TestBroker.layerAmqp(), database), { excludeTestServices: true, timeout: "3 minutes" })(
    name,
    (it) => {
      /** Takes the next number of a key and publishes it, in one transaction; the number is in the order of the commits. */
      const numbered = (queue: string, key: string) =>
        Effect.flatMap(SqlClient.SqlClient, (sql) =>
          sql.withTransaction(
            Effect.gen(function* () {
              const [row] = yield* sql<{ n: number }>`
                UPDATE numbers SET n = n + 1 WHERE key = ${key} RETURNING n - 1 AS n`
              yield* AmqpOutbox.publish({ routingKey: queue, content: `${key} ${row!.n}` }, { orderBy: key })
            })
          )
        )

      const numbersFor = Effect.fnUntraced(function* (keys: ReadonlyArray<string>) {
        const sql = yield* SqlClient.SqlClient
        yield* emptied
        yield* sql`DROP TABLE IF EXISTS numbers`
        yield* sql`CREATE TABLE numbers (key text PRIMARY KEY, n integer NOT NULL)`
        for (const key of keys) yield* sql`INSERT INTO numbers (key, n) VALUES (${key}, 0)`
      })

      describe("Messages of one key are published in the order of their commits:", () => {
        it.effect("20 transactions per key at the same time", () =>
          Effect.gen(function* () {
            const keys = range(5).map((n) => `key-${n}`)
            yield* numbersFor(keys)
            const queue = yield* freshQueue()
            yield* startRelay()
            yield* Effect.forEach(range(100), (n) => numbered(queue, keys[n % 5]!), { concurrency: 100, discard: true })
            yield* drained
            assertInOrder(yield* all(queue), keys, 20)
          })
        )

        it.effect("transactions that take no lock of their own", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const queue = yield* freshQueue()
            const committed: Array<string> = []
            yield* startRelay()
            yield* Effect.forEach(
              range(40).map(String),
              (content) =>
                sql.withTransaction(
                  Effect.gen(function* () {
                    yield* AmqpOutbox.publish({ routingKey: queue, content }, { orderBy: "key" })
                    // Until the transaction ends no other one is here.
                    committed.push(content)
                    yield* Effect.yieldNow
                  })
                ),
              { concurrency: 20, discard: true }
            )
            assert.deepStrictEqual(yield* texts(queue, 40), committed)
            yield* drained
          })
        )

        it.effect("many keys of one shard, more than a relay has in hand", () =>
          Effect.gen(function* () {
            const keys = ofOneShard(20)
            yield* emptied
            const queue = yield* freshQueue()
            yield* AmqpOutbox.publishAll(
              range(600).map((n) => ({ routingKey: queue, content: `${keys[n % 20]} ${Math.floor(n / 20)}` })),
              { orderBy: (message) => String(message.content).split(" ")[0] }
            )
            yield* startRelay({ maxInFlight: 50 })
            yield* drained
            assertInOrder(yield* all(queue), keys, 30)
          })
        )

        it.effect("one key with more messages than a relay has in hand, and others are not held up by it", () =>
          Effect.gen(function* () {
            yield* emptied
            const [queue, other] = [yield* freshQueue(), yield* freshQueue()]
            yield* AmqpOutbox.publishAll(
              range(150).map((n) => ({ routingKey: queue, content: `key ${n}` })),
              { orderBy: () => "key" }
            )
            yield* AmqpOutbox.publish({ routingKey: other, content: "other" })
            yield* startRelay({ maxInFlight: 40 })
            yield* take(other, 1)
            yield* drained
            assertInOrder(yield* all(queue), ["key"], 150)
          })
        )

        it.effect("across two relays of which one stops and starts", () =>
          Effect.gen(function* () {
            const keys = range(8).map((n) => `key-${n}`)
            yield* numbersFor(keys)
            const queue = yield* freshQueue()
            yield* startRelay({ lease: "1 second" })
            const writing = yield* Effect.forkChild(
              Effect.forEach(range(320), (n) => numbered(queue, keys[n % 8]!), { concurrency: 8, discard: true })
            )
            for (const _ of range(3)) {
              const stop = yield* startRelay({ lease: "1 second" })
              yield* untilShards(16, 16)
              yield* stop
            }
            yield* Fiber.join(writing)
            yield* drained
            assertInOrder(yield* all(queue), keys, 40)
          })
        )

        it.effect("while a full queue refuses one of them, and confirms it late", () =>
          Effect.gen(function* () {
            yield* emptied
            const [queue, other] = [yield* freshQueue(), yield* freshQueue()]
            const [key, neighbor] = ofOneShard(2) as [string, string]
            const { clock, jump } = yield* jumpingClock
            const publisher = yield* AmqpPublisher.AmqpPublisher
            const mayConfirm = Latch.makeUnsafe()
            let attempts = 0
            const publish: typeof publisher.publish = (message, options) =>
              Effect.suspend(() => {
                if (AmqpMessage.text({ content: message.content as Uint8Array }) !== "first") {
                  return publisher.publish(message, options)
                }
                return ++attempts === 1
                  ? Effect.fail(AmqpError.fromReason(new AmqpError.PublishNacked({ message: "The queue is full." })))
                  : Effect.andThen(mayConfirm.await, publisher.publish(message, options))
              })
            yield* startRelay({ retryDelay: "10 millis", lease: "5 minutes" }).pipe(
              Effect.provideService(AmqpPublisher.AmqpPublisher, { ...publisher, publish }),
              Effect.provideService(Clock.Clock, clock)
            )
            const write = (content: string) => AmqpOutbox.publish({ routingKey: queue, content }, { orderBy: key })
            const pass = Effect.andThen(
              AmqpOutbox.publish({ routingKey: other, content: "" }, { orderBy: neighbor }),
              take(other, 1)
            )
            yield* write("first")
            yield* until(
              Effect.sync(() => attempts),
              (count) => count === 2,
              "the second attempt"
            )
            yield* write("second")
            yield* pass
            jump(6000)
            yield* pass
            mayConfirm.openUnsafe()
            yield* until(waiting, (count) => count <= 1, "the removal of the first message")
            yield* write("third")
            assert.deepStrictEqual(yield* texts(queue, 3), ["first", "second", "third"])
          })
        )

        if (name === "PostgreSQL") {
          it.effect("after a transaction that was open for long", () =>
            Effect.gen(function* () {
              yield* emptied
              const sql = yield* SqlClient.SqlClient
              const [queue, other] = [yield* freshQueue(), yield* freshQueue()]
              const [key, neighbor] = ofOneShard(2) as [string, string]
              const { clock, jump } = yield* jumpingClock
              yield* Effect.provideService(startRelay({ lease: "5 minutes" }), Clock.Clock, clock)
              const write = (content: string) => AmqpOutbox.publish({ routingKey: queue, content }, { orderBy: key })
              const pass = Effect.andThen(
                AmqpOutbox.publish({ routingKey: other, content: "" }, { orderBy: neighbor }),
                take(other, 1)
              )
              const written = Latch.makeUnsafe()
              const mayCommit = Latch.makeUnsafe()
              const first = yield* Effect.forkChild(
                sql.withTransaction(
                  Effect.andThen(
                    write("first"),
                    Effect.suspend(() => {
                      written.openUnsafe()
                      return mayCommit.await
                    })
                  )
                )
              )
              yield* written.await
              yield* pass
              jump(2000)
              yield* pass
              jump(4000)
              yield* pass
              const second = yield* Effect.forkChild(write("second"))
              yield* until(
                sql`SELECT FROM pg_stat_activity WHERE wait_event = 'advisory'`,
                (found) => found.length === 1,
                "the second transaction"
              )
              mayCommit.openUnsafe()
              yield* Fiber.join(first)
              yield* Fiber.join(second)
              assert.deepStrictEqual(yield* texts(queue, 2), ["first", "second"])
            })
          )
        }
      })

      describe("A message that cannot be published", () => {
        it.effect("is set aside, and its key continues in order", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            const missing = unknownName()
            yield* AmqpOutbox.publishAll(
              range(40).map((n) => ({ routingKey: n % 10 === 3 ? missing : queue, content: `key ${n}` })),
              { orderBy: () => "key" }
            )
            yield* startRelay({ retryDelay: "10 millis", pollInterval: "50 millis", maxAttempts: 2 })
            yield* drained
            assert.deepStrictEqual(
              byKey(yield* all(queue)).get("key"),
              range(40).filter((n) => n % 10 !== 3)
            )
            const aside = yield* setAside(4)
            assert.deepStrictEqual(
              aside.map(({ message }) => AmqpMessage.text({ content: message.content as Uint8Array })),
              ["key 3", "key 13", "key 23", "key 33"]
            )
          })
        )

        it.effect("holds its key, also for a relay that has not postponed it and after it is due", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const [missing, other] = [unknownName(), yield* freshQueue()]
            const options = { pollInterval: "50 millis", whenExhausted: "hold", maxAttempts: 1 } as const
            const [key, neighbor] = ofOneShard(2) as [string, string]
            yield* AmqpOutbox.publish({ routingKey: missing, content: "first" }, { orderBy: key })
            const stop = yield* startRelay(options)
            yield* until(
              sql<{ attempts: number }>`SELECT attempts FROM amqp_outbox`,
              ([row]) => Number(row?.attempts) === 1,
              "the attempts"
            )
            yield* stop
            yield* startRelay(options)
            // Relays read from a position that was reached five seconds before, and everything every ten seconds.
            for (const _ of range(14)) {
              yield* AmqpOutbox.publish({ routingKey: other, content: "" }, { orderBy: neighbor })
              yield* take(other, 1)
              yield* Effect.sleep(500)
            }
            yield* freshQueue({}, missing)
            yield* sql.withTransaction(
              Effect.gen(function* () {
                yield* sql`UPDATE amqp_outbox SET due_at = created_at WHERE due_at IS NOT NULL`
                yield* AmqpOutbox.publish({ routingKey: missing, content: "second" }, { orderBy: key })
              })
            )
            assert.deepStrictEqual(yield* texts(missing, 2), ["first", "second"])
          })
        )
      })

      if (name === "PostgreSQL") {
        it.effect("publishAll takes the locks of its keys in one order, so that two transactions cannot deadlock", () =>
          Effect.gen(function* () {
            yield* emptied
            const keys = range(30).map((n) => `key-${n}`)
            const messages = keys.map((content) => ({ routingKey: "nowhere", content }))
            const write = (all: ReadonlyArray<AmqpMessage.Message>) =>
              AmqpOutbox.publishAll(all, { orderBy: ({ content }) => String(content) })
            yield* Effect.forEach(range(40), (n) => write(n % 2 === 0 ? messages : messages.toReversed()), {
              concurrency: 8,
              discard: true
            })
            yield* emptied
          })
        )
      }
    }
  )
}
