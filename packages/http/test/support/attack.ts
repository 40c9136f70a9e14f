/**
 * A well-behaved client of a gateway, next to hostile ones. The gateway and the hostile clients have their own
 * processes.
 */
import { Amqp, AmqpChannel, AmqpConfig } from "@effect-amqp/core"
import { Effect, type Scope } from "effect"
import { bundle, commands } from "../../../core/test/support/bundles.ts"
import { type Delay, watchEventLoop } from "./eventLoop.ts"
import { start } from "./RestartableService.ts"

/** The state of a gateway, as its process reports it. */
export interface State {
  /** Peak memory of the process, in bytes. */
  readonly memory: number
  /** CPU seconds used since the gateway listens, and seconds elapsed since then. */
  readonly cpu: readonly [taken: number, of: number]
  /**
   * Peak growth of its memory over the value before the attack, without garbage, in bytes. Undefined if not measured.
   */
  readonly growth: number | undefined
  readonly delay: Delay
}

export interface Outcome extends State {
  /** Number of messages of the well-behaved client that were confirmed. */
  readonly published: number
  /** Number of these messages that were not delivered to it. */
  readonly lost: number
  /** Number of publishes with another answer. */
  readonly refused: number
  /** Time from a publish to its answer, and to its delivery, in milliseconds. */
  readonly answered: { readonly p50: number; readonly p99: number }
  readonly delivered: { readonly p50: number; readonly p99: number }
  /** Delay of the well-behaved client's event loop. Its measured times include this delay. */
  readonly clientDelay: Delay
  /** Number of messages that the hostile clients have received. */
  readonly eaten: number
  /** Number of attacks per hostile client. */
  readonly hostile: Record<string, number>
}

/**
 * Flags for the gateway's process. By default V8 keeps some hundred megabytes of garbage: of the 400 MB that the
 * process takes under attack then, 25 are in use. The first flag alone is not enough: the young generation grows to 96
 * MB, which leaves so little of 128 that V8 collects all the time.
 */
const heap = ["--max-old-space-size=128", "--max-semi-space-size=16"]

const bait = "bait"
const own = "honest"

const quantiles = (values: ReadonlyArray<number>) => {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (q: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0)
  return { p50: at(0.5), p99: at(0.99) }
}

/** Publishes one message after another, four at a time, and consumes them through a WebSocket that reconnects. */
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
    // The other clients may hold all permits for streams.
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
  /** Whether the gateway collects garbage all the time, to measure the memory in use. It is slower then. */
  readonly collects?: boolean
  /**
   * Whether the gateway is a bundle, as in docs/deployment.md. From its sources it uses 90 MB more before any request.
   */
  readonly bundled?: boolean
  /** Minimum number of messages that the hostile clients receive. The attack is extended for that by up to a minute. */
  readonly eaten?: number
  /** Names of the hostile clients that take part. Default: all of them. */
  readonly only?: ReadonlyArray<string>
}

const bundled = bundle("../../../../http/test/programs/gateway.ts", commands[0]!)

/** Attacks a gateway on the broker at `url` for so many seconds. */
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
    // Messages in flight arrive, although the hostile clients continue.
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
