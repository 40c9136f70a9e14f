/** Back-pressure and flow control, as Pika has them. Rows of `docs/pika.md` name these tests. */
import { assert, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, AmqpConsumer, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Queue, Stream, SubscriptionRef } from "effect"
import * as FaultProxy from "../support/FaultProxy.ts"
import { untilFlow } from "../support/publisher.ts"
import * as ScriptedBroker from "../support/ScriptedBroker.ts"
import { connected, connectedTo, contents, fill, newQueue, ownQueue, reasonOf } from "./broker.ts"

/** Blocks publishers while an effect runs. The broker reports an alarm to connections that publish. */
const whileBlocked = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const { blockPublishers, unblockPublishers } = yield* TestBroker.TestBroker
    const { flow } = yield* AmqpConnection.AmqpConnection
    const queue = yield* ownQueue
    return yield* Effect.acquireUseRelease(
      blockPublishers,
      () =>
        Effect.gen(function* () {
          yield* Effect.scoped(AmqpChannel.use((channel) => channel.publish({ routingKey: queue, content: "first" })))
          yield* SubscriptionRef.changes(flow).pipe(
            Stream.filter(({ _tag }) => _tag === "Blocked"),
            Stream.runHead
          )
          return yield* effect
        }),
      () => Effect.orDie(unblockPublishers)
    )
  })

const publisherFlow = Effect.map(AmqpPublisher.AmqpPublisher, ({ flow }) => flow)

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("a publisher waits while the broker accepts nothing, and continues when it does", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const waiting = yield* whileBlocked(
        Effect.gen(function* () {
          const publishing = AmqpPublisher.publish({ routingKey: queue, content: "waited" }, { onBlocked: "wait" })
          const fiber = yield* Effect.forkScoped(publishing, { startImmediately: true })
          const { stats } = yield* AmqpPublisher.AmqpPublisher
          yield* Effect.repeat(stats, { until: ({ waiting }) => waiting === 1 })
          return fiber
        })
      )
      yield* Fiber.join(waiting)
      assert.deepStrictEqual(yield* contents(queue), ["waited"])
    }).pipe(connected())
  )

  it.effect("with onBlocked: fail it fails with PublishForbidden, and nothing was sent", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      yield* whileBlocked(
        Effect.gen(function* () {
          const failing = AmqpPublisher.publish({ routingKey: queue, content: "" }, { onBlocked: "fail" })
          assert.strictEqual((yield* reasonOf(failing))._tag, "PublishForbidden")
        })
      )
      assert.deepStrictEqual(yield* contents(queue), [])
    }).pipe(connected())
  )

  it.effect("a publisher that has waited for its timeout fails with PublishTimeout, and nothing was sent", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      yield* whileBlocked(
        Effect.gen(function* () {
          const publishing = AmqpPublisher.publish({ routingKey: queue, content: "" }, { timeout: "50 millis" })
          assert.deepInclude(yield* reasonOf(publishing), { _tag: "PublishTimeout", sent: false })
        })
      )
      assert.deepStrictEqual(yield* contents(queue), [])
    }).pipe(connected())
  )

  it.effect("the flow is a state, with its changes as a stream: blocked and flowing again", () =>
    Effect.gen(function* () {
      const flow = yield* publisherFlow
      const states = yield* Queue.unbounded<string>()
      yield* Effect.forkScoped(
        Stream.runForEach(SubscriptionRef.changes(flow), ({ _tag }) => Queue.offer(states, _tag))
      )
      yield* whileBlocked(untilFlow("Blocked"))
      yield* untilFlow("Flowing")
      assert.deepStrictEqual(yield* Queue.takeN(states, 3), ["Flowing", "Blocked", "Flowing"])
    }).pipe(connected())
  )

  it.effect("the connection reports that it is blocked, why, and when the block ends", () =>
    Effect.gen(function* () {
      const { flow } = yield* AmqpConnection.AmqpConnection
      yield* whileBlocked(
        Effect.gen(function* () {
          const now = yield* SubscriptionRef.get(flow)
          assert.isTrue(now._tag === "Blocked" && now.reason.includes("memory"))
        })
      )
      yield* SubscriptionRef.changes(flow).pipe(
        Stream.filter(({ _tag }) => _tag === "Flowing"),
        Stream.runHead
      )
    }).pipe(connected())
  )

  it.effect("consumers continue while publishers are blocked: they have their own connection", () =>
    Effect.gen(function* () {
      const queue = yield* newQueue()
      yield* fill(queue, "a", "b")
      yield* whileBlocked(
        AmqpConsumer.stream(queue).pipe(
          Stream.tap((delivery) => delivery.ack),
          Stream.take(2),
          Stream.runDrain
        )
      )
      assert.deepStrictEqual(yield* contents(queue), [])
    }).pipe(connected())
  )

  it.effect("a connection that stays blocked for longer than blockedConnectionTimeout is replaced", () =>
    Effect.gen(function* () {
      const { state } = yield* AmqpConnection.AmqpConnection
      const lost = yield* SubscriptionRef.changes(state).pipe(
        Stream.filter((now) => now._tag === "Reconnecting"),
        Stream.take(1),
        Stream.runCollect,
        Effect.forkChild({ startImmediately: true })
      )
      yield* whileBlocked(
        Effect.gen(function* () {
          const [reconnecting] = yield* Fiber.join(lost)
          assert.strictEqual(reconnecting!.reason._tag, "ConnectionClosed")
          assert.include(reconnecting!.reason.message, "blockedConnectionTimeout")
        })
      )
    }).pipe(connected({ blockedConnectionTimeout: "100 millis" }))
  )

  it.effect("channel.flow: a stopped channel makes its publisher wait, or fail with PublishForbidden", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const message = { routingKey: "q", content: "" }
      yield* Effect.gen(function* () {
        yield* AmqpPublisher.publish(message)
        const sent = broker.count("basic.publish")
        broker.flow(false)
        yield* untilFlow("Stopped")
        const waiting = yield* Effect.forkChild(AmqpPublisher.publish(message), { startImmediately: true })
        const reason = yield* reasonOf(AmqpPublisher.publish(message, { onBlocked: "fail" }))
        assert.strictEqual(reason._tag, "PublishForbidden")
        assert.strictEqual(broker.count("basic.publish"), sent)
        broker.flow(true)
        yield* Fiber.join(waiting)
        yield* untilFlow("Flowing")
      }).pipe(connectedTo(broker.url))
    })
  )

  it.effect("TCP back-pressure: publishers wait for the socket, and the flow is Buffering", () =>
    Effect.gen(function* () {
      const { proxy, url } = yield* FaultProxy.proxied
      yield* Effect.gen(function* () {
        const queue = yield* ownQueue
        const content = new Uint8Array(1_000_000)
        yield* AmqpPublisher.publish({ routingKey: queue, content: "one" })
        proxy.stall("up")
        const publishing = yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: 40 }), () => AmqpPublisher.publish({ routingKey: queue, content }), {
            concurrency: "unbounded"
          })
        )
        yield* untilFlow("Buffering")
        const { stats } = yield* AmqpPublisher.AmqpPublisher
        assert.deepInclude(yield* stats, { confirmed: 1 })
        proxy.heal()
        assert.lengthOf(yield* Fiber.join(publishing), 40)
        yield* untilFlow("Flowing")
      }).pipe(connectedTo(url, { writeBufferSize: 65_536, publishTimeout: "20 seconds" }))
    })
  )
})
