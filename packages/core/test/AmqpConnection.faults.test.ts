/**
 * Lost connections: how a loss is noticed, how the connection is re-established or closed for good, and what its users
 * get until then.
 */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import {
  AmqpChannel,
  AmqpConfig,
  AmqpConnection,
  AmqpConsumer,
  AmqpError,
  AmqpMessage,
  AmqpPool,
  AmqpPublisher
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Option, Queue, Redacted, Scope, Stream, SubscriptionRef } from "effect"
import { spawn } from "node:child_process"
import { join } from "node:path"
import {
  configOf,
  layerWith,
  type Overrides,
  quietly,
  reasonOf,
  untilOpen,
  untilState,
  withPool
} from "./support/amqp.ts"
import * as Certificates from "./support/certificates.ts"
import { layerOf, logged } from "./support/consumers.ts"
import { environment } from "./support/environment.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { withPublisher } from "./support/publisher.ts"
import { touch } from "./support/queues.ts"
import { assertNoLeaks, turn } from "./support/leaks.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { noneTo } from "./support/sockets.ts"
import * as TlsProxy from "./support/TlsProxy.ts"
import * as Users from "./support/users.ts"

const { millis, seconds } = Duration

/** Three heartbeats of a second, and some time for a busy machine. */
const threeHeartbeats = 4500

/** Reconnecting with almost no delay. */
const soon: Overrides = {
  reconnect: {
    minDelay: millis(20),
    maxDelay: millis(50),
    healthyAfter: seconds(1),
    schedule: undefined,
    onRefused: "retry"
  }
}

const confirmed = AmqpPublisher.publish({ routingKey: "nowhere", content: "" }).pipe(
  Effect.retry({ while: (error) => error.isRetryable })
)

/** How long an effect takes, in milliseconds. */
const timeOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.timed(effect), ([time]) => Duration.toMillis(time))

const binary = (text: string) => `<<"${text}">>`

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a dead link", () => {
    it.effect("is noticed within three heartbeats, whichever direction is dead, and nothing of it remains", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        yield* Effect.forEach(
          ["up", "down", "both"] as const,
          (direction) =>
            Effect.gen(function* () {
              const { proxy, url } = yield* FaultProxy.proxied
              yield* Effect.gen(function* () {
                yield* confirmed
                proxy.stall(direction)
                proxy.refuse()
                const time = yield* timeOf(untilState((now) => now._tag !== "Open"))
                assert.isBelow(time, threeHeartbeats, direction)
                // The link is still dead: nothing that arrives later can have closed it.
                yield* noneTo(proxy.port)
                // The proxy notices that the client has closed only when it reads again.
                proxy.heal()
                proxy.refuse()
                yield* Effect.timeout(proxy.linksClosed, "1 second")
                proxy.refuse(false)
                yield* confirmed
                assert.strictEqual(proxy.stats.open, 1)
              }).pipe(withPublisher(url, {}, { heartbeat: seconds(1), ...soon }), quietly)
            }).pipe(Effect.scoped),
          { concurrency: "unbounded", discard: true }
        )
        yield* broker.awaitCensus({ connections: 0 })
      }).pipe(Effect.scoped, assertNoLeaks)
    )
  })

  describe("a refusal, where onRefused is close,", () => {
    /** Every kind of user of a lost connection. None of them would give up on its own for a minute. */
    const users = Effect.gen(function* () {
      const queue = "users"
      const handler = () => Effect.void
      const never = { resubscribe: "always" } as const
      return yield* Effect.forEach(
        [
          reasonOf(touch),
          reasonOf(touch),
          reasonOf(Effect.scoped(AmqpChannel.useConfirm((channel) => channel.queueDeclare(queue)))),
          reasonOf(AmqpPublisher.publish({ routingKey: queue, content: "" })),
          reasonOf(AmqpPublisher.publish({ routingKey: queue, content: "" })),
          reasonOf(AmqpConsumer.consume(queue, handler, never)),
          reasonOf(Stream.runDrain(AmqpConsumer.stream(queue, never)))
        ],
        (user) => Effect.forkScoped(user, { startImmediately: true })
      )
    })
    const patient: Overrides = {
      reconnect: { ...soon.reconnect!, onRefused: "close" },
      publishTimeout: seconds(60),
      pool: { acquireTimeout: seconds(60) }
    }

    /** Cuts the connections of a program, and keeps them away until `refuse` has completed. */
    const isClosedBy = Effect.fnUntraced(function* (
      tag: AmqpError.AmqpErrorReason["_tag"],
      overrides: (broker: TestBroker.TestBroker["Service"]) => Overrides,
      refuse: (broker: TestBroker.TestBroker["Service"]) => Effect.Effect<unknown, unknown>
    ) {
      const { broker, proxy, url } = yield* FaultProxy.proxied
      yield* Effect.gen(function* () {
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("users", { autoDelete: true })))
        // The first consumer opens the consumers' connection.
        yield* Effect.forkScoped(reasonOf(AmqpConsumer.consume("users", () => Effect.void)))
        yield* proxy.until(({ open }) => open === 2)
        proxy.refuse()
        proxy.rst()
        yield* untilState((now) => now._tag === "Reconnecting")
        const waiting = yield* users
        yield* refuse(broker)
        proxy.refuse(false)
        const time = yield* timeOf(
          Effect.gen(function* () {
            const closed = yield* untilState((now) => now._tag === "Closed")
            assert.strictEqual(closed.reason._tag, tag)
            for (const user of waiting) {
              const reason = yield* Effect.timeout(Fiber.join(user), "5 seconds")
              assert.strictEqual(reason._tag, tag)
              assert.isFalse(reason.isRetryable)
            }
          })
        )
        assert.isBelow(time, 5000)
        // From now on callers fail at once, and the broker is not asked again.
        const { accepted } = proxy.stats
        const again = yield* timeOf(
          Effect.gen(function* () {
            assert.strictEqual((yield* reasonOf(touch))._tag, tag)
            assert.strictEqual((yield* reasonOf(confirmed))._tag, tag)
          })
        )
        assert.isBelow(again, 500)
        assert.strictEqual(proxy.stats.accepted, accepted)
      }).pipe(
        Effect.scoped,
        Effect.provide(layerOf(url, { ...patient, ...overrides(broker) }), { local: true }),
        quietly
      )
      yield* Effect.timeout(proxy.linksClosed, "2 seconds")
    }, Effect.scoped)

    it.effect("a password that is no longer valid closes the connection, and all its users fail at once", () =>
      Effect.gen(function* () {
        const { changePassword, name } = yield* Users.make("first")
        const credentials = { _tag: "Plain", username: name, password: Redacted.make("first") } as const
        yield* isClosedBy(
          "AuthenticationFailed",
          () => ({ credentials }),
          () => changePassword("second")
        )
      }).pipe(Effect.scoped, assertNoLeaks)
    )

    it.effect("a virtual host that is deleted closes the connection, and all its users fail at once", () =>
      Effect.gen(function* () {
        const { evaluate, vhost: own } = yield* TestBroker.TestBroker
        const vhost = `${own}-doomed`
        yield* evaluate(`
          ok = rabbit_vhost:add(${binary(vhost)}, <<"test">>),
          ok = rabbit_auth_backend_internal:set_permissions(<<"guest">>, ${binary(vhost)}, <<".*">>, <<".*">>, <<".*">>, <<"test">>),
          ok.`)
        yield* isClosedBy(
          "VirtualHostRefused",
          () => ({ vhost }),
          () => evaluate(`rabbit_vhost:delete(${binary(vhost)}, <<"test">>), ok.`)
        )
      }).pipe(assertNoLeaks)
    )
  })

  describe("a temporary refusal", () => {
    it.effect("is retried at the first connect and later: a limit of connections, or a virtual host that is down", () =>
      Effect.gen(function* () {
        const { evaluate, url, vhost } = yield* TestBroker.TestBroker
        const make = Effect.scoped(AmqpConnection.make(configOf(url)))
        const limit = (most: number) =>
          evaluate(`rabbit_vhost_limit:set(${binary(vhost)}, [{<<"max-connections">>, ${most}}], <<"test">>), ok.`)
        yield* Effect.gen(function* () {
          yield* limit(1)
          const limited = yield* reasonOf(make)
          assert.deepInclude(limited, { _tag: "BrokerError", replyCode: 530, isRetryable: true })
          assert.include(limited.message, "connection limit (1) is reached")
          const { killConnections } = yield* TestBroker.TestBroker
          yield* limit(0)
          yield* killConnections
          yield* untilState((now) => now._tag === "Reconnecting" && now.reason._tag === "BrokerError")
          yield* limit(-1)
          yield* untilOpen(2)

          yield* evaluate(`rabbit_vhost_sup_sup:stop_and_delete_vhost(${binary(vhost)}), ok.`)
          const down = yield* reasonOf(make)
          assert.deepInclude(down, { _tag: "BrokerError", replyCode: 541, isRetryable: true })
          assert.include(down.message, "is down")
          yield* killConnections
          yield* untilState((now) => now._tag === "Reconnecting" && now.reason._tag === "BrokerError")
          yield* evaluate(`rabbit_vhost_sup_sup:start_vhost(${binary(vhost)}), ok.`)
          yield* untilOpen(3)
          yield* touch
        }).pipe(withPool(url, soon), quietly)
      })
    )
  })

  describe("what belongs to a lost connection", () => {
    it.effect("never acts on the next one: its channel, its deliveries, its confirms", () =>
      Effect.gen(function* () {
        const { broker, proxy, url } = yield* FaultProxy.proxied
        yield* Effect.gen(function* () {
          const queue = "generations"
          const declared = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue)))
          yield* declared
          yield* AmqpPublisher.publish({ routingKey: queue, content: "first" })
          const scope = yield* Effect.scope
          const old = yield* Scope.provide(AmqpPool.get, scope)
          const consumer = yield* old.consume(queue)
          const first = yield* Queue.take(consumer.deliveries)
          assert.strictEqual(first.deliveryTag, 1)

          // The broker has the message. Its confirm gets no further than the proxy.
          proxy.stall("down")
          const pending = yield* Effect.forkChild(
            reasonOf(AmqpPublisher.publish({ routingKey: queue, content: "second" })),
            { startImmediately: true }
          )
          yield* Effect.flatMap(broker.queues, (all) =>
            all.find(({ name }) => name === queue)?.messages === 2 ? Effect.void : Effect.fail("not yet")
          ).pipe(Effect.eventually, Effect.timeout("5 seconds"))
          proxy.rst()
          proxy.heal()
          yield* untilOpen(2)
          assert.strictEqual((yield* Fiber.join(pending))._tag, "PublishUnknown")
          assert.strictEqual(
            (yield* reasonOf(Queue.take(consumer.deliveries) as Effect.Effect<never, AmqpError.AmqpError>))._tag,
            "ConnectionClosed"
          )

          // The same numbers are used again: the first channel, the first delivery tag, the first confirm.
          yield* AmqpPublisher.publish({ routingKey: queue, content: "third" })
          const pool = yield* AmqpPool.AmqpPool
          yield* pool.use((channel) =>
            Effect.gen(function* () {
              const delivery = Option.getOrThrow(yield* channel.get(queue))
              assert.strictEqual(delivery.deliveryTag, 1)
              assert.isTrue(delivery.redelivered)
              for (const settle of [channel.ack(first), channel.nack(first), channel.reject(first)]) {
                assert.strictEqual((yield* reasonOf(settle))._tag, "DeliverySettled")
              }
              assert.strictEqual((yield* reasonOf(old.ack(first)))._tag, "ConnectionClosed")
              assert.strictEqual((yield* reasonOf(old.queueDeclare(queue)))._tag, "ConnectionClosed")
              assert.strictEqual((yield* reasonOf(old.cancel(consumer.consumerTag)))._tag, "ConnectionClosed")
              yield* broker.awaitCensus({ unacked: 1, consumers: 0 })
              yield* channel.ack(delivery)
              const rest: Array<string> = []
              for (let i = 0; i < 2; i++) {
                rest.push(AmqpMessage.text(Option.getOrThrow(yield* channel.get(queue, { noAck: true }))))
              }
              assert.sameMembers(rest, ["second", "third"])
            })
          )
        }).pipe(Effect.scoped, withPublisher(url, {}, soon), quietly)
      }).pipe(Effect.scoped, assertNoLeaks)
    )
  })

  describe("while the connection is lost", () => {
    it.effect("a hundred callers wait: each state is published once, and logged once", () =>
      logged((lines) =>
        Effect.gen(function* () {
          const { proxy, url } = yield* FaultProxy.proxied
          const seen: Array<AmqpConnection.State> = []
          yield* Effect.gen(function* () {
            const { state } = yield* AmqpConnection.AmqpConnection
            yield* Effect.forkScoped(
              Stream.runForEach(SubscriptionRef.changes(state), (now) => Effect.sync(() => void seen.push(now))),
              { startImmediately: true }
            )
            proxy.refuse()
            proxy.rst()
            yield* untilState((now) => now._tag === "Reconnecting")
            const waiting = yield* Effect.forEach(Array.from({ length: 100 }), () =>
              Effect.forkChild(Effect.scoped(AmqpPool.get), { startImmediately: true })
            )
            yield* untilState((now) => now._tag === "Reconnecting" && now.attempt >= 3)
            proxy.refuse(false)
            yield* Effect.timeout(Fiber.joinAll(waiting), "5 seconds")
          }).pipe(Effect.scoped, Effect.provide(layerWith(configOf(url, soon)), { local: true }))
          const tags = seen.map((now) => (now._tag === "Reconnecting" ? now.attempt : now._tag))
          const attempts = tags.length - 2
          assert.deepStrictEqual(tags, ["Open", ...Array.from({ length: attempts }, (_, attempt) => attempt), "Open"])
          const texts = lines.map(({ text }) => text.replace(/ \{.*/s, ""))
          assert.deepStrictEqual(texts, [
            "AMQP connection open",
            "AMQP connection lost, reconnecting",
            "AMQP connection open",
            "AMQP connection closed"
          ])
        })
      ).pipe(Effect.scoped, assertNoLeaks)
    )

    it.effect("a borrower waits for acquireTimeout, and then fails with the reason why there is no connection", () =>
      Effect.gen(function* () {
        const { proxy, url } = yield* FaultProxy.proxied
        yield* Effect.gen(function* () {
          proxy.refuse()
          proxy.rst()
          yield* untilState((now) => now._tag === "Reconnecting" && now.attempt >= 1)
          const [time, reasons] = yield* Effect.timed(
            Effect.forEach(Array.from({ length: 6 }), () => reasonOf(touch), { concurrency: "unbounded" })
          )
          assert.isAtLeast(Duration.toMillis(time), 290)
          assert.isBelow(Duration.toMillis(time), 2000)
          for (const reason of reasons) {
            assert.strictEqual(reason._tag, "AcquireTimeout")
            if (reason._tag !== "AcquireTimeout") continue
            assert.match(reason.message, /within 300ms .*not connected, reconnecting \(connection/)
            assert.include(reason.message, `127.0.0.1:${proxy.port}`)
            assert.instanceOf(reason.cause, AmqpError.ConnectionClosed)
          }
        }).pipe(withPool(url, { ...soon, pool: { acquireTimeout: millis(300) } }), quietly)
      }).pipe(Effect.scoped, assertNoLeaks)
    )
  })

  describe("a process whose main effect has ended", () => {
    const program = join(import.meta.dirname, "support/programs/untilSignal.ts")

    const run = (url: string) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const child = spawn(process.execPath, ["--conditions=@effect-amqp/source", program], {
            env: { ...environment(), AMQP_URL: url },
            stdio: ["ignore", "pipe", "pipe"]
          })
          let output = ""
          let errors = ""
          child.stdout.on("data", (bytes) => void (output += String(bytes)))
          child.stderr.on("data", (bytes) => void (errors += String(bytes)))
          const closed = new Promise<number | null>((resolve) => child.once("close", resolve))
          return {
            prints: (line: string) =>
              Effect.callback<void, Error>((resume) => {
                const look = () => {
                  if (output.split("\n").includes(line)) resume(Effect.void)
                }
                child.stdout.on("data", look)
                void closed.then(() => resume(Effect.fail(new Error(`it ended without ${line}: ${output}${errors}`))))
                look()
              }).pipe(Effect.timeout("20 seconds")),
            tell: Effect.sync(() => void child.kill("SIGUSR2")),
            ended: Effect.promise(() => closed).pipe(
              Effect.map((code) => ({ code, errors, last: output.trim().split("\n").at(-1) })),
              Effect.timeoutOrElse({
                duration: "15 seconds",
                orElse: () => Effect.die(new Error(`it goes on: ${output}${errors}`))
              })
            ),
            kill: Effect.promise(() => {
              child.kill("SIGKILL")
              return closed
            })
          }
        }),
        ({ kill }) => kill
      )

    const situations: Record<string, (proxy: FaultProxy.FaultProxy) => "Open" | "Reconnecting"> = {
      healthy: () => "Open",
      "with a dead link": (proxy) => {
        proxy.stall()
        return "Open"
      },
      "with a broker that reads nothing": (proxy) => {
        proxy.stall("up")
        return "Open"
      },
      "while reconnecting": (proxy) => {
        proxy.refuse()
        proxy.rst()
        return "Reconnecting"
      }
    }

    it.effect("exits automatically, within seconds, under every condition", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        yield* Effect.forEach(
          Object.entries(situations),
          ([name, bring]) =>
            Effect.gen(function* () {
              const { proxy, url } = yield* FaultProxy.proxied
              const child = yield* run(url)
              yield* child.prints("Open")
              yield* child.prints(bring(proxy))
              yield* child.tell
              const [time, end] = yield* Effect.timed(child.ended)
              assert.deepStrictEqual(end, { code: 0, errors: "", last: "ended" }, name)
              // The consumers, the publisher, the pool and both connections, each with half a second or twice that.
              assert.isBelow(Duration.toMillis(time), 8000, name)
            }).pipe(Effect.scoped),
          { concurrency: 2, discard: true }
        )
        yield* broker.awaitCensus({ connections: 0, channels: 0 })
      }).pipe(Effect.scoped, assertNoLeaks)
    )

    it.effect("exits automatically after a failed first connect, with its own exit code", () =>
      Effect.gen(function* () {
        const { proxy, url } = yield* FaultProxy.proxied
        proxy.refuse()
        const child = yield* run(url)
        const end = yield* child.ended
        assert.deepStrictEqual(end, { code: 3, errors: "", last: "failed: ConnectionClosed" })
        assert.strictEqual(proxy.stats.accepted, 2)
      }).pipe(Effect.scoped, assertNoLeaks)
    )
  })

  describe("figures", () => {
    const { reconnect } = configOf("amqp://127.0.0.1")
    const healthyIn = (milliseconds: number) => ({ ...reconnect, healthyAfter: millis(milliseconds) })

    interface Figure {
      readonly notice: number
      readonly recover: number
    }

    /** The times from the fault to the first state other than Open, and from its end to the first confirm. */
    const measure = Effect.fnUntraced(function* (
      fault: Effect.Effect<unknown, unknown, AmqpPublisher.AmqpPublisher>,
      end: Effect.Effect<unknown>
    ) {
      const { state } = yield* AmqpConnection.AmqpConnection
      yield* confirmed
      const noticing = yield* Effect.forkChild(
        Effect.map(Stream.runHead(Stream.filter(SubscriptionRef.changes(state), (now) => now._tag !== "Open")), () =>
          performance.now()
        ),
        { startImmediately: true }
      )
      yield* turn
      const began = performance.now()
      yield* fault
      const noticed = yield* Effect.timeout(Fiber.join(noticing), "10 seconds")
      yield* end
      const ended = performance.now()
      yield* Effect.timeout(confirmed, "10 seconds")
      const now = performance.now()
      return {
        notice: noticed - began,
        recover: now - Math.max(began, ended === noticed ? began : ended)
      } satisfies Figure
    })

    it.effect("a connection that was healthy is re-established, and confirms, within a second of a reset", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const rows: Array<readonly [string, ReadonlyArray<Figure>]> = []
        const sample = (
          name: string,
          times: number,
          fault: (proxy: FaultProxy.FaultProxy) => Effect.Effect<unknown, unknown, AmqpPublisher.AmqpPublisher>,
          end: (proxy: FaultProxy.FaultProxy) => Effect.Effect<unknown> = () => Effect.void,
          healthyAfter = 100
        ) =>
          Effect.gen(function* () {
            const { proxy, url } = yield* FaultProxy.proxied
            const figures = yield* Effect.gen(function* () {
              const figures: Array<Figure> = []
              for (let i = 0; i < times; i++) {
                // Open for long enough to count as healthy, which by default is a second.
                yield* Effect.sleep(millis(healthyAfter + 50))
                figures.push(yield* measure(fault(proxy), end(proxy)))
              }
              return figures
            }).pipe(withPublisher(url, {}, { heartbeat: seconds(1), reconnect: healthyIn(healthyAfter) }), quietly)
            rows.push([name, figures])
          }).pipe(Effect.scoped)
        const sync = (f: (proxy: FaultProxy.FaultProxy) => void) => (proxy: FaultProxy.FaultProxy) =>
          Effect.sync(() => f(proxy))

        yield* Effect.all(
          [
            sample(
              "reset (RST)",
              4,
              sync((proxy) => proxy.rst()),
              undefined,
              1000
            ),
            sample(
              "end of stream (FIN), to the client",
              4,
              sync((proxy) => proxy.fin("down"))
            ),
            sample(
              "end of stream (FIN), to the broker",
              4,
              sync((proxy) => proxy.fin("up"))
            ),
            sample("reset after 10 more bytes", 4, (proxy) =>
              Effect.gen(function* () {
                const { reset } = proxy.stats
                proxy.cutAfter(10)
                // The reset happens during a publish.
                yield* Effect.forkChild(Effect.ignore(confirmed), { startImmediately: true })
                yield* proxy.until((stats) => stats.reset > reset)
              })
            ),
            sample(
              "reset, and refused for half a second",
              3,
              sync((proxy) => {
                proxy.refuse()
                proxy.rst()
              }),
              (proxy) =>
                Effect.andThen(
                  Effect.sleep("500 millis"),
                  Effect.sync(() => proxy.refuse(false))
                )
            ),
            ...(["both", "up", "down"] as const).map((direction) =>
              sample(
                `silence (${direction}), heartbeat 1 s`,
                1,
                sync((proxy) => proxy.stall(direction)),
                sync((proxy) => proxy.heal())
              )
            )
          ],
          { concurrency: "unbounded", discard: true }
        )
        // These affect every connection of the virtual host.
        yield* sample("closed by the broker (320)", 4, () => broker.closeConnections())
        yield* sample("killed in the broker", 4, () => broker.killConnections)

        const cell = (numbers: ReadonlyArray<number>) => {
          const sorted = numbers.toSorted((a, b) => a - b)
          return [sorted[sorted.length >> 1]!, sorted.at(-1)!].map((n) => n.toFixed(0).padStart(6)).join(" ")
        }
        console.log(
          [
            `${"milliseconds, median and most".padEnd(38)} times  noticed after   first confirm after`,
            ...rows.map(
              ([name, figures]) =>
                `${name.padEnd(38)} ${String(figures.length).padStart(5)}  ${cell(figures.map(({ notice }) => notice))}  ${cell(figures.map(({ recover }) => recover))}`
            )
          ].join("\n")
        )
        for (const [name, figures] of rows) {
          for (const { notice, recover } of figures) {
            assert.isBelow(notice, name.startsWith("silence") ? threeHeartbeats : 1000, name)
            if (name === "reset (RST)") assert.isBelow(recover, 1000, name)
            else assert.isBelow(recover, 5000, name)
          }
        }
      }).pipe(Effect.scoped, assertNoLeaks)
    )
  })
})

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a broker whose process is paused and resumed later", () => {
    it.effect("is noticed within three heartbeats, leaves nothing, and gets exactly one new connection", () =>
      Effect.gen(function* () {
        const { awaitCensus, processes, url } = yield* TestBroker.TestBroker
        if (processes === undefined) return console.log("not run: the broker is no process of this machine")
        yield* Effect.gen(function* () {
          yield* confirmed
          process.kill(processes.server, "SIGSTOP")
          yield* Effect.gen(function* () {
            const time = yield* timeOf(untilState((now) => now._tag !== "Open"))
            assert.isBelow(time, threeHeartbeats)
            // The operating system accepts connections, and the broker sends nothing.
            yield* untilState((now) => now._tag === "Reconnecting" && now.reason._tag === "ConnectTimeout")
            yield* noneTo(Number(new URL(url).port))
          }).pipe(Effect.ensuring(Effect.sync(() => process.kill(processes.server, "SIGCONT"))))
          yield* Effect.timeout(confirmed, "10 seconds")
          yield* awaitCensus({ connections: 1 })
        }).pipe(withPublisher(url, {}, { ...soon, heartbeat: seconds(1), connectTimeout: seconds(1) }), quietly)
        yield* awaitCensus({ connections: 0 })
      }).pipe(assertNoLeaks)
    )
  })
})

describe("a temporary fault of a scripted broker", () => {
  const passing: Record<string, ScriptedBroker.Script> = {
    "reset before start": { "protocol-header": ({ destroy }) => destroy() },
    "ended before start": { "protocol-header": ({ end }) => end() },
    "silent before start": { "protocol-header": () => {} },
    "closed by 320 instead of tune": { "connection.start-ok": ({ closeConnection }) => closeConnection(320) },
    "closed by 541 instead of tune": { "connection.start-ok": ({ closeConnection }) => closeConnection(541) },
    "closed by 506 instead of tune": { "connection.start-ok": ({ closeConnection }) => closeConnection(506) },
    "silent after start": { "connection.start-ok": () => {} },
    "closed by 320 instead of open-ok": { "connection.open": ({ closeConnection }) => closeConnection(320) },
    "closed by 541 instead of open-ok": { "connection.open": ({ closeConnection }) => closeConnection(541) },
    "silent after tune": { "connection.open": () => {} }
  }

  plain.live("is retried, at the first connect as often as is allowed, and later without a limit", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ protocolErrors: "record" })
      const overrides = { ...soon, connectTimeout: millis(400), connectionAttempts: 2, retryDelay: millis(1) }
      const fail = (script: ScriptedBroker.Script) => {
        for (const [method, handler] of Object.entries(script))
          broker.once(method as "connection.open", handler as never)
      }
      for (const script of Object.values(passing)) {
        fail(script)
        yield* Effect.scoped(AmqpConnection.make(configOf(broker.url, overrides)))
      }
      yield* Effect.gen(function* () {
        let generation = 1
        for (const [name, script] of Object.entries(passing)) {
          for (let i = 0; i < (name.startsWith("silent") ? 1 : 3); i++) fail(script)
          broker.destroy()
          const open = yield* untilOpen(generation + 1)
          assert.strictEqual(open.generation, ++generation, name)
        }
        yield* touch
      }).pipe(withPool(broker.url, overrides), quietly)
      yield* Effect.timeout(broker.socketsClosed, "1 second")
    }).pipe(Effect.scoped, assertNoLeaks)
  )
})

describe("a certificate that is no longer valid", () => {
  plain.live("closes the connection for good, where onRefused is close", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const { port, server } = yield* TlsProxy.make(broker)
      const config = yield* AmqpConfig.make({
        host: "localhost",
        port,
        tls: { ca: Certificates.ca },
        reconnect: { onRefused: "close" }
      })
      yield* Effect.gen(function* () {
        yield* touch
        server.setSecureContext(Certificates.client)
        broker.destroy()
        const closed = yield* untilState((now) => now._tag === "Closed")
        assert.strictEqual(closed.reason._tag, "TlsFailed")
        assert.strictEqual((yield* reasonOf(touch))._tag, "TlsFailed")
      }).pipe(Effect.provide(layerWith(config), { local: true }), quietly)
      yield* Effect.timeout(broker.socketsClosed, "1 second")
    }).pipe(Effect.scoped, assertNoLeaks)
  )
})

describe("of several hosts", () => {
  const hostsOf = (...brokers: ReadonlyArray<{ readonly host: string; readonly port: number }>) => ({
    hosts: brokers.map(({ host, port }) => ({ host, port })) as never
  })
  /** This host speaks another protocol. */
  const alien = ScriptedBroker.make({
    protocolErrors: "record",
    on: { "protocol-header": (header) => header.write(Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n")) }
  })
  const refusing = ScriptedBroker.make({ on: { "connection.start-ok": ScriptedBroker.refuseLogin } })
  const first = (hosts: object, overrides: Overrides = {}) =>
    AmqpConnection.make(configOf("amqp://127.0.0.1:1", { ...soon, ...hosts, ...overrides }))

  plain.live("one that refuses is skipped, and named in the log, while another one accepts the connection", () =>
    logged((lines) =>
      Effect.gen(function* () {
        const good = yield* ScriptedBroker.make()
        for (const bad of [yield* refusing, yield* alien]) {
          yield* Effect.gen(function* () {
            const { state } = yield* AmqpConnection.AmqpConnection
            assert.deepInclude(state.value, { _tag: "Open", peer: `127.0.0.1:${good.port}` })
            good.destroy()
            yield* untilOpen(2)
            assert.deepInclude(state.value, { peer: `127.0.0.1:${good.port}` })
          }).pipe(Effect.provide(layerWith(configOf(good.url, { ...soon, ...hostsOf(bad, good) })), { local: true }))
          const warnings = lines.filter(({ text }) => text.startsWith("AMQP host refused"))
          assert.isAtLeast(warnings.filter(({ text }) => text.includes(`127.0.0.1:${bad.port}`)).length, 2)
        }
      }).pipe(Effect.scoped)
    )
  )

  plain.live("a login that one refuses counts as refused by all, whatever the others answer", () =>
    Effect.gen(function* () {
      const bad = yield* refusing
      const dead = yield* ScriptedBroker.make()
      const other = yield* alien
      yield* dead.down
      for (const hosts of [hostsOf(bad, dead), hostsOf(dead, bad), hostsOf(bad, other), hostsOf(other, bad, dead)]) {
        const before = bad.count("connection.start-ok")
        const reason = yield* reasonOf(first(hosts, { connectionAttempts: 100, retryDelay: Duration.hours(1) }))
        assert.strictEqual(reason._tag, "AuthenticationFailed")
        assert.strictEqual(bad.count("connection.start-ok"), before + 1)
      }
    }).pipe(Effect.scoped, quietly)
  )

  plain.live("one that cannot be trusted or understood does not prevent retries of the others", () =>
    Effect.gen(function* () {
      const bad = yield* alien
      const good = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        yield* good.down
        yield* untilState((now) => now._tag === "Reconnecting" && now.attempt >= 3)
        yield* good.up
        yield* untilOpen(2)
      }).pipe(withPool(good.url, { ...soon, ...hostsOf(bad, good) }))
      assert.isAtLeast(bad.count("protocol-header"), 3)
    }).pipe(Effect.scoped, quietly)
  )

  plain.live("the first connect fails after one round if all of them refuse, for whatever reasons", () =>
    Effect.gen(function* () {
      const [one, two] = [yield* alien, yield* alien]
      const reason = yield* reasonOf(
        first(hostsOf(one, two), { connectionAttempts: 100, retryDelay: Duration.hours(1) })
      )
      assert.strictEqual(reason._tag, "ProtocolError")
      assert.deepStrictEqual(
        [one, two].map((broker) => broker.count("protocol-header")),
        [1, 1]
      )
    }).pipe(Effect.scoped, quietly)
  )
})
