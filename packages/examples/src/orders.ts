/**
 * An order service: an HTTP server in front of a queue.
 *
 * - `POST /orders` checks an order, publishes it to the queue `orders` through a channel of the pool, and answers 202.
 * - `GET /orders/next` takes the oldest order from the queue, and answers 204 if there is none.
 * - `GET /health/live` and `GET /health/ready` are for orchestrators (packages/examples/deploy).
 *
 * Run it with `npm start`.
 */
import { type Amqp, AmqpChannel, AmqpConnection, type AmqpError, AmqpMessage } from "@effect-amqp/core"
import { AmqpHealth, AmqpHttp } from "@effect-amqp/http"
import { ByteSize, Console, Effect, JsonPointer, Layer, Option, Schema, SchemaIssue, SubscriptionRef } from "effect"
import {
  HttpIncomingMessage,
  HttpRouter,
  HttpServer,
  type HttpServerError,
  HttpServerRequest,
  HttpServerResponse,
  ProblemDetails
} from "effect/http"
import * as ExampleBroker from "./support/ExampleBroker.ts"
import * as ExampleServer from "./support/ExampleServer.ts"
import { launch } from "./support/launch.ts"

/** What a customer sends. */
export const Order = Schema.Struct({
  product: Schema.NonEmptyString,
  quantity: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))
})

const queue = "orders"

// --- Answers to a bad order --------------------------------------------------------------------------------------------

/** One mistake: where it is, as a JSON pointer (RFC 6901), and what was expected there. */
interface Mistake {
  readonly pointer: string
  readonly detail: string
}

const badRequest = (detail: string, errors: ReadonlyArray<Mistake>) =>
  ProblemDetails.toResponse({ type: ProblemDetails.blankType, title: "Bad Request", status: 400, detail, errors })

const toIssues = SchemaIssue.makeFormatterStandardSchemaV1()

const badOrder = ({ issue }: Schema.SchemaError) =>
  badRequest(
    "The body is not an order.",
    toIssues(issue).issues.map(({ message, path = [] }) => ({
      pointer: path.map((key) => `/${JsonPointer.escapeToken(String(key))}`).join(""),
      detail: message
    }))
  )

const badJson = (error: HttpServerError.HttpServerError) =>
  error.cause instanceof SyntaxError
    ? Effect.succeed(badRequest("The body is not JSON.", [{ pointer: "", detail: error.cause.message }]))
    : Effect.fail(error)

// --- Routes ------------------------------------------------------------------------------------------------------------

const postOrder = Effect.gen(function* () {
  const order = yield* HttpServerRequest.schemaBodyJson(Order, { errors: "all", onExcessProperty: "error" })
  const id = crypto.randomUUID()
  yield* AmqpChannel.use((channel) =>
    channel.publish({
      routingKey: queue,
      messageId: id,
      contentType: "application/json",
      content: JSON.stringify({ id, ...order })
    })
  )
  return HttpServerResponse.jsonUnsafe({ id }, { status: 202 })
}).pipe(
  Effect.catchTag("SchemaError", (error) => Effect.succeed(badOrder(error))),
  Effect.catchTag("HttpServerError", badJson)
)

// The message is settled before the answer is sent: a client that hangs up has still taken the order.
const nextOrder = AmqpChannel.use((channel) =>
  Effect.gen(function* () {
    const delivery = yield* channel.get(queue)
    if (Option.isNone(delivery)) return HttpServerResponse.empty()
    yield* channel.ack(delivery.value)
    return HttpServerResponse.text(AmqpMessage.text(delivery.value), {
      contentType: "application/json",
      headers: { "cache-control": "no-store" }
    })
  })
)

/** The routes, whose handlers have AMQP. */
export const OrdersRoutes: Layer.Layer<
  never,
  never,
  Amqp.Amqp | HttpRouter.HttpRouter | HttpRouter.Request.From<"Error", HttpServerError.HttpServerError>
> = Layer.mergeAll(HttpRouter.add("POST", "/orders", postOrder), HttpRouter.add("GET", "/orders/next", nextOrder)).pipe(
  Layer.provide(AmqpHttp.layer)
)

// A message to a queue that does not exist is dropped.
const OrdersQueue = Layer.effectDiscard(Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue))))

/** The service, for any HTTP server and broker. */
export const OrdersService: Layer.Layer<never, AmqpError.AmqpError, Amqp.Amqp | HttpServer.HttpServer> =
  HttpRouter.serve(Layer.mergeAll(OrdersRoutes, AmqpHealth.layer()), { disableListenLog: true }).pipe(
    Layer.provide(OrdersQueue),
    Layer.provide(Layer.succeed(HttpIncomingMessage.MaxBodySize, ByteSize.kibibytes(64)))
  )

// --- The program -------------------------------------------------------------------------------------------------------

const Announcement = Layer.effectDiscard(
  Effect.gen(function* () {
    const { address } = yield* HttpServer.HttpServer
    const { state } = yield* AmqpConnection.AmqpConnection
    const url = HttpServer.formatAddress(address)
    const broker = yield* SubscriptionRef.get(state)
    yield* Console.log(`
The order service listens on ${url}${broker._tag === "Open" ? `, with ${broker.product} at ${broker.peer}` : ""}.

  curl -i ${url}/orders -d '{"product":"tea","quantity":2}'
  curl -i ${url}/orders/next

Ctrl-C stops it.
`)
    // This is stopped first, because it was built last.
    yield* Effect.addFinalizer(() => Console.log("Stopping: finishing requests, returning channels ..."))
  })
)

if (import.meta.main) {
  Announcement.pipe(
    Layer.provide(OrdersService),
    Layer.provide(ExampleServer.layer),
    Layer.provide(ExampleBroker.layer),
    launch
  )
}
