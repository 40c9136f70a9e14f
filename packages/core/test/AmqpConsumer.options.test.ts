/** What consumers refuse before anything is sent, and what their types express. */
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, type AmqpError, type AmqpPool, AmqpRpc } from "@effect-amqp/core"
import { type Context, Effect, Schema, Stream } from "effect"
import { onScriptedBroker } from "./support/client.ts"

const handler = () => Effect.void

describe("A bad option is refused with its name, before anything is sent.", () => {
  const subscribing: ReadonlyArray<readonly [string, unknown]> = [
    ["prefetch", { prefetch: 0 }],
    ["prefetch", { prefetch: 65_536 }],
    ["prefetch", { prefetch: 1.5 }],
    ["prefetch", { prefetch: Number.NaN }],
    ["prefetch", { prefetch: "10" }],
    ["consumerTag", { consumerTag: "x".repeat(256) }],
    ["exclusive", { exclusive: 1 }],
    ["priority", { priority: 0.5 }],
    ["priority", { priority: null }],
    ["arguments", { arguments: [] }],
    ["resubscribe", { resubscribe: true }],
    ["declare", { declare: "queue" }],
    ["consumerTimeout", { consumerTimeout: 0 }],
    ["consumerTimeout", { consumerTimeout: 0.5 }],
    ["consumerTimeout", { consumerTimeout: Infinity }],
    ["consumerTimeout", { consumerTimeout: "1 minute", arguments: { "x-consumer-timeout": 1000 } }],
    ["onEnd", { onEnd: Effect.void }],
    ["noAck", { noAck: true }],
    ["prefetchCount", { prefetchCount: 10 }],
    ["options", null],
    ["options", []]
  ]
  const handling: ReadonlyArray<readonly [string, unknown]> = [
    ["concurrency", { concurrency: 0 }],
    ["concurrency", { concurrency: -1 }],
    ["concurrency", { concurrency: Infinity }],
    ["prefetch", { concurrency: 20, prefetch: 10 }],
    ["onFailure", { onFailure: "requeue" }],
    ["onFailure", { onFailure: { _tag: "Nack" } }],
    ["onDefect", { onDefect: 1 }],
    ["onDecodeFailure", { onDecodeFailure: [] }],
    ["onPoison", { onPoison: AmqpConsumer.requeue }],
    ["maxDeliveries", { maxDeliveries: 0 }],
    ["maxDeliveries", { maxDeliveries: Number.NaN }],
    ["shutdownTimeout", { shutdownTimeout: -1 }],
    ["shutdownTimeout", { shutdownTimeout: "soon" }],
    ["shutdownTimeout", { shutdownTimeout: Infinity }],
    ["schema", { schema: "string" }],
    ["schema", { schema: {} }],
    ["schema", { schema: { ast: {} } }],
    ["onFailure.delays", { onFailure: AmqpConsumer.retry({ delays: [] }) }],
    ["onFailure.delays", { onFailure: AmqpConsumer.retry({ delays: [0] }) }],
    ["onFailure.delays", { onFailure: AmqpConsumer.retry({ delays: [0.5] }) }],
    ["onFailure.delays", { onFailure: AmqpConsumer.retry({ delays: ["3651 days"] }) }],
    ["onFailure.delays", { onFailure: AmqpConsumer.retry({} as never) }],
    ["onFailure.delays", { onFailure: AmqpConsumer.retry({ delay: 1, delays: [1], times: 1 } as never) }],
    ["onFailure.times", { onFailure: AmqpConsumer.retry({ delay: 1 } as never) }],
    ["times", { onDefect: AmqpConsumer.retry({ delay: 1, times: 0 }) }],
    [
      "onExhausted",
      { onDefect: AmqpConsumer.retry({ delay: 1, times: 1, onExhausted: AmqpConsumer.requeue as never }) }
    ],
    ["queueType", { onDefect: AmqpConsumer.retry({ delay: 1, times: 1, queueType: "stream" as never }) }],
    ["onFailure", { onFailure: { _tag: "Retry" } }],
    ["inbox", { inbox: {} }],
    ["inbox", { inbox: { make: Effect.void } }],
    ["inbox", { inbox: () => Effect.void }],
    ["inbx", { inbx: { make: () => Effect.never } }],
    ["inactivityTimeout", { inactivityTimeout: 10 }]
  ]
  const argumentOf = (error: AmqpError.AmqpError) => {
    assert.strictEqual(error.reason._tag, "InvalidArgument", error.message)
    return error.reason._tag === "InvalidArgument" ? error.reason.argument : ""
  }

  it.live("in consume, consumeBatch and stream", () =>
    onScriptedBroker({}, function* (broker) {
      for (const [argument, options] of [...subscribing, ...handling]) {
        const error = yield* Effect.flip(AmqpConsumer.consume("q", handler, options as AmqpConsumer.ConsumeOptions))
        assert.strictEqual(argumentOf(error), argument, JSON.stringify(options))
      }
      for (const [argument, options] of subscribing) {
        const error = yield* Effect.flip(Stream.runDrain(AmqpConsumer.stream("q", options as never)))
        assert.strictEqual(argumentOf(error), argument, JSON.stringify(options))
      }
      for (const [argument, options] of [
        ["size", { within: 10 }],
        ["within", { size: 10 }],
        ["size", { size: 0, within: 10 }],
        ["within", { size: 10, within: 0 }],
        ["prefetch", { size: 10, within: 10, prefetch: 9 }],
        ["prefetch", { size: 10, within: 10, concurrency: 2, prefetch: 19 }],
        ["size", { size: 65_535, within: 10, concurrency: 2 }],
        ["inbox", { size: 10, within: 10, inbox: { make: () => Effect.never } } as never]
      ] as const) {
        const error = yield* Effect.flip(AmqpConsumer.consumeBatch("q", handler, options as AmqpConsumer.BatchOptions))
        assert.strictEqual(argumentOf(error), argument, JSON.stringify(options))
      }
      const inbox = AmqpConsumer.stream("q", { inbox: { make: () => Effect.never } } as never)
      assert.strictEqual(argumentOf(yield* Effect.flip(Stream.runDrain(inbox))), "inbox")
      const inactivity = AmqpConsumer.stream("q", { inactivityTimeout: 0 })
      assert.strictEqual(argumentOf(yield* Effect.flip(Stream.runDrain(inactivity))), "inactivityTimeout")
      for (const given of [undefined, "handler", Effect.void]) {
        const none = given as never as typeof handler
        assert.strictEqual(argumentOf(yield* Effect.flip(AmqpConsumer.consume("q", none))), "handler")
        const batches = AmqpConsumer.consumeBatch("q", none, { size: 1, within: 1 })
        assert.strictEqual(argumentOf(yield* Effect.flip(batches)), "handler")
      }
      for (const queue of ["", "x".repeat(256), 1 as never]) {
        assert.strictEqual(argumentOf(yield* Effect.flip(AmqpConsumer.consume(queue, handler))), "queue")
      }
      // Not even a connection was opened for them.
      assert.strictEqual(broker.count("accept"), 1)
    })
  )
})

describe("The options of basic.consume reach the broker", () => {
  const options: Required<Omit<AmqpChannel.ConsumeOptions, "noAck">> = {
    consumerTag: "tag",
    exclusive: true,
    priority: 7,
    arguments: { "x-other": "other" }
  }
  const procedure = AmqpRpc.make("q", { payload: Schema.String, success: Schema.String })
  type Needs = AmqpPool.AmqpPool | AmqpConsumer.AmqpConsumer
  const ways: Record<string, Effect.Effect<unknown, AmqpError.AmqpError, Needs>> = {
    "from AmqpChannel.consume": AmqpChannel.use((channel) => channel.consume("q", options)).pipe(Effect.scoped),
    "from AmqpConsumer.consume": AmqpConsumer.consume("q", handler, options),
    "from AmqpConsumer.consumeBatch": AmqpConsumer.consumeBatch("q", handler, { ...options, size: 1, within: 1 }),
    "from AmqpConsumer.stream": Stream.runDrain(AmqpConsumer.stream("q", options)),
    "from AmqpRpc.serve": AmqpRpc.serve(procedure, (text) => Effect.succeed(text), options)
  }
  for (const [way, consume] of Object.entries(ways)) {
    it.live(way, () =>
      onScriptedBroker({}, function* (broker) {
        yield* Effect.forkScoped(consume)
        const { args } = yield* broker.received("basic.consume")
        assert.deepInclude(args, {
          queue: "q",
          consumerTag: "tag",
          exclusive: true,
          noAck: false,
          arguments: { "x-priority": 7, "x-other": "other" }
        })
      })
    )
  }
})

describe("Types", () => {
  class Late extends Schema.TaggedError<Late>()("Late", {}) {}
  interface Stock {
    readonly _: unique symbol
  }
  const Order = Schema.Struct({ id: Schema.Int })
  const needsStock = undefined as never as Effect.Effect<void, Late, Stock>

  it("give the handler's errors to the policy, its requirements to the consumer, and let its scope be its own", () => {
    const consumer = () =>
      AmqpConsumer.consume(
        "q",
        () =>
          Effect.andThen(
            Effect.addFinalizer(() => Effect.void),
            needsStock
          ),
        {
          onFailure: (error) => {
            expectTypeOf(error).toEqualTypeOf<Late>()
            return AmqpConsumer.requeue
          }
        }
      )
    expectTypeOf<ReturnType<typeof consumer>>().toEqualTypeOf<
      Effect.Effect<never, AmqpError.AmqpError, Stock | AmqpConsumer.AmqpConsumer>
    >()
  })

  it("give the handler what the schema decodes", () => {
    const consumer = () =>
      AmqpConsumer.consume(
        "q",
        (order, delivery) => {
          expectTypeOf(order).toEqualTypeOf<{ readonly id: number }>()
          expectTypeOf(delivery).toEqualTypeOf<AmqpConsumer.Delivery>()
          return needsStock
        },
        { schema: Order, onFailure: (error) => (error._tag === "Late" ? AmqpConsumer.drop : AmqpConsumer.requeue) }
      )
    const batches = () =>
      AmqpConsumer.consumeBatch(
        "q",
        (orders, deliveries) => {
          expectTypeOf(orders[0]).toEqualTypeOf<{ readonly id: number }>()
          expectTypeOf(deliveries[0]).toEqualTypeOf<AmqpConsumer.Delivery>()
          return needsStock
        },
        { schema: Order, size: 10, within: "1 second" }
      )
    expectTypeOf<ReturnType<typeof batches>>().toEqualTypeOf<ReturnType<typeof consumer>>()
  })

  it("keep a consumer's delivery apart from one of a borrowed channel", () => {
    const wrong = (channel: AmqpChannel.AmqpChannel, delivery: AmqpConsumer.Delivery) =>
      // @ts-expect-error it has no delivery tag
      channel.ack(delivery)
    expectTypeOf(wrong).toBeFunction()
    expectTypeOf<Context.Service.Shape<typeof AmqpConsumer.AmqpConsumer>>().toHaveProperty("connection")
  })

  it("refuse a policy that ends a message and returns it", () => {
    // @ts-expect-error requeue is not final
    AmqpConsumer.retry({ delay: 1, times: 1, onExhausted: AmqpConsumer.requeue })
    // @ts-expect-error a single delay needs `times`
    AmqpConsumer.retry({ delay: 1 })
  })
})
