/**
 * Publishers and consumers run at full speed on a cluster of three nodes, one of which is killed, paused or cut off
 * from the others, again and again. Every message that a quorum queue has confirmed must be handled.
 *
 * Run it with `npm run chaos -- --cluster`. `--short` has one fault of each kind. It prints its seed, with which a run
 * can be repeated (the faults, their order, and the role of the node, but not the moments at which they meet a
 * message). Its exit code is 1 if a promise was broken.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpChannel, AmqpConfig, AmqpConnection, AmqpConsumer } from "@effect-amqp/core"
import { Console, Effect, Fiber, References } from "effect"
import { parseArgs } from "node:util"
import * as Cluster from "../test/support/Cluster.ts"
import { borrower, consumer, mutantOf, publisher } from "./ends.ts"
import { shown } from "./figures.ts"
import { Ledger } from "./Ledger.ts"
import { type Random, randomOf } from "./random.ts"
import * as Reckoning from "./reckoning.ts"

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    faults: { type: "string" },
    publishers: { type: "string", default: "64" },
    short: { type: "boolean", default: false },
    mutant: { type: "string" }
  }
})

const seed = Number(values.seed ?? Date.now() % 2 ** 31)
const turns = Number(values.faults ?? (values.short ? 3 : 12))
const mutant = mutantOf(values.mutant)

const queue = "chaos"

type Node = Cluster.Node

// --- The faults ------------------------------------------------------------------------------------------------------

const kinds = {
  "kill -9": { make: (node: Node) => node.kill9, end: (node: Node) => node.start },
  partition: { make: (node: Node) => node.cut, end: (node: Node) => node.heal },
  pause: { make: (node: Node) => node.pause, end: (node: Node) => node.resume }
}

type Kind = keyof typeof kinds

const roles = ["publishers", "consumers", "leader", "any"] as const
type Role = (typeof roles)[number]

interface Turn {
  readonly kind: Kind
  readonly role: Role
}

const shuffled = <A>(random: Random, values: ReadonlyArray<A>): Array<A> => {
  const rest = [...values]
  return values.map(() => rest.splice(random.below(rest.length), 1)[0]!)
}

/** Each kind occurs in every three turns, and each kind has met each role after twelve. */
const sequence = (random: Random, count: number): ReadonlyArray<Turn> => {
  const all: Array<Turn> = []
  while (all.length < count) {
    const names = Object.keys(kinds) as Array<Kind>
    const met = new Map(names.map((kind) => [kind, shuffled(random, roles)]))
    for (let i = 0; i < roles.length; i++) {
      all.push(...shuffled(random, names).map((kind) => ({ kind, role: met.get(kind)![i]! })))
    }
  }
  return all.slice(0, count)
}

interface Recovery extends Turn {
  /** The roles of the node. */
  readonly hit: string
  /** From the fault to the first confirm of a message that was published after it, in milliseconds. */
  readonly confirmed: number
  /** From the end of the fault to a complete cluster, in milliseconds. */
  readonly whole: number
}

const until = (what: string, condition: () => boolean) =>
  Effect.sleep(2).pipe(
    Effect.repeat({ until: condition }),
    Effect.timeoutOrElse({
      duration: "2 minutes",
      orElse: () => Effect.die(new Error(`not within 2 minutes: ${what}`))
    })
  )

/** How long a fault lasts without a confirm. This is longer than the other nodes take to give up a paused node. */
const confirmTimeout = "20 seconds"

const injectFaults = Effect.fnUntraced(function* (random: Random, ledger: Ledger, recoveries: Array<Recovery>) {
  const cluster = yield* Cluster.Cluster
  const publishers = yield* AmqpConnection.AmqpConnection
  const consumers = yield* Effect.flatMap(AmqpConsumer.AmqpConsumer, ({ connection }) => connection)
  const nodeOf = ({ state }: AmqpConnection.AmqpConnection["Service"]) =>
    until("a connection is open", () => state.value._tag === "Open").pipe(
      Effect.map(() => {
        const peer = state.value._tag === "Open" ? state.value.peer : ""
        return cluster.nodes.find(({ host }) => peer === `${host.host}:${host.port}`)!
      })
    )
  for (const { kind, role } of sequence(random, turns)) {
    const { confirmed } = ledger
    yield* until("messages are confirmed", () => ledger.confirmed > confirmed + 500)
    yield* Effect.sleep(random.between(0, 1000))
    const any = random.below(cluster.nodes.length)
    const lasting = random.between(500, 3000)
    const at = {
      publishers: yield* nodeOf(publishers),
      consumers: yield* nodeOf(consumers),
      leader: yield* cluster.leader(queue),
      any: cluster.nodes[any]!
    }
    const node = at[role]
    const begun = performance.now()
    yield* kinds[kind].make(node)
    const stopwatch = ledger.stopwatch(begun)
    const isConfirmed = until(`a confirm after ${kind} of the node of ${role}`, () => stopwatch.time !== undefined)
    // RabbitMQ 4.3 has no partition handling: a node that is cut off keeps its clients, and confirms nothing until it
    // is back.
    yield* Effect.timeoutOption(isConfirmed, confirmTimeout)
    yield* Effect.sleep(lasting)
    const ended = performance.now()
    yield* kinds[kind].end(node)
    yield* cluster.ready
    yield* isConfirmed
    recoveries.push({
      kind,
      role,
      hit: roles.filter((role) => role !== "any" && at[role] === node).join(", ") || "a follower",
      confirmed: stopwatch.time!,
      whole: performance.now() - ended
    })
  }
})

// --- The report --------------------------------------------------------------------------------------------------------

const report = (recoveries: ReadonlyArray<Recovery>): string =>
  [
    "     fault      chosen by   hits                             first confirm after    whole again after",
    ...recoveries.map(
      ({ confirmed, hit, kind, role, whole }, i) =>
        `${String(i + 1).padStart(3)}  ${kind.padEnd(10)} ${role.padEnd(11)} ${hit.padEnd(30)} ` +
        `${confirmed.toFixed(0).padStart(18)} ms ${whole.toFixed(0).padStart(17)} ms`
    ),
    "",
    "ms: median and worst   times   first confirm after",
    ...Object.keys(kinds).map((kind) => {
      const times = recoveries.filter((recovery) => recovery.kind === kind).map(({ confirmed }) => confirmed)
      return `${kind.padEnd(22)} ${String(times.length).padStart(5)} ${shown(times)}`
    })
  ].join("\n")

// --- The run -----------------------------------------------------------------------------------------------------------

const run = Effect.gen(function* () {
  const cluster = yield* Cluster.Cluster
  const hosts = cluster.nodes.map(({ host }) => `${host.host}:${host.port}`).join(",")
  const config = yield* AmqpConfig.fromUrl(`amqp://guest:guest@${hosts}${new URL(cluster.url).pathname}`, {
    heartbeat: "1 second",
    connectTimeout: "2 seconds"
  })
  const ledger = new Ledger()
  const startedAt = performance.now()
  let isDone = false

  const traffic = Effect.gen(function* () {
    yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue, { queueType: "quorum" })))
    yield* cluster.ready
    const consuming = yield* Effect.forkChild(consumer(queue, ledger, mutant))
    const publishers = yield* Effect.forEach(Array.from({ length: Number(values.publishers) }), () =>
      Effect.forkChild(publisher(queue, ledger, () => isDone, mutant))
    )
    const borrowers = yield* Effect.forEach(Array.from({ length: 4 }), () =>
      Effect.forkChild(borrower(queue, () => isDone))
    )
    const recoveries: Array<Recovery> = []
    const progress = Effect.suspend(() =>
      Console.error(`${recoveries.length} of ${turns} faults, ${ledger.confirmed} messages confirmed`)
    )
    yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sleep("20 seconds"), progress)))
    yield* injectFaults(randomOf(seed), ledger, recoveries)
    const { confirmed } = ledger
    yield* until("messages are confirmed", () => ledger.confirmed > confirmed + 500)
    isDone = true
    yield* Effect.timeoutOrElse(Fiber.joinAll([...publishers, ...borrowers]), {
      duration: "1 minute",
      orElse: () => Effect.die(new Error("a publish or a borrower has not ended for a minute"))
    })
    const remainder = yield* Reckoning.settled(ledger, cluster, mutant)
    yield* Fiber.interrupt(consuming)
    return { recoveries, remainder }
  })

  const { recoveries, remainder } = yield* traffic.pipe(Effect.provide(Amqp.fromConfig(config)))
  const title = `three nodes, a quorum queue, seed ${seed}, ${recoveries.length} faults`
  yield* Reckoning.report({ title, mutant, startedAt, ledger, recoveries: report(recoveries) }, cluster, remainder)
})

NodeRuntime.runMain(
  Effect.scoped(run).pipe(Effect.provide(Cluster.layer), Effect.provideService(References.MinimumLogLevel, "None"))
)
