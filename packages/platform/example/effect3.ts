/**
 * The order service on Effect 3 and `@effect/platform`: an HTTP service that publishes, and a consumer, in one program.
 *
 * - `POST /orders` publishes an order and answers with 202 when the broker has confirmed it.
 * - `GET /health/ready` says whether the service can take orders.
 * - If there is no broker, the answer is 503 with `Retry-After`.
 *
 * Run it with `npm start -- effect3`. Ctrl-C stops it.
 */
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpChannel, AmqpConsumer, AmqpMessage, AmqpTopology } from "@effect-amqp/platform"
import { AmqpHttp } from "@effect-amqp/platform/http"
import { Config, Console, Effect, Layer, Schema } from "effect"
import { createServer } from "node:http"
import * as ExampleBroker from "./support/ExampleBroker.ts"

const Order = Schema.Struct({ id: Schema.Int, product: Schema.String })

const Queues = AmqpTopology.layer(AmqpTopology.make(AmqpTopology.queue("effect3.orders")))

// --- The service -------------------------------------------------------------------------------------------------------

const placeOrder = Effect.gen(function* () {
  const order = yield* HttpServerRequest.schemaBodyJson(Order)
  const message = yield* AmqpMessage.json(Order).encode(order, { routingKey: "effect3.orders" })
  // The request's scope returns the channel.
  yield* AmqpChannel.useConfirm((channel) => channel.publish(message, { mandatory: true }))
  return HttpServerResponse.empty({ status: 202 })
}).pipe(
  Effect.catchTag("ParseError", () => HttpServerResponse.text("Expected an order: {id, product}.", { status: 400 }))
)

const Router = HttpRouter.empty.pipe(
  HttpRouter.post("/orders", placeOrder),
  HttpRouter.get("/health/ready", AmqpHttp.ready),
  HttpRouter.use(AmqpHttp.middleware)
)

const Server = Layer.unwrapEffect(
  Effect.map(Config.withDefault(Config.integer("PORT"), 3000), (port) =>
    NodeHttpServer.layer(createServer, { host: "127.0.0.1", port })
  )
)

// --- The consumer ------------------------------------------------------------------------------------------------------

const Shipping = AmqpConsumer.layerConsume(
  "effect3.orders",
  ({ id, product }) => Console.log(`Shipping ${id}: ${product}`),
  {
    schema: Order,
    concurrency: 8,
    onDecodeFailure: () => AmqpConsumer.drop
  }
)

// --- The program -------------------------------------------------------------------------------------------------------

const Announcement = Layer.effectDiscard(
  HttpServer.addressFormattedWith((address) =>
    Console.log(
      `Orders are on ${address}.\n\n  curl -i ${address}/orders -H 'content-type: application/json' -d '{"id":1,"product":"tea"}'\n\nCtrl-C stops it.`
    )
  )
)

Announcement.pipe(
  Layer.provide(HttpServer.serve(Router)),
  Layer.provide(Server),
  Layer.provide(Shipping),
  Layer.provide(Queues),
  Layer.provide(ExampleBroker.layer),
  Amqp.launch,
  NodeRuntime.runMain
)
