/** Spans and trace context: what is opened and what is propagated with a tracer, and that nothing is without one. */
import { assert, describe, layer } from "@effect/vitest"
import {
  Amqp,
  AmqpChannel,
  AmqpConsumer,
  AmqpMessage,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc,
  AmqpTopology
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Fiber, Option, Queue, Redacted, References, Schema, Stream, Tracer } from "effect"
import { configOf } from "./support/amqp.ts"
import { declare } from "./support/queues.ts"
import { collecting, contextOf, endOf, parentOf, traced } from "./support/spans.ts"
import * as Users from "./support/users.ts"

const take = (queue: string) =>
  Effect.scoped(AmqpChannel.use((channel) => Effect.map(channel.get(queue, { noAck: true }), Option.getOrThrow)))

const attributesOf = ({ attributes }: Tracer.Span) => Object.fromEntries(attributes)

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { item: Schema.String }) {}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("one message", () => {
    it.effect("its publish, its handler and what the handler does form one trace", () =>
      traced(({ one, names }) =>
        Effect.gen(function* () {
          const { hostname, port } = new URL((yield* TestBroker.TestBroker).url)
          yield* Effect.scoped(
            AmqpChannel.use((channel) =>
              Effect.gen(function* () {
                yield* channel.exchangeDeclare("shop", "topic", { durable: false })
                yield* channel.queueDeclare("stock")
                yield* channel.queueBind("stock", "shop", "order.*")
              })
            )
          )
          yield* Effect.forkScoped(
            AmqpConsumer.consume("stock", () => Effect.withSpan(Effect.void, "SELECT", { kind: "client" }))
          )
          const message = {
            exchange: "shop",
            routingKey: "order.7",
            content: "größer",
            messageId: "m7",
            correlationId: "c7"
          }
          yield* Effect.withSpan(AmqpPublisher.publish(message), "POST /orders", { kind: "server" })
          const post = yield* one("POST /orders")
          const publish = yield* one("publish shop")
          const process = yield* one("process stock")
          const select = yield* one("SELECT")
          assert.deepStrictEqual(
            [post, publish, process, select].map((span) => [span.kind, span.traceId, parentOf(span), endOf(span)]),
            [
              ["server", post.traceId, undefined, "Success"],
              ["producer", post.traceId, post.spanId, "Success"],
              ["consumer", post.traceId, publish.spanId, "Success"],
              ["client", post.traceId, process.spanId, "Success"]
            ]
          )
          const both = {
            "messaging.system": "rabbitmq",
            "messaging.rabbitmq.destination.routing_key": "order.7",
            "messaging.message.id": "m7",
            "messaging.message.conversation_id": "c7",
            "messaging.message.body.size": 8,
            "server.address": hostname,
            "server.port": Number(port)
          }
          assert.deepStrictEqual(attributesOf(publish), {
            ...both,
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.template": "shop",
            "messaging.destination.name": "shop:order.7"
          })
          assert.deepStrictEqual(attributesOf(process), {
            ...both,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.template": "stock",
            "messaging.destination.name": "shop:order.7:stock",
            "messaging.rabbitmq.message.delivery_tag": 1
          })
          assert.strictEqual(names().length, 4)
        })
      )
    )

    it.effect("on a borrowed channel of any kind it has a span and a context, too", () =>
      traced(({ ended }) =>
        Effect.gen(function* () {
          yield* declare("borrowed")
          const message = { routingKey: "borrowed", content: new Uint8Array(3) }
          yield* Effect.scoped(AmqpChannel.use((channel) => channel.publish(message)))
          yield* Effect.scoped(AmqpChannel.useConfirm((channel) => channel.publish(message)))
          const spans = yield* ended("publish borrowed", 2)
          const published = [yield* take("borrowed"), yield* take("borrowed")]
          assert.deepStrictEqual(
            published.map(({ properties }) => properties.headers["traceparent"]),
            spans.map(contextOf)
          )
          assert.deepInclude(attributesOf(spans[0]!), {
            "messaging.destination.name": "borrowed",
            "messaging.message.body.size": 3
          })
          assert.notProperty(message, "headers")
        })
      )
    )

    it.effect("a context that it already has stays, its publish links to it, and its handler is below it", () =>
      traced(({ ended, one }) =>
        Effect.gen(function* () {
          yield* declare("own")
          const traceId = "0af7651916cd43dd8448eb211c80319c"
          const traceparent = `00-${traceId}-b7ad6b7169203331-01`
          const headers = { traceparent, tracestate: "vendor=1", kept: true }
          yield* AmqpPublisher.publish({ routingKey: "own", content: "x", headers })
          const publish = yield* one("publish own")
          assert.notStrictEqual(publish.traceId, traceId)
          assert.deepStrictEqual(
            publish.links.map(({ span }) => span.spanId),
            ["b7ad6b7169203331"]
          )
          yield* declare("next")
          yield* Effect.forkScoped(
            AmqpConsumer.consume("own", () =>
              AmqpPublisher.publish({ routingKey: "next", content: "y", headers: { a: 1 } })
            )
          )
          const process = yield* one("process own")
          assert.deepStrictEqual([process.traceId, parentOf(process)], [traceId, "b7ad6b7169203331"])
          // Vendors' entries are propagated with the trace.
          const [next] = yield* ended("publish next")
          assert.deepStrictEqual(
            { ...(yield* take("next")).properties.headers },
            {
              a: 1,
              traceparent: contextOf(next!),
              tracestate: "vendor=1"
            }
          )
          assert.strictEqual(next!.traceId, traceId)
        })
      )
    )

    it.effect("that is created now and published later is in the trace of its creation", () =>
      traced(({ one }) =>
        Effect.gen(function* () {
          yield* declare("later")
          const stored = yield* AmqpMessage.withCreateSpan(
            { routingKey: "later", content: "x", headers: { a: 1 } },
            (message) => AmqpMessage.toEncoded(message)
          )
          const create = yield* one("create later")
          assert.strictEqual(create.kind, "producer")
          assert.deepInclude(attributesOf(create), {
            "messaging.operation.name": "create",
            "messaging.operation.type": "create"
          })
          const message = yield* AmqpMessage.fromEncoded(stored)
          assert.deepStrictEqual({ ...message.headers }, { a: 1, traceparent: contextOf(create) })
          const context = AmqpMessage.traceContext({ properties: message })!
          yield* Effect.withParentSpan(AmqpPublisher.publish(message), context)
          const publish = yield* one("publish later")
          assert.deepStrictEqual([publish.traceId, parentOf(publish)], [create.traceId, create.spanId])
          yield* Effect.forkScoped(AmqpConsumer.consume("later", () => Effect.void))
          const process = yield* one("process later")
          assert.deepStrictEqual([process.traceId, parentOf(process)], [create.traceId, create.spanId])
        })
      )
    )

    it.effect("that is created without a tracer stays as it is", () =>
      Effect.gen(function* () {
        const message = { routingKey: "later", content: "x" }
        assert.strictEqual(yield* AmqpMessage.withCreateSpan(message, Effect.succeed), message)
      })
    )

    it.effect("an invalid context is ignored: its handler begins a trace; an unsampled context stays unsampled", () =>
      traced(({ ended }) =>
        Effect.gen(function* () {
          yield* declare("odd")
          const trace = "0af7651916cd43dd8448eb211c80319c"
          const odd = [
            `00-${"0".repeat(32)}-b7ad6b7169203331-01`,
            `ff-${trace}-b7ad6b7169203331-01`,
            `00-${trace}-b7ad6b7169203331-01-more`,
            "no context",
            7
          ]
          const even = [`00-${trace}-b7ad6b7169203331-00`, `cc-${trace}-b7ad6b7169203331-00-more`]
          // The span that the consumer was started in does not matter: it may be that of the application.
          yield* Effect.forkScoped(
            Effect.withSpan(
              AmqpConsumer.consume("odd", () => Effect.void),
              "main"
            )
          )
          for (const traceparent of [...odd, ...even, Buffer.from(even[0]!)]) {
            yield* AmqpPublisher.publish({ routingKey: "odd", content: "x", headers: { traceparent } })
          }
          const spans = yield* ended("process odd", 8)
          assert.deepStrictEqual(
            spans.map((span) => [parentOf(span) ?? "none", span.sampled]),
            [...odd.map(() => ["none", true]), ...[1, 2, 3].map(() => ["b7ad6b7169203331", false])]
          )
        })
      )
    )

    it.effect("headers that have no room left are sent unchanged", () =>
      traced(({ one }) =>
        Effect.gen(function* () {
          yield* declare("full")
          const headers = { large: "x".repeat(131_072 - 50) }
          yield* AmqpPublisher.publish({ routingKey: "full", content: "x", headers })
          yield* one("publish full")
          assert.deepStrictEqual(Object.keys((yield* take("full")).properties.headers), ["large"])
        })
      )
    )

    it.effect("the context of a delivery of a stream or a channel can be read", () =>
      traced(({ one }) =>
        Effect.gen(function* () {
          yield* declare("asked")
          yield* AmqpPublisher.publish({ routingKey: "asked", content: "x" })
          const [delivery] = yield* AmqpConsumer.stream("asked").pipe(
            Stream.tap(({ ack }) => ack),
            Stream.take(1),
            Stream.runCollect
          )
          assert.strictEqual(AmqpMessage.traceContext(delivery!)?.spanId, (yield* one("publish asked")).spanId)
          assert.isUndefined(AmqpMessage.traceContext({ properties: {} }))
        })
      )
    )
  })

  describe("failures", () => {
    it.effect("a publish that fails gives the tag of its reason", () =>
      traced(({ one, spans }) =>
        Effect.gen(function* () {
          yield* Effect.ignore(
            AmqpPublisher.publish({ routingKey: "nobody", content: "top secret" }, { mandatory: true })
          )
          const publish = yield* one("publish nobody")
          assert.strictEqual(publish.attributes.get("error.type"), "PublishReturned")
          assert.notStrictEqual(endOf(publish), "Success")
          // An invalid message is refused as without tracing.
          yield* Effect.ignore(AmqpPublisher.publish(undefined as never))
          yield* Effect.ignore(AmqpPublisher.publish({ routingKey: 7, content: 7, headers: 7 } as never))
          assert.deepStrictEqual(
            spans.slice(-2).map(({ attributes, name }) => [name, attributes.get("error.type")]),
            [
              ["publish amq.default", "InvalidArgument"],
              ["publish amq.default", "InvalidArgument"]
            ]
          )
        })
      )
    )

    it.effect("a handler that fails gives its error's tag; the retry is in its span, and the next try next to it", () =>
      traced(({ ended, one }) =>
        Effect.gen(function* () {
          yield* declare("fails")
          yield* Effect.forkScoped(
            AmqpConsumer.consume(
              "fails",
              ({ attempt }) =>
                attempt === 1 ? Effect.fail(new OutOfStock({ item: "pen" })) : Effect.die(new TypeError("no")),
              { onFailure: AmqpConsumer.retry({ delay: "20 millis", times: 1 }) }
            )
          )
          yield* AmqpPublisher.publish({ routingKey: "fails", content: "x" })
          const [first, second] = yield* ended("process fails", 2)
          const publish = yield* one("publish fails")
          const again = yield* one(`publish ${AmqpTopology.retryQueueName("fails", "20 millis")}`)
          assert.deepStrictEqual(
            [first!, second!].map((span) => [parentOf(span), span.attributes.get("error.type")]),
            [
              [publish.spanId, "OutOfStock"],
              [publish.spanId, "TypeError"]
            ]
          )
          assert.instanceOf(endOf(first!), OutOfStock)
          assert.instanceOf(endOf(second!), TypeError)
          assert.strictEqual(parentOf(again), first!.spanId)
        })
      )
    )

    it.effect("a message that cannot be decoded fails its span; one that is interrupted says so", () =>
      traced(({ ended, one }) =>
        Effect.gen(function* () {
          yield* declare("undecodable")
          const started = yield* Deferred.make<void>()
          const consumer = yield* Effect.forkScoped(
            AmqpConsumer.consume(
              "undecodable",
              () => Effect.andThen(Deferred.succeed(started, undefined), Effect.never),
              { schema: Schema.Int, shutdownTimeout: 0 }
            )
          )
          yield* AmqpPublisher.publish({ routingKey: "undecodable", content: "no number" })
          const process = yield* one("process undecodable")
          assert.strictEqual(process.attributes.get("error.type"), "DecodeFailed")
          yield* AmqpPublisher.publish({ routingKey: "undecodable", content: "7" })
          yield* Deferred.await(started)
          yield* Fiber.interrupt(consumer)
          const [, interrupted] = yield* ended("process undecodable", 2)
          assert.strictEqual(endOf(interrupted!), "Interrupted")
          assert.isFalse(interrupted!.attributes.has("error.type"))
        })
      )
    )

    it.effect("no span holds contents, header values or the password", () =>
      Effect.gen(function* () {
        const { name: username } = yield* Users.make("sesame-password")
        const credentials = { _tag: "Plain", username, password: Redacted.make("sesame-password") } as const
        yield* traced(
          ({ spans, ended }) =>
            Effect.gen(function* () {
              yield* declare("secret")
              yield* Effect.forkScoped(
                AmqpConsumer.consume("secret", () => Effect.fail(new OutOfStock({ item: "pen" })), {
                  schema: Schema.Int
                })
              )
              const message = { routingKey: "secret", content: "sesame-content", headers: { token: "sesame-header" } }
              yield* AmqpPublisher.publish(message)
              yield* Effect.ignore(AmqpPublisher.publish({ ...message, exchange: "not there" }))
              yield* ended("process secret")
              const printed = spans.map(({ attributes, events, links, name, status }) =>
                JSON.stringify(
                  [
                    name,
                    [...attributes],
                    events,
                    links.map(({ attributes }) => attributes),
                    String(status._tag === "Ended" && endOf({ status } as never))
                  ],
                  (_, value) => (typeof value === "bigint" ? String(value) : value)
                )
              )
              assert.strictEqual(printed.length, 3)
              for (const line of printed) assert.notInclude(line, "sesame")
            }),
          { credentials }
        )
      })
    )
  })

  describe("many messages", () => {
    it.effect("a batch is one span that links to the context of each of its messages", () =>
      traced(({ ended, one }) =>
        Effect.gen(function* () {
          yield* declare("batch")
          for (const messageId of ["a", "b"]) {
            yield* Effect.withSpan(
              AmqpPublisher.publish({ routingKey: "batch", content: messageId, messageId }),
              messageId
            )
          }
          yield* AmqpPublisher.publish({ routingKey: "batch", content: "c", headers: { traceparent: "none" } })
          const published = yield* ended("publish batch", 3)
          yield* Effect.forkScoped(
            AmqpConsumer.consumeBatch("batch", () => Effect.withSpan(Effect.void, "INSERT"), {
              size: 3,
              within: "10 seconds"
            }).pipe(Effect.withSpan("main"))
          )
          const process = yield* one("process batch")
          assert.isUndefined(parentOf(process))
          assert.deepInclude(attributesOf(process), {
            "messaging.destination.name": "batch",
            "messaging.batch.message_count": 3,
            "messaging.operation.type": "process"
          })
          assert.deepStrictEqual(
            process.links.map(({ attributes, span }) => [
              span.spanId,
              span.traceId,
              attributes["messaging.message.id"]
            ]),
            published.slice(0, 2).map((span, i) => [span.spanId, span.traceId, ["a", "b"][i]])
          )
          assert.strictEqual(new Set(published.map(({ traceId }) => traceId)).size, 3)
          assert.strictEqual(parentOf(yield* one("INSERT")), process.spanId)
        })
      )
    )

    it.effect("a batch whose handler fails gives its error's tag", () =>
      traced(({ one }) =>
        Effect.gen(function* () {
          yield* declare("batch fails")
          yield* Effect.forkScoped(
            AmqpConsumer.consumeBatch("batch fails", () => Effect.fail(new OutOfStock({ item: "pen" })), {
              size: 2,
              within: "20 millis"
            })
          )
          yield* AmqpPublisher.publish({ routingKey: "batch fails", content: "x" })
          assert.strictEqual((yield* one("process batch fails")).attributes.get("error.type"), "OutOfStock")
        })
      )
    )

    it.effect("publishAll opens one span, below that of its caller, whose context goes with each message", () =>
      traced(({ names, one }) =>
        Effect.gen(function* () {
          yield* declare("all")
          const messages = Array.from({ length: 100 }, (_, i) => ({ routingKey: "all", content: String(i) }))
          yield* Effect.withSpan(Stream.runDrain(AmqpPublisher.publishAll(messages)), "import")
          const publish = yield* one("publish")
          assert.strictEqual(parentOf(publish), (yield* one("import")).spanId)
          assert.deepInclude(attributesOf(publish), {
            "messaging.batch.message_count": 100,
            "messaging.operation.type": "send"
          })
          assert.strictEqual(publish.kind, "producer")
          for (let i = 0; i < 100; i += 33) {
            assert.strictEqual((yield* take("all")).properties.headers["traceparent"], contextOf(publish))
          }
          // Each outcome has the message that was given, not the one with the context.
          const [outcome] = yield* AmqpPublisher.publishAll([messages[0]!], { failures: "values" }).pipe(
            Stream.runCollect,
            Effect.withSpan("values")
          )
          assert.strictEqual(outcome!.message, messages[0])
          yield* Effect.ignore(
            Stream.runDrain(
              AmqpPublisher.publishAll([{ routingKey: "nobody", content: "" }], { mandatory: true })
            ).pipe(Effect.withSpan("fails"))
          )
          assert.strictEqual(names().filter((name) => name === "publish").length, 3)
        })
      )
    )

    it.effect("publishAll outside any span opens none, and its messages have no trace", () =>
      traced(({ names }) =>
        Effect.gen(function* () {
          yield* declare("endless")
          yield* Stream.runDrain(AmqpPublisher.publishAll([{ routingKey: "endless", content: "x" }]))
          assert.deepStrictEqual(names(), [])
          assert.deepStrictEqual(Object.keys((yield* take("endless")).properties.headers), [])
        })
      )
    )
  })

  describe("request and reply", () => {
    const Divide = AmqpRpc.make("divide", {
      payload: { by: Schema.Finite },
      success: Schema.Finite,
      error: OutOfStock
    })
    const divide = AmqpRpc.client(Divide)
    const serving = AmqpRpc.serve(Divide, ({ by }) =>
      by === 0
        ? Effect.die(new RangeError("by zero"))
        : by < 0
          ? Effect.fail(new OutOfStock({ item: "negatives" }))
          : Effect.withSpan(Effect.succeed(1 / by), "compute")
    )

    it.effect("the call, its server's handling and the reply are one trace", () =>
      traced(({ one }) =>
        Effect.gen(function* () {
          yield* declare("divide")
          yield* Effect.forkScoped(serving)
          assert.strictEqual(yield* Effect.withSpan(divide({ by: 4 }), "GET /quarter"), 0.25)
          const get = yield* one("GET /quarter")
          const call = yield* one("call divide")
          const handled = yield* one("process divide")
          const reply = yield* one("publish amq.rabbitmq.reply-to")
          assert.deepStrictEqual(
            [call, handled, yield* one("compute"), reply].map((span) => [span.kind, span.traceId, parentOf(span)]),
            [
              ["client", get.traceId, get.spanId],
              ["server", get.traceId, call.spanId],
              ["internal", get.traceId, handled.spanId],
              ["producer", get.traceId, handled.spanId]
            ]
          )
          const conversation = call.attributes.get("messaging.message.conversation_id")
          assert.isString(conversation)
          assert.deepInclude(attributesOf(call), {
            "rpc.method": "divide",
            "messaging.operation.name": "call",
            "messaging.destination.name": "divide",
            "messaging.message.body.size": 8
          })
          assert.deepInclude(attributesOf(handled), {
            "rpc.method": "divide",
            "amqp.rpc.reply": "success",
            "messaging.message.conversation_id": conversation
          })
          // The address of the client's channel stays out of the span.
          assert.deepInclude(attributesOf(reply), {
            "messaging.destination.name": "amq.rabbitmq.reply-to",
            "messaging.destination.temporary": true
          })
          assert.notProperty(attributesOf(reply), "messaging.rabbitmq.destination.routing_key")
        })
      )
    )

    it.effect(
      "a declared failure is an answer for the server and a failure for the client; a defect is a failure for both",
      () =>
        traced(({ ended }) =>
          Effect.gen(function* () {
            yield* declare("divide")
            yield* Effect.forkScoped(serving)
            yield* Effect.ignore(divide({ by: -1 }))
            yield* Effect.ignore(divide({ by: 0 }))
            const calls = yield* ended("call divide", 2)
            const handled = yield* ended("process divide", 2)
            assert.deepStrictEqual(
              calls.map(({ attributes }) => attributes.get("error.type")),
              ["OutOfStock", "RemoteFailure"]
            )
            assert.deepStrictEqual(
              handled.map((span) => [span.attributes.get("amqp.rpc.reply"), span.attributes.get("error.type")]),
              [
                ["failure", undefined],
                ["defect", "RangeError"]
              ]
            )
            assert.strictEqual(endOf(handled[0]!), "Success")
            assert.instanceOf(endOf(handled[1]!), RangeError)
          })
        )
    )
  })

  describe("without tracing", () => {
    const quiet = ["Effect's own tracer", "a tracer that is switched off", "propagation that is switched off"] as const

    for (const [i, how] of quiet.entries()) {
      it.effect(`${how} opens no span and leaves messages as they are`, () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const { spans, tracer } = collecting()
          const off =
            i === 0
              ? <A, E, R>(effect: Effect.Effect<A, E, R>) => effect
              : <A, E, R>(effect: Effect.Effect<A, E, R>) =>
                  (i === 1
                    ? Effect.provideService(effect, References.TracerEnabled, false)
                    : Effect.provideService(effect, Tracer.DisablePropagation, true)
                  ).pipe(Effect.provideService(Tracer.Tracer, tracer))
          const seen = yield* Effect.gen(function* () {
            const queue = `quiet ${i}`
            yield* declare(queue)
            yield* declare("quiet rpc")
            const deliveries = yield* Queue.unbounded<[AmqpMessage.Headers, Option.Option<unknown>]>()
            const note = ({ properties }: AmqpConsumer.Delivery) =>
              Effect.flatMap(Effect.option(Effect.currentSpan), (span) =>
                Queue.offer(deliveries, [properties.headers, span])
              )
            const Ask = AmqpRpc.make("quiet rpc")
            yield* Effect.forkScoped(AmqpConsumer.consume(queue, note))
            yield* Effect.forkScoped(AmqpRpc.serve(Ask, (_, request) => note(request)))
            const message = { routingKey: queue, content: "x" }
            const pool = yield* AmqpPool.AmqpPool
            yield* AmqpPublisher.publish(message)
            yield* pool.use((channel) => channel.publish(message))
            yield* Stream.runDrain(AmqpPublisher.publishAll([message]))
            const ask = AmqpRpc.client(Ask)
            yield* ask(undefined)
            return [
              yield* Queue.take(deliveries),
              yield* Queue.take(deliveries),
              yield* Queue.take(deliveries),
              yield* Queue.take(deliveries)
            ]
          }).pipe(
            Effect.scoped,
            Effect.provide(Amqp.fromConfig(configOf(url)), { local: true }),
            i === 2 ? (effect) => effect : Effect.withSpan("around it all"),
            off,
            Effect.provideService(References.MinimumLogLevel, "None")
          )
          assert.deepStrictEqual(
            seen.map(([headers]) => Object.keys(headers)),
            [[], [], [], []]
          )
          assert.deepStrictEqual(
            spans.map(({ name }) => name),
            []
          )
        })
      )
    }
  })
})
