/**
 * Bad input is refused before anything is sent, with an error that names the option. The tests run on a real broker,
 * which must receive nothing of it.
 */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, type AmqpError, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer, Option, References, Result } from "effect"
import { layerOf } from "./support/amqp.ts"

type Channel = AmqpChannel.AmqpChannel

/** Bypasses the types. */
const bad = (value: unknown) => value as never

const long = "ü".repeat(128)
const names: ReadonlyArray<unknown> = [long, 7, null, undefined, "lone \uD800"]
const emptyOrBad = [...names, ""]

interface Refusal {
  readonly argument: string
  readonly call: (channel: Channel) => Effect.Effect<unknown, unknown>
}

const refusals: Array<Refusal> = []

const refused = (
  argument: string,
  values: ReadonlyArray<unknown>,
  call: (channel: Channel, value: never) => Effect.Effect<unknown, unknown>
) => {
  for (const value of values) refusals.push({ argument, call: (channel) => call(channel, bad(value)) })
}

const notBoolean = ["yes", 1, null, Number.NaN]
const notWhole = [-1, 0.5, Number.NaN, Infinity, "3", null, 2 ** 53]

refused("exchange", emptyOrBad, (channel, value) => channel.exchangeDeclare(value, "fanout"))
refused("type", emptyOrBad, (channel, value) => channel.exchangeDeclare("x", value))
refused("exchange", emptyOrBad, (channel, value) => channel.exchangeDeclarePassive(value))
refused("exchange", emptyOrBad, (channel, value) => channel.exchangeDelete(value))
refused("ifUnused", notBoolean, (channel, value) => channel.exchangeDelete("x", { ifUnused: value }))
for (const option of ["durable", "autoDelete", "internal"]) {
  refused(option, notBoolean, (channel, value) => channel.exchangeDeclare("x", "fanout", { [option]: value }))
}
refused("alternateExchange", [long, 7], (channel, value) =>
  channel.exchangeDeclare("x", "fanout", { alternateExchange: value })
)
for (const bind of ["exchangeBind", "exchangeUnbind"] as const) {
  refused("destination", emptyOrBad, (channel, value) => channel[bind](value, "s", ""))
  refused("source", emptyOrBad, (channel, value) => channel[bind]("d", value, ""))
  refused("routingKey", names, (channel, value) => channel[bind]("d", "s", value))
  refused("arguments", [7, [], "x"], (channel, value) => channel[bind]("d", "s", "", { arguments: value }))
}
for (const bind of ["queueBind", "queueUnbind"] as const) {
  refused("queue", emptyOrBad, (channel, value) => channel[bind](value, "x", ""))
  refused("exchange", emptyOrBad, (channel, value) => channel[bind]("q", value, ""))
  refused("routingKey", names, (channel, value) => channel[bind]("q", "x", value))
  refused("arguments.when", [Number.NaN, () => 1, Symbol.iterator], (channel, value) =>
    channel[bind]("q", "x", "", { arguments: { when: value } })
  )
}
refused("queue", names, (channel, value) => channel.queueDeclare(value))
for (const option of ["durable", "exclusive", "autoDelete", "singleActiveConsumer"]) {
  refused(option, notBoolean, (channel, value) => channel.queueDeclare("q", { [option]: value }))
}
for (const option of [
  "deliveryLimit",
  "maxLength",
  "maxLengthBytes",
  "maxPriority",
  "streamMaxSegmentSizeBytes",
  "quorumInitialGroupSize"
]) {
  refused(option, notWhole, (channel, value) => channel.queueDeclare("q", { [option]: value }))
}
refused("maxPriority", [0, 256], (channel, value) => channel.queueDeclare("q", { maxPriority: value }))
for (const option of [
  "queueType",
  "queueMode",
  "overflow",
  "deadLetterStrategy",
  "queueLeaderLocator",
  "delayedRetryType"
]) {
  refused(option, ["no such", 1, null, ""], (channel, value) => channel.queueDeclare("q", { [option]: value }))
}
for (const option of ["messageTtl", "expires", "delayedRetryMin", "delayedRetryMax", "consumerDisconnectedTimeout"]) {
  refused(option, [-1, Number.NaN, Infinity, "soon", null, 0.5, 315_360_000_001, "3651 days"], (channel, value) =>
    channel.queueDeclare("q", { [option]: value })
  )
}
for (const option of ["delayedRetryMin", "delayedRetryMax"]) {
  refused(option, [0], (channel, value) => channel.queueDeclare("q", { [option]: value }))
}
refused("expires", [0], (channel, value) => channel.queueDeclare("q", { expires: value }))
refused("maxAge", [0, 1500, "soon"], (channel, value) => channel.queueDeclare("q", { maxAge: value }))
for (const option of ["deadLetterExchange", "deadLetterRoutingKey"]) {
  refused(option, [long, 7, null], (channel, value) => channel.queueDeclare("q", { [option]: value }))
}
refused("maxLength", [{ maxLength: 1, arguments: { "x-max-length": 1 } }], (channel, value) =>
  channel.queueDeclare("q", value)
)
refused("maxLenght", [{ maxLenght: 1 }], (channel, value) => channel.queueDeclare("q", value))
refused("__proto__", [JSON.parse('{"__proto__": 1}')], (channel, value) => channel.queueDeclare("q", value))
refused("options", ["durable", 7, []], (channel, value) => channel.queueDeclare("q", value))
refused("queue", emptyOrBad, (channel, value) => channel.queueDeclarePassive(value))
refused("queue", emptyOrBad, (channel, value) => channel.queuePurge(value))
refused("queue", emptyOrBad, (channel, value) => channel.queueDelete(value))
refused("ifEmpty", notBoolean, (channel, value) => channel.queueDelete("q", { ifEmpty: value }))
refused("queue", emptyOrBad, (channel, value) => channel.get(value))
refused("noAck", notBoolean, (channel, value) => channel.get("q", { noAck: value }))
refused("queue", emptyOrBad, (channel, value) => channel.consume(value))
refused("consumerTag", [long, 7], (channel, value) => channel.consume("q", { consumerTag: value }))
refused("priority", [0.5, Number.NaN, "high"], (channel, value) => channel.consume("q", { priority: value }))
refused("exclusive", notBoolean, (channel, value) => channel.consume("q", { exclusive: value }))
refused("nolocal", [{ nolocal: true }], (channel, value) => channel.consume("q", value))
refused("consumerTag", ["unknown", 7, undefined], (channel, value) => channel.cancel(value))
refused("prefetchCount", [...notWhole, 65_536], (channel, value) => channel.qos(value))
refused("global", notBoolean, (channel, value) => channel.qos(1, { global: value }))
refused("active", ["yes", undefined, 1], (channel, value) => channel.flow(value))
refused("onBlocked", ["block", true, null], (channel, value) =>
  channel.publish({ routingKey: "q", content: "" }, { onBlocked: value })
)
refused("mandatory", notBoolean, (channel, value) =>
  channel.publish({ routingKey: "q", content: "" }, { mandatory: value })
)
refused("timeout", [0, -1, Number.NaN, Infinity, "soon", "25 days"], (channel, value) =>
  channel.publish({ routingKey: "q", content: "" }, { timeout: value })
)
refused("immediate", [{ immediate: true }], (channel, value) =>
  channel.publish({ routingKey: "q", content: "" }, value)
)
refused("routingKey", names, (channel, value) => channel.publish({ routingKey: value, content: "" }))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("bad input is refused before anything is sent, with the option's name:", () => {
    it.effect(`each of ${refusals.length} mistakes, on one channel that stays usable`, () =>
      Effect.gen(function* () {
        const { queues, url } = yield* TestBroker.TestBroker
        const live = Layer.build(layerOf(url, { pool: { max: 1 } })).pipe(
          Effect.provideService(References.MinimumLogLevel, "Warn")
        )
        const context = yield* live
        yield* Effect.gen(function* () {
          const channel = yield* AmqpPool.get
          for (const [index, { argument, call }] of refusals.entries()) {
            const exit = yield* Effect.result(call(channel))
            if (Result.isSuccess(exit)) assert.fail(`mistake ${index} was accepted: ${argument}, ${call}`)
            const { reason } = exit.failure as AmqpError.AmqpError
            assert.deepInclude(reason, { _tag: "InvalidArgument", argument }, `mistake ${index}`)
          }
          // Had any of it been sent, the broker would have closed the channel, or there would be a queue or a message.
          const { queue } = yield* channel.queueDeclare("", { exclusive: true })
          assert.isTrue(Option.isNone(yield* channel.get(queue)))
          assert.deepStrictEqual(
            (yield* queues).map(({ name }) => name),
            [queue]
          )
        }).pipe(Effect.scoped, Effect.provide(context))
        const stats = yield* Effect.provide(AmqpPool.stats, context)
        assert.deepInclude(stats, { created: 1, discarded: 0 })
      })
    )
  })

  describe("settling", () => {
    it.effect("with options or deliveries that are invalid is refused, and the delivery stays unsettled", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { queue } = yield* channel.queueDeclare("", { exclusive: true })
            yield* channel.publish({ routingKey: queue, content: "" })
            const delivery = Option.getOrThrow(yield* channel.get(queue))
            const mistakes = [
              ["multiple", channel.ack(delivery, { multiple: bad("yes") })],
              ["multiple", channel.nack(delivery, { multiple: bad(1) })],
              ["requeue", channel.nack(delivery, { requeue: bad(null) })],
              ["requeue", channel.reject(delivery, { requeue: bad("no") })],
              ["multiple", channel.reject(delivery, bad({ multiple: true }))]
            ] as const
            for (const [argument, mistake] of mistakes) {
              assert.deepInclude((yield* Effect.flip(mistake)).reason, { _tag: "InvalidArgument", argument })
            }
            for (const none of [undefined, null, 1, {}, { ...delivery }]) {
              assert.strictEqual((yield* Effect.flip(channel.ack(bad(none)))).reason._tag, "DeliverySettled")
            }
            yield* channel.ack(delivery)
          })
        ).pipe(Effect.scoped, Effect.provide(layerOf(url)), Effect.provideService(References.MinimumLogLevel, "Warn"))
      })
    )
  })
})
