/**
 * Request and reply.
 *
 * A procedure says what is asked and what is answered, as schemas; both sides share it. A client calls it like a function
 * and gets the answer, the procedure's own error, or an `AmqpError`. A server answers from a handler.
 *
 * Replies travel by RabbitMQ's direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to): no queue of replies is
 * declared, and a reply is never stored. Requests wait in the procedure's queue, which must exist: declare it with
 * `AmqpTopology`.
 *
 * What travels, for peers in other languages:
 *
 * | message | property          | value                                                                             |
 * | ------- | ----------------- | --------------------------------------------------------------------------------- |
 * | request | `replyTo`         | where the reply goes, by the default exchange; absent: no reply is wanted          |
 * | request | `correlationId`   | any text; the reply repeats it                                                    |
 * | request | `type`            | the procedure's name; may be absent                                               |
 * | request | `expiration`      | how long the client waits, in milliseconds; may be absent                         |
 * | request | content           | the payload as JSON                                                               |
 * | reply   | `correlationId`   | the request's                                                                     |
 * | reply   | `type`            | `success`, `failure` or `defect`; absent means `success`                          |
 * | reply   | content           | the success or the failure as JSON; of a defect `{"message": "..."}`              |
 *
 * A success and a failure are what the procedure's schemas say. A defect is everything else that went wrong at the
 * server: a payload that it cannot read, a handler that died. Clients see it as `RemoteFailure`. JSON is what
 * `AmqpMessage.json` reads and writes; nothing (`Schema.Void`) is `null`. What is not JSON has the schema `Content`.
 *
 * @example
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
 *   Effect.catchTag("UserNotFound", () => Effect.succeed({ name: "nobody" })),
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
import { isRefused } from "./internal/wire/optionTable.ts"
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
 * A payload, success or error that is not JSON: it travels as it is, with its `contentType` and `contentEncoding`. For
 * pictures, compressed or encrypted contents, and for peers that speak neither JSON nor this convention: their reply without
 * a `type` is a success.
 *
 * It is this schema as a whole that is not JSON; within another one it is JSON as any.
 *
 * @example
 * ```ts
 * import { AmqpRpc } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const Resize = AmqpRpc.make("pictures.resize", { payload: AmqpRpc.Content, success: AmqpRpc.Content })
 *
 * const server = AmqpRpc.serve(Resize, ({ content }) => Effect.succeed({ content, contentType: "image/png" }))
 * ```
 */
export const Content: Content = internalContent.Content

/** The schema of `Content`. */
export interface Content extends Schema.Struct<{
  readonly content: Schema.Uint8Array
  readonly contentType: Schema.optional<Schema.String>
  readonly contentEncoding: Schema.optional<Schema.String>
}> {}

/**
 * Declares a procedure. Its name goes along with every request, so that a server never answers another procedure's. A
 * name, queue or schema that cannot be used is refused with `InvalidArgument` by whoever uses the procedure.
 *
 * @example
 * ```ts
 * import { AmqpRpc } from "@effect-amqp/core"
 * import { Schema } from "effect"
 *
 * // Over the default exchange, to the queue "health.ping".
 * const Ping = AmqpRpc.make("health.ping")
 *
 * // Over a topic exchange: which queue serves which tenant is a matter of bindings.
 * const Price = AmqpRpc.make("price.of", {
 *   payload: { article: Schema.String },
 *   success: Schema.BigDecimal,
 *   exchange: "rpc",
 *   routingKey: "price.europe",
 *   queue: "prices"
 * })
 * ```
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
 * A procedure as a function: sends the request, and completes with the reply. Options given here hold for every call,
 * unless the call says otherwise.
 *
 * A call ends in at most `timeout`, with the reply's success, with the reply's failure, or with one of these:
 *
 * - nothing was sent: `InvalidArgument`, `PublishForbidden` (`onBlocked: "fail"`), `PublishTimeout`, `MessageTooLarge`,
 *   `PoolExhausted` (`maxWaiting` are in line already), `PoolClosed` (the client's scope has ended), or the error of
 *   opening the channel;
 * - it was not handled: `PublishReturned`, at once, if no queue takes it; `PublishNacked`; `NotFound` for an exchange that
 *   does not exist;
 * - it may have been handled: `RequestTimeout`; `PublishUnknown`, `ChannelClosed` or `ConnectionClosed` if the channel
 *   died before the reply;
 * - it was answered, but not as agreed: `RemoteFailure`, and `DecodeFailed` for a reply that the schemas do not know, or
 *   that is larger than `maxInboundMessageBodySize` of the configuration.
 *
 * A request that may have been handled can be sent again only if the procedure is idempotent. Interrupting a call
 * forgets the request; its reply is dropped.
 *
 * All requests share a channel, and what the broker ends a channel for, it ends for all: a request to an exchange that
 * does not exist, or that is larger than the broker was configured to take (`maxMessageSize`), costs the others their
 * replies.
 *
 * @example
 * ```ts
 * import { AmqpRpc } from "@effect-amqp/core"
 * import { Effect, Schema } from "effect"
 *
 * const Add = AmqpRpc.make("add", { payload: { a: Schema.Int, b: Schema.Int }, success: Schema.Int })
 * const add = AmqpRpc.client(Add, { timeout: "1 second" })
 *
 * const program = add({ a: 1, b: 2 }).pipe(
 *   Effect.catchReason("AmqpError", "PublishReturned", () => Effect.die("nobody has declared the queue"))
 * )
 * ```
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
 * A client on the connection in context. Closing its scope turns requests in line and new ones away with `PoolClosed`, waits
 * up to `shutdownTimeout` for the replies to those that were sent, fails the rest, and closes the channel within
 * `closeTimeout`. Fails with `InvalidArgument`.
 */
export const makeClient = (
  options?: Options
): Effect.Effect<AmqpRpc["Service"], AmqpError.AmqpError, AmqpConnection | Scope.Scope> =>
  Effect.suspend(() => {
    const settings = readOptions(options)
    if (isRefused(settings)) return Effect.fail(AmqpError.fromReason(settings))
    return Effect.flatMap(AmqpConnection, (connection) => internalClient.make(connection, settings))
  })

/** A client with the default bounds, as a layer. `Amqp.layer` has one already. */
export const layer: Layer.Layer<AmqpRpc, AmqpError.AmqpError, AmqpConnection> = /* @__PURE__ */ Layer.effect(
  AmqpRpc,
  /* @__PURE__ */ makeClient()
)

/** A client with these bounds, as a layer. */
export const layerWith = (options: Options): Layer.Layer<AmqpRpc, AmqpError.AmqpError, AmqpConnection> =>
  Layer.effect(AmqpRpc, makeClient(options))

/** The client's counts, at this moment. */
export const stats: Effect.Effect<Stats, never, AmqpRpc> = Effect.flatMap(AmqpRpc, (rpc) => rpc.stats)

/**
 * Serves a procedure: runs the handler for each request of its queue, and replies with what it ends with. The queue must
 * exist. Any number of servers may share it.
 *
 * | the handler                      | the client gets                             | the request       |
 * | -------------------------------- | ------------------------------------------- | ----------------- |
 * | succeeds                         | the success                                 | acknowledged      |
 * | fails                            | the failure                                 | acknowledged      |
 * | dies of a defect                 | `RemoteFailure`; the defect is logged here  | acknowledged      |
 * | returns what cannot be sent      | `RemoteFailure`; why is logged here         | acknowledged      |
 * | is not called: payload not read, | `RemoteFailure`, which says what is wrong   | acknowledged      |
 * | or another procedure's           |                                             |                   |
 * | is interrupted by the shutdown   | nothing yet                                 | requeued          |
 * | is not called: `replyTo` is a    | nothing                                     | rejected          |
 * | queue that is not replied to     |                                             |                   |
 *
 * A request is acknowledged behind its reply: when the broker has confirmed that or, for a small reply by direct reply-to,
 * on the same channel, where the broker reads one after the other. So it is handled at least once: after a crash or a lost
 * connection it comes again. Handlers have to be idempotent. A handler's scope is closed before the reply is sent.
 *
 * A request that wants its reply in a queue is rejected, so it goes to the dead-letter exchange of its queue, if that has one,
 * unless the option `replyTo` allows that queue. It is counted in `refusedReplies`, and logged every 10 seconds at most.
 *
 * Requests are taken by the publishers' connection, not by that of the consumers. While the broker blocks publishers no
 * reply goes out, and what was sent behind one waits with it.
 *
 * A reply that cannot be sent is tried three times; then its request goes back to the queue after a pause, as by
 * `AmqpConsumer.redeliver`, until it expires or has come as often as `maxDeliveries` allows. If no waiting can help, such as
 * for a user that may not reply, the request is rejected: it was handled. A client that is gone is no failure: with direct
 * reply-to the broker drops the reply, other queues that are gone count in `unroutable`. A request without `replyTo` is
 * handled too, as `AmqpConsumer.consume` would: the failure of its handler is only logged here, and it comes again after a
 * pause.
 *
 * Requests whose time is up are dropped by the broker, unless a server had taken them by then.
 *
 * Runs until it is interrupted, and ends then as `AmqpConsumer.consume` does; fails as that does, too: also with
 * `MessageTooLarge` for a request larger than `maxInboundMessageBodySize`, which stays in the queue. Where clients are not
 * trusted, let the broker take nothing larger than that (`max_message_size`).
 *
 * @example
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

/** Replies that servers of this process could not deliver: the queue they were to go to was gone, or their address none. */
export const unroutable: Metric.Counter<number> = internalServer.unroutable

/** Requests that were rejected because their server does not reply to the queue that they name: see `ServeOptions`. */
export const refusedReplies: Metric.Counter<number> = internalServer.refusedReplies
