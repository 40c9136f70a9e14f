/** The examples as programs: what they print, what they do, and what they leave behind. */
import { assert, describe, layer } from "@effect/vitest"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Schedule, type Scope } from "effect"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { type Program, run } from "./support/program.ts"

const ask = (url: string, init?: RequestInit) =>
  Effect.promise(async (signal) => {
    const response = await fetch(url, { ...init, signal })
    return { status: response.status, body: await response.text() }
  })

const order = { method: "POST", body: '{"product":"tea","quantity":2}' }

/** The order service, when it listens. */
const start = (env: Record<string, string>) =>
  Effect.gen(function* () {
    const program = yield* run("orders.ts", { PORT: "0", ...env })
    const [, url = ""] = yield* program.until(/listens on (http:\S+?)(?:,|\.\n)[^]*Ctrl-C stops it/)
    return { program, url }
  })

/** Signals the program to end, and returns how long it took. The program must end with success. */
const stop = (program: Program, signal: NodeJS.Signals) =>
  Effect.gen(function* () {
    const [took, exit] = yield* Effect.timed(Effect.andThen(program.kill(signal), program.ended))
    assert.deepStrictEqual(exit, { code: 0, signal: null }, program.output())
    assert.match(program.output(), /Stopping: [^]*Stopped\.\n$/)
    return Duration.toMillis(took)
  })

/** A TCP connection to the service, for clients that misbehave. */
const socketTo = (url: string) =>
  Effect.acquireRelease(
    Effect.callback<Socket, Error>((resume) => {
      const { hostname, port } = new URL(url)
      const socket = connect(Number(port), hostname, () => resume(Effect.succeed(socket)))
      socket.on("error", (error) => resume(Effect.fail(error)))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** Everything that arrives, until the other side ends. */
const untilEnd = (socket: Socket) =>
  Effect.callback<string>((resume) => {
    let received = ""
    socket.on("data", (chunk: Buffer) => {
      received += chunk.toString()
    })
    socket.on("close", () => resume(Effect.succeed(received)))
  })

const runs = (pid: number) => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Polls, since no event reports the end of another program's children. */
const untilGone = (pid: number) =>
  Effect.repeat(
    Effect.sync(() => runs(pid)),
    { until: (running) => !running, schedule: Schedule.spaced("20 millis") }
  ).pipe(Effect.timeout("10 seconds"))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("hello.ts", () => {
    it.effect("publishes one message and leaves nothing open", () =>
      Effect.gen(function* () {
        const { awaitCensus, queues, url } = yield* TestBroker.TestBroker
        const program = yield* run("hello.ts", { AMQP_URL: url })
        assert.deepStrictEqual(yield* program.ended, { code: 0, signal: null }, program.output())
        yield* awaitCensus({ connections: 0, channels: 0 })
        const hello = (yield* queues).find(({ name }) => name === "hello")
        assert.deepInclude(hello, { messages: 1, ready: 1 })
      })
    )
  })

  describe("orders.ts", () => {
    it.effect("prints its address, its broker, and a command to try, which works as printed", () =>
      Effect.gen(function* () {
        const { url: broker } = yield* TestBroker.TestBroker
        const { program, url } = yield* start({ AMQP_URL: broker })
        assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/)
        assert.include(program.output(), new URL(broker).host)
        assert.match(program.output(), /with RabbitMQ \d/)
        const [, posted = "", body = ""] = yield* program.until(/curl -i (\S+) -d '(.*)'/)
        assert.strictEqual((yield* ask(posted, { method: "POST", body })).status, 202)
        const [, taken = ""] = yield* program.until(/curl -i (\S+)\n/)
        const answer = yield* ask(taken)
        assert.strictEqual(answer.status, 200)
        assert.deepInclude(JSON.parse(answer.body), JSON.parse(body))
        yield* stop(program, "SIGINT")
      })
    )

    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      it.effect(
        `at ${signal}, finishes the request that has arrived, and then closes its connections to client and broker`,
        () =>
          Effect.gen(function* () {
            const { awaitCensus, queues, url: broker } = yield* TestBroker.TestBroker
            const ordersIn = Effect.map(queues, (all) => all.find(({ name }) => name === "orders")?.messages ?? 0)
            const before = yield* ordersIn
            const { program, url } = yield* start({ AMQP_URL: broker })
            const client = yield* socketTo(url)
            const answer = yield* Effect.forkChild(untilEnd(client), { startImmediately: true })
            const head = `POST /orders HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${order.body.length}\r\n\r\n`
            // "100 Continue" means that the handler has begun to read.
            yield* Effect.callback<void>((resume) => {
              client.once("data", () => resume(Effect.void))
              client.write(head)
            })
            const stopping = yield* Effect.forkChild(stop(program, signal))
            yield* program.until(/Stopping/)
            client.write(order.body)
            const received = yield* Fiber.join(answer)
            assert.match(received, /^HTTP\/1\.1 202 Accepted/m)
            assert.match(received, /^connection: close/im)
            assert.isBelow(yield* Fiber.join(stopping), 4000)
            assert.strictEqual(yield* ordersIn, before + 1)
            yield* awaitCensus({ connections: 0, channels: 0 })
          })
      )
    }

    it.effect("ends within seconds, however its clients behave", () =>
      Effect.gen(function* () {
        const { awaitCensus, url: broker } = yield* TestBroker.TestBroker
        const { program, url } = yield* start({ AMQP_URL: broker })
        const request = "GET /orders/next HTTP/1.1\r\nHost: x\r\n\r\n"
        // One client has sent a request and keeps its connection, one never sends anything, one never stops sending
        // requests.
        const kept = yield* socketTo(url)
        kept.write(request)
        yield* socketTo(url)
        const busy = yield* socketTo(url)
        busy.on("data", () => busy.write(request))
        const cutOff = yield* Effect.forkChild(untilEnd(busy), { startImmediately: true })
        busy.write(request)
        yield* program.until(/Sent HTTP response[^]*Sent HTTP response[^]*Sent HTTP response/)
        // The service waits up to 5 seconds for requests, and none of these clients makes it wait that long.
        assert.isBelow(yield* stop(program, "SIGINT"), 4500)
        yield* Fiber.join(cutOff)
        yield* awaitCensus({ connections: 0, channels: 0 })
      })
    )

    it.effect("reports that its port is taken, and ends", () =>
      Effect.gen(function* () {
        const { awaitCensus, url: broker } = yield* TestBroker.TestBroker
        const taken = yield* Effect.acquireRelease(
          Effect.callback<ReturnType<typeof createServer>>((resume) => {
            const server = createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.sync(() => server.close())
        )
        const { port } = taken.address() as AddressInfo
        const program = yield* run("orders.ts", { AMQP_URL: broker, PORT: String(port) })
        assert.deepInclude(yield* program.ended, { code: 1 })
        assert.include(program.output(), `Port ${port} of 127.0.0.1 is taken.`)
        assert.notInclude(program.output(), "    at ")
        yield* awaitCensus({ connections: 0 })
      })
    )

    it.effect("reports that the broker of AMQP_URL is not reachable, and ends", () =>
      Effect.gen(function* () {
        const program = yield* run("orders.ts", { AMQP_URL: "amqp://alice:s3cret@127.0.0.1:1" })
        assert.deepInclude(yield* program.ended, { code: 1 })
        assert.match(program.output(), /cannot reach 127\.0\.0\.1:1\b/)
        assert.notMatch(program.output(), /s3cret|^ {4}at /m)
      })
    )

    it.effect("reads its other settings from the environment, and reports invalid ones", () =>
      Effect.gen(function* () {
        const { url: broker } = yield* TestBroker.TestBroker
        const program = yield* run("orders.ts", { AMQP_URL: broker, AMQP_POOL_SIZE: "none", PORT: "0" })
        assert.deepInclude(yield* program.ended, { code: 1 })
        assert.match(program.output(), /AMQP_POOL_SIZE/)
      })
    )
  })

  describe("orders.ts without AMQP_URL", () => {
    /** The service with its own broker, as `npm start` runs it. */
    const startAlone = Effect.gen(function* () {
      const { program, url } = yield* start({})
      const [, pid] = yield* program.until(/The broker is a private rabbitmq-server .*\(pid (\d+)\)/)
      return { program, url, pid: Number(pid) }
    })

    const isInstalled = Effect.map(TestBroker.TestBroker, ({ origin }) => origin === "binary" || origin === "package")

    const withOwnBroker = (title: string, body: Effect.Effect<void, unknown, Scope.Scope>) =>
      it.effect(title, (test) =>
        Effect.gen(function* () {
          if (!(yield* isInstalled)) return test.skip("no rabbitmq-server is installed")
          return yield* body
        })
      )

    withOwnBroker(
      "starts a broker, and takes it down with itself",
      Effect.gen(function* () {
        const { pid, program, url } = yield* startAlone
        assert.isTrue(runs(pid))
        assert.strictEqual((yield* ask(`${url}/orders`, order)).status, 202)
        assert.strictEqual((yield* ask(`${url}/orders/next`)).status, 200)
        assert.isBelow(yield* stop(program, "SIGINT"), 9000)
        yield* untilGone(pid)
      })
    )

    withOwnBroker(
      "answers 503 when the broker has died, and ends within seconds all the same",
      Effect.gen(function* () {
        const { pid, program, url } = yield* startAlone
        process.kill(pid, "SIGKILL")
        yield* program.until(/AMQP connection lost/)
        assert.strictEqual((yield* ask(`${url}/orders`, order)).status, 503)
        assert.isBelow(yield* stop(program, "SIGINT"), 9000)
      })
    )

    withOwnBroker(
      "ends within seconds when the broker hangs, and leaves no broker",
      Effect.gen(function* () {
        const { pid, program, url } = yield* startAlone
        assert.strictEqual((yield* ask(`${url}/orders`, order)).status, 202)
        process.kill(pid, "SIGSTOP")
        assert.isBelow(yield* stop(program, "SIGINT"), 15_000)
        yield* untilGone(pid)
      })
    )
  })
})
