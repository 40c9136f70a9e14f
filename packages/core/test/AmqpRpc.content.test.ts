/** Requests and replies that are not JSON, on a real broker. */
import { assert, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Queue, References, Schema } from "effect"
import { configOf, reasonOf } from "./support/amqp.ts"

const Turn = AmqpRpc.make("turn", { payload: AmqpRpc.Content, success: AmqpRpc.Content, error: AmqpRpc.Content })
const turn = AmqpRpc.client(Turn, { timeout: "10 seconds" })

const declare = (queue: string) =>
  Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue, { durable: false })))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  const withAmqp = <A, E, R>(program: Effect.Effect<A, E, R>) =>
    Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
      Effect.provide(Effect.scoped(program), Amqp.fromConfig(configOf(url)), { local: true })
    ).pipe(Effect.provideService(References.MinimumLogLevel, "Fatal"))

  it.effect("bytes arrive as they were sent, with their type and encoding, in requests, replies and failures", () =>
    withAmqp(
      Effect.gen(function* () {
        yield* declare("turn")
        yield* Effect.forkScoped(
          AmqpRpc.serve(Turn, ({ content, contentEncoding, contentType }) => {
            const turned = { content: content.toReversed(), contentType: `${contentType}; turned`, contentEncoding }
            return content[0] === 1 ? Effect.fail(turned) : Effect.succeed(turned)
          })
        )
        const content = Uint8Array.from({ length: 256 }, (_, i) => i)
        const reply = yield* turn({ content, contentType: "image/png", contentEncoding: "gzip" })
        assert.deepStrictEqual([...reply.content], Array.from(content).toReversed())
        assert.deepInclude(reply, { contentType: "image/png; turned", contentEncoding: "gzip" })
        const failure = yield* Effect.flip(turn({ content: Uint8Array.of(1, 0xff) }))
        assert.deepInclude(failure, { contentType: "undefined; turned", contentEncoding: undefined })
        assert.deepStrictEqual("content" in failure && [...failure.content], [0xff, 1])
        const refused = yield* Effect.flip(turn({ content, contentType: "x".repeat(256) }))
        assert.deepInclude(refused, { _tag: "AmqpError" })
      })
    )
  )

  it.effect("a reply of a peer that supports only correlationId and replyTo is taken as it was sent", () =>
    withAmqp(
      Effect.gen(function* () {
        yield* declare("turn")
        yield* AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const { deliveries } = yield* channel.consume("turn")
            const call = yield* Effect.forkChild(turn({ content: Uint8Array.of(0) }))
            const request = yield* Queue.take(deliveries)
            assert.isUndefined(request.properties.contentType)
            const { correlationId, replyTo } = request.properties
            yield* channel.publish({ routingKey: replyTo!, correlationId, content: Uint8Array.of(0xfe) })
            yield* channel.ack(request)
            const reply = yield* Fiber.join(call)
            assert.deepStrictEqual([...reply.content], [0xfe])
            assert.deepInclude(reply, { contentType: undefined, contentEncoding: undefined })
          })
        )
      })
    )
  )

  it.effect("within another schema it is JSON like any value", () =>
    withAmqp(
      Effect.gen(function* () {
        const Nested = AmqpRpc.make("nested", { payload: { picture: AmqpRpc.Content }, success: Schema.String })
        yield* declare("nested")
        yield* Effect.forkScoped(
          AmqpRpc.serve(Nested, ({ picture }, { properties }) =>
            Effect.succeed(`${properties.contentType} ${picture.content.join()}`)
          )
        )
        const reply = yield* AmqpRpc.client(Nested)({ picture: { content: Uint8Array.of(1, 2) } })
        assert.strictEqual(reply, "application/json 1,2")
        const { _tag } = yield* reasonOf(AmqpRpc.client(AmqpRpc.make("nested"))(undefined))
        assert.strictEqual(_tag, "RemoteFailure")
      })
    )
  )
})
