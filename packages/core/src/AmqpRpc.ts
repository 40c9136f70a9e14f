/**
 * Request and reply (RPC) over AMQP.
 *
 * A procedure has schemas for its payload, its success and its error; client and server share it. A client calls the
 * procedure like a function and receives the success, the procedure's own error, or an `AmqpError`. A server replies
 * with the outcome of a handler.
 *
 * **When to use**
 *
 * Use when a caller needs the reply of another service, in any language, and both can reach the broker. Use
 * `AmqpPublisher` for messages without a reply.
 *
 * **Details**
 *
 * Replies travel by RabbitMQ's direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to): no reply queue is
 * declared, and a reply is never stored. Requests wait in the procedure's queue, which must exist: declare it with
 * `AmqpTopology`.
 *
 * Messages on the wire, for peers in other languages:
 *
 * | message | property          | value                                                                             |
 * | ------- | ----------------- | --------------------------------------------------------------------------------- |
 * | request | `replyTo`         | where the reply goes, by the default exchange; absent: no reply is expected       |
 * | request | `correlationId`   | any text; the reply repeats it                                                    |
 * | request | `type`            | the procedure's name; may be absent                                               |
 * | request | `expiration`      | how long the client waits, in milliseconds; may be absent                         |
 * | request | content           | the payload as JSON                                                               |
 * | reply   | `correlationId`   | the request's                                                                     |
 * | reply   | `type`            | `success`, `failure` or `defect`; absent means `success`                          |
 * | reply   | content           | the success or the failure as JSON; of a defect `{"message": "..."}`              |
 *
 * The procedure's schemas define success and failure. A defect is everything else that goes wrong at the server: a
 * payload that it cannot read, or a handler that dies. The client receives it as `RemoteFailure`. `AmqpMessage.json`
 * defines the JSON; `Schema.Void` is `null`. Content that is not JSON has the schema `Content`.
 *
 * **Example** (Declaring and calling a procedure)
 *
 * ```ts
 * import { AmqpRpc } from "@effect-amqp/core"
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
 * const program = findUser({ id: 7 }).pipe(
 *   Effect.catchTag("UserNotFound", () => Effect.succeed({ name: "unknown" })),
 *   Effect.provide(AmqpRpc.layer)
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Metric from "effect/Metric"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { AmqpConnection } from "./model/connection.ts"
import type * as AmqpConsumer from "./AmqpConsumer.ts"
import * as AmqpError from "./model/error.ts"
import { background } from "./internal/consumer/background.ts"
import { isInvalidArgument } from "./internal/wire/optionTable.ts"
import * as internalClient from "./internal/rpc/client.ts"
import * as internalContent from "./internal/rpc/content.ts"
import { mergeCallOptions, readOptions } from "./internal/rpc/options.ts"
import * as internalProcedure from "./internal/rpc/procedure.ts"
import * as internalServer from "./internal/rpc/server.ts"
import {
  type Procedure,
  type ProcedureOptions,
  type PayloadSchema,
  type CallOptions,
  type Client,
  type Stats,
  AmqpRpc,
  type Options,
  type ServeOptions
} from "./model/rpc.ts"

export * from "./model/rpc.ts"

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
 * **Example** (Serving a procedure on images)
 *
 * ```ts
 * import { AmqpRpc } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const Resize = AmqpRpc.make("pictures.resize", { payload: AmqpRpc.Content, success: AmqpRpc.Content })
 *
 * const server = AmqpRpc.serve(Resize, ({ content }) => Effect.succeed({ content, contentType: "image/png" }))
 * ```
 *
 * @see {@link make} for declaring a procedure with this schema
 * @category schemas
 * @since 0.1.0
 */
export const Content: Content = internalContent.Content

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
  readonly content: Schema.Uint8Array
  readonly contentType: Schema.optional<Schema.String>
  readonly contentEncoding: Schema.optional<Schema.String>
}> {}

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
 * **Example** (Routing requests by the default exchange and by a topic exchange)
 *
 * ```ts
 * import { AmqpRpc } from "@effect-amqp/core"
 * import { Schema } from "effect"
 *
 * // Through the default exchange, to the queue "health.ping".
 * const Ping = AmqpRpc.make("health.ping")
 *
 * // Through a topic exchange: bindings decide which queue serves which region.
 * const Price = AmqpRpc.make("price.of", {
 *   payload: { article: Schema.String },
 *   success: Schema.BigDecimal,
 *   exchange: "rpc",
 *   routingKey: "price.europe",
 *   queue: "prices"
 * })
 * ```
 *
 * @see {@link client} for calling a procedure
 * @see {@link serve} for serving a procedure
 * @category constructors
 * @since 0.1.0
 */
export const make: <
  Payload extends Schema.Constraint | Schema.Struct.Fields = Schema.Void,
  Success extends Schema.Constraint = Schema.Void,
  Error extends Schema.Constraint = Schema.Never
>(
  name: string,
  options?: ProcedureOptions<Payload, Success, Error>
) => Procedure<PayloadSchema<Payload>, Success, Error> = internalProcedure.make

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
 * - Repeat a request that may have been handled only if the procedure is idempotent.
 * - All requests share a channel, and when the broker closes that channel because of one request, the other requests
 *   lose their replies. The broker does so for an exchange that does not exist, and for a request that is larger than
 *   it is configured to accept (see `maxMessageSize`).
 *
 * **Example** (Calling a procedure with a timeout)
 *
 * ```ts
 * import { AmqpRpc } from "@effect-amqp/core"
 * import { Effect, Schema } from "effect"
 *
 * const Add = AmqpRpc.make("add", { payload: { a: Schema.Int, b: Schema.Int }, success: Schema.Int })
 * const add = AmqpRpc.client(Add, { timeout: "1 second" })
 *
 * const program = add({ a: 1, b: 2 }).pipe(
 *   Effect.catchReason("AmqpError", "PublishReturned", () => Effect.die("the queue is not declared"))
 * )
 * ```
 *
 * @see {@link serve} for the server side
 * @see {@link layer} for providing `AmqpRpc`
 * @category clients
 * @since 0.1.0
 */
export const client =
  <P extends Schema.Constraint, S extends Schema.Constraint, E extends Schema.Constraint>(
    procedure: Procedure<P, S, E>,
    options?: CallOptions
  ): Client<P, S, E> =>
  (payload, overrides) => {
    const both = mergeCallOptions(options, overrides)
    return Effect.withFiber((fiber) => Context.getUnsafe(fiber.context, AmqpRpc).call(procedure, payload, both))
  }

/**
 * Creates a client on the connection in context, until the scope closes.
 *
 * **When to use**
 *
 * Use when a client's lifetime or bounds differ from those of a layer. Otherwise use `layer` or `layerWith`.
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
 * @category constructors
 * @since 0.1.0
 */
export const makeClient = (
  options?: Options
): Effect.Effect<AmqpRpc["Service"], AmqpError.AmqpError, AmqpConnection | Scope.Scope> =>
  Effect.suspend(() => {
    const settings = readOptions(options)
    if (isInvalidArgument(settings)) return Effect.fail(AmqpError.fromReason(settings))
    return Effect.flatMap(AmqpConnection, (connection) => internalClient.make(connection, settings))
  })

/**
 * A layer with a client that has the default bounds.
 *
 * **When to use**
 *
 * Use with an `AmqpConnection` from another layer than `Amqp.layer` or `AmqpLive`, which include a client.
 *
 * @see {@link layerWith} for other bounds
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<AmqpRpc, AmqpError.AmqpError, AmqpConnection> = /* @__PURE__ */ Layer.effect(
  AmqpRpc,
  /* @__PURE__ */ makeClient()
)

/**
 * A layer with a client that has the given bounds.
 *
 * **When to use**
 *
 * Use when the default bounds of requests in flight and in the backlog do not fit.
 *
 * **Details**
 *
 * Building the layer fails with `InvalidArgument` if an option is invalid.
 *
 * **Example** (A client with at most 100 requests in flight)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { AmqpLive, AmqpRpc } from "@effect-amqp/core"
 *
 * const rpc = AmqpRpc.layerWith({ maxInFlight: 100, maxWaiting: 1000 }).pipe(Layer.provide(AmqpLive))
 * ```
 *
 * @see {@link layer} for the default bounds
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: Options): Layer.Layer<AmqpRpc, AmqpError.AmqpError, AmqpConnection> =>
  Layer.effect(AmqpRpc, makeClient(options))

/**
 * The client's counts at this moment.
 *
 * **When to use**
 *
 * Use to observe a client in tests, logs and health checks. `AmqpMetrics` exports the counts as metrics.
 *
 * @see {@link Stats} for the meaning of each count
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
 * | the handler                      | the client receives                         | the request       |
 * | -------------------------------- | ------------------------------------------- | ----------------- |
 * | succeeds                         | the success                                 | acknowledged      |
 * | fails                            | the failure                                 | acknowledged      |
 * | dies of a defect                 | `RemoteFailure`; the server logs the defect | acknowledged      |
 * | returns what cannot be sent      | `RemoteFailure`; the server logs the reason | acknowledged      |
 * | is not called: payload not read, | `RemoteFailure` with the reason             | acknowledged      |
 * | or another procedure's           |                                             |                   |
 * | is interrupted by the shutdown   | nothing yet                                 | requeued          |
 * | is not called: `replyTo` is a    | nothing                                     | rejected          |
 * | queue that is not accepted       |                                             |                   |
 *
 * - A request is acknowledged after its reply: when the broker has confirmed the reply, or, for a small reply by direct
 *   reply-to, on the same channel, where the broker processes the reply before the acknowledgement. A handler's scope
 *   is closed before the reply is sent.
 * - A request whose `replyTo` is a queue is rejected, and goes to the dead-letter exchange of its queue if there is
 *   one, unless the option `replyTo` accepts that queue. `refusedReplies` counts these requests. The log shows five of
 *   them in ten seconds, then the number of further ones.
 * - A reply that cannot be sent is attempted three times. Then its request returns to the queue after a pause, as with
 *   `AmqpConsumer.redeliver`, until it expires or has been delivered `maxDeliveries` times. If waiting cannot help, for
 *   example because the user may not publish replies, the request is rejected: it was handled.
 * - A client that no longer exists is not a failure: with direct reply-to the broker drops the reply; `unroutable`
 *   counts replies to other queues that no longer exist.
 * - A request without `replyTo` is handled as by `AmqpConsumer.consume`. The failure of its handler is only logged
 *   here, and the request returns after a pause.
 * - The broker drops requests that have expired, unless a server had received them before.
 * - It runs until it is interrupted, and stops then as `AmqpConsumer.consume` does. It fails as `consume` does, too:
 *   also with `MessageTooLarge` for a request larger than `maxInboundMessageBodySize`, which stays in the queue. If
 *   clients are not trusted, limit the size of messages at the broker (`max_message_size`).
 *
 * **Gotchas**
 *
 * - A request is handled at least once: after a crash or a lost connection it is delivered again. Handlers must be
 *   idempotent.
 * - Requests are consumed on the connection of the publishers, not on that of the consumers. While the broker blocks
 *   publishers, no reply is sent, and what was sent after a reply waits with it.
 *
 * **Example** (Serving a procedure that can fail)
 *
 * ```ts
 * import { AmqpRpc } from "@effect-amqp/core"
 * import { Effect, Schema } from "effect"
 *
 * class DivisionByZero extends Schema.TaggedError<DivisionByZero>()("DivisionByZero", {}) {}
 *
 * const Divide = AmqpRpc.make("divide", {
 *   payload: { dividend: Schema.Finite, divisor: Schema.Finite },
 *   success: Schema.Finite,
 *   error: DivisionByZero
 * })
 *
 * const server = AmqpRpc.serve(Divide, ({ dividend, divisor }) =>
 *   divisor === 0 ? Effect.fail(new DivisionByZero()) : Effect.succeed(dividend / divisor)
 * )
 * ```
 *
 * @see {@link client} for the client side
 * @see {@link ServeOptions} for the options
 * @category servers
 * @since 0.1.0
 */
export const serve: <P extends Schema.Constraint, S extends Schema.Constraint, E extends Schema.Constraint, R = never>(
  procedure: Procedure<P, S, E>,
  handler: (payload: P["Type"], request: AmqpConsumer.Delivery) => Effect.Effect<S["Type"], E["Type"], R>,
  options?: ServeOptions
) => Effect.Effect<
  never,
  AmqpError.AmqpError,
  AmqpConsumer.Services<R | P["DecodingServices"] | S["EncodingServices"] | E["EncodingServices"]>
> = internalServer.serve

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
 * import { Amqp, AmqpLive, AmqpRpc } from "@effect-amqp/core"
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
 * @category layers
 * @since 0.1.0
 */
export const layerServe = <
  P extends Schema.Constraint,
  S extends Schema.Constraint,
  E extends Schema.Constraint,
  R = never
>(
  procedure: Procedure<P, S, E>,
  handler: (payload: P["Type"], request: AmqpConsumer.Delivery) => Effect.Effect<S["Type"], E["Type"], R>,
  options?: ServeOptions & AmqpConsumer.LayerOptions
): Layer.Layer<
  never,
  never,
  AmqpConsumer.Services<R | P["DecodingServices"] | S["EncodingServices"] | E["EncodingServices"]>
> => {
  const { whenFailed = "end", ...serveOptions } = options ?? {}
  return background("AmqpRpc.layerServe", serve(procedure, handler, serveOptions), whenFailed)
}

/**
 * Counts the replies that servers of this process could not deliver, because their address no longer existed or was
 * invalid.
 *
 * **When to use**
 *
 * Use to find clients that end before their replies arrive. The metric's name is `amqp.rpc.unroutable_replies`.
 *
 * @see {@link serve} for what happens to such a request
 * @category metrics
 * @since 0.1.0
 */
export const unroutable: Metric.Counter<number> = internalServer.unroutable

/**
 * Counts the requests that servers of this process rejected, because they do not reply to the queue in the request's
 * `replyTo`.
 *
 * **When to use**
 *
 * Use to find clients with reply queues that a server does not accept. The metric's name is `amqp.rpc.refused_replies`.
 *
 * @see {@link ServeOptions} for accepting reply queues
 * @category metrics
 * @since 0.1.0
 */
export const refusedReplies: Metric.Counter<number> = internalServer.refusedReplies
