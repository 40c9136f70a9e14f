/**
 * Publishers and consumers run at full speed while their connections are cut, throttled, silenced and refused. Every
 * confirmed message must be handled.
 *
 * Run it with `npm run chaos`. `--short` takes some minutes, and the tests run less than that. It prints its seed, with
 * which a run can be repeated (the faults and their order, but not the moments at which they meet a message). Its exit
 * code is 1 if a promise was broken.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpChannel, AmqpConfig, AmqpConnection } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Console, Effect, Fiber, References, Stream, SubscriptionRef } from "effect"
import { parseArgs } from "node:util"
import * as FaultProxy from "../test/support/FaultProxy.ts"
import { borrower, consumer, mutantOf, publisher } from "./ends.ts"
import { faults, sequence, type Site } from "./faults.ts"
import { shown } from "./figures.ts"
import { Ledger } from "./Ledger.ts"
import { randomOf } from "./random.ts"
import * as Reckoning from "./reckoning.ts"

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    messages: { type: "string" },
    faults: { type: "string" },
    publishers: { type: "string", default: "256" },
    short: { type: "boolean", default: false },
    /** One kind of fault, by its name. */
    only: { type: "string" },
    mutant: { type: "string" }
  }
})

const seed = Number(values.seed ?? Date.now() % 2 ** 31)
const messages = Number(values.messages ?? (values.short ? 50_000 : 1_000_000))
const turns = Number(values.faults ?? (values.short ? 20 : 200))
const mutant = mutantOf(values.mutant)

const queue = "chaos"

// --- The faults ------------------------------------------------------------------------------------------------------

/** When the publishers' connection was last lost, and last open again, by `performance.now()`. */
class Times {
  lostAt = 0
  openAt = 0
  /** The first loss since `begin`. */
  firstLostAt = 0

  begin(): number {
    this.firstLostAt = 0
    return performance.now()
  }

  readonly watch = Effect.gen({ self: this }, function* () {
    const { state } = yield* AmqpConnection.AmqpConnection
    let wasOpen = false
    yield* Stream.runForEach(SubscriptionRef.changes(state), ({ _tag }) =>
      Effect.sync(() => {
        const isOpen = _tag === "Open"
        if (isOpen) this.openAt = performance.now()
        else if (wasOpen) {
          this.lostAt = performance.now()
          this.firstLostAt ||= this.lostAt
        }
        wasOpen = isOpen
      })
    )
  })
}

interface Recovery {
  readonly fault: string
  /** From the beginning of the fault to the loss of the connection, in milliseconds; undefined if it was not lost. */
  readonly noticed: number | undefined
  /**
   * From the end of the fault to the next confirm, in milliseconds. If the connection was lost, this is a confirm on
   * the next one.
   */
  readonly recovered: number
}

const injectFaults = Effect.fnUntraced(function* (
  site: Site,
  ledger: Ledger,
  times: Times,
  recoveries: Array<Recovery>
) {
  const kinds = values.only === undefined ? sequence(site.random, turns) : Array(turns).fill(values.only)
  const until = (condition: () => boolean) => Effect.sleep(2).pipe(Effect.repeat({ until: condition }))
  for (const [turn, name] of kinds.entries()) {
    // Each fault meets traffic, and all are spread over the whole of it. Most connections have been open for
    // healthyAfter.
    const share = ((turn + 1) * messages) / (turns + 1)
    const { confirmed } = ledger
    yield* until(() => ledger.confirmed >= share && ledger.confirmed > confirmed)
    yield* Effect.sleep(site.random.between(500, 2500))
    const { cuts, make } = faults[name]!
    const begun = times.begin()
    yield* make(site)
    const ended = performance.now()
    // If the connection is lost only later, the time counts from its next opening.
    let recovered = ledger.stopwatch(ended)
    if (cuts) {
      // A fault of the consumer's connection alone, and silence that ended before it was noticed, are not visible
      // here.
      yield* Effect.timeoutOption(
        until(() => times.lostAt > begun && times.openAt > times.lostAt),
        times.lostAt > begun ? "1 minute" : "1 second"
      )
    }
    const wasLost = times.lostAt > begun
    if (wasLost) {
      yield* until(() => times.openAt > times.lostAt)
      if (times.lostAt > ended) recovered = ledger.stopwatch(ended)
    }
    yield* until(() => recovered.time !== undefined)
    recoveries.push({
      fault: name,
      noticed: wasLost ? times.firstLostAt - begun : undefined,
      recovered: recovered.time!
    })
  }
})

// --- The report --------------------------------------------------------------------------------------------------------

const recoveryTable = (recoveries: ReadonlyArray<Recovery>): string =>
  [
    `${"ms: median and worst".padEnd(32)} times   noticed after       first confirm after`,
    ...Object.keys(faults).flatMap((name) => {
      const ofName = recoveries.filter(({ fault }) => fault === name)
      if (ofName.length === 0) return []
      const noticed = ofName.flatMap((recovery) => recovery.noticed ?? [])
      const recovered = ofName.map((recovery) => recovery.recovered)
      return [`${name.padEnd(32)} ${String(ofName.length).padStart(5)} ${shown(noticed)}    ${shown(recovered)}`]
    })
  ].join("\n")

// --- The run -----------------------------------------------------------------------------------------------------------

const run = Effect.gen(function* () {
  const broker = yield* TestBroker.TestBroker
  const proxy = yield* FaultProxy.make(broker.url)
  const config = yield* AmqpConfig.fromUrl(proxy.through(broker.url), {
    heartbeat: "1 second",
    connectTimeout: "2 seconds"
  })
  const ledger = new Ledger()
  const startedAt = performance.now()
  let memory = 0
  let isDone = false

  const traffic = Effect.gen(function* () {
    yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue)))
    const { state } = yield* AmqpConnection.AmqpConnection
    const noticed = SubscriptionRef.changes(state).pipe(
      Stream.filter(({ _tag }) => _tag !== "Open"),
      Stream.runHead,
      Effect.timeoutOption("6 seconds"),
      Effect.asVoid
    )
    const consuming = yield* Effect.forkChild(consumer(queue, ledger, mutant))
    yield* broker.awaitCensus({ consumers: 1 })
    const publishers = yield* Effect.forEach(Array.from({ length: Number(values.publishers) }), () =>
      Effect.forkChild(publisher(queue, ledger, () => isDone, mutant))
    )
    const borrowers = yield* Effect.forEach(Array.from({ length: 16 }), () =>
      Effect.forkChild(borrower(queue, () => isDone))
    )
    const times = new Times()
    yield* Effect.forkChild(times.watch)
    yield* Effect.forkChild(
      Effect.sync(() => {
        memory = Math.max(memory, process.memoryUsage().rss)
      }).pipe(Effect.andThen(Effect.sleep(200)), Effect.forever)
    )
    const recoveries: Array<Recovery> = []
    const progress = Effect.suspend(() =>
      Console.error(`${recoveries.length} of ${turns} faults, ${ledger.confirmed} messages confirmed`)
    )
    yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sleep("20 seconds"), progress)))
    yield* injectFaults({ proxy, broker, random: randomOf(seed), noticed }, ledger, times, recoveries)
    yield* Effect.sleep(20).pipe(Effect.repeat({ until: () => ledger.confirmed >= messages }))
    isDone = true
    yield* Fiber.joinAll([...publishers, ...borrowers])
    const remainder = yield* Reckoning.settled(ledger, broker, mutant, { messages: 0 })
    yield* Fiber.interrupt(consuming)
    return { recoveries, remainder }
  })

  const { recoveries, remainder } = yield* traffic.pipe(Effect.provide(Amqp.fromConfig(config)))
  const kinds = new Set(recoveries.map(({ fault }) => fault)).size
  const title = `seed ${seed}, ${recoveries.length} faults of ${kinds} kinds`
  const run = { title, mutant, startedAt, ledger, messages, recoveries: recoveryTable(recoveries), memory }
  yield* Reckoning.report(run, broker, remainder)
})

NodeRuntime.runMain(
  Effect.scoped(run).pipe(
    Effect.provide(TestBroker.layerPrivate()),
    Effect.provideService(References.MinimumLogLevel, "None")
  )
)
