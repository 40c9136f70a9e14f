/**
 * The end of a run: it waits for outstanding messages, compares the counts of all sides, and reports whether the
 * promises were kept.
 */
import { AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import type { TestBroker } from "@effect-amqp/core/testing"
import { Console, Effect } from "effect"
import type { Mutant } from "./ends.ts"
import type { Ledger } from "./Ledger.ts"

type Broker = Pick<TestBroker.TestBroker["Service"], "awaitCensus">

/** The counts of the client when its publishers have ended. */
export interface Remainder {
  readonly pool: AmqpPool.Stats
  readonly publisher: AmqpPublisher.Stats
}

/** Waits for every message that is on its way to the consumer, and until the broker's counts equal the client's. */
export const settled = Effect.fnUntraced(function* (
  ledger: Ledger,
  broker: Broker,
  mutant: Mutant | undefined,
  expected: Partial<TestBroker.Census> = {}
) {
  // A message that is not handled by then is lost. The losses of a mutant need no long wait.
  yield* Effect.sleep(50).pipe(
    Effect.repeat({ until: () => ledger.missing === 0 }),
    Effect.timeoutOption(mutant === undefined ? "1 minute" : "5 seconds")
  )
  const pool = yield* AmqpPool.stats
  const publisher = yield* Effect.flatMap(AmqpPublisher.AmqpPublisher, ({ stats }) => stats)
  // A mutant's consumer comes and goes.
  if (mutant === undefined) {
    const channels = pool.idle + publisher.channels + 1
    yield* broker.awaitCensus({ connections: 2, channels, consumers: 1, unacked: 0, unconfirmed: 0, ...expected })
  }
  const remainder: Remainder = { pool, publisher }
  return remainder
})

export interface Run {
  readonly title: string
  readonly mutant: Mutant | undefined
  /** By `performance.now()`. */
  readonly startedAt: number
  readonly ledger: Ledger
  /** The minimum number of messages that had to be confirmed. Default: 0. */
  readonly messages?: number
  /** The effects of the faults. */
  readonly recoveries: string
  /** Memory of this process, in bytes. Default: not measured. */
  readonly memory?: number
}

/** Prints the result of a run when its connections have closed. The exit code is 1 if a promise was broken. */
export const report = Effect.fnUntraced(function* (run: Run, broker: Broker, { pool, publisher }: Remainder) {
  const { ledger, memory, messages = 0, mutant, recoveries, startedAt, title } = run
  const seconds = (performance.now() - startedAt) / 1000
  const census = yield* broker.awaitCensus({ connections: 0, channels: 0, unacked: 0 })
  const balance = ledger.balance()
  yield* Console.log(
    [
      "",
      `chaos: ${title} in ${seconds.toFixed(0)} s` + (mutant === undefined ? "" : `, mutant ${mutant}`),
      "",
      recoveries,
      "",
      `published ${balance.published}, confirmed ${balance.confirmed}, refused ${balance.refused}, ` +
        `unknown ${balance.unknownArrived + balance.unknownLost} (${balance.unknownArrived} of them arrived; ` +
        `${publisher.timedOut} by their time limit)`,
      `lost ${balance.lost}, misreported ${balance.misreported}, phantoms ${balance.phantoms}, duplicated ${balance.duplicated}`,
      `longest time without a confirm ${(ledger.longestGap / 1000).toFixed(1)} s` +
        (memory === undefined ? "" : `, memory at most ${(memory / 1e6).toFixed(0)} MB`),
      `at the end: borrowed ${pool.used}, waiting ${pool.pending}, in flight ${publisher.inFlight}, waiting to be sent ${publisher.waiting}; ` +
        `${pool.idle} idle channels and ${publisher.channels} of the publisher, as the broker counts them; ` +
        `afterwards connections ${census.connections}, channels ${census.channels}`
    ].join("\n")
  )
  const isKept =
    balance.lost === 0 &&
    balance.misreported === 0 &&
    balance.phantoms === 0 &&
    balance.confirmed >= messages &&
    pool.used === 0 &&
    pool.pending === 0 &&
    publisher.inFlight === 0 &&
    publisher.waiting === 0
  yield* Console.log(isKept ? "\nKept: nothing lost" : "\nBROKEN")
  if (!isKept) yield* Effect.sync(() => (process.exitCode = 1))
})
