/** The connection: its states, its end, and its reasons for a peer that does not work. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, type AmqpError, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Layer, Queue, Redacted, Schedule, Stream, SubscriptionRef } from "effect"
import { createServer, type Server, type Socket } from "node:net"
import { onScriptedBroker, onTestBroker } from "./support/client.ts"
import { closedByRefusals, configOf, connecting, reasonOf, withPool } from "./support/amqp.ts"
import { logged } from "./support/consumers.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const millis = Duration.millis

/** Every state from now on, as a queue. */
const states = Effect.gen(function* () {
  const { state } = yield* AmqpConnection.AmqpConnection
  const queue = yield* Queue.unbounded<AmqpConnection.State>()
  yield* Effect.forkScoped(Stream.runForEach(SubscriptionRef.changes(state), (now) => Queue.offer(queue, now)))
  return queue
})

const nextState = Effect.fnUntraced(function* (
  queue: Queue.Dequeue<AmqpConnection.State>,
  tag: AmqpConnection.State["_tag"]
) {
  while (true) {
    const now = yield* Queue.take(queue)
    if (now._tag === tag) return now
  }
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a connection to a real broker", () => {
    it.effect("is open, reconnects after a loss, and is closed at the end of its scope", () =>
      Effect.gen(function* () {
        const { awaitCensus, closeConnections, url } = yield* TestBroker.TestBroker
        const state = yield* Effect.gen(function* () {
          const { state } = yield* AmqpConnection.AmqpConnection
          const seen = yield* states
          const first = yield* nextState(seen, "Open")
          assert.deepInclude(first, { generation: 1, channelMax: 2047, frameMax: 131_072 })
          yield* closeConnections()
          const lost = yield* nextState(seen, "Reconnecting")
          assert.deepInclude(lost, { attempt: 0 })
          if (lost._tag === "Reconnecting") {
            assert.strictEqual(lost.reason._tag, "ConnectionClosed")
            assert.include(lost.reason.message, "CONNECTION_FORCED")
          }
          assert.deepInclude(yield* nextState(seen, "Open"), { generation: 2 })
          yield* AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true }))
          yield* awaitCensus({ connections: 1 })
          return state
        }).pipe(Effect.scoped, withPool(url))
        assert.strictEqual(state.value._tag, "Closed")
        yield* awaitCensus({ connections: 0, channels: 0 })
      })
    )

    it.effect("with a wrong password is AuthenticationFailed, at once and however many attempts are allowed", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const reason = yield* connecting({
          ...configOf(url, { connectionAttempts: 100, retryDelay: Duration.hours(1) }),
          credentials: { _tag: "Plain", username: "guest", password: Redacted.make("canary-4711") }
        })
        assert.strictEqual(reason._tag, "AuthenticationFailed")
        assert.deepInclude(reason, { replyCode: 403, isRetryable: false, severity: "connection" })
        assert.notInclude(JSON.stringify(reason) + String(reason.stack), "canary-4711")
      })
    )

    it.effect("to an unknown virtual host is VirtualHostRefused, with its name and what to check", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const reason = yield* connecting(configOf(url, { vhost: "nowhere/50%" }))
        assert.strictEqual(reason._tag, "VirtualHostRefused")
        assert.include(reason.message, '"nowhere/50%"')
        assert.deepInclude(reason, { replyCode: 530, isRetryable: false })
        assert.include(reason.message, "not found")
        assert.include(reason.message, "Check its name, in a URL the path, and the permissions of the user.")
      })
    )

    it.effect("to a virtual host that is down, as while its node starts, gets a retryable reason and is retried", () =>
      Effect.gen(function* () {
        const { closeConnections, evaluate, url, vhost } = yield* TestBroker.TestBroker
        const takeDown = evaluate(`rabbit_vhost_sup_sup:delete_on_all_nodes(<<"${vhost}">>).`)
        const bringUp = evaluate(`{ok, _} = rabbit_vhost_sup_sup:start_vhost(<<"${vhost}">>).`)
        yield* Effect.gen(function* () {
          const seen = yield* states
          yield* takeDown
          const reason = yield* connecting(configOf(url))
          assert.deepInclude(reason, { _tag: "BrokerError", replyCode: 541, isRetryable: true })
          assert.include(reason.message, `vhost '${vhost}' is down`)
          yield* closeConnections()
          while (true) {
            const state = yield* nextState(seen, "Reconnecting")
            if (state._tag === "Reconnecting" && state.reason._tag === "BrokerError") break
          }
          yield* bringUp
          yield* nextState(seen, "Open")
        }).pipe(Effect.ensuring(Effect.ignore(bringUp)), Effect.scoped, withPool(url))
      })
    )

    it.effect("leaves no socket, timer or listener, after a hundred of them were opened, used and closed", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* TestBroker.TestBroker
        const once = AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true })).pipe(
          Effect.scoped,
          withPool(url)
        )
        yield* once
        yield* awaitCensus({ connections: 0 })
        const open = Effect.promise(async () => {
          // A destroyed socket leaves the list in the next turn of the event loop.
          await new Promise((resolve) => setImmediate(resolve))
          return process.getActiveResourcesInfo().filter((name) => /Socket|TCP|Timeout/.test(name)).length
        })
        const before = yield* open
        const listeners = process.eventNames().map((name) => process.listenerCount(name))
        yield* Effect.forEach(Array.from({ length: 100 }), () => once, { concurrency: 10, discard: true })
        yield* awaitCensus({ connections: 0 })
        assert.isAtMost(yield* open, before)
        assert.deepStrictEqual(
          process.eventNames().map((name) => process.listenerCount(name)),
          listeners
        )
      })
    )

    it.effect("shows the client's name and properties at the broker", () =>
      onTestBroker(
        { connectionName: "the order service", clientProperties: { deployment: "blue" } },
        function* ({ evaluate, vhost }) {
          const shown = yield* evaluate(
            `[proplists:get_value(client_properties, C) || C <- rabbit_networking:connection_info_all([vhost, client_properties]), proplists:get_value(vhost, C) =:= <<"${vhost}">>].`
          )
          for (const text of ["the order service", "effect-amqp", "blue"]) assert.include(shown, text)
        }
      )
    )
  })
})

describe("a connect", () => {
  it.live("without a listener is ConnectFailed, retryable", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* broker.down
      const reason = yield* connecting(configOf(broker.url))
      assert.strictEqual(reason._tag, "ConnectFailed")
      assert.deepInclude(reason, { code: "ECONNREFUSED", isRetryable: true })
      assert.include(reason.message, `cannot reach 127.0.0.1:${broker.port}`)
    })
  )

  it.live("to a host name that does not exist is ConnectFailed", () =>
    Effect.gen(function* () {
      const reason = yield* connecting(configOf("amqp://guest:guest@no-such-host.invalid:5672"))
      assert.strictEqual(reason._tag, "ConnectFailed")
    })
  )

  it.live(
    "to a peer that accepts and stays silent is ConnectTimeout within the deadline, and its socket is closed",
    () =>
      Effect.gen(function* () {
        const sockets: Array<Socket> = []
        const closed = yield* Queue.unbounded<void>()
        const server = yield* Effect.acquireRelease(
          Effect.callback<Server>((resume) => {
            const server = createServer((socket) => {
              sockets.push(socket)
              socket.on("error", () => {})
              socket.on("close", () => Queue.offerUnsafe(closed, undefined))
              socket.resume()
            }).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
          }),
          (server) => Effect.sync(() => server.close())
        )
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        for (const timeouts of [{ connectTimeout: millis(100) }, { socketTimeout: millis(100) }]) {
          const reason = yield* Effect.timeout(
            connecting(configOf(`amqp://guest:guest@127.0.0.1:${port}`, timeouts)),
            "2 seconds"
          )
          assert.strictEqual(reason._tag, "ConnectTimeout")
          assert.include(reason.message, "Check the host and the port, and firewalls on the way.")
          yield* Queue.take(closed)
        }
        const interrupted = yield* Effect.forkChild(
          Effect.scoped(AmqpConnection.make(configOf(`amqp://guest:guest@127.0.0.1:${port}`)))
        )
        yield* Effect.race(Fiber.join(interrupted), Effect.sleep("50 millis"))
        yield* Fiber.interrupt(interrupted)
        yield* Queue.take(closed)
        assert.isTrue(sockets.every((socket) => socket.destroyed))
      })
  )

  it.live("to an HTTP server is ProtocolError or ConnectionClosed, and does not hang", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({
        protocolErrors: "record",
        on: { "protocol-header": (header) => header.write(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")) }
      })
      const reason = yield* Effect.timeout(
        connecting(configOf(broker.url, { connectTimeout: millis(500) })),
        "2 seconds"
      )
      assert.include(["ProtocolError", "ConnectionClosed", "ConnectTimeout"], reason._tag)
      yield* broker.socketsClosed
    })
  )

  for (const [name, config] of Object.entries({
    login: "connection.start-ok",
    "virtual host": "connection.open"
  } as const)) {
    it.live(`to a peer that dies during the handshake (${name}) is ConnectionClosed, retryable, and is retried`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        broker.once(config, (context) => context.destroy())
        broker.once(config, (context) => context.end())
        yield* AmqpChannel.use((channel) => channel.queueDeclare("q")).pipe(
          Effect.scoped,
          withPool(broker.url, { connectionAttempts: 3, retryDelay: millis(1) })
        )
        assert.strictEqual(broker.count(config), 3)
      })
    )
  }

  it.live("to several hosts uses the first that works, and after a loss the next", () =>
    Effect.gen(function* () {
      const dead = yield* ScriptedBroker.make()
      yield* dead.down
      const one = yield* ScriptedBroker.make()
      const two = yield* ScriptedBroker.make()
      const hosts = [dead, one, two].map(({ host, port }) => ({ host, port }))
      yield* Effect.gen(function* () {
        const seen = yield* states
        assert.deepInclude(yield* nextState(seen, "Open"), { peer: `127.0.0.1:${one.port}` })
        yield* one.down
        assert.deepInclude(yield* nextState(seen, "Open"), { peer: `127.0.0.1:${two.port}`, generation: 2 })
      }).pipe(Effect.scoped, withPool(one.url, { hosts: hosts as never }))
    })
  )

  it.live("after a loss waits as its schedule says, which gets each reason, and stops when the schedule ends", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const reasons: Array<string> = []
      const schedule = Schedule.identity<AmqpError.AmqpErrorReason>().pipe(
        Schedule.upTo({ times: 3 }),
        Schedule.tap(({ input }) => Effect.sync(() => void reasons.push(input._tag)))
      )
      const reconnect = { ...configOf(broker.url).reconnect, schedule }
      yield* Effect.gen(function* () {
        const seen = yield* states
        yield* nextState(seen, "Open")
        yield* broker.down
        const closed = yield* nextState(seen, "Closed")
        assert.deepStrictEqual(reasons, ["ConnectionClosed", "ConnectFailed", "ConnectFailed"])
        if (closed._tag === "Closed") assert.strictEqual(closed.reason._tag, "ConnectFailed")
        assert.strictEqual((yield* reasonOf(AmqpChannel.use(() => Effect.void)))._tag, "ConnectFailed")
      }).pipe(Effect.scoped, withPool(broker.url, { reconnect }))
    })
  )

  it.live("begins with the first delay again after a connection that was open for healthyAfter, and only then", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const waits = (healthyAfter: Duration.Duration) =>
        Effect.gen(function* () {
          const counts: Array<number> = []
          const schedule = Schedule.map(Schedule.forever, ({ output }) => Effect.sync(() => void counts.push(output)))
          const reconnect = { ...configOf(broker.url).reconnect, healthyAfter, schedule }
          yield* Effect.gen(function* () {
            const seen = yield* states
            for (let loss = 0; loss < 3; loss++) {
              yield* nextState(seen, "Open")
              broker.destroy()
            }
            yield* nextState(seen, "Open")
          }).pipe(Effect.scoped, withPool(broker.url, { reconnect }))
          return counts
        })
      assert.deepStrictEqual(yield* waits(Duration.zero), [0, 0, 0])
      assert.deepStrictEqual(yield* waits(Duration.minutes(1)), [0, 1, 2])
    })
  )

  it.live("whose schedule dies closes the connection, instead of leaving it in Reconnecting without retries", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const schedule = Schedule.map(Schedule.forever, () => Effect.die(new Error("no schedule")))
      const reconnect = { ...configOf(broker.url).reconnect, schedule }
      yield* Effect.gen(function* () {
        const seen = yield* states
        yield* nextState(seen, "Open")
        broker.destroy()
        const closed = yield* nextState(seen, "Closed")
        if (closed._tag === "Closed") assert.include(closed.reason.message, "no schedule")
      }).pipe(Effect.scoped, withPool(broker.url, { reconnect }))
    })
  )

  it.live("that is lazy lets the application start, and callers wait for the connection", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* broker.down
      yield* Effect.gen(function* () {
        const seen = yield* states
        const waiting = yield* Effect.forkChild(Effect.scoped(AmqpChannel.use(() => Effect.succeed("served"))))
        while (true) {
          const now = yield* nextState(seen, "Connecting")
          if (now._tag !== "Connecting" || now.attempt < 2) continue
          assert.strictEqual(now.reason?._tag, "ConnectFailed")
          break
        }
        yield* broker.up
        assert.deepInclude(yield* nextState(seen, "Open"), { generation: 1 })
        assert.strictEqual(yield* Fiber.join(waiting), "served")
      }).pipe(Effect.scoped, withPool(broker.url, { lazyConnect: true }))
    })
  )

  it.live("that never opened does not log that it is closed", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* broker.down
      for (const lazyConnect of [true, false]) {
        yield* logged((lines) =>
          Effect.gen(function* () {
            const connection = AmqpConnection.layer(configOf(broker.url, { lazyConnect }))
            const exit = yield* Effect.exit(Effect.scoped(Layer.build(connection)))
            assert.strictEqual(exit._tag, lazyConnect ? "Success" : "Failure")
            assert.isFalse(lines.some(({ text }) => text.startsWith("AMQP connection closed")))
          })
        )
      }
    })
  )

  it.live("that is lazy and refused closes the connection with the refusal", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "connection.start-ok": ScriptedBroker.refuseLogin } })
      const reason = yield* reasonOf(AmqpChannel.use(() => Effect.void)).pipe(
        Effect.scoped,
        withPool(broker.url, { lazyConnect: true })
      )
      assert.strictEqual(reason._tag, "AuthenticationFailed")
    })
  )

  it.live("that is refused after a loss closes the connection for good, where onRefused says so", () =>
    onScriptedBroker(closedByRefusals, function* (broker) {
      const seen = yield* states
      yield* nextState(seen, "Open")
      broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
      broker.destroy()
      const closed = yield* nextState(seen, "Closed")
      if (closed._tag === "Closed") assert.strictEqual(closed.reason._tag, "AuthenticationFailed")
      const error = yield* Effect.flip(AmqpChannel.use(() => Effect.void))
      assert.strictEqual(error.reason._tag, "AuthenticationFailed")
    })
  )
})

describe("flow", () => {
  it.live("is Blocked while the broker says so, which a new listener learns too", () =>
    onScriptedBroker({}, function* (broker) {
      const { flow } = yield* AmqpConnection.AmqpConnection
      const seen = (tag: AmqpConnection.Flow["_tag"]) =>
        SubscriptionRef.changes(flow).pipe(
          Stream.filter((now) => now._tag === tag),
          Stream.runHead
        )
      broker.block("low on memory")
      yield* seen("Blocked")
      assert.deepStrictEqual(flow.value, { _tag: "Blocked", reason: "low on memory" })
      yield* seen("Blocked")
      broker.unblock()
      yield* seen("Flowing")
    })
  )

  it.live("is not Blocked any more after a blocked connection was lost", () =>
    onScriptedBroker({}, function* (broker) {
      const { flow } = yield* AmqpConnection.AmqpConnection
      const seen = yield* states
      yield* nextState(seen, "Open")
      broker.block("low on disk")
      yield* SubscriptionRef.changes(flow).pipe(
        Stream.filter((now) => now._tag === "Blocked"),
        Stream.runHead
      )
      broker.destroy()
      yield* nextState(seen, "Open")
      assert.strictEqual(flow.value._tag, "Flowing")
      yield* AmqpChannel.use((channel) => channel.publish({ routingKey: "q", content: "" }))
    })
  )

  it.live(
    "that is Blocked for longer than blockedConnectionTimeout ends the connection, and another one is opened",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* Effect.gen(function* () {
          const seen = yield* states
          yield* nextState(seen, "Open")
          broker.block("low on memory")
          const lost = yield* nextState(seen, "Reconnecting")
          if (lost._tag === "Reconnecting") assert.include(lost.reason.message, "blockedConnectionTimeout")
          yield* nextState(seen, "Open")
        }).pipe(Effect.scoped, withPool(broker.url, { blockedConnectionTimeout: millis(50) }))
        yield* broker.socketsClosed
      })
  )
})

describe("publishing against back-pressure", () => {
  const publish = (onBlocked?: "wait" | "fail") =>
    AmqpChannel.use((channel) => channel.publish({ routingKey: "q", content: "m" }, { onBlocked }))
  const blocked = (broker: ScriptedBroker.ScriptedBroker, reason = "low on memory") =>
    Effect.gen(function* () {
      const { flow } = yield* AmqpConnection.AmqpConnection
      broker.block(reason)
      yield* SubscriptionRef.changes(flow).pipe(
        Stream.filter((now) => now._tag === "Blocked"),
        Stream.runHead
      )
    })
  it.live("waits while the connection is blocked, and sends nothing until then", () =>
    onScriptedBroker({}, function* (broker) {
      yield* AmqpChannel.use(() => Effect.void)
      yield* blocked(broker)
      const waiting = yield* Effect.forkChild(publish(), { startImmediately: true })
      yield* Effect.yieldNow
      assert.isUndefined(waiting.pollUnsafe())
      assert.strictEqual(broker.count("basic.publish"), 0)
      broker.unblock()
      yield* Fiber.join(waiting)
      yield* broker.received("basic.publish")
    })
  )

  it.live("fails at once with PublishForbidden if configured so, and after publishTimeout otherwise", () =>
    onScriptedBroker({ publishTimeout: millis(50) }, function* (broker) {
      yield* AmqpChannel.use(() => Effect.void)
      yield* blocked(broker, "low on memory.")
      const reason = yield* reasonOf(publish("fail"))
      assert.strictEqual(reason._tag, "PublishForbidden")
      assert.include(reason.message, "low on memory. Nothing was sent.")
      assert.deepInclude(yield* reasonOf(publish()), { _tag: "PublishTimeout", sent: false })
      broker.unblock()
      yield* publish()
      yield* broker.received("basic.publish")
      assert.strictEqual(broker.count("basic.publish"), 1)
      assert.strictEqual((yield* AmqpPool.stats).discarded, 0)
    })
  )

  it.live("that waits when its connection dies fails with ConnectionClosed", () =>
    onScriptedBroker({}, function* (broker) {
      yield* AmqpChannel.use(() => Effect.void)
      yield* blocked(broker)
      const waiting = yield* Effect.forkChild(publish(), { startImmediately: true })
      broker.destroy()
      assert.strictEqual((yield* reasonOf(Fiber.join(waiting)))._tag, "ConnectionClosed")
    })
  )

  it.live("waits when the peer stops reading, then fails with PublishTimeout; memory stays bounded", () =>
    onScriptedBroker({ publishTimeout: millis(200) }, function* (broker) {
      const content = new Uint8Array(100_000)
      const many = AmqpChannel.use((channel) =>
        Effect.forever(channel.publish({ routingKey: "q", content }), { disableYield: false })
      )
      yield* AmqpChannel.use(() => Effect.void)
      broker.pause()
      const before = process.memoryUsage().arrayBuffers
      assert.strictEqual((yield* reasonOf(many))._tag, "PublishTimeout")
      assert.strictEqual((yield* reasonOf(many))._tag, "PublishTimeout")
      assert.isBelow(process.memoryUsage().arrayBuffers - before, 20e6)
      broker.resume()
      // A hundred megabytes are written first, which takes a time that depends on the machine.
      yield* AmqpChannel.use((channel) => channel.publish({ routingKey: "q", content })).pipe(
        Effect.retry({ while: (error) => error.reason._tag === "PublishTimeout" })
      )
    })
  )
})
