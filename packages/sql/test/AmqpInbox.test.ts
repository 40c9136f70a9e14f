import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConnection, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpInbox, AmqpOutbox, AmqpSql } from "@effect-amqp/sql"
import {
  Data,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Metric,
  Queue,
  Redacted,
  References,
  Scope,
  Tracer
} from "effect"
import { SqlClient, SqlError } from "effect/sql"
import { TestClock } from "effect/testing"
import { declareQueue, declareWithDeadLetters, nextText, untilQueue } from "../../core/test/support/consumers.ts"
import { count } from "../../core/test/support/metrics.ts"
import { until } from "../../core/test/support/polling.ts"
import { start } from "../../core/test/support/publisher.ts"
import { collecting } from "../../core/test/support/spans.ts"
import { keepRemoving, removeOld } from "../src/internal/inbox/retention.ts"
import { storedText } from "../src/internal/inbox/keys.ts"
import { statementsFor } from "../src/internal/inbox/statements.ts"
import { databases } from "./support/databases.ts"
import { program } from "./support/program.ts"
import * as TestDatabase from "./support/TestDatabase.ts"

class Refused extends Data.TaggedError("Refused")<{ readonly cause?: unknown }> {}

const idOf = ({ properties }: AmqpConsumer.Delivery) => properties.messageId ?? "none"

const publish = (queue: string, ...ids: ReadonlyArray<string>) =>
  Effect.forEach(
    ids,
    (messageId) => AmqpPublisher.publish({ routingKey: queue, messageId, content: messageId }, { mandatory: true }),
    { discard: true }
  )

const publishWithoutId = (queue: string, content: string) =>
  AmqpPublisher.publish({ routingKey: queue, content }, { mandatory: true })

/** The effect of a message, which a handler inserts into a table without any constraint. */
const insertEffect = (queue: string, id: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO effects (queue, id) VALUES (${queue}, ${id})`)

const effectsOf = (queue: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql<{ id: string }>`SELECT id FROM effects WHERE queue = ${queue} ORDER BY id`, (rows) =>
      rows.map(({ id }) => id)
    )
  )

const recordsOf = (consumer: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(sql<{ key: string }>`SELECT key FROM amqp_inbox WHERE consumer = ${consumer} ORDER BY key`, (rows) =>
      rows.map(({ key }) => key)
    )
  )

/** A time two days ago. */
const longAgo = (sql: SqlClient.SqlClient) =>
  sql.onDialectOrElse({
    pg: () => sql`now() - interval '2 days'`,
    orElse: () => sql`CAST(unixepoch('subsec') * 1000 AS INTEGER) - 172800000`
  })

const settled = (queue: string) => untilQueue(queue, { ready: 0, unacked: 0 })

const outcomes = Effect.all({
  handled: count(AmqpInbox.deliveries, { "amqp.outcome": "handled" }),
  repeated: count(AmqpInbox.deliveries, { "amqp.outcome": "repeated" }),
  withoutKey: count(AmqpInbox.deliveries, { "amqp.outcome": "without_key" }),
  retried: count(AmqpInbox.deliveries, { "amqp.outcome": "retried" })
})

/** A test with metrics of its own, and without a log: most tests are about failures. */
const quiet = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.scoped(effect).pipe(
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.provideService(References.MinimumLogLevel, "None")
  )

const serializationFailure = new SqlError.SqlError({
  reason: new SqlError.SerializationError({ cause: new Error("could not serialize access"), message: "40001" })
})

/** The table of the effects, on top of a database with the tables of the inbox. */
const withEffects = <R, E>(database: Layer.Layer<R | SqlClient.SqlClient, E>) =>
  Layer.effectDiscard(
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql`CREATE TABLE effects (queue text NOT NULL, id text NOT NULL)`)
  ).pipe(Layer.provideMerge(database))

type Equals<X, Y> = (<T>() => T extends X ? 1 : 2) extends <T>() => T extends Y ? 1 : 2 ? true : false
const is = <_ extends true>() => {}

describe("Its type", () => {
  plain("says which errors onFailure gets, and that it needs the database", () => {
    const handler = () => Effect.fail(new Refused({}))
    const strict = AmqpConsumer.consume("q", handler, {
      inbox: AmqpInbox.sql(),
      onFailure: (error) => {
        is<Equals<typeof error, Refused | SqlError.SqlError | AmqpInbox.InboxKeyMissing>>()
        return AmqpConsumer.redeliver
      }
    })
    is<Equals<Effect.Services<typeof strict>, SqlClient.SqlClient | AmqpConsumer.AmqpConsumer>>()
    const lenient = AmqpConsumer.layerConsume("q", handler, {
      inbox: AmqpInbox.sql({ onMissingKey: "handle" }),
      onFailure: (error) => {
        is<Equals<typeof error, Refused | SqlError.SqlError>>()
        return AmqpConsumer.redeliver
      }
    })
    is<Equals<Layer.Services<typeof lenient>, SqlClient.SqlClient | AmqpConsumer.AmqpConsumer>>()
  })

  plain("options that are out of bounds are refused at once", () => {
    const refused: ReadonlyArray<readonly [options: object, message: string]> = [
      [{ retention: "1 second" }, "retention: expected a duration from 1m to"],
      [{ retention: "years" }, "retention: expected a duration"],
      [{ copyTimeout: 0 }, "copyTimeout: expected a duration from 10ms"],
      [{ retryTimeout: "2 hours" }, "retryTimeout: expected a duration"],
      [{ isolation: "read uncommitted" }, 'isolation: expected "read committed" or'],
      [{ onMissingKey: "ignore" }, 'onMissingKey: expected "fail" or "handle", got "ignore"'],
      [{ key: "messageId" }, "key: expected a function"],
      [
        { keys: () => "" },
        'expected only key, onMissingKey, isolation, copyTimeout, retryTimeout, retention, got "keys"'
      ]
    ]
    for (const [options, message] of refused) {
      assert.throws(() => AmqpInbox.sql(options as never), message)
    }
    AmqpInbox.sql({ retention: "1 minute", retryTimeout: 0, copyTimeout: "1 hour", isolation: "serializable" })
  })
})

describe("A stored key", () => {
  plain("is the key itself up to 255 bytes, and otherwise a hash that equals no other key", () => {
    const longest = "é".repeat(127)
    assert.strictEqual(storedText(longest), longest)
    const unusual = ["é".repeat(128), "a".repeat(256), "a\0b", "a\0c", "\ud800", "\ud801", `sha256:${"0".repeat(64)}`]
    const stored = unusual.map(storedText)
    for (const text of stored) assert.match(text, /^sha256:[0-9a-f]{64}$/)
    assert.strictEqual(new Set([...stored, ...unusual]).size, unusual.length * 2)
    assert.strictEqual(
      storedText("a".repeat(256)),
      "sha256:02d7160d77e18c6447be80c2e355c7ed4388545271702c50253b0914c65ce5fe"
    )
  })
})

for (const [name, database] of databases) {
  const services = Layer.merge(TestBroker.layerAmqp(), Layer.orDie(withEffects(database)))
  layer(services, { excludeTestServices: true, timeout: "3 minutes" })(name, (it) => {
    it.effect("a message is handled once, and its repeats are acknowledged, counted and marked in their spans", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const collected = collecting()
        const handler = (delivery: AmqpConsumer.Delivery) => insertEffect(queue, idOf(delivery))
        yield* start(
          AmqpConsumer.consume(queue, handler, { inbox: AmqpInbox.sql() }).pipe(
            Effect.provideService(Tracer.Tracer, collected.tracer)
          )
        )
        yield* publish(queue, "1", "2", "1", "1")
        yield* settled(queue)
        assert.deepStrictEqual(yield* effectsOf(queue), ["1", "2"])
        assert.deepStrictEqual(yield* outcomes, { handled: 2, repeated: 2, withoutKey: 0, retried: 0 })
        const spans = yield* collected.ended(`process ${queue}`, 4)
        assert.deepStrictEqual(
          spans.map(({ attributes }) => attributes.get("amqp.inbox.repeat")),
          [undefined, undefined, true, true]
        )
      }).pipe(quiet)
    )

    it.effect("200 messages, three times each, to two consumers with a concurrency of 10: each has one effect", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const handler = (delivery: AmqpConsumer.Delivery) => insertEffect(queue, idOf(delivery))
        const consume = AmqpConsumer.consume(queue, handler, { inbox: AmqpInbox.sql(), concurrency: 10 })
        yield* start(consume)
        yield* start(consume)
        const ids = Array.from({ length: 200 }, (_, i) => String(i).padStart(3, "0"))
        yield* Effect.forEach([...ids, ...ids, ...ids].sort(), (id) => publish(queue, id), {
          concurrency: 20,
          discard: true
        })
        yield* until(outcomes, ({ handled, repeated }) => handled + repeated === 600, "the outcomes", 25)
        assert.deepStrictEqual(yield* effectsOf(queue), ids)
        assert.deepStrictEqual(yield* recordsOf(queue), ids)
      }).pipe(quiet)
    )

    it.effect(
      "a failure rolls back the record, the changes and what was published, and the next attempt has its effect",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const sql = yield* SqlClient.SqlClient
          const { waiting } = yield* AmqpOutbox.stats
          const committed: Array<number> = []
          const seen: Array<unknown> = []
          const handler = (delivery: AmqpConsumer.Delivery) =>
            Effect.gen(function* () {
              yield* insertEffect(queue, `${idOf(delivery)} ${delivery.attempt}`)
              yield* AmqpOutbox.publish({ routingKey: "nowhere", content: "published" })
              yield* sql.afterCommit(Effect.sync(() => void committed.push(delivery.attempt)))
              if (delivery.attempt === 1) return yield* new Refused({})
              if (delivery.attempt === 2) return yield* Effect.die("defect")
            })
          yield* start(
            AmqpConsumer.consume(queue, handler, {
              inbox: AmqpInbox.sql(),
              onFailure: (error) => {
                seen.push(error)
                return AmqpConsumer.requeue
              },
              onDefect: (defect) => {
                seen.push(defect)
                return AmqpConsumer.requeue
              }
            })
          )
          yield* publish(queue, "1")
          yield* settled(queue)
          assert.deepStrictEqual(yield* effectsOf(queue), ["1 3"])
          assert.deepStrictEqual(yield* recordsOf(queue), ["1"])
          assert.strictEqual((yield* AmqpOutbox.stats).waiting, waiting + 1)
          assert.deepStrictEqual(committed, [3])
          assert.deepStrictEqual(seen, [new Refused({}), "defect"])
          assert.deepStrictEqual(yield* outcomes, { handled: 1, repeated: 0, withoutKey: 0, retried: 0 })
        }).pipe(quiet)
    )

    it.effect("what a finalizer of the handler writes is part of the transaction", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const handler = (delivery: AmqpConsumer.Delivery) =>
          Effect.gen(function* () {
            yield* Effect.addFinalizer(() => Effect.orDie(insertEffect(queue, `closed ${delivery.attempt}`)))
            if (delivery.attempt === 1) return yield* new Refused({})
          })
        yield* start(AmqpConsumer.consume(queue, handler, { inbox: AmqpInbox.sql(), onFailure: AmqpConsumer.requeue }))
        yield* publish(queue, "1")
        yield* settled(queue)
        assert.deepStrictEqual(yield* effectsOf(queue), ["closed 2"])
      }).pipe(quiet)
    )

    it.effect(
      "a handler that is interrupted at shutdown leaves nothing, and its message is handled by the next consumer",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const started = yield* Deferred.make<void>()
          const inserted = (delivery: AmqpConsumer.Delivery) => insertEffect(queue, idOf(delivery))
          const handler = (delivery: AmqpConsumer.Delivery) =>
            inserted(delivery).pipe(Effect.andThen(Deferred.succeed(started, undefined)), Effect.andThen(Effect.never))
          const fiber = yield* start(
            AmqpConsumer.consume(queue, handler, { inbox: AmqpInbox.sql(), shutdownTimeout: 0 })
          )
          yield* publish(queue, "1")
          yield* Deferred.await(started)
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(yield* effectsOf(queue), [])
          assert.deepStrictEqual(yield* recordsOf(queue), [])
          yield* start(AmqpConsumer.consume(queue, inserted, { inbox: AmqpInbox.sql() }))
          yield* until(effectsOf(queue), (effects) => effects.length > 0, "the effects")
          yield* settled(queue)
          assert.deepStrictEqual(yield* effectsOf(queue), ["1"])
        }).pipe(quiet)
    )

    it.effect("a message without a key fails without its handler, and onFailure may dead-letter it", () =>
      Effect.gen(function* () {
        const { deadLetters, queue } = yield* declareWithDeadLetters()
        const seen: Array<AmqpInbox.InboxKeyMissing> = []
        yield* start(
          AmqpConsumer.consume(queue, () => insertEffect(queue, "effect"), {
            inbox: AmqpInbox.sql(),
            name: "payments",
            onFailure: (error) => {
              if (error._tag !== "InboxKeyMissing") return AmqpConsumer.redeliver
              seen.push(error)
              return AmqpConsumer.deadLetter
            }
          })
        )
        yield* publishWithoutId(queue, "no id")
        assert.strictEqual(yield* nextText(deadLetters), "no id")
        const [error] = seen
        assert.deepStrictEqual([error?.queue, error?.consumer], [queue, "payments"])
        assert.include(error?.message, 'by default its messageId, got none. Consumer "payments"')
        assert.deepStrictEqual(yield* effectsOf(queue), [])
        assert.deepStrictEqual(yield* outcomes, { handled: 0, repeated: 0, withoutKey: 1, retried: 0 })
      }).pipe(quiet)
    )

    it.effect('with onMissingKey: "handle" it is handled in a transaction, as often as it comes', () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const handler = (delivery: AmqpConsumer.Delivery) =>
          Effect.andThen(
            insertEffect(queue, `effect ${delivery.attempt}`),
            delivery.attempt === 1 ? Effect.fail(new Refused({})) : Effect.void
          )
        yield* start(
          AmqpConsumer.consume(queue, handler, {
            inbox: AmqpInbox.sql({ key: () => "", onMissingKey: "handle" }),
            onFailure: AmqpConsumer.requeue
          })
        )
        yield* publishWithoutId(queue, "no id")
        yield* publish(queue, "1")
        yield* settled(queue)
        assert.deepStrictEqual(yield* effectsOf(queue), ["effect 2", "effect 2"])
        assert.deepStrictEqual(yield* outcomes, { handled: 0, repeated: 0, withoutKey: 2, retried: 0 })
      }).pipe(quiet)
    )

    it.effect("keys are compared exactly, whatever they contain, and per consumer", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const contents = ["a\0b", "a\0c", "k".repeat(4000), `${"k".repeat(3999)}l`, "a ", "a", "A", "ä", "\ud800"]
        const key = ({ content }: AmqpConsumer.Delivery) => JSON.parse(new TextDecoder().decode(content)) as string
        const handler = (delivery: AmqpConsumer.Delivery) =>
          insertEffect(queue, String(contents.indexOf(key(delivery))))
        const consume = (name: string) => AmqpConsumer.consume(queue, handler, { inbox: AmqpInbox.sql({ key }), name })
        for (const name of ["one", "two", "n\0".repeat(200)]) {
          const before = (yield* outcomes).handled
          const fiber = yield* start(consume(name))
          for (const content of [...contents, ...contents]) yield* publishWithoutId(queue, JSON.stringify(content))
          yield* settled(queue)
          assert.strictEqual((yield* outcomes).handled - before, contents.length)
          yield* Fiber.interrupt(fiber)
        }
      }).pipe(quiet)
    )

    it.effect("a key that is no text, or that cannot be computed, is a defect of its delivery", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const seen: Array<string> = []
        const key = (delivery: AmqpConsumer.Delivery) => {
          if (delivery.attempt === 1) throw new Error("no key")
          return delivery.attempt === 2 ? (7 as never) : "7"
        }
        yield* start(
          AmqpConsumer.consume(queue, () => insertEffect(queue, "effect"), {
            inbox: AmqpInbox.sql({ key }),
            onDefect: (defect) => {
              seen.push(String(defect))
              return AmqpConsumer.requeue
            }
          })
        )
        yield* publish(queue, "1")
        yield* settled(queue)
        assert.deepStrictEqual(seen, [
          "Error: no key",
          "Error: AmqpInbox.sql: key: expected a text or undefined, got number"
        ])
        assert.deepStrictEqual(yield* recordsOf(queue), ["7"])
      }).pipe(quiet)
    )

    it.effect(
      "a serialization failure runs the handler again, also as a cause or a defect, and counts as no failure",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const sql = yield* SqlClient.SqlClient
          const committed: Array<number> = []
          const attempts: Array<number> = []
          let runs = 0
          const handler = (delivery: AmqpConsumer.Delivery) =>
            Effect.gen(function* () {
              const run = ++runs
              attempts.push(delivery.attempt)
              yield* insertEffect(queue, String(run))
              yield* sql.afterCommit(Effect.sync(() => void committed.push(run)))
              if (run === 1) return yield* serializationFailure
              if (run === 2) return yield* new Refused({ cause: new Error("wrapped", { cause: serializationFailure }) })
              if (run === 3) return yield* Effect.die(serializationFailure)
            })
          yield* start(AmqpConsumer.consume(queue, handler, { inbox: AmqpInbox.sql() }))
          yield* publish(queue, "1")
          yield* until(outcomes, ({ handled }) => handled === 1, "the outcomes")
          assert.deepStrictEqual(yield* effectsOf(queue), ["4"])
          assert.deepStrictEqual(committed, [4])
          assert.deepStrictEqual(attempts, [1, 1, 1, 1])
          assert.deepStrictEqual(yield* outcomes, { handled: 1, repeated: 0, withoutKey: 0, retried: 3 })
        }).pipe(quiet)
    )

    it.effect("after retryTimeout it is a failure of the handler", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const failed = yield* Deferred.make<unknown>()
        yield* start(
          AmqpConsumer.consume(queue, () => Effect.fail(serializationFailure), {
            inbox: AmqpInbox.sql({ retryTimeout: "100 millis" }),
            onFailure: (error) => {
              Deferred.doneUnsafe(failed, Effect.succeed(error))
              return AmqpConsumer.redeliver
            }
          })
        )
        yield* publish(queue, "1")
        assert.strictEqual(yield* Deferred.await(failed), serializationFailure)
        assert.isAbove((yield* outcomes).retried, 0)
      }).pipe(quiet)
    )

    it.effect("a handler that waits for its next try ends with its consumer", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const fiber = yield* start(
          AmqpConsumer.consume(queue, () => Effect.fail(serializationFailure), {
            inbox: AmqpInbox.sql({ retryTimeout: "1 hour" }),
            shutdownTimeout: 0
          })
        )
        yield* publish(queue, "1")
        yield* until(outcomes, ({ retried }) => retried > 3, "the outcomes")
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* nextText(queue), "1")
      }).pipe(quiet)
    )

    it.effect("records that are older than the retention are removed in batches, those of others stay", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const insert = (consumer: string, key: string) =>
          sql`INSERT INTO amqp_inbox (consumer, key, handled_at) VALUES (${consumer}, ${key}, ${longAgo(sql)})`
        yield* sql.withTransaction(
          Effect.gen(function* () {
            for (let i = 0; i < 2100; i++) yield* insert("aged", `old ${i}`)
            yield* insert("other", "old")
            yield* sql`INSERT INTO amqp_inbox (consumer, key) VALUES ('aged', 'new')`
          })
        )
        const statements = yield* statementsFor
        const day = 24 * 60 * 60 * 1000
        const remove = (retentionMillis: number) => removeOld({ sql, statements, consumer: "aged", retentionMillis })
        yield* remove(3 * day)
        assert.lengthOf(yield* recordsOf("aged"), 2101)
        yield* remove(day)
        assert.deepStrictEqual(yield* recordsOf("aged"), ["new"])
        assert.deepStrictEqual(yield* recordsOf("other"), ["old"])
      }).pipe(quiet)
    )

    it.effect("a consumer removes old records within a minute of its start, and every few minutes after that", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const statements = yield* statementsFor
        const insert = sql`INSERT INTO amqp_inbox (consumer, key, handled_at) VALUES ('timed', 'old', ${longAgo(sql)})`
        const removed = until(recordsOf("timed"), (keys) => keys.length === 0, "the records")
        yield* insert
        yield* start(keepRemoving({ sql, statements, consumer: "timed", retentionMillis: 60_000 }))
        yield* TestClock.adjust("1 minute")
        yield* removed
        yield* insert
        yield* TestClock.adjust("8 minutes")
        yield* removed
      }).pipe(Effect.provide(TestClock.layer()), quiet)
    )

    it.effect("health reports that old records could not be removed twice in succession, until they are removed", () =>
      Effect.gen(function* () {
        const statements = yield* statementsFor
        const conditions = Effect.map(AmqpConnection.conditions, (all) =>
          all.filter(({ kind }) => kind === "InboxCleanupFailed")
        )
        const rounds = { begun: 0, failing: true }
        const refused = new SqlError.SqlError({
          reason: new SqlError.AuthorizationError({ cause: new Error("permission denied"), message: "not deleted" })
        })
        const withoutTransform = Effect.suspend(() => {
          rounds.begun++
          return rounds.failing ? Effect.fail(refused) : Effect.succeed([])
        })
        const sql = { unsafe: () => ({ withoutTransform }) } as unknown as SqlClient.SqlClient
        const nextRound = Effect.suspend(() => {
          const before = rounds.begun
          return TestClock.adjust("1 minute").pipe(Effect.repeat({ while: () => rounds.begun === before }))
        })
        const scope = yield* Scope.make()
        yield* keepRemoving({ sql, statements, consumer: "kept", retentionMillis: 60_000 }).pipe(
          Scope.provide(scope),
          Effect.forkIn(scope)
        )
        yield* nextRound
        assert.deepStrictEqual(yield* conditions, [])
        yield* nextRound
        const [failed] = yield* conditions
        assert.match(failed!.message, /^amqp_inbox: .* consumer "kept" .*: not deleted: permission denied\. Check/)
        assert.isFalse(failed!.notReady)
        rounds.failing = false
        yield* nextRound
        assert.deepStrictEqual(yield* conditions, [])
        rounds.failing = true
        yield* Effect.andThen(nextRound, nextRound)
        assert.lengthOf(yield* conditions, 1)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* conditions, [])
      }).pipe(Effect.provide(TestClock.layer()), quiet)
    )

    it.effect(
      "a consumer whose table does not exist, or that starts inside of a transaction, ends before it subscribes",
      () =>
        Effect.gen(function* () {
          const queue = yield* declareQueue()
          const sql = yield* SqlClient.SqlClient
          const consume = Effect.flip(AmqpConsumer.consume(queue, () => Effect.void, { inbox: AmqpInbox.sql() }))
          const missing = yield* Effect.provideService(consume, AmqpSql.TablePrefix, "absent_")
          assert.strictEqual(missing.reason._tag, "InvalidArgument")
          assert.include(missing.message, "AmqpInbox.sql: table: expected the table absent_inbox, got none.")
          assert.include(missing.message, "Create it with AmqpSql.migrate")
          const inside = yield* sql.withTransaction(consume)
          assert.include(inside.message, "expected a consumer that starts outside of transactions")
        }).pipe(quiet)
    )
  })
}

const onPostgres = TestDatabase.layer({
  exclusive: true,
  client: { maxConnections: 5 },
  // A commit with `synchronous_commit = on` waits forever for a replica that does not exist; others do not wait.
  settings: { synchronous_standby_names: "none", synchronous_commit: "local", deadlock_timeout: "200ms" }
})

const postgres = Layer.merge(
  TestBroker.layerAmqp(),
  Layer.orDie(withEffects(AmqpSql.layerMigrate.pipe(Layer.provideMerge(onPostgres))))
)

/** Waits until a number of transactions wait for locks, or for a replica. */
const untilWaiting = (event: string, many = 1) =>
  Effect.flatMap(TestDatabase.TestDatabase, ({ psql }) =>
    until(
      psql(`SELECT pid FROM pg_stat_activity WHERE wait_event = '${event}'`),
      (pids) => pids.split("\n").filter((pid) => pid !== "").length === many,
      `transactions that wait for ${event}`
    )
  )

layer(postgres, { excludeTestServices: true, timeout: TestDatabase.patience })("On PostgreSQL", (it) => {
  /** Two consumers of a queue, whose handler says that it has begun, and waits until it may end. */
  const withTwo = Effect.fnUntraced(function* (options: AmqpInbox.SqlOptions<"fail"> = {}) {
    const queue = yield* declareQueue()
    const begun = yield* Queue.unbounded<string>()
    const ends = yield* Queue.unbounded<Effect.Effect<void, Refused>>()
    const failures = yield* Queue.unbounded<{ readonly _tag: string; readonly reason?: { readonly _tag: string } }>()
    const handler = (delivery: AmqpConsumer.Delivery) =>
      Effect.gen(function* () {
        yield* insertEffect(queue, idOf(delivery))
        yield* Queue.offer(begun, idOf(delivery))
        yield* Effect.flatten(Queue.take(ends))
      })
    const consume = AmqpConsumer.consume(queue, handler, {
      inbox: AmqpInbox.sql(options),
      prefetch: 1,
      onFailure: (error) => {
        Queue.offerUnsafe(failures, error)
        return AmqpConsumer.requeue
      }
    })
    yield* start(consume)
    yield* start(consume)
    return { queue, begun, ends, failures }
  })

  it.effect("a second copy waits for the transaction of the first, and is a repeat after its commit", () =>
    Effect.gen(function* () {
      const { begun, ends, queue } = yield* withTwo()
      yield* publish(queue, "1", "1")
      yield* Queue.take(begun)
      yield* untilWaiting("transactionid")
      yield* Queue.offer(ends, Effect.void)
      yield* settled(queue)
      assert.deepStrictEqual(yield* effectsOf(queue), ["1"])
      assert.deepStrictEqual(yield* outcomes, { handled: 1, repeated: 1, withoutKey: 0, retried: 0 })
    }).pipe(quiet)
  )

  it.effect("a second copy waits for the transaction of the first, and is handled after its rollback", () =>
    Effect.gen(function* () {
      const { begun, ends, queue } = yield* withTwo()
      yield* publish(queue, "1", "1")
      yield* Queue.take(begun)
      yield* untilWaiting("transactionid")
      yield* Queue.offer(ends, Effect.fail(new Refused({})))
      yield* Queue.take(begun)
      yield* Queue.offer(ends, Effect.void)
      yield* settled(queue)
      assert.deepStrictEqual(yield* effectsOf(queue), ["1"])
      assert.deepStrictEqual(yield* outcomes, { handled: 1, repeated: 1, withoutKey: 0, retried: 0 })
    }).pipe(quiet)
  )

  it.effect("a second copy waits no longer than copyTimeout, and leaves its connection in order", () =>
    Effect.gen(function* () {
      const { begun, ends, failures, queue } = yield* withTwo({ copyTimeout: "200 millis" })
      yield* publish(queue, "1", "1")
      yield* Queue.take(begun)
      const error = yield* Queue.take(failures)
      assert.deepStrictEqual([error._tag, error.reason?._tag], ["SqlError", "LockTimeoutError"])
      yield* Queue.offer(ends, Effect.void)
      yield* settled(queue)
      assert.deepStrictEqual(yield* effectsOf(queue), ["1"])
      assert.deepStrictEqual(yield* outcomes, { handled: 1, repeated: 1, withoutKey: 0, retried: 0 })
    }).pipe(quiet)
  )

  for (const isolation of ["repeatable read", "serializable"] as const) {
    it.effect(`with ${isolation}, transactions that collide are tried again, and repeats are recognized`, () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE totals (queue text PRIMARY KEY, total integer NOT NULL)`.pipe(Effect.ignore)
        yield* sql`INSERT INTO totals VALUES (${queue}, 0)`
        const attempts = new Set<number>()
        const handler = (delivery: AmqpConsumer.Delivery) =>
          Effect.gen(function* () {
            attempts.add(delivery.attempt)
            const [level] = yield* sql<{ transaction_isolation: string }>`SHOW transaction_isolation`
            assert.strictEqual(level?.transaction_isolation, isolation)
            // Transactions on other clients begin as they would without the inbox.
            assert.isUndefined(yield* SqlClient.BeginTransaction)
            // Read, compute, write: with read committed, increments would be lost.
            const [row] = yield* sql<{ total: number }>`SELECT total FROM totals WHERE queue = ${queue}`
            yield* Effect.yieldNow
            yield* sql`UPDATE totals SET total = ${(row?.total ?? 0) + 1} WHERE queue = ${queue}`
          })
        const consume = AmqpConsumer.consume(queue, handler, {
          inbox: AmqpInbox.sql({ isolation, retryTimeout: "1 hour" }),
          concurrency: 3
        })
        yield* start(consume)
        const ids = Array.from({ length: 20 }, (_, i) => String(i))
        yield* publish(queue, ...[...ids, ...ids].sort())
        yield* until(outcomes, ({ handled, repeated }) => handled + repeated === 40, "the outcomes", 25)
        const [row] = yield* sql<{ total: number }>`SELECT total FROM totals WHERE queue = ${queue}`
        assert.strictEqual(row?.total, 20)
        assert.deepStrictEqual([...attempts], [1])
        assert.isAbove((yield* outcomes).retried, 0)
      }).pipe(quiet)
    )
  }

  it.effect("a deadlock is tried again, and counts as no failure", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE accounts (id text PRIMARY KEY, runs integer NOT NULL)`
      yield* sql`INSERT INTO accounts VALUES ('a', 0), ('b', 0)`
      const both = yield* Deferred.make<void>()
      let runs = 0
      const lock = (id: string) => sql`UPDATE accounts SET runs = runs + 1 WHERE id = ${id}`
      const handler = (delivery: AmqpConsumer.Delivery) =>
        Effect.gen(function* () {
          const [first, second] = idOf(delivery) === "ab" ? (["a", "b"] as const) : (["b", "a"] as const)
          yield* lock(first)
          if (++runs === 2) yield* Deferred.succeed(both, undefined)
          yield* Deferred.await(both)
          yield* lock(second)
        })
      yield* start(AmqpConsumer.consume(queue, handler, { inbox: AmqpInbox.sql(), concurrency: 2 }))
      yield* publish(queue, "ab", "ba")
      yield* until(outcomes, ({ handled }) => handled === 2, "the outcomes")
      assert.deepStrictEqual(yield* sql`SELECT runs FROM accounts`, [{ runs: 2 }, { runs: 2 }])
      assert.deepStrictEqual(yield* outcomes, { handled: 2, repeated: 0, withoutKey: 0, retried: 1 })
    }).pipe(quiet)
  )

  /** A consumer whose first run does something before it ends, and which reports what `onFailure` gets. */
  const withFirstRun = Effect.fnUntraced(function* <E, R>(firstRun: (pid: number) => Effect.Effect<unknown, E, R>) {
    const queue = yield* declareQueue()
    const sql = yield* SqlClient.SqlClient
    const failures = yield* Queue.unbounded<{ readonly _tag: string }>()
    let runs = 0
    const handler = (delivery: AmqpConsumer.Delivery) =>
      Effect.gen(function* () {
        yield* insertEffect(queue, idOf(delivery))
        const [row] = yield* sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`
        if (++runs === 1) yield* firstRun(row?.pid ?? 0)
      })
    yield* start(
      AmqpConsumer.consume(queue, handler, {
        inbox: AmqpInbox.sql(),
        onFailure: (error) => {
          Queue.offerUnsafe(failures, error as { readonly _tag: string })
          return AmqpConsumer.requeue
        }
      })
    )
    return { queue, failures, runs: Effect.sync(() => runs) }
  })

  const terminate = (pid: number | string) =>
    Effect.flatMap(TestDatabase.TestDatabase, ({ psql }) => psql(`SELECT pg_terminate_backend(${pid})`))

  it.effect("a connection that is lost before the commit fails with SqlError, and the message is handled again", () =>
    Effect.gen(function* () {
      const { failures, queue, runs } = yield* withFirstRun(terminate)
      yield* publish(queue, "1")
      assert.strictEqual((yield* Queue.take(failures))._tag, "SqlError")
      yield* settled(queue)
      assert.deepStrictEqual(yield* effectsOf(queue), ["1"])
      assert.strictEqual(yield* runs, 2)
    }).pipe(quiet)
  )

  it.effect("a handler that fails on a lost connection fails with its own error, not with that of the rollback", () =>
    Effect.gen(function* () {
      const { failures, queue } = yield* withFirstRun((pid) =>
        Effect.andThen(terminate(pid), Effect.fail(new Refused({})))
      )
      yield* publish(queue, "1")
      assert.strictEqual((yield* Queue.take(failures))._tag, "Refused")
      yield* settled(queue)
      assert.deepStrictEqual(yield* effectsOf(queue), ["1"])
    }).pipe(quiet)
  )

  it.effect("a commit whose outcome is unknown fails with SqlError, and the record decides: here it has happened", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { failures, queue, runs } = yield* withFirstRun(() => sql`SET LOCAL synchronous_commit = on`)
      yield* publish(queue, "1")
      yield* terminate(yield* untilWaiting("SyncRep"))
      assert.strictEqual((yield* Queue.take(failures))._tag, "SqlError")
      yield* until(outcomes, ({ repeated }) => repeated === 1, "the outcomes")
      yield* settled(queue)
      assert.deepStrictEqual(yield* effectsOf(queue), ["1"])
      assert.strictEqual(yield* runs, 1)
    }).pipe(quiet)
  )

  it.effect("a handler that hides a failed statement fails at the commit, and has no effect", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const { failures, queue } = yield* withFirstRun(() => Effect.ignore(sql`SELECT 1 / 0`))
      yield* publish(queue, "1")
      assert.strictEqual((yield* Queue.take(failures))._tag, "SqlError")
      yield* settled(queue)
      assert.deepStrictEqual(yield* effectsOf(queue), ["1"])
    }).pipe(quiet)
  )

  it.effect("kill -9 of the process between commit and acknowledgement: the message has one effect", () =>
    Effect.gen(function* () {
      const queue = yield* declareQueue()
      const broker = yield* TestBroker.TestBroker
      const { url } = yield* TestDatabase.TestDatabase
      const consumer = `
        import { Amqp, AmqpConsumer } from "@effect-amqp/core"
        import { AmqpInbox } from "@effect-amqp/sql"
        import { PgClient } from "@effect/sql-pg"
        import { Effect, Layer, Redacted, References } from "effect"
        import { SqlClient } from "effect/sql"
        const { DATABASE, BROKER, QUEUE } = process.env
        const handler = (delivery) => Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql\`INSERT INTO effects (queue, id) VALUES (\${QUEUE}, \${delivery.properties.messageId})\`
          yield* sql.afterCommit(Effect.andThen(Effect.sync(() => console.log("committed")), Effect.never))
        })
        const services = Layer.merge(Amqp.layer({ url: BROKER }), PgClient.layer({ url: Redacted.make(DATABASE) }))
        await AmqpConsumer.consume(QUEUE, handler, { inbox: AmqpInbox.sql() }).pipe(
          Effect.provide(services),
          Effect.provideService(References.MinimumLogLevel, "None"),
          Effect.runPromise
        )
      `
      const { kill9, line } = yield* program(consumer, {
        DATABASE: Redacted.value(url),
        BROKER: broker.url,
        QUEUE: queue
      })
      yield* publish(queue, "1")
      assert.strictEqual(yield* line, "committed")
      yield* untilQueue(queue, { unacked: 1 })
      yield* kill9
      yield* start(AmqpConsumer.consume(queue, () => insertEffect(queue, "again"), { inbox: AmqpInbox.sql() }))
      yield* until(outcomes, ({ repeated }) => repeated === 1, "the outcomes")
      yield* settled(queue)
      assert.deepStrictEqual(yield* effectsOf(queue), ["1"])
    }).pipe(quiet)
  )

  it.effect("a database that is away when the consumer starts delays its messages, and loses none", () =>
    Effect.gen(function* () {
      const database = yield* TestDatabase.TestDatabase
      const queue = yield* declareQueue()
      const failures = yield* Queue.unbounded<SqlError.SqlError | AmqpInbox.InboxKeyMissing>()
      yield* database.kill9
      const handler = (delivery: AmqpConsumer.Delivery) => insertEffect(queue, idOf(delivery))
      yield* start(
        AmqpConsumer.consume(queue, handler, {
          inbox: AmqpInbox.sql(),
          onFailure: (error) => {
            Queue.offerUnsafe(failures, error)
            return AmqpConsumer.requeue
          }
        })
      )
      yield* publish(queue, "1", "2")
      assert.strictEqual((yield* Queue.take(failures))._tag, "SqlError")
      yield* database.start
      yield* until(outcomes, ({ handled }) => handled === 2, "the outcomes", 25)
      yield* settled(queue)
      assert.deepStrictEqual(yield* effectsOf(queue), ["1", "2"])
    }).pipe(quiet)
  )

  it.effect("a concurrency above the pool of the database is warned of once, with the numbers", () =>
    Effect.gen(function* () {
      const warnings = yield* Queue.unbounded<string>()
      const logger = Logger.make(({ logLevel, message }) => {
        if (logLevel === "Warn") Queue.offerUnsafe(warnings, String(message))
      })
      const consume = (concurrency: number) =>
        Effect.flatMap(declareQueue(), (queue) =>
          start(AmqpConsumer.consume(queue, () => Effect.void, { inbox: AmqpInbox.sql(), concurrency })).pipe(
            Effect.andThen(untilQueue(queue, { consumers: 1 }))
          )
        )
      yield* Effect.forEach([3, 2, 4, 1], consume).pipe(
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "Warn")
      )
      const [warning, ...others] = yield* Queue.clear(warnings)
      assert.include(warning, "consumers handle up to 9 deliveries at a time (this one 4)")
      assert.include(warning, "the database's pool has 5. ")
      assert.deepStrictEqual(others, [])
    }).pipe(quiet)
  )
})
