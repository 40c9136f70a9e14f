/** Asks the broker at a slow pace how many messages and consumers queues have, by passive declarations. */
import { AmqpConnection, AmqpConsumer, AmqpPool } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { QueueCounts } from "../health/situation.ts"

export interface QueueCounting {
  /** Queues that are counted in addition to those of the consumers. */
  readonly queues: ReadonlyArray<string>
  /** Time between two rounds, in milliseconds. */
  readonly interval: number
}

/** Maximum number of queues per round, so that a round is short. */
export const mostQueues = 100

const timeout = "5 seconds"

/** Counts until the scope closes. The returned map has the last counts of each queue. */
export const watch = Effect.fnUntraced(function* ({ interval, queues }: QueueCounting) {
  const { flow, state } = yield* AmqpConnection.AmqpConnection
  const pool = yield* AmqpPool.AmqpPool
  const consumer = yield* AmqpConsumer.AmqpConsumer
  const clock = yield* Clock.Clock
  const statuses = Effect.provideService(AmqpConsumer.statuses, AmqpConsumer.AmqpConsumer, consumer)
  const counted = new Map<string, QueueCounts>()

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
                onFailure: ({ reason }) => {
                  if (reason._tag === "NotFound") counted.set(queue, undefined)
                  // The last counts would look like present ones.
                  else counted.delete(queue)
                },
                onSuccess: (answer) => {
                  if (answer._tag === "None") return void counted.delete(queue)
                  const { consumerCount, messageCount } = answer.value
                  counted.set(queue, {
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
    for (const queue of counted.keys()) if (!names.includes(queue)) counted.delete(queue)
    return Effect.forEach(names, count, { discard: true })
  })

  yield* Effect.forkScoped(Effect.forever(Effect.andThen(round, Effect.sleep(interval))))
  return counted as ReadonlyMap<string, QueueCounts>
})
