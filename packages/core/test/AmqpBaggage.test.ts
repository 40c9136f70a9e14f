/**
 * Baggage: the members of W3C's header are read and written within its bounds, and are propagated with traced messages.
 */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import { Amqp, AmqpBaggage, AmqpChannel, AmqpConsumer, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Option, References, Schema, Stream } from "effect"
import { configOf } from "./support/amqp.ts"
import { declare } from "./support/queues.ts"
import { traced } from "./support/spans.ts"

const entries = (baggage: AmqpBaggage.Baggage) => Array.from(baggage, ([name, entry]) => Object.assign({ name }, entry))

const take = (queue: string) =>
  Effect.scoped(AmqpChannel.use((channel) => Effect.map(channel.get(queue, { noAck: true }), Option.getOrThrow)))

describe("the header baggage", () => {
  plain("is read as in W3C's examples, and members that its grammar does not allow are left out", () => {
    assert.deepStrictEqual(
      entries(AmqpBaggage.fromHeader("key1=value1;property1;property2, key2 = value2, key3=value3; propertyKey=val")),
      [
        { name: "key1", value: "value1", metadata: "property1;property2" },
        { name: "key2", value: "value2" },
        { name: "key3", value: "value3", metadata: "propertyKey=val" }
      ]
    )
    assert.deepStrictEqual(
      entries(AmqpBaggage.fromHeader('user=Am%C3%A9lie,a=b=c,,no,=x,b c=1,d="q",e=%FF,f=\u00fc,g=1;\u0001,h=')),
      [
        { name: "user", value: "Amélie" },
        { name: "a", value: "b=c" },
        { name: "e", value: "\uFFFD" },
        { name: "h", value: "" }
      ]
    )
    assert.strictEqual(AmqpBaggage.fromHeader("").size, 0)
  })

  plain("is read back as it was written, with all values", () => {
    const baggage = new Map([
      ["user", { value: 'größer, größte; 100 % \u{1F600} \\ "' }],
      ["empty", { value: "" }],
      ["known", { value: "1", metadata: "ttl=60;internal" }]
    ])
    const header = AmqpBaggage.toHeader(baggage)!
    assert.match(header, /^[\x21-\x7e]*$/)
    assert.deepStrictEqual(AmqpBaggage.fromHeader(header), baggage)
    assert.isUndefined(AmqpBaggage.toHeader(new Map([["no token", { value: "x" }]])))
    assert.strictEqual(AmqpBaggage.toHeader(new Map([["lone", { value: "\uD800" }]])), "lone=%EF%BF%BD")
    assert.strictEqual(AmqpBaggage.toHeader(new Map([["a", { value: "1", metadata: "x\r\ny: 1" }]])), "a=1")
  })

  plain("leaves out members of types that are not allowed, and keeps all others", () => {
    for (const wrong of [1, undefined, null, Symbol("x"), {}]) {
      const baggage = new Map<unknown, unknown>([
        ["value", { value: wrong }],
        ["metadata", { value: "1", metadata: wrong }],
        [wrong, { value: "1" }],
        ["right", { value: "2" }]
      ]).set("entry", wrong)
      assert.strictEqual(AmqpBaggage.toHeader(baggage as never), "metadata=1,right=2")
    }
  })

  plain("has at most 180 members and 8192 bytes: whole members are left out, in both directions", () => {
    const many = Array.from({ length: 200 }, (_, i) => `k${i}=v`)
    assert.strictEqual(AmqpBaggage.fromHeader(many.join()).size, 180)
    const large = new Map(many.map((_, i) => [`k${i}`, { value: "v" }]))
    assert.strictEqual(AmqpBaggage.toHeader(large), many.slice(0, 180).join())
    const half = "x".repeat(4093)
    // 4096 bytes, a comma and 4095 bytes: the largest size that is allowed.
    assert.deepStrictEqual([...AmqpBaggage.fromHeader(`aa=${half},b=${half},c=1`).keys()], ["aa", "b"])
    assert.deepStrictEqual([...AmqpBaggage.fromHeader(`aa=${half},bb=${half},c=1`).keys()], ["aa"])
    const written = AmqpBaggage.toHeader(
      new Map(["aa", "bb", "c"].map((name) => [name, { value: half.slice(0, name.length * 4093) }]))
    )!
    assert.isAtMost(written.length, 8192)
    assert.deepStrictEqual([...AmqpBaggage.fromHeader(written).keys()], ["aa", "c"])
  })
})

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("baggage", () => {
    it.effect(
      "is propagated from a publish to its handler, and to what the handler publishes and calls, and to nothing else",
      () =>
        traced(() =>
          Effect.gen(function* () {
            for (const queue of ["first", "second", "asked"]) yield* declare(queue)
            const Ask = AmqpRpc.make("asked", { success: Schema.NullOr(Schema.String) })
            const ask = AmqpRpc.client(Ask)
            yield* AmqpRpc.serve(Ask, () => Effect.map(AmqpBaggage.get("tenant"), (tenant) => tenant ?? null)).pipe(
              Effect.forkScoped
            )
            const asked = yield* Deferred.make<string | null>()
            yield* Effect.forkScoped(
              AmqpConsumer.consume(
                "first",
                () =>
                  Effect.gen(function* () {
                    yield* AmqpPublisher.publish({ routingKey: "second", content: "y" }).pipe(
                      AmqpBaggage.add({ step: { value: "2", metadata: "internal" }, gone: undefined })
                    )
                    yield* Deferred.succeed(asked, yield* ask())
                  })
                // The baggage of the fiber that started the consumer is not part of its messages.
              ).pipe(AmqpBaggage.add({ starter: "main" }))
            )
            const published = AmqpPublisher.publish({ routingKey: "first", content: "x" })
            yield* published.pipe(AmqpBaggage.add({ tenant: "größer", gone: "1" }))
            assert.strictEqual(yield* Deferred.await(asked), "größer")
            assert.strictEqual(
              (yield* take("second")).properties.headers["baggage"],
              "tenant=gr%C3%B6%C3%9Fer,step=2;internal"
            )
            yield* AmqpPublisher.publish({ routingKey: "second", content: "z" })
            assert.notProperty((yield* take("second")).properties.headers, "baggage")
          })
        )
    )

    it.effect("is propagated by publishAll and borrowed channels; readers of a stream of deliveries ask for it", () =>
      traced(() =>
        Effect.gen(function* () {
          yield* declare("many")
          const message = { routingKey: "many", content: "x" }
          yield* Stream.runDrain(AmqpPublisher.publishAll([message, message])).pipe(
            Effect.withSpan("import"),
            AmqpBaggage.add({ tenant: "a" })
          )
          yield* Effect.scoped(AmqpChannel.useConfirm((channel) => channel.publish(message))).pipe(
            AmqpBaggage.add({ tenant: "b" })
          )
          const deliveries = yield* AmqpConsumer.stream("many").pipe(
            Stream.tap(({ ack }) => ack),
            Stream.take(3),
            Stream.runCollect
          )
          assert.deepStrictEqual(
            deliveries.map((delivery) => AmqpBaggage.fromDelivery(delivery).get("tenant")?.value),
            ["a", "a", "b"]
          )
        })
      )
    )

    it.effect(
      "is empty in a batch handler; a message's own baggage wins; members that do not fit into a frame are left out",
      () =>
        traced(() =>
          Effect.gen(function* () {
            yield* declare("batch")
            yield* declare("own")
            const seen = yield* Deferred.make<number>()
            yield* Effect.forkScoped(
              AmqpConsumer.consumeBatch(
                "batch",
                () => Effect.flatMap(AmqpBaggage.Current, ({ size }) => Deferred.succeed(seen, size)),
                { size: 1, within: "10 seconds" }
              ).pipe(AmqpBaggage.add({ starter: "main" }))
            )
            const tenant = AmqpBaggage.add({ tenant: "a" })
            yield* tenant(AmqpPublisher.publish({ routingKey: "batch", content: "x" }))
            assert.strictEqual(yield* Deferred.await(seen), 0)
            const own = (headers: Record<string, string>) =>
              Effect.gen(function* () {
                yield* tenant(AmqpPublisher.publish({ routingKey: "own", content: "x", headers }))
                const found = (yield* take("own")).properties.headers
                return [found["baggage"], "traceparent" in found]
              })
            assert.deepStrictEqual(yield* own({ baggage: "mine=1" }), ["mine=1", true])
            const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            assert.deepStrictEqual(yield* own({ traceparent }), [undefined, true])
            // A frame has 131,072 bytes, of which the properties and the trace context take 119, and the baggage 21.
            assert.deepStrictEqual(yield* own({ large: "x".repeat(131_072 - 119) }), [undefined, true])
            assert.deepStrictEqual(yield* own({ large: "x".repeat(131_072 - 119 - 21) }), ["tenant=a", true])
          })
        )
    )

    it.effect("is propagated where a tracer is provided, as the trace context is, and nowhere else", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          yield* declare("untraced")
          yield* AmqpPublisher.publish({ routingKey: "untraced", content: "x" }).pipe(AmqpBaggage.add({ tenant: "a" }))
          assert.deepStrictEqual(Object.keys((yield* take("untraced")).properties.headers), [])
        }).pipe(
          Effect.scoped,
          Effect.provide(Amqp.fromConfig(configOf(url)), { local: true }),
          Effect.provideService(References.MinimumLogLevel, "None")
        )
      })
    )
  })
})
