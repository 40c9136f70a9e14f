/** Every method of Pika's channels, and its counterpart. Rows of `docs/pika.md` name these tests. */
import { assert, layer } from "@effect/vitest"
import { AmqpChannel, AmqpError, AmqpMessage, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Option, Queue } from "effect"
import { untilStats } from "../support/amqp.ts"
import { until } from "../support/polling.ts"
import * as ScriptedBroker from "../support/ScriptedBroker.ts"
import { hasGlobalPrefetch } from "../support/versions.ts"
import { connected, connectedTo, contents, fill, newQueue, ownQueue, reasonOf, drain } from "./broker.ts"

type Channel = AmqpChannel.AmqpChannel

/** Runs a program with a borrowed channel, and a queue that is deleted with its connection. */
const borrowed = <A, E, R>(program: (channel: Channel, queue: string) => Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const queue = yield* ownQueue
    return yield* AmqpChannel.use((channel) => program(channel, queue))
  }).pipe(connected())

const message = (routingKey: string, content: string) => ({ routingKey, content })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("basic_publish completes when the connection has taken the message", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        const exchange = "amq.direct"
        yield* channel.queueBind(queue, exchange, "created")
        yield* channel.publish({ exchange, routingKey: "created", content: "one order" })
        assert.deepStrictEqual(yield* drain(channel, queue), ["one order"])
      })
    )
  )

  it.effect("BasicProperties are given next to the content, and arrive unchanged", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        const properties = {
          contentType: "application/json",
          contentEncoding: "utf-8",
          persistent: false,
          priority: 3,
          correlationId: "7",
          replyTo: "amq.gen-1",
          messageId: "m-1",
          timestamp: new Date(1_600_000_000_000),
          type: "order",
          appId: "shop"
        }
        const headers = { attempt: 1 }
        yield* channel.publish({ routingKey: queue, content: "{}", headers, expiration: "1 minute", ...properties })
        const delivery = Option.getOrThrow(yield* channel.get(queue))
        assert.deepInclude(delivery.properties, { ...properties, expiration: 60_000 })
        assert.strictEqual(delivery.properties.headers["attempt"], 1)
      })
    )
  )

  it.effect("a message is persistent, and a queue or exchange durable, by default", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* channel.publish(message(queue, ""))
        yield* channel.publish({ routingKey: queue, content: "", persistent: false })
        const first = Option.getOrThrow(yield* channel.get(queue))
        const second = Option.getOrThrow(yield* channel.get(queue))
        assert.deepStrictEqual([first.properties.persistent, second.properties.persistent], [true, false])
        yield* channel.queueDeclare("durable")
        const different = yield* reasonOf(channel.queueDeclare("durable", { durable: false }))
        assert.deepInclude(different, { _tag: "PreconditionFailed", argument: "durable" })
      })
    )
  )

  it.effect("basic_get takes one message, or returns none", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* channel.publish(message(queue, "a"))
        const delivery = Option.getOrThrow(yield* channel.get(queue, { noAck: true }))
        assert.strictEqual(AmqpMessage.text(delivery), "a")
        assert.isTrue(Option.isNone(yield* channel.get(queue)))
      })
    )
  )

  it.effect("basic_consume yields deliveries as they come", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        const consumer = yield* channel.consume(queue, { consumerTag: "mine", exclusive: true, priority: 1 })
        assert.strictEqual(consumer.consumerTag, "mine")
        yield* channel.publish(message(queue, "a"))
        const delivery = yield* Queue.take(consumer.deliveries)
        yield* channel.ack(delivery)
        assert.strictEqual(AmqpMessage.text(delivery), "a")
      })
    )
  )

  it.effect("auto_ack: delivered messages count as acknowledged", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* fill(queue, "a", "b")
        const { deliveries } = yield* channel.consume(queue, { noAck: true })
        assert.lengthOf(yield* Queue.takeN(deliveries, 2), 2)
        const { awaitCensus } = yield* TestBroker.TestBroker
        yield* awaitCensus({ unacked: 0, messages: 0 })
      })
    )
  )

  it.effect("basic_cancel ends a consumer; its deliveries can still be settled", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* channel.publish(message(queue, "a"))
        const { consumerTag, deliveries } = yield* channel.consume(queue)
        const delivery = yield* Queue.take(deliveries)
        yield* channel.cancel(consumerTag)
        yield* channel.publish(message(queue, "b"))
        yield* channel.ack(delivery)
        assert.deepStrictEqual(yield* drain(channel, queue), ["b"])
      })
    )
  )

  it.effect("basic_ack settles one delivery, or all up to it", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* fill(queue, "a", "b", "c")
        const taken = yield* Effect.forEach([1, 2, 3], () => Effect.map(channel.get(queue), Option.getOrThrow))
        yield* channel.ack(taken[0]!)
        yield* channel.ack(taken[2]!, { multiple: true })
        yield* channel.recover
        assert.deepStrictEqual(yield* drain(channel, queue), [])
      })
    )
  )

  it.effect("basic_nack requeues, or drops and dead-letters", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* fill(queue, "a", "b")
        const take = Effect.map(channel.get(queue), Option.getOrThrow)
        yield* channel.nack(yield* take)
        const again = yield* take
        assert.isTrue(again.redelivered)
        yield* take
        yield* channel.nack(again, { requeue: false })
        yield* channel.recover
        assert.deepStrictEqual(yield* drain(channel, queue), ["b"])
      })
    )
  )

  it.effect("basic_reject does the same for one delivery", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* fill(queue, "a")
        const take = Effect.map(channel.get(queue), Option.getOrThrow)
        yield* channel.reject(yield* take)
        yield* channel.reject(yield* take, { requeue: false })
        assert.deepStrictEqual(yield* drain(channel, queue), [])
      })
    )
  )

  it.effect("basic_recover requeues every unsettled delivery of the channel", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* fill(queue, "a", "b")
        yield* channel.get(queue)
        yield* channel.get(queue)
        yield* channel.recover
        assert.deepStrictEqual(yield* drain(channel, queue), ["a", "b"])
      })
    )
  )

  it.effect("basic_qos bounds the unsettled deliveries of a consumer, or of the channel", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* fill(queue, "a", "b", "c")
        yield* channel.qos(1)
        yield* channel.qos(2, { global: true })
        const { deliveries } = yield* channel.consume(queue)
        const first = yield* Queue.take(deliveries)
        // Where the channel has no bound of its own, the last qos applies to the consumer.
        const ready = (yield* hasGlobalPrefetch) ? 2 : 1
        assert.deepInclude(yield* channel.queueDeclarePassive(queue), { messageCount: ready })
        yield* channel.ack(first)
        assert.strictEqual(AmqpMessage.text(yield* Queue.take(deliveries)), "b")
      })
    )
  )

  it.effect("exchange_declare, passively too", () =>
    borrowed((channel) =>
      Effect.gen(function* () {
        yield* channel.exchangeDeclare("orders", "topic", { durable: false, autoDelete: true, internal: false })
        yield* channel.exchangeDeclarePassive("orders")
        yield* channel.exchangeDelete("orders", { ifUnused: true })
        assert.strictEqual((yield* reasonOf(channel.exchangeDeclarePassive("orders")))._tag, "NotFound")
      })
    )
  )

  it.effect("exchange_bind and exchange_unbind", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* channel.exchangeDeclare("all", "fanout", { durable: false })
        yield* channel.queueBind(queue, "all", "")
        yield* channel.exchangeBind("all", "amq.topic", "orders.*")
        yield* channel.publish({ exchange: "amq.topic", routingKey: "orders.created", content: "a" })
        assert.deepStrictEqual(yield* drain(channel, queue), ["a"])
        yield* channel.exchangeUnbind("all", "amq.topic", "orders.*")
        yield* channel.publish({ exchange: "amq.topic", routingKey: "orders.created", content: "b" })
        assert.deepStrictEqual(yield* drain(channel, queue), [])
        yield* channel.exchangeDelete("all")
      })
    )
  )

  it.effect("queue_declare returns the name and the counts, passively too", () =>
    borrowed((channel) =>
      Effect.gen(function* () {
        const { queue } = yield* channel.queueDeclare("limited", { exclusive: true, maxLength: 10 })
        yield* fill(queue, "a", "b")
        assert.deepInclude(yield* channel.queueDeclarePassive(queue), { queue, messageCount: 2, consumerCount: 0 })
        const raw = { "x-max-length": 10 }
        yield* channel.queueDeclare(queue, { exclusive: true, arguments: raw })
      })
    )
  )

  it.effect("queue_bind and queue_unbind", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        const binding = { arguments: { "x-match": "any", kind: "order" } }
        yield* channel.queueBind(queue, "amq.headers", "", binding)
        yield* channel.publish({ exchange: "amq.headers", routingKey: "", content: "a", headers: { kind: "order" } })
        assert.deepStrictEqual(yield* drain(channel, queue), ["a"])
        yield* channel.queueUnbind(queue, "amq.headers", "", binding)
        yield* channel.publish({ exchange: "amq.headers", routingKey: "", content: "b", headers: { kind: "order" } })
        assert.deepStrictEqual(yield* drain(channel, queue), [])
      })
    )
  )

  it.effect("queue_purge and queue_delete return the number of removed messages", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        yield* fill(queue, "a", "b")
        assert.strictEqual(yield* channel.queuePurge(queue), 2)
        yield* fill(queue, "c")
        assert.strictEqual(yield* channel.queueDelete(queue), 1)
        const another = yield* newQueue()
        yield* channel.queueDelete(another, { ifUnused: true, ifEmpty: true })
      })
    )
  )

  it.effect("confirm_delivery: a confirm channel's publish completes with the broker's ack", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      const outcome = yield* AmqpChannel.useConfirm((channel) =>
        channel.publish({ routingKey: queue, content: "a" }, { mandatory: true })
      )
      assert.deepStrictEqual(outcome, { _tag: "Confirmed" })
    }).pipe(connected())
  )

  it.effect("tx_select, tx_commit: what was published and acknowledged takes effect at the end", () =>
    Effect.gen(function* () {
      const incoming = yield* ownQueue
      const accepted = yield* ownQueue
      yield* fill(incoming, "a")
      yield* AmqpChannel.useTransaction((channel) =>
        Effect.gen(function* () {
          const delivery = Option.getOrThrow(yield* channel.get(incoming))
          yield* channel.publish({ routingKey: accepted, content: delivery.content })
          yield* channel.ack(delivery)
          assert.deepStrictEqual(yield* contents(accepted), [])
        })
      )
      assert.deepStrictEqual(yield* contents(accepted), ["a"])
      assert.deepStrictEqual(yield* contents(incoming), [])
    }).pipe(connected())
  )

  it.effect("tx_rollback: a transaction that fails has no effect, and commit and rollback can be called too", () =>
    Effect.gen(function* () {
      const queue = yield* ownQueue
      yield* Effect.ignore(
        AmqpChannel.useTransaction((channel) =>
          Effect.andThen(channel.publish({ routingKey: queue, content: "a" }), Effect.fail("business"))
        )
      )
      yield* AmqpChannel.useTransaction((channel) =>
        Effect.gen(function* () {
          yield* channel.publish({ routingKey: queue, content: "b" })
          yield* channel.rollback
          yield* channel.publish({ routingKey: queue, content: "c" })
          yield* channel.commit
        })
      )
      assert.deepStrictEqual(yield* contents(queue), ["c"])
    }).pipe(connected())
  )

  it.effect("add_on_return_callback: returned messages wait in returns", () =>
    borrowed((channel) =>
      Effect.gen(function* () {
        yield* channel.publish({ routingKey: "nobody", content: "a" }, { mandatory: true })
        const returned = yield* Queue.take(channel.returns)
        assert.deepInclude(returned, { replyCode: 312, replyText: "NO_ROUTE", routingKey: "nobody" })
      })
    )
  )

  it.effect("add_on_cancel_callback: deliveries end with ConsumerCancelled when the queue is deleted", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        const { deliveries } = yield* channel.consume(queue)
        yield* channel.queueDelete(queue)
        const error = yield* Effect.flip(Queue.take(deliveries))
        assert.isTrue(AmqpError.isAmqpError(error) && error.reason._tag === "ConsumerCancelled")
      })
    )
  )

  it.effect("add_on_close_callback: every use of the channel and every wait fails with the reason of its close", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        const { deliveries } = yield* channel.consume(queue)
        const waiting = yield* Effect.forkChild(Effect.flip(Queue.take(deliveries)), { startImmediately: true })
        const reason = yield* reasonOf(channel.queueDeclarePassive("missing"))
        assert.strictEqual(reason._tag, "NotFound")
        const error = yield* Fiber.join(waiting)
        assert.isTrue(AmqpError.isAmqpError(error) && error.reason._tag === "ChannelClosed")
      })
    )
  )

  it.effect("flow(True) is answered; flow(False), for which RabbitMQ closes the connection, is refused", () =>
    borrowed((channel) =>
      Effect.gen(function* () {
        assert.isTrue(yield* channel.flow(true))
        assert.deepInclude(yield* reasonOf(channel.flow(false)), { _tag: "InvalidArgument" })
        assert.isTrue(yield* channel.flow(true))
      })
    )
  )

  it.effect("flow on a broker that has it stops and resumes deliveries", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const states = yield* AmqpChannel.use((channel) => Effect.all([channel.flow(false), channel.flow(true)])).pipe(
        connectedTo(broker.url)
      )
      assert.deepStrictEqual(states, [false, true])
    })
  )

  it.effect("close: the scope's end returns the channel; a reply code and text cannot be given", () =>
    Effect.gen(function* () {
      yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("", { exclusive: true })))
      assert.deepInclude(yield* AmqpPool.stats, { used: 0, idle: 1 })
    }).pipe(connected())
  )

  it.effect("a channel may have several consumers, each with its own deliveries", () =>
    borrowed((channel, queue) =>
      Effect.gen(function* () {
        const another = yield* ownQueue
        const one = yield* channel.consume(queue)
        const two = yield* channel.consume(another)
        yield* fill(another, "two")
        yield* fill(queue, "one")
        assert.strictEqual(AmqpMessage.text(yield* Queue.take(one.deliveries)), "one")
        assert.strictEqual(AmqpMessage.text(yield* Queue.take(two.deliveries)), "two")
      })
    )
  )

  it.effect(
    "a channel is returned clean: consumers, deliveries and prefetch of a borrower are not the next one's",
    () =>
      Effect.gen(function* () {
        const queue = yield* ownQueue
        yield* fill(queue, "a")
        yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.andThen(
              channel.qos(7),
              Effect.flatMap(channel.consume(queue), ({ deliveries }) => Queue.take(deliveries))
            )
          )
        )
        yield* untilStats(({ used }) => used === 0)
        yield* until(
          AmqpChannel.use((channel) => channel.queueDeclarePassive(queue)),
          ({ consumerCount, messageCount }) => consumerCount === 0 && messageCount === 1
        )
      }).pipe(connected())
  )
})
