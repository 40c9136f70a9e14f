/** The RPC client where no real broker misbehaves on command: order, silence and death of the broker. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpConnection, AmqpError, AmqpRpc } from "@effect-amqp/core"
import { Duration, Effect, Exit, Fiber, flow, Layer, References, Schema, Scope } from "effect"
import { configOf, type Overrides, reasonOf, untilState } from "./support/amqp.ts"
import { until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { bytesHeld, collectGarbage } from "./support/heap.ts"

type Publish = ScriptedBroker.Context<"basic.publish">

const Echo = AmqpRpc.make("echo", { payload: Schema.String, success: Schema.String, error: Schema.Finite })
const echo = AmqpRpc.client(Echo, { timeout: "10 seconds" })

const withRpc = (url: string, options?: AmqpRpc.Options, overrides?: Overrides) =>
  flow(
    Effect.provide(
      Layer.provideMerge(AmqpRpc.layerWith(options ?? {}), AmqpConnection.layer(configOf(url, overrides))),
      {
        local: true
      }
    ),
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )

/** A broker that knows the pseudo-queue, and confirms nothing on its own. */
const brokerWith = (publish: (publish: Publish) => void, on: ScriptedBroker.Script = {}) =>
  ScriptedBroker.make({ on: { "basic.publish": publish, "basic.consume": startConsumer, ...on } })

const startConsumer: ScriptedBroker.Handler<"basic.consume"> = (consume) =>
  consume.reply("basic.consume-ok", { consumerTag: "replies" })

const idOf = (publish: Publish) => publish.content?.properties.correlationId ?? ""
const bodyOf = (publish: Publish) => Buffer.from(publish.content?.body ?? []).toString()

/** A reply on the request's channel. By default it returns the request's content. */
const reply = (publish: Publish, body = bodyOf(publish), correlationId = idOf(publish), type = "success") =>
  publish.reply(
    "basic.deliver",
    { consumerTag: "replies", deliveryTag: 1, redelivered: false, exchange: "", routingKey: "amq.rabbitmq.reply-to.x" },
    { properties: { correlationId, type, contentType: "application/json" }, body: Buffer.from(body) }
  )

const confirm = (publish: Publish, multiple = false) =>
  publish.reply("basic.ack", { deliveryTag: publish.deliveryTag, multiple })

const giveBack = (publish: Publish) =>
  publish.reply(
    "basic.return",
    { replyCode: 312, replyText: "NO_ROUTE", exchange: publish.args.exchange, routingKey: publish.args.routingKey },
    {
      // RabbitMQ does the same: it puts its own address in the place of the pseudo-queue's name.
      properties: { ...publish.content?.properties, replyTo: "amq.rabbitmq.reply-to.g1h2" },
      body: publish.content?.body ?? Buffer.alloc(0)
    }
  )

/** Waits until the client's counts are as expected. */
const untilStats = (wanted: (stats: AmqpRpc.Stats) => boolean) => until(AmqpRpc.stats, wanted, "the client")

const idleStats = { inFlight: 0, waiting: 0 }

describe("a request", () => {
  it.live("is sent after the consumer of replies has started, mandatory, with its timeout as expiration", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => reply(publish))
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* echo("one"), "one")
        assert.strictEqual(yield* echo("two", { expires: false, headers: { tenant: "a" }, priority: 3 }), "two")
      }).pipe(withRpc(broker.url))
      const methods = broker.methods({ channel: 1 })
      assert.deepStrictEqual(methods.slice(0, 5), [
        "channel.open",
        "confirm.select",
        "basic.consume",
        "basic.publish",
        "basic.publish"
      ])
      const consume = broker.log.find((received) => received.method === "basic.consume")
      assert.deepInclude(consume?.args, { queue: "amq.rabbitmq.reply-to", noAck: true })
      const sent = broker.log.filter((received) => received.method === "basic.publish")
      assert.deepInclude(sent[0]?.args, { exchange: "", routingKey: "echo", mandatory: true })
      const { expiration, ...properties } = sent[0]?.content?.properties ?? {}
      assert.deepInclude(properties, { replyTo: "amq.rabbitmq.reply-to", type: "echo", deliveryMode: 1 })
      assert.isAtMost(Number(expiration), 10_000)
      assert.isAtLeast(Number(expiration), 1)
      assert.deepInclude(sent[1]?.content?.properties, { headers: { tenant: "a" }, priority: 3 })
      assert.isUndefined(sent[1]?.content?.properties.expiration)
      assert.notStrictEqual(sent[0]?.content?.properties.correlationId, sent[1]?.content?.properties.correlationId)
    })
  )

  it.live("takes the client's options, except those that the call itself gives", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => reply(publish))
      const impatient = AmqpRpc.client(Echo, { timeout: "10 seconds", priority: 3 })
      yield* Effect.gen(function* () {
        yield* impatient("one", { priority: 4 })
        yield* impatient("two", { timeout: undefined, priority: undefined })
      }).pipe(withRpc(broker.url))
      const sent = broker.log.flatMap((received) => (received.method === "basic.publish" ? [received.content] : []))
      assert.deepStrictEqual(
        sent.map((content) => content?.properties.priority),
        [4, 3]
      )
      for (const content of sent) assert.isAtMost(Number(content?.properties.expiration), 10_000)
    })
  )

  it.live("whose reply overtakes its confirm is answered once", () =>
    Effect.gen(function* () {
      const held: Array<Publish> = []
      const broker = yield* brokerWith((publish) => {
        held.push(publish)
        reply(publish)
      })
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* echo("early"), "early")
        // The confirm arrives when no request waits for it, and does not affect the next request.
        broker.on("basic.publish", (publish) => {
          confirm(held[0]!)
          publish.reply("basic.nack", { deliveryTag: publish.deliveryTag })
        })
        assert.strictEqual((yield* reasonOf(echo("next")))._tag, "PublishNacked")
        assert.deepInclude(yield* AmqpRpc.stats, { ...idleStats, replied: 1, unclaimed: 0 })
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("is answered by its own reply, whatever the order in which replies and confirms come", () =>
    Effect.gen(function* () {
      const held: Array<Publish> = []
      const broker = yield* brokerWith((publish) => {
        held.push(publish)
        if (held.length < 100) return
        for (const one of held.toReversed()) reply(one)
        confirm(publish, true)
      })
      yield* Effect.gen(function* () {
        const words = Array.from({ length: 100 }, (_, i) => `word ${i}`)
        const answers = yield* Effect.forEach(words, (word) => echo(word), { concurrency: "unbounded" })
        assert.deepStrictEqual(answers, words)
        assert.deepInclude(yield* AmqpRpc.stats, { ...idleStats, replied: 100 })
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("takes the first of several replies; second, late and foreign ones are dropped and counted", () =>
    Effect.gen(function* () {
      let late: Publish | undefined
      const broker = yield* brokerWith((publish) => {
        if (bodyOf(publish) === '"warm"') return reply(publish)
        if (late === undefined) return void (late = publish)
        reply(publish, '"foreign"', "somebody-else-1")
        publish.reply(
          "basic.deliver",
          { consumerTag: "replies", deliveryTag: 1, exchange: "", routingKey: "x" },
          { body: Buffer.from('"without an id"') }
        )
        reply(late, '"late"')
        reply(publish)
        return reply(publish, '"second"')
      })
      yield* Effect.gen(function* () {
        yield* echo("warm")
        assert.strictEqual((yield* reasonOf(echo("one", { timeout: 20 })))._tag, "RequestTimeout")
        assert.strictEqual(yield* echo("two"), "two")
        yield* untilStats((stats) => stats.unclaimed === 4)
        assert.deepInclude(yield* AmqpRpc.stats, { ...idleStats, replied: 2, timedOut: 1 })
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("that was interrupted is forgotten: its reply is counted, and its place is free at once", () =>
    Effect.gen(function* () {
      const held: Array<Publish> = []
      const broker = yield* brokerWith((publish) => {
        held.push(publish)
        confirm(publish)
      })
      yield* Effect.gen(function* () {
        const first = yield* Effect.forkChild(echo("one"), { startImmediately: true })
        yield* broker.received("basic.publish")
        const second = yield* Effect.forkChild(echo("two"), { startImmediately: true })
        yield* untilStats((stats) => stats.inFlight === 1 && stats.waiting === 1)
        yield* Fiber.interrupt(first)
        yield* broker.received("basic.publish", 2)
        yield* untilStats((stats) => stats.inFlight === 1 && stats.waiting === 0)
        for (const one of held) reply(one)
        assert.strictEqual(yield* Fiber.join(second), "two")
        assert.deepInclude(yield* AmqpRpc.stats, { ...idleStats, replied: 1, unclaimed: 1 })
      }).pipe(withRpc(broker.url, { maxInFlight: 1 }))
    })
  )

  it.live("that no queue takes fails with the return, before any confirm", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith(giveBack)
      yield* Effect.gen(function* () {
        // The two requests are equal, and each has its own return.
        const [one, two] = yield* Effect.all([reasonOf(echo("same")), reasonOf(echo("same"))], { concurrency: 2 })
        assert.deepInclude(one, { _tag: "PublishReturned", replyCode: 312, routingKey: "echo" })
        assert.deepInclude(two, { _tag: "PublishReturned" })
        assert.deepInclude(yield* AmqpRpc.stats, idleStats)
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("that timed out reports whether the broker had queued it, and whether it was sent at all", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => reply(publish))
      yield* Effect.gen(function* () {
        yield* echo("warm")
        broker.on("basic.publish", () => {})
        const unconfirmed = yield* reasonOf(echo("one", { timeout: 20 }))
        assert.strictEqual(unconfirmed._tag, "RequestTimeout")
        assert.include(unconfirmed.message, "had not confirmed")
        broker.on("basic.publish", (publish) => confirm(publish))
        const confirmed = yield* reasonOf(echo("two", { timeout: 500 }))
        assert.strictEqual(confirmed._tag, "RequestTimeout")
        assert.include(confirmed.message, "had queued the request")
        broker.flow(false)
        yield* broker.received("channel.flow-ok")
        assert.deepInclude(yield* reasonOf(echo("three", { timeout: 20 })), { _tag: "PublishTimeout", sent: false })
        assert.deepInclude(yield* AmqpRpc.stats, { ...idleStats, timedOut: 3 })
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("waits while maxInFlight are in flight, also when these were given up unconfirmed", () =>
    Effect.gen(function* () {
      const held: Array<Publish> = []
      const broker = yield* brokerWith((publish) => void held.push(publish))
      yield* Effect.gen(function* () {
        const given = yield* Effect.forEach(["a", "b"], (word) => Effect.forkChild(echo(word)))
        yield* broker.received("basic.publish", 2)
        yield* Fiber.interruptAll(given)
        const third = yield* Effect.forkChild(echo("c"), { startImmediately: true })
        yield* untilStats((stats) => stats.inFlight === 0 && stats.waiting === 1)
        const refused = yield* reasonOf(echo("d"))
        assert.strictEqual(refused._tag, "PoolExhausted")
        assert.include(refused.message, "maxInFlight")
        broker.on("basic.publish", (publish) => reply(publish))
        confirm(held[1]!, true)
        assert.strictEqual(yield* Fiber.join(third), "c")
        assert.strictEqual(broker.count("basic.publish"), 3)
      }).pipe(withRpc(broker.url, { maxInFlight: 2, maxWaiting: 1 }))
    })
  )

  it.live("waits while maxInFlightBytes are in flight: until the broker has confirmed and a server has answered", () =>
    Effect.gen(function* () {
      const held: Array<Publish> = []
      const broker = yield* brokerWith((publish) => void held.push(publish))
      const large = (letter: string) => letter.repeat(98)
      yield* Effect.gen(function* () {
        const [first, second] = yield* Effect.forEach(["a", "b"], (letter) => Effect.forkChild(echo(large(letter))))
        yield* broker.received("basic.publish", 2)
        const third = yield* Effect.forkChild(echo(large("c")), { startImmediately: true })
        yield* untilStats((stats) => stats.waiting === 1)
        // One is answered before it is confirmed, one is confirmed before it is answered: both events are needed.
        reply(held[0]!)
        assert.strictEqual(yield* Fiber.join(first!), large("a"))
        confirm(held[1]!)
        yield* Effect.yieldNow
        assert.strictEqual((yield* AmqpRpc.stats).waiting, 1)
        broker.on("basic.publish", (publish) => {
          confirm(publish)
          reply(publish)
        })
        reply(held[1]!)
        assert.strictEqual(yield* Fiber.join(second!), large("b"))
        assert.strictEqual(yield* Fiber.join(third), large("c"))
      }).pipe(withRpc(broker.url, { maxInFlightBytes: 250 }))
    })
  )

  for (const [bound, options, expected] of [
    [
      "maxInFlight",
      { maxInFlight: 1, maxWaiting: 0 },
      "1 request is in flight (maxInFlight); the backlog is full: 0 requests are waiting (maxWaiting 0)"
    ],
    [
      "maxInFlightBytes",
      { maxInFlightBytes: 199, maxWaiting: 0 },
      "1 request with 100 bytes is in flight (maxInFlightBytes 199)"
    ],
    ["maxWaiting", { maxInFlight: 1, maxWaiting: 1 }, "1 request is waiting (maxWaiting 1)"],
    [
      "maxWaitingBytes",
      { maxInFlight: 1, maxWaitingBytes: 199 },
      "1 request with 100 bytes is waiting (maxWaitingBytes 199)"
    ]
  ] as const) {
    it.live(`that is refused reports ${bound} as the reason`, () =>
      Effect.gen(function* () {
        const broker = yield* brokerWith(() => {})
        const large = "x".repeat(98)
        yield* Effect.gen(function* () {
          yield* Effect.forkChild(echo(large), { startImmediately: true })
          yield* untilStats((stats) => stats.inFlight === 1)
          if (bound.startsWith("maxWaiting")) {
            yield* Effect.forkChild(echo(large), { startImmediately: true })
            yield* untilStats((stats) => stats.waiting === 1)
          }
          const refused = yield* reasonOf(echo(large))
          assert.strictEqual(refused._tag, "PoolExhausted")
          assert.include(refused.message, expected)
        }).pipe(withRpc(broker.url, options, { shutdownTimeout: Duration.millis(100) }))
      })
    )
  }

  it.live("above maxInFlightBytes goes alone", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => {
        confirm(publish)
        reply(publish)
      })
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* echo("x".repeat(500)), "x".repeat(500))
      }).pipe(withRpc(broker.url, { maxInFlightBytes: 100, maxWaitingBytes: 100 }))
    })
  )

  it.live(
    "to a broker that has stopped reading is bounded in bytes: the rest is refused at once, and nothing is lost",
    () =>
      Effect.gen(function* () {
        const broker = yield* brokerWith((publish) => {
          confirm(publish)
          reply(publish)
        })
        yield* Effect.gen(function* () {
          assert.strictEqual(yield* echo("warm"), "warm")
          broker.pause()
          const before = bytesHeld()
          const size = 2 ** 16
          // No request may time out while this machine is busy.
          const patient = AmqpRpc.client(Echo, { timeout: "1 minute" })
          const outcomes: Record<string, number> = {}
          const call = (i: number) =>
            Effect.suspend(() => patient(String.fromCharCode(97 + (i % 26)).repeat(size))).pipe(
              Effect.match({
                onFailure: (error) => (error as AmqpError.AmqpError).reason._tag,
                onSuccess: () => "answered"
              }),
              Effect.map((outcome) => void (outcomes[outcome] = (outcomes[outcome] ?? 0) + 1))
            )
          const calls: Array<Fiber.Fiber<void>> = []
          for (let i = 0; i < 400; i++) {
            calls.push(yield* Effect.forkChild(call(i), { startImmediately: true }))
            // Each request has its own turn of the event loop, as requests of a server have.
            yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
          }
          const grown = (bytesHeld() - before) / 2 ** 20
          const { inFlight, waiting } = yield* AmqpRpc.stats
          assert.isAtMost(waiting, 32)
          assert.isAbove(outcomes["PoolExhausted"]!, 300)
          assert.strictEqual(outcomes["PoolExhausted"], 400 - waiting - inFlight)
          // Without the bound, the growth is more than 50.
          assert.isBelow(grown, 35)
          broker.resume()
          for (const fiber of calls) yield* Fiber.join(fiber)
          assert.strictEqual(outcomes["answered"], waiting + inFlight)
        }).pipe(withRpc(broker.url, { maxWaitingBytes: 2 ** 21 }))
      })
  )

  it.live("does not overflow the stack when thousands fail or wait together", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => {
        confirm(publish)
        reply(publish)
      })
      yield* Effect.gen(function* () {
        yield* echo("warm")
        broker.flow(false)
        yield* broker.received("channel.flow-ok")
        const many = Array.from({ length: 5000 }, (_, i) => String(i))
        const waiting = yield* Effect.forkChild(
          Effect.forEach(many, (word) => echo(word), { concurrency: "unbounded" })
        )
        yield* untilStats((stats) => stats.waiting === 5000)
        broker.flow(true)
        assert.deepStrictEqual(yield* Fiber.join(waiting), many)
        broker.on("basic.publish", (publish) => {
          if (publish.nth >= 10_001) publish.closeChannel(541, "INTERNAL_ERROR - scripted")
        })
        const failing = yield* Effect.forEach(many, (word) => Effect.exit(echo(word)), { concurrency: "unbounded" })
        assert.isTrue(failing.every(Exit.isFailure))
        assert.deepInclude(yield* AmqpRpc.stats, { timedOut: 0 })
        assert.deepInclude(yield* AmqpRpc.stats, idleStats)
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("that blocked publishers would delay fails or waits, as configured", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => {
        confirm(publish)
        reply(publish)
      })
      yield* Effect.gen(function* () {
        yield* echo("warm")
        const { flow } = yield* AmqpConnection.AmqpConnection
        broker.block("low on memory.")
        yield* untilStats(() => flow.value._tag === "Blocked")
        const refused = yield* reasonOf(echo("no", { onBlocked: "fail" }))
        assert.strictEqual(refused._tag, "PublishForbidden")
        assert.include(refused.message, "low on memory. Nothing was sent.")
        const waiting = yield* Effect.forkChild(echo("yes"), { startImmediately: true })
        yield* untilStats((stats) => stats.waiting === 1)
        assert.strictEqual(broker.count("basic.publish"), 1)
        broker.unblock()
        assert.strictEqual(yield* Fiber.join(waiting), "yes")
        // One request waits when it happens.
        broker.on("basic.publish", () => {})
        const out = yield* Effect.forkChild(echo("out"), { startImmediately: true })
        const inLine = yield* Effect.forkChild(reasonOf(echo("in line", { onBlocked: "fail" })), {
          startImmediately: true
        })
        yield* untilStats((stats) => stats.inFlight === 1 && stats.waiting === 1)
        broker.block("low on memory")
        assert.strictEqual((yield* Fiber.join(inLine))._tag, "PublishForbidden")
        yield* Fiber.interrupt(out)
      }).pipe(withRpc(broker.url, { maxInFlight: 1 }))
    })
  )
})

describe("memory", () => {
  // A WeakRef keeps its target alive until the end of the turn.
  const collected = Effect.promise(() => new Promise<void>((resolve) => setTimeout(() => resolve(collectGarbage()), 1)))

  it.live("holds nothing of a request that has ended, however much time it had left", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => {
        confirm(publish)
        if (bodyOf(publish) === '"answered"') reply(publish)
      })
      yield* Effect.gen(function* () {
        const held: Array<WeakRef<object>> = []
        const ask = (word: string, timeout: Duration.Input) =>
          Effect.suspend(() => {
            const headers = { word }
            held.push(new WeakRef(headers))
            return Effect.exit(echo(word, { timeout, headers }))
          })
        yield* ask("answered", "20 days")
        yield* ask("late", 20)
        const given = yield* Effect.forkChild(ask("given up", "20 days"))
        yield* broker.received("basic.publish", 3)
        yield* Fiber.interrupt(given)
        for (let i = 0; i < 100 && held.some((ref) => ref.deref() !== undefined); i++) yield* collected
        assert.deepStrictEqual(
          held.map((ref) => ref.deref()),
          [undefined, undefined, undefined]
        )
      }).pipe(withRpc(broker.url))
    })
  )
})

describe("a reply", () => {
  const answered = (body: string, type?: string) =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) =>
        publish.reply(
          "basic.deliver",
          { consumerTag: "replies", deliveryTag: 1, exchange: "", routingKey: "x" },
          {
            properties: { correlationId: idOf(publish), ...(type === undefined ? undefined : { type }) },
            body: Buffer.from(body)
          }
        )
      )
      return yield* Effect.exit(echo("word")).pipe(withRpc(broker.url))
    })

  const failureOf = (body: string, type?: string) =>
    Effect.map(Effect.flip(Effect.flatten(answered(body, type))), (error) => {
      if (AmqpError.isAmqpError(error)) return error.reason
      return assert.fail(`failed with ${error}`)
    })

  it.live("without a type, and one of type success, is the success", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* answered('"a"'), Exit.succeed("a"))
      assert.deepStrictEqual(yield* answered('"a"', "success"), Exit.succeed("a"))
    })
  )

  it.live("of type failure is the procedure's own error", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* answered("42", "failure"), Exit.fail(42))
    })
  )

  it.live("of type defect is RemoteFailure, with the server's description", () =>
    Effect.gen(function* () {
      const remote = yield* failureOf('{"message":"out of order"}', "defect")
      assert.strictEqual(remote._tag, "RemoteFailure")
      assert.include(remote.message, "echo")
      assert.include(remote.message, "out of order")
      for (const body of ["", "null", "[]", "7", '{"message":7}', "not json"]) {
        assert.strictEqual((yield* failureOf(body, "defect"))._tag, "RemoteFailure", body)
      }
    })
  )

  it.live("that breaks the contract is DecodeFailed: another type, another shape, not JSON", () =>
    Effect.gen(function* () {
      for (const [body, type] of [
        ['"a"', "surprise"],
        ["7", "success"],
        ["{", "success"],
        ['"a"', "failure"],
        ["", undefined]
      ] as const) {
        const reason = yield* failureOf(body, type)
        assert.strictEqual(reason._tag, "DecodeFailed", `${body} ${type}`)
        assert.include(reason.message, "echo")
      }
    })
  )
})

describe("the death of the channel", () => {
  const heldBroker = Effect.gen(function* () {
    const held: Array<Publish> = []
    const broker = yield* brokerWith((publish) => void held.push(publish))
    return { broker, held }
  })

  for (const [how, kill, tag] of [
    ["the channel", (broker: ScriptedBroker.ScriptedBroker) => broker.closeChannels(406), "ChannelClosed"],
    ["its connection", (broker: ScriptedBroker.ScriptedBroker) => broker.destroy(), "ConnectionClosed"]
  ] as const) {
    it.live(
      `in mid-request (${how}): unconfirmed requests have an unknown outcome, confirmed ones have lost their reply`,
      () =>
        Effect.gen(function* () {
          const { broker, held } = yield* heldBroker
          yield* Effect.gen(function* () {
            const confirmed = yield* Effect.forkChild(reasonOf(echo("confirmed")), { startImmediately: true })
            yield* broker.received("basic.publish")
            const unconfirmed = yield* Effect.forkChild(reasonOf(echo("unconfirmed")), { startImmediately: true })
            yield* broker.received("basic.publish", 2)
            confirm(held[0]!)
            // This request is answered after the confirm, on the same socket, so the client has read the confirm.
            const seen = yield* Effect.forkChild(echo("seen"), { startImmediately: true })
            yield* broker.received("basic.publish", 3)
            reply(held[2]!)
            yield* Fiber.join(seen)
            kill(broker)
            const lost = yield* Fiber.join(confirmed)
            assert.strictEqual(lost._tag, tag)
            assert.include(lost.message, "the channel ended before the reply arrived")
            assert.strictEqual((yield* Fiber.join(unconfirmed))._tag, "PublishUnknown")
            assert.deepInclude(yield* AmqpRpc.stats, idleStats)
            // The next request opens another channel.
            broker.on("basic.publish", (publish) => reply(publish))
            assert.strictEqual(yield* echo("next"), "next")
            assert.strictEqual(broker.count("basic.consume"), 2)
          }).pipe(withRpc(broker.url))
          yield* broker.socketsClosed
        })
    )
  }

  it.live("is survived by waiting requests, which are sent on the next one", () =>
    Effect.gen(function* () {
      const { broker } = yield* heldBroker
      yield* Effect.gen(function* () {
        const out = yield* Effect.forkChild(reasonOf(echo("out")), { startImmediately: true })
        yield* broker.received("basic.publish")
        const inLine = yield* Effect.forkChild(echo("in line"), { startImmediately: true })
        yield* untilStats((stats) => stats.waiting === 1)
        broker.on("basic.publish", (publish) => reply(publish))
        broker.destroy()
        assert.strictEqual((yield* Fiber.join(out))._tag, "PublishUnknown")
        assert.strictEqual(yield* Fiber.join(inLine), "in line")
      }).pipe(withRpc(broker.url, { maxInFlight: 1 }))
    })
  )

  it.live("and a successor that accepts smaller frames: headers that no longer fit are refused, the rest is sent", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({
        tune: { frameMax: 8192 },
        on: { "basic.publish": reply, "basic.consume": startConsumer }
      })
      yield* Effect.gen(function* () {
        yield* broker.down
        yield* untilState((now) => now._tag !== "Open")
        const headers = { h: "x".repeat(9000) }
        const tooLarge = yield* Effect.forkChild(reasonOf(echo("large", { headers })), { startImmediately: true })
        const small = yield* Effect.forkChild(echo("small"), { startImmediately: true })
        yield* untilStats((stats) => stats.waiting === 2)
        yield* broker.up
        assert.deepInclude(yield* Fiber.join(tooLarge), { _tag: "InvalidArgument", argument: "headers" })
        assert.strictEqual(yield* Fiber.join(small), "small")
        assert.strictEqual(broker.count("basic.publish"), 1)
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("and a successor that accepts smaller messages: waiting requests are measured again", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({
        serverProperties: { product: "RabbitMQ", version: "4.0.5", capabilities: { publisher_confirms: true } },
        on: { "basic.consume": startConsumer }
      })
      yield* Effect.gen(function* () {
        yield* broker.down
        yield* untilState((now) => now._tag !== "Open")
        const large = yield* Effect.forkChild(reasonOf(echo("x".repeat(2 ** 24))), { startImmediately: true })
        yield* untilStats((stats) => stats.waiting === 1)
        yield* broker.up
        assert.strictEqual((yield* Fiber.join(large))._tag, "MessageTooLarge")
        assert.strictEqual(broker.count("basic.publish"), 0)
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("because the broker cancels the consumer of replies is noticed at once", () =>
    Effect.gen(function* () {
      const { broker, held } = yield* heldBroker
      yield* Effect.gen(function* () {
        const out = yield* Effect.forkChild(reasonOf(echo("out")), { startImmediately: true })
        yield* broker.received("basic.publish")
        confirm(held[0]!)
        broker.send(1, "basic.cancel", { consumerTag: "replies", noWait: true })
        assert.strictEqual((yield* Fiber.join(out))._tag, "ChannelClosed")
        broker.on("basic.publish", (publish) => reply(publish))
        assert.strictEqual(yield* echo("next"), "next")
        yield* broker.until(({ openChannels }) => openChannels === 1)
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("while it opens: requests wait until the connection is re-established", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => reply(publish))
      broker.once("channel.open", (open) => open.destroy())
      broker.once("basic.consume", (consume) => consume.destroy())
      assert.strictEqual(yield* echo("patient").pipe(withRpc(broker.url)), "patient")
      yield* broker.socketsClosed
    })
  )

  it.live("at its opening, by an error of its own, fails the waiting requests; the next ones try again", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => reply(publish))
      broker.once("basic.consume", (consume) => consume.closeChannel(403, "ACCESS_REFUSED - scripted"))
      yield* Effect.gen(function* () {
        const reasons = yield* Effect.forEach(["a", "b", "c"], (word) => reasonOf(echo(word)), { concurrency: 3 })
        assert.deepStrictEqual(
          reasons.map((reason) => reason._tag),
          ["AccessRefused", "AccessRefused", "AccessRefused"]
        )
        assert.strictEqual(yield* echo("next"), "next")
        assert.strictEqual(broker.openChannels, 1)
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("at its opening, by silence, ends with the request's timeout, and leaves no channel behind", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith(() => {}, { "channel.open": (open) => open.hold() })
      yield* Effect.gen(function* () {
        assert.deepInclude(yield* reasonOf(echo("one", { timeout: 20 })), { _tag: "PublishTimeout", sent: false })
        // The opening continues, and serves the next request.
        broker.on("basic.publish", (publish) => reply(publish))
        const next = yield* Effect.forkChild(echo("next"), { startImmediately: true })
        broker.off("channel.open")
        broker.release("channel.open")
        assert.strictEqual(yield* Fiber.join(next), "next")
        assert.strictEqual(broker.maxOpenChannels, 1)
      }).pipe(withRpc(broker.url))
    })
  )
})

describe("the end of the client's scope", () => {
  it.live("waits for replies up to shutdownTimeout, refuses waiting and new requests, and closes the channel", () =>
    Effect.gen(function* () {
      const held: Array<Publish> = []
      const broker = yield* brokerWith((publish) => void held.push(publish))
      const { client, scope } = yield* clientOn(broker, { maxInFlight: 2 })
      const call = (word: string) => Effect.forkChild(client.call(Echo, word), { startImmediately: true })
      const one = yield* call("one")
      const two = yield* call("two")
      yield* broker.received("basic.publish", 2)
      const inLine = yield* call("in line")
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
      assert.strictEqual((yield* reasonOf(Fiber.join(inLine)))._tag, "PoolClosed")
      assert.strictEqual((yield* reasonOf(client.call(Echo, "after")))._tag, "PoolClosed")
      reply(held[0]!)
      assert.strictEqual(yield* Fiber.join(one), "one")
      assert.isUndefined(closing.pollUnsafe())
      assert.strictEqual(broker.openChannels, 1)
      reply(held[1]!)
      assert.strictEqual(yield* Fiber.join(two), "two")
      yield* Effect.timeout(Fiber.join(closing), "3 seconds")
      assert.strictEqual(broker.openChannels, 0)
    })
  )

  it.live("fails what is still in flight after that, each with what is known of it", () =>
    Effect.gen(function* () {
      const held: Array<Publish> = []
      const broker = yield* brokerWith((publish) => void held.push(publish))
      const { client, scope } = yield* clientOn(broker, { maxInFlight: 3 }, { shutdownTimeout: 50 })
      const call = (word: string) => Effect.forkChild(reasonOf(client.call(Echo, word)), { startImmediately: true })
      const confirmed = yield* call("confirmed")
      yield* broker.received("basic.publish")
      const unconfirmed = yield* call("unconfirmed")
      yield* broker.received("basic.publish", 2)
      confirm(held[0]!)
      const seen = yield* Effect.forkChild(client.call(Echo, "seen"), { startImmediately: true })
      yield* broker.received("basic.publish", 3)
      broker.on("basic.publish", () => {})
      const inLine = yield* call("in line")
      reply(held[2]!)
      yield* Fiber.join(seen)
      const later = yield* call("later")
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Fiber.join(confirmed))._tag, "ChannelClosed")
      assert.strictEqual((yield* Fiber.join(unconfirmed))._tag, "PublishUnknown")
      assert.strictEqual((yield* Fiber.join(inLine))._tag, "PublishUnknown")
      assert.strictEqual((yield* Fiber.join(later))._tag, "PoolClosed")
      assert.strictEqual((yield* reasonOf(client.call(Echo, "after")))._tag, "PoolClosed")
      assert.deepInclude(yield* client.stats, idleStats)
      assert.strictEqual(broker.openChannels, 0)
    })
  )

  it.live("is bounded by closeTimeout when the broker does not answer", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => reply(publish), { "channel.close": () => {} })
      const { client, scope } = yield* clientOn(broker, {}, { closeTimeout: 50 })
      yield* client.call(Echo, "one")
      yield* Effect.timeout(Scope.close(scope, Exit.void), "3 seconds")
      assert.strictEqual(broker.count("channel.close"), 1)
    })
  )

  it.live("while its channel opens closes that channel", () =>
    Effect.gen(function* () {
      for (const step of ["channel.open", "confirm.select", "basic.consume"] as const) {
        const broker = yield* ScriptedBroker.make({ on: { [step]: (context: { hold: () => void }) => context.hold() } })
        const { client, scope } = yield* clientOn(broker)
        const call = yield* Effect.forkChild(reasonOf(client.call(Echo, "one")), { startImmediately: true })
        yield* broker.received(step)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Fiber.join(call))._tag, "PoolClosed")
        broker.release(step)
        yield* broker.received("channel.close")
        yield* broker.until((now) => now.openChannels === 0)
      }
    })
  )
})

const clientOn = Effect.fnUntraced(function* (
  broker: ScriptedBroker.ScriptedBroker,
  options?: AmqpRpc.Options,
  overrides: { readonly closeTimeout?: number; readonly shutdownTimeout?: number } = {}
) {
  const config = configOf(broker.url)
  const timeouts = Object.entries(overrides).map(([name, timeout]) => [name, Duration.millis(timeout)] as const)
  const connection = yield* AmqpConnection.make({ ...config, ...Object.fromEntries(timeouts) })
  const scope = yield* Scope.make()
  const client = yield* AmqpRpc.makeClient(options).pipe(
    Effect.provideService(AmqpConnection.AmqpConnection, connection),
    Scope.provide(scope)
  )
  return { client, scope }
})
