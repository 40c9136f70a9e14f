/** Sessions of the client under test with a broker whose streams are spoiled on their way, and what became of them. */
import { Amqp, AmqpChannel, AmqpPublisher } from "@effect-amqp/core"
import { Duration, Effect, Queue, Result } from "effect"
import { type AddressInfo, createServer, type Server } from "node:net"
import { configOf } from "./amqp.ts"
import { collectGarbage } from "./heap.ts"
import * as ScriptedBroker from "./ScriptedBroker.ts"
import { kindNames, SpoiledStream } from "./SpoiledStream.ts"

/** A server whose connections are a broker's, of which it spoils the first. */
const spoiled = (spoiler: SpoiledStream, broker: ScriptedBroker.ScriptedBroker) =>
  Effect.acquireRelease(
    Effect.callback<Server>((resume) => {
      let first = true
      const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
        broker.accept(socket, first ? spoiler : undefined)
        first = false
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )

/** Most of what a client can be sent. */
const session = Effect.fnUntraced(function* (queue: string) {
  yield* AmqpChannel.use((channel) =>
    Effect.gen(function* () {
      yield* channel.queueDeclare(queue)
      const headers = { attempt: 1, nested: { list: ["x", 1.5, true] } }
      yield* channel.publish({ routingKey: queue, content: "one", headers, timestamp: new Date(0) })
      const consumer = yield* channel.consume(queue)
      // What has become of it may be nobody's any more.
      const delivery = yield* Queue.take(consumer.deliveries).pipe(Effect.timeout("500 millis"), Effect.option)
      if (delivery._tag === "Some") yield* channel.ack(delivery.value)
      yield* channel.cancel(consumer.consumerTag)
      yield* channel.publish({ routingKey: queue, content: "two" })
      yield* channel.get(queue)
    })
  ).pipe(Effect.scoped)
  yield* AmqpPublisher.publish({ routingKey: queue, content: "three" })
})

/** Sessions at a time. */
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

/** Every wait of a session together, and the shutdown. */
const longest = "20 seconds"

const heap = Effect.sync(() => {
  for (let i = 0; i < 3; i++) collectGarbage()
  return process.memoryUsage().heapUsed / 1024 / 1024
})

/** Sockets of this process. */
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
  /** Streams that were spoiled before their session was over. */
  readonly spoiled: number
  /** How many sessions of each kind ended in which way. */
  readonly ends: ReadonlyMap<string, Counts>
  /** What must not be: a defect, an error that nobody knows, a session that does not end. */
  readonly strange: ReadonlyArray<string>
  readonly uncaught: ReadonlyArray<unknown>
  readonly seconds: number
  /** Of the sessions, in seconds. */
  readonly slowest: number
  /** In MB, after the first thousand streams and after all. */
  readonly heapBefore: number
  readonly heapAfter: number
  readonly socketsLeft: number
}

/** Plays the streams of so many seeds. */
export const playStreams = (streams: number, from: number): Effect.Effect<Played> =>
  Effect.gen(function* () {
    const uncaught: Array<unknown> = []
    const note = (cause: unknown) => void uncaught.push(cause)
    yield* Effect.acquireRelease(
      Effect.sync(() => process.on("uncaughtExceptionMonitor", note).on("unhandledRejection", note)),
      () => Effect.sync(() => process.off("uncaughtExceptionMonitor", note).off("unhandledRejection", note))
    )
    // Nobody reads where an error of these was made, and to note it takes a good part of the time.
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
    let slowest = 0

    const run = (broker: ScriptedBroker.ScriptedBroker) => (seed: number) =>
      Effect.gen(function* () {
        const spoiler = new SpoiledStream(seed)
        const { kind } = spoiler
        const server = yield* spoiled(spoiler, broker)
        const start = performance.now()
        const config = configOf(`amqp://127.0.0.1:${(server.address() as AddressInfo).port}`, short)
        const result = yield* session(`q${seed}`).pipe(
          Effect.provide(Amqp.fromConfig(config), { local: true }),
          Effect.catchDefect((defect) => Effect.sync(() => void strange.push(`${seed} (${kind}): ${String(defect)}`))),
          Effect.result,
          Effect.timeoutOption(longest)
        )
        slowest = Math.max(slowest, performance.now() - start)
        if (spoiler.done) struck++
        if (result._tag === "None") return void strange.push(`${seed} (${kind}): did not end within ${longest}`)
        const tag = Result.isSuccess(result.value) ? "success" : result.value.failure.reason._tag
        if (tag === "UnknownError") strange.push(`${seed} (${kind}): ${String(result.value)}`)
        const ended = ends.get(kind)!
        ended.set(tag, (ended.get(tag) ?? 0) + 1)
      }).pipe(Effect.scoped)

    // A broker each thousand: it keeps a log of all it has received.
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
      spoiled: struck,
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

/** One row a kind. */
export const tableOf = (played: Played): string => {
  const rowOf = (name: string, ended: Counts) => {
    const tags = [...ended].sort(([, a], [, b]) => b - a).map(([tag, n]) => `${tag} ${n}`)
    return `${name.padEnd(36)} ${String(countOf(ended)).padStart(6)}  ${tags.join(", ")}`
  }
  const { from, heapAfter, heapBefore, seconds, slowest, socketsLeft, spoiled, strange, streams, uncaught } = played
  return [
    `hostile: ${streams} streams from seed ${from} in ${seconds.toFixed(1)} s, ${spoiled} spoiled before their session was over`,
    ...Array.from(played.ends, ([kind, ended]) => rowOf(kind, ended)),
    rowOf("all", sumOf(played)),
    `uncaught ${uncaught.length}, strange ${strange.length}, slowest ${slowest.toFixed(1)} s, ` +
      `heap ${heapBefore.toFixed(1)} -> ${heapAfter.toFixed(1)} MB, sockets left ${socketsLeft}`
  ].join("\n")
}
