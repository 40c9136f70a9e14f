/** The complete responses to AMQP errors over a socket, case by case. They contain no internals. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConsumer, type AmqpError, AmqpPool, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpHttpApi, AmqpProblem } from "@effect-amqp/http"
import { Effect, Layer, Logger, Schema } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiError, HttpApiGroup } from "effect/http-api"
import { configOf } from "../../core/test/support/amqp.ts"
import * as ScriptedBroker from "../../core/test/support/ScriptedBroker.ts"
import { fullServer, quiet } from "./support/server.ts"
import { type Answer, get, type Handler, type ServiceOptions, withService } from "./support/service.ts"

// Every name contains this text, and it must never reach a client.
const canary = "c4n4ry"
const named = (what: string) => `${canary}-${what}`

const ok = HttpServerResponse.empty({ status: 202 })

const titles = {
  422: "Unprocessable Content",
  500: "Internal Server Error",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout"
} as const

interface Expected {
  readonly status: keyof typeof titles
  readonly detail?: string
  readonly retryAfter?: string
}

const isProblem = (answer: Answer, { detail, retryAfter, status }: Expected) => {
  const { body, headers } = answer
  assert.deepStrictEqual(
    {
      status: answer.status,
      type: headers["content-type"],
      retryAfter: headers["retry-after"],
      body: JSON.parse(body)
    },
    {
      status,
      type: "application/problem+json",
      retryAfter,
      body: { type: "about:blank", title: titles[status], status, ...(detail === undefined ? undefined : { detail }) }
    }
  )
  for (const word of [canary, "mqp", "abbit", "guest", "5672"]) assert.notInclude(JSON.stringify([headers, body]), word)
}

const timedOut: Expected = {
  status: 504,
  detail:
    "The message broker did not answer in time. The request may have taken effect; repeat it only if that is safe."
}

const publish = (message: { readonly routingKey: string; readonly content: string }) =>
  Effect.as(AmqpPublisher.publish(message, { mandatory: true }), ok)

/** Sends one request to a service of its own. */
const answerOf = (url: string, handler: Handler, options: ServiceOptions = {}) =>
  get("/").pipe(
    withService(url, { "/": handler }, { ...options, amqp: { connectionName: named("service"), ...options.amqp } }),
    Effect.provide(Logger.layer([]))
  )

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("an AMQP error", () => {
    it.effect("of a message that no queue receives is a 422, for every way to publish it", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const message = { routingKey: named("nowhere"), content: canary }
        const confirmed = AmqpChannel.useConfirm((channel) =>
          Effect.as(channel.publish(message, { mandatory: true }), ok)
        )
        for (const handler of [publish(message), confirmed]) {
          isProblem(yield* answerOf(url, handler), {
            status: 422,
            detail: "No queue receives this message. Nothing was stored."
          })
        }
      })
    )

    it.effect("of a message that no queue receives is answered as the application configures it", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const toResponse = ({ reason }: AmqpError.AmqpError) =>
          reason._tag === "PublishReturned" ? HttpServerResponse.text("kept for later", { status: 202 }) : undefined
        const answer = yield* answerOf(url, publish({ routingKey: named("nowhere"), content: "it" }), {
          http: { toResponse }
        })
        assert.deepInclude(answer, { status: 202, body: "kept for later" })
      })
    )

    it.effect("becomes an endpoint's own problem if its handler says so, and the default problem otherwise", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        class Unheard extends HttpApiError.Problem<Unheard>()("Unheard", {
          type: "https://example.com/unheard",
          status: 409,
          title: "No listeners"
        }) {}
        const Group = HttpApiGroup.make("group").add(
          HttpApiEndpoint.get("own", "/own", { error: Unheard }),
          HttpApiEndpoint.get("other", "/other")
        )
        const Api = HttpApi.make("api").add(Group.middleware(AmqpHttpApi.AmqpHttpApi))
        const unroutable = Effect.asVoid(publish({ routingKey: named("nowhere"), content: "it" }))
        const handlers = HttpApiBuilder.group(Api, "group", (all) =>
          all
            .handle("own", () =>
              unroutable.pipe(
                Effect.catchReason("AmqpError", "PublishReturned", () => Effect.fail(new Unheard())),
                AmqpProblem.orProblem
              )
            )
            .handle("other", () => AmqpProblem.orProblem(unroutable))
        )
        yield* Effect.gen(function* () {
          const own = yield* get("/own")
          assert.strictEqual(own.status, 409)
          assert.deepInclude(JSON.parse(own.body), { type: "https://example.com/unheard", title: "No listeners" })
          isProblem(yield* get("/other"), {
            status: 422,
            detail: "No queue receives this message. Nothing was stored."
          })
        }).pipe(
          Effect.provide(
            HttpRouter.serve(HttpApiBuilder.layer(Api), quiet).pipe(
              Layer.provide(handlers),
              Layer.provide(AmqpHttpApi.layer),
              Layer.provideMerge(fullServer),
              Layer.provideMerge(Amqp.fromConfig(configOf(url))),
              Layer.provide(Logger.layer([]))
            ),
            { local: true }
          )
        )
      })
    )

    it.effect("of a message in a queue that is larger than this service accepts is a 500", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const queue = named("large")
        const fill = AmqpChannel.use((channel) =>
          Effect.andThen(
            channel.queueDeclare(queue, { durable: false }),
            channel.publish({ routingKey: queue, content: "x".repeat(2000) })
          )
        )
        const take = AmqpChannel.use((channel) => Effect.as(channel.get(queue), ok))
        const consume = Effect.as(
          AmqpConsumer.consume(queue, () => Effect.void),
          ok
        )
        for (const handler of [Effect.andThen(fill, take), consume]) {
          isProblem(yield* answerOf(url, handler, { amqp: { maxInboundMessageBodySize: 1000 } }), { status: 500 })
        }
      })
    )

    it.effect("of a full queue is a 503 with Retry-After", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const queue = named("full")
        const handler = Effect.andThen(
          AmqpChannel.use((channel) => channel.queueDeclare(queue, { maxLength: 1, overflow: "reject-publish" })),
          Effect.forEach([1, 2, 3], () => publish({ routingKey: queue, content: "it" }))
        )
        isProblem(yield* answerOf(url, Effect.as(handler, ok)), {
          status: 503,
          retryAfter: "1",
          detail: "The request failed for a temporary reason. Try again in a moment."
        })
      })
    )

    it.effect("of an RPC request is a 502 if its server dies, and a 504 if no server answers in time", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const Ask = AmqpRpc.make(named("ask"), { payload: Schema.Int })
        const declared = AmqpChannel.use((channel) => channel.queueDeclare(Ask.queue, { durable: false }))
        const ask = (timeout: number) => Effect.as(AmqpRpc.client(Ask, { timeout })(7), ok)
        const served = Effect.gen(function* () {
          yield* declared
          yield* Effect.forkScoped(Effect.exit(AmqpRpc.serve(Ask, () => Effect.die(new Error(canary)))))
          return yield* ask(20_000)
        })
        isProblem(yield* answerOf(url, served), {
          status: 502,
          detail: "A service behind this one failed to process the request."
        })
        isProblem(yield* answerOf(url, Effect.andThen(declared, ask(300))), {
          ...timedOut,
          detail:
            "The service did not answer in time. The request may have taken effect; repeat it only if that is safe."
        })
      })
    )
  })
})

describe("an AMQP error on a broker that", () => {
  it.live("accepts a message and never confirms it is a 504", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": () => {} } })
      const handler = publish({ routingKey: named("queue"), content: canary })
      isProblem(yield* answerOf(broker.url, handler, { amqp: { publishTimeout: "300 millis" } }), timedOut)
    })
  )

  it.live("is lost before it has confirmed a message is a 504, because the message may have arrived", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make({ on: { "basic.publish": () => {} } })
      const handler = publish({ routingKey: named("queue"), content: canary })
      yield* Effect.forkScoped(
        Effect.andThen(
          broker.received("basic.publish"),
          Effect.sync(() => broker.destroy())
        )
      )
      isProblem(yield* answerOf(broker.url, handler), timedOut)
    }).pipe(Effect.scoped)
  )

  it.live("closes a channel over a refused request is a 500, and the pool replaces the channel", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      broker.on("queue.declare", (received) => received.closeChannel(403, `${canary}: access refused`))
      const handler = AmqpChannel.use((channel) => Effect.as(channel.queueDeclare(named("queue")), ok))
      yield* Effect.gen(function* () {
        isProblem(yield* get("/"), { status: 500 })
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, discarded: 1 })
      }).pipe(withService(broker.url, { "/": handler }), Effect.provide(Logger.layer([])))
    })
  )
})
