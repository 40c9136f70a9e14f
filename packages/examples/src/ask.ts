/**
 * Request and reply over HTTP: a route sends a request to a worker through its queue, and answers with the worker's
 * reply. The service and the worker are one program here. They can be two, with any number of instances of each.
 *
 * - `GET /prices/tea` answers with the price of tea, and with 404 for an article without a price.
 * - If no worker replies in time, the answer is 504. If there is no broker, it is 503 with `Retry-After`.
 *
 * Run it with `npm start -- ask`. Ctrl-C stops it.
 */
import { AmqpRpc, AmqpTopology } from "@effect-amqp/core"
import { AmqpHttp } from "@effect-amqp/http"
import { Console, Effect, Layer, Schema } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import * as ExampleBroker from "./support/ExampleBroker.ts"
import * as ExampleServer from "./support/ExampleServer.ts"
import { launch } from "./support/launch.ts"

// --- What the service and the worker share -----------------------------------------------------------------------------

class UnknownArticle extends Schema.TaggedError<UnknownArticle>()("UnknownArticle", {}) {}

const PriceOf = AmqpRpc.make("ask.price", {
  payload: { article: Schema.String },
  success: Schema.Struct({ article: Schema.String, price: Schema.String }),
  error: UnknownArticle
})

// --- The worker --------------------------------------------------------------------------------------------------------

const prices = new Map([["tea", "3.95"]])

const Worker = Layer.effectDiscard(
  Effect.forkScoped(
    AmqpRpc.serve(PriceOf, ({ article }) => {
      const price = prices.get(article)
      return price === undefined ? Effect.fail(new UnknownArticle()) : Effect.succeed({ article, price })
    })
  )
)

// --- The service -------------------------------------------------------------------------------------------------------

const priceOf = AmqpRpc.client(PriceOf, { timeout: "2 seconds" })

const getPrice = Effect.gen(function* () {
  const { article = "" } = yield* HttpRouter.params
  return HttpServerResponse.jsonUnsafe(yield* priceOf({ article }))
}).pipe(
  Effect.catchTag("UnknownArticle", () =>
    Effect.succeed(HttpServerResponse.text("There is no such article.", { status: 404 }))
  )
)

const Routes = HttpRouter.add("GET", "/prices/:article", getPrice).pipe(Layer.provide(AmqpHttp.layer))

// --- The program -------------------------------------------------------------------------------------------------------

const Announcement = Layer.effectDiscard(
  Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
    Console.log(
      `Prices are on ${HttpServer.formatAddress(address)}.\n\n  curl -i ${HttpServer.formatAddress(address)}/prices/tea\n\nCtrl-C stops it.`
    )
  )
)

Announcement.pipe(
  Layer.provide(HttpRouter.serve(Routes, { disableListenLog: true })),
  Layer.provide(Worker),
  Layer.provide(AmqpTopology.layer(AmqpTopology.make(AmqpTopology.queue(PriceOf.queue)))),
  Layer.provide(ExampleServer.layer),
  Layer.provide(ExampleBroker.layer),
  launch
)
