/**
 * A typed API in front of a queue. Its endpoint sends a request to a worker and waits for the reply, and its client is
 * derived from the same description. Server, worker and client are one program here, and can be three.
 *
 * Run it with `npm start -- api`. It sends two requests, and ends.
 */
import { AmqpRpc, AmqpTopology } from "@effect-amqp/core"
import { AmqpHttpApi, AmqpProblem } from "@effect-amqp/http"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { BigDecimal, Console, Effect, Layer, Schema } from "effect"
import { FetchHttpClient, HttpRouter, HttpServer } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiClient, HttpApiEndpoint, HttpApiError, HttpApiGroup } from "effect/http-api"
import { createServer } from "node:http"
import * as ExampleBroker from "./support/ExampleBroker.ts"

// --- What server and client share --------------------------------------------------------------------------------------

class NoSuchArticle extends HttpApiError.Problem<NoSuchArticle>()("NoSuchArticle", {
  type: "https://example.com/problems/no-such-article",
  status: 404,
  title: "There is no such article."
}) {}

const Prices = HttpApiGroup.make("prices")
  .add(
    HttpApiEndpoint.get("get", "/prices/:article", {
      params: { article: Schema.NonEmptyString },
      success: Schema.Struct({ price: Schema.BigDecimal }),
      error: NoSuchArticle
    })
  )
  // Handlers have AMQP, and the client knows how it can fail.
  .middleware(AmqpHttpApi.AmqpHttpApi)

const Api = HttpApi.make("shop").add(Prices)

// --- The worker behind the queue ---------------------------------------------------------------------------------------

class UnknownArticle extends Schema.TaggedError<UnknownArticle>()("UnknownArticle", {}) {}

const PriceOf = AmqpRpc.make("shop.price", {
  payload: { article: Schema.String },
  success: Schema.BigDecimal,
  error: UnknownArticle
})

const prices = new Map([["tea", BigDecimal.fromStringUnsafe("3.95")]])

const Worker = Layer.effectDiscard(
  Effect.forkScoped(
    AmqpRpc.serve(PriceOf, ({ article }) => {
      const price = prices.get(article)
      return price === undefined ? Effect.fail(new UnknownArticle()) : Effect.succeed(price)
    })
  )
)

// --- The server --------------------------------------------------------------------------------------------------------

const priceOf = AmqpRpc.client(PriceOf, { timeout: "5 seconds" })

const Handlers = HttpApiBuilder.group(Api, "prices", (handlers) =>
  handlers.handle("get", ({ params }) =>
    priceOf({ article: params.article }).pipe(
      Effect.map((price) => ({ price })),
      Effect.catchTag("UnknownArticle", () => Effect.fail(new NoSuchArticle())),
      // Failures of AMQP become 503 with Retry-After, 504, 502, ..., as the API declares.
      AmqpProblem.orProblem
    )
  )
)

const Server = HttpRouter.serve(HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" }), {
  disableListenLog: true,
  disableLogger: true
}).pipe(
  Layer.provide(Handlers),
  Layer.provide(AmqpHttpApi.layer),
  Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 }))
)

// --- The client --------------------------------------------------------------------------------------------------------

const client = Effect.gen(function* () {
  const { address } = yield* HttpServer.HttpServer
  const shop = yield* HttpApiClient.make(Api, { baseUrl: HttpServer.formatAddress(address) })
  const ask = Effect.fn("ask")(function* (article: string) {
    const { price } = yield* shop.prices.get({ params: { article } })
    yield* Console.log(`The price of "${article}" is ${BigDecimal.format(price)}.`)
  })
  yield* ask("tea")
  // The errors are typed in the client: the application's own, and those of AMQP.
  yield* ask("unicorn").pipe(
    Effect.catchTag("NoSuchArticle", ({ title }) => Console.log(title)),
    Effect.catchTag("AmqpUnavailable", ({ retryAfter }) => Console.log(`Try again in ${retryAfter} seconds.`))
  )
})

// --- The program -------------------------------------------------------------------------------------------------------

client.pipe(
  Effect.provide(Server),
  Effect.provide(Worker),
  Effect.provide(AmqpTopology.layer(AmqpTopology.make(AmqpTopology.queue(PriceOf.queue)))),
  Effect.provide(FetchHttpClient.layer),
  // In an application, use AmqpLive.
  Effect.provide(ExampleBroker.layer),
  NodeRuntime.runMain
)
