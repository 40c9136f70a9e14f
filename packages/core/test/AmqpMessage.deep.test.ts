/** Contents that are nested to any depth: each costs at most its own message. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Amqp, AmqpConsumer, AmqpMessage, AmqpPool, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Exit, Schema } from "effect"
import { configOf, quietly, reasonOf } from "./support/amqp.ts"
import { declareWithDeadLetters, next, onBroker, send } from "./support/consumers.ts"

interface Nest extends ReadonlyArray<Nest> {}
const Nest: Schema.Codec<Nest> = Schema.Array(Schema.suspend((): Schema.Codec<Nest> => Nest))

interface Linked {
  readonly next?: Linked | undefined
}
const Linked: Schema.Codec<Linked> = Schema.Struct({
  next: Schema.optional(Schema.suspend((): Schema.Codec<Linked> => Linked))
})

const nested = (levels: number): string => "[".repeat(levels) + "]".repeat(levels)
const linked = (levels: number): string => '{"next":'.repeat(levels) + "{}" + "}".repeat(levels)

const delivered = (content: string) =>
  ({ content: Buffer.from(content), properties: {} }) as unknown as AmqpMessage.Delivery

describe("content that is nested deeper than a schema can read", () => {
  it.effect("is DecodeFailed with every schema", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [Schema.Codec<unknown>, (levels: number) => string]> = [
        [Nest, nested],
        [Linked, linked],
        [Schema.Union([Schema.String, Nest]), nested],
        [Schema.Tuple([Schema.Unknown, Nest]), (levels) => `[1,${nested(levels)}]`]
      ]
      for (const [schema, content] of cases) {
        const { decode } = AmqpMessage.json(schema)
        for (const levels of [20_000, 100_000]) {
          const reason = yield* reasonOf(decode(delivered(content(levels))))
          assert.strictEqual(reason._tag, "DecodeFailed")
          assert.include(reason.message, "nested too deep")
        }
        yield* decode(delivered(content(100)))
      }
    })
  )

  it.effect("passes a schema that does not look into it, and a schema's own defect stays a defect", () =>
    Effect.gen(function* () {
      yield* AmqpMessage.json(Schema.Unknown).decode(delivered(nested(100_000)))
      const broken = Schema.String.check(
        Schema.makeFilter((): boolean => {
          throw new RangeError("of the schema's own")
        })
      )
      const exit = yield* Effect.exit(AmqpMessage.json(broken).decode(delivered('"x"')))
      assert.isTrue(Exit.isFailure(exit) && String(exit.cause).includes("of the schema's own"))
    })
  )
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a message of 100,000 nested arrays", () => {
    it.effect("ends as a message that cannot be decoded, and the consumer continues", () =>
      onBroker(
        Effect.gen(function* () {
          const { deadLetters, queue } = yield* declareWithDeadLetters()
          const handled = yield* Deferred.make<Nest>()
          yield* Effect.forkScoped(
            AmqpConsumer.consume(queue, (value) => Deferred.succeed(handled, value), {
              schema: Nest,
              onDecodeFailure: AmqpConsumer.deadLetter
            })
          )
          yield* send(queue, nested(100_000))
          yield* send(queue, "[[]]")
          assert.deepStrictEqual(yield* Deferred.await(handled), [[]])
          assert.lengthOf((yield* next(deadLetters)).content, 200_000)
        })
      )
    )

    it.effect("is refused as a request and fails its own call as a reply, while other calls are answered", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          const pool = yield* AmqpPool.AmqpPool
          yield* pool.use((channel) => Effect.andThen(channel.queueDeclare("deep"), channel.queueDeclare("echo")))
          // The same procedures, for a peer that takes contents as they are.
          const raw = { payload: AmqpRpc.Content, success: AmqpRpc.Content }
          const content = (levels: number) => ({
            content: Buffer.from(nested(levels)),
            contentType: "application/json",
            contentEncoding: "utf-8"
          })
          const echo = AmqpRpc.make("echo", { payload: Nest, success: Nest })
          yield* Effect.forkScoped(AmqpRpc.serve(echo, Effect.succeed))
          yield* Effect.forkScoped(
            AmqpRpc.serve(AmqpRpc.make("deep", raw), ({ content: [levels = 0] }) =>
              Effect.succeed(content(levels === 0x31 ? 1 : 100_000))
            )
          )
          const deep = AmqpRpc.client(AmqpRpc.make("deep", { payload: Schema.Int, success: Nest }))
          const [refused, undecoded, echoed, read] = yield* Effect.all(
            [
              reasonOf(AmqpRpc.client(AmqpRpc.make("echo", raw))(content(100_000))),
              reasonOf(deep(2)),
              AmqpRpc.client(echo)([[]]),
              deep(1)
            ],
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual([refused._tag, undecoded._tag], ["RemoteFailure", "DecodeFailed"])
          for (const { message } of [refused, undecoded]) assert.include(message, "nested too deep")
          assert.deepStrictEqual([echoed, read], [[[]], []])
        }).pipe(Effect.scoped, Effect.provide(Amqp.fromConfig(configOf(url)), { local: true }), quietly)
      })
    )
  })
})
