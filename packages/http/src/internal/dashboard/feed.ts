/**
 * The feed of the dashboard's page: a history of the last hour at a low resolution, which is always recorded, and one of
 * the last minutes at a high resolution, for which one sampler runs while there are viewers.
 *
 * Events are serialized once and kept as text. Each viewer continues where it has stopped reading. A slow viewer
 * therefore uses no memory, and misses the events that have become too old.
 */
import { AmqpConnection, type AmqpConsumer, AmqpPool, type AmqpPublisher } from "@effect-amqp/core"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ConnectionHistory from "./connectionHistory.ts"
import { ConsumerTable } from "./consumerTable.ts"
import type { Events, Hello, Instance } from "./events.ts"
import * as QueueCounter from "./queueCounter.ts"
import { RecentCounts } from "./recentCounts.ts"
import * as Sampler from "./sampler.ts"
import * as Totals from "./totals.ts"

export interface Settings {
  /** Maximum number of viewers at once. */
  readonly streams: number
  /** Silence of a stream after which a heartbeat is sent. */
  readonly heartbeat: Duration.Duration
  /** `undefined`: queues are not counted. */
  readonly queueCounting: QueueCounter.QueueCounting | undefined
  readonly blocked: "ready" | "notReady"
  readonly version: string | undefined
}

interface Entry {
  readonly number: number
  readonly at: number
  readonly text: string
}

/** Length of the history at the high resolution, in milliseconds. */
const window = 5 * 60_000

/** Time between two samples while there are viewers, in milliseconds. */
const interval = 1000

/** Length of the history at the low resolution, in milliseconds. With a sample of 400 bytes it takes 150 KB. */
const coarseWindow = 3_600_000

/** Time between two samples that are taken whether or not there are viewers, in milliseconds. */
const coarseInterval = 10_000

// Without this bound, a connection that opens and closes ten times per second would fill the memory.
const mostEntries = (2 * window) / interval

/** The text of an event whose data is JSON already. */
const eventOfText = (name: keyof Events, json: string) => `event: ${name}\ndata: ${json}\n\n`

const eventOf = <Name extends keyof Events>(name: Name, data: Events[Name]) => eventOfText(name, JSON.stringify(data))

const comment = ": heartbeat\n\n"

/** The limit of viewers is reached. */
export class TooManyViewers {
  readonly _tag = "Full"
}

export interface Feed {
  /** The events for one viewer, as long as the scope is open. The stream ends when the feed ends. */
  readonly join: Effect.Effect<Stream.Stream<string>, TooManyViewers, Scope.Scope>
}

/** Makes a feed that runs until the scope closes. */
export const make = Effect.fnUntraced(function* ({
  blocked,
  heartbeat,
  queueCounting,
  streams,
  version
}: Settings): Effect.fn.Return<
  Feed,
  never,
  | AmqpConnection.AmqpConnection
  | AmqpConsumer.AmqpConsumer
  | AmqpPool.AmqpPool
  | AmqpPublisher.AmqpPublisher
  | Scope.Scope
> {
  const { config } = yield* AmqpConnection.AmqpConnection
  const { max } = yield* AmqpPool.stats
  const clock = yield* Clock.Clock
  const take = yield* Sampler.make(interval)
  const takeCoarse = yield* Sampler.make(coarseInterval)
  const instance: Instance = {
    id: crypto.randomUUID(),
    startedAt: clock.currentTimeMillisUnsafe(),
    pid: globalThis.process?.pid ?? null,
    version: version ?? null
  }

  const entries: Array<Entry> = []
  /** Samples of the last hour as JSON. */
  const coarse: Array<string> = []
  let count = 0
  let totals = ""
  let table = ""
  let viewers = 0
  let hasEnded = false
  let news = Deferred.makeUnsafe<void>()
  const watched = Latch.makeUnsafe(false)

  const wake = () => {
    const woken = news
    news = Deferred.makeUnsafe()
    Deferred.doneUnsafe(woken, Effect.void)
  }
  const add = (text: string) => {
    const at = clock.currentTimeMillisUnsafe()
    entries.push({ number: ++count, at, text })
    while (entries.length > mostEntries || entries[0]!.at < at - window) entries.shift()
    wake()
  }

  const phases = yield* ConnectionHistory.watch((phase) => add(eventOf("phase", phase)))
  const consumers = yield* ConnectionHistory.watchConsumers((phase) => add(eventOf("consumers", phase)))
  const queues = queueCounting === undefined ? undefined : yield* QueueCounter.watch(queueCounting)
  const recent = new RecentCounts()
  const consumerTable = new ConsumerTable()
  const judge = yield* Totals.make({ phases, consumers }, recent, queues?.counts, blocked)

  const show = (snapshot: Sampler.Snapshot) =>
    Effect.map(judge(snapshot), (judged) => {
      totals = eventOf("totals", judged)
      table = eventOf("table", consumerTable.of(snapshot, queues))
    })
  // Reading a metric runs code of the module that has registered it, and that code may die. The page then shows that no
  // data arrives.
  const logged = Effect.catchDefect((defect: unknown) =>
    Effect.logError("AMQP dashboard: could not take a sample", defect)
  )
  const sample = Effect.flatMap(take, (taken) =>
    Effect.map(show(taken.snapshot), () => add(eventOf("sample", taken.sample)))
  ).pipe(logged)
  const coarseSample = Effect.flatMap(takeCoarse, ({ sample, snapshot }) => {
    recent.remember(sample.at, snapshot)
    const json = JSON.stringify(sample)
    coarse.push(json)
    if (coarse.length > coarseWindow / coarseInterval) coarse.shift()
    return Effect.map(show(snapshot), () => add(eventOfText("coarse", json)))
  }).pipe(logged)
  yield* coarseSample.pipe(Effect.andThen(Effect.sleep(coarseInterval)), Effect.forever, Effect.forkScoped)
  yield* watched.await.pipe(
    Effect.andThen(sample),
    Effect.andThen(Effect.sleep(interval)),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      hasEnded = true
      wake()
    })
  )

  const hello = (): string => {
    const greeting: Hello = {
      name: config.connectionName ?? null,
      window,
      interval,
      coarseWindow,
      coarseInterval,
      instance,
      queueCounts: queueCounting?.interval ?? null,
      max: Number.isFinite(max) ? max : null,
      phases,
      consumers
    }
    return eventOf("hello", greeting) + eventOfText("history", `[${coarse.join()}]`)
  }

  const events = (): Stream.Stream<string> => {
    let last = -1
    let lastTable = ""
    const pull: Effect.Effect<readonly [string], Cause.Done> = Effect.suspend(() => {
      if (hasEnded) return Cause.done()
      const isFirst = last < 0
      if (!isFirst && last === count) {
        return Effect.flatMap(Effect.timeoutOption(Deferred.await(news), heartbeat), ({ _tag }) =>
          _tag === "None" ? Effect.succeed([comment] as const) : pull
        )
      }
      const from = entries.findIndex(({ number }) => number > last)
      const text =
        from < 0
          ? ""
          : entries
              .slice(from)
              .map(({ text }) => text)
              .join("")
      last = count
      const rows = table === lastTable ? "" : table
      lastTable = table
      return Effect.succeed([(isFirst ? hello() : "") + text + totals + rows] as const)
    })
    return Stream.fromPull(Effect.succeed(pull))
  }

  const enter = Effect.suspend(() => {
    if (viewers >= streams) return Effect.fail(new TooManyViewers())
    viewers++
    watched.openUnsafe()
    return Effect.void
  })
  const leave = Effect.sync(() => {
    if (--viewers === 0) watched.closeUnsafe()
  })
  return {
    join: Effect.map(
      Effect.acquireRelease(enter, () => leave),
      events
    )
  }
})
