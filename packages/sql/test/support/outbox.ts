/** The outbox under test: its queues, its relays, and what stands in its tables. */
import {
  AmqpChannel,
  type AmqpConnection,
  type AmqpError,
  AmqpMessage,
  type AmqpPool,
  AmqpPublisher
} from "@effect-amqp/core"
import { AmqpOutbox } from "@effect-amqp/sql"
import { Clock, Effect, Exit, Latch, Layer, Queue, Scope } from "effect"
import { SqlClient } from "effect/sql"
import { until } from "../../../core/test/support/polling.ts"

type Pooled<A> = Effect.Effect<A, AmqpError.AmqpError, AmqpPool.AmqpPool>

let queues = 0

/** A queue of one test. */
export const freshQueue = (options?: AmqpChannel.QueueDeclareOptions, name = `queue-${++queues}`): Pooled<string> =>
  Effect.as(Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(name, options))), name)

/** A name that no queue or exchange of these tests has. */
export const unknownName = () => `unknown-${++queues}`

/** Waits for a number of deliveries of a queue, and removes them from it. */
export const take = (queue: string, count: number, seconds = 20): Pooled<ReadonlyArray<AmqpMessage.Delivery>> =>
  Effect.scoped(
    AmqpChannel.use((channel) =>
      Effect.gen(function* () {
        const { consumerTag, deliveries } = yield* channel.consume(queue, { noAck: true })
        const taken = yield* Queue.takeN(deliveries, count)
        // Without this it would take new messages until its channel has closed.
        yield* channel.cancel(consumerTag)
        return taken
      })
    )
  ).pipe(
    Effect.catchTag("Done", () => Effect.die(new Error(`${queue}: its consumer has ended`))),
    Effect.timeoutOrElse({
      duration: `${seconds} seconds`,
      orElse: () => Effect.die(new Error(`${queue}: no ${count} messages within ${seconds} seconds`))
    })
  )

/** The same, as texts. */
export const texts = (queue: string, count: number, seconds?: number): Pooled<ReadonlyArray<string>> =>
  Effect.map(take(queue, count, seconds), (all) => all.map(AmqpMessage.text))

/** Number of messages that a queue has. */
export const depth = (queue: string): Pooled<number> =>
  Effect.map(
    Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive(queue))),
    ({ messageCount }) => messageCount
  )

export const waiting = Effect.map(AmqpOutbox.stats, (stats) => stats.waiting)

/** Waits until every message of the outbox is published and removed. */
export const drained = until(waiting, (count) => count === 0, "messages in the outbox", 20)

/** Waits until as many messages are set aside. */
export const setAside = (count: number) =>
  Effect.andThen(
    until(AmqpOutbox.stats, (stats) => stats.setAside >= count, "messages set aside", 20),
    AmqpOutbox.listSetAside()
  )

/** Removes what earlier tests have left. */
export const emptied = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  for (const table of ["", "_set_aside", "_published", "_relay"]) yield* sql.unsafe(`DELETE FROM amqp_outbox${table}`)
})

/** Starts a relay, and returns what stops it before the scope closes. */
export const startRelay = Effect.fnUntraced(function* (
  options?: AmqpOutbox.RelayOptions
): Effect.fn.Return<
  Effect.Effect<void>,
  never,
  SqlClient.SqlClient | AmqpPublisher.AmqpPublisher | AmqpConnection.AmqpConnection | Scope.Scope
> {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  yield* Layer.buildWithScope(Layer.fresh(AmqpOutbox.layerRelay(options)), scope)
  return Scope.close(scope, Exit.void)
})

/** Number of shards by their owner. */
export const shards = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql.unsafe<{ owner: string | null; count: number }>(
    "SELECT owner, count(*) AS count FROM amqp_outbox_shard WHERE owner IS NOT NULL GROUP BY owner ORDER BY 2"
  )
  return rows.map(({ count }) => Number(count))
})

/** Waits until relays own as many shards each, in ascending order. */
export const untilShards = (...counts: ReadonlyArray<number>) =>
  until(shards, (found) => found.join() === counts.join(), "shards of relays", 20)

/** The numbers from 0. */
export const range = (length: number) => Array.from({ length }, (_, i) => i)

/** A publisher whose publishes can be held back after their confirm. */
export const gatedPublisher = Effect.gen(function* () {
  const publisher = yield* AmqpPublisher.AmqpPublisher
  const gate = Latch.makeUnsafe(true)
  const seen = { started: 0, underWay: 0, most: 0 }
  const publish: typeof publisher.publish = (message, options) =>
    Effect.suspend(() => {
      seen.started++
      seen.most = Math.max(seen.most, ++seen.underWay)
      return Effect.tap(publisher.publish(message, options), () => gate.await)
    }).pipe(Effect.ensuring(Effect.sync(() => seen.underWay--)))
  const gated = AmqpPublisher.AmqpPublisher.of({ ...publisher, publish })
  return {
    gate,
    seen,
    /** Starts a relay that publishes with it. */
    startRelay: (options?: AmqpOutbox.RelayOptions) =>
      Effect.provideService(startRelay(options), AmqpPublisher.AmqpPublisher, gated)
  }
})

/** A clock whose monotonic time jumps ahead, for a relay that is to be some seconds older. */
export const jumpingClock = Effect.map(Clock.Clock, (clock) => {
  let ahead = 0n
  const jumping: Clock.Clock = Object.assign(Object.create(clock), {
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + ahead
  })
  return {
    clock: jumping,
    jump: (millis: number) => {
      ahead += BigInt(millis) * 1_000_000n
    }
  }
})
