/** Topologies: what is declared, in which order, and when it is declared again. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, type AmqpConnection, type AmqpError, AmqpPool, AmqpTopology } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Layer, Logger, Queue, References } from "effect"
import { inspect } from "node:util"
import { onTestBroker } from "./support/client.ts"
import { layerOf, reasonOf, untilOpen, withPool } from "./support/amqp.ts"
import { until } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const { exchange, queue, queueBinding: bind } = AmqpTopology

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  const shop = AmqpTopology.make(
    exchange("shop.inner", "direct"),
    exchange("shop", "topic", { alternateExchange: "shop.lost" }),
    exchange("shop.lost", "fanout"),
    queue("shop.orders", { messageTtl: "1 hour", queueType: "classic" }),
    queue("shop.lost", { maxLength: 1000 }),
    AmqpTopology.exchangeBinding("shop.inner", "shop", "order.*"),
    bind("shop.orders", "shop.inner", "order.created"),
    bind("shop.lost", "shop.lost")
  )

  describe("declare", () => {
    it.effect("declared topology routes as described; declaring it again changes nothing and loses no message", () =>
      onTestBroker({}, function* ({ queues }) {
        yield* AmqpTopology.declare(shop)
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            yield* channel.publish({ exchange: "shop", routingKey: "order.created", content: "" })
            yield* channel.publish({ exchange: "shop", routingKey: "nobody's", content: "" })
            yield* channel.queueDeclarePassive("shop.orders")
          })
        )
        const wanted = (rows: ReadonlyArray<TestBroker.QueueCensus>) =>
          ["shop.lost", "shop.orders"].every((name) => rows.find((row) => row.name === name)?.ready === 1)
        const before = yield* until(queues, wanted)
        yield* AmqpTopology.declare(shop)
        yield* AmqpTopology.declare(AmqpTopology.make(shop, shop))
        assert.deepStrictEqual(yield* queues, before)
      })
    )

    it.effect("a single part is declared, verified and kept declared like a topology", () =>
      onTestBroker({}, function* ({ queues }) {
        const declared = Effect.map(queues, (rows) => rows.map(({ name }) => name))
        yield* AmqpTopology.declare(queue("single"))
        assert.include(yield* declared, "single")
        yield* AmqpTopology.verify(queue("single"))
        assert.strictEqual((yield* reasonOf(AmqpTopology.verify(queue("single.missing"))))._tag, "NotFound")
        yield* Layer.build(AmqpTopology.layer(queue("single.kept")))
        assert.include(yield* declared, "single.kept")
        const nothing = AmqpTopology.layer(undefined as unknown as AmqpTopology.Part)
        assert.strictEqual((yield* reasonOf(Layer.build(nothing)))._tag, "InvalidTopology")
      })
    )

    const differences: Record<
      string,
      {
        readonly is: AmqpTopology.Exchange | AmqpTopology.Queue
        readonly wanted: AmqpTopology.Exchange | AmqpTopology.Queue
        readonly names: { readonly argument: string; readonly received: string; readonly current: string }
        readonly says?: string
      }
    > = {
      "whether a queue is durable": {
        is: queue("d", { durable: false }),
        wanted: queue("d"),
        names: { argument: "durable", received: "true", current: "false" }
      },
      "whether a queue deletes itself": {
        is: queue("d"),
        wanted: queue("d", { autoDelete: true }),
        names: { argument: "auto_delete", received: "true", current: "false" }
      },
      "an argument that was not there": {
        is: queue("d"),
        wanted: queue("d", { messageTtl: "1 second" }),
        names: { argument: "x-message-ttl", received: "1000", current: "none" },
        says: "leave x-message-ttl out and set it by a policy"
      },
      "an argument that is missing": {
        is: queue("d", { deadLetterExchange: "amq.fanout" }),
        wanted: queue("d"),
        names: { argument: "x-dead-letter-exchange", received: "none", current: "amq.fanout" }
      },
      "an argument with another value": {
        is: queue("d", { maxLength: 10 }),
        wanted: queue("d", { maxLength: 11 }),
        names: { argument: "x-max-length", received: "11", current: "10" }
      },
      "the type of a queue": {
        is: queue("d", { queueType: "quorum" }),
        wanted: queue("d", { queueType: "stream" }),
        names: { argument: "x-queue-type", received: "stream", current: "quorum" }
      },
      "a name full of quotes": {
        is: queue("d' in vhost '/': received 'none' but current is 'none", { durable: false }),
        wanted: queue("d' in vhost '/': received 'none' but current is 'none"),
        names: { argument: "durable", received: "true", current: "false" }
      },
      "the type of an exchange": {
        is: exchange("d", "topic"),
        wanted: exchange("d", "fanout"),
        names: { argument: "type", received: "fanout", current: "topic" }
      },
      "whether an exchange is internal": {
        is: exchange("d", "topic", { internal: true }),
        wanted: exchange("d", "topic"),
        names: { argument: "internal", received: "false", current: "true" }
      },
      "an alternate exchange": {
        is: exchange("d", "topic", { alternateExchange: "amq.topic" }),
        wanted: exchange("d", "topic", { alternateExchange: "amq.fanout" }),
        names: { argument: "alternate-exchange", received: "amq.fanout", current: "amq.topic" }
      }
    }
    for (const [name, { is, names, says, wanted }] of Object.entries(differences)) {
      it.effect(`a 406 names what differs: ${name}`, () =>
        onTestBroker({}, function* () {
          yield* AmqpTopology.declare(AmqpTopology.make(is))
          const reason = yield* reasonOf(AmqpTopology.declare(AmqpTopology.make(wanted)))
          assert.strictEqual(reason._tag, "PreconditionFailed")
          assert.deepInclude(reason, { ...names, replyCode: 406, isRetryable: false })
          for (const words of [
            `'${is.name}' exists with ${names.argument} `,
            names.argument,
            names.received,
            names.current,
            "delete it first",
            says ?? ""
          ]) {
            assert.include(reason.message, words)
          }
          yield* AmqpPool.use(yield* AmqpPool.AmqpPool, (channel) =>
            Effect.andThen(channel.queueDelete(is.name), channel.exchangeDelete(is.name))
          )
        })
      )
    }

    it.effect("a 406 names the argument that the broker does not accept", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        // The check does not know the values of arguments.
        const topology = AmqpTopology.make(queue("kind", { arguments: { "x-max-priority": 300 } }))
        const reason = yield* reasonOf(AmqpTopology.declare(topology)).pipe(withPool(url))
        assert.strictEqual(reason._tag, "PreconditionFailed")
        assert.deepInclude(reason, { argument: "x-max-priority" })
      })
    )

    it.effect("an external exchange or queue that does not exist is NotFound when it is bound to", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const topology = AmqpTopology.make(
          AmqpTopology.externalExchange("theirs"),
          queue("mine"),
          bind("mine", "theirs", "k")
        )
        const reason = yield* reasonOf(AmqpTopology.declare(topology)).pipe(withPool(url))
        assert.strictEqual(reason._tag, "NotFound")
        assert.include(reason.message, "'theirs'")
      })
    )
  })

  describe("verify", () => {
    const wanted = AmqpTopology.make(
      exchange("v", "topic"),
      queue("v"),
      bind("v", "v", "k"),
      AmqpTopology.externalExchange("v.theirs"),
      AmqpTopology.externalQueue("v.theirs")
    )

    it.effect("lists everything that is missing, external or not, and declares nothing", () =>
      onTestBroker({}, function* ({ queues }) {
        const reason = yield* reasonOf(AmqpTopology.verify(wanted))
        assert.strictEqual(reason._tag, "NotFound")
        assert.include(reason.message, 'exchange "v", exchange "v.theirs", queue "v", queue "v.theirs"')
        assert.isFalse((yield* queues).some(({ name }) => name.startsWith("v")))
      })
    )

    it.effect("a user that may not declare can verify what another user has declared", () =>
      Effect.gen(function* () {
        const { ctl, url, vhost } = yield* TestBroker.TestBroker
        yield* AmqpTopology.declare(AmqpTopology.make(exchange("v.theirs", "fanout"), queue("v.theirs"), wanted)).pipe(
          withPool(url)
        )
        const user = `verifier-${vhost}`
        yield* ctl("add_user", user, "limited")
        yield* ctl("set_permissions", "-p", vhost, user, "", "", ".*")
        const as = new URL(url)
        as.username = user
        as.password = "limited"
        yield* Effect.gen(function* () {
          yield* AmqpTopology.verify(wanted)
          assert.strictEqual((yield* reasonOf(AmqpTopology.declare(wanted)))._tag, "AccessRefused")
        }).pipe(withPool(as.href))
        yield* ctl("delete_user", user)
      })
    )
  })

  describe("layer", () => {
    it.effect("an exclusive queue and a deleted one exist again after a forced reconnect, bound as before", () =>
      Effect.gen(function* () {
        const { closeConnections, queues, url } = yield* TestBroker.TestBroker
        const topology = AmqpTopology.make(
          exchange("again", "topic"),
          queue("again.exclusive", { exclusive: true }),
          queue("again.deleted"),
          bind("again.exclusive", "again", "#")
        )
        yield* Effect.gen(function* () {
          const pool = yield* AmqpPool.AmqpPool
          for (const generation of [1, 2]) {
            yield* until(queues, (rows) => rows.filter(({ name }) => name.startsWith("again.")).length === 2)
            yield* pool.use((channel) => channel.queueDelete("again.deleted"))
            yield* closeConnections()
            yield* untilOpen(generation + 1)
          }
          yield* until(queues, (rows) => rows.filter(({ name }) => name.startsWith("again.")).length === 2)
          // The binding is declared last, so when it works everything is bound.
          yield* until(
            Effect.andThen(
              pool.use((channel) => channel.publish({ exchange: "again", routingKey: "k", content: "" })),
              queues
            ),
            (rows) => rows.some(({ name, ready }) => name === "again.exclusive" && ready > 0)
          )
        }).pipe(Effect.provide(AmqpTopology.layer(topology)), withPool(url))
        assert.isFalse((yield* queues).some(({ name }) => name === "again.exclusive"))
      })
    )

    it.effect("a declaration that fails at first fails the layer", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const build = (topology: AmqpTopology.AmqpTopology) =>
          reasonOf(Effect.scoped(Layer.build(Layer.provide(AmqpTopology.layer(topology), layerOf(url)))))
        assert.strictEqual((yield* build(AmqpTopology.make(queue(""))))._tag, "InvalidTopology")
        assert.strictEqual(
          (yield* build(AmqpTopology.make(queue("l", { messageTtl: 1, durable: false }), queue("m"))).pipe(
            Effect.andThen(build(AmqpTopology.make(queue("l")))),
            Effect.catch(() => build(AmqpTopology.make(queue("l"))))
          ))._tag,
          "PreconditionFailed"
        )
      })
    )
  })
})

describe("on a scripted broker", () => {
  it.live("nothing is sent when there are mistakes, and all of them are in the error", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const topology = AmqpTopology.make(queue("fine"), queue(""), queue("q", { messageTtl: -1 }), bind("fine", "x"))
        for (const attempt of [AmqpTopology.declare(topology), AmqpTopology.verify(topology)]) {
          const reason = yield* reasonOf(attempt)
          assert.strictEqual(reason._tag, "InvalidTopology")
          if (reason._tag === "InvalidTopology") {
            assert.lengthOf(reason.issues, 3)
            for (const issue of reason.issues) assert.include(reason.message, issue)
          }
        }
      }).pipe(withPool(broker.url))
      assert.strictEqual(broker.count("channel.open"), 0)
    })
  )

  it.live("exchanges are declared before queues, these before bindings, and alternate exchanges first", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* AmqpTopology.declare(
        AmqpTopology.make(
          bind("q", "a"),
          AmqpTopology.exchangeBinding("c", "a"),
          queue("q"),
          exchange("a", "topic", { alternateExchange: "b" }),
          exchange("b", "topic", { alternateExchange: "c" }),
          exchange("c", "topic")
        )
      ).pipe(withPool(broker.url))
      const sent = broker.log.filter(({ method }) => /^(queue|exchange)\./.test(method))
      assert.deepStrictEqual(
        sent.map(({ method }) => method),
        ["exchange.declare", "exchange.declare", "exchange.declare", "queue.declare", "queue.bind", "exchange.bind"]
      )
      assert.deepStrictEqual(
        sent.flatMap((received) => (received.method === "exchange.declare" ? [received.args.exchange] : [])),
        ["c", "b", "a"]
      )
      assert.strictEqual(broker.count("channel.open"), 1)
    })
  )

  /** Runs a program with the layer, and passes it what is logged, from warnings up. */
  const withLayer = (
    broker: ScriptedBroker.ScriptedBroker,
    program: (
      logged: Queue.Dequeue<string>
    ) => Effect.Effect<void, AmqpError.AmqpError, AmqpConnection.AmqpConnection | AmqpPool.AmqpPool>
  ) =>
    Effect.gen(function* () {
      const logged = yield* Queue.unbounded<string>()
      const logger = Logger.make(({ fiber, logLevel, message }) =>
        Queue.offerUnsafe(
          logged,
          `${logLevel}: ${String(message)}: ${inspect(fiber.getRef(References.CurrentLogAnnotations))}`
        )
      )
      yield* program(logged).pipe(
        Effect.provide(AmqpTopology.layer(AmqpTopology.make(queue("q")))),
        withPool(broker.url),
        Effect.provide(Logger.layer([logger]))
      )
    })

  const take = (logged: Queue.Dequeue<string>, words: string) =>
    Effect.gen(function* () {
      while (true) {
        const line = yield* Queue.take(logged)
        if (line.includes(words)) return line
      }
    })

  // A channel is opened and used here: the layer's fiber has had its turn by then.
  const settled = Effect.scoped(AmqpChannel.use((channel) => channel.queuePurge("other")))

  it.live("after a reconnect, a temporary failure is retried, with a warning", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* withLayer(broker, (logged) =>
        Effect.gen(function* () {
          assert.strictEqual(broker.count("queue.declare"), 1)
          broker.once("queue.declare", (context) => context.closeChannel(405))
          broker.once("queue.declare", (context) => context.destroy())
          broker.destroy()
          assert.match(yield* take(logged, "topology"), /^Warn.*RESOURCE_LOCKED/s)
          assert.match(yield* take(logged, "topology"), /^Warn/)
          yield* broker.received("queue.declare", 4)
          yield* settled
          // The third connection declares in place of the second one: once is enough.
          assert.strictEqual(broker.count("queue.declare"), 4)
        })
      )
    })
  )

  it.live("after a reconnect, a permanent failure is logged as an error, and retried on the next connection", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* withLayer(broker, (logged) =>
        Effect.gen(function* () {
          broker.once("queue.declare", (context) =>
            context.closeChannel(
              406,
              "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'"
            )
          )
          broker.destroy()
          assert.match(yield* take(logged, "topology"), /^Error.*durable/s)
          assert.strictEqual(broker.count("queue.declare"), 2)
          broker.destroy()
          yield* broker.received("queue.declare", 3)
        })
      )
    })
  )

  it.live("one connection gets one declaration", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* withLayer(broker, () =>
        Effect.gen(function* () {
          for (const generation of [1, 2, 3]) {
            broker.destroy()
            yield* untilOpen(generation + 1)
            yield* broker.received("queue.declare", generation + 1)
          }
          yield* settled
          assert.strictEqual(broker.count("queue.declare"), 4)
        })
      )
    })
  )

  it.live("it ends with its layer, also during a declaration", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* withLayer(broker, () =>
        Effect.gen(function* () {
          broker.on("queue.declare", (context) => context.hold())
          broker.destroy()
          yield* broker.received("queue.declare", 2)
        })
      )
      yield* broker.socketsClosed
      assert.strictEqual(broker.count("queue.declare"), 2)
    })
  )
})
