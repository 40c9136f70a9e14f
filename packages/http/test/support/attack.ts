/** An honest client of a gateway, beside hostile ones. Gateway and hostile clients are processes of their own. */
import { Amqp, AmqpChannel, AmqpConfig } from "@effect-amqp/core"
import { Effect, type Scope } from "effect"
import { start } from "./RestartableService.ts"

export interface Outcome {
  /** Messages that the honest client has published, and been told so. */
  readonly published: number
  /** Of these, messages that it was not delivered. */
  readonly lost: number
  /** Publishes that were answered with something else. */
  readonly refused: number
  /** Milliseconds from a publish to its answer, and to its delivery. */
  readonly answered: { readonly p50: number; readonly p99: number }
  readonly delivered: { readonly p50: number; readonly p99: number }
  /** The most memory that the gateway has had, in bytes. */
  readonly memory: number
  /** How often the hostile clients did what they do. */
  readonly hostile: Record<string, number>
}

/**
 * The heap of the gateway, in MB. By default V8 lets garbage lie until it is some hundred megabytes: then the process takes
 * 400 MB under attack, of which 60 are in use. A gateway that needed more than this heap would end.
 */
const heap = 128

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

/** Attacks a gateway on the broker at `url` for so long. */
export const attack = (url: string, seconds: number): Effect.Effect<Outcome, Error, Scope.Scope> =>
  Effect.gen(function* () {
    const channel = <A, E>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E>) =>
      Effect.scoped(AmqpChannel.use(f))
    const fill = channel((it) =>
      Effect.gen(function* () {
        const { messageCount } = yield* it.queueDeclare(bait, { durable: false })
        yield* it.queueDeclare(own, { durable: false })
        for (let n = messageCount; n < 1000; n++) yield* it.publish({ routingKey: bait, content: "x".repeat(20_000) })
      })
    )
    yield* fill
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("500 millis"), fill)))
    const gateway = yield* start({ AMQP_URL: url }, "gateway.ts", [`--max-old-space-size=${heap}`])
    const leaving = new AbortController()
    const client = honest(gateway.port, leaving.signal)
    yield* Effect.addFinalizer(() => Effect.sync(() => client.end()))
    const strangers = yield* start({ PORT: String(gateway.port), BAIT: bait }, "strangers.ts")
    yield* Effect.sleep(seconds * 1000)
    leaving.abort()
    yield* Effect.promise(() => client.publishing)
    // What is on its way arrives, though the others go on.
    yield* Effect.repeat(Effect.sleep("20 millis"), { until: () => client.missing.size === 0 }).pipe(
      Effect.timeoutOption("10 seconds")
    )
    const last = (pattern: RegExp, output: string) => [...output.matchAll(pattern)].at(-1)?.[1] ?? ""
    const outcome = {
      ...client.outcome(),
      memory: Number(last(/memory (\d+)\n/g, gateway.output())),
      hostile: JSON.parse(last(/done (.*)\n/g, strangers.output()) || "{}")
    }
    client.end()
    yield* strangers.stop
    yield* channel((it) => Effect.andThen(it.queueDelete(bait), it.queueDelete(own)))
    return outcome
  }).pipe(
    Effect.provide(Effect.runSync(Effect.map(AmqpConfig.fromUrl(url), Amqp.fromConfig)), { local: true }),
    Effect.orDie
  )
