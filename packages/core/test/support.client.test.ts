/** The client with which most tests start. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { Effect, Exit, Metric } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { until } from "./support/polling.ts"
import { message } from "./support/publisher.ts"

const declare = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("q")))

describe("onScriptedBroker", () => {
  it.live("passes settings to the broker, the connection, the pool and the publisher", () =>
    onScriptedBroker(
      {
        broker: { on: { "queue.declare": (declare) => declare.reply("queue.declare-ok", { queue: "scripted" }) } },
        connectionName: "named",
        pool: { max: 3 },
        publisher: { maxMessageSize: 10 }
      },
      function* () {
        assert.strictEqual((yield* declare).queue, "scripted")
        assert.strictEqual((yield* AmqpConnection.AmqpConnection).config.connectionName, "named")
        assert.strictEqual((yield* AmqpPool.stats).max, 3)
        const { reason } = yield* Effect.flip(AmqpPublisher.publish(message("x".repeat(11))))
        assert.strictEqual(reason._tag, "MessageTooLarge")
        assert.isAbove((yield* Metric.MetricRegistry).size, 0)
      }
    )
  )

  it.live("closes what the body holds first, then the client, and then the broker", () =>
    Effect.gen(function* () {
      const broker = yield* onScriptedBroker({}, function* (broker) {
        yield* declare
        yield* Effect.addFinalizer(() =>
          Effect.map(Effect.exit(declare), (exit) => assert.isTrue(Exit.isSuccess(exit)))
        )
        return broker
      })
      assert.strictEqual(broker.count("queue.declare"), 2)
      assert.strictEqual(broker.count("connection.close"), 1)
      yield* until(
        Effect.sync(() => broker.connections),
        (connections) => connections === 0,
        "the broker's connections"
      )
    })
  )

  it.live("fails a test if one of its handlers threw", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(
        onScriptedBroker({}, function* (broker) {
          broker.once("queue.declare", (declare) => {
            declare.proceed()
            throw new Error("a mistake in a script")
          })
          yield* declare
        })
      )
      assert.isTrue(Exit.hasDies(exit))
    })
  )
})
