/** `tail`. */
import { AmqpConsumer, type AmqpError, AmqpPool, type AmqpChannel, type AmqpTopology } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { connected } from "../broker/connecting.ts"
import type { Shared } from "../broker/Settings.ts"
import { exitCodes, Failure, usage } from "../failure.ts"
import { toJson, toLines } from "../output/message.ts"
import * as Output from "../output/Output.ts"
import { loadPath } from "../topology/load.ts"
import { isStream } from "./streamQueue.ts"

interface Options extends Shared {
  readonly name: string
  readonly as: "exchange" | "queue" | undefined
  readonly keys: ReadonlyArray<string>
  readonly offset: string
  readonly limit: number | undefined
  readonly full: boolean
  readonly topology: string | undefined
}

/** Copies that wait for a slow terminal. The broker drops the oldest ones beyond that. */
const mostWaiting = 10_000

const prefetch = 200

const quoted = JSON.stringify

const exists = (look: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<unknown, AmqpError.AmqpError>) =>
  AmqpPool.AmqpPool.use((pool) => pool.use(look)).pipe(
    Effect.as(true),
    Effect.catchReason("AmqpError", "NotFound", () => Effect.succeed(false))
  )

const kindOf = Effect.fnUntraced(function* ({ as, name }: Options) {
  const isQueue = as !== "exchange" && (yield* exists((channel) => channel.queueDeclarePassive(name)))
  const isExchange = as !== "queue" && name !== "" && (yield* exists((channel) => channel.exchangeDeclarePassive(name)))
  if (isQueue && isExchange) {
    return yield* usage(
      `tail: there are a queue and an exchange ${quoted(name)}`,
      "Say which: --as queue or --as exchange."
    )
  }
  if (isQueue || isExchange) return isQueue ? "queue" : "exchange"
  return yield* new Failure({
    tag: "NotFound",
    message: `tail: expected ${as === undefined ? "an exchange or a queue" : `${as === "exchange" ? "an" : "a"} ${as}`} of this virtual host, got ${quoted(name)}, which does not exist.`,
    cure: "Check the name and the virtual host (AMQP_VHOST).",
    exitCode: exitCodes.broker
  })
})

interface Source {
  readonly exchange: string
  readonly key: string
  readonly options?: AmqpChannel.BindOptions
}

/** Every message of a topic, fanout or headers exchange. A direct exchange has no key for all. */
const everything = (exchange: string): Source => ({ exchange, key: "#", options: { arguments: { "x-match": "all" } } })

/** The bindings of a queue, as a topology has them. */
const sourcesOf = (topology: AmqpTopology.AmqpTopology, queue: string): ReadonlyArray<Source> =>
  topology.bindings.flatMap(({ destination, destinationType, options, routingKey, source }) =>
    destinationType === "queue" && destination === queue ? [{ exchange: source, key: routingKey, options }] : []
  )

const show = (options: Options, delivery: Parameters<typeof toJson>[0], redelivered: boolean) =>
  Effect.flatMap(Output.Output, (output) =>
    output.isJson
      ? Output.printJson({ ...toJson(delivery), redelivered })
      : Effect.forEach(
          toLines(output, delivery, options.full, `${new Date().toTimeString().slice(0, 8)}  `),
          Output.print,
          { discard: true }
        )
  )

/** Copies of what exchanges route, by an exclusive queue that is gone with this connection. */
const copies = (options: Options, sources: ReadonlyArray<Source>) =>
  AmqpPool.AmqpPool.use((pool) =>
    pool.use((channel) =>
      Effect.gen(function* () {
        const { queue } = yield* channel.queueDeclare("", { exclusive: true, durable: false, maxLength: mostWaiting })
        for (const { exchange, key, options } of sources) yield* channel.queueBind(queue, exchange, key, options)
        yield* channel.qos(prefetch)
        const { deliveries } = yield* channel.consume(queue)
        yield* Output.note(
          `Copies from ${sources.map(({ exchange, key }) => `${quoted(exchange)} by ${quoted(key)}`).join(", ")}. Ctrl-C ends.`
        )
        yield* limited(options, Stream.fromQueue(deliveries)).pipe(
          Stream.runForEach((delivery) =>
            Effect.andThen(show(options, delivery, delivery.redelivered), channel.ack(delivery))
          )
        )
      })
    )
  )

const limited = <A, E, R>({ limit }: Options, stream: Stream.Stream<A, E, R>) =>
  limit === undefined ? stream : Stream.take(stream, limit)

const offsetOf = (text: string): Effect.Effect<AmqpConsumer.StreamOffset, Failure> =>
  text === "next" || text === "last" || text === "first"
    ? Effect.succeed(text)
    : /^\d{1,15}$/.test(text)
      ? Effect.succeed(Number(text))
      : Effect.fail(usage(`--offset: expected next, last, first or a number, got ${quoted(text)}`))

const streamed = Effect.fnUntraced(function* (options: Options, offset: AmqpConsumer.StreamOffset) {
  yield* Output.note(`The stream ${quoted(options.name)} from ${offset}. Ctrl-C ends.`)
  yield* limited(options, AmqpConsumer.stream(options.name, { offset, prefetch })).pipe(
    Stream.runForEach((delivery) => Effect.andThen(show(options, delivery, delivery.redelivered), delivery.ack))
  )
})

const tailing = Effect.fnUntraced(function* (
  options: Options,
  offset: AmqpConsumer.StreamOffset,
  topology: AmqpTopology.AmqpTopology | undefined
) {
  const { keys, name } = options
  const isExchange = (yield* kindOf(options)) === "exchange"
  const sources = isExchange || topology === undefined ? [] : sourcesOf(topology, name)
  if (options.offset !== "next" && (isExchange || sources.length > 0)) {
    return yield* usage(`tail: --offset is for streams, and messages of ${quoted(name)} are copied as they come`)
  }
  if (keys.length > 0 && !isExchange) {
    return yield* usage(`tail: --key is for exchanges, and ${quoted(name)} is a queue`)
  }
  if (isExchange) {
    return yield* copies(options, keys.length === 0 ? [everything(name)] : keys.map((key) => ({ exchange: name, key })))
  }
  if (sources.length > 0) return yield* copies(options, sources)
  if (yield* isStream(options.name)) return yield* streamed(options, offset)
  const why =
    topology === undefined
      ? "AMQP does not show which exchanges are bound to it"
      : "the topology binds no exchange to it"
  return yield* usage(
    `tail: ${quoted(options.name)} is a queue and no stream. A queue gives each message to one consumer only, so reading it would take messages away, and ${why}.`,
    `Tail the exchange: effect-amqp tail EXCHANGE --key KEY. Or give --topology FILE with the queue's bindings. effect-amqp peek shows what waits in the queue.`
  )
})

export const run = Effect.fnUntraced(function* (options: Options) {
  const offset = yield* offsetOf(options.offset)
  const topology = options.topology === undefined ? undefined : yield* loadPath(options.topology)
  yield* connected(options, "tail", tailing(options, offset, topology))
})
