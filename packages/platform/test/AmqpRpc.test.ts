import { Amqp as Amqp4, AmqpRpc as AmqpRpc4 } from "@effect-amqp/core"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Schema4 from "@effect-amqp/effect4/Schema"
import { Amqp, AmqpChannel, AmqpError, AmqpRpc, AmqpTopology } from "@effect-amqp/platform"
import { assert, describe, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, FiberRef, Layer, Option, Schema } from "effect"
import * as Application from "./support/application.ts"
import { Broker } from "./support/Broker.ts"

class Prices extends Context.Tag("test/Prices")<Prices, { readonly of: (item: string) => number | undefined }>() {}

class Unknown extends Schema.TaggedError<Unknown>()("Unknown", { item: Schema.String, since: Schema.Date }) {}

const declare = (name: string) => AmqpTopology.declare(AmqpTopology.make(AmqpTopology.queue(name)))

const priceOf = (name: string) =>
  AmqpRpc.make(name, {
    payload: { item: Schema.String, on: Schema.Date },
    success: Schema.Struct({ price: Schema.NumberFromString }),
    error: Unknown
  })

describe("AmqpRpc", () => {
  layer(Application.layer(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped("a call succeeds with the reply of a handler that has its services, references and scope", () =>
      Effect.gen(function* () {
        const procedure = priceOf("rpc.success")
        yield* declare("rpc.success")
        const tenant = yield* FiberRef.make("nobody")
        const events: Array<unknown> = []
        const server = AmqpRpc.serve(procedure, ({ item, on }, request) =>
          Effect.gen(function* () {
            yield* Effect.addFinalizer(() => Effect.sync(() => events.push("closed")))
            yield* Effect.orDie(AmqpChannel.use((channel) => channel.queueDeclarePassive("rpc.success")))
            events.push(on, yield* FiberRef.get(tenant), request.properties.type)
            return { price: (yield* Prices).of(item) ?? 0 }
          })
        )
        yield* Effect.forkScoped(
          server.pipe(Effect.locally(tenant, "acme"), Effect.provideService(Prices, { of: (item) => item.length }))
        )
        const call = AmqpRpc.client(procedure, { timeout: "10 seconds" })
        const reply = yield* call({ item: "tea", on: new Date(0) })
        assert.deepStrictEqual(reply, { price: 3 })
        assert.deepStrictEqual(events, [new Date(0), "acme", "rpc.success", "closed"])
      })
    )

    it.scoped("a schema has its services, of the caller and of the server", () =>
      Effect.gen(function* () {
        const Priced = Schema.transformOrFail(Schema.Number, Schema.Number, {
          strict: true,
          decode: (n) => Effect.map(Prices, (prices) => n + (prices.of("") ?? 0)),
          encode: (n) => Effect.map(Prices, (prices) => n * (prices.of("") ?? 0))
        })
        const procedure = AmqpRpc.make("rpc.services", { payload: Priced, success: Priced })
        yield* declare("rpc.services")
        const seen: Array<number> = []
        const server = AmqpRpc.serve(procedure, (n) => Effect.sync(() => (seen.push(n), n)))
        yield* Effect.forkScoped(Effect.provideService(server, Prices, { of: () => 10 }))
        const reply = yield* Effect.provideService(AmqpRpc.client(procedure)(5), Prices, { of: () => 2 })
        // 5 is sent as 10 and received as 20, which is sent as 200 and received as 202.
        assert.deepStrictEqual([...seen, reply], [20, 202])
      })
    )

    it.scoped("a failure of the handler is the failure of the call, as an instance of its class", () =>
      Effect.gen(function* () {
        const procedure = priceOf("rpc.failure")
        yield* declare("rpc.failure")
        const since = new Date(86_400_000)
        yield* Effect.forkScoped(AmqpRpc.serve(procedure, ({ item }) => new Unknown({ item, since })))
        const error = yield* Effect.flip(AmqpRpc.client(procedure)({ item: "unicorn", on: since }))
        assert(error instanceof Unknown)
        assert.deepStrictEqual([error.item, error.since], ["unicorn", since])
        const caught = yield* AmqpRpc.client(procedure)({ item: "unicorn", on: since }).pipe(
          Effect.catchTag("Unknown", ({ item }) => Effect.succeed(item))
        )
        assert.strictEqual(caught, "unicorn")
      })
    )

    it.scoped("undefined in a payload and in a success arrives as undefined", () =>
      Effect.gen(function* () {
        const Optional = Schema.Struct({ a: Schema.optional(Schema.String), n: Schema.UndefinedOr(Schema.Number) })
        const schemas = {
          optional: [Optional, { a: undefined, n: undefined }, { n: undefined }],
          undefined: [Schema.Undefined, undefined, undefined],
          undefinedOr: [Schema.UndefinedOr(Schema.String), undefined, undefined],
          option: [Schema.OptionFromUndefinedOr(Schema.String), Option.none(), Option.none()],
          void: [Schema.Void, undefined, undefined]
        } as unknown as Record<string, readonly [Schema.Schema<unknown>, unknown, unknown]>
        for (const [name, [schema, value, expected]] of Object.entries(schemas)) {
          const procedure = AmqpRpc.make(`rpc.none.${name}`, { payload: schema, success: schema })
          yield* declare(procedure.queue)
          const seen: Array<unknown> = []
          yield* Effect.forkScoped(
            AmqpRpc.serve(procedure, (payload) => Effect.sync(() => (seen.push(payload), value)))
          )
          const reply = yield* AmqpRpc.client(procedure, { timeout: "10 seconds" })(value)
          assert.deepStrictEqual([...seen, reply], [expected, expected], name)
        }
      })
    )

    it.scoped("a defect of the handler is a RemoteFailure without the defect's text", () =>
      Effect.gen(function* () {
        const procedure = AmqpRpc.make("rpc.defect")
        yield* declare("rpc.defect")
        yield* Effect.forkScoped(AmqpRpc.serve(procedure, () => Effect.die(new Error("s3cret"))))
        const error = yield* Effect.flip(AmqpRpc.client(procedure)())
        assert(error instanceof AmqpError.AmqpError)
        assert.strictEqual(error.reason._tag, "RemoteFailure")
        assert.notInclude(error.message, "s3cret")
      })
    )

    it.scoped("a payload that does not match the schema is refused before anything is sent", () =>
      Effect.gen(function* () {
        const procedure = AmqpRpc.make("rpc.refused", { payload: Schema.Positive })
        yield* declare("rpc.refused")
        const error = yield* Effect.flip(AmqpRpc.client(procedure)(-1))
        assert.strictEqual(error.reason._tag, "InvalidArgument")
        const copied = yield* Effect.flip(AmqpRpc.client({ ...procedure })(1))
        assert.strictEqual(copied.reason._tag, "InvalidArgument")
        const nameless = yield* Effect.flip(AmqpRpc.serve(AmqpRpc.make(""), () => Effect.void))
        assert.strictEqual(nameless.reason._tag, "InvalidArgument")
      })
    )

    it.scoped("a call without a server times out, and one without a queue fails at once", () =>
      Effect.gen(function* () {
        const procedure = AmqpRpc.make("rpc.timeout")
        const call = AmqpRpc.client(procedure, { timeout: "30 seconds" })
        const returned = yield* Effect.flip(call())
        assert.strictEqual(returned.reason._tag, "PublishReturned")
        yield* declare("rpc.timeout")
        const error = yield* Effect.flip(call(undefined, { timeout: "50 millis" }))
        assert.strictEqual(error.reason._tag, "RequestTimeout")
      })
    )

    it.scoped("an interruption of a call drops its reply, and the handler continues", () =>
      Effect.gen(function* () {
        const procedure = AmqpRpc.make("rpc.interrupted", { success: Schema.Number })
        yield* declare("rpc.interrupted")
        const started = yield* Deferred.make<void>()
        const goOn = yield* Deferred.make<void>()
        yield* Effect.forkScoped(
          AmqpRpc.serve(procedure, () =>
            Deferred.succeed(started, undefined).pipe(Effect.zipRight(Deferred.await(goOn)), Effect.as(7))
          )
        )
        const before = yield* AmqpRpc.stats
        const fiber = yield* Effect.fork(AmqpRpc.client(procedure)())
        yield* Deferred.await(started)
        assert.strictEqual((yield* AmqpRpc.stats).inFlight, 1)
        assert(Exit.isInterrupted(yield* Fiber.interrupt(fiber)))
        assert.strictEqual((yield* AmqpRpc.stats).inFlight, 0)
        yield* Deferred.succeed(goOn, undefined)
        yield* Effect.repeat(AmqpRpc.stats.pipe(Effect.delay("5 millis")), {
          until: ({ unclaimed }) => unclaimed === before.unclaimed + 1
        })
        assert.strictEqual(yield* AmqpRpc.client(procedure)(), 7)
      })
    )

    it.scoped("content that is not JSON arrives unchanged", () =>
      Effect.gen(function* () {
        const procedure = AmqpRpc.make("rpc.content", { payload: AmqpRpc.Content, success: AmqpRpc.Content })
        yield* declare("rpc.content")
        yield* Effect.forkScoped(
          AmqpRpc.serve(procedure, ({ content, contentType }) =>
            Effect.succeed({ content: content.toReversed(), contentType: `${contentType}+reversed` })
          )
        )
        const { content, contentType } = yield* AmqpRpc.client(procedure)({
          content: Uint8Array.of(0, 128, 255),
          contentType: "image/png"
        })
        assert.deepStrictEqual([...content], [255, 128, 0])
        assert.strictEqual(contentType, "image/png+reversed")
      })
    )

    it.scoped("applications on Effect 3 and Effect 4 call each other", () =>
      Effect.gen(function* () {
        const { url } = yield* Broker
        const on4 = <A, E>(effect: Effect4.Effect<A, E, Amqp4.Amqp>) =>
          Effect.promise((signal) => Effect4.runPromise(Effect4.provide(effect, Amqp4.layer({ url })), { signal }))
        const three = (name: string) =>
          AmqpRpc.make(name, { payload: { on: Schema.Date }, success: Schema.Date, error: Schema.String })
        const four = (name: string) =>
          AmqpRpc4.make(name, { payload: { on: Schema4.Date }, success: Schema4.Date, error: Schema4.String })
        const early = new Date(0)
        const late = new Date(86_400_000)

        yield* declare("rpc.on4")
        yield* Effect.forkScoped(
          on4(AmqpRpc4.serve(four("rpc.on4"), ({ on }) => (on < late ? Effect4.succeed(late) : Effect4.fail("late"))))
        )
        const call = AmqpRpc.client(three("rpc.on4"))
        assert.deepStrictEqual(yield* call({ on: early }), late)
        assert.strictEqual(yield* Effect.flip(call({ on: late })), "late")

        yield* declare("rpc.on3")
        yield* Effect.forkScoped(
          AmqpRpc.serve(three("rpc.on3"), ({ on }) => (on < late ? Effect.succeed(late) : Effect.fail("late")))
        )
        const call4 = AmqpRpc4.client(four("rpc.on3"))
        assert.deepStrictEqual(yield* on4(call4({ on: early })), late)
        assert.strictEqual(yield* on4(Effect4.flip(call4({ on: late }))), "late")

        const empty = AmqpRpc.make("rpc.void4", { payload: Schema.Void, success: Schema.Void })
        yield* declare("rpc.void4")
        yield* Effect.forkScoped(AmqpRpc.serve(empty, () => Effect.void))
        assert.isUndefined(yield* AmqpRpc.client(empty)())
        assert.isUndefined(yield* on4(AmqpRpc4.client(AmqpRpc4.make("rpc.void4"))()))
      })
    )

    it.scoped("layerServe serves, with a client of its own bounds, and leaves nothing behind", () =>
      Effect.gen(function* () {
        const { awaitCensus, url } = yield* Broker
        const procedure = priceOf("rpc.layer")
        yield* declare("rpc.layer")
        const services = Layer.merge(
          Amqp.layer({ url }),
          Layer.succeed(Prices, { of: (item: string) => (item === "tea" ? 4 : undefined) })
        )
        const server = AmqpRpc.layerServe(
          procedure,
          ({ item, on }) =>
            Effect.flatMap(Prices, ({ of }) => {
              const price = of(item)
              return price === undefined ? Effect.fail(new Unknown({ item, since: on })) : Effect.succeed({ price })
            }),
          { concurrency: 4 }
        )
        const app = yield* Effect.fork(Amqp.launch(Layer.provide(server, services)))
        const replies = yield* Effect.forEach(
          ["tea", "x"],
          (item) => Effect.either(AmqpRpc.client(procedure)({ item, on: new Date(0) })),
          { concurrency: 2 }
        ).pipe(Effect.provide(AmqpRpc.layerWith({ maxInFlight: 1 })))
        assert.deepStrictEqual(
          replies.map(({ _tag }) => _tag),
          ["Right", "Left"]
        )
        yield* Fiber.interrupt(app)
        yield* awaitCensus({ connections: 1 })
      })
    )

    it.scoped("layerServe ends what launch runs when its queue does not exist", () =>
      Effect.gen(function* () {
        const { url } = yield* Broker
        const error = yield* AmqpRpc.layerServe(AmqpRpc.make("rpc.missing"), () => Effect.void).pipe(
          Layer.provide(Amqp.layer({ url })),
          Amqp.launch,
          Effect.flip
        )
        assert.strictEqual(error.reason._tag, "NotFound")
      })
    )
  })
})
