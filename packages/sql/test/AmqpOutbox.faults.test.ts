/** The outbox while the broker, the database or a relay fails. */
import { assert, layer } from "@effect/vitest"
import { Amqp, AmqpConnection, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpOutbox, AmqpSql } from "@effect-amqp/sql"
import { Duration, Effect, Exit, Layer, Redacted, Schedule, Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as FaultProxy from "../../core/test/support/FaultProxy.ts"
import { until } from "../../core/test/support/polling.ts"
import {
  depth,
  drained,
  emptied,
  freshQueue,
  gatedPublisher,
  range,
  shards,
  startRelay,
  take,
  texts,
  unknownName,
  untilShards,
  waiting
} from "./support/outbox.ts"
import { program } from "./support/program.ts"
import * as TestDatabase from "./support/TestDatabase.ts"

const Database = AmqpSql.layerMigrate.pipe(Layer.provideMerge(TestDatabase.layer({ exclusive: true })), Layer.orDie)

/** A relay in a process of its own. */
const relayProgram = `
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Amqp } from "@effect-amqp/core"
import { AmqpOutbox } from "@effect-amqp/sql"
import { Layer, Redacted } from "effect"

const Database = PgClient.layer({ url: Redacted.make(process.env.TEST_DATABASE_URL) })
const Broker = Amqp.layer({ url: process.env.TEST_BROKER_URL })
AmqpOutbox.layerRelay({ lease: "2 seconds" }).pipe(
  Layer.provide([Database, Broker]),
  Layer.launch,
  NodeRuntime.runMain
)
`

const ids = (deliveries: ReadonlyArray<AmqpMessage.Delivery>) =>
  new Set(deliveries.map(({ properties }) => properties.messageId))

const messages = (queue: string, count: number) =>
  range(count).map((n) => ({ routingKey: queue, content: String(n), messageId: `${queue} ${n}` }))

let cuts = 0

/** Ends the connection of the next statement that inserts into a table. */
const cutOnce = Effect.fnUntraced(function* (table: string) {
  const sql = yield* SqlClient.SqlClient
  const name = `cut_${++cuts}`
  yield* sql.unsafe(`CREATE SEQUENCE ${name}`)
  yield* sql.unsafe(`CREATE FUNCTION ${name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF nextval('${name}') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
  RETURN NEW;
END $$`)
  yield* sql.unsafe(`CREATE TRIGGER ${name} BEFORE INSERT ON ${table} FOR EACH ROW EXECUTE FUNCTION ${name}()`)
  yield* Effect.addFinalizer(() => Effect.orDie(sql.unsafe(`DROP TRIGGER ${name} ON ${table}`)))
})

layer(Layer.merge(TestBroker.layerAmqp(), Database), { excludeTestServices: true, timeout: TestDatabase.patience })(
  "Nothing that was committed is lost",
  (it) => {
    it.effect("while the broker is away: messages wait, health reports it, and they are published", () =>
      Effect.gen(function* () {
        yield* emptied
        const queue = yield* freshQueue()
        const { url } = yield* TestBroker.TestBroker
        const { hostname, port } = new URL(url)
        const proxy = yield* FaultProxy.make({ host: hostname, port: Number(port) })
        const behind = Effect.map(AmqpConnection.conditions, (all) => all.some(({ kind }) => kind === "OutboxBehind"))
        yield* Effect.gen(function* () {
          yield* startRelay({ alarmAfter: "1 second" })
          yield* AmqpOutbox.publish({ routingKey: queue, content: "before" })
          assert.deepStrictEqual(yield* texts(queue, 1), ["before"])
          yield* drained
          proxy.refuse()
          proxy.rst()
          yield* AmqpOutbox.publishAll(messages(queue, 100))
          yield* until(behind, (is) => is, "whether the outbox is behind")
          assert.strictEqual(yield* waiting, 100)
          proxy.refuse(false)
          yield* drained
          yield* until(behind, (is) => !is, "whether the outbox is behind")
        }).pipe(Effect.provide(Amqp.layer({ url: proxy.through(url) }), { local: true }))
        assert.strictEqual(ids(yield* take(queue, 100)).size, 100)
      })
    )

    it.effect("while the broker's connection ends again and again with 500 messages in flight", () =>
      Effect.gen(function* () {
        yield* emptied
        const queue = yield* freshQueue()
        const { killConnections } = yield* TestBroker.TestBroker
        yield* startRelay({ maxInFlight: 500 })
        yield* AmqpOutbox.publishAll(messages(queue, 500))
        for (const n of range(3)) {
          yield* until(depth(queue).pipe(Effect.retry(Schedule.spaced(20))), (count) => count > n * 100, "the queue")
          yield* killConnections
        }
        yield* drained
        const count = yield* depth(queue).pipe(Effect.retry(Schedule.spaced(20)))
        assert.isAtLeast(count, 500)
        assert.strictEqual(ids(yield* take(queue, count)).size, 500)
      })
    )

    it.effect("while a full queue refuses messages, which counts as no attempt, so none of them is set aside", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* emptied
        const queue = yield* freshQueue({ maxLength: 1, overflow: "reject-publish" })
        yield* AmqpOutbox.publishAll(messages(queue, 20))
        yield* startRelay({ retryDelay: "10 millis", pollInterval: "50 millis", maxAttempts: 1 })
        yield* until(
          sql<{
            refused: number
          }>`SELECT count(*)::integer AS refused FROM amqp_outbox WHERE failure LIKE 'PublishNacked%'`,
          ([row]) => row?.refused === 19,
          "refused messages"
        )
        const [attempts] = yield* sql<{ most: number }>`SELECT max(attempts) AS most FROM amqp_outbox`
        assert.strictEqual(attempts?.most, 0)
        assert.strictEqual((yield* AmqpOutbox.stats).setAside, 0)
        assert.strictEqual(ids(yield* take(queue, 20)).size, 20)
        yield* drained
      })
    )

    it.effect("when a relay's process is killed: another one takes over after its lease", () =>
      Effect.gen(function* () {
        yield* emptied
        const queue = yield* freshQueue()
        const broker = yield* TestBroker.TestBroker
        const database = yield* TestDatabase.TestDatabase
        const { kill9 } = yield* program(relayProgram, {
          TEST_DATABASE_URL: Redacted.value(database.url),
          TEST_BROKER_URL: broker.url
        })
        yield* untilShards(32)
        yield* AmqpOutbox.publish({ routingKey: queue, content: "by the first" })
        assert.deepStrictEqual(yield* texts(queue, 1), ["by the first"])
        // Otherwise its row is published again, as promised.
        yield* drained
        yield* kill9
        assert.deepStrictEqual(yield* shards, [32])
        yield* startRelay({ lease: "1 second" })
        yield* AmqpOutbox.publish({ routingKey: queue, content: "by the second" })
        assert.deepStrictEqual(yield* texts(queue, 1), ["by the second"])
        yield* drained
      })
    )

    it.effect("while the database is paused for longer than the lease: nothing is published without a lease", () =>
      Effect.gen(function* () {
        yield* emptied
        const queue = yield* freshQueue()
        const { pause, resume } = yield* TestDatabase.TestDatabase
        const { gate, seen, startRelay } = yield* gatedPublisher
        gate.closeUnsafe()
        yield* AmqpOutbox.publishAll(messages(queue, 5), { orderBy: () => "key" })
        yield* startRelay({ lease: "1 second" })
        yield* until(depth(queue), (count) => count === 1, "the queue")
        yield* Effect.acquireUseRelease(
          pause,
          () =>
            Effect.gen(function* () {
              yield* Effect.sleep("1200 millis")
              // The first message's confirm would start the second.
              gate.openUnsafe()
              yield* Effect.sleep("200 millis")
              assert.strictEqual(seen.started, 1)
            }),
          () => Effect.orDie(resume)
        )
        yield* drained
        assert.deepStrictEqual(yield* texts(queue, 5), ["0", "1", "2", "3", "4"])
      })
    )

    it.effect("while the database answers nothing: health reports it, until it answers", () =>
      Effect.gen(function* () {
        yield* emptied
        const { pause, resume } = yield* TestDatabase.TestDatabase
        const failed = Effect.map(AmqpConnection.conditions, (all) =>
          all.find(({ kind }) => kind === "OutboxDatabaseFailed")
        )
        yield* startRelay({ lease: "1 second", alarmAfter: "1 second" })
        yield* untilShards(32)
        yield* Effect.acquireUseRelease(
          pause,
          () =>
            Effect.gen(function* () {
              const found = yield* until(failed, (found) => found !== undefined, "the condition", 20)
              assert.match(found!.message, /the database does not answer/)
            }),
          () => Effect.orDie(resume)
        )
        yield* until(failed, (found) => found === undefined, "the condition", 20)
      })
    )

    it.effect("while the database is paused: a relay stops in time, and another one continues", () =>
      Effect.gen(function* () {
        yield* emptied
        const queue = yield* freshQueue()
        const { pause, resume } = yield* TestDatabase.TestDatabase
        const scope = yield* Scope.make()
        yield* Layer.buildWithScope(AmqpOutbox.layerRelay({ lease: "1 second", pollInterval: "10 millis" }), scope)
        yield* untilShards(32)
        const [stopped] = yield* Effect.acquireUseRelease(
          pause,
          // Its parts and its own last statements wait for the database.
          () => Effect.timed(Scope.close(scope, Exit.void)),
          () => Effect.orDie(resume)
        )
        assert.isBelow(Duration.toMillis(stopped), 10_000)
        yield* startRelay({ lease: "1 second" })
        yield* AmqpOutbox.publish({ routingKey: queue, content: "later" })
        assert.deepStrictEqual(yield* texts(queue, 1), ["later"])
        yield* drained
      })
    )

    it.effect("when a connection to the database ends while a message is set aside", () =>
      Effect.gen(function* () {
        yield* emptied
        const queue = yield* freshQueue()
        yield* cutOnce("amqp_outbox_set_aside")
        yield* AmqpOutbox.publish({ routingKey: unknownName(), content: "refused" }, { orderBy: "key" })
        yield* AmqpOutbox.publish({ routingKey: queue, content: "next" }, { orderBy: "key" })
        yield* startRelay({ maxAttempts: 1 })
        assert.deepStrictEqual(yield* texts(queue, 1), ["next"])
        yield* drained
        assert.strictEqual((yield* AmqpOutbox.stats).setAside, 1)
      })
    )

    it.effect("when a connection to the database ends in publishAll, which fails with SqlError", () =>
      Effect.gen(function* () {
        yield* emptied
        yield* cutOnce("amqp_outbox")
        const write = AmqpOutbox.publishAll(messages("nowhere", 2))
        assert.strictEqual((yield* Effect.flip(write))._tag, "SqlError")
        assert.strictEqual(yield* waiting, 0)
        yield* write
        assert.strictEqual(yield* waiting, 2)
      })
    )

    it.effect("when the database is killed and starts again", () =>
      Effect.gen(function* () {
        yield* emptied
        const queue = yield* freshQueue()
        const { kill9, start } = yield* TestDatabase.TestDatabase
        yield* startRelay({ maxInFlight: 50, lease: "1 second" })
        yield* AmqpOutbox.publishAll(messages(queue, 400), { orderBy: ({ content }) => `key-${Number(content) % 10}` })
        yield* until(depth(queue), (count) => count > 20, "the queue")
        yield* kill9
        yield* start
        const { messageId } = yield* Effect.retry(
          AmqpOutbox.publish({ routingKey: queue, content: "400" }),
          Schedule.spaced(50)
        )
        yield* Effect.retry(drained, Schedule.spaced(50))
        const all = yield* take(queue, yield* depth(queue))
        assert.strictEqual(ids(all).size, 401)
        assert.isTrue(ids(all).has(messageId))
        const seen = new Map<string, number>()
        for (const delivery of all) {
          const n = Number(AmqpMessage.text(delivery))
          const last = seen.get(`${n % 10}`) ?? -1
          // A repeat is one of a message that was published before.
          if (n < 400 && n > last) {
            assert.strictEqual(n, last === -1 ? n % 10 : last + 10)
            seen.set(`${n % 10}`, n)
          }
        }
      })
    )
  }
)
