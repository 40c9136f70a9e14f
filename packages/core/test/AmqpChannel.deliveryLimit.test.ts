/** Quorum queues that this application declares, and the delivery limit after which RabbitMQ 4 drops a message. */
import { assert, layer } from "@effect/vitest"
import { type AmqpChannel, AmqpPool, AmqpTopology } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Option } from "effect"
import { declareQueue, logged, nextText, onBroker, send, untilQueue } from "./support/consumers.ts"
import { major } from "./support/versions.ts"

/** The queue's `x-delivery-limit` as the broker has it. */
const limitOf = (queue: string) =>
  Effect.flatMap(TestBroker.TestBroker, ({ evaluate, vhost }) =>
    evaluate(
      `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"${vhost}">>, queue, <<"${queue}">>)), rabbit_misc:table_lookup(amqqueue:get_arguments(Q), <<"x-delivery-limit">>).`
    )
  )

const borrowed = <A, E>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E>) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use(f))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect(
    "a quorum queue without a dead-letter exchange has no limit: a message that comes back is never dropped",
    () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue({ queueType: "quorum" })
        const is4 = (yield* major) >= 4
        if (is4) assert.match(yield* limitOf(queue), /-1/)
        else assert.strictEqual(yield* limitOf(queue), "undefined")
        yield* send(queue, "an order")
        yield* borrowed((channel) =>
          Effect.gen(function* () {
            for (let i = 0; i < 30; i++) {
              const delivery = yield* Effect.repeat(channel.get(queue), { until: Option.isSome })
              yield* channel.reject(Option.getOrThrow(delivery), { requeue: true })
            }
          })
        )
        assert.strictEqual(yield* nextText(queue), "an order")
      }).pipe(onBroker)
  )

  it.effect("a quorum queue can be declared again, on the same channel and by another application", () =>
    Effect.gen(function* () {
      yield* borrowed((channel) =>
        Effect.gen(function* () {
          for (let i = 0; i < 3; i++) yield* channel.queueDeclare("again", { queueType: "quorum" })
          const { messageCount, queue } = yield* channel.queueDeclare("again", { queueType: "quorum" })
          assert.deepStrictEqual([queue, messageCount], ["again", 0])
        })
      )
      // Another application, which does not know this queue.
      yield* onBroker(Effect.asVoid(declareQueue({ queueType: "quorum" }, "again")))
    }).pipe(onBroker)
  )

  it.effect(
    "an existing queue with the broker's limit stays as it is, and a warning is logged once, with the remedy",
    () =>
      logged((lines) =>
        Effect.gen(function* () {
          const older = { queueType: "quorum", deliveryLimit: "default" } as const
          yield* onBroker(Effect.asVoid(declareQueue(older, "older")))
          assert.strictEqual(yield* limitOf("older"), "undefined")
          const topology = AmqpTopology.make(AmqpTopology.queue("older", { queueType: "quorum" }))
          yield* AmqpTopology.declare(topology)
          yield* AmqpTopology.declare(topology)
          // The channel is open: nothing was refused on it.
          yield* borrowed((channel) =>
            Effect.andThen(channel.queueDeclare("older", { queueType: "quorum" }), channel.queueDeclarePassive("older"))
          )
          const warnings = lines.filter(({ level }) => level === "Warn")
          if ((yield* major) < 4) return assert.lengthOf(warnings, 0)
          assert.lengthOf(warnings, 1)
          for (const text of ["delivery limit", "delivery-limit to -1", '"queue":"older"']) {
            assert.include(warnings[0]!.text, text)
          }
        })
      ).pipe(onBroker)
  )

  it.effect(
    "a queue with a dead-letter exchange or its own limit, or with the broker's limit chosen, is declared as specified",
    () =>
      Effect.gen(function* () {
        const dead = yield* declareQueue()
        const options = { queueType: "quorum", deadLetterExchange: "", deadLetterRoutingKey: dead } as const
        assert.strictEqual(yield* limitOf(yield* declareQueue(options)), "undefined")
        assert.match(yield* limitOf(yield* declareQueue({ queueType: "quorum", deliveryLimit: 7 })), /7/)
        assert.strictEqual(
          yield* limitOf(yield* declareQueue({ queueType: "quorum", deliveryLimit: "default" })),
          "undefined"
        )
        assert.strictEqual(yield* limitOf(yield* declareQueue({ queueType: "classic" })), "undefined")
        yield* untilQueue(dead, { messages: 0 })
      }).pipe(onBroker)
  )

  it.effect("an existing queue with other properties is refused as before, and no channel is left", () =>
    Effect.gen(function* () {
      const broker = yield* TestBroker.TestBroker
      const queue = yield* declareQueue({ queueType: "classic" })
      const before = (yield* broker.census).channels
      const error = yield* Effect.flip(
        AmqpTopology.declare(AmqpTopology.make(AmqpTopology.queue(queue, { queueType: "quorum" })))
      )
      assert.strictEqual(error.reason._tag, "PreconditionFailed")
      assert.include(error.message, "x-queue-type")
      yield* Effect.repeat(broker.census, { until: ({ channels }) => channels <= before })
    }).pipe(onBroker)
  )
})
