/** How a consumer gives back what nobody has seen, and hands over to the next one. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConsumer } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Latch, Layer, Queue, Ref, Stream } from "effect"
import { declareQueue, layerOf, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import { until } from "./support/polling.ts"
import { texts } from "./support/numbers.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

/** What settles and ends, in the order in which it was sent. */
const sent = (broker: ScriptedBroker.ScriptedBroker) =>
  broker.log.flatMap((received) => {
    switch (received.method) {
      case "basic.nack": {
        const { deliveryTag, multiple, requeue } = received.args
        return [`nack ${deliveryTag}${multiple ? " multiple" : ""}${requeue ? " requeue" : ""}`]
      }
      case "basic.ack":
        return [`ack ${received.args.deliveryTag}${received.args.multiple ? " multiple" : ""}`]
      case "basic.cancel":
      case "basic.reject":
      case "channel.close":
        return [received.method]
      default:
        return []
    }
  })

describe("What nobody has seen goes back by one basic.nack, before the channel closes.", () => {
  const stopping = Effect.fnUntraced(function* (options: AmqpConsumer.ConsumeOptions) {
    const ends = yield* Queue.unbounded<AmqpConsumer.End>()
    const gate = yield* Latch.make()
    const started = yield* Queue.unbounded<void>()
    const fiber = yield* Effect.forkScoped(
      AmqpConsumer.consume("q", () => Effect.andThen(Queue.offer(started, undefined), gate.await), {
        onEnd: (end) => Queue.offer(ends, end),
        ...options
      })
    )
    for (let i = 0; i < (options.concurrency ?? 1); i++) yield* Queue.take(started)
    return { ends, fiber, gate }
  })

  plain.live("once the handlers have settled", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of texts(5)) broker.enqueue("q", text)
      yield* Effect.gen(function* () {
        const { ends, fiber, gate } = yield* stopping({ concurrency: 2 })
        const stopped = yield* Effect.forkScoped(Fiber.interrupt(fiber))
        yield* broker.received("basic.cancel")
        yield* gate.open
        yield* Fiber.join(stopped)
        assert.deepInclude(yield* Queue.take(ends), { requeued: 3, unsettled: 0 })
        assert.deepStrictEqual(sent(broker), [
          "basic.cancel",
          "ack 2 multiple",
          "nack 5 multiple requeue",
          "channel.close"
        ])
        yield* broker.until((now) => now.ready("q") === 3)
      }).pipe(withConsumers(broker.url))
    })
  )

  plain.live("together with what interrupted handlers give back", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of texts(5)) broker.enqueue("q", text)
      yield* Effect.gen(function* () {
        const { ends, fiber } = yield* stopping({ concurrency: 2, shutdownTimeout: 0 })
        yield* Fiber.interrupt(fiber)
        assert.deepInclude(yield* Queue.take(ends), { requeued: 3, unsettled: 0 })
        assert.deepStrictEqual(sent(broker), ["basic.cancel", "nack 5 multiple requeue", "channel.close"])
        yield* broker.until((now) => now.ready("q") === 5)
      }).pipe(withConsumers(broker.url))
    })
  )

  plain.live("an acknowledgement that follows never covers what an interrupted handler gives back", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of texts(3)) broker.enqueue("q", text)
      yield* Effect.gen(function* () {
        // The first is interrupted, the others cannot be and succeed.
        const ends = yield* Queue.unbounded<AmqpConsumer.End>()
        const started = yield* Queue.unbounded<void>()
        const gate = yield* Latch.make()
        const count = yield* Ref.make(0)
        const fiber = yield* Effect.forkScoped(
          AmqpConsumer.consume(
            "q",
            (delivery) =>
              Effect.gen(function* () {
                const nth = yield* Ref.updateAndGet(count, (n) => n + 1)
                yield* Queue.offer(started, undefined)
                yield* nth === 1
                  ? Effect.onInterrupt(Effect.never, () => gate.open)
                  : Effect.uninterruptible(Effect.andThen(gate.await, delivery.ack))
              }),
            { concurrency: 3, shutdownTimeout: 0, onEnd: (end) => Queue.offer(ends, end) }
          )
        )
        for (let i = 0; i < 3; i++) yield* Queue.take(started)
        yield* Fiber.interrupt(fiber)
        assert.deepInclude(yield* Queue.take(ends), { requeued: 0, unsettled: 0 })
        yield* broker.until((now) => now.ready("q") === 1)
        assert.notInclude(sent(broker).join(), "ack 3 multiple")
      }).pipe(withConsumers(broker.url))
    })
  )

  plain.live("or with the channel, if a delivery is still in hand: no basic.nack ever covers that", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of texts(4)) broker.enqueue("q", text)
      yield* Effect.gen(function* () {
        const ends = yield* Queue.unbounded<AmqpConsumer.End>()
        // Taken, and neither settled nor given up.
        yield* AmqpConsumer.stream("q", { onEnd: (end) => Queue.offer(ends, end) }).pipe(
          Stream.take(1),
          Stream.runDrain
        )
        assert.deepInclude(yield* Queue.take(ends), { requeued: 3, unsettled: 1 })
        assert.deepStrictEqual(sent(broker), ["basic.cancel", "channel.close"])
        yield* broker.until((now) => now.ready("q") === 4)
      }).pipe(withConsumers(broker.url))
    })
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  const handsOver = (queueType: "classic" | "quorum", isDeclaredHere: boolean) =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const queue = `active-${queueType}-${isDeclaredHere}`
      // Not known to the consumers when another application has declared it.
      const declare = declareQueue({ queueType, singleActiveConsumer: true }, queue)
      yield* isDeclaredHere ? declare : Effect.scoped(Effect.provide(declare, layerOf(url), { local: true }))
      // More than the prefetch of both, and somebody who goes on publishing.
      yield* send(queue, ...texts(700))
      const publisher = yield* Effect.forkScoped(
        Effect.forever(Effect.andThen(send(queue, "more"), Effect.sleep("2 millis")))
      )
      const scope = yield* Effect.scope
      let ended = 0
      const start = (seen: Latch.Latch) =>
        Layer.buildWithScope(layerOf(url), scope).pipe(
          Effect.flatMap((context) =>
            Effect.forkScoped(
              Effect.provide(
                AmqpConsumer.consume(queue, () => Effect.andThen(seen.open, Effect.sleep("20 millis")), {
                  onEnd: ({ reason }) => Effect.sync(() => (reason === undefined ? 0 : ended++)),
                  shutdownTimeout: "200 millis"
                }),
                context
              )
            )
          )
        )
      let active = yield* Latch.make()
      let first = yield* start(active)
      for (let round = 0; round < 4; round++) {
        yield* active.await
        yield* untilQueue(queue, { unacked: 250 })
        const standby = yield* Latch.make()
        const second = yield* start(standby)
        yield* untilQueue(queue, { consumers: 2 })
        yield* Fiber.interrupt(first)
        yield* until(Effect.succeed(standby), () => standby.isOpen(), "the standby")
        first = second
        active = standby
      }
      yield* Fiber.interrupt(publisher)
      assert.strictEqual(ended, 0)
    }).pipe(onBroker)

  for (const queueType of ["classic", "quorum"] as const) {
    it.effect(`a single active consumer that stops hands over to its standby (${queueType})`, () =>
      handsOver(queueType, true)
    )
    it.effect(`so does one whose queue another application has declared (${queueType})`, () =>
      handsOver(queueType, false)
    )
  }
})
