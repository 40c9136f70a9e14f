/** What every HTTP handler with AMQP gets, and what is logged when it fails. */
import {
  type Amqp,
  type AmqpBroker,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  AmqpPool,
  AmqpPublisher,
  AmqpRpc
} from "@effect-amqp/core"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"

/** Puts the services in context into handlers. */
export const provider = Effect.gen(function* () {
  // One by one: merging contexts would copy the request's.
  const pool = yield* AmqpPool.AmqpPool
  const connection = yield* AmqpConnection.AmqpConnection
  const publisher = yield* AmqpPublisher.AmqpPublisher
  const consumer = yield* AmqpConsumer.AmqpConsumer
  const rpc = yield* AmqpRpc.AmqpRpc
  return <A, E, R>(handler: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Amqp.Amqp>> =>
    handler.pipe(
      Effect.provideService(AmqpPool.AmqpPool, pool),
      Effect.provideService(AmqpConnection.AmqpConnection, connection),
      Effect.provideService(AmqpPublisher.AmqpPublisher, publisher),
      Effect.provideService(AmqpConsumer.AmqpConsumer, consumer),
      Effect.provideService(AmqpRpc.AmqpRpc, rpc)
    ) as Effect.Effect<A, E, Exclude<R, Amqp.Amqp>>
})

/** Puts the services of these brokers into handlers, each by its key. */
export const keyedProvider = Effect.fnUntraced(function* <const Brokers extends ReadonlyArray<AmqpBroker.Any>>(
  brokers: Brokers
) {
  type Identifier = AmqpBroker.Identifier<Brokers>
  const context = yield* Effect.context<Identifier>()
  const services = brokers.map((key) => [key, Context.getUnsafe(context, key)] as const)
  return <A, E, R>(handler: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Identifier>> => {
    let provided = handler as Effect.Effect<A, E, never>
    for (const [key, service] of services) provided = Effect.provideService(provided, key, service)
    return provided
  }
})

/** One line a failure, with what the client is not told. */
export const logFailure = Effect.fnUntraced(function* (error: AmqpError.AmqpError, status: number) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const { route } = yield* HttpRouter.RouteContext
  const level = status === 503 || status === 504 ? "Warn" : status < 500 ? "Info" : "Error"
  const line = Effect.logWithLevel(level)("HTTP request failed on AMQP")
  yield* Effect.annotateLogs(line, {
    "http.method": request.method,
    "http.route": route.path,
    "http.status": status,
    error: error.reason._tag,
    reason: error.message
  })
})
