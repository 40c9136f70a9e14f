/** A new secret for a live connection: what is sent, what becomes of it, and who uses it afterwards. */
import { assert, describe, it, layer } from "@effect/vitest"
import { type AmqpConfig, AmqpConnection, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Exit, Fiber, Redacted, References, Schedule, Scope } from "effect"
import { createHmac } from "node:crypto"
import { onScriptedBroker } from "./support/client.ts"
import { closedByRefusals, configOf, quietly, reasonOf, untilState, withPool } from "./support/amqp.ts"
import { withConsumers } from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { start } from "./support/publisher.ts"
import { touch } from "./support/queues.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const isOpen = (generation: number) => (state: AmqpConnection.State) =>
  state._tag === "Open" && state.generation === generation

const update = (secret: string, reason?: string) =>
  Effect.flatMap(AmqpConnection.AmqpConnection, ({ updateSecret }) => updateSecret(Redacted.make(secret), reason))

/** The passwords that a scripted broker was shown, in order. */
const logins = (broker: ScriptedBroker.ScriptedBroker) =>
  broker.log.flatMap((received) =>
    received.method === "connection.start-ok" ? [received.args.response.toString().split("\0")[2]] : []
  )

/** What it was told of new secrets, in order. */
const told = (broker: ScriptedBroker.ScriptedBroker) =>
  broker.log.flatMap((received) =>
    received.method === "connection.update-secret"
      ? [{ ...received.args, newSecret: received.args.newSecret.toString() }]
      : []
  )

const refuseSecret = (context: ScriptedBroker.Context<"connection.update-secret">) =>
  context.closeConnection(530, "NOT_ALLOWED - New secret was refused by one of the backends")

describe("a new secret", () => {
  it.live("is told to the broker on channel 0, as it is, with the reason", () =>
    onScriptedBroker({}, function* (broker) {
      const secret = `p%C3 "\\/é${"x".repeat(40_000)}`
      yield* update(secret, "the token expires")
      yield* update("second")
      assert.deepStrictEqual(told(broker), [
        { newSecret: secret, reason: "the token expires" },
        { newSecret: "second", reason: "refreshed" }
      ])
      assert.isTrue(broker.log.every((r) => r.method !== "connection.update-secret" || r.channel === 0))
    })
  )

  it.live("is what the next connect uses", () =>
    onScriptedBroker({}, function* (broker) {
      yield* update("second")
      broker.destroy()
      yield* untilState(isOpen(2))
      assert.deepStrictEqual(logins(broker), ["guest", "second"])
    })
  )

  it.live("that the broker refuses is AuthenticationFailed, and the connection comes back with the one before", () =>
    onScriptedBroker({}, function* (broker) {
      broker.once("connection.update-secret", refuseSecret)
      const reason = yield* reasonOf(update("canary-second"))
      assert.deepInclude(reason, { _tag: "AuthenticationFailed", replyCode: 530, isRetryable: false })
      assert.include(reason.message, "New secret was refused")
      assert.notInclude(reason.message, "canary")
      yield* untilState(isOpen(2))
      yield* update("third")
      broker.destroy()
      yield* untilState(isOpen(3))
      assert.deepStrictEqual(logins(broker), ["guest", "guest", "third"])
    })
  )

  it.live(
    "that the broker does not answer is ReplyTimeout in time; a late answer is not taken for the next one's",
    () =>
      onScriptedBroker({ continuationTimeout: Duration.millis(500) }, function* (broker) {
        broker.once("connection.update-secret", (context) => context.hold())
        const reason = yield* Effect.timeout(reasonOf(update("second")), "5 seconds")
        assert.deepInclude(reason, { _tag: "ReplyTimeout", isRetryable: true })
        broker.once("connection.update-secret", (context) => {
          broker.release("connection.update-secret")
          refuseSecret(context)
        })
        assert.strictEqual((yield* reasonOf(update("third")))._tag, "AuthenticationFailed")
        yield* untilState(isOpen(2))
        assert.deepStrictEqual(logins(broker), ["guest", "second"])
      })
  )

  it.live("is not blamed for one before it that the broker refuses late", () =>
    onScriptedBroker({ continuationTimeout: Duration.millis(500) }, function* (broker) {
      broker.once("connection.update-secret", () => {})
      assert.strictEqual((yield* reasonOf(update("second")))._tag, "ReplyTimeout")
      broker.once("connection.update-secret", refuseSecret)
      yield* update("third")
      yield* untilState(isOpen(2))
      assert.deepStrictEqual(logins(broker), ["guest", "third"])
    })
  )

  it.live("that is told when the connection dies is what it comes back with", () =>
    onScriptedBroker({}, function* (broker) {
      for (const [i, death] of (["destroy", "end"] as const).entries()) {
        broker.once("connection.update-secret", (context) => context[death]())
        yield* Effect.timeout(update(`${death} it`), "5 seconds")
        yield* untilState(isOpen(i + 2))
      }
      assert.deepStrictEqual(logins(broker), ["guest", "destroy it", "end it"])
    })
  )

  it.live("while the connection is away is what it comes back with", () =>
    onScriptedBroker({}, function* (broker) {
      yield* broker.down
      yield* untilState((state) => state._tag === "Reconnecting")
      yield* update("second")
      yield* broker.up
      yield* untilState(isOpen(2))
      assert.deepStrictEqual(logins(broker), ["guest", "second"])
      assert.deepStrictEqual(told(broker), [])
    })
  )

  it.live("while the connection logs in with the old one is told to the broker as soon as it is open", () =>
    onScriptedBroker({}, function* (broker) {
      broker.once("connection.start-ok", (context) => context.hold())
      broker.destroy()
      yield* broker.received("connection.start-ok", 2)
      yield* update("second")
      broker.release("connection.start-ok")
      yield* broker.received("connection.update-secret")
      assert.deepInclude(told(broker)[0], { newSecret: "second" })
      yield* untilState(isOpen(2))
    })
  )

  it.live("that comes while the broker refuses the old one is tried before the connection is given up", () =>
    onScriptedBroker({}, function* (broker) {
      const updated = yield* Deferred.make<void>()
      broker.once("connection.start-ok", (context) =>
        Effect.map(Deferred.await(updated), () => ScriptedBroker.refuseLogin(context))
      )
      broker.destroy()
      yield* broker.received("connection.start-ok", 2)
      yield* update("second")
      yield* Deferred.succeed(updated, undefined)
      yield* untilState(isOpen(2))
      assert.deepStrictEqual(logins(broker), ["guest", "guest", "second"])
    })
  )

  it.live("whose caller is interrupted is told and used all the same", () =>
    onScriptedBroker({}, function* (broker) {
      broker.once("connection.update-secret", () => {})
      const calling = yield* start(update("second"))
      yield* broker.received("connection.update-secret")
      yield* Effect.timeout(Fiber.interrupt(calling), "2 seconds")
      broker.destroy()
      yield* untilState(isOpen(2))
      yield* Effect.timeout(update("third"), "2 seconds")
      assert.deepStrictEqual(logins(broker), ["guest", "second"])
    })
  )

  it.live("is told to the consumers' connection by the same call, and used by one that is made later", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const { connection: consumers } = yield* AmqpConsumer.AmqpConsumer
        yield* update("second")
        const scope = yield* Scope.make()
        const later = yield* Scope.provide(consumers, scope)
        yield* Effect.provideService(untilState(isOpen(1)), AmqpConnection.AmqpConnection, later)
        assert.deepStrictEqual(logins(broker), ["guest", "second"])
        yield* update("third")
        assert.deepStrictEqual(
          told(broker).map(({ newSecret }) => newSecret),
          ["second", "third", "third"]
        )
        yield* Scope.close(scope, Exit.void)
        broker.destroy()
        yield* untilState(isOpen(2))
        // Refused by one of two: the other keeps the secret that both come back with.
        broker.once("connection.update-secret", (context) => context.proceed())
        broker.once("connection.update-secret", refuseSecret)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const theirs = yield* consumers
            yield* Effect.provideService(
              untilState((state) => state._tag === "Open"),
              AmqpConnection.AmqpConnection,
              theirs
            )
            assert.strictEqual((yield* reasonOf(update("fourth")))._tag, "AuthenticationFailed")
          })
        )
        broker.destroy()
        yield* untilState(isOpen(3))
        assert.notInclude(logins(broker), "fourth")
      }).pipe(withConsumers(broker.url))
      yield* broker.socketsClosed
    })
  )

  it.live(
    "is tried at once by a connection that waits after a refused login, and by one that such a refusal has closed",
    () =>
      Effect.gen(function* () {
        for (const [overrides, state] of [
          [{}, "Reconnecting"],
          [closedByRefusals, "Closed"]
        ] as const) {
          const broker = yield* ScriptedBroker.make()
          yield* Effect.gen(function* () {
            broker.on("connection.start-ok", (context) =>
              context.args.response.toString().endsWith("\0fresh")
                ? context.proceed()
                : ScriptedBroker.refuseLogin(context)
            )
            const refused = untilState((now) => now._tag === state && now.reason._tag === "AuthenticationFailed")
            broker.destroy()
            yield* refused
            yield* update("stale")
            // It was tried before the next pause began, which is the first again.
            yield* broker.received("connection.start-ok", 3)
            yield* refused
            const [time] = yield* Effect.timed(
              Effect.gen(function* () {
                yield* update("fresh")
                // Who comes right behind waits for the connection, and hears nothing of the refusal.
                yield* touch
              })
            )
            assert.isBelow(Duration.toMillis(time), 450, "before the shortest pause")
            yield* untilState(isOpen(2))
            assert.deepStrictEqual(logins(broker), ["guest", "guest", "stale", "fresh"])
          }).pipe(withPool(broker.url, overrides), quietly)
        }
      })
  )

  it.live("of a connection whose scope has ended fails with why it is closed", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const closed = yield* Effect.gen(function* () {
        broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
        broker.destroy()
        yield* untilState((state) => state._tag === "Closed")
        return yield* AmqpConnection.AmqpConnection
      }).pipe(withPool(broker.url, closedByRefusals), quietly)
      assert.strictEqual((yield* reasonOf(closed.updateSecret(Redacted.make("x"))))._tag, "AuthenticationFailed")
      assert.deepStrictEqual(logins(broker), ["guest", "guest"])
    })
  )

  it.live("that is none, and one for EXTERNAL, is InvalidArgument, and nothing is sent", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const refused = Effect.gen(function* () {
        const { updateSecret } = yield* AmqpConnection.AmqpConnection
        const wiped = Redacted.make("canary")
        Redacted.wipeUnsafe(wiped)
        const bad: ReadonlyArray<readonly [secret: unknown, reason: unknown]> = [
          [Redacted.make(""), undefined],
          [Redacted.make("canary\0"), undefined],
          [Redacted.make("canary\ud800"), undefined],
          [Redacted.make(["canary"]), undefined],
          [undefined, undefined],
          [wiped, undefined],
          [Redacted.make("canary"), "r".repeat(256)],
          [Redacted.make("canary"), 7]
        ]
        for (const [secret, why] of bad) {
          const reason = yield* reasonOf(updateSecret(secret as Redacted.Redacted<string>, why as string))
          assert.strictEqual(reason._tag, "InvalidArgument")
          assert.notInclude(reason.message, "canary")
        }
      })
      yield* refused.pipe(withPool(broker.url))
      const credentials: AmqpConfig.Credentials = { _tag: "External" }
      const external = Effect.map(reasonOf(update("second")), (reason) =>
        assert.strictEqual(reason._tag, "InvalidArgument")
      )
      yield* external.pipe(withPool(broker.url, { credentials }))
      assert.deepStrictEqual(told(broker), [])
    })
  )
})

const key = Buffer.from("a key of this test's own, of 32 b")

const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")

/** An access token for everything, for so many seconds. */
const tokenFor = (seconds: number, scope = "rabbitmq.configure:*/* rabbitmq.write:*/* rabbitmq.read:*/*") => {
  const head = encoded({ alg: "HS256", kid: "test", typ: "JWT" })
  const exp = Math.floor(Date.now() / 1000) + seconds
  const body = encoded({ aud: ["rabbitmq"], exp, scope: scope.split(" "), sub: "orders" })
  return `${head}.${body}.${createHmac("sha256", key).update(`${head}.${body}`).digest("base64url")}`
}

const plugins = ["rabbitmq_auth_backend_oauth2"]
const config = [
  "auth_backends.1 = rabbit_auth_backend_internal",
  "auth_backends.2 = rabbit_auth_backend_oauth2",
  "auth_oauth2.resource_server_id = rabbitmq"
]

layer(TestBroker.layerPrivate({ plugins, config }), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("access tokens of a real broker", () => {
    const urlOf = Effect.fnUntraced(function* (token: string) {
      const { evaluate, url } = yield* TestBroker.TestBroker
      yield* evaluate(`
        Key = #{<<"kty">> => <<"oct">>, <<"alg">> => <<"HS256">>, <<"k">> => <<"${key.toString("base64url")}">>},
        application:set_env(rabbitmq_auth_backend_oauth2, key_config,
          [{default_key, <<"test">>}, {signing_keys, #{<<"test">> => {map, Key}}}]).
      `)
      const proxy = yield* FaultProxy.make(url)
      const own = new URL(proxy.through(url))
      own.username = "orders"
      own.password = token
      return { proxy, url: own.href }
    })

    it.effect(
      "a connection whose token is refreshed outlives it and comes back; one whose token is not is refused",
      () =>
        Effect.gen(function* () {
          const { proxy, url } = yield* urlOf(tokenFor(3))
          const forgotten = yield* AmqpConnection.make(configOf(url))
          yield* Effect.gen(function* () {
            const { connection: consumers } = yield* AmqpConsumer.AmqpConsumer
            yield* consumers
            const expired = reasonOf(Effect.repeat(touch, Schedule.spaced("100 millis")))
            assert.strictEqual((yield* Effect.timeout(expired, "10 seconds"))._tag, "AccessRefused")
            yield* update(tokenFor(60), "expired")
            yield* touch
            proxy.rst()
            yield* untilState(isOpen(2))
            yield* touch
            yield* AmqpPublisher.publish({ exchange: "amq.fanout", routingKey: "x", content: "" })
            yield* Effect.provideService(
              Effect.gen(function* () {
                yield* untilState(
                  (state) => state._tag === "Reconnecting" && state.reason._tag === "AuthenticationFailed"
                )
              }),
              AmqpConnection.AmqpConnection,
              forgotten
            )
            const reason = yield* reasonOf(update("no token"))
            assert.deepInclude(reason, { _tag: "AuthenticationFailed", replyCode: 530 })
            yield* untilState(isOpen(3))
            yield* touch
          }).pipe(withConsumers(url))
        }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
    )
  })
})
