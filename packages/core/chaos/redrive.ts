/**
 * A process redrives dead letters while it is killed again and again, and while its connections are cut, silenced and
 * refused. Every dead letter must arrive in the queue in which it failed.
 *
 * Run it with `npm run chaos -- --redrive`. `--short` takes seconds. It prints its seed, with which a run can be repeated
 * (what happens and in which order, but not the moments at which that meets a message). Its exit code is 1 if a message
 * was lost.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpConsumer, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Console, Effect, Fiber, References, Stream } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { parseArgs } from "node:util"
import { environment } from "../test/support/environment.ts"
import * as FaultProxy from "../test/support/FaultProxy.ts"
import { faults, type Site } from "./faults.ts"
import { type Random, randomOf } from "./random.ts"

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    letters: { type: "string" },
    faults: { type: "string" },
    short: { type: "boolean", default: false },
    mutant: { type: "string" }
  }
})

const seed = Number(values.seed ?? Date.now() % 2 ** 31)
const letters = Number(values.letters ?? (values.short ? 3000 : 100_000))
const turns = Number(values.faults ?? (values.short ? 8 : 50))
const { mutant } = values

if (mutant !== undefined && mutant !== "confirm-at-publish") {
  throw new Error(`--mutant: expected confirm-at-publish, got ${mutant}`)
}

/** The dead-letter queues, one of each type, and the queue in which all messages failed. */
const deadQueues = ["redrive.classic.dead", "redrive.quorum.dead"] as const
const work = "redrive.work"

/** About this long passes between two faults, in seconds. */
const spacing = 1.2

/** Messages per second and process, so that every fault meets messages. */
const rate = Math.ceil(letters / deadQueues.length / (turns * spacing))

// --- The processes -----------------------------------------------------------------------------------------------------

/** A process that redrives, and is started again when it was killed. */
class Redriver {
  readonly #start: () => ChildProcess
  #child: ChildProcess
  #isStopping = false
  /** What the processes before this one have reported. */
  #before = { redriven: 0, duplicates: 0 }
  #now = { redriven: 0, duplicates: 0 }
  lastWords = ""

  constructor(queue: string, url: string) {
    this.#start = () => {
      const program = join(import.meta.dirname, "redriver.ts")
      const child = spawn(process.execPath, ["--conditions=@effect-amqp/source", program, queue], {
        env: {
          ...environment(),
          CHAOS_URL: url,
          CHAOS_RATE: String(rate),
          ...(mutant !== undefined && { CHAOS_MUTANT: mutant })
        },
        stdio: ["ignore", "pipe", "pipe"]
      })
      createInterface({ input: child.stdout }).on("line", (line) => {
        const counts = JSON.parse(line) as { readonly redriven: number; readonly duplicates: number }
        if (counts.redriven < this.#now.redriven) this.#keep()
        this.#now = counts
      })
      child.stderr.on("data", (bytes) => {
        this.lastWords = (this.lastWords + String(bytes)).slice(-2000)
      })
      child.once("close", () => {
        this.#keep()
        if (!this.#isStopping) this.#child = this.#start()
      })
      return child
    }
    this.#child = this.#start()
  }

  #keep(): void {
    this.#before = { redriven: this.redriven, duplicates: this.duplicates }
    this.#now = { redriven: 0, duplicates: 0 }
  }

  get redriven(): number {
    return this.#before.redriven + this.#now.redriven
  }

  get duplicates(): number {
    return this.#before.duplicates + this.#now.duplicates
  }

  kill(): void {
    this.#child.kill("SIGKILL")
  }

  stop(): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      this.#isStopping = true
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) return resume(Effect.void)
      this.#child.once("close", () => resume(Effect.void))
      this.#child.kill("SIGKILL")
    })
  }
}

// --- The faults --------------------------------------------------------------------------------------------------------

// Half of the turns kill a process; the others are faults of its connections.
const planOf = (random: Random): ReadonlyArray<string> => {
  const names = Object.keys(faults)
  return Array.from({ length: turns }, (_, turn) => (turn % 2 === 0 ? "killed" : random.one(names)))
}

/** Repeats a look until it shows what is wanted. */
const poll = Effect.fnUntraced(function* <A, E>(what: string, look: Effect.Effect<A, E>, wanted: (seen: A) => boolean) {
  const deadline = performance.now() + 180_000
  for (;;) {
    const seen = yield* look
    if (wanted(seen)) return seen
    if (performance.now() > deadline) {
      return yield* Effect.die(new Error(`not within 3 minutes: ${what}; last ${JSON.stringify(seen)}`))
    }
    yield* Effect.sleep(100)
  }
})

// --- The run -----------------------------------------------------------------------------------------------------------

const fill = (queue: string, from: number, to: number) =>
  AmqpPublisher.publishAll(
    Stream.map(Stream.range(from, to), (i) => ({
      routingKey: queue,
      content: `letter ${i}`,
      messageId: String(i),
      headers: { "x-failed-version": 1, "x-failed-queue": work, "x-failed-error": "Chaos", "x-failed-attempt": 3 }
    })),
    { mandatory: true }
  ).pipe(Stream.runDrain)

/** Counts the messages of the work queue by their ids, until it is empty. */
const countArrived = Effect.fnUntraced(function* (messages: number) {
  const arrived = new Map<string, number>()
  let count = 0
  const consuming = yield* Effect.forkChild(
    AmqpConsumer.consume(
      work,
      ({ properties: { messageId = "" } }) =>
        Effect.sync(() => {
          count++
          arrived.set(messageId, (arrived.get(messageId) ?? 0) + 1)
        }),
      { prefetch: 1000 }
    )
  )
  yield* poll(
    "all messages of the work queue are read",
    Effect.sync(() => count),
    (count) => count >= messages
  )
  yield* Fiber.interrupt(consuming)
  return arrived
})

const run = Effect.gen(function* () {
  const broker = yield* TestBroker.TestBroker
  const proxy = yield* FaultProxy.make(broker.url)
  const startedAt = performance.now()
  const random = randomOf(seed)
  const site: Site = { proxy, broker, random, noticed: Effect.sleep("3 seconds") }

  yield* Effect.gen(function* () {
    const pool = yield* AmqpPool.AmqpPool
    yield* pool.use((channel) =>
      Effect.gen(function* () {
        yield* channel.queueDeclare(work, { queueType: "classic" })
        yield* channel.queueDeclare(deadQueues[0], { queueType: "classic" })
        yield* channel.queueDeclare(deadQueues[1], { queueType: "quorum" })
      })
    )
    const half = Math.floor(letters / 2)
    yield* fill(deadQueues[0], 1, half)
    yield* fill(deadQueues[1], half + 1, letters)
  }).pipe(Effect.provide(Amqp.layer({ url: broker.url })))

  const redrivers = yield* Effect.acquireRelease(
    Effect.sync(() => deadQueues.map((queue) => new Redriver(queue, proxy.through(broker.url)))),
    (all) => Effect.forEach(all, (redriver) => redriver.stop(), { concurrency: "unbounded", discard: true })
  )
  const redriven = () => redrivers.reduce((sum, { redriven }) => sum + redriven, 0)
  let done = 0
  yield* Effect.forkChild(
    Effect.forever(
      Effect.andThen(
        Effect.sleep("10 seconds"),
        Effect.suspend(() => Console.error(`${done} of ${turns} faults, ${redriven()} redriven`))
      )
    )
  )
  const kinds = new Set<string>()
  for (const [turn, name] of planOf(random).entries()) {
    // Each fault meets messages, and all are spread over the whole of them.
    const share = (turn * letters) / (turns + 1)
    yield* poll(`${share} messages are redriven`, Effect.sync(redriven), (now) => now > share)
    yield* Effect.sleep(random.between(20, 400))
    if (name === "killed") random.one(redrivers).kill()
    else yield* faults[name]!.make(site)
    kinds.add(name)
    done++
  }
  const countOf = (all: ReadonlyArray<TestBroker.QueueCensus>, name: string) =>
    all.find((queue) => queue.name === name)?.messages ?? Infinity
  yield* poll("the dead-letter queues are empty", broker.queues, (all) =>
    deadQueues.every((queue) => countOf(all, queue) === 0)
  )
  for (const redriver of redrivers) yield* redriver.stop()
  const messages = countOf(yield* broker.queues, work)
  const arrived = yield* countArrived(messages).pipe(Effect.provide(Amqp.layer({ url: broker.url })))
  let lost = 0
  for (let i = 1; i <= letters; i++) if (!arrived.has(String(i))) lost++
  const duplicates = messages - arrived.size
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
  yield* Console.log(`seed ${seed}, ${done} faults of ${kinds.size} kinds, ${letters} dead letters, ${seconds} s`)
  const reported = redrivers.reduce((sum, { duplicates }) => sum + duplicates, 0)
  yield* Console.log(`duplicates that the processes have reported: ${reported}`)
  yield* Console.log(`redriven ${arrived.size}, lost ${lost}, duplicates ${duplicates}`)
  if (lost > 0) process.exitCode = 1
})

NodeRuntime.runMain(
  Effect.scoped(run).pipe(
    Effect.provide(TestBroker.layerPrivate()),
    Effect.provideService(References.MinimumLogLevel, "None")
  )
)
