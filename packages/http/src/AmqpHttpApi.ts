/**
 * AMQP in the typed endpoints of `effect/http-api`'s `HttpApi`.
 *
 * `AmqpHttpApi` is a middleware of an API, a group or an endpoint. It provides the handlers with what `AmqpLive`
 * provides, and declares the problems of `AmqpProblem` as errors of the endpoints. The problems are in the types of the
 * generated client, in the OpenAPI document, and on the wire with their status and `Retry-After`. Handlers end with
 * `AmqpProblem.orProblem`.
 *
 * **Example** (An endpoint that publishes)
 *
 * ```ts
 * import { NodeHttpServer } from "@effect/platform-node"
 * import { AmqpLive, AmqpPublisher } from "@effect-amqp/core"
 * import { AmqpHttpApi, AmqpProblem } from "@effect-amqp/http"
 * import { Effect, Layer, Schema } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpApiSchema } from "effect/http-api"
 * import { createServer } from "node:http"
 *
 * // The part that the server and its clients share.
 * const Greetings = HttpApiGroup.make("greetings").add(
 *   HttpApiEndpoint.post("send", "/greetings", {
 *     payload: Schema.Struct({ to: Schema.NonEmptyString }),
 *     success: HttpApiSchema.Accepted
 *   })
 * )
 * const Api = HttpApi.make("api").add(Greetings.middleware(AmqpHttpApi.AmqpHttpApi))
 *
 * // The server.
 * const Handlers = HttpApiBuilder.group(Api, "greetings", (handlers) =>
 *   handlers.handle("send", ({ payload }) =>
 *     AmqpPublisher.publish({ routingKey: "greetings", content: `Hello, ${payload.to}` }).pipe(
 *       Effect.asVoid,
 *       AmqpProblem.orProblem
 *     )
 *   )
 * )
 *
 * const Server = HttpRouter.serve(HttpApiBuilder.layer(Api, { openapiPath: "/openapi.json" })).pipe(
 *   Layer.provide(Handlers),
 *   Layer.provide(AmqpHttpApi.layer),
 *   Layer.provide(NodeHttpServer.layer(createServer, { port: 3000 })),
 *   Layer.provide(AmqpLive)
 * )
 * ```
 *
 * @since 0.1.0
 */
import { type Amqp, type AmqpBroker, AmqpError } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import * as Layer from "effect/Layer"
import * as AmqpProblem from "./AmqpProblem.ts"
import { keyedProvider, logFailure, provider } from "./internal/handlers.ts"

/**
 * A middleware that provides AMQP to handlers, and declares `AmqpProblem.schemas` as errors of their endpoints.
 *
 * **When to use**
 *
 * Use as the middleware of an `HttpApi`, a group or an endpoint whose handlers use AMQP. The server provides its
 * implementation with {@link layer}; clients need nothing.
 *
 * **Gotchas**
 *
 * An endpoint with this middleware cannot declare another problem of status 503 (see `AmqpProblem.schemas`).
 *
 * @see {@link Keyed} for several brokers
 *
 * @category middleware
 * @since 0.1.0
 */
export class AmqpHttpApi extends HttpApiMiddleware.Service<AmqpHttpApi, { provides: Amqp.Amqp }>()(
  "@effect-amqp/http/AmqpHttpApi",
  { error: AmqpProblem.schemas }
) {}

/**
 * The server's implementation of {@link AmqpHttpApi}.
 *
 * **When to use**
 *
 * Use on the server, next to the handlers of the API. Provide it with `AmqpLive`, `Amqp.layer` or `Amqp.layerConfig`.
 *
 * **Details**
 *
 * A problem that was made from an AMQP error is logged once, with the error's reason, which is not sent to the client.
 * AMQP errors that get past a handler's types become problems as well.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<AmqpHttpApi, never, Amqp.Amqp> = Layer.fresh(
  // Fresh, because a layer is built once per application, and another API may have another broker.
  Layer.effect(
    AmqpHttpApi,
    Effect.map(
      provider,
      ({ connection, provide }) =>
        (handler) =>
          handler.pipe(provide, Effect.catch(withProblems(connection)))
    )
  )
)

/**
 * The class of a middleware that {@link Keyed} makes.
 *
 * **When to use**
 *
 * Use when you annotate a middleware for several brokers. Classes extend the result of {@link Keyed} instead.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedClass<Self, Id extends string, Provides> extends HttpApiMiddleware.ServiceClass<
  Self,
  Id,
  {
    requires: never
    provides: Provides
    error: typeof AmqpProblem.schemas
    clientError: never
    requiredForClient: false
    security: never
  }
> {
  /** The server's implementation of the middleware. It requires the layers of all its brokers. */
  readonly layer: Layer.Layer<Self, never, Provides>
}

/**
 * Makes a middleware like {@link AmqpHttpApi} for several brokers.
 *
 * **When to use**
 *
 * Use when handlers of one API talk to more than one broker, virtual host or user.
 *
 * **Details**
 *
 * A handler chooses a broker by its key (`Audit.provide`). The middleware's implementation is its static member
 * `layer`.
 *
 * **Example** (An endpoint that publishes to one of two brokers)
 *
 * ```ts
 * import { AmqpBroker, AmqpPublisher } from "@effect-amqp/core"
 * import { AmqpHttpApi, AmqpProblem } from "@effect-amqp/http"
 * import { Effect } from "effect"
 * import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
 *
 * class Orders extends AmqpBroker.Service<Orders>()("app/Orders") {}
 * class Audit extends AmqpBroker.Service<Audit>()("app/Audit") {}
 * class Brokers extends AmqpHttpApi.Keyed<Brokers>()("app/Brokers", [Orders, Audit]) {}
 *
 * const Group = HttpApiGroup.make("audit").add(HttpApiEndpoint.post("note", "/notes")).middleware(Brokers)
 * const Api = HttpApi.make("api").add(Group)
 *
 * // Requires `Brokers.layer`, which requires the layers of both brokers.
 * const Handlers = HttpApiBuilder.group(Api, "audit", (handlers) =>
 *   handlers.handle("note", () =>
 *     AmqpPublisher.publish({ routingKey: "notes", content: "noted" }).pipe(
 *       Audit.provide,
 *       Effect.asVoid,
 *       AmqpProblem.orProblem
 *     )
 *   )
 * )
 * ```
 *
 * @see {@link AmqpHttpApi} for one broker
 *
 * @category constructors
 * @since 0.1.0
 */
export const Keyed =
  <Self>() =>
  <const Id extends string, const Brokers extends ReadonlyArray<AmqpBroker.Any>>(
    id: Id,
    brokers: Brokers
  ): KeyedClass<Self, Id, AmqpBroker.Identifier<Brokers>> => {
    const middleware = HttpApiMiddleware.Service<Self, { provides: AmqpBroker.Identifier<Brokers> }>()(id, {
      error: AmqpProblem.schemas
    })
    const layer = Layer.effect(
      middleware,
      Effect.map(
        keyedProvider(brokers),
        ({ connection, provide }) =>
          (handler) =>
            handler.pipe(provide, Effect.catch(withProblems(connection)))
      )
    )
    return Object.assign(middleware, { layer })
  }

const withProblems = (connection: string | undefined) => (failure: unknown) => {
  const problem = AmqpError.isAmqpError(failure) ? AmqpProblem.fromError(failure) : failure
  const failed = Effect.fail(problem as AmqpProblem.Problem)
  return AmqpProblem.isProblem(problem) && AmqpError.isAmqpError(problem.cause)
    ? Effect.andThen(logFailure(problem.cause, AmqpProblem.statusOf(problem), connection), failed)
    : failed
}
