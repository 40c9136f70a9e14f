/** How a consumer returns prefetched deliveries that no handler has seen, and hands over to the next consumer. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConsumer } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Latch, Layer, Queue, Ref, Stream } from "effect"
import { TestClock } from "effect/testing"
import { declareQueue, layerOf, logged, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import { until } from "./support/polling.ts"
import { rangeTexts } from "./support/ranges.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

/** The settlements and ends that a broker received, in order. */
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

describe("Prefetched deliveries go back by one basic.nack, before the channel closes.", () => {
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

  plain.live("after the running handlers have settled", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of rangeTexts(5)) broker.enqueue("q", text)
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

  plain.live("together with the deliveries of interrupted handlers", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of rangeTexts(5)) broker.enqueue("q", text)
      yield* Effect.gen(function* () {
        const { ends, fiber } = yield* stopping({ concurrency: 2, shutdownTimeout: 0 })
        yield* Fiber.interrupt(fiber)
        assert.deepInclude(yield* Queue.take(ends), { requeued: 3, unsettled: 0 })
        assert.deepStrictEqual(sent(broker), ["basic.cancel", "nack 5 multiple requeue", "channel.close"])
        yield* broker.until((now) => now.ready("q") === 5)
      }).pipe(withConsumers(broker.url))
    })
  )

  plain.live("without a later acknowledgement that would cover an interrupted handler's delivery", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      for (const text of rangeTexts(3)) broker.enqueue("q", text)
      yield* Effect.gen(function* () {
        // The first handler is interrupted. The others are uninterruptible and succeed.
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

  plain.live(
    "or with the channel's close, if the application still has a delivery, which no basic.nack may cover",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        for (const text of rangeTexts(4)) broker.enqueue("q", text)
        yield* Effect.gen(function* () {
          const ends = yield* Queue.unbounded<AmqpConsumer.End>()
          // The delivery was taken and is neither settled nor returned.
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
      // If another application has declared the queue, the consumers do not know its type.
      const declare = declareQueue({ queueType, singleActiveConsumer: true }, queue)
      yield* isDeclaredHere ? declare : Effect.scoped(Effect.provide(declare, layerOf(url), { local: true }))
      // More messages than the prefetch of both consumers, and a publisher that continues to publish.
      yield* send(queue, ...rangeTexts(700))
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
    it.effect(
      `a single active consumer of a queue that another application has declared hands over too (${queueType})`,
      () => handsOver(queueType, false)
    )
  }
})

describe("A stop that waits for handlers", () => {
  const stopsWith = Effect.fnUntraced(function* (
    shutdownTimeout: AmqpConsumer.ConsumeOptions["shutdownTimeout"],
    finishes: boolean,
    onCancel?: (broker: ScriptedBroker.ScriptedBroker) => Effect.Effect<void>
  ) {
    const broker = yield* ScriptedBroker.make()
    broker.enqueue("q", "one")
    if (onCancel !== undefined) broker.on("basic.cancel", ({ hold }) => hold())
    return yield* logged((lines) =>
      Effect.gen(function* () {
        const started = yield* Latch.make()
        const finish = yield* Latch.make()
        const fiber = yield* Effect.forkScoped(
          AmqpConsumer.consume("q", () => Effect.andThen(started.open, finish.await), { shutdownTimeout })
        )
        yield* started.await
        const stopped = yield* Effect.forkScoped(Fiber.interrupt(fiber))
        if (finishes) {
          yield* broker.received("basic.cancel")
          yield* finish.open
        }
        if (onCancel !== undefined) yield* onCancel(broker)
        yield* Fiber.join(stopped)
        return lines
          .filter(({ text }) => /AMQP consumer (stopping|interrupted)/.test(text))
          .map(({ level, text }) => [level, text.includes('"handlers":1')])
      })
    ).pipe(withConsumers(broker.url))
  })

  plain.live("says after a second that it waits, and then that it has interrupted handlers", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* stopsWith("1100 millis", false), [
        ["Info", true],
        ["Warn", true]
      ])
    })
  )

  plain.effect("says that it has interrupted handlers when the cancel alone takes longer than shutdownTimeout", () =>
    Effect.gen(function* () {
      const warns = yield* stopsWith("20 millis", false, (broker) =>
        Effect.gen(function* () {
          yield* broker.received("basic.cancel")
          yield* TestClock.adjust("50 millis")
          broker.release("basic.cancel")
        })
      )
      assert.deepStrictEqual(warns, [["Warn", true]])
    })
  )

  plain.live("says nothing when handlers finish at once, and when it is not to wait", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* stopsWith("10 seconds", true), [])
      assert.deepStrictEqual(yield* stopsWith(0, false), [])
    })
  )
})
