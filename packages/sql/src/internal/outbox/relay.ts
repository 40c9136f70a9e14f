/**
 * Publishes what was committed.
 *
 * The relay reads rows of the shards that it leases, publishes them confirmed, and removes them after the confirm. No
 * transaction is open while the broker is awaited. A row that is published and not removed, because a process died in
 * between, is published again: consumers recognize it by its id.
 */
import { AmqpConnection, AmqpPublisher } from "@effect-amqp/core"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import { uuidV7Unsafe } from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { monotonicMillis } from "../monotonicMillis.ts"
import { explainMissingTable } from "../database/errors.ts"
import { inTransaction } from "../database/transaction.ts"
import { isTransient, pauseBefore } from "../database/transientFailures.ts"
import { alarms } from "./alarms.ts"
import { databaseWatch, type Work } from "./databaseWatch.ts"
import { countRelayed, OutboxGauges } from "./metrics.ts"
import { cleanup, monitor } from "./monitor.ts"
import { RepeatedLogs } from "./repeatedLogs.ts"
import { Rest } from "./rest.ts"
import { type OutboxRow, RowPublisher, type RowPublisherSettings } from "./rowPublisher.ts"
import { ShardLeases } from "./shardLeases.ts"
import { arrayParameter, type OutboxStatements } from "./statements.ts"
import { addRelay } from "./wakeups.ts"
import { type Snapshot, WorkSet } from "./workSet.ts"
import { statementsFor } from "./writing.ts"

/** The settings of a relay; times are in milliseconds. */
export interface RelaySettings extends RowPublisherSettings {
  readonly maxInFlight: number
  readonly pollMillis: number
  readonly leaseMillis: number
  readonly keepMillis: number | undefined
  readonly alarmMillis: number
}

/** A row as a driver returns it: some return a 64-bit integer as text or as a `bigint`. */
interface RawRow {
  readonly shard: number
  readonly position: number | bigint | string
  readonly order_key: string | null
  readonly message_id: string
  readonly mandatory: boolean | number
  readonly exchange: string
  readonly routing_key: string
  readonly properties: Uint8Array
  readonly content: Uint8Array
  readonly attempts: number
  readonly postponed: boolean | number
  readonly closed_channel: boolean | number | null
  readonly snapshot: string | null
}

const rowOf = (raw: RawRow): OutboxRow => ({
  shard: Number(raw.shard),
  position: Number(raw.position),
  orderKey: raw.order_key ?? undefined,
  messageId: raw.message_id,
  mandatory: Boolean(raw.mandatory),
  attempts: Number(raw.attempts),
  wasPostponed: Boolean(raw.postponed),
  hasClosedChannel: Boolean(raw.closed_channel),
  bytes: raw.content.byteLength + raw.properties.byteLength,
  encoded: { exchange: raw.exchange, routingKey: raw.routing_key, properties: raw.properties, content: raw.content }
})

/** Reads PostgreSQL's text of a snapshot: `xmin:xmax:xip_list`. */
const snapshotOf = (text: string | null | undefined): Snapshot | undefined => {
  if (typeof text !== "string") return undefined
  const [, next = "0", open = ""] = text.split(":")
  return { next: BigInt(next), open: new Set(open === "" ? [] : open.split(",").map(BigInt)) }
}

/** Time between two reads of everything, for rows that appeared behind others after a long transaction. */
const rereadMillis = 10_000
/** How long after a read rows are expected behind it: as long as most transactions take at most. */
const lateMillis = 60_000
/** How long published rows gather before they are removed together. */
const gatherMillis = 10
const maxBatch = 1000
/** Maximum number of rows of one key in hand: they are published one after another, and more would take others' room. */
const maxOfKey = 32
/** Maximum size of the rows in hand, in bytes; one more row may exceed it. */
const maxBytes = 64 * 2 ** 20
const leastPollMillis = 50
const longestDelay = 5000
const stopMillis = 5000

type Requirements = SqlClient | AmqpPublisher.AmqpPublisher | AmqpConnection.AmqpConnection | Scope.Scope

/** Runs a relay until the scope closes; then it stops in order. */
export const runRelay = (settings: RelaySettings): Effect.Effect<void, never, Requirements> =>
  Effect.flatMap(statementsFor, (statements) =>
    Effect.annotateLogs(relayOf(settings, statements), { outbox: statements.table })
  )

const relayOf = Effect.fnUntraced(function* (settings: RelaySettings, statements: OutboxStatements) {
  const sql = yield* SqlClient
  const connection = yield* AmqpConnection.AmqpConnection
  const { state } = connection
  const clock = yield* Clock.Clock
  const now = () => monotonicMillis(clock)
  const relay = uuidV7Unsafe()
  const work = new WorkSet<OutboxRow>()
  const rest = new Rest(now)
  const logs = new RepeatedLogs()
  const { forget, run: reportFailures, watch } = yield* databaseWatch(statements.table, settings.alarmMillis)
  const leases = new ShardLeases({
    sql,
    statements,
    relay,
    leaseMillis: settings.leaseMillis,
    now,
    isBusy: (shard) => work.inHandOf(shard) > 0
  })
  const confirmed: Array<OutboxRow> = []
  const changed = Latch.makeUnsafe()
  const removable = Latch.makeUnsafe()
  const rows = new RowPublisher({
    settings,
    sql,
    statements,
    publisher: yield* AmqpPublisher.AmqpPublisher,
    cautious: yield* Effect.orDie(AmqpPublisher.make({ channels: 1, maxInFlight: 1 })),
    publishAlone: (message, options) =>
      AmqpPublisher.make({ channels: 1, maxInFlight: 1 }).pipe(
        Effect.flatMap((publisher) => publisher.publish(message, options)),
        Effect.scoped,
        Effect.provideService(AmqpConnection.AmqpConnection, connection)
      ),
    work,
    leases,
    rest,
    logs,
    now,
    fork: Effect.runForkWith(yield* Effect.context<never>()),
    onConfirmed: (row) => {
      confirmed.push(row)
      removable.openUnsafe()
    },
    onChange: () => changed.openUnsafe()
  })
  const run = <R extends object>(text: string, parameters: ReadonlyArray<unknown>) =>
    sql.unsafe<R>(text, parameters).withoutTransform
  const array = (values: ReadonlyArray<number> | ReadonlyArray<string>) => arrayParameter(statements, values)

  let rereadAt = 0
  let takenAt = -Infinity
  /** Reads as many rows as there is room for, and starts to publish them. Returns their number. */
  const read = Effect.gen(function* () {
    const shards = leases.readable
    const room = settings.maxInFlight - work.size
    const bytesLeft = maxBytes - work.bytes
    if (shards.length === 0 || room <= 0 || bytesLeft <= 0) return 0
    const time = now()
    if (time >= rereadAt || time >= rows.dueAt) {
      work.rewindAll()
      rereadAt = time + rereadMillis
      rows.clearDue(time)
    }
    // Every read begins with another shard, so that none waits behind busy ones.
    const first = Math.floor(Math.random() * shards.length)
    const turned = [...shards.slice(first), ...shards.slice(0, first)]
    const fullKeys = work.beginRead(maxOfKey)
    const found = yield* run<RawRow>(statements.read, [
      array(turned),
      array(turned.map((shard) => work.readAfter(shard))),
      array(work.positions),
      array(fullKeys),
      Math.ceil(room / Math.min(8, turned.length)),
      room,
      bytesLeft
    ])
    const snapshot = snapshotOf(found[0]?.snapshot)
    if (snapshot !== undefined && work.isOutdated(snapshot)) {
      work.rewindAll()
      return found.length
    }
    const taken = now()
    const readUpTo = new Map<number, number>()
    const heldUp: Array<OutboxRow> = []
    for (const raw of found) {
      const row = rowOf(raw)
      readUpTo.set(row.shard, row.position)
      if (!leases.isValid(row.shard)) {
        work.putBack(row)
      } else if (rows.isHeldUp(row)) {
        work.putBack(row)
        heldUp.push(row)
      } else if (work.take(row, taken)) {
        rows.start(row)
      }
    }
    for (const [shard, position] of readUpTo) work.settle(shard, position, time, snapshot)
    if (heldUp.length > 0) yield* rows.postponeHeldUp(heldUp)
    if (found.length > 0) takenAt = taken
    return found.length
  })

  const untilOpen = SubscriptionRef.changes(state).pipe(
    Stream.filter((value) => value._tag === "Open"),
    Stream.runHead
  )

  const reading = Effect.gen(function* () {
    let pollMillis = leastPollMillis
    while (true) {
      if (state.value._tag !== "Open") yield* Effect.andThen(forget("read messages"), untilOpen)
      if (rest.left > 0) yield* Effect.sleep(rest.left)
      changed.closeUnsafe()
      // A large read costs less per row than many small ones.
      if (work.size > settings.maxInFlight * 0.75 || work.bytes > maxBytes * 0.75) {
        yield* Effect.timeoutOption(changed.await, 1000)
      } else if ((yield* watch("read messages", read)) > 0) {
        pollMillis = leastPollMillis
      } else {
        const time = now()
        // After a read, rows may still appear behind what was read, without a commit that wakes this relay.
        const next = Math.min(rows.dueAt, time - takenAt < lateMillis ? rereadAt : Infinity)
        yield* Effect.timeoutOption(changed.await, Math.max(1, Math.min(pollMillis, next - time)))
        pollMillis = Math.min(settings.pollMillis, pollMillis * 2)
      }
    }
  })

  const removeConfirmed = Effect.gen(function* () {
    while (confirmed.length > 0) {
      const batch = confirmed.slice(0, maxBatch)
      const chosen = [array(batch.map(({ shard }) => shard)), array(batch.map(({ position }) => position))]
      const remove = run(statements.remove, chosen)
      yield* settings.keepMillis === undefined
        ? remove
        : inTransaction(sql, Effect.andThen(run(statements.recordPublished, chosen), remove))
      confirmed.splice(0, batch.length)
      for (const row of batch) {
        work.remove(row)
        // While it was postponed, later rows of its key were left out.
        if (row.wasPostponed && row.orderKey !== undefined) work.rewind(row.shard)
      }
      changed.openUnsafe()
      yield* countRelayed("published", batch.length)
    }
  })

  const removing = Effect.gen(function* () {
    while (true) {
      // Rows whose removal failed are still here: they wait for no other confirm.
      if (confirmed.length === 0) {
        removable.closeUnsafe()
        yield* removable.await
      }
      if (confirmed.length < maxBatch / 4) yield* Effect.sleep(gatherMillis)
      yield* watch("remove published messages", removeConfirmed)
    }
  })

  const renewing = Effect.gen(function* () {
    while (true) {
      for (const shard of yield* watch("renew its leases", leases.renew)) work.rewind(shard)
      changed.openUnsafe()
      yield* Effect.sleep(settings.leaseMillis / 3)
    }
  })

  /** Begins a part again when the database has failed, or a driver has died, after a growing delay. */
  const lasting = (what: Work, part: Effect.Effect<never, SqlError>) =>
    Effect.suspend(() => {
      let failures = 0
      let lastAt = -Infinity
      return Effect.forever(
        Effect.catchCause(part, (cause) => {
          if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
          if (now() - lastAt > 60_000) failures = 0
          lastAt = now()
          // Transactions of relays collide at the higher isolation levels.
          const collided = isTransient(statements.dialect, cause)
          const delay = collided ? pauseBefore(failures) : Math.min(longestDelay, 200 * 2 ** failures)
          failures++
          // The first one, and later one in some minutes.
          return Effect.andThen(
            failures % 50 === (collided ? 20 : 1)
              ? Effect.logError(
                  `AMQP outbox relay cannot ${what}, and tries again`,
                  Cause.map(cause, explainMissingTable(statements.table))
                )
              : Effect.void,
            Effect.sleep(delay)
          )
        })
      )
    })

  const stop = Effect.gen(function* () {
    yield* rows.stop(stopMillis)
    yield* logs.summarize
    yield* removeConfirmed
    yield* leases.releaseAll
  }).pipe(
    unawaited,
    // Finalizers are uninterruptible, and a timeout waits for what it cannot interrupt.
    Effect.interruptible,
    Effect.timeout(stopMillis + 3000),
    Effect.catchCause((cause) =>
      Effect.logWarning(
        "AMQP outbox relay stopped without giving up its shards: others take over when its leases end",
        cause
      )
    )
  )

  yield* Effect.acquireRelease(
    Effect.sync(() => addRelay(sql, statements.table, () => changed.openUnsafe())),
    (end) => Effect.sync(end)
  )
  // Finalizers run in reverse order: the parts below have ended when it runs.
  yield* Effect.addFinalizer(() => stop)
  // It runs before the one above, which takes seconds if the database does not answer.
  const gauges = yield* Effect.acquireRelease(
    Effect.map(Effect.context<never>(), (context) => new OutboxGauges(statements.table, context)),
    (gauges) => Effect.sync(() => gauges.clear())
  )
  const parts = [
    lasting("renew its leases", renewing),
    lasting("read messages", reading),
    lasting("remove published messages", removing),
    logs.run,
    reportFailures,
    lasting(
      "count messages",
      monitor({
        sql,
        statements,
        watch,
        gauges,
        report: yield* alarms(statements.table, settings.alarmMillis),
        intervalMillis: settings.alarmMillis
      })
    )
  ]
  if (settings.keepMillis !== undefined) {
    const remove = cleanup({
      sql,
      statements,
      watch,
      forget,
      keepMillis: settings.keepMillis,
      intervalMillis: settings.alarmMillis,
      cleansUp: () => leases.isValid(0)
    })
    parts.push(lasting("remove old records", remove))
  }
  yield* Effect.forEach(parts, (part) => Effect.forkScoped(unawaited(part)), { discard: true })
})

/**
 * Interrupts an effect without waiting for its end. A driver cancels a query by asking the server, and a server that is
 * suspended answers after many seconds, or not at all: a relay that stops would wait as long.
 */
const unawaited = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.forkDetach(Effect.interruptible(effect)), (fiber) =>
      Effect.onInterrupt(restore(Fiber.join(fiber)), () => Effect.sync(() => fiber.interruptUnsafe()))
    )
  )
