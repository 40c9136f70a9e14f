/**
 * Methods that queues of some types do not support. RabbitMQ ends the connection over them, so they are not sent where
 * the queue's type is known.
 */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConnection, type AmqpError } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"
import { onTestBroker } from "./support/client.ts"
import { quietly, reasonOf, withPool } from "./support/amqp.ts"

type Operation = (channel: AmqpChannel.AmqpChannel, queue: string) => Effect.Effect<unknown, AmqpError.AmqpError>

interface Case {
  readonly type: "quorum" | "stream"
  readonly argument: string
  readonly cure: string
  readonly operation: Operation
  /** The first version whose broker supports it. */
  readonly until?: string
}

const cases: Record<string, Case> = {
  "basic.get": {
    type: "stream",
    argument: "queue",
    cure: "Consume it",
    operation: (channel, queue) => channel.get(queue)
  },
  "basic.get with noAck": {
    type: "stream",
    argument: "queue",
    cure: "Consume it",
    operation: (channel, queue) => channel.get(queue, { noAck: true })
  },
  "queue.purge": {
    type: "stream",
    argument: "queue",
    cure: "declare it again",
    operation: (channel, queue) => channel.queuePurge(queue)
  },
  "basic.consume with noAck": {
    type: "stream",
    argument: "noAck",
    cure: "Leave noAck out",
    operation: (channel, queue) => Effect.andThen(channel.qos(10), channel.consume(queue, { noAck: true }))
  },
  "queue.delete with ifEmpty": {
    type: "quorum",
    argument: "ifEmpty",
    cure: "queueDeclarePassive",
    operation: (channel, queue) => channel.queueDelete(queue, { ifEmpty: true })
  },
  "queue.delete with ifUnused": {
    type: "quorum",
    argument: "ifUnused",
    cure: "queueDeclarePassive",
    operation: (channel, queue) => channel.queueDelete(queue, { ifUnused: true })
  },
  "basic.consume behind a global prefetch": {
    type: "quorum",
    argument: "queue",
    cure: "one for each consumer",
    operation: (channel, queue) => Effect.andThen(channel.qos(10, { global: true }), channel.consume(queue)),
    until: "4.3"
  }
}

const version = Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
  Effect.map(evaluate("list_to_binary(rabbit_misc:version())."), (text) => text.replace(/[^\d.]/g, ""))
)

/** Whether one version is at least another, by their first two numbers. */
const isFrom = (version: string, least: string): boolean => {
  const [[a = 0, b = 0], [c = 0, d = 0]] = [version, least].map((text) => text.split(".").map(Number)) as [
    Array<number>,
    Array<number>
  ]
  return a > c || (a === c && b >= d)
}

const generation = Effect.map(AmqpConnection.AmqpConnection, ({ state }) =>
  state.value._tag === "Open" ? state.value.generation : state.value._tag
)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  for (const [i, [name, { argument, cure, operation, type, until }]] of Object.entries(cases).entries()) {
    describe(`${name}, of a ${type} queue`, () => {
      const queue = `unsupported-${i}`
      const declare = AmqpChannel.use((channel) => channel.queueDeclare(queue, { arguments: { "x-queue-type": type } }))

      it.effect("is refused before it is sent, with the remedy, where this application has declared the queue", () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const isTaken = until !== undefined && isFrom(yield* version, until)
          yield* Effect.gen(function* () {
            yield* Effect.scoped(declare)
            const run = Effect.scoped(AmqpChannel.use((channel) => operation(channel, queue)))
            if (isTaken) yield* run
            else {
              const reason = yield* reasonOf(run)
              assert.deepInclude(reason, { _tag: "InvalidArgument", argument, isRetryable: false })
              for (const part of [queue, cure, "Nothing was sent", "540"]) assert.include(reason.message, part)
            }
            assert.strictEqual(yield* generation, 1)
            yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete(queue)))
          }).pipe(withPool(url))
        })
      )

      it.effect("is the borrower's own failure where the queue is unknown, and the others lose their connection", () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const isTaken = until !== undefined && isFrom(yield* version, until)
          yield* Effect.scoped(declare).pipe(withPool(url))
          yield* Effect.gen(function* () {
            const run = Effect.scoped(AmqpChannel.use((channel) => operation(channel, queue)))
            if (isTaken) {
              yield* run
              return
            }
            assert.deepInclude(yield* reasonOf(run), { _tag: "ProtocolError", replyCode: 540, isRetryable: false })
            // The connection is re-established.
            yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclarePassive(queue)))
            assert.strictEqual(yield* generation, 2)
          }).pipe(withPool(url), quietly)
          yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete(queue))).pipe(withPool(url))
        })
      )
    })
  }

  describe("a queue of another type", () => {
    it.effect("supports all of these", () =>
      onTestBroker({}, function* () {
        for (const { operation } of Object.values(cases)) {
          yield* Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.andThen(channel.queueDeclare("unsupported-classic"), operation(channel, "unsupported-classic"))
            )
          )
        }
        assert.strictEqual(yield* generation, 1)
        yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete("unsupported-classic")))
      })
    )
  })
})
