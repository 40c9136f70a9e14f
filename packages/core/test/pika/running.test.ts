/**
 * Running and stopping, alone and inside another framework. Rows and examples of `docs/pika.md` are from these tests.
 */
import { assert, layer } from "@effect/vitest"
import { type Amqp, AmqpChannel, AmqpConsumer, AmqpLive, AmqpMessage, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { ConfigProvider, Deferred, Effect, Fiber, Layer, ManagedRuntime, Queue, References, type Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { Worker } from "node:worker_threads"
import { environment } from "../support/environment.ts"
import { connected, contents, fill, newQueue } from "./broker.ts"

const program = (name: string) => join(import.meta.dirname, "programs", name)

const conditions = "--conditions=@effect-amqp/source"

interface Program {
  readonly child: ChildProcess
  /** Waits until the program has printed this. */
  readonly until: (text: string) => Effect.Effect<void>
  readonly ended: Effect.Effect<{ readonly code: number | null; readonly output: string }>
}

const run = (name: string, url: string): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.gen(function* () {
    const child = spawn(process.execPath, [conditions, program(name)], {
      env: { ...environment(), AMQP_URL: url },
      stdio: ["ignore", "pipe", "inherit"]
    })
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString()
    })
    const closed = new Promise<number | null>((resolve) => child.once("close", resolve))
    const ended = Effect.promise(async () => ({ code: await closed, output }))
    yield* Effect.addFinalizer(() =>
      Effect.andThen(
        Effect.sync(() => child.kill("SIGKILL")),
        ended
      )
    )
    const until = (text: string) =>
      Effect.callback<void>((resume) => {
        const look = () => {
          if (output.includes(text)) resume(Effect.void)
        }
        child.stdout.on("data", look)
        look()
        return Effect.sync(() => child.stdout.off("data", look))
      })
    return { child, until, ended }
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("Ctrl-C: running handlers finish and acknowledge, the rest is requeued, nothing stays open", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      yield* AmqpChannel.use((channel) => channel.queueDeclare("tasks")).pipe(connected())
      yield* fill("tasks", "one", "two", "three").pipe(connected())
      const { child, ended, until } = yield* run("consumer.ts", url)
      yield* until("done one")
      yield* until("begun two")
      child.kill("SIGINT")
      const { code, output } = yield* ended
      assert.strictEqual(code, 130, output)
      assert.include(output, "done two")
      assert.notInclude(output, "begun three")
      yield* awaitCensus({ connections: 0, channels: 0, unacked: 0 })
      assert.deepStrictEqual(yield* contents("tasks").pipe(connected()), ["three"])
    })
  )

  it.effect("no loop has to run: deliveries and confirms arrive while the program waits for something else", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      const handled = yield* Queue.unbounded<string>()
      yield* Effect.forkScoped(
        AmqpConsumer.consume(queue, (delivery) => Queue.offer(handled, AmqpMessage.text(delivery)))
      )
      yield* fill(queue, "a", "b")
      yield* Effect.callback<void>((resume) => {
        // The process does other work: here, a timer.
        setTimeout(() => resume(Effect.void), 50)
      })
      assert.deepStrictEqual(yield* Queue.takeN(handled, 2), ["a", "b"])
    }).pipe(connected())
  )

  it.effect("inside another framework: a runtime is made once, and each request runs an effect as a promise", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      const queue = yield* newQueue().pipe(connected())
      const Environment = ConfigProvider.layer(ConfigProvider.fromUnknown({ AMQP_URL: url }))
      const AppLive = AmqpLive.pipe(
        Layer.provide(Environment),
        Layer.provide(Layer.succeed(References.MinimumLogLevel, "None"))
      )

      const runtime = ManagedRuntime.make(AppLive)
      const server = createServer(async (request, response) => {
        await runtime.runPromise(AmqpPublisher.publish({ routingKey: queue, content: request.url ?? "" }))
        response.writeHead(202).end()
      })

      yield* Effect.promise(async () => {
        await new Promise<Server>((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)))
        const { port } = server.address() as AddressInfo
        const answers = await Promise.all(["/a", "/b"].map((path) => fetch(`http://127.0.0.1:${port}${path}`)))
        assert.deepStrictEqual(
          answers.map(({ status }) => status),
          [202, 202]
        )
        server.closeAllConnections()
        server.close()
        await runtime.dispose()
      })
      yield* awaitCensus({ connections: 0 })
      assert.sameMembers(yield* contents(queue).pipe(connected()), ["/a", "/b"])
    })
  )

  it.effect("an AbortSignal of the framework interrupts the effect, and its channel is returned", () =>
    Effect.gen(function* () {
      const context = yield* Effect.context<Amqp.Amqp>()
      const hasBegun = yield* Deferred.make<void>()
      const handler = Effect.scoped(
        AmqpChannel.use(() => Effect.andThen(Deferred.succeed(hasBegun, undefined), Effect.never))
      )
      const request = new AbortController()
      const handling = Effect.runPromiseWith(context)(handler, { signal: request.signal })
      yield* Deferred.await(hasBegun)
      request.abort()
      yield* Effect.promise(() => handling.catch(() => undefined))
      assert.deepInclude(yield* AmqpPool.stats, { used: 0, idle: 1 })
    }).pipe(connected())
  )

  it.effect("any number of fibers use one connection at the same time, for any operation", () =>
    Effect.gen(function* () {
      const { awaitCensus } = yield* TestBroker.TestBroker
      const queue = yield* newQueue()
      const declares = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive(queue)))
      const publishes = AmqpPublisher.publish({ routingKey: queue, content: "a" })
      const fibers = yield* Effect.forEach(Array.from({ length: 200 }), () =>
        Effect.forEach([declares, publishes], (effect) => Effect.forkChild(effect))
      )
      yield* Effect.forEach(fibers.flat(), (fiber) => Fiber.join<unknown, unknown>(fiber))
      yield* awaitCensus({ connections: 1, messages: 200 })
    }).pipe(connected())
  )

  it.effect("a worker thread has its own connection, and exits when its program ends", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      yield* AmqpChannel.use((channel) => channel.queueDeclare("threads")).pipe(connected())
      const ended = yield* Effect.promise(
        () =>
          new Promise<unknown>((resolve) => {
            const worker = new Worker(program("worker.ts"), {
              env: { ...environment(), AMQP_URL: url },
              execArgv: [conditions],
              stdout: true
            })
            worker.once("error", resolve)
            worker.once("exit", resolve)
          })
      )
      assert.strictEqual(ended, 0)
      yield* awaitCensus({ connections: 0 })
      assert.deepStrictEqual(yield* contents("threads").pipe(connected()), ["from a thread"])
    })
  )
})
