/** Relays: what is published, when, and by which of them. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConnection, AmqpError, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpOutbox } from "@effect-amqp/sql"
import { Clock, Context, Deferred, Effect, Exit, Fiber, Layer, Metric, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { logged } from "../../core/test/support/consumers.ts"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import { until } from "../../core/test/support/polling.ts"
import { arrayParameter } from "../src/internal/outbox/statements.ts"
import { committed } from "../src/internal/outbox/wakeups.ts"
import { statementsFor } from "../src/internal/outbox/writing.ts"
import { databases } from "./support/databases.ts"
import {
  depth,
  drained,
  emptied,
  freshQueue,
  gatedPublisher,
  range,
  setAside,
  shards,
  startRelay,
  take,
  texts,
  unknownName,
  untilShards,
  waiting
} from "./support/outbox.ts"

const quick = { retryDelay: "10 millis", pollInterval: "50 millis" } as const

/** Waits until the outbox has a message with as many refused attempts. */
const untilAttempts = (routingKey: string, attempts: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    until(
      sql<{ attempts: number }>`SELECT attempts FROM amqp_outbox WHERE routing_key = ${routingKey} ORDER BY position`,
      ([row]) => row !== undefined && Number(row.attempts) >= attempts,
      "the attempts",
      20
    )
  )

const hour = 3_600_000

/** The clock of a machine whose time of day differs from that of others. */
const shiftedClock = (millis: number) =>
  Effect.map(Clock.Clock, (clock) => {
    let shift = millis
    const now = () => clock.currentTimeMillisUnsafe() + shift
    const nanos = () => clock.currentTimeNanosUnsafe() + BigInt(shift) * 1_000_000n
    const shifted: Clock.Clock = Object.assign(Object.create(clock), {
      currentTimeMillisUnsafe: now,
      currentTimeMillis: Effect.sync(now),
      currentTimeNanosUnsafe: nanos,
      currentTimeNanos: Effect.sync(nanos)
    })
    return {
      clock: shifted,
      shift: (by: number) => {
        shift += by
      }
    }
  })

/** Runs while the table has another name. */
const without = <A, E, R>(table: string, use: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.acquireUseRelease(
      sql.unsafe(`ALTER TABLE ${table} RENAME TO gone`),
      () => use,
      () => Effect.orDie(sql.unsafe(`ALTER TABLE gone RENAME TO ${table}`))
    )
  )

/** The condition of a relay whose work on the database fails. */
const databaseFailed = Effect.map(AmqpConnection.conditions, (all) =>
  all.find(({ kind }) => kind === "OutboxDatabaseFailed")
)

const kinds = Effect.map(AmqpConnection.conditions, (all) => all.map(({ kind }) => kind))

for (const [name, database] of databases) {
  layer(Layer.merge(TestBroker.layerAmqp(), database), { excludeTestServices: true, timeout: "3 minutes" })(
    name,
    (it) => {
      describe("A message is published", () => {
        it.effect("after the commit and not before, at once, and also if later transactions commit first", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const queue = yield* freshQueue()
            yield* startRelay({ pollInterval: "1 minute" })
            yield* untilShards(32)
            const written = yield* Deferred.make<void>()
            const mayCommit = yield* Deferred.make<void>()
            const late = yield* Effect.forkChild(
              sql.withTransaction(
                AmqpOutbox.publish({ routingKey: queue, content: "late" }).pipe(
                  Effect.andThen(Deferred.succeed(written, undefined)),
                  Effect.andThen(Deferred.await(mayCommit))
                )
              )
            )
            yield* Deferred.await(written)
            // SQLite has one writer at a time.
            if (name === "PostgreSQL") {
              yield* AmqpOutbox.publish({ routingKey: queue, content: "early" })
              assert.deepStrictEqual(yield* texts(queue, 1), ["early"])
            }
            assert.strictEqual(yield* depth(queue), 0)
            yield* Deferred.succeed(mayCommit, undefined)
            yield* Fiber.join(late)
            assert.deepStrictEqual(yield* texts(queue, 1), ["late"])
            yield* drained
          })
        )

        it.effect("and removed after its confirm only", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            const { gate, startRelay } = yield* gatedPublisher
            gate.closeUnsafe()
            yield* startRelay()
            yield* AmqpOutbox.publish({ routingKey: queue, content: "one" })
            yield* take(queue, 1)
            assert.strictEqual(yield* waiting, 1)
            gate.openUnsafe()
            yield* drained
          })
        )

        it.effect("with at most maxInFlight at the same time", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            const { gate, seen, startRelay } = yield* gatedPublisher
            gate.closeUnsafe()
            yield* AmqpOutbox.publishAll(range(20).map((n) => ({ routingKey: queue, content: String(n) })))
            yield* startRelay({ maxInFlight: 5 })
            yield* take(queue, 5)
            gate.openUnsafe()
            yield* take(queue, 15)
            yield* drained
            assert.strictEqual(seen.most, 5)
            assert.strictEqual(seen.started, 20)
          })
        )

        it.effect("with contents and properties of a limited size at the same time", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const statements = yield* statementsFor
            yield* emptied
            const headers = { text: "x".repeat(100) }
            yield* AmqpOutbox.publishAll(
              range(5).map(() => ({ routingKey: "nowhere", content: new Uint8Array(100), headers }))
            )
            const [row] = yield* sql<{
              size: number
            }>`SELECT length(content) + length(properties) AS size FROM amqp_outbox`
            const size = Number(row!.size)
            assert.isAbove(size, 200)
            const array = (values: ReadonlyArray<number> | ReadonlyArray<string>) => arrayParameter(statements, values)
            const read = (bytes: number) => {
              const parameters = [
                array(range(32)),
                array(range(32).map(() => 0)),
                array([]),
                array([]),
                100,
                100,
                bytes
              ]
              return Effect.map(sql.unsafe(statements.read, parameters), ({ length }) => length)
            }
            assert.deepStrictEqual(yield* Effect.forEach([1, size, size + 1, 10_000], read), [1, 1, 2, 5])
          })
        )

        it.effect("also after more than 2^31 others", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const queue = yield* freshQueue()
            yield* AmqpOutbox.publish({ routingKey: queue, content: "first" })
            const next = 2 ** 31 - 20
            yield* name === "PostgreSQL"
              ? sql.unsafe(`ALTER TABLE amqp_outbox ALTER COLUMN position RESTART WITH ${next}`)
              : sql.unsafe(`UPDATE sqlite_sequence SET seq = ${next} WHERE name = 'amqp_outbox'`)
            yield* startRelay({ ...quick, keepPublished: "1 minute", maxAttempts: 2 })
            yield* AmqpOutbox.publishAll(
              range(40).map((n) => ({ routingKey: queue, content: String(n) })),
              { orderBy: () => "key" }
            )
            yield* AmqpOutbox.publishAll(range(40).map(() => ({ routingKey: unknownName(), content: "" })))
            yield* take(queue, 41)
            const positions = (yield* setAside(40)).map(({ position }) => position)
            assert.isAbove(Math.max(...positions), 2 ** 31)
            assert.strictEqual(yield* AmqpOutbox.restore([1, ...positions.slice(20)]), 20)
            assert.strictEqual(yield* AmqpOutbox.discard([1, ...positions.slice(0, 20)]), 20)
            yield* setAside(20)
            yield* drained
          })
        )

        it.effect("and recorded for the time of keepPublished", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const queue = yield* freshQueue()
            yield* startRelay({ keepPublished: "1 second", alarmAfter: "1 second" })
            const { messageId } = yield* AmqpOutbox.publish({ routingKey: queue, content: "one" })
            const records = sql<{ message_id: string; routing_key: string }>`
              SELECT message_id, routing_key FROM amqp_outbox_published`
            const [record] = yield* until(records, (all) => all.length > 0, "the record")
            assert.deepStrictEqual(record, { message_id: messageId, routing_key: queue })
            yield* until(records, (all) => all.length === 0, "the record")
          })
        )
      })

      describe("The gauges of an outbox", () => {
        /** The gauges of this outbox in the registry, by name. */
        const gauges = Effect.map(Effect.service(Metric.MetricRegistry), (registry) =>
          Object.fromEntries(
            [...registry.values()].flatMap(({ attributes, hooks, id, type }) =>
              type === "Gauge" && attributes?.["db.collection.name"] === "amqp_outbox"
                ? [[id, (hooks.get(Context.empty()) as { value: number }).value]]
                : []
            )
          )
        )
        const own = Effect.provideServiceEffect(
          Metric.MetricRegistry,
          Effect.sync(() => new Map())
        )

        it.effect("end with the relay, which reports them while it runs", () =>
          Effect.gen(function* () {
            yield* emptied
            yield* AmqpOutbox.publish({ routingKey: unknownName(), content: "" })
            const stop = yield* startRelay({ retryDelay: "1 minute", alarmAfter: "1 second" })
            const found = yield* until(gauges, (found) => "amqp.outbox.waiting" in found, "the gauges")
            assert.deepStrictEqual(Object.keys(found).sort(), [
              "amqp.outbox.oldest_age",
              "amqp.outbox.set_aside",
              "amqp.outbox.waiting"
            ])
            assert.strictEqual(found["amqp.outbox.waiting"], 1)
            yield* stop
            assert.deepStrictEqual(yield* gauges, {})
          }).pipe(own)
        )

        it.effect("of two relays in one process end with the last of them", () =>
          Effect.gen(function* () {
            yield* emptied
            yield* startRelay({ lease: "1 second", alarmAfter: "1 second" })
            yield* untilShards(32)
            yield* until(gauges, (found) => "amqp.outbox.waiting" in found, "the gauges")
            const stop = yield* startRelay({ lease: "1 second", alarmAfter: "1 second" })
            yield* untilShards(16, 16)
            yield* stop
            yield* until(gauges, (found) => "amqp.outbox.waiting" in found, "the gauges")
          }).pipe(own)
        )

        it.effect("are absent while the messages cannot be counted", () =>
          Effect.gen(function* () {
            yield* emptied
            yield* startRelay({ lease: "1 second", alarmAfter: "1 second" })
            yield* until(gauges, (found) => "amqp.outbox.waiting" in found, "the gauges")
            yield* without(
              "amqp_outbox_set_aside",
              until(gauges, (found) => Object.keys(found).length === 0, "the gauges")
            )
            yield* until(gauges, (found) => "amqp.outbox.waiting" in found, "the gauges", 20)
          }).pipe(own)
        )
      })

      describe("Health reports that the database has failed for long", () => {
        for (const { missing, part, text } of [
          {
            missing: "amqp_outbox",
            part: "read messages",
            text: /The table amqp_outbox does not exist.*AmqpSql\.migrate/
          },
          {
            missing: "amqp_outbox_shard",
            part: "renew its leases",
            text: /The table amqp_outbox_shard does not exist/
          },
          {
            missing: "amqp_outbox_set_aside",
            part: "count messages",
            text: /The table amqp_outbox_set_aside does not exist/
          },
          {
            missing: "amqp_outbox_published",
            part: "remove old records",
            text: /The table amqp_outbox_published does not exist/
          }
        ]) {
          it.effect(`with what, why, since when and what to do, while it cannot ${part}, and no longer`, () =>
            Effect.gen(function* () {
              yield* emptied
              const stop = yield* startRelay({ ...quick, alarmAfter: "1 second", keepPublished: "1 second" })
              yield* untilShards(32)
              yield* without(
                missing,
                Effect.gen(function* () {
                  const failed = yield* until(
                    databaseFailed,
                    (found) => found?.message.includes(part) === true,
                    "the condition",
                    20
                  )
                  assert.match(
                    failed!.message,
                    /^amqp_outbox: the relay has not been able to .+ since \d{4}-.+Z: .+\. Check that the database answers/
                  )
                  assert.match(failed!.message, text)
                  assert.isFalse(failed!.notReady)
                  assert.strictEqual((yield* kinds).filter((kind) => kind === "OutboxDatabaseFailed").length, 1)
                })
              )
              yield* until(databaseFailed, (found) => found === undefined, "the condition", 20)
              yield* stop
            })
          )
        }

        it.effect("and not after the relay's scope has closed", () =>
          Effect.gen(function* () {
            yield* emptied
            const stop = yield* startRelay({ ...quick, alarmAfter: "1 second" })
            yield* untilShards(32)
            yield* without(
              "amqp_outbox",
              Effect.gen(function* () {
                yield* until(databaseFailed, (found) => found !== undefined, "the condition", 20)
                yield* stop
                assert.strictEqual(yield* databaseFailed, undefined)
              })
            )
          })
        )

        it.effect("and not while the broker is away and the database answers again", () =>
          Effect.gen(function* () {
            yield* emptied
            const { url } = yield* TestBroker.TestBroker
            const { hostname, port } = new URL(url)
            const proxy = yield* FaultProxy.make({ host: hostname, port: Number(port) })
            yield* Effect.gen(function* () {
              yield* startRelay({ ...quick, alarmAfter: "1 second" })
              yield* untilShards(32)
              yield* without(
                "amqp_outbox",
                Effect.gen(function* () {
                  yield* until(databaseFailed, (found) => found !== undefined, "the condition", 20)
                  proxy.refuse()
                  proxy.rst()
                  const { state } = yield* AmqpConnection.AmqpConnection
                  yield* until(
                    Effect.sync(() => state.value._tag),
                    (tag) => tag !== "Open",
                    "the state"
                  )
                })
              )
              yield* until(databaseFailed, (found) => found === undefined, "the condition", 20)
            }).pipe(Effect.provide(Amqp.layer({ url: proxy.through(url) }), { local: true }))
          })
        )
      })

      describe("A message that cannot be published", () => {
        it.effect("is postponed, blocks no other one, and is published when a queue takes it", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            const missing = unknownName()
            yield* AmqpOutbox.publishAll(
              range(100).map((n) => ({ routingKey: n % 2 === 0 ? queue : missing, content: String(n) }))
            )
            yield* startRelay({ ...quick, maxAttempts: 1000 })
            yield* take(queue, 50)
            yield* untilAttempts(missing, 3)
            yield* freshQueue({}, missing)
            const late = yield* texts(missing, 50)
            assert.sameMembers(
              [...late],
              range(100)
                .filter((n) => n % 2 === 1)
                .map(String)
            )
            yield* drained
          })
        )

        it.effect("is set aside with its reason after maxAttempts, and can be restored and discarded", () =>
          Effect.gen(function* () {
            yield* emptied
            const missing = unknownName()
            const message = { routingKey: missing, content: "one", messageId: "1", headers: { a: 1n } }
            yield* AmqpOutbox.publish(message, { orderBy: "key" })
            yield* AmqpOutbox.publish({ ...message, messageId: "2" })
            yield* startRelay({ ...quick, maxAttempts: 3, alarmAfter: "1 second" })
            const all = yield* setAside(2)
            assert.strictEqual(yield* waiting, 0)
            const first = all.find(({ messageId }) => messageId === "1")!
            assert.strictEqual(first.attempts, 3)
            assert.strictEqual(first.orderBy, "key")
            assert.strictEqual(first.mandatory, true)
            assert.match(first.failure, /^PublishReturned: .*NO_ROUTE/)
            assert.strictEqual(AmqpMessage.text({ content: first.message.content as Uint8Array }), "one")
            assert.closeTo(first.setAsideAt.getTime(), Date.now(), 60_000)
            assert.isAtMost(first.createdAt.getTime(), first.setAsideAt.getTime())
            yield* until(kinds, (found) => found.includes("OutboxSetAside"), "the conditions")

            yield* freshQueue({}, missing)
            const positions = all.map(({ position }) => position)
            const second = all.find(({ messageId }) => messageId === "2")!
            assert.strictEqual(yield* AmqpOutbox.discard([second.position]), 1)
            // Two calls at the same time restore a message once.
            const restored = yield* Effect.all([AmqpOutbox.restore(positions), AmqpOutbox.restore(positions)], {
              concurrency: 2
            })
            assert.strictEqual(restored[0] + restored[1], 1)
            const [delivery] = yield* take(missing, 1)
            assert.strictEqual(delivery!.properties.messageId, "1")
            yield* drained
            assert.strictEqual(yield* depth(missing), 0)
            yield* until(kinds, (found) => !found.includes("OutboxSetAside"), "the conditions")
          })
        )

        it.effect('stays with "hold", and later messages of its key wait for it', () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const [queue, missing] = [yield* freshQueue(), unknownName()]
            yield* AmqpOutbox.publish({ routingKey: missing, content: "first" }, { orderBy: "a" })
            yield* AmqpOutbox.publish({ routingKey: queue, content: "second" }, { orderBy: "a" })
            yield* AmqpOutbox.publish({ routingKey: queue, content: "other" }, { orderBy: "b" })
            yield* startRelay({ ...quick, maxAttempts: 1, whenExhausted: "hold", alarmAfter: "1 second" })
            assert.deepStrictEqual(yield* texts(queue, 1), ["other"])
            yield* untilAttempts(missing, 1)
            yield* until(kinds, (found) => found.includes("OutboxBehind"), "the conditions")
            assert.strictEqual(yield* depth(queue), 0)
            assert.deepStrictEqual(yield* AmqpOutbox.listSetAside(), [])
            // It is tried again within a minute; here, a second later.
            yield* freshQueue({}, missing)
            yield* sql`UPDATE amqp_outbox SET due_at = created_at WHERE due_at IS NOT NULL`
            assert.deepStrictEqual(yield* texts(missing, 1), ["first"])
            assert.deepStrictEqual(yield* texts(queue, 1), ["second"])
            yield* until(kinds, (found) => !found.includes("OutboxBehind"), "the conditions")
          })
        )

        it.effect("because its exchange does not exist, disturbs no other one", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            const exchange = unknownName()
            yield* AmqpOutbox.publishAll(
              range(201).map((n) =>
                n === 100
                  ? { exchange, routingKey: queue, content: "" }
                  : { routingKey: queue, content: String(n), messageId: String(n) }
              )
            )
            yield* startRelay({ ...quick, maxAttempts: 2 })
            const [lost] = yield* setAside(1)
            assert.match(lost!.failure, /^NotFound: /)
            yield* drained
            // What was in flight on the channel that the broker has closed is published again.
            const all = yield* take(queue, yield* depth(queue))
            assert.strictEqual(new Set(all.map(({ properties }) => properties.messageId)).size, 200)
          })
        )

        it.effect(
          "because its exchange does not exist, leaves room for others, however many such messages there are",
          () =>
            Effect.gen(function* () {
              yield* emptied
              const queue = yield* freshQueue()
              const exchange = unknownName()
              yield* AmqpOutbox.publishAll(range(600).map((n) => ({ exchange, routingKey: "", content: String(n) })))
              yield* startRelay({ maxInFlight: 100, retryDelay: "10 millis", maxAttempts: 1000 })
              const refused = Effect.flatMap(
                SqlClient.SqlClient,
                (sql) => sql`SELECT 1 AS one FROM amqp_outbox WHERE attempts > 0`
              )
              yield* until(refused, ({ length }) => length >= 10, "refused messages", 20)
              yield* AmqpOutbox.publishAll(range(50).map((n) => ({ routingKey: queue, content: String(n) })))
              yield* take(queue, 50, 10)
              assert.isAtLeast(yield* waiting, 300)
              yield* AmqpChannel.use((channel) => channel.exchangeDeclare(exchange, "fanout"))
              yield* AmqpChannel.use((channel) => channel.queueBind(queue, exchange, ""))
              yield* drained
              // What was in flight on a channel that the broker has closed is published again.
              const all = yield* texts(queue, yield* depth(queue))
              assert.strictEqual(new Set(all).size, 600)
            }).pipe(Effect.scoped),
          60_000
        )

        it.effect(
          "because its exchange does not exist, leaves room for others, also if each has another exchange",
          () =>
            Effect.gen(function* () {
              yield* emptied
              const queue = yield* freshQueue()
              yield* AmqpOutbox.publishAll(
                range(300).map(() => ({ exchange: unknownName(), routingKey: "", content: "" }))
              )
              yield* startRelay({ maxAttempts: 1 })
              yield* setAside(1)
              yield* AmqpOutbox.publishAll(range(50).map((n) => ({ routingKey: queue, content: String(n) })))
              yield* take(queue, 50, 10)
              yield* setAside(300)
            })
        )

        it.effect("because no queue takes it, takes no other's turn: it is published again with the others", () =>
          Effect.gen(function* () {
            yield* emptied
            const missing = unknownName()
            const { seen, startRelay } = yield* gatedPublisher
            yield* AmqpOutbox.publishAll(range(20).map((n) => ({ routingKey: missing, content: String(n) })))
            yield* startRelay({ ...quick, maxAttempts: 3 })
            yield* setAside(20)
            assert.strictEqual(seen.started, 60)
          })
        )

        it.effect("because it is too large to be sent, takes no other's turn", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            const publisher = yield* AmqpPublisher.AmqpPublisher
            let published = 0
            const tooLarge = AmqpError.fromReason(new AmqpError.MessageTooLarge({ message: "Nothing was sent." }))
            const publish: typeof publisher.publish = (message, options) => {
              published++
              return AmqpMessage.text({ content: message.content as Uint8Array }) === "large"
                ? Effect.fail(tooLarge)
                : publisher.publish(message, options)
            }
            yield* Effect.provideService(startRelay(quick), AmqpPublisher.AmqpPublisher, { ...publisher, publish })
            yield* AmqpOutbox.publish({ routingKey: queue, content: "large" })
            yield* setAside(1)
            yield* AmqpOutbox.publishAll(range(10).map((n) => ({ routingKey: queue, content: String(n) })))
            yield* take(queue, 10)
            assert.strictEqual(published, 11)
          })
        )

        it.effect(
          "because the broker confirms nothing for its queue, leaves room for others, and keeps its order",
          () =>
            Effect.gen(function* () {
              yield* emptied
              const [silent, other] = [yield* freshQueue(), yield* freshQueue()]
              const publisher = yield* AmqpPublisher.AmqpPublisher
              let isSilent = true
              const timedOut = AmqpError.fromReason(
                new AmqpError.PublishTimeout({ message: "not confirmed", sent: true })
              )
              const publish: typeof publisher.publish = (message, options) =>
                isSilent && message.routingKey === silent
                  ? Effect.andThen(Effect.sleep(100), Effect.fail(timedOut))
                  : publisher.publish(message, options)
              yield* AmqpOutbox.publishAll(
                range(300).map((n) => ({ routingKey: silent, content: `k${n % 90} ${n}` })),
                { orderBy: ({ content }) => String(content).split(" ")[0] }
              )
              yield* Effect.provideService(
                startRelay({ maxInFlight: 30, retryDelay: "10 millis", pollInterval: "50 millis", maxAttempts: 1 }),
                AmqpPublisher.AmqpPublisher,
                { ...publisher, publish }
              )
              yield* AmqpOutbox.publish({ routingKey: other, content: "other" }, { orderBy: "k1" })
              yield* AmqpOutbox.publish({ routingKey: other, content: "other" })
              assert.deepStrictEqual(yield* texts(other, 1), ["other"])
              isSilent = false
              yield* drained
              const arrived = yield* texts(silent, 300)
              for (const key of range(90).map((n) => `k${n}`)) {
                const numbers = arrived
                  .filter((text) => text.startsWith(`${key} `))
                  .map((text) => Number(text.split(" ")[1]))
                assert.deepStrictEqual(
                  numbers,
                  numbers.toSorted((a, b) => a - b),
                  key
                )
              }
              assert.strictEqual((yield* AmqpOutbox.stats).setAside, 0)
            })
        )

        it.effect("because the broker confirms nothing for its queue, takes no more room with each attempt", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const { evaluate, vhost } = yield* TestBroker.TestBroker
            const publisher = yield* AmqpPublisher.AmqpPublisher
            const stuck = yield* freshQueue()
            const process = `{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"${vhost}">>, queue, <<"${stuck}">>)), Process = amqqueue:get_pid(Queue)`
            yield* evaluate(`${process}, sys:suspend(Process).`)
            const resume = evaluate(`${process}, sys:resume(Process).`)
            // A suspended queue would keep the connection from closing.
            yield* Effect.addFinalizer(() => Effect.orDie(resume))
            yield* AmqpOutbox.publishAll(range(5).map((n) => ({ routingKey: stuck, content: String(n) })))
            yield* startRelay({ publishTimeout: "1 second", retryDelay: "10 millis" })
            const due = Effect.map(sql<{ due: unknown }>`SELECT max(due_at) AS due FROM amqp_outbox`, ([row]) =>
              String(row?.due)
            )
            for (const _ of range(4)) {
              const before = yield* due
              yield* until(due, (now) => now !== before, "another attempt", 20)
            }
            assert.strictEqual((yield* publisher.stats).inFlight, 5)
            yield* resume
            yield* drained
            assert.strictEqual((yield* publisher.stats).inFlight, 0)
          })
        )

        it.effect(
          "because the broker confirms nothing, leaves the application free if the relay has its own connection",
          () =>
            Effect.gen(function* () {
              yield* emptied
              const { evaluate, url, vhost } = yield* TestBroker.TestBroker
              const [stuck, queue] = [yield* freshQueue(), yield* freshQueue()]
              const process = `{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"${vhost}">>, queue, <<"${stuck}">>)), Process = amqqueue:get_pid(Queue)`
              yield* evaluate(`${process}, sys:suspend(Process).`)
              const resume = evaluate(`${process}, sys:resume(Process).`)
              // More than a publisher has places, and than the broker takes for a queue before it stops reading a connection.
              yield* AmqpOutbox.publishAll(range(1500).map((n) => ({ routingKey: stuck, content: String(n) })))
              const relay = yield* Effect.acquireRelease(Scope.make(), (relay, exit) => Scope.close(relay, exit))
              const own = yield* Layer.buildWithScope(Layer.fresh(Amqp.layer({ url })), relay)
              yield* Effect.gen(function* () {
                // A suspended queue would keep the connection from closing.
                yield* Effect.addFinalizer(() => Effect.orDie(resume))
                yield* startRelay({ publishTimeout: "5 seconds" })
                const { stats } = yield* AmqpPublisher.AmqpPublisher
                yield* until(stats, ({ inFlight }) => inFlight === 1000, "the publisher of the relay")
              }).pipe(Scope.provide(relay), Effect.provide(own))
              yield* AmqpPublisher.publish({ routingKey: queue, content: "direct" }, { timeout: "5 seconds" })
              assert.deepStrictEqual(yield* texts(queue, 1), ["direct"])
              yield* resume
              yield* drained
            })
        )

        it.effect("is set aside also if another message was set aside with its position before", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            yield* startRelay({ ...quick, maxAttempts: 1 })
            yield* AmqpOutbox.publish({ routingKey: unknownName(), content: "first" })
            yield* setAside(1)
            // Tables that were made again, and a failover to a logical replica, begin with the first position again.
            yield* sql`UPDATE amqp_outbox_set_aside SET position = position + 1`
            yield* AmqpOutbox.publish({ routingKey: unknownName(), content: "second" })
            assert.deepStrictEqual(
              (yield* setAside(2)).map(({ message }) => String(Buffer.from(message.content as Uint8Array))),
              ["first", "second"]
            )
          })
        )

        if (name === "PostgreSQL") {
          it.effect("is one of many: they are postponed together, with the reason of each", () =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              yield* emptied
              yield* sql`CREATE SEQUENCE updates`
              yield* sql.unsafe(
                "CREATE FUNCTION count_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('updates'); RETURN NULL; END $$"
              )
              yield* sql`CREATE TRIGGER count_update AFTER UPDATE ON amqp_outbox EXECUTE FUNCTION count_update()`
              yield* Effect.addFinalizer(() => Effect.orDie(sql`DROP TRIGGER count_update ON amqp_outbox`))
              const missing = unknownName()
              yield* AmqpOutbox.publishAll(range(300).map((n) => ({ routingKey: `${missing}-${n}`, content: "" })))
              yield* startRelay({ retryDelay: "1 minute" })
              const rows = yield* until(
                sql<{ key: string; failure: string }>`
                  SELECT routing_key AS key, failure FROM amqp_outbox WHERE attempts = 1 AND due_at > clock_timestamp()
                `,
                ({ length }) => length === 300,
                "postponed messages",
                20
              )
              for (const { failure, key } of rows) assert.include(failure, `"${key}"`)
              const [updates] = yield* sql<{ count: number }>`SELECT last_value::integer AS count FROM updates`
              assert.isBelow(updates!.count, 150)
            })
          )
        }

        it.effect("is one of many: the log has the first ones in full, and the number of the others", () =>
          logged((lines) =>
            Effect.gen(function* () {
              yield* emptied
              const missing = unknownName()
              yield* AmqpOutbox.publishAll(range(40).map((n) => ({ routingKey: missing, content: String(n) })))
              yield* Effect.scoped(Effect.andThen(startRelay({ ...quick, maxAttempts: 1 }), setAside(40)))
              const texts = lines.map(({ text }) => text)
              const inFull = texts.filter((text) => text.startsWith("AMQP outbox message was set aside: "))
              const summaries = texts.filter((text) => text.startsWith("AMQP outbox message was set aside ("))
              const others = summaries.map((text) => Number(/\(PublishReturned\): (\d+) more of these/.exec(text)?.[1]))
              // A slow machine may take more than one interval.
              assert.isAtMost(inFull.length, 5 * (1 + summaries.length))
              assert.strictEqual(
                others.reduce((sum, n) => sum + n, inFull.length),
                40
              )
            })
          )
        )

        it.effect("and cannot be set aside either stays, and the log says why", () =>
          logged((lines) =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              yield* emptied
              yield* sql`ALTER TABLE amqp_outbox_set_aside RENAME TO elsewhere`
              yield* AmqpOutbox.publish({ routingKey: unknownName(), content: "refused" })
              yield* startRelay({ ...quick, maxAttempts: 1 })
              const failures = Effect.sync(() =>
                lines.filter(({ text }) => text.includes("cannot set aside a message"))
              )
              const [failure] = yield* until(failures, (found) => found.length > 0, "the log")
              yield* sql`ALTER TABLE elsewhere RENAME TO amqp_outbox_set_aside`
              assert.match(failure?.text ?? "", /NO_ROUTE[^]*amqp_outbox/)
              yield* setAside(1)
              assert.strictEqual((yield* failures).length, 1)
            })
          )
        )

        it.effect("because the database refuses its removal, is removed later, and the failure is logged once", () =>
          logged((lines) =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              yield* emptied
              const queue = yield* freshQueue()
              yield* sql.unsafe(
                name === "PostgreSQL"
                  ? "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$"
                  : "SELECT 1"
              )
              yield* sql.unsafe(
                name === "PostgreSQL"
                  ? "CREATE TRIGGER refuse BEFORE DELETE ON amqp_outbox EXECUTE FUNCTION refuse()"
                  : "CREATE TRIGGER refuse BEFORE DELETE ON amqp_outbox BEGIN SELECT RAISE(ABORT, 'not now'); END"
              )
              yield* startRelay({ maxInFlight: 1 })
              yield* AmqpOutbox.publish({ routingKey: queue, content: "one" })
              yield* take(queue, 1)
              const failures = Effect.sync(() => lines.filter(({ text }) => text.includes("remove published")))
              yield* until(failures, (found) => found.length > 0, "the log")
              yield* Effect.sleep(500)
              yield* sql.unsafe(`DROP TRIGGER refuse${name === "PostgreSQL" ? " ON amqp_outbox" : ""}`)
              yield* drained
              assert.strictEqual((yield* failures).length, 1)
              assert.strictEqual(yield* depth(queue), 0)
            })
          )
        )
      })

      describe("Relays", () => {
        it.effect("share the shards, and publish each message once", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            yield* startRelay({ lease: "1 second" })
            yield* startRelay({ lease: "1 second" })
            yield* untilShards(16, 16)
            yield* AmqpOutbox.publishAll(range(500).map((n) => ({ routingKey: queue, content: String(n) })))
            yield* drained
            assert.strictEqual(yield* depth(queue), 500)
          })
        )

        it.effect("agree on their leases with clocks two hours apart, and when a clock jumps", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const queue = yield* freshQueue()
            const ahead = yield* shiftedClock(hour)
            const behind = yield* shiftedClock(-hour)
            yield* Effect.provideService(startRelay({ lease: "1 second" }), Clock.Clock, ahead.clock)
            yield* Effect.provideService(startRelay({ lease: "1 second" }), Clock.Clock, behind.clock)
            yield* untilShards(16, 16)
            const owners = sql`SELECT shard, owner FROM amqp_outbox_shard ORDER BY shard`.withoutTransform
            const before = yield* owners
            ahead.shift(-3 * hour)
            behind.shift(3 * hour)
            // Several renewals of both.
            yield* Effect.sleep("1500 millis")
            assert.deepStrictEqual(yield* owners, before)
            yield* AmqpOutbox.publishAll(range(500).map((n) => ({ routingKey: queue, content: String(n) })))
            yield* drained
            assert.strictEqual(yield* depth(queue), 500)
          })
        )

        it.effect("add shards that are missing, such as in a schema that was loaded without its rows", () =>
          logged((lines) =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              yield* emptied
              const queue = yield* freshQueue()
              yield* sql`DELETE FROM amqp_outbox_shard WHERE shard <> 7`
              yield* AmqpOutbox.publishAll(range(100).map((n) => ({ routingKey: queue, content: String(n) })))
              yield* startRelay({ lease: "1 second" })
              yield* startRelay({ lease: "1 second" })
              yield* take(queue, 100)
              yield* untilShards(16, 16)
              assert.isTrue(
                lines.some(({ text }) => text.includes("expected 32 rows in the table amqp_outbox_shard, got 1"))
              )
            })
          )
        )

        it.effect("give their shards up at once when they stop", () =>
          Effect.gen(function* () {
            yield* emptied
            const stop = yield* startRelay({ lease: "2 seconds" })
            yield* startRelay({ lease: "2 seconds" })
            yield* untilShards(16, 16)
            yield* stop
            assert.strictEqual((yield* shards).length, 1)
            yield* untilShards(32)
          })
        )

        it.effect("take over from one that is gone without a word, after its lease", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const queue = yield* freshQueue()
            const later =
              name === "PostgreSQL"
                ? sql.literal("clock_timestamp() + interval '1 second'")
                : sql.literal("CAST(unixepoch('subsec') * 1000 AS INTEGER) + 1000")
            yield* sql`INSERT INTO amqp_outbox_relay (relay, alive_until) VALUES ('gone', ${later})`
            yield* sql`UPDATE amqp_outbox_shard SET owner = 'gone', leased_until = ${later}`
            yield* AmqpOutbox.publish({ routingKey: queue, content: "one" })
            yield* startRelay({ lease: "1 second" })
            assert.deepStrictEqual(yield* shards, [32])
            yield* take(queue, 1)
            yield* untilShards(32)
          })
        )

        it.effect("stop after the publishes under way, and leave nothing", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const { awaitCensus, census } = yield* TestBroker.TestBroker
            yield* emptied
            const queue = yield* freshQueue()
            const { gate, startRelay: startGated } = yield* gatedPublisher
            gate.closeUnsafe()
            const stop = yield* startGated({ maxInFlight: 1 })
            yield* AmqpOutbox.publish({ routingKey: queue, content: "one" })
            yield* take(queue, 1)
            yield* AmqpOutbox.publish({ routingKey: queue, content: "two" })
            const stopping = yield* Effect.forkChild(stop, { startImmediately: true })
            assert.isUndefined(stopping.pollUnsafe())
            gate.openUnsafe()
            yield* Fiber.join(stopping)
            assert.strictEqual(yield* waiting, 1)
            assert.deepStrictEqual(yield* shards, [])
            assert.deepStrictEqual(yield* sql`SELECT * FROM amqp_outbox_relay`, [])
            assert.isUndefined(committed(sql, "amqp_outbox"))
            const { channels } = yield* census
            for (const _ of range(3)) yield* yield* startRelay()
            yield* awaitCensus({ channels, connections: 1, consumers: 0, unacked: 0 })
          })
        )

        it.effect("stop in time if a publish does not end, and another relay publishes its message again", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            const { gate, startRelay: startGated } = yield* gatedPublisher
            gate.closeUnsafe()
            const stop = yield* startGated()
            const { messageId } = yield* AmqpOutbox.publish({ routingKey: queue, content: "one" })
            yield* take(queue, 1)
            const startedAt = performance.now()
            yield* stop
            assert.isBelow(performance.now() - startedAt, 9000)
            assert.deepStrictEqual(yield* shards, [])
            yield* startRelay()
            const [again] = yield* take(queue, 1)
            assert.strictEqual(again!.properties.messageId, messageId)
          })
        )

        it.effect("that stop while they claim their shards keep none", () =>
          Effect.gen(function* () {
            for (const n of range(10)) {
              const stop = yield* startRelay()
              yield* Effect.sleep(n)
              yield* stop
              assert.deepStrictEqual(yield* shards, [])
            }
          })
        )
      })

      it.effect("Options out of bounds are mistakes in the program", () =>
        Effect.gen(function* () {
          const wrong: ReadonlyArray<unknown> = [
            { maxInFlight: 0 },
            { lease: "1 millis" },
            { pollInterval: "2 minutes" },
            { whenExhausted: "drop" },
            { poll: 1 }
          ]
          for (const options of wrong) {
            const exit = yield* Effect.exit(startRelay(options as AmqpOutbox.RelayOptions))
            assert.isTrue(Exit.hasDies(exit), JSON.stringify(options))
          }
        })
      )
    }
  )
}
