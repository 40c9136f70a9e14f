/**
 * Request and reply (RPC) over AMQP.
 *
 * A procedure has schemas for its payload, its success and its error; client and server share it. A client calls the
 * procedure like a function and receives the success, the procedure's own error, or an `AmqpError`. A server replies
 * with the outcome of a handler.
 *
 * The messages on the wire are those of `@effect-amqp/core`, so a client on Effect 3 can call a server on Effect 4, and
 * the other way round. Replies travel by RabbitMQ's direct reply-to: no reply queue is declared. Requests wait in the
 * procedure's queue, which must exist: declare it with `AmqpTopology`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { AmqpConnection } from "./AmqpConnection.ts"
import { AmqpConsumer, type Services } from "./AmqpConsumer.ts"
import { background } from "./internal/background.ts"
import { hasEnded, insideOf } from "./internal/inside.ts"
import * as internalProcedures from "./internal/procedures.ts"
import { makeClientOn, mergeCallOptions, serveOn } from "./internal/rpc.ts"
import type { Delivery, LayerOptions } from "./model/consumer.ts"
import type { AmqpError } from "./model/error.ts"
import type {
  CallOptions,
  Options,
  PayloadSchema,
  Procedure,
  ProcedureOptions,
  ServeOptions,
  Stats
} from "./model/rpc.ts"

export * from "./model/rpc.ts"

/**
 * The operations of `AmqpRpc`.
 *
 * **When to use**
 *
 * Use as the type of a parameter that takes the service.
 *
 * @see {@link AmqpRpc} for the service
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  /** Sends a request and completes with its reply. `client` lists the errors. */
  readonly call: <P extends Schema.Schema.All, S extends Schema.Schema.All, E extends Schema.Schema.All>(
    procedure: Procedure<P, S, E>,
    payload: Schema.Schema.Type<P>,
    options?: CallOptions
  ) => Effect.Effect<
    Schema.Schema.Type<S>,
    Schema.Schema.Type<E> | AmqpError,
    Schema.Schema.Context<P> | Schema.Schema.Context<S> | Schema.Schema.Context<E>
  >
  /** The client's counts at this moment. */
  readonly stats: Effect.Effect<Stats>
}

/**
 * The client side as a service: one channel that carries all requests of a program and their replies.
 *
 * **When to use**
 *
 * Use `client` to call procedures; it reads this service from the context. Use the service directly where a client is
 * passed as a value. `Amqp.layer` and `AmqpLive` provide it.
 *
 * **Details**
 *
 * The channel opens with the first request. After the channel has died, the next request opens another one.
 *
 * @see {@link client} for a procedure as a function
 *
 * @category services
 * @since 0.1.0
 */
export class AmqpRpc extends Context.Tag("@effect-amqp/platform/AmqpRpc")<AmqpRpc, Service>() {}

/**
 * A procedure as a function from its payload to an effect with its success.
 *
 * **When to use**
 *
 * Use as the type of what `client` returns, such as in the interface of a service.
 *
 * **Details**
 *
 * The options of a call override those that were given to `client`.
 *
 * @see {@link client} for the errors of a call
 *
 * @category models
 * @since 0.1.0
 */
export interface Client<
  Payload extends Schema.Schema.All,
  Success extends Schema.Schema.All,
  Error extends Schema.Schema.All
> {
  (
    payload: Schema.Schema.Type<Payload>,
    options?: CallOptions
  ): Effect.Effect<
    Schema.Schema.Type<Success>,
    Schema.Schema.Type<Error> | AmqpError,
    AmqpRpc | Schema.Schema.Context<Payload> | Schema.Schema.Context<Success> | Schema.Schema.Context<Error>
  >
}

/**
 * The type of the schema `Content`.
 *
 * **When to use**
 *
 * Use in the types of procedures whose payload, success or error is not JSON.
 *
 * @category schemas
 * @since 0.1.0
 */
export interface Content extends Schema.Struct<{
  content: typeof Schema.Uint8ArrayFromBase64
  contentType: Schema.optional<typeof Schema.String>
  contentEncoding: Schema.optional<typeof Schema.String>
}> {}

/**
 * The schema of a payload, success or error that is not JSON: its bytes are sent unchanged, with their `contentType`
 * and `contentEncoding`.
 *
 * **When to use**
 *
 * Use for images, for compressed or encrypted contents, and for peers that use neither JSON nor this convention: a
 * reply without a `type` is a success.
 *
 * **Gotchas**
 *
 * Only this schema as a whole is not JSON. Inside another schema it is encoded as JSON.
 *
 * @see {@link make} for declaring a procedure with this schema
 *
 * @category schemas
 * @since 0.1.0
 */
export const Content: Content = internalProcedures.Content

/**
 * Declares a procedure.
 *
 * **When to use**
 *
 * Use to declare a procedure once, in a module that client and server share.
 *
 * **Details**
 *
 * Every request carries the procedure's name, so that a server never replies to a request for another procedure.
 *
 * **Gotchas**
 *
 * `make` does not fail. A call or a server fails with `InvalidArgument` if the name, queue or schema of its procedure
 * is invalid.
 *
 * **Example** (Declaring and calling a procedure)
 *
 * ```ts
 * import { AmqpRpc } from "@effect-amqp/platform"
 * import { Effect, Schema } from "effect"
 *
 * class UserNotFound extends Schema.TaggedError<UserNotFound>()("UserNotFound", { id: Schema.Int }) {}
 *
 * const FindUser = AmqpRpc.make("users.find", {
 *   payload: { id: Schema.Int },
 *   success: Schema.Struct({ name: Schema.String }),
 *   error: UserNotFound
 * })
 *
 * const findUser = AmqpRpc.client(FindUser, { timeout: "2 seconds" })
 *
 * const program = findUser({ id: 7 }).pipe(Effect.catchTag("UserNotFound", () => Effect.succeed({ name: "unknown" })))
 * ```
 *
 * @see {@link client} for calling a procedure
 * @see {@link serve} for serving a procedure
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: <
  Payload extends Schema.Schema.All | Schema.Struct.Fields = typeof Schema.Void,
  Success extends Schema.Schema.All = typeof Schema.Void,
  Error extends Schema.Schema.All = typeof Schema.Never
>(
  name: string,
  options?: ProcedureOptions<Payload, Success, Error>
) => Procedure<PayloadSchema<Payload>, Success, Error> = internalProcedures.make

/**
 * Creates a function that calls a procedure: it sends a request and completes with the reply.
 *
 * **When to use**
 *
 * Use to call a procedure from any number of fibers; all calls share the channel of the `AmqpRpc` in context.
 *
 * **Details**
 *
 * The options apply to every call; the options of a call override them.
 *
 * A call ends within `timeout`: with the reply's success, with the reply's failure, or with one of these errors:
 *
 * - Nothing was sent: `InvalidArgument`, `PublishForbidden` (`onBlocked: "fail"`), `PublishTimeout`, `MessageTooLarge`,
 *   `PoolExhausted` (the backlog is full, see `maxWaiting`), `PoolClosed` (the client's scope has closed), or the error
 *   of opening the channel.
 * - The request was not handled: `PublishReturned`, at once, if no queue takes it; `PublishNacked`; `NotFound` for an
 *   exchange that does not exist.
 * - The request may have been handled: `RequestTimeout`; `PublishUnknown`, `ChannelClosed` or `ConnectionClosed` if the
 *   channel died before the reply.
 * - The reply does not match the procedure: `RemoteFailure`, and `DecodeFailed` for a reply that the schemas cannot
 *   decode, or that is larger than `maxInboundMessageBodySize` of the configuration.
 *
 * Interrupting a call drops its reply, but does not withdraw its request.
 *
 * **Gotchas**
 *
 * Repeat a request that may have been handled only if the procedure is idempotent.
 *
 * @see {@link serve} for the server side
 *
 * @category clients
 * @since 0.1.0
 */
export const client =
  <P extends Schema.Schema.All, S extends Schema.Schema.All, E extends Schema.Schema.All>(
    procedure: Procedure<P, S, E>,
    options?: CallOptions
  ): Client<P, S, E> =>
  (payload, overrides) =>
    Effect.flatMap(AmqpRpc, (rpc) => rpc.call(procedure, payload, mergeCallOptions(options, overrides)))

/**
 * Creates a client on the connection in context, until the scope closes.
 *
 * **When to use**
 *
 * Use when a client's lifetime or bounds differ from those of `Amqp.layer`. Otherwise use that one.
 *
 * **Details**
 *
 * When the scope closes, requests in the backlog and new requests fail with `PoolClosed`. The client waits up to
 * `shutdownTimeout` for the replies to requests that were sent, fails the remaining ones, and closes the channel within
 * `closeTimeout`.
 *
 * Fails with `InvalidArgument` if an option is invalid.
 *
 * @see {@link layer} for a client as a layer
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = (options?: Options): Effect.Effect<Service, AmqpError, AmqpConnection | Scope.Scope> =>
  Effect.flatMap(AmqpConnection, (connection) => makeClientOn(insideOf("AmqpRpc.makeClient", connection), options))

/**
 * A layer with a client of its own, which has the default bounds.
 *
 * **When to use**
 *
 * Use for a client that ends before the application does, or apart from the one of `Amqp.layer` and `AmqpLive`.
 *
 * @see {@link layerWith} for other bounds
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<AmqpRpc, AmqpError, AmqpConnection> = Layer.scoped(AmqpRpc, makeClient())

/**
 * A layer with a client that has the given bounds.
 *
 * **When to use**
 *
 * Use when the default bounds of requests in flight and in the backlog do not fit. `layer` and `Amqp.layer` have a client
 * with the default bounds.
 *
 * **Details**
 *
 * Building the layer fails with `InvalidArgument` if an option is invalid.
 *
 * @see {@link makeClient} for a client in a scope
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: Options): Layer.Layer<AmqpRpc, AmqpError, AmqpConnection> =>
  Layer.scoped(AmqpRpc, makeClient(options))

/**
 * The client's counts at this moment.
 *
 * **When to use**
 *
 * Use to observe a client in tests, logs and health checks.
 *
 * @see {@link Stats} for the meaning of each count
 *
 * @category accessors
 * @since 0.1.0
 */
export const stats: Effect.Effect<Stats, never, AmqpRpc> = Effect.flatMap(AmqpRpc, (rpc) => rpc.stats)

/**
 * Serves a procedure: runs the handler for each request in the procedure's queue, and replies with the handler's
 * outcome.
 *
 * **When to use**
 *
 * Use in a service that answers requests. The queue must exist. Any number of servers can share it.
 *
 * **Details**
 *
 * | the handler                      | the client receives                         | the request  |
 * | -------------------------------- | ------------------------------------------- | ------------ |
 * | succeeds                         | the success                                 | acknowledged |
 * | fails                            | the failure                                 | acknowledged |
 * | dies of a defect                 | `RemoteFailure`; the server logs the defect | acknowledged |
 * | returns what cannot be sent      | `RemoteFailure`; the server logs the reason | acknowledged |
 * | is not called: payload not read, | `RemoteFailure` with the reason             | acknowledged |
 * | or another procedure's           |                                             |              |
 * | is interrupted by the shutdown   | nothing yet                                 | requeued     |
 * | is not called: `replyTo` is a    | nothing                                     | rejected     |
 * | queue that is not accepted       |                                             |              |
 *
 * The handler runs in Effect 3, in the context and with the fiber references of the fiber that called `serve`, in a
 * scope of its own, which closes before the reply is sent. A request is acknowledged after its reply. A request without
 * `replyTo` is handled as by `AmqpConsumer.consume`.
 *
 * It runs until it is interrupted, and stops and fails as `AmqpConsumer.consume` does.
 *
 * **Gotchas**
 *
 * - A request is handled at least once: after a crash or a lost connection it is delivered again. Handlers must be
 *   idempotent.
 * - Replies whose address no longer exists, and requests that were rejected because of their `replyTo`, are counted:
 *   `amqp.rpc.unroutable_replies` and `amqp.rpc.refused_replies` of `AmqpMetrics.snapshot`.
 * - Requests are consumed on the connection of the publishers, not on that of the consumers. While the broker blocks
 *   publishers, no reply is sent, and what was sent after a reply waits with it.
 *
 * @see {@link client} for the client side
 * @see {@link ServeOptions} for the options
 *
 * @category servers
 * @since 0.1.0
 */
export const serve = <P extends Schema.Schema.All, S extends Schema.Schema.All, E extends Schema.Schema.All, R = never>(
  procedure: Procedure<P, S, E>,
  handler: (
    payload: Schema.Schema.Type<P>,
    request: Delivery
  ) => Effect.Effect<Schema.Schema.Type<S>, Schema.Schema.Type<E>, R>,
  options?: ServeOptions
): Effect.Effect<
  never,
  AmqpError,
  Services<R | Schema.Schema.Context<P> | Schema.Schema.Context<S> | Schema.Schema.Context<E>>
> =>
  Effect.flatMap(AmqpConsumer, (service) =>
    serveOn(insideOf("AmqpRpc.serve", service), procedure, handler as never, options)
  )

/**
 * A server as a layer: it serves a procedure, as `serve` does, for as long as the layer exists.
 *
 * **When to use**
 *
 * Use in services, to run servers as parts of the application. `Amqp.launch` runs the application, and ends it when a
 * server ends with an error.
 *
 * **Details**
 *
 * The layer is built at once; the server starts in the background and waits for its broker. When the layer's scope
 * closes, the server stops in order, before the services that its handler uses are released.
 *
 * The options are those of `serve`, and `whenFailed`.
 *
 * **Example** (An application with a server)
 *
 * ```ts
 * import { NodeRuntime } from "@effect/platform-node"
 * import { Amqp, AmqpLive, AmqpRpc } from "@effect-amqp/platform"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const Double = AmqpRpc.make("double", { payload: Schema.Int, success: Schema.Int })
 *
 * const Server = AmqpRpc.layerServe(Double, (n) => Effect.succeed(2 * n))
 *
 * Server.pipe(Layer.provide(AmqpLive), Amqp.launch, NodeRuntime.runMain)
 * ```
 *
 * @see {@link serve} for what happens to requests
 *
 * @category layers
 * @since 0.1.0
 */
export const layerServe = <
  P extends Schema.Schema.All,
  S extends Schema.Schema.All,
  E extends Schema.Schema.All,
  R = never
>(
  procedure: Procedure<P, S, E>,
  handler: (
    payload: Schema.Schema.Type<P>,
    request: Delivery
  ) => Effect.Effect<Schema.Schema.Type<S>, Schema.Schema.Type<E>, R>,
  options?: ServeOptions & LayerOptions
): Layer.Layer<
  never,
  never,
  Services<R | Schema.Schema.Context<P> | Schema.Schema.Context<S> | Schema.Schema.Context<E>>
> => {
  const { whenFailed = "end", ...serveOptions } = options ?? {}
  return background(
    "AmqpRpc.layerServe",
    serve<P, S, E, R>(procedure, handler, serveOptions),
    whenFailed,
    Effect.map(AmqpConsumer, hasEnded)
  ) as never
}
