/** Waits until nothing moves in the broker. */
import * as Effect from "effect/Effect"
import type { Broker } from "./model/broker.ts"
import type { Queue } from "./model/queue.ts"

const busyQueues = (broker: Broker): ReadonlyArray<Queue> =>
  [...broker.vhosts.values()]
    .flatMap((vhost) => Array.from(vhost.queues.values()))
    .filter(({ consumers, ready, unsettled }) => unsettled > 0 || (ready > 0 && consumers.length > 0))

const describe = (broker: Broker): string =>
  busyQueues(broker)
    .map(
      ({ consumers, name, ready, unsettled }) =>
        `${name}: ${ready} ready, ${unsettled} unsettled, ${consumers.length} consumers`
    )
    .join("; ")

/**
 * When nothing has happened in this many turns of the event loop, nothing moves: the library takes a few of them between
 * an event and what it sends because of it.
 */
const quietTurns = 10

const turn = Effect.callback<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

/** Waits until nothing moves, whether or not deliveries are settled: a handler may wait for time to pass. */
export const still = (broker: Broker): Effect.Effect<void> =>
  Effect.gen(function* () {
    let seen = broker.activity
    for (let quiet = 0; quiet < quietTurns; quiet++) {
      yield* turn
      if (broker.activity !== seen) quiet = 0
      seen = broker.activity
    }
  })

const nextTurn = (broker: Broker): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const watcher = () => {
      broker.watchers.delete(watcher)
      resume(Effect.void)
    }
    broker.watchers.add(watcher)
    return Effect.sync(() => broker.watchers.delete(watcher))
  })

/** Waits until nothing moves, and all deliveries are settled. */
export const idle = (broker: Broker): Effect.Effect<void> =>
  Effect.gen(function* () {
    do {
      while (busyQueues(broker).length > 0) yield* nextTurn(broker)
      yield* still(broker)
    } while (busyQueues(broker).length > 0)
  }).pipe(
    Effect.timeoutOrElse({
      duration: "5 seconds",
      orElse: () => Effect.die(new Error(`awaitIdle: expected a broker at rest, got ${describe(broker) || "traffic"}`))
    })
  )
