/**
 * What the page is fed with: one sampler for all viewers, which rests while there are none, and the last minutes of it.
 *
 * Events are put into words once and kept as text. A viewer reads them where it has stopped, so that one which reads slowly
 * costs no memory, and misses what has become too old.
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
import type { Events, Hello } from "./events.ts"
import * as Sampler from "./sampler.ts"

export interface Bounds {
  /** Viewers at a time. */
  readonly streams: number
  readonly heartbeat: Duration.Duration
}

interface Entry {
  readonly number: number
  readonly at: number
  readonly text: string
}

/** How far back the history goes, in milliseconds. */
const window = 5 * 60_000

// A connection that comes and goes ten times a second would fill the memory otherwise.
const mostEntries = (2 * window) / Sampler.interval

const eventOf = <Name extends keyof Events>(name: Name, data: Events[Name]) =>
  `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`

// The page comes back after a second when the stream breaks off.
const retry = "retry: 1000\n\n"
const comment = ": heartbeat\n\n"

/** The viewers that may be are there already. */
export class Full {
  readonly _tag = "Full"
}

export interface Feed {
  /** A viewer's events, for as long as the scope is open. The stream ends when the feed does. */
  readonly join: Effect.Effect<Stream.Stream<string>, Full, Scope.Scope>
}

/** Feeds until the scope closes. */
export const make = Effect.fnUntraced(function* ({
  heartbeat,
  streams
}: Bounds): Effect.fn.Return<
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
  const look = yield* Sampler.make

  const entries: Array<Entry> = []
  let count = 0
  let totals = ""
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
  const sample = Effect.map(look, (seen) => {
    totals = eventOf("totals", seen.totals)
    add(eventOf("sample", seen.sample))
  }).pipe(
    // Metrics are read by whoever has registered them. The page says that nothing comes.
    Effect.catchDefect((defect) => Effect.logError("AMQP dashboard: could not look", defect))
  )
  yield* watched.await.pipe(
    Effect.andThen(sample),
    Effect.andThen(Effect.sleep(Sampler.interval)),
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
    const words: Hello = {
      name: config.connectionName ?? null,
      window,
      interval: Sampler.interval,
      max: Number.isFinite(max) ? max : null,
      phases,
      consumers
    }
    return retry + eventOf("hello", words)
  }

  const events = (): Stream.Stream<string> => {
    let last = -1
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
      return Effect.succeed([(isFirst ? hello() : "") + text + totals] as const)
    })
    return Stream.fromPull(Effect.succeed(pull))
  }

  const enter = Effect.suspend(() => {
    if (viewers >= streams) return Effect.fail(new Full())
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
