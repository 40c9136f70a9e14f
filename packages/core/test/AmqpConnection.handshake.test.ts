/** Faults of a connection before it is open: silence, cuts at each byte, slowness, corrupted bytes, late answers. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConfig, AmqpConnection, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Random, References, Result } from "effect"
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net"
import { createServer as createTlsServer } from "node:tls"
import { configOf, connecting, quietly, untilOpen, untilState, withPool } from "./support/amqp.ts"
import * as Certificates from "./support/certificates.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import type { CutBy, Direction } from "./support/ProxiedDirection.ts"
import { withPublisher } from "./support/publisher.ts"
import { contents, touch } from "./support/queues.ts"
import { assertNoLeaks, turn } from "./support/leaks.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import * as TlsProxy from "./support/TlsProxy.ts"
import { major } from "./support/versions.ts"

const { millis } = Duration

// A thousand connections take seconds, but longer on a machine that runs other work.
const slow = 180_000

/**
 * How many of this many connections that end during their handshake get no answer for five seconds. With RabbitMQ 4.0.5
 * on Erlang 27 it is every fifty-fourth.
 */
const stalls = (connections: number) => Effect.map(major, (major) => (major < 4 ? 0 : Math.ceil(connections / 50)))

/** The length of such a stall in milliseconds, with some slack. */
const stall = 5500

/** Makes reconnecting immediate. */
const atOnce = Effect.provideService(Random.Random, { nextDoubleUnsafe: () => 0, nextIntUnsafe: () => 0 })

describe("a peer that goes silent", () => {
  const timeouts = { connectTimeout: { connectTimeout: millis(150) }, socketTimeout: { socketTimeout: millis(150) } }

  const isEndedInTime = (config: AmqpConfig.AmqpConfig) =>
    Effect.gen(function* () {
      const [time, reason] = yield* Effect.timed(connecting(config))
      assert.strictEqual(reason._tag, "ConnectTimeout")
      assert.isTrue(reason.isRetryable)
      assert.isAtLeast(Duration.toMillis(time), 140)
      assert.isBelow(Duration.toMillis(time), 1500)
    })

  const stages: Record<string, ScriptedBroker.Script> = {
    "before start": { "protocol-header": () => {} },
    "after start": { "connection.start-ok": () => {} },
    "after tune": { "connection.open": () => {} }
  }
  for (const [setting, timeout] of Object.entries(timeouts)) {
    for (const [stage, on] of Object.entries(stages)) {
      plain.live(`is given up after ${setting} if it is silent ${stage}, and its socket is closed`, () =>
        Effect.gen(function* () {
          const broker = yield* ScriptedBroker.make({ on })
          yield* isEndedInTime(configOf(broker.url, timeout))
          yield* Effect.timeout(broker.socketsClosed, "1 second")
        }).pipe(Effect.scoped, assertNoLeaks)
      )
    }

    const servers = {
      "before TLS": () => createTcpServer((socket) => void socket.on("error", () => {}).resume()),
      "after TLS": () => createTlsServer(Certificates.server, (socket) => void socket.on("error", () => {}).resume())
    }
    for (const [stage, make] of Object.entries(servers)) {
      plain.live(`is given up after ${setting} if it is silent ${stage}, and its socket is closed`, () =>
        Effect.gen(function* () {
          const closed = yield* Deferred.make<void>()
          const server = yield* Effect.acquireRelease(
            Effect.callback<Server>((resume) => {
              const server = make()
              server.on("connection", (socket) => socket.on("close", () => Deferred.doneUnsafe(closed, Effect.void)))
              server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
            }),
            (server) => Effect.sync(() => server.close())
          )
          const { port } = server.address() as AddressInfo
          const config = yield* AmqpConfig.make({ host: "localhost", port, tls: { ca: Certificates.ca } })
          yield* isEndedInTime({ ...config, ...timeout, connectionAttempts: 1 })
          yield* Effect.timeout(Deferred.await(closed), "1 second")
        }).pipe(Effect.scoped, assertNoLeaks)
      )
    }
  }
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  /** The number of bytes that pass in each direction until a connection is open. */
  const handshakeLength = Effect.gen(function* () {
    const { proxy, url } = yield* FaultProxy.proxied
    return yield* Effect.sync(() => ({ up: proxy.stats.up.bytes, down: proxy.stats.down.bytes })).pipe(withPool(url))
  }).pipe(Effect.scoped)

  /**
   * The numbers of bytes after which a handshake of a length is cut: each one, and on RabbitMQ 4 each ninth, because they
   * show the same on every broker, and take minutes.
   */
  const cutsOf = (length: number) =>
    Effect.map(major, (version) =>
      Array.from({ length }, (_, i) => i + 1).filter((bytes) => version === 3 || bytes % 9 === 1 || bytes === length)
    )

  const ways: ReadonlyArray<readonly [Direction, CutBy]> = [
    ["up", "rst"],
    ["up", "fin"],
    ["down", "rst"],
    ["down", "fin"]
  ]

  describe("a handshake that is cut after any of its bytes", () => {
    for (const [direction, by] of ways) {
      it.effect(
        `(${by}, ${direction}): the first connect fails at once, retryably, and leaves nothing`,
        () =>
          Effect.gen(function* () {
            const length = (yield* handshakeLength)[direction]
            assert.isAbove(length, 300)
            const { broker, proxy, url } = yield* FaultProxy.proxied
            const config = configOf(url)
            let opened = 0
            let stalled = yield* stalls(length)
            const cuts = yield* cutsOf(length)
            for (const bytes of cuts) {
              proxy.cutAfter(bytes, direction, by)
              const [time, result] = yield* Effect.timed(Effect.result(Effect.scoped(AmqpConnection.make(config))))
              // The answer to the last byte can arrive before the cut.
              if (Result.isSuccess(result)) {
                assert.strictEqual(bytes, length)
                opened++
                continue
              }
              const { reason } = result.failure
              assert.strictEqual(reason._tag, "ConnectionClosed", `after byte ${bytes}: ${reason.message}`)
              assert.isTrue(reason.isRetryable)
              if (Duration.toMillis(time) < 2000) continue
              assert.isAtLeast(stalled--, 1, `after byte ${bytes}: late`)
              assert.isBelow(Duration.toMillis(time), 2000 + stall)
            }
            assert.strictEqual(proxy.stats.accepted, cuts.length)
            assert.isAtMost(opened, 1)
            yield* Effect.timeout(proxy.linksClosed, "2 seconds")
            yield* broker.awaitCensus({ connections: 0 })
          }).pipe(Effect.scoped, assertNoLeaks),
        slow
      )
    }

    for (const direction of ["up", "down"] as const) {
      it.effect(
        `(by rst and fin in turn, ${direction}): a connection that was open before is re-established, once`,
        () =>
          Effect.gen(function* () {
            const length = (yield* handshakeLength)[direction]
            const { broker, proxy, url } = yield* FaultProxy.proxied
            const cuts = yield* cutsOf(length)
            yield* Effect.gen(function* () {
              for (const [nth, bytes] of cuts.entries()) {
                yield* untilOpen(nth + 1)
                proxy.cutAfter(bytes, direction, nth % 2 === 0 ? "rst" : "fin")
                proxy.rst()
              }
              yield* untilOpen(cuts.length + 1)
              yield* AmqpPublisher.publish({ routingKey: "nowhere", content: "" })
              // Each connection twice: the one that is cut, and the one that opens.
              assert.isAtLeast(proxy.stats.accepted, 2 * cuts.length)
              yield* broker.awaitCensus({ connections: 1 })
              yield* Effect.timeout(
                proxy.until(({ open }) => open === 1),
                "2 seconds"
              )
            }).pipe(Effect.scoped, withPublisher(url), atOnce, quietly)
            yield* broker.awaitCensus({ connections: 0 })
          }).pipe(Effect.scoped, assertNoLeaks),
        slow
      )
    }
  })

  describe("a connection whose attempts die during the handshake", () => {
    it.effect("is retried until one attempt succeeds, and that is the only connection", () =>
      Effect.gen(function* () {
        const length = yield* handshakeLength
        const stalled = (yield* stalls(101)) * stall
        const { broker, proxy, url } = yield* FaultProxy.proxied
        yield* Effect.gen(function* () {
          yield* untilOpen()
          const first = proxy.stats.accepted
          let cut = 0
          // Called for each new link before any of its bytes has passed. Each link is cut at another byte, in all ways
          // in turn.
          const cuts = proxy.until(({ accepted }) => {
            if (accepted === first + cut || cut === 100) return cut === 100
            cut = accepted - first
            const [direction, by] = ways[cut % ways.length]!
            proxy.cutAfter(1 + ((cut * 37) % (length[direction] - 1)), direction, by)
            return false
          })
          proxy.rst()
          const borrowing = yield* Effect.forkChild(touch)
          yield* Effect.timeout(cuts, 10_000 + stalled)
          yield* Effect.timeout(untilOpen(2), 2000 + stalled)
          yield* Fiber.join(borrowing)
          assert.strictEqual(proxy.stats.accepted, first + 101)
          yield* broker.awaitCensus({ connections: 1 })
          assert.strictEqual(proxy.stats.open, 1)
        }).pipe(Effect.scoped, withPool(url, { pool: { acquireTimeout: millis(5000 + stalled) } }), atOnce, quietly)
        yield* broker.awaitCensus({ connections: 0, channels: 0 })
      }).pipe(Effect.scoped, assertNoLeaks)
    )
  })

  describe("a slow network", () => {
    const works = (url: string, overrides: Parameters<typeof configOf>[1] = {}) =>
      Effect.gen(function* () {
        const { queue } = yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("slow")))
        yield* AmqpPublisher.publish({ routingKey: queue, content: "x".repeat(2000) })
        assert.deepStrictEqual(yield* contents(queue), ["x".repeat(2000)])
      }).pipe(withPublisher(url, {}, overrides))

    const slownesses: Record<string, (proxy: FaultProxy.FaultProxy) => void> = {
      "one byte at a time": (proxy) => proxy.chop(1),
      "every byte late": (proxy) => proxy.delay(50),
      "two kilobytes a second, each way": (proxy) => proxy.rate(2000)
    }
    for (const [name, slow] of Object.entries(slownesses)) {
      it.effect(`(${name}): a connection opens and works`, () =>
        Effect.gen(function* () {
          const { proxy, url } = yield* FaultProxy.proxied
          slow(proxy)
          // A frame that takes longer than the heartbeat to arrive is a sign of life as well.
          yield* works(url, { heartbeat: Duration.seconds(1) })
          yield* Effect.timeout(proxy.linksClosed, "2 seconds")
        }).pipe(Effect.scoped, assertNoLeaks)
      )
    }

    it.effect("that keeps delivering without completing the handshake is given up after connectTimeout", () =>
      Effect.gen(function* () {
        const { proxy, url } = yield* FaultProxy.proxied
        proxy.rate(100, "down")
        const [time, reason] = yield* Effect.timed(
          connecting(configOf(url, { connectTimeout: millis(300), socketTimeout: millis(200) }))
        )
        assert.strictEqual(reason._tag, "ConnectTimeout")
        assert.include(reason.message, "connectTimeout")
        assert.isAbove(proxy.stats.down.bytes, 10)
        assert.isBelow(Duration.toMillis(time), 1500)
      }).pipe(Effect.scoped, assertNoLeaks)
    )
  })

  describe("corrupted bytes", () => {
    for (const direction of ["up", "down"] as const) {
      it.effect(
        `(${direction}): the connection ends with a typed reason in time or not at all, and nothing is uncaught`,
        () =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const ends = new Map<string, number>()
            const session = (every: number, afterwards: boolean) =>
              Effect.gen(function* () {
                const proxy = yield* FaultProxy.make(broker.url)
                if (!afterwards) proxy.corrupt(every, direction)
                yield* Effect.gen(function* () {
                  proxy.corrupt(every, direction)
                  yield* touch
                  yield* AmqpPublisher.publish({ routingKey: "nowhere", content: "x".repeat(200) })
                }).pipe(
                  withPublisher(
                    proxy.through(broker.url),
                    {},
                    {
                      connectTimeout: millis(300),
                      continuationTimeout: millis(200),
                      publishTimeout: millis(200),
                      closeTimeout: millis(100),
                      shutdownTimeout: millis(100),
                      pool: { acquireTimeout: millis(400) }
                    }
                  ),
                  Effect.result,
                  Effect.timeout("8 seconds"),
                  Effect.map((result) => {
                    const tag = Result.isSuccess(result) ? "no end" : result.failure.reason._tag
                    assert.notStrictEqual(tag, "UnknownError", `${every}: ${String(result)}`)
                    ends.set(tag, (ends.get(tag) ?? 0) + 1)
                  })
                )
                // RabbitMQ does not react to some corrupted bytes for three seconds.
                yield* Effect.timeout(proxy.linksClosed, "8 seconds")
              }).pipe(Effect.scoped)
            const everies = Array.from({ length: 40 }, (_, i) => 1 + 7 * i)
            yield* Effect.forEach(
              everies.flatMap((every) => [[every, false] as const, [every, true] as const]),
              ([every, afterwards]) => session(every, afterwards),
              { concurrency: 40, discard: true }
            )
            console.log(`corrupted (${direction}):`, Object.fromEntries(ends))
            // Which reason comes first depends on the machine.
            assert.isBelow(ends.get("no end") ?? 0, 2 * everies.length)
            yield* broker.awaitCensus({ connections: 0, channels: 0 })
          }).pipe(Effect.scoped, quietly, assertNoLeaks)
      )
    }
  })

  describe("a host that answers too late", () => {
    it.effect("after another host was connected: its link is closed, and there is one connection", () =>
      Effect.gen(function* () {
        const { broker, proxy: late } = yield* FaultProxy.proxied
        const { proxy: other } = yield* FaultProxy.proxied
        const { proxy: later } = yield* FaultProxy.proxied
        late.stall("down")
        later.stall("up")
        const hosts = [late, later, other].map(({ host, port }) => ({ host, port }))
        yield* Effect.gen(function* () {
          const { state } = yield* AmqpConnection.AmqpConnection
          assert.deepInclude(state.value, { _tag: "Open", peer: `127.0.0.1:${other.port}` })
          late.heal()
          later.heal()
          yield* Effect.timeout(Effect.all([late.linksClosed, later.linksClosed]), "2 seconds")
          yield* broker.awaitCensus({ connections: 1 })
          assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
          // The same during a reconnect.
          late.stall("down")
          later.stall("up")
          other.rst()
          yield* untilOpen(2)
          assert.deepInclude(state.value, { _tag: "Open", peer: `127.0.0.1:${other.port}` })
          late.heal()
          later.heal()
          yield* Effect.timeout(Effect.all([late.linksClosed, later.linksClosed]), "2 seconds")
          yield* broker.awaitCensus({ connections: 1 })
        }).pipe(
          withPool(other.through(broker.url), {
            hosts: hosts as never,
            connectTimeout: millis(400),
            connectionAttempts: 10,
            retryDelay: millis(1)
          }),
          atOnce,
          quietly
        )
        yield* broker.awaitCensus({ connections: 0 })
      }).pipe(Effect.scoped, assertNoLeaks)
    )

    plain.live("at the very moment at which it is given up leaves nothing, whichever of the two wins", () =>
      Effect.gen(function* () {
        let delay = 0
        const broker = yield* ScriptedBroker.make({
          on: { "connection.open": ({ proceed }) => Effect.andThen(Effect.sleep(millis(delay)), Effect.sync(proceed)) }
        })
        const connect = (timeout: number) =>
          Effect.scoped(AmqpConnection.make(configOf(broker.url, { connectTimeout: millis(timeout) })))
        const [undisturbed] = yield* Effect.timed(Effect.repeat(connect(5000), { times: 3 }))
        const timeout = Math.max(20, Math.ceil(Duration.toMillis(undisturbed) / 2))
        let opened = 0
        for (let nth = 0; nth < 75; nth++) {
          delay = ((nth % 25) * timeout) / 20
          const result = yield* Effect.result(connect(timeout))
          if (Result.isSuccess(result)) opened++
          else assert.strictEqual(result.failure.reason._tag, "ConnectTimeout")
        }
        assert.isAbove(opened, 0)
        assert.isBelow(opened, 75)
        yield* Effect.timeout(broker.socketsClosed, "1 second")
      }).pipe(Effect.scoped, quietly, assertNoLeaks)
    )
  })
})

describe("a TLS handshake that is cut, and the AMQP handshake inside it", () => {
  /** A scripted broker that speaks TLS, behind a proxy. */
  const tlsProxied = Effect.gen(function* () {
    const broker = yield* ScriptedBroker.make()
    const proxy = yield* FaultProxy.make((yield* TlsProxy.make(broker)).port)
    const config = yield* AmqpConfig.make({ host: "localhost", port: proxy.port, tls: { ca: Certificates.ca } })
    return { broker, proxy, config: { ...config, connectionAttempts: 1 } }
  })

  // Only some of the bytes: trying each one was done once and takes a minute.
  const step = Number(process.env["TLS_CUT_STEP"] ?? 31)

  for (const direction of ["up", "down"] as const) {
    plain.live(
      `(${direction}): the connect fails at once, and never with a reason about the certificate`,
      () =>
        Effect.gen(function* () {
          const { broker, config, proxy } = yield* tlsProxied
          const length = yield* Effect.scoped(
            Effect.map(AmqpConnection.make(config), () => proxy.stats[direction].bytes)
          )
          assert.isAbove(length, 1000)
          yield* Effect.timeout(proxy.linksClosed, "2 seconds")
          for (let bytes = 1; bytes < length; bytes += step) {
            for (const by of ["rst", "fin"] as const) {
              proxy.cutAfter(bytes, direction, by)
              const [time, reason] = yield* Effect.timed(connecting(config))
              assert.strictEqual(reason._tag, "ConnectionClosed", `${by} after byte ${bytes}: ${reason.message}`)
              assert.isBelow(Duration.toMillis(time), 2000)
            }
          }
          yield* Effect.timeout(proxy.linksClosed, "2 seconds")
          yield* Effect.timeout(broker.socketsClosed, "2 seconds")
        }).pipe(Effect.scoped, quietly, assertNoLeaks),
      slow
    )
  }
})

describe("a connection that dies as soon as it is open", () => {
  // A fiber that yields after every few operations lets other fibers run between any two of them.
  for (const steps of [undefined, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14]) {
    plain.live(
      `(${steps ?? "all"} steps at a time): a caller that waits for a channel gets one of the connection that survives`,
      () =>
        Effect.gen(function* () {
          const broker = yield* ScriptedBroker.make()
          yield* Effect.gen(function* () {
            const deaths: ReadonlyArray<(context: ScriptedBroker.Context<"connection.open">) => void> = [
              (open) => open.destroy(),
              (open) => open.end(),
              (open) => open.closeConnection(320),
              (open) => void setImmediate(open.destroy),
              (open) => void setImmediate(() => open.closeConnection(541)),
              (open) => void setTimeout(open.destroy, 1)
            ]
            for (const die of [...deaths, ...deaths]) {
              broker.once("connection.open", (open) => {
                open.proceed()
                die(open)
              })
            }
            broker.destroy()
            yield* broker.until(({ connections }) => connections === 0)
            // Borrowers notice none of these losses.
            const deadline = performance.now() + 5000
            while (broker.count("connection.open") < 2 + 2 * deaths.length || broker.openChannels === 0) {
              assert.isBelow(performance.now(), deadline)
              yield* Effect.timeout(Effect.scoped(AmqpPool.get), "2 seconds")
              yield* turn
            }
            yield* touch
            assert.strictEqual(broker.count("connection.open"), 2 + 2 * deaths.length)
            yield* Effect.timeout(
              broker.until(({ connections }) => connections === 1),
              "1 second"
            )
          }).pipe(
            withPool(broker.url),
            atOnce,
            quietly,
            steps === undefined ? (run) => run : Effect.provideService(References.MaxOpsBeforeYield, steps)
          )
          yield* Effect.timeout(broker.socketsClosed, "1 second")
        }).pipe(Effect.scoped, assertNoLeaks)
    )
  }
})

describe("a scope that closes during a reconnect", () => {
  const stages: Record<string, ScriptedBroker.Script> = {
    "before start": { "protocol-header": () => {} },
    "after start": { "connection.start-ok": () => {} },
    "after tune": { "connection.open": () => {} }
  }
  for (const [stage, script] of Object.entries(stages)) {
    plain.live(`(${stage}) leaves nothing, and does not wait`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        const [method] = Object.keys(script) as ["connection.open"]
        const ending = yield* Effect.gen(function* () {
          broker.on(method, script[method]!)
          const nth = broker.count(method) + 1
          broker.destroy()
          yield* broker.received(method, nth)
          return performance.now()
        }).pipe(withPool(broker.url), atOnce, quietly)
        assert.isBelow(performance.now() - ending, 2000)
        yield* Effect.timeout(broker.socketsClosed, "1 second")
      }).pipe(Effect.scoped, assertNoLeaks)
    )
  }

  plain.live("(between two attempts) leaves nothing, and does not wait", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const ending = yield* Effect.gen(function* () {
        yield* broker.down
        yield* untilState((now) => now._tag === "Reconnecting" && now.attempt >= 2)
        return performance.now()
      }).pipe(withPool(broker.url), quietly)
      assert.isBelow(performance.now() - ending, 2000)
    }).pipe(Effect.scoped, assertNoLeaks)
  )

  plain.live("(as soon as it is open again) leaves nothing", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (let delay = 0; delay < 20; delay++) {
        yield* Effect.gen(function* () {
          const nth = broker.count("connection.open") + 1
          broker.destroy()
          yield* broker.received("connection.open", nth)
          yield* Effect.yieldNow.pipe(Effect.repeat({ times: delay }))
        }).pipe(withPool(broker.url), atOnce, quietly)
        yield* Effect.timeout(broker.socketsClosed, "1 second")
      }
    }).pipe(Effect.scoped, assertNoLeaks)
  )
})
