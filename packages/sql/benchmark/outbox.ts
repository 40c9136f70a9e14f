/**
 * npm run bench -- outbox [--quick]: the cost and the throughput of the outbox, with PostgreSQL and RabbitMQ on this machine.
 *
 * Everything is measured in one run: inserts in turns with plain inserts, the relay, the latency from commit to delivery, the
 * cost of an idle relay, and the same with many rows waiting. The figures are those of a machine that does nothing else.
 */
import { type Amqp, AmqpChannel, AmqpConsumer } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpInbox, AmqpOutbox, AmqpSql } from "@effect-amqp/sql"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Deferred, Effect, Layer, Metric, References, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { readFileSync } from "node:fs"
import * as TestDatabase from "../test/support/TestDatabase.ts"

const quick = process.argv.includes("--quick")
const rounds = quick ? 3 : 7
const perRound = quick ? 1000 : 3000
const toRelay = quick ? 10_000 : 50_000
const waitingRows = quick ? 100_000 : 1_000_000
const idleSeconds = quick ? 5 : 20
const content = "x".repeat(200)
const bytes = Buffer.from(content)
const queue = "bench.outbox"

const published = Metric.withAttributes(AmqpOutbox.relayedMessages, { "amqp.outcome": "published" })

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!

const percentile = (values: ReadonlyArray<number>, share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))]!

const rate = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.gen(function* () {
    const startedAt = performance.now()
    yield* effect
    return (count / (performance.now() - startedAt)) * 1000
  })

const repeated = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>) =>
  Effect.forEach(Array.from({ length: count }), () => effect, { concurrency: 10, discard: true })

const message = { routingKey: queue, content }

const plainInsert = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql`INSERT INTO plain (a, b, c, d, e, f) VALUES (${1}, ${"0190163d-8694-739b-aea5-966c26f8ad91"}, ${"orders"}, ${"placed"}, ${bytes.subarray(0, 60)}, ${bytes})`
)

const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(Effect.andThen(plainInsert, effect)))

const contests = {
  "a plain insert": plainInsert,
  "AmqpOutbox.publish": AmqpOutbox.publish(message),
  "AmqpOutbox.publish, orderBy": Effect.suspend(() =>
    AmqpOutbox.publish(message, { orderBy: String(Math.floor(Math.random() * 1000)) })
  ),
  "a transaction with one insert": inTransaction(Effect.void),
  "a transaction with one insert and a publish": inTransaction(AmqpOutbox.publish(message))
}

/** Inserts per second, in turns. */
const inserts = Effect.gen(function* () {
  const rates = new Map<string, Array<number>>()
  for (let round = 0; round <= rounds; round++) {
    for (const [name, effect] of Object.entries(contests)) {
      const measured = yield* rate(perRound, repeated(perRound, effect))
      // The first round warms up.
      if (round > 0) rates.set(name, [...(rates.get(name) ?? []), measured])
    }
  }
  return new Map([...rates].map(([name, values]) => [name, median(values)]))
})

const relaying = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: AmqpOutbox.RelayOptions) =>
  Effect.provide(effect, AmqpOutbox.layerRelay(options), { local: true })

const emptyOutbox = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`TRUNCATE amqp_outbox`
  yield* AmqpChannel.use((channel) => channel.queuePurge(queue))
})

/** Messages per second of one relay, counted when their rows are gone. */
const throughput = Effect.gen(function* () {
  yield* emptyOutbox
  yield* fill(toRelay)
  const cpu = process.cpuUsage()
  const perSecond = yield* rate(
    toRelay,
    relaying(
      Effect.gen(function* () {
        while ((yield* AmqpOutbox.stats).waiting > 0) yield* Effect.sleep(50)
      })
    )
  )
  const { system, user } = process.cpuUsage(cpu)
  return { perSecond, cpuMicros: (user + system) / toRelay }
})

/** Inserts many rows fast. */
const fill = (count: number) =>
  Effect.gen(function* () {
    const batch = Array.from({ length: 1000 }, () => message)
    for (let i = 0; i < count; i += 1000) yield* AmqpOutbox.publishAll(batch)
  })

/** Milliseconds from the commit to the handler, while nothing else happens. */
const latency = Effect.gen(function* () {
  yield* emptyOutbox
  const times: Array<number> = []
  let arrived = Deferred.makeUnsafe<number>()
  yield* Effect.forkScoped(
    AmqpConsumer.consume(queue, () => Effect.suspend(() => Deferred.succeed(arrived, performance.now())))
  )
  yield* relaying(
    Effect.gen(function* () {
      yield* Effect.sleep("1 second")
      for (let i = 0; i < (quick ? 50 : 200); i++) {
        arrived = Deferred.makeUnsafe()
        yield* AmqpOutbox.publish(message)
        const committedAt = performance.now()
        times.push((yield* Deferred.await(arrived)) - committedAt)
        yield* Effect.sleep(20)
      }
    })
  )
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99) }
}).pipe(Effect.scoped)

/** CPU seconds that the processes of the database have used. */
const databaseCpu = (postmaster: number | undefined): number => {
  if (postmaster === undefined) return Number.NaN
  try {
    // The postmaster's own time and that of its ended children; the living children are found by their parent.
    const ticks = (pid: number) => {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
        .replace(/^.*\) /, "")
        .split(" ")
      return Number(fields[11]) + Number(fields[12])
    }
    const children = readFileSync(`/proc/${postmaster}/task/${postmaster}/children`, "utf8").trim().split(" ")
    return (
      [postmaster, ...children.filter((pid) => pid !== "").map(Number)].reduce((sum, pid) => sum + ticks(pid), 0) / 100
    )
  } catch {
    return Number.NaN
  }
}

/** Share of a core that an idle relay uses, in this process and in the database. */
const idle = (postmaster: number | undefined) =>
  Effect.gen(function* () {
    yield* emptyOutbox
    return yield* relaying(
      Effect.gen(function* () {
        yield* Effect.sleep("3 seconds")
        const before = { own: process.cpuUsage(), database: databaseCpu(postmaster) }
        yield* Effect.sleep(idleSeconds * 1000)
        const { system, user } = process.cpuUsage(before.own)
        return {
          own: (user + system) / 1e6 / idleSeconds,
          database: (databaseCpu(postmaster) - before.database) / idleSeconds
        }
      })
    )
  })

/** Messages per second through a consumer, with and without an inbox. */
const consuming = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const count = quick ? 1000 : 5000
  const run = (options: { readonly inbox?: AmqpConsumer.Inbox<unknown, SqlClient.SqlClient> }, name: string) =>
    Effect.gen(function* () {
      yield* emptyOutbox
      yield* relaying(
        Effect.gen(function* () {
          yield* fill(count)
          while ((yield* AmqpOutbox.stats).waiting > 0) yield* Effect.sleep(50)
        })
      )
      let handled = 0
      const done = yield* Deferred.make<void>()
      const work = sql`INSERT INTO effects (a) VALUES (${"x"})`
      const handler = () =>
        Effect.andThen(
          options.inbox === undefined ? sql.withTransaction(work) : work,
          Effect.suspend(() => (++handled === count ? Deferred.succeed(done, undefined) : Effect.void))
        )
      return yield* rate(
        count,
        Effect.scoped(
          Effect.andThen(
            Effect.forkScoped(AmqpConsumer.consume(queue, handler, { ...options, name, concurrency: 8 })),
            Deferred.await(done)
          )
        )
      )
    })
  const [plain, inbox] = [[], []] as ReadonlyArray<Array<number>>
  for (let round = 0; round <= 3; round++) {
    plain!.push(yield* run({}, "plain"))
    inbox!.push(yield* run({ inbox: AmqpInbox.sql() }, "inbox"))
  }
  return { plain: median(plain!.slice(1)), inbox: median(inbox!.slice(1)) }
})

/** Number of messages that the relays of this process have published and removed. */
const relayed = Effect.map(Metric.value(published), ({ count }) => count)

const ofFull = Effect.provideService(AmqpSql.TablePrefix, "full_")

/** An outbox with many rows, in turns with an empty one: both meet the same database. */
const withWaiting = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* ofFull(AmqpSql.migrate)
  yield* ofFull(fill(waitingRows))
  // What the database does with new rows in the background happens to every table, at any time.
  yield* sql`VACUUM ANALYZE full_outbox`
  yield* sql`CHECKPOINT`
  const memory = process.memoryUsage().rss
  const publishes = repeated(perRound, AmqpOutbox.publish(message))
  const relays = relaying(
    Effect.gen(function* () {
      const before = yield* relayed
      while ((yield* relayed) - before < toRelay) yield* Effect.sleep(5)
    })
  )
  const [inserts, emptyInserts, relayRates, emptyRelayRates] = [[], [], [], []] as ReadonlyArray<Array<number>>
  for (let round = 0; round <= rounds; round++) {
    emptyInserts!.push(yield* rate(perRound, publishes))
    inserts!.push(yield* rate(perRound, ofFull(publishes)))
  }
  for (let round = 0; round < 3; round++) {
    yield* emptyOutbox
    yield* fill(toRelay)
    emptyRelayRates!.push(yield* rate(toRelay, relays))
    relayRates!.push(yield* rate(toRelay, ofFull(relays)))
  }
  return {
    inserts: median(inserts!.slice(1)),
    emptyInserts: median(emptyInserts!.slice(1)),
    relayed: median(relayRates!),
    emptyRelayed: median(emptyRelayRates!),
    memory: process.memoryUsage().rss - memory
  }
})

const format = (value: number, digits = 0) =>
  value.toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: digits })

const program = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const database = yield* TestDatabase.TestDatabase
  const postmaster = yield* database.processes.pipe(
    Effect.map(({ postmaster }) => postmaster),
    Effect.orElseSucceed(() => undefined)
  )
  yield* sql`CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a smallint, b text, c text, d text, e bytea, f bytea, at timestamptz DEFAULT clock_timestamp())`
  yield* sql`CREATE TABLE effects (a text)`
  yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue)))
  const print = (text: string) => Console.log(text)

  yield* print("Inserts per second, 10 at a time:")
  const rates = yield* inserts
  const base = rates.get("a plain insert")!
  const transaction = rates.get("a transaction with one insert")!
  for (const [name, value] of rates) {
    const against = name.startsWith("a transaction") ? transaction : base
    yield* print(`  ${name}: ${format(value)} (${format(value / against, 2)})`)
  }
  const { cpuMicros, perSecond } = yield* Effect.scoped(throughput)
  yield* print(`Relay: ${format(perSecond)} messages per second, ${format(cpuMicros, 1)} µs of this process's CPU each`)
  const { p50, p99 } = yield* latency
  yield* print(`Commit to delivery, idle: p50 ${format(p50, 1)} ms, p99 ${format(p99, 1)} ms`)
  const idleCost = yield* Effect.scoped(idle(postmaster))
  yield* print(
    `Idle relay: ${format(idleCost.own * 100, 2)} % of a core, and ${format(idleCost.database * 100, 2)} % in the database`
  )
  const consumed = yield* Effect.scoped(consuming)
  yield* print(
    `Consumed per second, one insert each: ${format(consumed.plain)} in a transaction, ${format(consumed.inbox)} with an inbox (${format(consumed.inbox / consumed.plain, 2)})`
  )

  yield* Effect.scoped(emptyOutbox)
  const full = yield* Effect.scoped(withWaiting)
  yield* print(
    `With ${format(waitingRows)} rows waiting: ${format(full.inserts)} inserts per second (${format(full.inserts / full.emptyInserts, 2)})`
  )
  yield* print(
    `Relay with them waiting: ${format(full.relayed)} messages per second (${format(full.relayed / full.emptyRelayed, 2)}); memory ${format(full.memory / 2 ** 20)} MiB more`
  )
})

const services: Layer.Layer<
  SqlClient.SqlClient | TestDatabase.TestDatabase | Amqp.Amqp | TestBroker.TestBroker,
  unknown
> = Layer.merge(
  AmqpSql.layerMigrate.pipe(
    Layer.provideMerge(TestDatabase.layer({ exclusive: true, client: { maxConnections: 20 } }))
  ),
  TestBroker.layerAmqp()
)

const main: Effect.Effect<void, unknown, Scope.Scope> = Effect.provide(program, services)

main.pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Warn"), NodeRuntime.runMain)
