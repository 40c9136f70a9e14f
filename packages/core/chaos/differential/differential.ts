/**
 * Runs programs on the memory broker and on RabbitMQ, and compares what their clients see after each step. The memory
 * broker runs a program first, on a clock that the program moves. RabbitMQ then has some time for each step to show the
 * same.
 */
import { Console, Effect, Scheduler } from "effect"
import { TestClock } from "effect/testing"
import { configOf } from "../../test/support/amqp.ts"
import * as Driver from "../../src/internal/driver/driver.ts"
import { open } from "../../src/testing/internal/memory/inProcess.ts"
import { Broker } from "../../src/testing/internal/memory/model/broker.ts"
import * as Timers from "../../src/testing/internal/memory/timers.ts"
import type { Version } from "../../src/testing/internal/memory/version.ts"
import { randomOf } from "../random.ts"
import { Client, type Site } from "./client.ts"
import { answers, requests } from "./requests.ts"
import { type Program, program, shown, waiting } from "./program.ts"

/** What a client sees after a step. */
interface Sight {
  readonly outcome: string
  readonly view: string
}

export interface Difference {
  readonly seed: number
  readonly steps: Program
  /** The step after which the two differ. */
  readonly index: number
  readonly memory: Sight
  readonly rabbitmq: Sight
}

const connecting = (opener: typeof Driver.open, url: string): Promise<Driver.DriverConnection> =>
  new Promise((resolve, reject) => {
    const config = configOf(url)
    opener({ config, host: config.hosts[0]!, socketOptions: {} }, resolve, reject)
  })

const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}

let programs = 0

/** What the memory broker shows. */
const onMemory = (steps: Program, version: Version): Effect.Effect<ReadonlyArray<Sight>> =>
  Effect.gen(function* () {
    const broker = new Broker(yield* Timers.make, { version, keepsPublications: false })
    const opener = open(broker, (yield* Scheduler.Scheduler).makeDispatcher())
    const run = Effect.runPromiseWith(yield* Effect.context<never>())
    const site: Site = {
      connect: () => connecting(opener, "amqp://guest:guest@memory:5672"),
      wait: () => run(TestClock.adjust(waiting)),
      pause: () => turns(3)
    }
    return yield* Effect.promise(async () => {
      const client = new Client(site, "memory#")
      const sights: Array<Sight> = []
      for (const step of steps) {
        const outcome = await client.run(step)
        await site.pause()
        sights.push({ outcome, view: await client.look() })
      }
      await client.end()
      return sights
    })
  }).pipe(Effect.scoped, Effect.provide(TestClock.layer({ warningDelay: "1 hour" })))

/** Within this time, in milliseconds, RabbitMQ has to show what the memory broker shows. */
const patience = 2500

const onRabbitMq = async (steps: Program, url: string, expected: ReadonlyArray<Sight>) => {
  const pause = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))
  const site: Site = { connect: () => connecting(Driver.open, url), wait: () => pause(waiting), pause: () => pause(5) }
  const client = new Client(site, `rabbit${process.pid}-${++programs}#`)
  try {
    for (const [index, step] of steps.entries()) {
      const outcome = await client.run(step)
      const { outcome: expectedOutcome, view: expectedView } = expected[index]!
      let view = await client.look()
      const end = performance.now() + (outcome === expectedOutcome ? patience : 0)
      while (view !== expectedView && performance.now() < end) {
        await site.pause()
        view = await client.look()
      }
      if (outcome !== expectedOutcome || view !== expectedView) return { index, rabbitmq: { outcome, view } }
    }
    return undefined
  } finally {
    await client.end().catch(() => {})
  }
}

/** RabbitMQ has failed, which is no behavior that a client may expect. 3.10 does in some programs that reuse the name of a queue. */
const hasFailed = ({ rabbitmq: { outcome, view } }: { readonly rabbitmq: Sight }): boolean =>
  `${outcome}\n${view}`.includes("541 INTERNAL_ERROR")

/** Compares one program. `undefined`: there is no difference. */
export const compare = (seed: number, steps: Program, url: string, version: Version) =>
  Effect.gen(function* () {
    const memory = yield* onMemory(steps, version)
    const found = yield* Effect.promise(() => onRabbitMq(steps, url, memory))
    const isFailure = found !== undefined && hasFailed(found)
    if (isFailure)
      yield* Console.log(`Program ${seed}: RabbitMQ fails with 541 at step ${found.index}, and is not compared further`)
    return found === undefined || isFailure
      ? undefined
      : ({ seed, steps, memory: memory[found.index]!, ...found } satisfies Difference)
  })

/** Removes steps without which the two still differ. */
export const shrink = (difference: Difference, url: string, version: Version) =>
  Effect.gen(function* () {
    let smallest = { ...difference, steps: difference.steps.slice(0, difference.index + 1) }
    for (let size = Math.ceil(smallest.steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let at = smallest.steps.length - size; at >= 0; at -= size) {
        const steps = smallest.steps.filter((_, index) => index < at || index >= at + size)
        const found = yield* compare(difference.seed, steps, url, version)
        if (found !== undefined) smallest = { ...found, steps: steps.slice(0, found.index + 1) }
        at = Math.min(at, smallest.steps.length)
      }
    }
    return smallest
  })

export interface Options {
  readonly url: string
  readonly version: Version
  readonly seed: number
  readonly programs: number
  readonly steps: number
  /** Whether programs wait for times to live, which takes RabbitMQ real time. */
  readonly waits: boolean
  /** How many differences to look for. */
  readonly most: number
}

/** Runs programs until some of them show a difference three times, and returns those as small as they get. */
export const run = ({ most, programs: count, seed, steps: length, url, version, waits }: Options) =>
  Effect.gen(function* () {
    const differences: Array<Difference> = []
    yield* Effect.forEach(
      Array.from({ length: count }, (_, index) => seed + index),
      (each) =>
        Effect.gen(function* () {
          if (differences.length >= most) return
          const steps = program(randomOf(each), length, waits)
          let found = yield* compare(each, steps, url, version)
          // On a busy machine, a time to live may pass early on RabbitMQ.
          for (let again = 0; again < 2 && found !== undefined; again++) {
            found = yield* compare(each, steps, url, version)
          }
          if (found !== undefined) differences.push(found)
        }),
      { concurrency: 16 }
    )
    return yield* Effect.forEach(differences, (difference) => shrink(difference, url, version), { concurrency: 4 })
  })

/** A request that the two answer differently, and for which the memory broker does not say that it is left out. */
export interface Disagreement {
  readonly request: string
  readonly memory: string
  readonly rabbitmq: string
}

/** Asks both brokers for each single request. */
export const compareRequests = (url: string, version: Version) =>
  Effect.gen(function* () {
    const broker = new Broker(yield* Timers.make, { version, keepsPublications: false })
    const opener = open(broker, (yield* Scheduler.Scheduler).makeDispatcher())
    const memory = yield* Effect.promise(() =>
      answers(() => connecting(opener, "amqp://guest:guest@memory:5672"), "a#")
    )
    const rabbitmq = yield* Effect.promise(() => answers(() => connecting(Driver.open, url), `r${process.pid}#`))
    const all = requests.map(({ title: request }, index): Disagreement => ({
      request,
      memory: memory[index]!,
      rabbitmq: rabbitmq[index]!
    }))
    return {
      disagreements: all.filter(
        (each) => each.memory !== each.rabbitmq && !each.memory.includes("MemoryBroker has no")
      ),
      leftOut: all.filter(({ memory }) => memory.includes("MemoryBroker has no")).map(({ request }) => request)
    }
  }).pipe(Effect.scoped)

export const report = ({ index, memory, rabbitmq, seed, steps }: Difference): string =>
  [
    `Program ${seed}, step ${index}:`,
    shown(steps),
    "--- the memory broker",
    memory.outcome,
    memory.view,
    "--- RabbitMQ",
    rabbitmq.outcome,
    rabbitmq.view
  ].join("\n")

/** The version that the memory broker has to play beside the broker at this URL. */
export const versionOf = (url: string): Effect.Effect<Version> =>
  Effect.promise(async () => {
    const connection = await connecting(Driver.open, url)
    const { product } = connection
    connection.destroy(new Error("its version is known"))
    return product.startsWith("RabbitMQ 3.") ? "3.10" : "4.3"
  })
