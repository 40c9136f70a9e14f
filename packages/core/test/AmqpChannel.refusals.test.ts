/** Arguments over which a broker would close the connection are refused before anything is sent. */
import { assert, layer } from "@effect/vitest"
import {
  type Amqp,
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  type AmqpMessage,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Option, Queue, Schema, Stream, SubscriptionRef } from "effect"
import { reasonOf } from "./support/amqp.ts"
import { withAmqp } from "./support/metrics.ts"
import type { Overrides } from "./support/amqp.ts"

type Program = Effect.Effect<unknown, AmqpError.AmqpError, Amqp.Amqp>

const onBroker = <A, E, R>(program: Effect.Effect<A, E, R>, overrides?: Overrides) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
    program.pipe(Effect.scoped, withAmqp(url, overrides), Effect.timeout("60 seconds"))
  )

const generation = Effect.flatMap(AmqpConnection.AmqpConnection, ({ state }) =>
  Effect.map(SubscriptionRef.get(state), (now) => (now._tag === "Open" ? now.generation : 0))
)

const onChannel = (f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<unknown, AmqpError.AmqpError>): Program =>
  Effect.scoped(AmqpChannel.use(f))

const isRefused = (reason: AmqpError.AmqpErrorReason, where: string, argument?: string) => {
  assert.strictEqual(reason._tag, "InvalidArgument", `${where}: ${reason.message}`)
  assert.include(reason.message, "Nothing was sent", where)
  if (argument !== undefined) assert.strictEqual((reason as AmqpError.InvalidArgument).argument, argument, where)
}

/** A direct reply-to address that a broker has written. */
const address = Effect.scoped(
  AmqpChannel.use((channel) =>
    Effect.gen(function* () {
      const { queue } = yield* channel.queueDeclare("", { exclusive: true })
      yield* channel.consume("amq.rabbitmq.reply-to", { noAck: true })
      yield* channel.publish({ routingKey: queue, content: "", replyTo: "amq.rabbitmq.reply-to" })
      const { properties } = Option.getOrThrow(yield* channel.get(queue, { noAck: true }))
      return properties.replyTo!
    })
  )
)

const reply = "amq.rabbitmq.reply-to"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("malformed addresses of direct reply-to are refused wherever a caller gives a name or a key", () =>
    onBroker(
      Effect.gen(function* () {
        const queue = "refusals"
        yield* onChannel((channel) => channel.queueDeclare(queue))
        const [pid] = (yield* address).slice(reply.length + 1).split(".") as [string]
        const malformed = [
          `${reply}.a.b`,
          `${reply}.`,
          `${reply}.a`,
          `${reply}.a.b.c`,
          `${reply}..a.b`,
          `${reply}.a.b.`,
          `${reply}.${pid}`,
          `${reply}.${pid}.`,
          `${reply}.${pid}.a.b`,
          `${reply}.${pid.replace(/=+$/, "")}x.a`,
          `${reply}.${Buffer.from([131, 97, 5]).toString("base64")}.a`,
          `${reply}.é.b`,
          `${reply}x.a.b`
        ]
        for (const name of malformed) {
          const message = { routingKey: name, content: "" }
          const copied = (header: string) => ({ routingKey: queue, content: "", headers: { [header]: [queue, name] } })
          const Ask = AmqpRpc.make("ask", { payload: Schema.Int, routingKey: name })
          const calls: Record<string, Program> = {
            "channel.publish": onChannel((channel) => channel.publish(message)),
            "confirm channel": Effect.scoped(AmqpChannel.useConfirm((channel) => channel.publish(message))),
            publisher: AmqpPublisher.publish(message),
            publishAll: Stream.runDrain(AmqpPublisher.publishAll([message])),
            CC: AmqpPublisher.publish(copied("CC")),
            BCC: AmqpPublisher.publish(copied("BCC")),
            "RPC client": Effect.flatMap(AmqpRpc.AmqpRpc, ({ call }) => call(Ask, 1)),
            "RPC server": AmqpRpc.serve(AmqpRpc.make("ask", { queue: name }), () => Effect.void),
            get: onChannel((channel) => channel.get(name)),
            declare: onChannel((channel) => channel.queueDeclare(name)),
            "declare passively": onChannel((channel) => channel.queueDeclarePassive(name)),
            "dead letters": onChannel((channel) =>
              channel.queueDeclare("", { exclusive: true, deadLetterExchange: "", deadLetterRoutingKey: name })
            ),
            "dead letters by arguments": onChannel((channel) =>
              channel.queueDeclare("", {
                exclusive: true,
                arguments: { "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name }
              })
            ),
            bind: onChannel((channel) => channel.queueBind(name, "amq.direct", "key")),
            unbind: onChannel((channel) => channel.queueUnbind(name, "amq.direct", "key")),
            purge: onChannel((channel) => channel.queuePurge(name)),
            delete: onChannel((channel) => channel.queueDelete(name)),
            "consume on a channel": onChannel((channel) => channel.consume(name)),
            consume: AmqpConsumer.consume(name, () => Effect.void),
            consumeBatch: AmqpConsumer.consumeBatch(name, () => Effect.void, { size: 1, within: 1 }),
            stream: Stream.runDrain(AmqpConsumer.stream(name))
          }
          for (const [where, call] of Object.entries(calls)) isRefused(yield* reasonOf(call), `${where}: ${name}`)
        }
        // These are harmless: they name no queue.
        yield* AmqpPublisher.publish({ exchange: "amq.topic", routingKey: `${reply}.a.b`, content: "" })
        assert.strictEqual(yield* generation, 1)
      })
    )
  )

  it.effect("an address that a broker has written is accepted, and any client may publish to it", () =>
    onBroker(
      Effect.scoped(
        AmqpChannel.use((client) =>
          Effect.gen(function* () {
            const { queue } = yield* client.queueDeclare("", { exclusive: true })
            const { deliveries } = yield* client.consume(reply, { noAck: true })
            yield* client.publish({ routingKey: queue, content: "", replyTo: reply })
            const { properties } = Option.getOrThrow(yield* client.get(queue, { noAck: true }))
            const to = properties.replyTo!
            yield* AmqpPublisher.publish({ routingKey: to, content: "one" })
            yield* AmqpPublisher.publish({ routingKey: queue, content: "two", headers: { CC: [to] } })
            assert.strictEqual(Buffer.from((yield* Queue.take(deliveries)).content).toString(), "one")
            assert.strictEqual(Buffer.from((yield* Queue.take(deliveries)).content).toString(), "two")
            // The address holds no messages: RabbitMQ 4.3 would close the connection over this get.
            isRefused(yield* reasonOf(onChannel((channel) => channel.get(to))), "get")
            assert.strictEqual(yield* generation, 1)
          })
        )
      )
    )
  )

  it.effect("arguments that do not fit into a frame together with the names are refused, and no others", () =>
    onBroker(
      Effect.gen(function* () {
        // The smallest frame that RabbitMQ 4.1 and later accept.
        const frameMax = 8192
        const queue = "q".repeat(255)
        yield* onChannel((channel) => channel.queueDeclare(queue))
        const exchange = "e".repeat(255)
        yield* onChannel((channel) => channel.exchangeDeclare(exchange, "headers"))
        const other = "o".repeat(255)
        yield* onChannel((channel) => channel.exchangeDeclare(other, "headers"))
        type Attempt = (table: AmqpMessage.FieldTable) => Program
        const attempts: Record<string, Attempt> = {
          "queue.declare": (table) =>
            onChannel((channel) => channel.queueDeclare("", { exclusive: true, arguments: table })),
          "exchange.declare": (table) =>
            onChannel((channel) =>
              channel.exchangeDeclare("refusals", "direct", { autoDelete: true, arguments: table })
            ),
          "queue.bind": (table) =>
            onChannel((channel) => channel.queueBind(queue, exchange, "k".repeat(255), { arguments: table })),
          "queue.unbind": (table) =>
            onChannel((channel) => channel.queueUnbind(queue, exchange, "k".repeat(255), { arguments: table })),
          "exchange.bind": (table) =>
            onChannel((channel) => channel.exchangeBind(other, exchange, "k".repeat(255), { arguments: table })),
          "exchange.unbind": (table) =>
            onChannel((channel) => channel.exchangeUnbind(other, exchange, "k".repeat(255), { arguments: table })),
          "basic.consume": (table) =>
            onChannel((channel) => channel.consume(queue, { consumerTag: "t".repeat(255), arguments: table })),
          consume: (table) =>
            AmqpConsumer.consume(queue, () => Effect.void, { arguments: table }).pipe(Effect.timeoutOption(300))
        }
        const tables: Record<string, (size: number) => AmqpMessage.FieldTable> = {
          plain: (size) => ({ a: "x".repeat(size) }),
          nested: (size) => ({ a: { b: ["x".repeat(size), 1n] } })
        }
        for (const [where, attempt] of Object.entries(attempts)) {
          for (const [kind, table] of Object.entries(tables)) {
            const fits = (size: number) =>
              Effect.map(Effect.result(attempt(table(size))), (result) => {
                if (result._tag === "Success") return true
                // RabbitMQ 4 refuses arguments that it does not know, and closes only the channel.
                const { reason } = result.failure
                if (reason._tag !== "InvalidArgument") {
                  assert.strictEqual(reason.severity, "channel", `${where}, ${kind}: ${reason.message}`)
                  return true
                }
                isRefused(reason, where, "arguments")
                return false
              })
            let low = 6000
            let high = frameMax
            assert.isTrue(yield* fits(low), where)
            while (high - low > 1) {
              const middle = (low + high) >> 1
              if (yield* fits(middle)) low = middle
              else high = middle
            }
            assert.isBelow(high, frameMax, `${where}, ${kind}`)
            // The largest arguments that were sent have closed no connection.
            assert.strictEqual(yield* generation, 1, `${where}, ${kind}`)
          }
        }
        for (const attempt of Object.values(attempts)) {
          for (const size of [9000, 60_000, 70_000]) {
            isRefused(
              yield* reasonOf(attempt({ a: "x".repeat(size) }) as Effect.Effect<never, AmqpError.AmqpError, Amqp.Amqp>),
              "too large"
            )
          }
        }
        assert.strictEqual(yield* generation, 1)
      }),
      { frameMax: 8192 }
    )
  )
})
