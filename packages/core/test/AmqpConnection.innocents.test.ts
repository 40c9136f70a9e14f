/**
 * A connection error is a lost connection for everybody who did not cause it. The broker that is scripted says at which
 * moment a connection ends, and for whose method; the real ones say how they put it.
 */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConsumer, AmqpError, AmqpMessage, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Queue, Schema, Stream } from "effect"
import { onScriptedBroker, onTestBroker } from "./support/client.ts"
import { configOf, type Overrides, quietly, reasonOf } from "./support/amqp.ts"
import type * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { major } from "./support/versions.ts"

const withAmqp = (url: string, overrides: Overrides = {}) => {
  const layer = Amqp.fromConfig(configOf(url, overrides))
  return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    quietly(Effect.scoped(Effect.provide(effect, layer, { local: true })))
}

const Echo = AmqpRpc.make("echo", { payload: Schema.String, success: Schema.String })

/** Codes that end a connection, as the broker's words for some mistake of another. */
const codes: Record<number, string> = {
  501: "FRAME_ERROR - scripted",
  503: "COMMAND_INVALID - unknown exchange type 'x-delayed-message'",
  504: "CHANNEL_ERROR - scripted",
  530: "NOT_ALLOWED - scripted",
  540: "NOT_IMPLEMENTED - basic.get not supported by stream queues queue 'other' in vhost '/'",
  541: "INTERNAL_ERROR"
}

const consumers: Record<
  string,
  (ended: (reason: unknown) => void) => Effect.Effect<unknown, AmqpError.AmqpError, Amqp.Amqp>
> = {
  "a consumer": (ended) =>
    AmqpConsumer.consume("q", () => Effect.void, { onEnd: (end) => Effect.sync(() => ended(end)) }),
  "a consumer that subscribes always": (ended) =>
    AmqpConsumer.consume("q", () => Effect.void, {
      resubscribe: "always",
      onEnd: (end) => Effect.sync(() => ended(end))
    }),
  "a consumer with `declare`": (ended) =>
    AmqpConsumer.consume("q", () => Effect.void, {
      declare: (channel) => Effect.andThen(channel.exchangeDeclare("x", "direct"), channel.queueBind("q", "x", "key")),
      onEnd: (end) => Effect.sync(() => ended(end))
    }),
  "a batch consumer": (ended) =>
    AmqpConsumer.consumeBatch("q", () => Effect.void, {
      size: 2,
      within: 10,
      onEnd: (end) => Effect.sync(() => ended(end))
    }),
  "a stream that subscribes again": (ended) =>
    Stream.runDrain(AmqpConsumer.stream("q", { resubscribe: "lost", onEnd: (end) => Effect.sync(() => ended(end)) })),
  "an RPC server": (ended) => AmqpRpc.serve(Echo, Effect.succeed, { onEnd: (end) => Effect.sync(() => ended(end)) })
}

/** Where a consumer is while its connection ends: the method that is not answered then. */
const steps = ["channel.open", "exchange.declare", "queue.bind", "basic.qos", "basic.consume"] as const

describe("a connection that ends for another's mistake is a lost connection", () => {
  for (const [code, text] of Object.entries(codes)) {
    for (const [name, consume] of Object.entries(consumers)) {
      plain.live(`${code}: for ${name}, at each step of its start and afterwards`, () =>
        onScriptedBroker(
          {
            reconnect: {
              minDelay: Duration.millis(1),
              maxDelay: Duration.millis(2),
              healthyAfter: Duration.seconds(1),
              schedule: undefined,
              onRefused: "retry"
            }
          },
          function* (broker) {
            const ends: Array<unknown> = []
            const reached = name.includes("declare") ? steps : (["channel.open", "basic.qos", "basic.consume"] as const)
            for (const step of reached) {
              broker.once(step, () => broker.closeConnections(Number(code), text))
            }
            const running = yield* Effect.forkScoped(consume((end) => ends.push(end)))
            for (const step of reached) yield* broker.received(step, 2)
            yield* broker.received("basic.consume", 2)
            yield* Effect.yieldNow
            broker.closeConnections(Number(code), text)
            yield* broker.received("basic.consume", 3)
            assert.deepStrictEqual(ends, [])
            assert.isUndefined(running.pollUnsafe())
          }
        )
      )
    }

    plain.live(`${code}: for borrowers, who are told to try again, and succeed`, () =>
      onScriptedBroker({}, function* (broker) {
        broker.once("queue.declare", () => broker.closeConnections(Number(code), text))
        const declare = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("q")))
        const reason = yield* reasonOf(declare)
        assert.deepInclude(reason, { _tag: "ConnectionClosed", isRetryable: true, replyCode: Number(code) })
        assert.include(reason.message, text)
        broker.once("queue.declare", () => broker.closeConnections(Number(code), text))
        yield* Effect.retry(declare, { times: 1, while: (error) => error.isRetryable })
      })
    )

    plain.live(`${code}: for publishers, whose message is unknown, and the next is confirmed`, () =>
      onScriptedBroker({}, function* (broker) {
        broker.once("basic.publish", () => broker.closeConnections(Number(code), text))
        const reason = yield* reasonOf(AmqpPublisher.publish({ routingKey: "q", content: "1" }))
        assert.deepInclude(reason, { _tag: "PublishUnknown", isRetryable: true })
        yield* AmqpPublisher.publish({ routingKey: "q", content: "2" })
        for (const step of ["channel.open", "confirm.select"] as const) {
          broker.closeConnections(320)
          broker.once(step, () => broker.closeConnections(Number(code), text))
          yield* broker.until((now) => now.connections === 0)
          yield* AmqpPublisher.publish({ routingKey: "q", content: "3" })
        }
      })
    )
  }
})

describe("only what a party itself has sent is its failure", () => {
  plain.live(
    "a method that the close names, and no other has sent, fails with the broker's reason; all others may try again",
    () =>
      onScriptedBroker({}, function* (broker) {
        broker.on("queue.bind", () => {})
        broker.on("queue.declare", () => {})
        broker.once("exchange.declare", (declare) => declare.closeConnection(503, codes[503]))
        const others = yield* Effect.forEach(
          [
            AmqpChannel.use((channel) => channel.queueDeclare("q")),
            AmqpChannel.use((channel) => channel.queueBind("q", "x", "y"))
          ],
          (effect) => Effect.forkScoped(reasonOf(Effect.scoped(effect)))
        )
        yield* broker.received("queue.bind")
        yield* broker.received("queue.declare")
        const own = yield* reasonOf(
          Effect.scoped(AmqpChannel.use((channel) => channel.exchangeDeclare("x", "x-delayed-message")))
        )
        assert.deepInclude(own, {
          _tag: "ProtocolError",
          operation: "exchange.declare",
          replyCode: 503,
          isRetryable: false
        })
        for (const other of others) {
          assert.deepInclude(yield* Fiber.join(other), {
            _tag: "ConnectionClosed",
            isRetryable: true,
            replyCode: 503
          })
        }
      })
  )

  plain.live("of several that have sent such a method, the names in the text tell which", () =>
    onScriptedBroker({}, function* (broker) {
      const declares: Array<ScriptedBroker.Context<"exchange.declare">> = []
      broker.on("exchange.declare", (declare) => void declares.push(declare))
      const of = (exchange: string, type: string) =>
        Effect.forkScoped(
          reasonOf(Effect.scoped(AmqpChannel.use((channel) => channel.exchangeDeclare(exchange, type))))
        )
      const good = yield* of("a", "direct")
      const bad = yield* of("b", "x-delayed-message")
      yield* broker.received("exchange.declare", 2)
      declares[0]!.closeConnection(503, codes[503])
      assert.deepInclude(yield* Fiber.join(good), { _tag: "ConnectionClosed", isRetryable: true })
      assert.deepInclude(yield* Fiber.join(bad), { _tag: "ProtocolError", isRetryable: false })
    })
  )

  plain.live("if it tells nothing, all are suspects, and none is told that it is final", () =>
    onScriptedBroker({}, function* (broker) {
      const declares: Array<ScriptedBroker.Context<"exchange.declare">> = []
      broker.on("exchange.declare", (declare) => void declares.push(declare))
      const both = yield* Effect.forEach(["a", "b"], (exchange) =>
        Effect.forkScoped(
          reasonOf(Effect.scoped(AmqpChannel.use((channel) => channel.exchangeDeclare(exchange, "direct"))))
        )
      )
      yield* broker.received("exchange.declare", 2)
      declares[0]!.closeConnection(503, "COMMAND_INVALID - scripted")
      for (const one of both)
        assert.deepInclude(yield* Fiber.join(one), { _tag: "ConnectionClosed", isRetryable: true })
    })
  )

  plain.live("what this client closes the connection for is nobody's", () =>
    onScriptedBroker({ broker: { protocolErrors: "record" } }, function* (broker) {
      broker.once("queue.declare", () =>
        broker.connection().write(Buffer.from([1, 0, 77, 0, 0, 0, 4, 0, 50, 0, 31, 0xce]))
      )
      const declare = Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("q")))
      const reason = yield* reasonOf(declare)
      assert.deepInclude(reason, { _tag: "ConnectionClosed", isRetryable: true })
      assert.isTrue(AmqpError.isAmqpErrorReason((reason as AmqpError.ConnectionClosed).cause))
      yield* declare
    })
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("nine consumers beside one whose `declare` ends the connection", () => {
    const unsupported: AmqpConsumer.ConsumeOptions<never> = {
      declare: (channel) =>
        channel.exchangeDeclare("innocents-x", "x-unknown", { arguments: { "x-delayed-type": "direct" } })
    }

    for (const resubscribe of ["lost", "always"] as const) {
      it.effect(
        `all nine go on, and handle their messages; the one ends with the broker's reason (${resubscribe})`,
        () =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const before = yield* broker.census
            yield* Effect.gen(function* () {
              const queues = Array.from({ length: 9 }, (_, i) => `innocent-${resubscribe}-${i}`)
              yield* Effect.scoped(
                AmqpChannel.use((channel) => Effect.forEach(queues, (queue) => channel.queueDeclare(queue)))
              )
              const got = yield* Queue.unbounded<string>()
              const consume = (queue: string) =>
                Effect.forkScoped(
                  AmqpConsumer.consume(queue, (delivery) => Queue.offer(got, AmqpMessage.text(delivery)), {
                    resubscribe
                  })
                )
              const first = yield* Effect.forEach(queues.slice(0, 5), consume)
              const bad = yield* Effect.forkScoped(
                reasonOf(AmqpConsumer.consume(queues[0]!, () => Effect.void, { ...unsupported, resubscribe }))
              )
              const rest = yield* Effect.forEach(queues.slice(5), consume)
              const reason = yield* Fiber.join(bad)
              assert.include(["ProtocolError", "PreconditionFailed"], reason._tag)
              assert.include(reason.message, "unknown exchange type 'x-unknown'")
              for (const queue of queues) yield* AmqpPublisher.publish({ routingKey: queue, content: queue })
              const handled = new Set<string>()
              while (handled.size < queues.length) handled.add(yield* Effect.timeout(Queue.take(got), "10 seconds"))
              for (const fiber of [...first, ...rest]) assert.isUndefined(fiber.pollUnsafe())
              yield* Effect.scoped(
                AmqpChannel.use((channel) => Effect.forEach(queues, (queue) => channel.queueDelete(queue)))
              )
            }).pipe(withAmqp(broker.url))
            yield* broker.awaitCensus({ connections: before.connections, channels: before.channels })
          })
      )
    }

    it.effect("a borrower whose own declaration it is fails with that, and is not to try again", () =>
      onTestBroker({}, function* () {
        const reason = yield* reasonOf(
          Effect.scoped(AmqpChannel.use((channel) => channel.exchangeDeclare("innocents-y", "x-unknown")))
        )
        assert.deepInclude(reason, {
          _tag: (yield* major) === 3 ? "ProtocolError" : "PreconditionFailed",
          isRetryable: false
        })
      })
    )
  })
})
