/**
 * An application that uses amqplib directly, with OpenTelemetry's instrumentation of it, and this library: on one
 * broker, each with its own connection. Its only line of output is a report, as JSON.
 */
import { context, propagation } from "@opentelemetry/api"
import { W3CTraceContextPropagator } from "@opentelemetry/core"
import { AmqplibInstrumentation } from "@opentelemetry/instrumentation-amqplib"
import { InMemorySpanExporter, SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace"
import type Amqplib from "amqplib"
import { EventEmitter, once } from "node:events"
import { createRequire } from "node:module"
import { dirname, sep } from "node:path"

const url = process.env["AMQP_URL"] ?? ""
const messages = 20

const exporter = new InMemorySpanExporter()
const tracerProvider = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] })
propagation.setGlobalPropagator(new W3CTraceContextPropagator())
// It replaces methods of amqplib when `require` loads it.
new AmqplibInstrumentation().setTracerProvider(tracerProvider)
const require = createRequire(import.meta.url)
const amqplib = require("amqplib") as typeof Amqplib

/** The spans that were added since the last call. */
const spans = () => {
  const names = exporter.getFinishedSpans().map(({ name }) => name)
  exporter.reset()
  return names.sort()
}

// --- amqplib's members -----------------------------------------------------------------------------------------------

const folder = dirname(require.resolve("amqplib")) + sep

/** All properties of all that its modules export, and of the prototypes of their classes. */
const everything = () => {
  const found = new Map<object, PropertyDescriptorMap>()
  const look = (value: unknown) => {
    if ((typeof value !== "object" && typeof value !== "function") || value === null || found.has(value)) return
    const descriptors = Object.getOwnPropertyDescriptors(value) as PropertyDescriptorMap
    found.set(value, descriptors)
    for (const key of Reflect.ownKeys(descriptors)) look(descriptors[key as string]?.value)
    const prototype: unknown = Object.getPrototypeOf(value)
    if (prototype !== EventEmitter && prototype !== EventEmitter.prototype) look(prototype)
  }
  for (const [path, module] of Object.entries(require.cache)) if (path.startsWith(folder)) look(module?.exports)
  return found
}

/** The names of properties that have changed. */
const changes = (before: ReturnType<typeof everything>) => {
  const changed: Array<string> = []
  for (const [of, descriptors] of before) {
    const now = Object.getOwnPropertyDescriptors(of) as PropertyDescriptorMap
    for (const key of new Set([...Reflect.ownKeys(descriptors), ...Reflect.ownKeys(now)])) {
      const [was, is] = [descriptors[key as string], now[key as string]]
      const isSame = was !== undefined && is !== undefined && was.value === is.value && was.get === is.get
      if (!isSame || was.set !== is.set || was.writable !== is.writable || was.configurable !== is.configurable)
        changed.push(String(key))
    }
  }
  return changed
}

/** The entries that occur more often than before. */
const added = (before: ReadonlyArray<string>, now: ReadonlyArray<string>) => {
  const rest = Array.from(before)
  return now.filter((name) => {
    const i = rest.indexOf(name)
    if (i >= 0) rest.splice(i, 1)
    return i < 0
  })
}

const listeners = (emitters: ReadonlyArray<EventEmitter>) =>
  emitters.map((emitter) => emitter.eventNames().map((name) => [String(name), emitter.listenerCount(name)]))

// --- The application -------------------------------------------------------------------------------------------------

const model = await amqplib.connect(url)
const channel = await model.createChannel()
for (const queue of ["theirs", "ours"]) await channel.assertQueue(queue, { autoDelete: false })
const arrivals = new EventEmitter()
await channel.consume("theirs", (message) => {
  if (message === null) return
  channel.ack(message)
  arrivals.emit("message", message)
})

/** Publishes with amqplib, and returns the headers with which the message arrives. */
const useAmqplib = async () => {
  const arrived = once(arrivals, "message") as Promise<[Amqplib.ConsumeMessage]>
  channel.sendToQueue("theirs", Buffer.from("x"))
  const [message] = await arrived
  return Object.keys(message.properties.headers ?? {})
}

const theirHeaders = await useAmqplib()
const theirSpans = spans()

const before = everything()
const listening = () => listeners([model, channel, model.connection as unknown as EventEmitter, process])
const listenersBefore = listening()
const resourcesBefore = process.getActiveResourcesInfo()

// --- This library ----------------------------------------------------------------------------------------------------

const { Amqp, AmqpChannel, AmqpConfig, AmqpConsumer, AmqpPublisher } = await import("@effect-amqp/core")
const { Effect, References, Stream } = await import("effect")

const main = Effect.gen(function* () {
  const publish = AmqpPublisher.publish({ routingKey: "ours", content: "x" }, { mandatory: true })
  yield* Effect.repeat(publish, { times: messages })
  const seen = yield* AmqpConsumer.stream("ours").pipe(
    Stream.take(messages),
    Stream.tap((delivery) => delivery.ack),
    Stream.runCollect
  )
  yield* Effect.scoped(AmqpChannel.use((channel) => channel.publish({ routingKey: "ours", content: "x" })))
  return seen.length
})

const config = await Effect.runPromise(AmqpConfig.fromUrl(url))
const seen = await Effect.runPromise(
  Effect.provide(main, Amqp.fromConfig(config)).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
)

const ourSpans = spans()
const got = await channel.get("ours")
const ourHeaders = got === false ? undefined : Object.keys(got.properties.headers ?? {})
if (got !== false) channel.ack(got)
spans()
const theirSpansAfter = (await useAmqplib(), spans())

// The sockets of a closed connection are gone one turn later.
await new Promise((resolve) => setImmediate(resolve))
console.log(
  JSON.stringify({
    theirs: { headers: theirHeaders, spans: theirSpans, spansAfter: theirSpansAfter },
    ours: { seen, headers: ourHeaders, spans: ourSpans },
    left: {
      changes: changes(before),
      listeners: JSON.stringify(listening()) === JSON.stringify(listenersBefore),
      resources: added(resourcesBefore, process.getActiveResourcesInfo())
    },
    watched: before.size
  })
)
for (const queue of ["theirs", "ours"]) await channel.deleteQueue(queue)
await model.close()
context.disable()
