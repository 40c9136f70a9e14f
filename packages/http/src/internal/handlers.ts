/** Provides AMQP to HTTP handlers, and logs their AMQP errors. */
import {
  type Amqp,
  AmqpBaggage,
  type AmqpBroker,
  type AmqpConfig,
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

/** Provides services to handlers. */
interface Provider<Services> {
  readonly provide: <A, E, R>(handler: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Services>>
  /** The connection's name in the log. `undefined` with several brokers, which have no common name. */
  readonly connection: string | undefined
}

/** The connection's name in the log, as the core writes it: its configured name, otherwise its first host. */
const nameOf = ({ connectionName, hosts: [{ host, port }] }: AmqpConfig.AmqpConfig): string =>
  connectionName ?? `${host}:${port}`

/** Provides a handler with the baggage of its request. */
const withBaggage = <A, E, R>(handler: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const request = Context.getOrUndefined(fiber.context, HttpServerRequest.HttpServerRequest)
    const header = request?.headers[AmqpBaggage.header]
    if (header === undefined) return handler
    return Effect.provideService(handler, AmqpBaggage.Current, AmqpBaggage.fromHeader(header))
  })

/** Provides handlers with the services in context. */
export const provider = Effect.gen(function* () {
  // The services are provided one by one, because merging contexts would copy the request's context.
  const pool = yield* AmqpPool.AmqpPool
  const connection = yield* AmqpConnection.AmqpConnection
  const publisher = yield* AmqpPublisher.AmqpPublisher
  const consumer = yield* AmqpConsumer.AmqpConsumer
  const rpc = yield* AmqpRpc.AmqpRpc
  const provide: Provider<Amqp.Amqp>["provide"] = <A, E, R>(handler: Effect.Effect<A, E, R>) =>
    withBaggage(handler).pipe(
      Effect.provideService(AmqpPool.AmqpPool, pool),
      Effect.provideService(AmqpConnection.AmqpConnection, connection),
      Effect.provideService(AmqpPublisher.AmqpPublisher, publisher),
      Effect.provideService(AmqpConsumer.AmqpConsumer, consumer),
      Effect.provideService(AmqpRpc.AmqpRpc, rpc)
    ) as Effect.Effect<A, E, Exclude<R, Amqp.Amqp>>
  return { provide, connection: nameOf(connection.config) } satisfies Provider<Amqp.Amqp>
})

/** Provides handlers with the services of these brokers, each by its key. */
export const keyedProvider = Effect.fnUntraced(function* <const Brokers extends ReadonlyArray<AmqpBroker.Any>>(
  brokers: Brokers
) {
  type Identifier = AmqpBroker.Identifier<Brokers>
  const context = yield* Effect.context<Identifier>()
  const services = brokers.map((key) => [key, Context.getUnsafe(context, key)] as const)
  const provide: Provider<Identifier>["provide"] = <A, E, R>(handler: Effect.Effect<A, E, R>) => {
    let provided = withBaggage(handler) as Effect.Effect<A, E, never>
    for (const [key, service] of services) provided = Effect.provideService(provided, key, service)
    return provided
  }
  return { provide, connection: undefined } satisfies Provider<Identifier>
})

/** Logs one line per failure, with the reason that is not sent to the client. */
export const logFailure = Effect.fnUntraced(function* (
  error: AmqpError.AmqpError,
  status: number,
  connection: string | undefined
) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const { route } = yield* HttpRouter.RouteContext
  const level = status === 503 || status === 504 ? "Warn" : status < 500 ? "Info" : "Error"
  const line = Effect.logWithLevel(level)("HTTP request failed with an AMQP error")
  yield* Effect.annotateLogs(line, {
    "http.method": request.method,
    "http.route": route.path,
    "http.status": status,
    error: error.reason._tag,
    reason: error.message,
    ...(connection === undefined ? undefined : { "amqp.connection": connection })
  })
})
