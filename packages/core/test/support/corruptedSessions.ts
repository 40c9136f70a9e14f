/**
 * Sessions of the client under test with a broker whose streams are corrupted on their way, and how the sessions ended.
 */
import { Amqp, AmqpChannel, AmqpPublisher } from "@effect-amqp/core"
import { Duration, Effect, Queue, Result } from "effect"
import { type AddressInfo, createServer, type Server } from "node:net"
import { configOf } from "./amqp.ts"
import { collectGarbage } from "./heap.ts"
import * as ScriptedBroker from "./ScriptedBroker.ts"
import { kindNames, CorruptedStream } from "./CorruptedStream.ts"

/** A server whose connections are a broker's. It corrupts the first one. */
const corrupting = (corruption: CorruptedStream, broker: ScriptedBroker.ScriptedBroker) =>
  Effect.acquireRelease(
    Effect.callback<Server>((resume) => {
      let first = true
      const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
        broker.accept(socket, first ? corruption : undefined)
        first = false
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )

/** Most of what a client can receive. */
const session = Effect.fnUntraced(function* (queue: string) {
  yield* AmqpChannel.use((channel) =>
    Effect.gen(function* () {
      yield* channel.queueDeclare(queue)
      const headers = { attempt: 1, nested: { list: ["x", 1.5, true] } }
      yield* channel.publish({ routingKey: queue, content: "one", headers, timestamp: new Date(0) })
      const consumer = yield* channel.consume(queue)
      // The corrupted stream may have lost the delivery.
      const delivery = yield* Queue.take(consumer.deliveries).pipe(Effect.timeout("500 millis"), Effect.option)
      if (delivery._tag === "Some") yield* channel.ack(delivery.value)
      yield* channel.cancel(consumer.consumerTag)
      yield* channel.publish({ routingKey: queue, content: "two" })
      yield* channel.get(queue)
    })
  ).pipe(Effect.scoped)
  yield* AmqpPublisher.publish({ routingKey: queue, content: "three" })
})

/** The number of concurrent sessions. */
const concurrency = 48

const millis = Duration.millis

const short = {
  connectTimeout: millis(1000),
  socketTimeout: millis(1000),
  continuationTimeout: millis(300),
  publishTimeout: millis(300),
  closeTimeout: millis(200),
  shutdownTimeout: millis(200),
  pool: { acquireTimeout: millis(500) }
}

/** A bound for all waits of a session together, and its shutdown. */
const longest = "20 seconds"

const heap = Effect.sync(() => {
  for (let i = 0; i < 3; i++) collectGarbage()
  return process.memoryUsage().heapUsed / 1024 / 1024
})

/** The sockets of this process. */
const sockets = () => process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length

const untilSockets = (count: number) =>
  Effect.gen(function* () {
    const until = performance.now() + 10_000
    while (sockets() > count && performance.now() < until) yield* Effect.sleep(10)
    return sockets()
  })

type Counts = ReadonlyMap<string, number>

export interface Played {
  readonly from: number
  readonly streams: number
  /** The number of streams that were corrupted before their session was over. */
  readonly corrupted: number
  /** The number of sessions that a timeout ended before their stream was corrupted, because the machine was slow. */
  readonly tooSlow: number
  /** How many sessions of each kind ended in which way. */
  readonly ends: ReadonlyMap<string, Counts>
  /** What must not happen: a defect, an error that is not typed, a session that does not end. */
  readonly strange: ReadonlyArray<string>
  readonly uncaught: ReadonlyArray<unknown>
  readonly seconds: number
  /** The duration of the sessions, in seconds. */
  readonly slowest: number
  /** Memory in MB, after the first thousand streams and after all. */
  readonly heapBefore: number
  readonly heapAfter: number
  readonly socketsLeft: number
}

/** Runs a session for each of this many seeds. */
export const playStreams = (streams: number, from: number): Effect.Effect<Played> =>
  Effect.gen(function* () {
    const uncaught: Array<unknown> = []
    const note = (cause: unknown) => void uncaught.push(cause)
    yield* Effect.acquireRelease(
      Effect.sync(() => process.on("uncaughtExceptionMonitor", note).on("unhandledRejection", note)),
      () => Effect.sync(() => process.off("uncaughtExceptionMonitor", note).off("unhandledRejection", note))
    )
    // The stack traces of these errors are not read, and recording them takes a good part of the time.
    const { stackTraceLimit } = Error
    yield* Effect.acquireRelease(
      Effect.sync(() => (Error.stackTraceLimit = 0)),
      () => Effect.sync(() => (Error.stackTraceLimit = stackTraceLimit))
    )
    const socketsBefore = sockets()
    const began = performance.now()
    const ends = new Map(kindNames.map((kind) => [kind, new Map<string, number>()] as const))
    const strange: Array<string> = []
    let struck = 0
    let tooSlow = 0
    let slowest = 0

    const run = (broker: ScriptedBroker.ScriptedBroker) => (seed: number) =>
      Effect.gen(function* () {
        const corruption = new CorruptedStream(seed)
        const { kind } = corruption
        const server = yield* corrupting(corruption, broker)
        const start = performance.now()
        const config = configOf(`amqp://127.0.0.1:${(server.address() as AddressInfo).port}`, short)
        const result = yield* session(`q${seed}`).pipe(
          Effect.provide(Amqp.fromConfig(config), { local: true }),
          Effect.catchDefect((defect) => Effect.sync(() => void strange.push(`${seed} (${kind}): ${String(defect)}`))),
          Effect.result,
          Effect.timeoutOption(longest)
        )
        slowest = Math.max(slowest, performance.now() - start)
        if (corruption.done) struck++
        if (result._tag === "None") return void strange.push(`${seed} (${kind}): did not end within ${longest}`)
        const tag = Result.isSuccess(result.value) ? "success" : result.value.failure.reason._tag
        if (tag === "UnknownError") strange.push(`${seed} (${kind}): ${String(result.value)}`)
        if (!corruption.done && tag.endsWith("Timeout")) tooSlow++
        const ended = ends.get(kind)!
        ended.set(tag, (ended.get(tag) ?? 0) + 1)
      }).pipe(Effect.scoped)

    // One broker per thousand sessions, because it keeps a log of all it has received.
    const some = (first: number, count: number) =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
        const seeds = Array.from({ length: count }, (_, i) => first + i)
        yield* Effect.forEach(seeds, run(broker), { concurrency, discard: true })
      }).pipe(Effect.scoped)

    const step = Math.min(1000, streams)
    yield* some(from, step)
    const heapBefore = yield* heap
    for (let done = step; done < streams; done += step) yield* some(from + done, step)
    const heapAfter = yield* heap
    const socketsLeft = (yield* untilSockets(socketsBefore)) - socketsBefore
    const seconds = (performance.now() - began) / 1000
    return {
      from,
      streams,
      corrupted: struck,
      tooSlow,
      ends,
      strange,
      uncaught,
      seconds,
      slowest: slowest / 1000,
      heapBefore,
      heapAfter,
      socketsLeft
    }
  }).pipe(Effect.scoped)

export const countOf = (ended: Counts): number => [...ended.values()].reduce((sum, n) => sum + n, 0)

/** How the sessions of all kinds ended. */
export const sumOf = ({ ends }: Played): Counts => {
  const sum = new Map<string, number>()
  for (const ended of ends.values()) for (const [tag, n] of ended) sum.set(tag, (sum.get(tag) ?? 0) + n)
  return sum
}

/** One row per kind. */
export const tableOf = (played: Played): string => {
  const rowOf = (name: string, ended: Counts) => {
    const tags = [...ended].sort(([, a], [, b]) => b - a).map(([tag, n]) => `${tag} ${n}`)
    return `${name.padEnd(36)} ${String(countOf(ended)).padStart(6)}  ${tags.join(", ")}`
  }
  const { from, heapAfter, heapBefore, seconds, slowest, socketsLeft, corrupted, strange, streams, tooSlow, uncaught } =
    played
  return [
    `hostile: ${streams} streams from seed ${from} in ${seconds.toFixed(1)} s, ${corrupted} corrupted, ${tooSlow} ended by a timeout before that`,
    ...Array.from(played.ends, ([kind, ended]) => rowOf(kind, ended)),
    rowOf("all", sumOf(played)),
    `uncaught ${uncaught.length}, strange ${strange.length}, slowest ${slowest.toFixed(1)} s, ` +
      `heap ${heapBefore.toFixed(1)} -> ${heapAfter.toFixed(1)} MB, sockets left ${socketsLeft}`
  ].join("\n")
}
