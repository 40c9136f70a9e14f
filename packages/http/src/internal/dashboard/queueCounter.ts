/** Asks the broker at a slow pace how many messages and consumers queues have, by passive declarations. */
import { AmqpConnection, AmqpConsumer, type AmqpError, AmqpPool } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { QueueCounts } from "../health/situation.ts"

export interface QueueCounting {
  /** Queues that are counted in addition to those of the consumers. */
  readonly queues: ReadonlyArray<string>
  /** Time between two rounds, in milliseconds. */
  readonly interval: number
}

/** What the counter knows. */
export interface Counted {
  /** The last counts of each queue. */
  readonly counts: ReadonlyMap<string, QueueCounts>
  /** The queues that the broker refuses to count, with the tag of its error. */
  readonly refused: ReadonlyMap<string, string>
}

/** Maximum number of queues per round, so that a round is short. */
export const mostQueues = 100

const timeout = "5 seconds"

/** Counts until the scope closes. */
export const watch = Effect.fnUntraced(function* ({
  interval,
  queues
}: QueueCounting): Effect.fn.Return<
  Counted,
  never,
  AmqpConnection.AmqpConnection | AmqpConsumer.AmqpConsumer | AmqpPool.AmqpPool | Scope.Scope
> {
  const { flow, state } = yield* AmqpConnection.AmqpConnection
  const pool = yield* AmqpPool.AmqpPool
  const consumer = yield* AmqpConsumer.AmqpConsumer
  const clock = yield* Clock.Clock
  const statuses = Effect.provideService(AmqpConsumer.statuses, AmqpConsumer.AmqpConsumer, consumer)
  const counts = new Map<string, QueueCounts>()
  const refused = new Map<string, string>()

  const forget = (queue: string) => {
    counts.delete(queue)
    refused.delete(queue)
  }
  const onFailure = (queue: string, { reason }: AmqpError.AmqpError) => {
    // While there is no connection or no channel, the last counts stay, with their time.
    if (state.value._tag !== "Open" || reason._tag === "ConnectionClosed" || reason._tag === "AcquireTimeout") return
    forget(queue)
    if (reason._tag === "NotFound") counts.set(queue, undefined)
    else refused.set(queue, reason._tag)
  }

  const count = (queue: string) =>
    Effect.suspend(() =>
      // A borrower that waits is more important, and RabbitMQ reads nothing from a connection that it blocks.
      Effect.flatMap(pool.stats, ({ max, pending, used }) =>
        pending > 0 || used >= max || state.value._tag !== "Open" || flow.value._tag === "Blocked"
          ? Effect.void
          : Effect.match(
              Effect.timeoutOption(
                pool.use((channel) => channel.queueDeclarePassive(queue)),
                timeout
              ),
              {
                onFailure: (error) => onFailure(queue, error),
                onSuccess: (answer) => {
                  forget(queue)
                  if (answer._tag === "None") return void refused.set(queue, "timeout")
                  const { consumerCount, messageCount } = answer.value
                  counts.set(queue, {
                    ready: messageCount,
                    consumers: consumerCount,
                    at: clock.currentTimeMillisUnsafe()
                  })
                }
              }
            )
      )
    )

  const round = Effect.flatMap(statuses, (all) => {
    const wanted = new Set([...queues, ...all.map(({ queue }) => queue)].slice(0, 10 * mostQueues))
    const names = Array.from(wanted).slice(0, mostQueues)
    for (const queue of [...counts.keys(), ...refused.keys()]) if (!names.includes(queue)) forget(queue)
    return Effect.forEach(names, count, { discard: true })
  })

  yield* Effect.forkScoped(Effect.forever(Effect.andThen(round, Effect.sleep(interval))))
  return { counts, refused }
})
