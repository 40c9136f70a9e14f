/**
 * A consumer whose own subscription ends the connection continues on a connection of its own: the others lose theirs
 * once.
 */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  AmqpMessage,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Duration, Effect, Fiber, Queue, Schema, Stream } from "effect"
import { configOf, type Overrides, quietly, reasonOf } from "./support/amqp.ts"
import { logged } from "./support/consumers.ts"
import { eventually } from "./support/polling.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

const reconnect = {
  minDelay: Duration.millis(20),
  maxDelay: Duration.millis(100),
  healthyAfter: Duration.millis(300),
  schedule: undefined,
  onRefused: "retry"
} as const

const withAmqp = (url: string, overrides: Overrides = {}) => {
  const layer = Amqp.fromConfig(configOf(url, { reconnect, ...overrides }))
  return <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.scoped(Effect.provide(effect, layer, { local: true }))
}

const echo = (queue: string) => AmqpRpc.make("alone", { queue, payload: Schema.String, success: Schema.String })

type Consuming = Effect.Effect<unknown, AmqpError.AmqpError, Amqp.Amqp>

/** Every way to consume. Each reports every delivery. */
const consuming: Record<string, (queue: string, got: (text: string) => Effect.Effect<unknown>) => Consuming> = {
  "a consumer": (queue, got) => AmqpConsumer.consume(queue, (delivery) => got(AmqpMessage.text(delivery))),
  "a consumer that subscribes always": (queue, got) =>
    AmqpConsumer.consume(queue, (delivery) => got(AmqpMessage.text(delivery)), { resubscribe: "always" }),
  "a batch consumer": (queue, got) =>
    AmqpConsumer.consumeBatch(
      queue,
      (deliveries) => Effect.forEach(deliveries, (delivery) => got(AmqpMessage.text(delivery))),
      { size: 2, within: 10 }
    ),
  "a stream that subscribes again": (queue, got) =>
    Stream.runForEach(AmqpConsumer.stream(queue, { resubscribe: "lost" }), (delivery) =>
      Effect.andThen(got(AmqpMessage.text(delivery)), delivery.ack)
    ),
  "an RPC server": (queue, got) => AmqpRpc.serve(echo(queue), (payload) => Effect.as(got(payload), payload))
}

/** The generation of the connection that is shared. */
const generation = (of: "consumers" | "main") =>
  Effect.gen(function* () {
    const main = yield* AmqpConnection.AmqpConnection
    const own = yield* AmqpConsumer.ownConnection
    const state = (of === "main" ? main : own.value)?.state.value
    return state?._tag === "Open" ? state.generation : undefined
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a quorum queue without a leader, over which the broker ends the connection of every consumer that subscribes to it", () => {
    for (const [i, [name, consume]] of Object.entries(consuming).entries()) {
      it.effect(
        `costs the others one connection; ${name} continues on its own connection until there is a leader`,
        () =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const before = yield* broker.census
            const of = name === "an RPC server" ? "main" : "consumers"
            const leaderless = `leaderless-${i}`
            const jobs = `leaderless-jobs-${i}`
            const { pathname } = new URL(broker.url)
            const vhost = pathname.length > 1 ? decodeURIComponent(pathname.slice(1)) : "/"
            const server = `{list_to_atom("${vhost === "/" ? "%2F" : vhost}_${leaderless}"), node()}`
            yield* logged((lines) =>
              Effect.gen(function* () {
                yield* Effect.scoped(
                  AmqpChannel.use((channel) =>
                    Effect.andThen(
                      channel.queueDeclare(leaderless, { arguments: { "x-queue-type": "quorum" } }),
                      channel.queueDeclare(jobs)
                    )
                  )
                )
                const body = name === "an RPC server" ? JSON.stringify("a message") : "a message"
                yield* AmqpPublisher.publish({ routingKey: leaderless, content: body, contentType: "application/json" })
                const handled: Array<string> = []
                const job = (text: string) =>
                  Effect.andThen(
                    Effect.sync(() => handled.push(text)),
                    Effect.sleep("1500 millis")
                  )
                const other = yield* Effect.forkScoped(consuming[name]!(jobs, job))
                yield* eventually(
                  "the other consumer",
                  Effect.map(broker.queues, (all) => all.find((queue) => queue.name === jobs)?.consumers === 1)
                )
                yield* broker.evaluate(`ra:stop_server(quorum_queues, ${server}).`)
                const got = yield* Queue.unbounded<string>()
                const bad = yield* Effect.forkScoped(consume(leaderless, (text) => Queue.offer(got, text)))
                const attempts = () =>
                  lines.filter(({ text }) => text.includes("dedicated connection") && text.includes(`"${leaderless}"`))
                    .length
                yield* eventually(
                  "an attempt alone",
                  Effect.sync(() => attempts() >= 2)
                )
                const first = yield* generation(of)
                const job1 = name === "an RPC server" ? JSON.stringify("job") : "job"
                yield* AmqpPublisher.publish({ routingKey: jobs, content: job1, contentType: "application/json" })
                const seen = attempts()
                yield* eventually(
                  "more attempts",
                  Effect.sync(() => attempts() >= seen + 3)
                )
                yield* broker.evaluate(`ra:restart_server(quorum_queues, ${server}).`)
                assert.strictEqual(yield* Effect.timeout(Queue.take(got), "20 seconds"), "a message")
                yield* eventually(
                  "the job's acknowledgement",
                  Effect.map(broker.queues, (all) => {
                    const queue = all.find((queue) => queue.name === jobs)
                    return handled.length > 0 && queue?.ready === 0 && queue.unacked === 0
                  })
                )
                assert.deepStrictEqual(handled, ["job"])
                assert.strictEqual(yield* generation(of), first)
                assert.isAtMost(first ?? Infinity, 2)
                assert.isUndefined(bad.pollUnsafe())
                assert.isUndefined(other.pollUnsafe())
              }).pipe(withAmqp(broker.url))
            )
            yield* broker.awaitCensus({ connections: before.connections, channels: before.channels })
          })
      )
    }
  })
})

describe("a consumer's own connection", () => {
  const refuse = (broker: ScriptedBroker.ScriptedBroker, times: number) => {
    for (let i = 0; i < times; i++) {
      broker.once("basic.consume", (consume) =>
        consume.closeConnection(541, `INTERNAL_ERROR - failed consuming from quorum queue 'bad' in vhost '/': noproc`)
      )
    }
  }

  plain.live(
    "is opened for each attempt, closed with it, and replaced by the shared one after a subscription that lasted",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* Effect.gen(function* () {
          refuse(broker, 3)
          yield* Effect.forkScoped(AmqpConsumer.consume("bad", () => Effect.void))
          yield* broker.received("basic.consume", 4)
          const ids = broker.log
            .filter(({ method }) => method === "basic.consume")
            .map(({ connection }) => connection.id)
          assert.strictEqual(new Set(ids).size, 4)
          // The publishers' connection, the consumers' and the consumer's own.
          yield* broker.until((now) => now.connections === 3)
          yield* Effect.sleep("400 millis")
          broker.connection(ids[3]).destroy()
          yield* broker.received("basic.consume", 5)
          const last = broker.log.findLast(({ method }) => method === "basic.consume")!.connection.id
          assert.notInclude(ids, last)
          yield* broker.until((now) => now.connections === 2)
        }).pipe(withAmqp(broker.url), quietly)
        yield* broker.socketsClosed
      })
  )

  plain.live("is not opened after a connection that was closed by force, whatever the consumer waits for", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        broker.once("basic.consume", (consume) =>
          consume.closeConnection(320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")
        )
        yield* Effect.forkScoped(AmqpConsumer.consume("q", () => Effect.void))
        yield* broker.received("basic.consume", 2)
        const opened = broker.log.filter(({ method }) => method === "connection.open")
        // The publishers' connection, and the consumers' twice.
        assert.strictEqual(opened.length, 3)
        assert.strictEqual(yield* generation("consumers"), 2)
      }).pipe(withAmqp(broker.url), quietly)
      yield* broker.socketsClosed
    })
  )

  plain.live("is closed when the consumer is interrupted, at whichever moment of an attempt", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      yield* Effect.gen(function* () {
        const own = yield* AmqpConsumer.AmqpConsumer.pipe(Effect.flatMap(({ connection }) => connection))
        yield* eventually(
          "the consumers' connection",
          Effect.sync(() => own.state.value._tag === "Open")
        )
        for (const moment of ["connection.open", "channel.open", "basic.qos", "basic.consume", undefined] as const) {
          yield* broker.until((now) => now.connections === 2)
          refuse(broker, 1)
          const consumer = yield* Effect.forkChild(AmqpConsumer.consume("bad", () => Effect.void))
          yield* broker.until((now) => now.methods().at(-1) !== undefined)
          const seen = moment === undefined ? 0 : broker.count(moment)
          const accepted = broker.count("basic.consume")
          yield* broker.received("basic.consume", accepted + 1)
          if (moment === undefined) yield* broker.received("basic.consume", accepted + 2)
          else yield* broker.until((now) => now.connections === 3 && now.count(moment) > seen)
          yield* Fiber.interrupt(consumer)
        }
        yield* broker.until((now) => now.connections === 2)
      }).pipe(withAmqp(broker.url), quietly)
      yield* broker.socketsClosed
    })
  )

  plain.live(
    "a first subscription that is refused for good ends the consumer with the broker's reason, and a later one does not",
    () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* Effect.gen(function* () {
          for (const [code, text] of [
            [503, "COMMAND_INVALID - unknown exchange type 'x-unknown'"],
            [530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'"],
            [540, "NOT_IMPLEMENTED - queue 'bad' in vhost '/' does not support global qos"]
          ] as const) {
            const step = code === 503 ? "exchange.declare" : "basic.consume"
            broker.once(step, (received) => received.closeConnection(code, text))
            const reason = yield* reasonOf(
              AmqpConsumer.consume("bad", () => Effect.void, {
                consumerTag: "tag",
                declare: (channel) => channel.exchangeDeclare("x", "x-unknown")
              })
            )
            assert.deepInclude(reason, { _tag: "ProtocolError", replyCode: code, operation: step })
          }
          // This consumer has worked, so the cause may be temporary, whatever it is.
          yield* Effect.forkScoped(AmqpConsumer.consume("good", () => Effect.void))
          const before = broker.count("basic.consume")
          yield* broker.received("basic.consume", before + 1)
          yield* Effect.sleep("50 millis")
          broker.once("basic.consume", (consume) =>
            consume.closeConnection(540, "NOT_IMPLEMENTED - not supported by queue 'good' in vhost '/'")
          )
          broker.closeConnections(320)
          yield* broker.received("basic.consume", before + 3)
        }).pipe(withAmqp(broker.url), quietly)
      })
  )
})
