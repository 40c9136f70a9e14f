/** The client of request and reply where no real broker will misbehave on command: its order, its silence, its death. */
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

/** A broker that knows the pseudo-queue, and confirms nothing unasked. */
const brokerWith = (publish: (publish: Publish) => void, on: ScriptedBroker.Script = {}) =>
  ScriptedBroker.make({ on: { "basic.publish": publish, "basic.consume": startConsumer, ...on } })

const startConsumer: ScriptedBroker.Handler<"basic.consume"> = (consume) =>
  consume.reply("basic.consume-ok", { consumerTag: "replies" })

const idOf = (publish: Publish) => publish.content?.properties.correlationId ?? ""
const bodyOf = (publish: Publish) => Buffer.from(publish.content?.body ?? []).toString()

/** A reply on the channel of the request: its own content comes back, unless told otherwise. */
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
      // As RabbitMQ does it: with its own address in the place of the pseudo-queue's name.
      properties: { ...publish.content?.properties, replyTo: "amq.rabbitmq.reply-to.g1h2" },
      body: publish.content?.body ?? Buffer.alloc(0)
    }
  )

/** Waits until the client's counts are as wanted. */
const untilStats = (wanted: (stats: AmqpRpc.Stats) => boolean) => until(AmqpRpc.stats, wanted, "the client")

const nobody = { inFlight: 0, waiting: 0 }

describe("a request", () => {
  it.live("goes out when the consumer of replies has been started, mandatory, to be dropped when its time is up", () =>
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

  it.live("takes the client's options, save those that the call itself gives", () =>
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

  it.live("whose reply overtakes its confirm is answered, once", () =>
    Effect.gen(function* () {
      const held: Array<Publish> = []
      const broker = yield* brokerWith((publish) => {
        held.push(publish)
        reply(publish)
      })
      yield* Effect.gen(function* () {
        assert.strictEqual(yield* echo("early"), "early")
        // The confirm comes when nobody waits for it, and says nothing to the next request.
        broker.on("basic.publish", (publish) => {
          confirm(held[0]!)
          publish.reply("basic.nack", { deliveryTag: publish.deliveryTag })
        })
        assert.strictEqual((yield* reasonOf(echo("next")))._tag, "PublishNacked")
        assert.deepInclude(yield* AmqpRpc.stats, { ...nobody, replied: 1, unclaimed: 0 })
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
        assert.deepInclude(yield* AmqpRpc.stats, { ...nobody, replied: 100 })
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
        assert.deepInclude(yield* AmqpRpc.stats, { ...nobody, replied: 2, timedOut: 1 })
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("that was interrupted is forgotten; its reply is counted, and room is made at once", () =>
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
        assert.deepInclude(yield* AmqpRpc.stats, { ...nobody, replied: 1, unclaimed: 1 })
      }).pipe(withRpc(broker.url, { maxInFlight: 1 }))
    })
  )

  it.live("that no queue takes fails with the return, before any confirm", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith(giveBack)
      yield* Effect.gen(function* () {
        // Two alike: each has its own return.
        const [one, two] = yield* Effect.all([reasonOf(echo("same")), reasonOf(echo("same"))], { concurrency: 2 })
        assert.deepInclude(one, { _tag: "PublishReturned", replyCode: 312, routingKey: "echo" })
        assert.deepInclude(two, { _tag: "PublishReturned" })
        assert.deepInclude(yield* AmqpRpc.stats, nobody)
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("that ran out of time says whether the broker had queued it, or whether it was sent at all", () =>
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
        assert.deepInclude(yield* AmqpRpc.stats, { ...nobody, timedOut: 3 })
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("of many is in line while maxInFlight are out there, also when these were given up unconfirmed", () =>
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

  it.live(
    "of many is in line while maxInFlightBytes are out there: until the broker has confirmed and a server answered",
    () =>
      Effect.gen(function* () {
        const held: Array<Publish> = []
        const broker = yield* brokerWith((publish) => void held.push(publish))
        const large = (letter: string) => letter.repeat(98)
        yield* Effect.gen(function* () {
          const [first, second] = yield* Effect.forEach(["a", "b"], (letter) => Effect.forkChild(echo(large(letter))))
          yield* broker.received("basic.publish", 2)
          const third = yield* Effect.forkChild(echo(large("c")), { startImmediately: true })
          yield* untilStats((stats) => stats.waiting === 1)
          // Answered before it is confirmed, and confirmed before it is answered: both are needed.
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
      "1 requests are in flight (maxInFlight); 0 requests wait already (maxWaiting 0)"
    ],
    [
      "maxInFlightBytes",
      { maxInFlightBytes: 199, maxWaiting: 0 },
      "1 requests with 100 bytes are in flight (maxInFlightBytes 199)"
    ],
    ["maxWaiting", { maxInFlight: 1, maxWaiting: 1 }, "1 requests wait already (maxWaiting 1)"],
    [
      "maxWaitingBytes",
      { maxInFlight: 1, maxWaitingBytes: 199 },
      "1 requests with 100 bytes wait already (maxWaitingBytes 199)"
    ]
  ] as const) {
    it.live(`that is turned away says that ${bound} is why`, () =>
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
    "to a broker that has stopped reading is bounded in bytes: the rest is turned away at once, and nothing is lost",
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
          // Nothing may expire while this machine is busy.
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
            // A turn of the event loop for each, as requests of a server have.
            yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
          }
          const grown = (bytesHeld() - before) / 2 ** 20
          const { inFlight, waiting } = yield* AmqpRpc.stats
          assert.isAtMost(waiting, 32)
          assert.isAbove(outcomes["PoolExhausted"]!, 300)
          assert.strictEqual(outcomes["PoolExhausted"], 400 - waiting - inFlight)
          // Without the bound it is more than 50.
          assert.isBelow(grown, 35)
          broker.resume()
          for (const fiber of calls) yield* Fiber.join(fiber)
          assert.strictEqual(outcomes["answered"], waiting + inFlight)
        }).pipe(withRpc(broker.url, { maxWaitingBytes: 2 ** 21 }))
      })
  )

  it.live("by the thousand, all of which fail or wait together, does not overflow the stack", () =>
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
        assert.deepInclude(yield* AmqpRpc.stats, nobody)
      }).pipe(withRpc(broker.url))
    })
  )

  it.live("that publishers' being blocked would hold up fails or waits, as told", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => {
        confirm(publish)
        reply(publish)
      })
      yield* Effect.gen(function* () {
        yield* echo("warm")
        const { flow } = yield* AmqpConnection.AmqpConnection
        broker.block("low on memory")
        yield* untilStats(() => flow.value._tag === "Blocked")
        const refused = yield* reasonOf(echo("no", { onBlocked: "fail" }))
        assert.strictEqual(refused._tag, "PublishForbidden")
        assert.include(refused.message, "low on memory")
        const waiting = yield* Effect.forkChild(echo("yes"), { startImmediately: true })
        yield* untilStats((stats) => stats.waiting === 1)
        assert.strictEqual(broker.count("basic.publish"), 1)
        broker.unblock()
        assert.strictEqual(yield* Fiber.join(waiting), "yes")
        // One that is in line when it happens.
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
  // A WeakRef keeps what it refers to until the end of the turn.
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

  it.live("of type defect is RemoteFailure, with what the server says of it", () =>
    Effect.gen(function* () {
      const told = yield* failureOf('{"message":"out of order"}', "defect")
      assert.strictEqual(told._tag, "RemoteFailure")
      assert.include(told.message, "echo")
      assert.include(told.message, "out of order")
      for (const body of ["", "null", "[]", "7", '{"message":7}', "not json"]) {
        assert.strictEqual((yield* failureOf(body, "defect"))._tag, "RemoteFailure", body)
      }
    })
  )

  it.live("that is not as agreed is DecodeFailed: another type, another shape, no JSON", () =>
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
    it.live(`in mid-request (${how}): the unconfirmed are of unknown outcome, the confirmed lost their reply`, () =>
      Effect.gen(function* () {
        const { broker, held } = yield* heldBroker
        yield* Effect.gen(function* () {
          const confirmed = yield* Effect.forkChild(reasonOf(echo("confirmed")), { startImmediately: true })
          yield* broker.received("basic.publish")
          const unconfirmed = yield* Effect.forkChild(reasonOf(echo("unconfirmed")), { startImmediately: true })
          yield* broker.received("basic.publish", 2)
          confirm(held[0]!)
          // Answered after the confirm, on the same socket: so the client has seen that.
          const seen = yield* Effect.forkChild(echo("seen"), { startImmediately: true })
          yield* broker.received("basic.publish", 3)
          reply(held[2]!)
          yield* Fiber.join(seen)
          kill(broker)
          const lost = yield* Fiber.join(confirmed)
          assert.strictEqual(lost._tag, tag)
          assert.include(lost.message, "the reply is lost")
          assert.strictEqual((yield* Fiber.join(unconfirmed))._tag, "PublishUnknown")
          assert.deepInclude(yield* AmqpRpc.stats, nobody)
          // And the next one opens another channel.
          broker.on("basic.publish", (publish) => reply(publish))
          assert.strictEqual(yield* echo("next"), "next")
          assert.strictEqual(broker.count("basic.consume"), 2)
        }).pipe(withRpc(broker.url))
        yield* broker.socketsClosed
      })
    )
  }

  it.live("is survived by those in line, which go out on the next one", () =>
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

  it.live(
    "and a successor that takes smaller frames: headers that do not fit any more are refused, the rest goes out",
    () =>
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

  it.live("and a successor that takes smaller messages: what was in line is measured again", () =>
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

  it.live("by the broker's cancelling the consumer of replies is no silence", () =>
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

  it.live("while it opens: requests wait for the connection to be made again", () =>
    Effect.gen(function* () {
      const broker = yield* brokerWith((publish) => reply(publish))
      broker.once("channel.open", (open) => open.destroy())
      broker.once("basic.consume", (consume) => consume.destroy())
      assert.strictEqual(yield* echo("patient").pipe(withRpc(broker.url)), "patient")
      yield* broker.socketsClosed
    })
  )

  it.live("at its opening, by an error of its own, is told to those in line; the next ones try again", () =>
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
        // The opening goes on, and serves the next.
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
  it.live("waits for replies up to shutdownTimeout, turns away who comes or is in line, and closes the channel", () =>
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

  it.live("fails what is still out there then, each with what is known of it", () =>
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
      assert.deepInclude(yield* client.stats, nobody)
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
