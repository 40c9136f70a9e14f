/** How consumers end and how they continue: lost channels and connections, deleted queues, silent brokers. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { AmqpConnection, AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Latch, Queue, Random, References, Stream, SubscriptionRef } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { closedByRefusals, tagOf } from "./support/amqp.ts"
import { declareQueue, deleteQueue, logged, onBroker, send, untilQueue, withConsumers } from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const counting = Effect.map(Queue.unbounded<string>(), (got) => ({
  got,
  handler: (delivery: AmqpConsumer.Delivery) => Queue.offer(got, AmqpMessage.text(delivery))
}))

const promise15 =
  "15. A consumer's end is explicit: a server cancel or a lost channel is an error with its reason or a resubscription, never silence."

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe(promise15, () => {
    it.effect("a deleted queue ends handlers and streams with ConsumerCancelled", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { handler } = yield* counting
        const fibers = yield* Effect.forEach(
          [
            AmqpConsumer.consume(queue, handler),
            AmqpConsumer.consumeBatch(queue, () => Effect.void, { size: 2, within: 10 }),
            Stream.runDrain(AmqpConsumer.stream(queue)),
            Stream.runDrain(AmqpConsumer.stream(queue, { resubscribe: "lost" }))
          ],
          (consumer) => Effect.forkScoped(Effect.flip(consumer))
        )
        yield* untilQueue(queue, { consumers: 4 })
        yield* deleteQueue(queue)
        for (const fiber of fibers) {
          const { message, reason } = yield* Fiber.join(fiber)
          assert.deepInclude(reason, { _tag: "ConsumerCancelled", queue })
          assert.include(message, queue)
        }
      }).pipe(onBroker)
    )

    it.effect("a deleted queue is waited for with resubscribe: always, and consumed again", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const { got, handler } = yield* counting
        yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler, { resubscribe: "always" }))
        for (let round = 0; round < 3; round++) {
          yield* untilQueue(queue, { consumers: 1 })
          yield* send(queue, `round ${round}`)
          assert.strictEqual(yield* Queue.take(got), `round ${round}`)
          yield* deleteQueue(queue)
          yield* declareQueue({}, queue)
        }
      }).pipe(onBroker)
    )

    it.effect("a handler that was running when the broker cancelled can still settle", () =>
      Effect.gen(function* () {
        const queue = yield* declareQueue()
        const settled = yield* Queue.unbounded<boolean>()
        const gate = yield* Latch.make()
        const started = yield* Latch.make()
        yield* Effect.forkScoped(
          AmqpConsumer.consume(
            queue,
            (delivery) =>
              Effect.gen(function* () {
                yield* started.open
                yield* gate.await
                yield* delivery.ack
                yield* Queue.offer(settled, delivery.isSettled)
              }),
            { resubscribe: "always", concurrency: 2 }
          )
        )
        const broker = yield* TestBroker.TestBroker
        yield* send(queue, "old")
        yield* started.await
        const { channels } = yield* broker.census
        yield* deleteQueue(queue)
        yield* declareQueue({}, queue)
        yield* untilQueue(queue, { consumers: 1 })
        yield* gate.open
        yield* send(queue, "new")
        assert.deepStrictEqual(yield* Queue.takeN(settled, 2), [true, true])
        // The first subscription's channel is closed when no delivery on it is left to settle.
        yield* send(queue, "newer")
        yield* Queue.take(settled)
        yield* broker.awaitCensus({ unacked: 0, consumers: 1, channels })
      }).pipe(onBroker)
    )

    it.effect("a lost connection ends a stream with its reason", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const queue = yield* declareQueue()
        const fiber = yield* Effect.forkScoped(tagOf(Stream.runDrain(AmqpConsumer.stream(queue))))
        yield* untilQueue(queue, { consumers: 1 })
        yield* broker.closeConnections()
        assert.strictEqual(yield* Fiber.join(fiber), "ConnectionClosed")
      }).pipe(onBroker)
    )

    it.effect(
      "handlers get deliveries again after a lost connection, on the next one, with all that they declared",
      () =>
        logged((lines) =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const queue = "exclusive-of-consumers"
            const { got, handler } = yield* counting
            yield* Effect.forkScoped(
              AmqpConsumer.consume(queue, handler, {
                exclusive: true,
                declare: (channel) => Effect.asVoid(channel.queueDeclare(queue, { exclusive: true }))
              })
            )
            for (let round = 0; round < 3; round++) {
              yield* untilQueue(queue, { consumers: 1 })
              yield* Effect.retry(send(queue, `round ${round}`), { while: (error) => error.isRetryable })
              assert.strictEqual(yield* Queue.take(got), `round ${round}`)
              yield* broker.killConnections
              // The queue is deleted with the connection: the next one is another queue.
              yield* broker.queues.pipe(
                Effect.repeat({ until: (queues) => queues.every(({ name }) => name !== queue), schedule: undefined }),
                Effect.timeoutOption("1 second")
              )
            }
            yield* untilQueue(queue, { consumers: 1 })
            // The connection logs each loss as a warning, so that of a consumer is a line for debugging.
            const losses = lines.filter(({ text }) => text.startsWith("AMQP consumer interrupted"))
            assert.lengthOf(losses, 3)
            for (const { text } of losses) assert.include(text, queue)
          }).pipe(Effect.provideService(References.MinimumLogLevel, "Debug"))
        ).pipe(onBroker)
    )

    it.effect("a missing queue fails the consumer at once, unless resubscribe says to wait for it", () =>
      Effect.gen(function* () {
        const { got, handler } = yield* counting
        assert.strictEqual(yield* tagOf(AmqpConsumer.consume("missing", handler)), "NotFound")
        assert.strictEqual(yield* tagOf(Stream.runDrain(AmqpConsumer.stream("missing"))), "NotFound")
        yield* Effect.forkScoped(AmqpConsumer.consume("missing", handler, { resubscribe: "always" }))
        yield* declareQueue({}, "missing")
        yield* send("missing", "a")
        assert.strictEqual(yield* Queue.take(got), "a")
      }).pipe(onBroker)
    )

    it.effect(
      "every message is handled at least once while connections are cut again and again, and nothing is left",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const proxy = yield* FaultProxy.make(broker.url)
          const count = 2000
          const seen = new Set<string>()
          const all = yield* Deferred.make<void>()
          // The messages are published on another connection, which is not cut.
          const queue = yield* Effect.gen(function* () {
            const queue = yield* declareQueue()
            yield* send(queue, ...Array.from({ length: count }, (_, i) => String(i)))
            return queue
          }).pipe(withConsumers(broker.url))
          yield* Effect.gen(function* () {
            yield* Effect.forkScoped(
              AmqpConsumer.consume(
                queue,
                (delivery) =>
                  Effect.gen(function* () {
                    yield* Effect.yieldNow
                    seen.add(AmqpMessage.text(delivery))
                    if (seen.size === count) yield* Deferred.succeed(all, undefined)
                  }),
                { concurrency: 10, prefetch: 50 }
              )
            )
            for (const part of [0.1, 0.3, 0.5, 0.7]) {
              yield* Effect.repeat(Effect.sleep(1), { until: () => seen.size > part * count })
              proxy.rst()
            }
            yield* Deferred.await(all)
            yield* untilQueue(queue, { messages: 0, unacked: 0, consumers: 1 })
          }).pipe(withConsumers(proxy.through(broker.url)))
          yield* proxy.linksClosed
          yield* broker.awaitCensus({ connections: 0, channels: 0, consumers: 0, unacked: 0 })
        })
    )

    it.effect("a network that becomes silent is noticed by the heartbeat", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const proxy = yield* FaultProxy.make(broker.url)
        yield* Effect.gen(function* () {
          const queue = yield* declareQueue()
          const { got, handler } = yield* counting
          yield* Effect.forkScoped(AmqpConsumer.consume(queue, handler))
          const ending = yield* Effect.forkScoped(tagOf(Stream.runDrain(AmqpConsumer.stream(queue))))
          yield* untilQueue(queue, { consumers: 2 })
          proxy.stall()
          assert.strictEqual(yield* Fiber.join(ending), "ConnectionClosed")
          proxy.heal()
          yield* Effect.retry(send(queue, "a"), { while: (error) => error.isRetryable })
          assert.strictEqual(yield* Queue.take(got), "a")
        }).pipe(
          withConsumers(proxy.through(broker.url), {
            heartbeat: Duration.seconds(1),
            closeTimeout: Duration.millis(200)
          })
        )
      })
    )
  })
})

describe(promise15, () => {
  plain.live("a channel that the broker closes ends a stream with the broker's reason, and handlers continue", () =>
    onScriptedBroker({}, function* (broker) {
      const { got, handler } = yield* counting
      yield* Effect.forkScoped(AmqpConsumer.consume("q", handler))
      const ending = yield* Effect.forkScoped(tagOf(Stream.runDrain(AmqpConsumer.stream("other"))))
      yield* broker.received("basic.consume", 2)
      yield* broker.until(({ openChannels }) => openChannels === 2)
      broker.closeChannels(406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out")
      assert.strictEqual(yield* Fiber.join(ending), "PreconditionFailed")
      yield* broker.received("basic.consume", 3)
      broker.enqueue("q", "a")
      assert.strictEqual(yield* Queue.take(got), "a")
    })
  )

  plain.live("resubscribing is never a busy loop", () =>
    onScriptedBroker(
      {
        broker: {
          on: {
            "basic.consume": (consume) => {
              consume.proceed()
              consume.closeChannel(541, "INTERNAL_ERROR - scripted")
            }
          }
        }
      },
      function* (broker) {
        const { handler } = yield* counting
        // The longest possible delays.
        const random = { nextDoubleUnsafe: () => 1, nextIntUnsafe: () => 1 }
        yield* Effect.forkScoped(AmqpConsumer.consume("q", handler).pipe(Effect.provideService(Random.Random, random)))
        yield* broker.received("basic.consume")
        const [time] = yield* Effect.timed(broker.received("basic.consume", 4))
        // The delays are 100, 200 and 400 ms.
        assert.isAtLeast(Duration.toMillis(time), 650)
      }
    )
  )

  plain.live("a connection that is closed for good ends all consumers with its reason", () =>
    onScriptedBroker(closedByRefusals, function* (broker) {
      const { handler } = yield* counting
      const fibers = yield* Effect.forEach(["a", "b"], (queue) =>
        Effect.forkScoped(tagOf(AmqpConsumer.consume(queue, handler, { resubscribe: "always" })))
      )
      yield* broker.received("basic.consume", 2)
      broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
      broker.destroy()
      for (const fiber of fibers) assert.strictEqual(yield* Fiber.join(fiber), "AuthenticationFailed")
      // The next consumer does not get that connection.
      broker.off("connection.start-ok")
      yield* Effect.forkScoped(AmqpConsumer.consume("c", handler))
      yield* broker.received("basic.consume", 3)
    })
  )

  plain.live("a consumer whose layer has ended fails, and is not only interrupted", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const { handler } = yield* counting
      const { consumer, running } = yield* Effect.gen(function* () {
        const consumer = yield* AmqpConsumer.AmqpConsumer
        const running = yield* Effect.forkDetach(tagOf(AmqpConsumer.consume("q", handler)))
        yield* broker.received("basic.consume")
        return { consumer, running }
      }).pipe(withConsumers(broker.url))
      assert.strictEqual(yield* Fiber.join(running), "ConnectionClosed")
      const later = AmqpConsumer.consume("q", handler).pipe(
        Effect.provideService(AmqpConsumer.AmqpConsumer, consumer),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
      assert.strictEqual(yield* tagOf(later), "ConnectionClosed")
    })
  )

  plain.live("a consumer that cannot connect waits for the broker; one that never resubscribes fails at once", () =>
    onScriptedBroker({}, function* (broker) {
      const { handler } = yield* counting
      yield* broker.down
      const waiting = yield* Effect.forkChild(AmqpConsumer.consume("q", handler))
      const never = AmqpConsumer.consume("q", handler, { resubscribe: "never" })
      assert.strictEqual(yield* tagOf(never), "ConnectFailed")
      assert.strictEqual(yield* tagOf(Stream.runDrain(AmqpConsumer.stream("q"))), "ConnectFailed")
      yield* broker.up
      yield* broker.received("basic.consume")
      yield* Fiber.interrupt(waiting)
    })
  )

  plain.live("a consumer that is refused at its first connect fails with the refusal", () =>
    onScriptedBroker(closedByRefusals, function* (broker) {
      const { handler } = yield* counting
      broker.on("connection.start-ok", ScriptedBroker.refuseLogin)
      assert.strictEqual(yield* tagOf(AmqpConsumer.consume("q", handler)), "AuthenticationFailed")
    })
  )
})

describe("Starting and stopping are bounded, and leave no channel behind.", () => {
  const steps = ["channel.open", "basic.qos", "basic.consume"] as const

  for (const step of steps) {
    plain.live(`a start without an answer to ${step} fails in time`, () =>
      onScriptedBroker(
        {
          broker: { on: { [step]: () => {} }, protocolErrors: "record" },
          continuationTimeout: Duration.millis(50),
          closeTimeout: Duration.millis(200)
        },
        function* (broker) {
          const { handler } = yield* counting
          const consume = AmqpConsumer.consume("q", handler, { resubscribe: "never" })
          assert.strictEqual(yield* tagOf(consume), "ReplyTimeout")
          assert.strictEqual(yield* tagOf(Stream.runDrain(AmqpConsumer.stream("q"))), "ReplyTimeout")
          yield* broker.until(({ openChannels }) => openChannels === 0)
        }
      )
    )

    plain.live(`a start that is interrupted before the answer to ${step} closes its channel`, () =>
      onScriptedBroker(
        {
          broker: {
            on: { [step]: (context: { readonly hold: () => void }) => context.hold() },
            protocolErrors: "record"
          },
          closeTimeout: Duration.millis(200)
        },
        function* (broker) {
          const { handler } = yield* counting
          for (const consumer of [AmqpConsumer.consume("q", handler), Stream.runDrain(AmqpConsumer.stream("q"))]) {
            const nth = broker.count(step) + 1
            const fiber = yield* Effect.forkScoped(consumer)
            yield* broker.received(step, nth)
            yield* Fiber.interrupt(fiber)
            broker.release(step)
            yield* broker.received("channel.close", nth)
          }
          yield* broker.until(({ openChannels }) => openChannels === 0)
        }
      )
    )
  }

  plain.live("a broker that answers neither cancel nor close delays the end by at most closeTimeout each", () =>
    onScriptedBroker(
      { broker: { on: { "basic.cancel": () => {}, "channel.close": () => {} } }, closeTimeout: Duration.millis(100) },
      function* (broker) {
        const ends = yield* Queue.unbounded<AmqpConsumer.End>()
        const onEnd = (end: AmqpConsumer.End) => Queue.offer(ends, end)
        const { got, handler } = yield* counting
        broker.enqueue("q", "a")
        const consumer = yield* Effect.forkScoped(AmqpConsumer.consume("q", handler, { onEnd }))
        yield* Queue.take(got)
        const [time] = yield* Effect.timed(Fiber.interrupt(consumer))
        assert.isBelow(Duration.toMillis(time), 2000)
        broker.enqueue("other", "a")
        broker.enqueue("other", "b")
        yield* AmqpConsumer.stream("other", { onEnd }).pipe(
          Stream.take(1),
          Stream.runDrain,
          Effect.timeoutOrElse({ duration: "2 seconds", orElse: () => Effect.die("it took too long") })
        )
        assert.strictEqual((yield* Queue.take(ends)).queue, "q")
        assert.deepInclude(yield* Queue.take(ends), { queue: "other", requeued: 1, unsettled: 1 })
      }
    )
  )

  plain.live("an onEnd that never completes, or dies, does not delay the end, and is logged", () =>
    onScriptedBroker({}, function* (broker) {
      yield* logged((lines) =>
        Effect.gen(function* () {
          for (const onEnd of [() => Effect.never, () => Effect.die("broken")]) {
            const { handler } = yield* counting
            const nth = broker.count("basic.consume") + 1
            const fiber = yield* Effect.forkScoped(AmqpConsumer.consume("q", handler, { onEnd, shutdownTimeout: 50 }))
            yield* broker.received("basic.consume", nth)
            yield* Fiber.interrupt(fiber)
          }
          yield* broker.until(({ openChannels }) => openChannels === 0)
          const [late, broken, ...others] = lines.filter(({ text }) => text.includes("onEnd"))
          assert.lengthOf(others, 0)
          assert.strictEqual(late?.level, "Warn")
          assert.match(late?.text ?? "", /its onEnd was interrupted by its timeout .*"queue":"q".*"timeout":"\d+/)
          assert.strictEqual(broken?.level, "Error")
          assert.include(broken?.text, "its onEnd failed")
        })
      )
    })
  )

  plain.live("deliveries that arrive while the cancel is under way are returned and counted", () =>
    onScriptedBroker({}, function* (broker) {
      const ends = yield* Queue.unbounded<AmqpConsumer.End>()
      broker.on("basic.cancel", (cancel) => {
        broker.enqueue("q", "late 1")
        broker.enqueue("q", "late 2")
        cancel.proceed()
      })
      const { got, handler } = yield* counting
      const fiber = yield* Effect.forkScoped(
        AmqpConsumer.consume("q", handler, { onEnd: (end) => Queue.offer(ends, end) })
      )
      broker.enqueue("q", "a")
      yield* Queue.take(got)
      yield* broker.received("basic.ack")
      yield* Fiber.interrupt(fiber)
      assert.deepInclude(yield* Queue.take(ends), { requeued: 2, unsettled: 0 })
      assert.strictEqual(yield* Queue.size(got), 0)
      yield* broker.until((now) => now.ready("q") === 2)
    })
  )
})

describe("13. Blocked publishers wait or fail as configured; consumers go on consuming and acking.", () => {
  plain.live("deliveries are handled and acknowledged while the broker blocks publishers", () =>
    onScriptedBroker({}, function* (broker) {
      const { flow } = yield* AmqpConnection.AmqpConnection
      const { got, handler } = yield* counting
      yield* Effect.forkScoped(AmqpConsumer.consume("q", handler))
      yield* broker.received("basic.consume")
      broker.block()
      yield* until(SubscriptionRef.get(flow), ({ _tag }) => _tag === "Blocked", "the flow")
      broker.enqueue("q", "a")
      assert.strictEqual(yield* Queue.take(got), "a")
      yield* broker.received("basic.ack")
    })
  )
})

describe("8. A consumer's channel is its own: fresh when it starts, closed when it ends, never lent.", () => {
  plain.live("each consumer opens one, sets its prefetch, and closes it; none of them is a pool's", () =>
    onScriptedBroker({ connectionName: "shop" }, function* (broker) {
      const { got, handler } = yield* counting
      for (let round = 1; round <= 3; round++) {
        const fiber = yield* Effect.forkScoped(AmqpConsumer.consume("q", handler, { prefetch: round }))
        broker.enqueue("q", "it has begun")
        yield* Queue.take(got)
        assert.strictEqual(broker.openChannels, 1)
        assert.strictEqual((yield* broker.received("basic.qos", round)).args.prefetchCount, round)
        yield* Fiber.interrupt(fiber)
        yield* broker.until(({ openChannels }) => openChannels === 0)
      }
      const expected = ["channel.open", "basic.qos", "basic.consume", "basic.ack", "basic.cancel", "channel.close"]
      assert.deepStrictEqual(
        broker.log.filter(({ channel }) => channel > 0).map(({ method }) => method),
        [...expected, ...expected, ...expected]
      )
      // One connection for the publishers, and one for the consumers.
      assert.strictEqual(broker.count("accept"), 2)
      const names = broker.log.flatMap((received) =>
        received.method === "connection.start-ok" ? [received.args.clientProperties["connection_name"]] : []
      )
      assert.deepStrictEqual(names, ["shop", "shop consumers"])
    })
  )
})
