/** Users, passwords and permissions that change while a program is connected, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, AmqpConsumer, type AmqpError, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Fiber, Redacted } from "effect"
import { closedByRefusals, reasonOf, untilState } from "./support/amqp.ts"
import { send, withConsumers } from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { until } from "./support/polling.ts"
import { start } from "./support/publisher.ts"
import { drain } from "./support/queues.ts"
import { noneTo } from "./support/sockets.ts"
import * as Users from "./support/users.ts"

/** A user of the broker, connected through a proxy, until the end of the test. */
const user = Effect.gen(function* () {
  const { url } = yield* TestBroker.TestBroker
  const user = yield* Users.make("first")
  const proxy = yield* FaultProxy.make(url)
  const own = new URL(proxy.through(url))
  own.username = user.name
  own.password = "first"
  return { ...user, url: own.href, proxy }
})

const isClosed = (state: AmqpConnection.State) => state._tag === "Closed"
const isRefused = (tag: AmqpError.AmqpErrorReason["_tag"]) => (state: AmqpConnection.State) =>
  state._tag === "Reconnecting" && state.reason._tag === tag
const isGeneration = (generation: number) => (state: AmqpConnection.State) =>
  state._tag === "Open" && state.generation === generation

const declare = (queue: string) => AmqpChannel.use((channel) => channel.queueDeclare(queue))

/** Why an effect fails. It must fail at once: before the shortest deadline of these tests, which is five seconds. */
const soon = <A, R>(effect: Effect.Effect<A, AmqpError.AmqpError, R>, what = "it") =>
  Effect.timeoutOrElse(reasonOf(effect), {
    duration: "4 seconds",
    orElse: () => Effect.die(new Error(`${what}: it did not fail at once`))
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a permission that is revoked while connected", () => {
    it.effect("refuses that operation with AccessRefused on its channel alone, until it is granted again", () =>
      Effect.gen(function* () {
        const { permit, proxy, url } = yield* user
        yield* Effect.gen(function* () {
          const pool = yield* AmqpPool.AmqpPool
          const { state } = yield* AmqpConnection.AmqpConnection
          yield* Effect.scoped(declare("mine"))
          yield* pool.use((sibling) =>
            Effect.gen(function* () {
              yield* sibling.publish({ routingKey: "mine", content: "before" })
              yield* permit("^mine$", "^amq.default$", "^mine$")
              for (const refused of [
                declare("other"),
                AmqpChannel.use((channel) => channel.queueDelete("other")),
                AmqpChannel.useConfirm((channel) =>
                  channel.publish({ exchange: "amq.topic", routingKey: "x", content: "" })
                ),
                AmqpPublisher.publish({ exchange: "amq.fanout", routingKey: "x", content: "" }),
                AmqpConsumer.consume("other", () => Effect.void)
              ]) {
                const reason = yield* soon(Effect.scoped(refused as Effect.Effect<unknown, AmqpError.AmqpError>))
                assert.deepInclude(reason, { _tag: "AccessRefused", replyCode: 403, severity: "channel" })
                assert.include(reason.message, "ACCESS_REFUSED")
              }
              // The other channel continues, on the first connection.
              yield* sibling.publish({ routingKey: "mine", content: "after" })
              assert.deepStrictEqual(yield* drain(sibling, "mine"), ["before", "after"])
              assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
            })
          )
          yield* permit(".*", ".*", ".*")
          yield* Effect.scoped(declare("other"))
          yield* AmqpPublisher.publish({ exchange: "amq.fanout", routingKey: "x", content: "" })
          // There are two connections, the application's and the consumers', and neither was lost.
          assert.strictEqual(proxy.stats.accepted, 2)
        }).pipe(withConsumers(url))
      })
    )

    it.effect(
      "of the whole virtual host is AccessRefused while connected, and VirtualHostRefused after a loss, until it is granted again",
      () =>
        Effect.gen(function* () {
          const { clearPermissions, permit, proxy, url } = yield* user
          yield* Effect.gen(function* () {
            yield* clearPermissions
            assert.strictEqual((yield* soon(Effect.scoped(declare("q"))))._tag, "AccessRefused")
            const { state } = yield* AmqpConnection.AmqpConnection
            assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
            proxy.rst()
            yield* untilState(isRefused("VirtualHostRefused"))
            yield* permit(".*", ".*", ".*")
            yield* untilState(isGeneration(2))
            yield* Effect.scoped(declare("q"))
          }).pipe(withConsumers(url))
        })
    )
  })

  describe("a user that is deleted while connected", () => {
    it.effect(
      "gets one more attempt, and then every caller fails at once with AuthenticationFailed, where onRefused is close",
      () =>
        Effect.gen(function* () {
          const { awaitCensus } = yield* TestBroker.TestBroker
          const deleted = yield* user
          yield* Effect.gen(function* () {
            const pool = yield* AmqpPool.AmqpPool
            yield* Effect.scoped(declare("q"))
            const handled = yield* Deferred.make<void>()
            const consumer = yield* start(AmqpConsumer.consume("q", () => Deferred.succeed(handled, undefined)))
            yield* send("q", "m")
            yield* Deferred.await(handled)
            assert.strictEqual(deleted.proxy.stats.accepted, 2)
            // A process of the broker registers each connection after its `open-ok`: an unregistered connection would
            // outlive its user.
            yield* until(deleted.tracked, (connections) => connections === "2", "connections of the user")
            const waiting = yield* pool.use((held) =>
              Effect.gen(function* () {
                // This caller is in the pool's wait queue when the user is deleted.
                const waiting = yield* start(pool.use(() => Effect.void))
                yield* deleted.delete
                const closed = yield* untilState(isClosed)
                assert.strictEqual(closed.reason._tag, "AuthenticationFailed")
                const own = yield* soon(held.queueDeclare("q"))
                assert.include(["ConnectionClosed", "ChannelClosed"], own._tag)
                return waiting
              })
            )
            for (const [what, refused] of Object.entries({
              waiting: Fiber.join(waiting),
              consumer: Fiber.join(consumer),
              declaring: Effect.scoped(declare("q")),
              publishing: AmqpPublisher.publish({ routingKey: "q", content: "m" }),
              borrowing: pool.use(() => Effect.void)
            })) {
              const reason = yield* soon(refused as Effect.Effect<unknown, AmqpError.AmqpError>, what)
              assert.deepInclude(reason, { _tag: "AuthenticationFailed", replyCode: 403, isRetryable: false })
            }
            // Each connection has made one more attempt, and no other.
            assert.strictEqual(deleted.proxy.stats.accepted, 4)
            yield* noneTo(deleted.proxy.port)
          }).pipe(withConsumers(deleted.url, { ...closedByRefusals, pool: { max: 1 } }))
          assert.strictEqual(deleted.proxy.stats.accepted, 4)
          yield* awaitCensus({ connections: 0, channels: 0 })
        })
    )
  })

  describe("a password that is changed while connected", () => {
    it.effect(
      "does not affect the open connection; after a loss it is re-established once the old password is valid again",
      () =>
        Effect.gen(function* () {
          const { changePassword, proxy, url } = yield* user
          yield* Effect.gen(function* () {
            const { state } = yield* AmqpConnection.AmqpConnection
            yield* changePassword("second")
            yield* Effect.scoped(declare("q"))
            yield* AmqpPublisher.publish({ routingKey: "q", content: "m" })
            assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
            proxy.rst()
            yield* untilState(isRefused("AuthenticationFailed"))
            yield* changePassword("first")
            yield* untilState(isGeneration(2))
            yield* AmqpPublisher.publish({ routingKey: "q", content: "m" })
          }).pipe(withConsumers(url))
        })
    )

    it.effect(
      "can be replaced with updateSecret: both connections are re-established with it, and later ones use it",
      () =>
        Effect.gen(function* () {
          const { changePassword, proxy, url } = yield* user
          yield* Effect.gen(function* () {
            const connection = yield* AmqpConnection.AmqpConnection
            const { connection: consumers } = yield* AmqpConsumer.AmqpConsumer
            yield* Effect.scoped(declare("q"))
            const theirs = yield* consumers
            yield* Effect.provideService(untilState(isGeneration(1)), AmqpConnection.AmqpConnection, theirs)
            yield* changePassword("second")
            // RabbitMQ's own database accepts any secret for an open connection.
            yield* connection.updateSecret(Redacted.make("second"), "changed")
            for (const generation of [2, 3]) {
              proxy.rst()
              yield* untilState(isGeneration(generation))
              yield* Effect.provideService(untilState(isGeneration(generation)), AmqpConnection.AmqpConnection, theirs)
            }
            yield* AmqpPublisher.publish({ routingKey: "q", content: "m" })
            assert.strictEqual(proxy.stats.accepted, 6)
            const password =
              connection.config.credentials._tag === "Plain" ? connection.config.credentials.password : ""
            assert.strictEqual(Redacted.isRedacted(password) && Redacted.value(password), "first")
          }).pipe(withConsumers(url))
          yield* Effect.gen(function* () {
            const connection = yield* AmqpConnection.AmqpConnection
            yield* connection.updateSecret(Redacted.make("third"))
            yield* changePassword("third")
            const handled = yield* Deferred.make<void>()
            yield* start(AmqpConsumer.consume("q", () => Deferred.succeed(handled, undefined)))
            yield* Effect.timeout(Deferred.await(handled), "10 seconds")
          }).pipe(withConsumers(url.replace(":first@", ":second@")))
        })
    )
  })
})
