/** An honest client of a gateway, beside hostile ones. Gateway and hostile clients are processes of their own. */
import { Amqp, AmqpChannel, AmqpConfig } from "@effect-amqp/core"
import { Effect, type Scope } from "effect"
import { bundle, commands } from "../../../core/test/support/bundles.ts"
import { type Delay, watchEventLoop } from "./eventLoop.ts"
import { start } from "./RestartableService.ts"

/** How a gateway fares, as it tells itself. */
export interface State {
  /** The most memory that the process has had, in bytes. */
  readonly memory: number
  /** CPU seconds that it has taken since it listens, and of how many. */
  readonly cpu: readonly [taken: number, of: number]
  /** How much more than before the attack it has held at most, garbage aside, in bytes. Undefined: it was not looked at. */
  readonly growth: number | undefined
  readonly delay: Delay
}

export interface Outcome extends State {
  /** Messages that the honest client has published, and been told so. */
  readonly published: number
  /** Of these, messages that it was not delivered. */
  readonly lost: number
  /** Publishes that were answered with something else. */
  readonly refused: number
  /** Milliseconds from a publish to its answer, and to its delivery. */
  readonly answered: { readonly p50: number; readonly p99: number }
  readonly delivered: { readonly p50: number; readonly p99: number }
  /** The same of the honest client: what it measures is late by that, too. */
  readonly clientDelay: Delay
  /** Messages that the hostile clients have got. */
  readonly eaten: number
  /** How often the hostile clients did what they do. */
  readonly hostile: Record<string, number>
}

/**
 * How the gateway is started. By default V8 lets garbage lie until it is some hundred megabytes: of the 400 MB that the process
 * takes under attack then, 25 are in use. The first flag alone would not do: the space for what is new grows to 96 MB by
 * itself, which leaves so little of 128 that V8 collects all the time.
 */
const heap = ["--max-old-space-size=128", "--max-semi-space-size=16"]

const bait = "bait"
const own = "honest"

const quantiles = (values: ReadonlyArray<number>) => {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (q: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0)
  return { p50: at(0.5), p99: at(0.99) }
}

/** Publishes one message after the other, four at a time, and consumes them, by a WebSocket that comes back. */
const honest = (port: number, signal: AbortSignal) => {
  const sent = new Map<string, number>()
  const answered: Array<number> = []
  const delivered: Array<number> = []
  const missing = new Set<string>()
  let published = 0
  let refused = 0
  const publish = async (name: number) => {
    for (let n = 0; !signal.aborted; n++) {
      const id = `${name}-${n}`
      const since = performance.now()
      sent.set(id, since)
      const { status } = await fetch(`http://127.0.0.1:${port}/amqp/publish/amq.default/${own}`, {
        method: "POST",
        body: id
      })
      if (status === 200) {
        answered.push(performance.now() - since)
        published++
        if (sent.has(id)) missing.add(id)
      } else refused++
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  let ended = false
  let socket: WebSocket | undefined
  const consume = () => {
    if (ended) return
    socket = new WebSocket(`ws://127.0.0.1:${port}/amqp/consume/${own}`)
    socket.addEventListener("message", ({ data }) => {
      const event = JSON.parse(String(data))
      if (event.event !== "message") return
      const since = sent.get(event.content)
      if (since !== undefined) delivered.push(performance.now() - since)
      sent.delete(event.content)
      missing.delete(event.content)
      socket?.send(JSON.stringify({ ack: event.id }))
    })
    // All places may be taken by the others.
    socket.addEventListener("close", () => setTimeout(consume, 50))
  }
  consume()
  const publishing = Promise.all([0, 1, 2, 3].map(publish))
  return {
    publishing,
    missing,
    end: () => {
      ended = true
      socket?.close()
    },
    outcome: () => ({
      published,
      refused,
      lost: missing.size,
      answered: quantiles(answered),
      delivered: quantiles(delivered)
    })
  }
}

export interface Options {
  /** Whether the gateway collects its garbage all the time, to tell what it holds. It is slower then. */
  readonly collects?: boolean
  /** The gateway as one file, as docs/deployment.md makes it. From its sources it takes 90 MB more before anything comes. */
  readonly bundled?: boolean
  /** How many messages the hostile clients have got before it ends: it goes on for a minute at most until they have. */
  readonly eaten?: number
  /** Names of the hostile clients. Default: all of them. */
  readonly only?: ReadonlyArray<string>
}

const bundled = bundle("../../../../http/test/programs/gateway.ts", commands[0]!)

/** Attacks a gateway on the broker at `url` for so long. */
export const attack = (
  url: string,
  seconds: number,
  options: Options = {}
): Effect.Effect<Outcome, Error, Scope.Scope> =>
  Effect.gen(function* () {
    const channel = <A, E>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E>) =>
      Effect.scoped(AmqpChannel.use(f))
    let baits = 0
    let eaten = 0
    const fill = channel((it) =>
      Effect.gen(function* () {
        const { messageCount } = yield* it.queueDeclare(bait, { durable: false })
        eaten = baits - messageCount
        yield* it.queueDeclare(own, { durable: false })
        for (let n = messageCount; n < 1000; n++, baits++) {
          yield* it.publish({ routingKey: bait, content: "x".repeat(20_000) })
        }
      })
    )
    yield* fill
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("500 millis"), fill)))
    const gateway = yield* start(
      { AMQP_URL: url, COLLECT: options.collects === true ? "yes" : "no" },
      options.bundled === true ? yield* bundled : "gateway.ts",
      heap
    )
    const delay = watchEventLoop()
    const leaving = new AbortController()
    const client = honest(gateway.port, leaving.signal)
    yield* Effect.addFinalizer(() => Effect.sync(() => client.end()))
    const only = options.only === undefined ? undefined : { ONLY: options.only.join() }
    const strangers = yield* start({ PORT: String(gateway.port), BAIT: bait, ...only }, "strangers.ts")
    const last = (pattern: RegExp, output: string) => [...output.matchAll(pattern)].at(-1)?.[1] ?? ""
    const hostile = (): Record<string, number> => JSON.parse(last(/done (.*)\n/g, strangers.output()) || "{}")
    const isEnough = () => eaten >= (options.eaten ?? 0) && Object.values(hostile()).every((times) => times > 0)
    yield* Effect.sleep(seconds * 1000)
    yield* Effect.repeat(Effect.sleep("100 millis"), { until: isEnough }).pipe(Effect.timeoutOption("1 minute"))
    leaving.abort()
    yield* Effect.promise(() => client.publishing)
    // What is on its way arrives, though the others go on.
    yield* Effect.repeat(Effect.sleep("20 millis"), { until: () => client.missing.size === 0 }).pipe(
      Effect.timeoutOption("10 seconds")
    )
    const outcome = {
      ...client.outcome(),
      ...(JSON.parse(last(/state (.*)\n/g, gateway.output())) as State),
      clientDelay: delay(),
      eaten,
      hostile: hostile()
    }
    client.end()
    yield* strangers.stop
    yield* channel((it) => Effect.andThen(it.queueDelete(bait), it.queueDelete(own)))
    return outcome
  }).pipe(
    Effect.provide(Effect.runSync(Effect.map(AmqpConfig.fromUrl(url), Amqp.fromConfig)), { local: true }),
    Effect.orDie
  )
