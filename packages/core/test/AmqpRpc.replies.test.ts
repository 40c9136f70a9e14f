/**
 * The two ways of a reply: by its request's channel, followed by the acknowledgement; and by the publisher, with the
 * acknowledgement after the confirm.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import {
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  AmqpMessage,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Layer, Metric, Queue, Redacted, Schema, type Scope, Tracer } from "effect"
import { configOf, type Overrides, quietly, reasonOf } from "./support/amqp.ts"
import {
  declareQueue,
  declareWithDeadLetters,
  next,
  onBroker,
  send,
  untilQueue,
  withConsumers
} from "./support/consumers.ts"
import * as FaultProxy from "./support/FaultProxy.ts"
import { until } from "./support/polling.ts"
import { range } from "./support/ranges.ts"
import { startAll, untilFlow, untilStats } from "./support/publisher.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { collecting, contextOf, parentOf, traced } from "./support/spans.ts"
import * as Users from "./support/users.ts"
import { limitBodies } from "./support/versions.ts"

const Echo = AmqpRpc.make("echo", { payload: Schema.String, success: Schema.String })
const Fill = AmqpRpc.make("fill", { payload: Schema.Int, success: Schema.String })

/** Serves until the scope closes. The end does not wait for running handlers. */
const serving = <P extends Schema.Constraint, S extends Schema.Constraint>(
  procedure: AmqpRpc.Procedure<P, S, typeof Schema.Never>,
  handler: (payload: P["Type"], request: AmqpConsumer.Delivery) => Effect.Effect<S["Type"], never, Scope.Scope>,
  options?: AmqpRpc.ServeOptions
) =>
  Effect.forkScoped(
    AmqpRpc.serve(procedure, handler, { shutdownTimeout: 0, ...options }) as Effect.Effect<
      never,
      never,
      AmqpConsumer.AmqpConsumer
    >
  )

// --- A scripted broker ----------------------------------------------------------------------------------------------------

const pid = Buffer.concat([Buffer.from([131, 88, 119, 11]), Buffer.from("rabbit@host"), Buffer.alloc(12)])
const address = `amq.rabbitmq.reply-to.${pid.toString("base64")}.key`

/** Puts a request into the queue. Its word is its name. */
const ask = (broker: ScriptedBroker.ScriptedBroker, word: string, replyTo = address) =>
  broker.enqueue("echo", JSON.stringify(word), { correlationId: word.slice(0, 20), replyTo, type: "echo" })

/** Everything that was sent on the server's channels or the publisher's, from a position in the log. */
const said = (broker: ScriptedBroker.ScriptedBroker, from = 0): ReadonlyArray<string> =>
  broker.log.slice(from).flatMap(({ args, channel, content, deliveryTag, method }) => {
    if (method === "basic.publish") {
      const way = deliveryTag > 0 ? "publisher" : `channel ${channel}`
      return [`${content?.properties.correlationId} by ${way}`]
    }
    return method === "basic.ack" || method === "basic.nack" || method === "basic.reject"
      ? [`${method}${"multiple" in args && args.multiple === true ? " multiple" : ""} on channel ${channel}`]
      : []
  })

/** The channel of the last subscription. */
const channelOf = (broker: ScriptedBroker.ScriptedBroker) =>
  broker.log.findLast(({ method }) => method === "basic.consume")?.channel

const allSettled = (broker: ScriptedBroker.ScriptedBroker) =>
  broker.until(({ ready, unsettled }) => unsettled === 0 && ready("echo") === 0)

/** One request and its reply, and nothing else: returns what was sent in the meantime. */
const exchange = (broker: ScriptedBroker.ScriptedBroker, word: string, replyTo?: string) =>
  Effect.gen(function* () {
    const from = broker.log.length
    const settled = broker.count("basic.ack") + broker.count("basic.nack")
    ask(broker, word, replyTo)
    yield* broker.until(({ count }) => count("basic.ack") + count("basic.nack") > settled)
    return said(broker, from)
  })

const byPublisher = (broker: ScriptedBroker.ScriptedBroker, word: string) => [
  `${word} by publisher`,
  `basic.ack on channel ${channelOf(broker)}`
]

const byChannel = (broker: ScriptedBroker.ScriptedBroker, word: string) => [
  `${word} by channel ${channelOf(broker)}`,
  `basic.ack on channel ${channelOf(broker)}`
]

/** Many tests lose connections, and none is about the delay after a loss. */
const hasty: Overrides = {
  reconnect: {
    minDelay: Duration.millis(5),
    maxDelay: Duration.millis(50),
    healthyAfter: Duration.millis(10),
    schedule: undefined,
    onRefused: "retry"
  }
}

type Needs = AmqpConsumer.AmqpConsumer | AmqpPool.AmqpPool | AmqpPublisher.AmqpPublisher | Scope.Scope

const withServer = (program: (broker: ScriptedBroker.ScriptedBroker) => Effect.Effect<void, unknown, Needs>) =>
  Effect.gen(function* () {
    const broker = yield* ScriptedBroker.make()
    yield* withConsumers(broker.url, hasty)(program(broker))
  })

/** The same, with another publisher. */
const withPublisher = (
  publisher: (
    url: string
  ) => Layer.Layer<AmqpPublisher.AmqpPublisher, AmqpError.AmqpError, AmqpConnection.AmqpConnection>,
  program: (
    broker: ScriptedBroker.ScriptedBroker
  ) => Effect.Effect<void, unknown, AmqpConsumer.AmqpConsumer | AmqpPublisher.AmqpPublisher | Scope.Scope>
) =>
  Effect.gen(function* () {
    const broker = yield* ScriptedBroker.make()
    const { url } = broker
    const own = AmqpConsumer.layer.pipe(
      Layer.provideMerge(publisher(url)),
      Layer.provideMerge(AmqpConnection.layer(configOf(url)))
    )
    yield* program(broker).pipe(Effect.scoped, Effect.provide(own, { local: true }), quietly)
  })

/** A server that may reply by its request's channel, since one reply was confirmed. */
const proven =
  (
    handler: (word: string, request: AmqpConsumer.Delivery) => Effect.Effect<string> = Effect.succeed,
    options?: AmqpRpc.ServeOptions
  ) =>
  (broker: ScriptedBroker.ScriptedBroker) =>
    Effect.gen(function* () {
      const server = yield* serving(Echo, handler, options)
      yield* exchange(broker, "warm")
      assert.deepStrictEqual(yield* exchange(broker, "straight"), byChannel(broker, "straight"))
      return server
    })

describe("a reply to an address of direct reply-to as LavinMQ writes it", () => {
  const ofLavin = "amq.direct.reply-to.ctag-0b1c"

  it.live(
    "goes by the publisher, mandatory and confirmed, to a client that is connected, and is not taken for a queue",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make({
          serverProperties: { product: "LavinMQ", version: "2.4.0", capabilities: { publisher_confirms: true } },
          // The broker does not return the delivered messages.
          on: {
            "basic.publish": (publish) =>
              publish.reply("basic.ack", { deliveryTag: publish.deliveryTag, multiple: false })
          }
        })
        const { ended, tracer } = collecting()
        yield* Effect.gen(function* () {
          const refused = (yield* Metric.value(AmqpRpc.refusedReplies)).count
          const unroutable = (yield* Metric.value(AmqpRpc.unroutable)).count
          yield* serving(Echo, Effect.succeed)
          // None goes by the channel of the request, whatever was confirmed before.
          for (const word of ["first", "second"]) {
            assert.deepStrictEqual(yield* exchange(broker, word, ofLavin), byPublisher(broker, word))
          }
          const replies = broker.log.filter((received) => received.method === "basic.publish")
          for (const { args } of replies) {
            assert.deepInclude(args, { exchange: "", routingKey: ofLavin, mandatory: true })
          }
          assert.deepStrictEqual(
            replies.map(({ content }) => Buffer.from(content?.body ?? []).toString()),
            ['"first"', '"second"']
          )
          assert.strictEqual((yield* Metric.value(AmqpRpc.unroutable)).count, unroutable)
          // The client is gone, and the reply is returned.
          broker.off("basic.publish")
          assert.deepStrictEqual(yield* exchange(broker, "gone", ofLavin), byPublisher(broker, "gone"))
          assert.strictEqual((yield* Metric.value(AmqpRpc.unroutable)).count, unroutable + 1)
          assert.strictEqual((yield* Metric.value(AmqpRpc.refusedReplies)).count, refused)
          // All clients share one span name.
          assert.lengthOf(yield* ended("publish amq.rabbitmq.reply-to", 3), 3)
        }).pipe(withConsumers(broker.url, hasty), Effect.provideService(Tracer.Tracer, tracer))
      })
  )
})

describe("a small reply by direct reply-to", () => {
  it.live(
    "goes by its request's channel, in front of the acknowledgement, after one on that connection was confirmed",
    () =>
      withServer((broker) =>
        Effect.gen(function* () {
          yield* serving(Echo, Effect.succeed)
          for (const connection of [1, 2]) {
            yield* broker.received("basic.consume", connection)
            const from = broker.log.length
            const publishes = broker.count("basic.publish")
            broker.on("basic.publish", (publish) => publish.hold())
            // Nothing is confirmed: every reply goes by the publisher, and no request is acknowledged.
            for (const [i, word] of ["first", "second", "third"].entries()) {
              ask(broker, word)
              yield* broker.received("basic.publish", publishes + i + 1)
            }
            assert.deepStrictEqual(said(broker, from), [
              "first by publisher",
              "second by publisher",
              "third by publisher"
            ])
            broker.off("basic.publish")
            broker.release("basic.publish")
            yield* allSettled(broker)
            for (const word of ["a", "b", "c"]) {
              assert.deepStrictEqual(yield* exchange(broker, word), byChannel(broker, word))
            }
            if (connection === 1) broker.destroy()
          }
          assert.strictEqual(broker.log.filter(({ method }) => method === "basic.consume").length, 2)
        })
      )
  )

  it.live("waits for no confirm: a hundred are written in order, with all acknowledgements behind them", () =>
    withServer((broker) =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        yield* proven(
          (word) => (word.startsWith("word") ? Effect.as(Deferred.await(gate), word) : Effect.succeed(word)),
          {
            concurrency: 100
          }
        )(broker)
        const from = broker.log.length
        for (const i of range(100)) ask(broker, `word ${i}`)
        yield* broker.until(({ unsettled }) => unsettled === 100)
        yield* Deferred.succeed(gate, undefined)
        yield* allSettled(broker)
        const publishes = broker.log.slice(from).filter(({ method }) => method === "basic.publish")
        assert.strictEqual(publishes.length, 100)
        // An acknowledgement follows the reply of each request that it settles.
        const replied = new Set<string>()
        let tag = 2
        for (const { args, channel, content, method } of broker.log.slice(from)) {
          assert.strictEqual(channel, channelOf(broker))
          if (method === "basic.publish") replied.add(content?.properties.correlationId ?? "")
          if (method !== "basic.ack" || !("deliveryTag" in args) || !("multiple" in args)) continue
          const first = args.multiple === true ? tag + 1 : args.deliveryTag
          for (let each = Number(first); each <= Number(args.deliveryTag); each++) {
            assert.isTrue(replied.has(`word ${each - 3}`), `the request ${each - 3} was settled before its reply`)
          }
          tag = Number(args.deliveryTag)
        }
      })
    )
  )
})

describe("a reply that may not follow its request's channel", () => {
  /**
   * The reply goes by the publisher, and its request is acknowledged after its confirm. Another reply in the meantime
   * goes by the channel.
   */
  const confirmedFirst = (broker: ScriptedBroker.ScriptedBroker, word: string, replyTo?: string) =>
    Effect.gen(function* () {
      const from = broker.log.length
      const publishes = broker.count("basic.publish")
      broker.once("basic.publish", (publish) => publish.hold())
      ask(broker, word, replyTo)
      const name = word.slice(0, 20)
      const { args } = yield* broker.received("basic.publish", publishes + 1)
      assert.deepStrictEqual(yield* exchange(broker, "beside"), byChannel(broker, "beside"))
      assert.strictEqual(broker.unsettled, 1)
      broker.release("basic.publish")
      yield* allSettled(broker)
      assert.deepStrictEqual(said(broker, from), [
        `${name} by publisher`,
        ...byChannel(broker, "beside"),
        `basic.ack on channel ${channelOf(broker)}`
      ])
      return args
    })

  it.live("goes by the publisher if it is larger than 4 KiB, and its request is acknowledged after the confirm", () =>
    withServer((broker) =>
      Effect.gen(function* () {
        yield* proven()(broker)
        // With the quotation marks, this is 4096 bytes.
        const largest = "ü".repeat(2047)
        assert.deepStrictEqual(yield* exchange(broker, largest), byChannel(broker, largest.slice(0, 20)))
        assert.deepInclude(yield* confirmedFirst(broker, `${largest}x`), { routingKey: address, mandatory: false })
      })
    )
  )

  it.live("goes by the publisher, mandatory, if it is addressed to a queue", () =>
    withServer((broker) =>
      Effect.gen(function* () {
        yield* declareQueue({}, "answers")
        yield* proven(undefined, { replyTo: "any" })(broker)
        const args = yield* confirmedFirst(broker, "to a queue", "answers")
        assert.deepInclude(args, { routingKey: "answers", mandatory: true })
        assert.strictEqual(broker.ready("answers"), 1)
      })
    )
  )

  it.live("goes by the publisher if its request has been delivered before", () =>
    withServer((broker) =>
      Effect.gen(function* () {
        const pool = yield* AmqpPool.AmqpPool
        for (const word of ["warm", "again", "new"]) ask(broker, word)
        // The first two have been delivered before.
        yield* pool.use((channel) =>
          Effect.gen(function* () {
            const warm = yield* channel.get("echo")
            const again = yield* channel.get("echo")
            for (const each of [again, warm])
              if (each._tag === "Some") yield* channel.nack(each.value, { requeue: true })
          })
        )
        yield* broker.until(({ ready }) => ready("echo") === 3)
        const from = broker.log.length
        broker.on("basic.publish", (publish) => publish.hold())
        yield* serving(Echo, Effect.succeed, { concurrency: 1 })
        for (const i of [1, 2]) {
          yield* broker.received("basic.publish", i)
          assert.strictEqual(broker.unsettled, 1)
          assert.strictEqual(broker.release("basic.publish"), 1)
        }
        yield* allSettled(broker)
        assert.deepStrictEqual(
          said(broker, from),
          [byPublisher(broker, "warm"), byPublisher(broker, "again"), byChannel(broker, "new")].flat()
        )
      })
    )
  )

  it.live("goes by the publisher if its handler has settled the request, which is settled once", () =>
    withServer((broker) =>
      Effect.gen(function* () {
        yield* proven((word, { ack }) => (word === "mine" ? Effect.as(Effect.orDie(ack), word) : Effect.succeed(word)))(
          broker
        )
        const from = broker.log.length
        const publishes = broker.count("basic.publish")
        ask(broker, "mine")
        yield* broker.received("basic.publish", publishes + 1)
        yield* exchange(broker, "next")
        const ack = `basic.ack on channel ${channelOf(broker)}`
        assert.deepStrictEqual(said(broker, from), [ack, "mine by publisher", ...byChannel(broker, "next")])
      })
    )
  )

  it.live("goes by the publisher if it exceeds its maxMessageSize, and the client gets an error", () =>
    withPublisher(
      () => AmqpPublisher.layerWith({ maxMessageSize: 1000 }),
      (broker) =>
        Effect.gen(function* () {
          yield* proven()(broker)
          const largest = "x".repeat(998)
          assert.deepStrictEqual(yield* exchange(broker, largest), byChannel(broker, largest.slice(0, 20)))
          const said = yield* exchange(broker, `${largest}x`)
          assert.deepStrictEqual(said, byPublisher(broker, largest.slice(0, 20)))
          const lastPublish = broker.log.findLast(({ method }) => method === "basic.publish")
          assert.strictEqual(lastPublish?.content?.properties.type, "defect")
        })
    )
  )

  it.live("goes by the publisher if that has another connection than the server, since its user may be another", () =>
    withPublisher(
      (url) => AmqpPublisher.layer.pipe(Layer.provide(Layer.fresh(AmqpConnection.layer(configOf(url))))),
      (broker) =>
        Effect.gen(function* () {
          yield* serving(Echo, Effect.succeed)
          for (const word of ["a", "b", "c"]) {
            assert.deepStrictEqual(yield* exchange(broker, word), byPublisher(broker, word))
          }
        })
    )
  )

  it.live("waits with its acknowledgement while the broker blocks publishers; both go out when the block ends", () =>
    withServer((broker) =>
      Effect.gen(function* () {
        yield* proven()(broker)
        const from = broker.log.length
        broker.block()
        yield* untilFlow("Blocked")
        for (const word of ["a", "b", "c"]) ask(broker, word)
        yield* untilStats((stats) => stats.waiting === 3)
        assert.strictEqual(broker.unsettled, 3)
        assert.deepStrictEqual(said(broker, from), [])
        broker.unblock()
        yield* allSettled(broker)
        assert.deepStrictEqual(said(broker, from).slice(0, 3), ["a by publisher", "b by publisher", "c by publisher"])
        assert.deepStrictEqual(yield* exchange(broker, "d"), byChannel(broker, "d"))
      })
    )
  )
})

describe("a broker that closes the channel because of a reply", () => {
  for (const code of [406, 403]) {
    it.live(
      `gets no second one that way: the request is redelivered, its reply is confirmed, and the server continues (${code})`,
      () =>
        withServer((broker) =>
          Effect.gen(function* () {
            const handled: Array<string> = []
            const server = yield* proven((word, { redelivered }) => {
              handled.push(`${word} ${redelivered}`)
              return Effect.succeed(word)
            })(broker)
            const from = broker.log.length
            const was = channelOf(broker)
            broker.once("basic.publish", (publish) => publish.closeChannel(code))
            ask(broker, "bad")
            yield* broker.received("basic.consume", 2)
            yield* allSettled(broker)
            assert.deepStrictEqual(handled.slice(-2), ["bad false", "bad true"])
            // The broker does not read the acknowledgement after the first reply: the channel was closing.
            assert.deepStrictEqual(said(broker, from), [`bad by channel ${was}`, ...byPublisher(broker, "bad")])
            for (const word of ["a", "b"]) {
              assert.deepStrictEqual(yield* exchange(broker, word), byChannel(broker, word))
            }
            assert.isUndefined(server.pollUnsafe())
            assert.strictEqual(broker.count("basic.consume"), 2)
            assert.strictEqual(broker.count("accept"), 1)
          })
        )
    )
  }

  it.live("and also the publisher's channel, gets replies from the publisher only, until one was confirmed", () =>
    withServer((broker) =>
      Effect.gen(function* () {
        yield* proven()(broker)
        broker.on("basic.publish", (publish) => publish.closeChannel(403))
        const from = broker.log.length
        const was = channelOf(broker)
        ask(broker, "bad")
        yield* broker.received("basic.nack")
        const nack = `basic.nack on channel ${channelOf(broker)}`
        assert.deepStrictEqual(said(broker, from), [`bad by channel ${was}`, "bad by publisher", nack])
        assert.deepInclude((yield* broker.received("basic.nack")).args, { requeue: false })
        for (const word of ["refused", "still refused"]) {
          assert.deepStrictEqual(yield* exchange(broker, word), [`${word} by publisher`, nack])
        }
        broker.off("basic.publish")
        assert.deepStrictEqual(yield* exchange(broker, "confirmed"), byPublisher(broker, "confirmed"))
        assert.deepStrictEqual(yield* exchange(broker, "after"), byChannel(broker, "after"))
        assert.strictEqual(broker.count("basic.consume"), 2)
        assert.strictEqual(broker.unsettled, 0)
      })
    )
  )
})

// --- A real broker --------------------------------------------------------------------------------------------------------

type Client = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, AmqpRpc.AmqpRpc>>

/** A client with its own connection, until the scope closes. */
const clientOn = (url: string, overrides?: Overrides) =>
  Effect.map(
    Layer.build(Layer.fresh(AmqpRpc.layer.pipe(Layer.provide(AmqpConnection.layer(configOf(url, overrides)))))),
    (context): Client =>
      (effect) =>
        Effect.provideContext(effect, context) as never
  ).pipe(quietly)

/** The broker's identifiers of the channels that have consumers. */
const consumingChannels = Effect.flatMap(TestBroker.TestBroker, ({ evaluate, vhost }) =>
  evaluate(`[proplists:get_value(channel_pid, C) || C <- rabbit_amqqueue:consumers_all(<<"${vhost}">>)].`)
)

const empty = { ready: 0, unacked: 0 }

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a reply", () => {
    it.effect("that is larger than the broker accepts fails its own call with RemoteFailure, and no other call", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* limitBodies(1000)
        yield* Effect.gen(function* () {
          yield* declareQueue({}, "fill")
          const handled: Array<boolean> = []
          const server = yield* serving(Fill, (length, { redelivered }) => {
            if (length === 3000) handled.push(redelivered)
            return Effect.succeed("x".repeat(length))
          })
          const client = yield* clientOn(url)
          const fill = AmqpRpc.client(Fill)
          assert.lengthOf(yield* client(fill(1)), 1)
          const channel = yield* consumingChannels
          const calls = yield* startAll(range(100).map((i) => client(fill(i === 40 ? 3000 : i))))
          for (const [i, call] of calls.entries()) {
            if (i !== 40) assert.lengthOf(yield* Fiber.join(call), i)
            else assert.strictEqual((yield* reasonOf(Fiber.join(call)))._tag, "RemoteFailure")
          }
          // The broker has closed a channel for it once.
          assert.deepStrictEqual(handled, [false, true])
          assert.notStrictEqual(yield* consumingChannels, channel)
          assert.lengthOf(yield* client(fill(2)), 2)
          yield* untilQueue("fill", { ...empty, consumers: 1 })
          assert.isUndefined(server.pollUnsafe())
        }).pipe((program) => onBroker(program, hasty))
      })
    )

    it.effect(
      "of a user that may not reply costs no channel: its requests are dead-lettered, one after the other",
      () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const user = yield* Users.make("sesame")
          yield* user.permit(".*", "^(?!amq\\\\.default$).*", ".*")
          const credentials = { _tag: "Plain", username: user.name, password: Redacted.make("sesame") } as const
          yield* Effect.gen(function* () {
            const { deadLetters, queue } = yield* declareWithDeadLetters()
            const Ask = AmqpRpc.make("ask", {
              payload: Schema.String,
              success: Schema.String,
              queue,
              routingKey: queue
            })
            yield* Effect.gen(function* () {
              const handled: Array<string> = []
              const server = yield* serving(Ask, (word, { redelivered }) => {
                handled.push(`${word} ${redelivered}`)
                return Effect.succeed(word)
              })
              yield* untilQueue(queue, { consumers: 1 })
              const channel = yield* consumingChannels
              const client = yield* clientOn(url)
              for (const word of ["a", "b", "c"]) {
                yield* Effect.forkScoped(Effect.exit(client(AmqpRpc.client(Ask)(word))))
                assert.strictEqual(AmqpMessage.text(yield* next(deadLetters)), JSON.stringify(word))
              }
              yield* untilQueue(queue, { ...empty, consumers: 1 })
              assert.deepStrictEqual(handled, ["a false", "b false", "c false"])
              assert.strictEqual(yield* consumingChannels, channel)
              // The user replies as soon as it has the permission.
              yield* user.permit(".*", ".*", ".*")
              assert.strictEqual(yield* client(AmqpRpc.client(Ask)("d")), "d")
              assert.isUndefined(server.pollUnsafe())
            }).pipe((program) => onBroker(program, { ...hasty, credentials }))
          }).pipe((program) => onBroker(program))
        })
    )

    it.effect(
      "waits for a memory alarm to end, while consumers continue; then each call gets its own, handled once",
      () =>
        Effect.gen(function* () {
          const { blockPublishers, unblockPublishers, url } = yield* TestBroker.TestBroker
          yield* Effect.gen(function* () {
            yield* declareQueue({}, "echo")
            const work = yield* declareQueue()
            const messages = 50
            yield* send(work, ...range(messages).map(String))
            const handled = new Map<string, number>()
            const gates = { first: yield* Deferred.make<void>(), others: yield* Deferred.make<void>() }
            yield* serving(
              Echo,
              (word) =>
                Effect.gen(function* () {
                  handled.set(word, (handled.get(word) ?? 0) + 1)
                  if (word !== "warm") yield* Deferred.await(word === "first" ? gates.first : gates.others)
                  return word
                }),
              { concurrency: 100 }
            )
            const client = yield* clientOn(url)
            const echo = AmqpRpc.client(Echo)
            assert.strictEqual(yield* client(echo("warm")), "warm")
            const first = yield* Effect.forkChild(client(echo("first")))
            const words = range(40).map((i) => `word ${i}`)
            const calls = yield* startAll(words.map((word) => client(echo(word))))
            yield* untilQueue("echo", { ready: 0, unacked: 41 })

            yield* Effect.acquireRelease(blockPublishers, () => Effect.orDie(unblockPublishers))
            // The broker notifies a connection when it publishes. It reads that reply when the alarm is over.
            yield* Deferred.succeed(gates.first, undefined)
            yield* untilFlow("Blocked")
            yield* Deferred.succeed(gates.others, undefined)
            yield* untilStats((stats) => stats.waiting === 40)
            yield* Effect.forkScoped(AmqpConsumer.consume(work, () => Effect.void))
            yield* untilQueue(work, { ...empty, consumers: 1 })
            yield* untilQueue("echo", { ready: 0, unacked: 41 })
            for (const call of [first, ...calls]) assert.isUndefined(call.pollUnsafe())

            yield* unblockPublishers
            assert.strictEqual(yield* Fiber.join(first), "first")
            for (const [i, call] of calls.entries()) assert.strictEqual(yield* Fiber.join(call), words[i])
            yield* untilQueue("echo", empty)
            assert.deepStrictEqual(handled, new Map(["warm", "first", ...words].map((word) => [word, 1])))
          }).pipe((program) => onBroker(program))
        })
    )

    /** Callers, each with one call at a time, until the effect has ended. Returns the number of calls. */
    const calling = <E, R>(
      call: (word: string) => Effect.Effect<string, unknown, R>,
      during: (answered: (more: number) => Effect.Effect<void>) => Effect.Effect<void, E, R>
    ) =>
      Effect.gen(function* () {
        const stop = { now: false }
        let calls = 0
        let replies = 0
        const callers = yield* startAll(
          range(20).map(() =>
            Effect.gen(function* () {
              while (!stop.now) {
                const word = String(calls++)
                assert.strictEqual(yield* call(word), word)
                replies++
              }
            })
          )
        )
        const answered = (more: number) => {
          const from = replies
          return Effect.asVoid(
            until(
              Effect.sync(() => replies - from),
              (now) => now >= more || callers.some((caller) => caller.pollUnsafe() !== undefined),
              "calls answered"
            )
          )
        }
        yield* during(answered)
        stop.now = true
        yield* Fiber.joinAll(callers)
        return calls
      })

    it.effect("that is cut off anywhere, with the server's connection, is sent again: no caller notices", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const proxy = yield* FaultProxy.make(url)
        const client = yield* clientOn(url)
        const program = Effect.gen(function* () {
          yield* declareQueue({}, "echo")
          let redeliveries = 0
          yield* serving(
            Echo,
            (word, { redelivered }) => {
              if (redelivered) redeliveries++
              return Number(word) % 3 === 0 ? Effect.as(Effect.yieldNow, word) : Effect.succeed(word)
            },
            { concurrency: 20 }
          )
          const echo = AmqpRpc.client(Echo, { timeout: "20 seconds" })
          const cuts = 25
          const calls = yield* calling(
            (word) => client(echo(word)),
            (answered) =>
              Effect.gen(function* () {
                for (let cut = 1; cut <= cuts; cut++) {
                  yield* answered(40)
                  proxy.cutAfter(1 + ((cut * 37) % 211), "up", cut % 2 === 0 ? "rst" : "fin")
                  yield* proxy.until(({ accepted }) => accepted > cut)
                }
                yield* answered(40)
              })
          )
          assert.isAbove(calls, cuts * 40)
          assert.isAbove(redeliveries, 0)
          yield* untilQueue("echo", empty)
          assert.deepInclude(yield* client(AmqpRpc.stats), { inFlight: 0, waiting: 0, timedOut: 0 })
        })
        yield* withConsumers(proxy.through(url), hasty)(program)
      })
    )

    it.effect(
      "that is lost with every connection is replaced by the reply of the next try, and the queue ends empty",
      () =>
        Effect.gen(function* () {
          const { killConnections, url } = yield* TestBroker.TestBroker
          const client = yield* clientOn(url, hasty)
          yield* Effect.gen(function* () {
            yield* declareQueue({}, "echo")
            yield* serving(Echo, Effect.succeed, { concurrency: 20 })
            const echo = AmqpRpc.client(Echo, { timeout: "20 seconds" })
            const failures = new Set<string>()
            const calls = yield* calling(
              (word) =>
                client(
                  Effect.retry(
                    Effect.tapError(echo(word), ({ reason }) => Effect.sync(() => failures.add(reason._tag))),
                    { while: (error) => error.isRetryable }
                  )
                ),
              (answered) =>
                Effect.gen(function* () {
                  for (let kill = 1; kill <= 10; kill++) {
                    yield* answered(40)
                    yield* Effect.orDie(killConnections)
                  }
                  yield* answered(40)
                })
            )
            assert.isAbove(calls, 400)
            for (const failure of failures) {
              assert.include(["PublishUnknown", "ConnectionClosed", "ChannelClosed"], failure)
            }
            yield* untilQueue("echo", empty)
          }).pipe((program) => onBroker(program, hasty))
        })
    )

    it.effect("has one span, below that of its handler, and its context travels, whichever way the reply goes", () =>
      traced(({ ended }) =>
        Effect.gen(function* () {
          yield* declareQueue({}, "fill")
          yield* serving(Fill, (length) => Effect.succeed("x".repeat(length)))
          yield* Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.gen(function* () {
                const replyTo = "amq.rabbitmq.reply-to"
                const { deliveries } = yield* channel.consume(replyTo, { noAck: true })
                const reply = "publish amq.rabbitmq.reply-to"
                // The first reply goes by the publisher, the second by the channel, the third by the publisher.
                for (const [i, length] of [1, 2, 5000].entries()) {
                  yield* channel.publish({ routingKey: "fill", content: String(length), replyTo, type: "fill" })
                  const { content, properties } = yield* Queue.take(deliveries)
                  assert.lengthOf(content, length + 2)
                  const handled = yield* ended("process fill", i + 1)
                  const replies = yield* ended(reply, i + 1)
                  assert.lengthOf(replies, i + 1, `spans of ${i + 1} replies`)
                  assert.strictEqual(parentOf(replies[i]!), handled[i]!.spanId)
                  assert.strictEqual(properties.headers["traceparent"], contextOf(replies[i]!))
                  assert.deepStrictEqual(replies[i]!.links, [])
                }
              })
            )
          )
        })
      )
    )
  })
})
