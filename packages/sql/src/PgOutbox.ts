/**
 * Notifications between processes: a commit in one process wakes the relays in others.
 *
 * **When to use**
 *
 * Use when a relay runs in another process than the publishers, and its `pollInterval` (1 second by default) is too long a
 * delay. Relays in the publisher's own process are woken without it.
 *
 * **Details**
 *
 * `layerNotify` goes into processes that publish, `layerListen` into processes with a relay. A notification is sent after
 * the commit, in a statement of its own, at most one per 10 ms: a `NOTIFY` inside of the transactions would serialize their
 * commits, because PostgreSQL takes a lock over all of its databases while such a transaction commits. A notification that
 * is lost delays a message until the next poll, and loses nothing.
 *
 * @since 0.1.0
 */
import { PgClient } from "@effect/sql-pg"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import { monotonicMillis } from "./internal/monotonicMillis.ts"
import { checkPrefix, TablePrefix } from "./internal/database/tables.ts"
import { addNotifier, wakeRelays } from "./internal/outbox/wakeups.ts"

/** Shortest time between two notifications of a process. */
const gatherMillis = 10

/** Number of failures to listen, in succession, of which one is logged. */
const failuresPerLog = 50

/** Time without a failure after which the next one is logged. In milliseconds. */
const quietMillis = 60_000

const names = Effect.map(TablePrefix, (given) => {
  const prefix = checkPrefix(given)
  // PostgreSQL's identifiers have 63 bytes at most. Two outboxes on one channel only wake each other's relays.
  return { table: `${prefix}outbox`, channel: `${prefix.replace(".", "_")}outbox`.slice(-63) }
})

/**
 * Notifies other processes after each commit of this process that has messages.
 *
 * **When to use**
 *
 * Use in processes that publish with `AmqpOutbox.publish`, if the relays run elsewhere and use `layerListen`.
 *
 * **Details**
 *
 * It uses a connection of the client's pool for each notification. A notification that fails is logged at debug level.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNotify: Layer.Layer<never, never, PgClient.PgClient> = Layer.effectDiscard(
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    const { channel, table } = yield* names
    const committed = Latch.makeUnsafe()
    yield* Effect.acquireRelease(
      Effect.sync(() => addNotifier(sql, table, () => committed.openUnsafe())),
      (end) => Effect.sync(end)
    )
    const notify = Effect.gen(function* () {
      yield* committed.await
      committed.closeUnsafe()
      yield* sql
        .notify(channel, "")
        .pipe(
          Effect.catch((error) =>
            Effect.logDebug(
              `AMQP outbox: a notification on ${channel} failed: relays find the messages by polling`,
              error
            )
          )
        )
      yield* Effect.sleep(gatherMillis)
    })
    yield* Effect.forkScoped(Effect.forever(notify))
  })
)

/**
 * Wakes the relays of this process when another process notifies.
 *
 * **When to use**
 *
 * Use in processes with `AmqpOutbox.layerRelay`, if the publishers use `layerNotify`.
 *
 * **Details**
 *
 * It holds a connection of its own for `LISTEN`. While that is lost, relays poll, and it is opened again every 5 seconds.
 *
 * **Example** (A process that relays what others write)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { PgClient } from "@effect/sql-pg"
 * import { Amqp, AmqpLive } from "@effect-amqp/core"
 * import { AmqpOutbox } from "@effect-amqp/sql"
 * import { PgOutbox } from "@effect-amqp/sql/pg"
 * import { Config, Layer } from "effect"
 *
 * const Database = PgClient.layerConfig({ url: Config.Redacted("DATABASE_URL") })
 *
 * Layer.merge(AmqpOutbox.layerRelay(), PgOutbox.layerListen).pipe(
 *   Layer.provide([AmqpLive, Database]),
 *   Amqp.launch,
 *   NodeRuntime.runMain
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerListen: Layer.Layer<never, never, PgClient.PgClient> = Layer.effectDiscard(
  Effect.gen(function* () {
    const sql = yield* PgClient.PgClient
    const { channel, table } = yield* names
    const listen = Effect.scoped(
      Effect.gen(function* () {
        const notifications = yield* sql.listen(channel)
        // What was committed while nothing listened.
        wakeRelays(sql, table)
        return yield* Effect.forever(Effect.map(Queue.takeAll(notifications), () => wakeRelays(sql, table)))
      })
    )
    const clock = yield* Clock.Clock
    let failures = 0
    let failedAt = -Infinity
    const lasting = listen.pipe(
      Effect.tapError((error) =>
        Effect.suspend(() => {
          const now = monotonicMillis(clock)
          if (now - failedAt > quietMillis) failures = 0
          failedAt = now
          // The first failure is logged, and then one of 50, which is one in about four minutes.
          return failures++ % failuresPerLog === 0
            ? Effect.logWarning(`AMQP outbox: listening on ${channel} failed, relays poll until it works again`, error)
            : Effect.void
        })
      ),
      Effect.retry(Schedule.spaced("5 seconds")),
      Effect.orDie
    )
    yield* Effect.forkScoped(lasting)
  })
)
