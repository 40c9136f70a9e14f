/**
 * An application that uses everything that the library does with amqplib, where amqplib's prototypes are frozen and
 * what other code does to its objects is recorded: see `amqplibRecorder.ts`. It prints `open`, and waits until its
 * connection has been killed and re-established. Its last line is the recording, as JSON.
 *
 * Run as `guilty` it accesses amqplib's objects in ways that are forbidden.
 */
import { record } from "../amqplibRecorder.ts"

const [mode] = process.argv.slice(2) as ["innocent" | "guilty"]
const url = process.env["AMQP_URL"] ?? ""

const recording = record()
await (mode === "guilty" ? beGuilty() : beInnocent())
console.log(JSON.stringify({ reads: Array.from(recording.reads), writes: Array.from(recording.writes) }))

async function beGuilty() {
  const { default: amqplib } = await import("amqplib")
  const model = await amqplib.connect(url)
  const channel = await model.createChannel()
  const undeclared = channel as unknown as Record<string, unknown>
  const connection = model.connection as unknown as Record<string, unknown>
  if (connection["heartbeat"] === undefined || !("blocked" in connection)) throw new Error("amqplib has changed")
  Reflect.ownKeys(model)
  undeclared["options"] = {}
  Object.defineProperty(channel, "publish", { value: () => true, configurable: true })
  delete undeclared["publish"]
  const denied: Array<string> = []
  for (const [name, of] of Object.entries({ model, channel, connection })) {
    try {
      Object.getPrototypeOf(of).close = () => {}
    } catch (error) {
      if (error instanceof TypeError) denied.push(name)
    }
  }
  try {
    Object.assign(amqplib, { connect: () => {} })
  } catch (error) {
    if (error instanceof TypeError) denied.push("module")
  }
  console.log(`denied ${denied.join(" ")}`)
  await model.close()
}

async function beInnocent() {
  const { Amqp, AmqpChannel, AmqpConfig, AmqpConnection, AmqpConsumer, AmqpPool, AmqpPublisher } =
    await import("@effect-amqp/core")
  const { Deferred, Effect, Fiber, References, Stream, SubscriptionRef } = await import("effect")
  const print = (line: string) => Effect.sync(() => console.log(line))

  const publishAndConsume = (queue: string) =>
    Effect.gen(function* () {
      const handled = yield* Deferred.make<void>()
      yield* Effect.forkScoped(AmqpConsumer.consume(queue, () => Deferred.succeed(handled, undefined)))
      yield* AmqpPublisher.publish({ routingKey: queue, content: "" }, { mandatory: true })
      yield* Deferred.await(handled)
    }).pipe(Effect.scoped)

  const interruptOpens = Effect.gen(function* () {
    const pool = yield* AmqpPool.AmqpPool
    const open = Effect.scoped(Effect.andThen(pool.get, Effect.never))
    const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(open, { startImmediately: true }))
    yield* Effect.forEach(fibers, Fiber.interrupt, { concurrency: "unbounded", discard: true })
  })

  const main = Effect.gen(function* () {
    const { state } = yield* AmqpConnection.AmqpConnection
    const becomes = (tag: string) =>
      Stream.runHead(Stream.filter(SubscriptionRef.changes(state), ({ _tag }) => _tag === tag))
    yield* interruptOpens
    yield* Effect.scoped(
      AmqpChannel.use((channel) =>
        Effect.gen(function* () {
          yield* channel.exchangeDeclare("things", "topic", { autoDelete: true })
          yield* channel.queueDeclare("work", { autoDelete: true })
          yield* channel.queueBind("work", "things", "#")
          yield* channel.queueUnbind("work", "things", "#")
          yield* channel.qos(10)
          yield* channel.publish({ routingKey: "work", content: "one" })
          yield* channel.get("work", { noAck: true })
          yield* channel.queuePurge("work")
        })
      )
    )
    yield* Effect.scoped(
      AmqpChannel.useTransaction((channel) =>
        Effect.andThen(channel.publish({ routingKey: "work", content: "one" }), channel.rollback)
      )
    )
    // A channel that the broker closes.
    yield* Effect.flip(Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive("nowhere"))))
    yield* publishAndConsume("work")
    const lost = yield* Effect.forkChild(becomes("Reconnecting"), { startImmediately: true })
    yield* print("open")
    yield* Fiber.join(lost)
    yield* becomes("Open")
    yield* AmqpChannel.use((channel) => channel.queueDeclare("more", { autoDelete: true })).pipe(Effect.scoped)
    yield* publishAndConsume("more")
  })

  await Effect.runPromise(
    Effect.flatMap(AmqpConfig.fromUrl(url, { reconnect: { minDelay: 10, maxDelay: 50 } }), (config) =>
      Effect.provide(main, Amqp.fromConfig(config))
    ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )
}
