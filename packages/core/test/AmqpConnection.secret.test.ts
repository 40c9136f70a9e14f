/** A new secret for an open connection: what is sent, how it ends, and which connections use the secret afterwards. */
import { assert, describe, it, layer } from "@effect/vitest"
import { type AmqpConfig, AmqpConnection, AmqpConsumer, AmqpError, AmqpPublisher } from "@effect-amqp/core"
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

/** The passwords with which clients logged in to a scripted broker, in order. */
const logins = (broker: ScriptedBroker.ScriptedBroker) =>
  broker.log.flatMap((received) =>
    received.method === "connection.start-ok" ? [received.args.response.toString().split("\0")[2]] : []
  )

/** The secrets that clients sent to it with connection.update-secret, in order. */
const sentSecrets = (broker: ScriptedBroker.ScriptedBroker) =>
  broker.log.flatMap((received) =>
    received.method === "connection.update-secret"
      ? [{ ...received.args, newSecret: received.args.newSecret.toString() }]
      : []
  )

const refuseSecret = (context: ScriptedBroker.Context<"connection.update-secret">) =>
  context.closeConnection(530, "NOT_ALLOWED - New secret was refused by one of the backends")

describe("a new secret", () => {
  it.live("is sent to the broker on channel 0, unchanged, with the reason", () =>
    onScriptedBroker({}, function* (broker) {
      const secret = `p%C3 "\\/é${"x".repeat(40_000)}`
      yield* update(secret, "the token expires")
      yield* update("second")
      assert.deepStrictEqual(sentSecrets(broker), [
        { newSecret: secret, reason: "the token expires" },
        { newSecret: "second", reason: "refreshed" }
      ])
      assert.isTrue(broker.log.every((r) => r.method !== "connection.update-secret" || r.channel === 0))
    })
  )

  it.live("is used by the next connect", () =>
    onScriptedBroker({}, function* (broker) {
      yield* update("second")
      broker.destroy()
      yield* untilState(isOpen(2))
      assert.deepStrictEqual(logins(broker), ["guest", "second"])
    })
  )

  it.live("that the broker refuses is AuthenticationFailed, and the connection reconnects with the previous one", () =>
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
    "that the broker does not answer is ReplyTimeout in time; a late answer does not count for the next secret",
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

  it.live("is not rejected for an earlier one that the broker refuses late", () =>
    onScriptedBroker({ continuationTimeout: Duration.millis(500) }, function* (broker) {
      broker.once("connection.update-secret", () => {})
      assert.strictEqual((yield* reasonOf(update("second")))._tag, "ReplyTimeout")
      broker.once("connection.update-secret", refuseSecret)
      yield* update("third")
      yield* untilState(isOpen(2))
      assert.deepStrictEqual(logins(broker), ["guest", "third"])
    })
  )

  it.live("that is under way when the connection dies is used by the reconnect", () =>
    onScriptedBroker({}, function* (broker) {
      for (const [i, death] of (["destroy", "end"] as const).entries()) {
        broker.once("connection.update-secret", (context) => context[death]())
        yield* Effect.timeout(update(`${death} it`), "5 seconds")
        yield* untilState(isOpen(i + 2))
      }
      assert.deepStrictEqual(logins(broker), ["guest", "destroy it", "end it"])
    })
  )

  it.live("while the connection is lost is used by the reconnect", () =>
    onScriptedBroker({}, function* (broker) {
      yield* broker.down
      yield* untilState((state) => state._tag === "Reconnecting")
      yield* update("second")
      yield* broker.up
      yield* untilState(isOpen(2))
      assert.deepStrictEqual(logins(broker), ["guest", "second"])
      assert.deepStrictEqual(sentSecrets(broker), [])
    })
  )

  it.live("during a login with the old one is sent to the broker as soon as the connection is open", () =>
    onScriptedBroker({}, function* (broker) {
      broker.once("connection.start-ok", (context) => context.hold())
      broker.destroy()
      yield* broker.received("connection.start-ok", 2)
      yield* update("second")
      broker.release("connection.start-ok")
      yield* broker.received("connection.update-secret")
      assert.deepInclude(sentSecrets(broker)[0], { newSecret: "second" })
      yield* untilState(isOpen(2))
    })
  )

  it.live("that arrives while the broker refuses the old one is tried before the connection is given up", () =>
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

  it.live("whose caller is interrupted is sent and used all the same", () =>
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

  it.live("is sent to the consumers' connection by the same call, and used by a later consumers' connection", () =>
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
          sentSecrets(broker).map(({ newSecret }) => newSecret),
          ["second", "third", "third"]
        )
        yield* Scope.close(scope, Exit.void)
        broker.destroy()
        yield* untilState(isOpen(2))
        // One of the two connections is refused: the other one keeps the secret with which both reconnect.
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
    "is tried at once by a connection that pauses after a refused login, and by one that such a refusal has closed",
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
            // The stale secret was tried before the next pause began, which is the first pause again.
            yield* broker.received("connection.start-ok", 3)
            yield* refused
            const [time] = yield* Effect.timed(
              Effect.gen(function* () {
                yield* update("fresh")
                // A caller right after the update waits for the connection, and does not get the refusal.
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

  it.live("for a connection whose scope has ended fails with the reason for which it is closed", () =>
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

  it.live("that is empty, or for EXTERNAL, is InvalidArgument, and nothing is sent", () =>
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
      assert.deepStrictEqual(sentSecrets(broker), [])
    })
  )
})

const key = Buffer.from("a key of this test's own, of 32 b")

const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")

/** An access token with all permissions that is valid for this many seconds. */
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

    /** Starts again with a longer validity if a token expired before all connections were open: the machine is slow. */
    const untilFastEnough = <A, E, R>(
      program: (seconds: number) => Effect.Effect<A, E, R>,
      seconds = 3
    ): Effect.Effect<A, E, R> =>
      Effect.catchIf(
        program(seconds),
        (error) => error instanceof AmqpError.AmqpError && error.reason._tag === "AuthenticationFailed" && seconds < 40,
        () => untilFastEnough(program, seconds * 4)
      )

    it.effect(
      "let a connection with a refreshed token outlive the old one and reconnect; without a refresh it is refused",
      () =>
        untilFastEnough((seconds) =>
          Effect.gen(function* () {
            const { proxy, url } = yield* urlOf(tokenFor(seconds))
            const forgotten = yield* AmqpConnection.make(configOf(url))
            yield* Effect.gen(function* () {
              const { connection: consumers } = yield* AmqpConsumer.AmqpConsumer
              yield* consumers
              const expired = reasonOf(Effect.repeat(touch, Schedule.spaced("100 millis")))
              assert.strictEqual((yield* Effect.timeout(expired, Duration.seconds(seconds + 15)))._tag, "AccessRefused")
              yield* update(tokenFor(120), "expired")
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
          }).pipe(Effect.scoped)
        ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
    )
  })
})
