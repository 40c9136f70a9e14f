/**
 * A shop publishes orders by the outbox, two relays publish them, and consumers handle them by the inbox, while all of
 * them, the broker and the database are killed again and again. Every committed order must have its effect exactly once.
 *
 * Run it with `npm run chaos -- --outbox`. `--short` takes about a minute. It prints its seed, with which a run can be
 * repeated (what is killed and in which order, but not the moments at which that meets an order). Its exit code is 1 if a
 * promise was broken.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp } from "@effect-amqp/core"
import { Console, Effect, Exit, Latch, Redacted, References, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import * as TestDatabase from "../test/support/TestDatabase.ts"
import * as BrokerNode from "./BrokerNode.ts"
import { bundled } from "./bundles.ts"
import { mutantOf } from "./mutants.ts"
import { type Kill, planOf, type ProgramName, type TargetName, targetNames } from "./plan.ts"
import * as Program from "./Program.ts"
import * as Reckoning from "./reckoning.ts"
import { createTables, declareQueues } from "./topology.ts"

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    orders: { type: "string" },
    kills: { type: "string" },
    short: { type: "boolean", default: false },
    mutant: { type: "string" }
  }
})

const seed = Number(values.seed ?? Date.now() % 2 ** 31)
const orders = Number(values.orders ?? (values.short ? 600 : 20_000))
const kills = Number(values.kills ?? (values.short ? 20 : 200))
const mutant = mutantOf(values.mutant)

const elapsed = (() => {
  const startedAt = performance.now()
  return () => (performance.now() - startedAt) / 1000
})()

/** Polls a condition of the database or the broker, which may be away, until it holds. */
const until = <A, E, R>(
  what: string,
  look: Effect.Effect<A, E, R>,
  wanted: (seen: A) => boolean,
  { every, within }: { readonly every: number; readonly within: number }
): Effect.Effect<A, never, R> =>
  Effect.gen(function* () {
    let last: unknown
    const deadline = performance.now() + within
    while (performance.now() < deadline) {
      const exit = yield* Effect.exit(Effect.timeout(look, 10_000))
      if (Exit.isSuccess(exit) && wanted(exit.value)) return exit.value
      last = exit._tag === "Success" ? exit.value : exit.cause
      yield* Effect.sleep(every)
    }
    return yield* Effect.die(new Error(`not within ${within / 1000} s: ${what}; last ${JSON.stringify(last)}`))
  })

// --- The processes -----------------------------------------------------------------------------------------------------

/** The program of each process, and its arguments. */
const commands: Readonly<Record<ProgramName, readonly [program: string, ...args: ReadonlyArray<string>]>> = {
  shop: ["shop"],
  "relay 1": ["relay"],
  "relay 2": ["relay"],
  "consumer 1": ["consumer"],
  "consumer 2": ["consumer"],
  "ordered consumer": ["consumer", "ordered"]
}

/** A server that is started again after it was killed. */
const serverTarget = <E>(
  name: string,
  server: { readonly kill9: Effect.Effect<void, E>; readonly start: Effect.Effect<void, E> },
  scope: Scope.Scope
): Program.Target => {
  const isUp = Latch.makeUnsafe(true)
  return {
    name,
    lastWords: "",
    ready: isUp.await,
    kill9: (pause) =>
      Effect.gen(function* () {
        // A server that starts cannot be killed before it has started.
        yield* isUp.await
        isUp.closeUnsafe()
        yield* Effect.orDie(server.kill9)
        const again = Effect.sleep(pause).pipe(
          Effect.andThen(server.start),
          Effect.andThen(isUp.open),
          Effect.catchCause((cause) => Effect.logError(`${name} does not start again`, cause))
        )
        yield* Effect.forkIn(again, scope)
      })
  }
}

// --- The run -----------------------------------------------------------------------------------------------------------

interface Counts {
  /** Repeats that the inboxes have recognized. */
  repeated: number
  rolledBack: number
  /** The names of processes that have ended by themselves, with how often. */
  ownDeaths: string
}

const run = Effect.gen(function* () {
  const database = yield* TestDatabase.TestDatabase
  const sql = yield* SqlClient.SqlClient
  const broker = yield* BrokerNode.make
  const scope = yield* Effect.scope
  yield* createTables
  yield* Effect.provide(declareQueues, Amqp.layer({ url: broker.url }))

  const folder = yield* bundled(["shop", "relay", "consumer"])
  const counts: Counts = { repeated: 0, rolledBack: 0, ownDeaths: "" }
  const programs = yield* Effect.forEach(Object.keys(commands) as Array<ProgramName>, (name, i) =>
    Program.start({
      name,
      command: [join(folder, `${commands[name][0]}.mjs`), ...commands[name].slice(1)],
      env: (start) => ({
        CHAOS_SEED: String(seed + 1000 * i + start),
        CHAOS_DATABASE: Redacted.value(database.url),
        CHAOS_BROKER: broker.url,
        ...(mutant !== undefined && { CHAOS_MUTANT: mutant })
      }),
      onLine: (line) => {
        if (line === "repeated") counts.repeated++
        else if (line === "rolled back") counts.rolledBack++
      }
    })
  )
  const shop = programs[0]!
  const servers = [serverTarget("broker", broker, scope), serverTarget("database", database, scope)]
  const targets = new Map<string, Program.Target>([...programs, ...servers].map((target) => [target.name, target]))

  const diagnosis = Effect.gen(function* () {
    yield* Console.error([...targets.values()].map(({ lastWords, name }) => `--- ${name}\n${lastWords}`).join("\n"))
    yield* Console.error(yield* Effect.exit(broker.queues), yield* Effect.exit(Reckoning.rest))
  }).pipe(Effect.provideService(SqlClient.SqlClient, sql))
  const diagnosed = Effect.onError(() => diagnosis)

  const counted = Effect.map(
    sql<{ count: number }>`SELECT count(*)::integer AS count FROM orders`,
    ([row]) => row!.count
  )
  const reached = (count: number) =>
    until(`${count} orders`, counted, (seen) => seen >= count, { every: 10, within: 180_000 })
  const allReady = Effect.forEach([...targets.values()], ({ name, ready }) =>
    Effect.timeoutOrElse(ready, {
      duration: "2 minutes",
      orElse: () => Effect.die(new Error(`${name}: not ready within 2 minutes`))
    })
  )

  let done = 0
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.andThen(
        Effect.sleep("20 seconds"),
        Effect.suspend(() => Console.error(`${done} of ${kills} kills after ${elapsed().toFixed(0)} s`))
      )
    )
  )

  const perTurn = orders / (kills + 1)
  const kill = Effect.fnUntraced(function* ({ delay, early, pause, share, target }: Kill, turn: number) {
    // Each kill meets traffic: some of its turn's orders are committed, and the shop inserts the others.
    shop.write(String(Math.ceil((turn + 1) * perTurn)))
    yield* reached(Math.floor((turn + share) * perTurn))
    const chosen = targets.get(target)!
    if (!early) {
      yield* Effect.timeoutOrElse(chosen.ready, {
        duration: "2 minutes",
        orElse: () => Effect.die(new Error(`${target}: not ready within 2 minutes`))
      })
    }
    yield* Effect.sleep(delay)
    yield* chosen.kill9(pause)
    done++
  })

  const traffic = Effect.gen(function* () {
    yield* allReady
    for (const [turn, planned] of planOf(seed, kills).entries()) yield* kill(planned, turn)
    shop.write(String(orders))
    yield* reached(orders)
    yield* allReady
    yield* shop.end("SIGTERM")
    const killed = elapsed()
    yield* until(
      "outbox and queues are empty",
      Effect.all({ rest: Reckoning.rest, queues: broker.queues }),
      ({ queues, rest }) => rest.outbox === 0 && queues.every(({ messages }) => messages === 0),
      { every: 100, within: 180_000 }
    )
    return elapsed() - killed
  })

  const drained = yield* diagnosed(traffic)
  const balance = yield* Effect.orDie(Reckoning.reckoning)
  const { setAside } = yield* Effect.orDie(Reckoning.rest)

  // --- Everything ends in order, and leaves nothing.
  yield* Effect.forEach(programs, (program) => program.end("SIGTERM"), { concurrency: "unbounded" })
  counts.ownDeaths = programs.map(({ name, ownDeaths }) => `${name} ${ownDeaths}`).join(", ")
  const census = yield* until("no connection is left at the broker", broker.census, (seen) => seen.connections === 0, {
    every: 50,
    within: 15_000
  })
  const leftovers = yield* until(
    "nothing of the programs is left in the database",
    Reckoning.leftovers,
    (seen) => seen.connections === 0 && seen.locks === 0 && seen.leases === 0,
    { every: 50, within: 15_000 }
  )
  const processes = yield* database.processes
  const { directory, epmd, server, supervisor } = broker.processes()
  return {
    balance,
    setAside,
    counts,
    drained,
    census,
    leftovers,
    pids: [server, supervisor, epmd, processes.postmaster, processes.supervisor],
    folders: [directory, processes.directory, folder]
  }
})

const isRunning = (pid: number) => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

// --- The report --------------------------------------------------------------------------------------------------------

const killTable = (plan: ReadonlyArray<Kill>): string => {
  const times = (name: TargetName) => plan.filter(({ target }) => target === name).length
  return targetNames.map((name) => `${name} ${times(name)}`).join(", ")
}

const report = Effect.fnUntraced(function* (result: Effect.Success<typeof run>) {
  const { balance, census, counts, drained, folders, leftovers, pids, setAside } = result
  const { all, order, ordered } = balance
  const processes = pids.filter(isRunning).length
  const remaining = folders.filter((folder) => existsSync(folder)).length
  const isKept =
    all.orders >= orders &&
    [all, ordered].every(({ lost, phantoms, twice }) => lost === 0 && twice === 0 && phantoms === 0) &&
    order.overtaken === 0 &&
    order.isComplete &&
    setAside === 0 &&
    processes === 0 &&
    remaining === 0
  yield* Console.log(
    [
      "",
      `chaos: outbox, seed ${seed}, ${kills} kills in ${elapsed().toFixed(0)} s` +
        (mutant === undefined ? "" : `, mutant ${mutant}`),
      "",
      `killed: ${killTable(planOf(seed, kills))}`,
      `ended by themselves: ${counts.ownDeaths}; transactions rolled back: ${counts.rolledBack}`,
      `empty ${drained.toFixed(1)} s after the last order`,
      `duplicates that the inboxes recognized: ${counts.repeated}`,
      `phantoms: ${all.phantoms + ordered.phantoms}; set aside: ${setAside}`,
      `orders of customers ${ordered.orders}, handled ${ordered.handled}, lost ${ordered.lost}, twice ${ordered.twice}`,
      `order kept: ${order.overtaken === 0 && order.isComplete ? "yes" : `no, ${order.overtaken} overtaken`}`,
      `afterwards: connections ${census.connections + leftovers.connections}, locks ${leftovers.locks}, ` +
        `leases ${leftovers.leases}, processes ${processes}, folders ${remaining}`,
      isKept ? "Kept: each committed order has its effects exactly once" : "BROKEN",
      `orders ${all.orders}, handled ${all.handled}, lost ${all.lost}, twice ${all.twice}`
    ].join("\n")
  )
  if (!isKept) yield* Effect.sync(() => (process.exitCode = 1))
})

const DatabaseLayer = TestDatabase.layer({
  exclusive: true,
  client: { applicationName: "chaos", maxConnections: 2, connectTimeout: "5 seconds" }
})

NodeRuntime.runMain(
  Effect.scoped(run).pipe(
    Effect.provide(DatabaseLayer),
    Effect.flatMap(report),
    Effect.provideService(References.MinimumLogLevel, "Error")
  )
)
