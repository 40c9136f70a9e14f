/** Refusals: which pass with time or with a new secret, their reasons, and the pause after each. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Clock, Deferred, Duration, Effect, Random, Redacted, Schedule } from "effect"
import { type AddressInfo, createServer, type Socket } from "node:net"
import { onScriptedBroker } from "./support/client.ts"
import {
  closedByRefusals,
  configOf,
  connecting,
  layerOf,
  quietly,
  reasonOf,
  untilOpen,
  untilState,
  withPool
} from "./support/amqp.ts"
import { logged, send, withConsumers } from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { start } from "./support/publisher.ts"
import { touch } from "./support/queues.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import * as Users from "./support/users.ts"

const untilRefused = (tag: string) => untilState((now) => now._tag === "Reconnecting" && now.reason._tag === tag)

const binary = (text: string) => `<<"${text}">>`

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a refusal by a broker that was reached before", () => {
    const queue = "refused"

    /** An application that consumes and publishes, whose connections the broker refuses for some time. */
    const recovers = Effect.fnUntraced(function* (
      url: string,
      tag: string,
      refuse: Effect.Effect<unknown, unknown>,
      accept: Effect.Effect<unknown, unknown, AmqpConnection.AmqpConnection>
    ) {
      const proxy = yield* FaultProxy.make(url)
      yield* Effect.gen(function* () {
        const handled: Array<string> = []
        let news = yield* Deferred.make<void>()
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue)))
        const consumer = yield* start(
          AmqpConsumer.consume(queue, (delivery) => {
            handled.push(Buffer.from(delivery.content).toString())
            return Deferred.succeed(news, undefined)
          })
        )
        yield* send(queue, "before")
        yield* Deferred.await(news)
        yield* refuse
        proxy.rst()
        yield* untilRefused(tag)
        yield* accept
        yield* untilOpen(2)
        // A virtual host that was created again is empty.
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue)))
        news = yield* Deferred.make<void>()
        yield* send(queue, "after")
        if (consumer.pollUnsafe() === undefined) yield* Effect.timeout(Deferred.await(news), "10 seconds")
        assert.deepStrictEqual(handled, ["before", "after"])
        assert.isUndefined(consumer.pollUnsafe(), "the consumer goes on")
      }).pipe(withConsumers(proxy.through(url)))
    })

    const userUrl = Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const user = yield* Users.make("first")
      return { ...user, url: Object.assign(new URL(url), { username: user.name, password: "first" }).href }
    })

    it.effect("passes when the user exists again: publishers and consumers continue", () =>
      Effect.gen(function* () {
        const user = yield* userUrl
        yield* recovers(user.url, "AuthenticationFailed", user.delete, user.restore)
      }).pipe(Effect.scoped)
    )

    it.effect("passes when the password is right again, and at once with a new secret", () =>
      Effect.gen(function* () {
        const user = yield* userUrl
        yield* recovers(
          user.url,
          "AuthenticationFailed",
          user.changePassword("second"),
          Effect.flatMap(AmqpConnection.AmqpConnection, ({ updateSecret }) => updateSecret(Redacted.make("second")))
        )
      }).pipe(Effect.scoped)
    )

    it.effect("passes when the virtual host may be accessed again", () =>
      Effect.gen(function* () {
        const user = yield* userUrl
        yield* recovers(user.url, "VirtualHostRefused", user.clearPermissions, user.permit(".*", ".*", ".*"))
      }).pipe(Effect.scoped)
    )

    it.effect("passes when a virtual host that was deleted exists again", () =>
      Effect.gen(function* () {
        const { evaluate, url, vhost: own } = yield* TestBroker.TestBroker
        const vhost = `${own}-again`
        const all = binary(".*")
        const make = evaluate(`
          ok = rabbit_vhost:add(${binary(vhost)}, <<"test">>),
          ok = rabbit_auth_backend_internal:set_permissions(<<"guest">>, ${binary(vhost)}, ${all}, ${all}, ${all}, <<"test">>),
          ok.`)
        const remove = evaluate(`rabbit_vhost:delete(${binary(vhost)}, <<"test">>), ok.`)
        yield* Effect.acquireRelease(make, () => Effect.ignore(remove))
        const theirs = Object.assign(new URL(url), { pathname: `/${encodeURIComponent(vhost)}` }).href
        // Its queue is gone with it: the consumer finds it missing and waits for it.
        const proxy = yield* FaultProxy.make(theirs)
        yield* Effect.gen(function* () {
          yield* remove
          proxy.rst()
          yield* untilRefused("VirtualHostRefused")
          yield* make
          yield* untilOpen(2)
          yield* AmqpPublisher.publish({ exchange: "amq.fanout", routingKey: "x", content: "" })
        }).pipe(withConsumers(proxy.through(theirs)))
      }).pipe(Effect.scoped)
    )
  })
})

describe("a refusal", () => {
  plain.live("of the first connect is final, whether it is waited for or made in the background", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "connection.start-ok": ScriptedBroker.refuseLogin } })
      assert.strictEqual((yield* connecting(configOf(broker.url)))._tag, "AuthenticationFailed")
      const lazy = { lazyConnect: true, connectionAttempts: 5, retryDelay: Duration.millis(1) }
      yield* Effect.gen(function* () {
        const closed = yield* untilState((now) => now._tag === "Closed")
        assert.deepInclude(closed, { _tag: "Closed" })
      }).pipe(withPool(broker.url, lazy), quietly)
      assert.strictEqual(broker.count("connection.start-ok"), 2)
    })
  )

  plain.live(
    "of the consumers' first connect is not final after the application's first, and its consumers continue",
    () =>
      onScriptedBroker({}, function* (broker) {
        yield* touch
        broker.once("connection.start-ok", ScriptedBroker.refuseLogin)
        broker.once("connection.start-ok", ScriptedBroker.refuseLogin)
        const handled = yield* Deferred.make<void>()
        const consumer = yield* start(AmqpConsumer.consume("q", () => Deferred.succeed(handled, undefined)))
        yield* broker.received("basic.consume")
        broker.enqueue("q", "m")
        yield* Deferred.await(handled)
        assert.isUndefined(consumer.pollUnsafe())
        assert.strictEqual(broker.count("connection.start-ok"), 4)
      })
  )

  plain.live("is logged once while it stays the same", () =>
    logged((lines) =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* Effect.gen(function* () {
          broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
          broker.destroy()
          yield* broker.received("connection.start-ok", 4)
          broker.off("connection.start-ok")
          yield* untilOpen(2)
        }).pipe(Effect.provide(layerOf(broker.url), { local: true }))
        assert.lengthOf(
          lines.filter(({ text }) => text.includes("refused")),
          1
        )
        assert.deepStrictEqual(
          lines.slice(0, 3).map(({ level, text }) => `${level} ${text.replace(/ \{.*/s, "")}`),
          [
            "Info AMQP connection open",
            "Warn AMQP connection lost, reconnecting",
            "Error AMQP connection refused, trying again"
          ]
        )
      })
    )
  )

  plain.live("closes the connection for good where onRefused is close, unlike a lost connection", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        broker.destroy()
        yield* untilOpen(2)
        broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
        broker.destroy()
        yield* untilState((now) => now._tag === "Closed")
        assert.strictEqual((yield* reasonOf(touch))._tag, "AuthenticationFailed")
        assert.strictEqual(broker.count("connection.start-ok"), 3)
      }).pipe(withPool(broker.url, closedByRefusals), quietly)
    })
  )

  /** A clock that sleeps a hundredth of each duration, and the durations that were slept. */
  const accelerated = Effect.map(Clock.Clock, (clock) => {
    const slept: Array<number> = []
    const fastClock: Clock.Clock = {
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
      currentTimeMillis: clock.currentTimeMillis,
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
      currentTimeNanos: clock.currentTimeNanos,
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      sleep: (duration) => {
        slept.push(Duration.toMillis(duration))
        return clock.sleep(Duration.times(duration, 0.01))
      }
    } as Clock.Clock
    return { fastClock, slept }
  })

  plain.live(
    "is followed by a pause from half a second to one, doubled each time up to 15 to 30 s, also with a schedule",
    () =>
      Effect.gen(function* () {
        const pauses = Effect.fnUntraced(function* (random: number) {
          const { fastClock, slept } = yield* accelerated
          const broker = yield* ScriptedBroker.make()
          // Sleeps for other reasons, which are not counted.
          const connectTimeout = Duration.hours(1)
          yield* Effect.gen(function* () {
            broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
            broker.destroy()
            yield* broker.received("connection.start-ok", 9)
          }).pipe(
            withPool(broker.url, {
              connectTimeout,
              reconnect: { ...closedByRefusals.reconnect, onRefused: "retry", schedule: Schedule.spaced(1) }
            }),
            quietly,
            Effect.provideService(Random.Random, { nextDoubleUnsafe: () => random, nextIntUnsafe: () => 0 }),
            Effect.provideService(Clock.Clock, fastClock)
          )
          return slept.filter((time) => time !== 3_600_000 && time >= 500).slice(0, 7)
        })
        assert.deepStrictEqual(yield* pauses(0), [500, 1000, 2000, 4000, 8000, 15_000, 15_000])
        assert.deepStrictEqual(
          (yield* pauses(0.999)).map((time) => Math.ceil(time / 100) * 100),
          [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
        )
      })
  )
})

/** Answers each request with these bytes; from `heal` on it forwards to a broker. */
const answering = Effect.fnUntraced(function* (answer: string, ends = true) {
  const broker = yield* ScriptedBroker.make()
  const sockets = new Set<Socket>()
  let isWell = false
  const server = yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer((socket) => {
        if (isWell) return broker.accept(socket)
        sockets.add(socket)
        socket.on("error", () => {}).on("close", () => sockets.delete(socket))
        socket.once("data", () => (ends ? socket.end(Buffer.from(answer, "latin1")) : socket.write(answer, "latin1")))
        return undefined
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
  )
  const { port } = server.address() as AddressInfo
  return {
    broker,
    url: `amqp://guest:guest@127.0.0.1:${port}`,
    heal: (well = true) => {
      isWell = well
    }
  }
})

describe("a peer that does not speak AMQP is ProtocolError, and is named:", () => {
  const answers: Record<string, readonly [answer: string, named: string]> = {
    "a proxy that answers HTTP": [
      "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
      "the peer answered HTTP: HTTP/1.1 503 Service Unavailable ("
    ],
    "a server of SSH": [
      "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
      "the peer answered SSH: SSH-2.0-OpenSSH_9.2p1 Debian-2 ("
    ],
    "TLS where it was not expected": ["\x15\x03\x03\x00\x02\x02\x46", "the peer answered TLS"],
    "a broker of AMQP 1.0": ["AMQP\x00\x01\x00\x00", "the protocol header of AMQP 1.0 ("],
    "a broker of AMQP 1.0 with SASL": ["AMQP\x03\x01\x00\x00", "the protocol header of AMQP 1.0 with SASL ("],
    "a broker of AMQP 0-10": ["AMQP\x01\x01\x00\x0a", "the protocol header of AMQP 0-10 ("],
    "a broker that understood something else": ["AMQP\x00\x00\x09\x01", "the protocol header of AMQP 0-9-1"],
    "a server of another protocol in text": ["-ERR unknown command\r\n", 'it answered "-ERR unknown command" ('],
    "a server of another protocol in bytes": [
      "\x4a\x00\x00\x00\x0a\x01\x02\x03\x04",
      "it answered the bytes 4a0000000a010203 ("
    ]
  }
  for (const [what, [answer, named]] of Object.entries(answers)) {
    plain.live(what, () =>
      Effect.gen(function* () {
        for (const ends of [true, false]) {
          const { url } = yield* answering(answer, ends)
          const reason = yield* connecting(configOf(url, { connectTimeout: Duration.millis(500) }))
          assert.strictEqual(reason._tag, "ProtocolError", reason.message)
          assert.include(reason.message, named)
          assert.include(reason.message, new URL(url).host)
          assert.notMatch(reason.message, /[Ff]rame size|[\r\n]/)
        }
      })
    )
  }

  plain.live("a server that takes the broker's place for a while: retries continue until the broker is back", () =>
    Effect.gen(function* () {
      const peer = yield* answering(answers["a proxy that answers HTTP"]![0])
      peer.heal()
      yield* Effect.gen(function* () {
        peer.heal(false)
        peer.broker.destroy()
        yield* untilRefused("ProtocolError")
        peer.heal()
        yield* untilOpen(2)
        yield* touch
      }).pipe(withPool(peer.url), quietly)
    })
  )
})
