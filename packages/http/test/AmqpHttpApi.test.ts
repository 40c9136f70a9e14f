/** Typed endpoints with AMQP, called over a socket by a client that is generated from the same API. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConfig, AmqpError, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpHttpApi, AmqpHttpError, AmqpProblem } from "@effect-amqp/http"
import { Deferred, Effect, Fiber, Layer, Logger, Schema, Stream } from "effect"
import { FetchHttpClient, HttpRouter, HttpServerRespondable } from "effect/http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiClient,
  HttpApiEndpoint,
  HttpApiError,
  HttpApiGroup,
  HttpApiSchema,
  OpenApi
} from "effect/http-api"
import { untilStats } from "../../core/test/support/amqp.ts"
import { address, fullServer, quiet } from "./support/server.ts"
import { get, touch } from "./support/service.ts"
import { errors, secret } from "./support/errorsWithSecrets.ts"

class Refused extends HttpApiError.Problem<Refused>()("Refused", {
  type: "https://example.com/refused",
  status: 422,
  title: "Refused"
}) {}

const Messages = HttpApiGroup.make("messages")
  .add(
    HttpApiEndpoint.post("send", "/messages", {
      payload: Schema.Struct({ to: Schema.String, content: Schema.String }),
      success: HttpApiSchema.Accepted,
      error: Refused
    }),
    HttpApiEndpoint.get("fail", "/fail/:tag", { params: { tag: Schema.String } }),
    HttpApiEndpoint.get("leak", "/leak/:tag", { params: { tag: Schema.String } }),
    HttpApiEndpoint.get("touch", "/touch", { success: Schema.Struct({ used: Schema.Int }) }),
    HttpApiEndpoint.get("hold", "/hold", { success: Schema.String }),
    HttpApiEndpoint.get("lines", "/lines", { success: HttpApiSchema.StreamUint8Array() })
  )
  .middleware(AmqpHttpApi.AmqpHttpApi)

const Api = HttpApi.make("api").add(
  Messages,
  HttpApiGroup.make("others").add(HttpApiEndpoint.get("plain", "/plain", { success: Schema.String }))
)

const errorOf = (tag: string) =>
  errors.find(({ reason }) => reason._tag === tag) ?? AmqpError.fromReason(new AmqpError.UnknownError({ message: tag }))

interface Gates {
  readonly holding: Deferred.Deferred<void>
  readonly letGo: Deferred.Deferred<void>
}

const handlersOf = ({ holding, letGo }: Gates) =>
  Layer.merge(
    HttpApiBuilder.group(Api, "messages", (handlers) =>
      handlers
        .handle("send", ({ payload: { content, to } }) =>
          content === "refuse me"
            ? Effect.fail(new Refused())
            : AmqpPublisher.publish({ routingKey: to, content }, { mandatory: true }).pipe(
                Effect.asVoid,
                AmqpProblem.orProblem
              )
        )
        .handle("fail", ({ params }) => AmqpProblem.orProblem(Effect.fail(errorOf(params.tag))))
        // The types do not allow this error, so the test casts.
        .handle("leak", ({ params }) => Effect.fail(errorOf(params.tag)) as unknown as Effect.Effect<void>)
        .handle(
          "touch",
          Effect.fn("touch")(function* () {
            for (let i = 0; i < 3; i++) yield* touch
            const { used } = yield* AmqpPool.stats
            return { used }
          }, AmqpProblem.orProblem)
        )
        .handle("hold", () =>
          Effect.andThen(touch, Deferred.succeed(holding, undefined)).pipe(
            Effect.andThen(Deferred.await(letGo)),
            Effect.as("held"),
            AmqpProblem.orProblem
          )
        )
        .handle("lines", () =>
          AmqpChannel.use((channel) =>
            Effect.as(
              channel.queueDeclare("", { exclusive: true }),
              Stream.range(1, 3).pipe(
                Stream.mapEffect((n) => Effect.as(channel.queueDeclare("", { exclusive: true }), `${n}\n`)),
                Stream.encodeText
              )
            )
          ).pipe(AmqpProblem.orProblem)
        )
    ),
    HttpApiBuilder.group(Api, "others", (handlers) => handlers.handle("plain", () => Effect.succeed("plain")))
  )

const withApi =
  (url: string, pool?: AmqpConfig.Options["pool"]) =>
  <A, E, R>(test: (gates: Gates) => Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const gates = { holding: yield* Deferred.make<void>(), letGo: yield* Deferred.make<void>() }
      const app = HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" }).pipe(
        Layer.provide(handlersOf(gates)),
        Layer.provide(AmqpHttpApi.layer)
      )
      const broker = Layer.unwrap(
        Effect.map(AmqpConfig.fromUrl(url, { pool: { max: 4, ...Object(pool) } }), Amqp.fromConfig)
      )
      return yield* Effect.provide(
        test(gates),
        HttpRouter.serve(app, quiet).pipe(
          Layer.provideMerge(fullServer),
          Layer.provideMerge(broker),
          Layer.provideMerge(FetchHttpClient.layer)
        ),
        { local: true }
      )
    })

const makeClient = Effect.flatMap(address, (baseUrl) => HttpApiClient.make(Api, { baseUrl }))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  it.effect("handlers of a group have AMQP, and one channel per request, which returns at its end", () =>
    Effect.gen(function* () {
      const { awaitCensus, url } = yield* TestBroker.TestBroker
      yield* withApi(url)(() =>
        Effect.gen(function* () {
          const client = yield* makeClient
          yield* touch.pipe(Effect.scoped)
          assert.deepStrictEqual(yield* client.messages.touch(), { used: 1 })
          assert.strictEqual(yield* client.others.plain(), "plain")
          const lines = yield* Stream.mkString(Stream.decodeText(yield* client.messages.lines()))
          assert.strictEqual(lines, "1\n2\n3\n")
          yield* untilStats(({ used }) => used === 0)
          assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, created: 1, discarded: 0 })
          yield* awaitCensus({ channels: 1 })
        })
      )
    })
  )

  it.effect("a confirmed publish succeeds; an unroutable one is AmqpUnroutable at the client", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      yield* withApi(url)(() =>
        Effect.gen(function* () {
          const client = yield* makeClient
          const { queue } = yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare("")))
          yield* client.messages.send({ payload: { to: queue, content: "Hello" } })
          const error = yield* Effect.flip(client.messages.send({ payload: { to: "nowhere", content: "Hello" } }))
          assert.instanceOf(error, AmqpProblem.Unroutable)
          assert.deepInclude(error, {
            status: 422,
            detail: "No queue receives this message. Nothing was stored."
          })
          const own = yield* Effect.flip(client.messages.send({ payload: { to: queue, content: "refuse me" } }))
          assert.instanceOf(own, Refused)
          const left = yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete(queue)))
          assert.strictEqual(left, 1)
        })
      )
    })
  )

  it.effect("an exhausted pool is AmqpUnavailable at the client, with the time to wait", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      yield* withApi(url, { max: 1, maxWaiting: 0 })(({ holding, letGo }) =>
        Effect.gen(function* () {
          const client = yield* makeClient
          const held = yield* Effect.forkChild(client.messages.hold())
          yield* Deferred.await(holding)
          const error = yield* Effect.flip(client.messages.touch())
          assert.instanceOf(error, AmqpProblem.Unavailable)
          assert.deepInclude(error, {
            retryAfter: 1,
            detail: "The service is at capacity. Try again in a moment."
          })
          const raw = yield* get("/touch")
          assert.strictEqual(raw.headers["retry-after"], "1")
          yield* Deferred.succeed(letGo, undefined)
          assert.strictEqual(yield* Fiber.join(held), "held")
        })
      )
    })
  )

  it.effect(
    "every AMQP error has the same response as in a router, and is a problem of its own type at the client",
    () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const classes = {
          413: AmqpProblem.TooLarge,
          422: AmqpProblem.Unroutable,
          500: HttpApiError.InternalServerErrorProblem,
          502: AmqpProblem.BadGateway,
          503: AmqpProblem.Unavailable,
          504: AmqpProblem.TimedOut
        }
        yield* withApi(url)(() =>
          Effect.gen(function* () {
            const client = yield* makeClient
            for (const error of errors) {
              const tag = error.reason._tag
              const expected = AmqpHttpError.toResponse(error)
              const body = expected.body._tag === "Uint8Array" ? new TextDecoder().decode(expected.body.body) : ""
              for (const path of [`/fail/${tag}`, `/leak/${tag}`]) {
                const answer = yield* get(path)
                assert.strictEqual(answer.status, expected.status, tag)
                assert.deepStrictEqual(JSON.parse(answer.body), JSON.parse(body), tag)
                assert.strictEqual(answer.headers["retry-after"], expected.headers["retry-after"], tag)
                assert.strictEqual(answer.headers["content-type"], "application/problem+json", tag)
              }
              const problem = yield* Effect.flip(client.messages.fail({ params: { tag } }))
              assert.strictEqual<unknown>(problem.constructor, classes[expected.status as keyof typeof classes], tag)
              const retryAfter = problem._tag === "AmqpUnavailable" ? String(problem.retryAfter) : undefined
              assert.strictEqual(retryAfter, expected.headers["retry-after"], tag)
              assert.notInclude(JSON.stringify(problem), "alice")
            }
          })
        )
      }).pipe(Effect.provide(Logger.layer([])))
  )

  describe("the OpenAPI document", () => {
    it.effect("has the problems at the endpoints of the group only, and Retry-After at 503", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        yield* withApi(url)(() =>
          Effect.gen(function* () {
            const document = JSON.parse((yield* get("/openapi.json")).body) as OpenApi.OpenAPISpec
            assert.deepStrictEqual(document, JSON.parse(JSON.stringify(OpenApi.fromApi(Api))))
            const { responses } = document.paths["/touch"]!.get!
            assert.deepStrictEqual(
              Object.keys(responses),
              ["200", "400", "413", "422", "500", "502", "503", "504"].filter((status) => status in responses)
            )
            for (const status of [413, 422, 500, 502, 503, 504]) {
              assert.deepStrictEqual(
                Object.keys(responses[status]!.content!),
                ["application/problem+json"],
                String(status)
              )
            }
            assert.property((responses[503] as { readonly headers?: object }).headers, "retry-after")
            assert.notProperty(document.paths["/plain"]!.get!.responses, "503")
            for (const word of ["AmqpError", "reason", "isRetryable", "cause", "connection"]) {
              assert.notInclude(JSON.stringify(document.components).toLowerCase(), `"${word.toLowerCase()}"`)
            }
          })
        )
      })
    )
  })

  it.effect("an AMQP error is logged once, with its reason, which is not sent to the client", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const lines: Array<string> = []
      const collect = Logger.layer([Logger.map(Logger.formatJson, (line) => lines.push(line))])
      yield* withApi(url)(() => get("/fail/PublishReturned")).pipe(Effect.provide(collect))
      const about = lines.map((line) => JSON.parse(line)).filter(({ message }) => String(message).includes("HTTP"))
      assert.strictEqual(about.length, 1)
      assert.deepInclude(about[0].annotations, {
        "http.route": "/fail/:tag",
        "http.status": 422,
        error: "PublishReturned",
        reason: secret
      })
    })
  )

  it.effect("a problem from a handler outside of an API becomes a response", () =>
    Effect.gen(function* () {
      const problem = AmqpProblem.fromError(errorOf("PoolExhausted"))
      const response = yield* HttpServerRespondable.toResponse(problem as AmqpProblem.Unavailable)
      const { body, headers, status } = AmqpHttpError.toResponse(errorOf("PoolExhausted"))
      assert.deepInclude(response, { status, headers })
      assert.deepStrictEqual(response.body, body)
    })
  )
})
