/**
 * A connection error is a lost connection for everyone who did not cause it. The scripted broker determines at which
 * moment a connection ends, and for whose method. The real brokers supply the texts, in `AmqpConnection.neighbours`.
 */
import { assert, describe, it as plain } from "@effect/vitest"
import { type Amqp, AmqpChannel, AmqpConsumer, AmqpError, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { Duration, Effect, Fiber, Schema, Stream } from "effect"
import { onScriptedBroker } from "./support/client.ts"
import { reasonOf } from "./support/amqp.ts"
import type * as ScriptedBroker from "./support/ScriptedBroker.ts"

const Echo = AmqpRpc.make("echo", { payload: Schema.String, success: Schema.String })

/** Codes and texts with which a broker ends a connection for another party's mistake. */
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

/** Where a consumer is when its connection ends: the method that is not answered then. */
const steps = ["channel.open", "exchange.declare", "queue.bind", "basic.qos", "basic.consume"] as const

describe("a connection that ends for another's mistake is a lost connection", () => {
  for (const [code, text] of Object.entries(codes)) {
    for (const [name, consume] of Object.entries(consumers)) {
      // Consumers of every kind treat all codes alike: one of them shows the other codes.
      if (code !== "540" && !name.includes("declare")) continue
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

    plain.live(`${code}: for borrowers: the error is retryable, and a retry succeeds`, () =>
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

    plain.live(`${code}: for publishers: the message is of unknown outcome, and the next one is confirmed`, () =>
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

describe("a party fails only for what it has sent itself", () => {
  plain.live(
    "the only sender of the method that the close names fails with the broker's reason; all others may retry",
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

  plain.live("of several senders of that method, the names in the text identify the one that fails", () =>
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

  plain.live("if the text identifies none of them, all get a retryable error", () =>
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

  plain.live("a connection that this client closes is a lost connection for every party", () =>
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
