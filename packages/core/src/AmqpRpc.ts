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
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Metric from "effect/Metric"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { AmqpConnection } from "./AmqpConnection.ts"
import type * as AmqpConsumer from "./AmqpConsumer.ts"
import * as AmqpError from "./model/error.ts"
import type { FieldTable } from "./AmqpMessage.ts"
import { isRefused } from "./internal/wire/declarations.ts"
import * as internalClient from "./internal/rpc/client.ts"
import * as internalContent from "./internal/rpc/content.ts"
import { mergeCallOptions, readOptions } from "./internal/rpc/options.ts"
import * as internalProcedure from "./internal/rpc/procedure.ts"
import * as internalServer from "./internal/rpc/server.ts"

// --- Procedures ------------------------------------------------------------------------------------------------------

/** What is asked, what is answered, and through which queue. Made by `make`, shared by client and server. */
export interface Procedure<
  out Payload extends Schema.Constraint,
  out Success extends Schema.Constraint,
  out Error extends Schema.Constraint
> {
  readonly name: string
  readonly payloadSchema: Payload
  readonly successSchema: Success
  readonly errorSchema: Error
  /** Where the server takes requests from. */
  readonly queue: string
  /** Where the client sends requests to. `""` is the default exchange, which routes to the queue named by `routingKey`. */
  readonly exchange: string
  readonly routingKey: string
}

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

/** How a procedure is declared. */
export interface ProcedureOptions<
  Payload extends Schema.Constraint | Schema.Struct.Fields,
  Success extends Schema.Constraint,
  Error extends Schema.Constraint
> {
  /** What a request says: a schema, or the fields of a struct. Default: nothing, `Schema.Void`. */
  readonly payload?: Payload | undefined
  /** What a reply says. Default: nothing, `Schema.Void`. */
  readonly success?: Success | undefined
  /** How it may fail; the client fails with the same. Default: not at all, `Schema.Never`. */
  readonly error?: Error | undefined
  /** The queue of its requests. Default: its name. */
  readonly queue?: string | undefined
  /** The exchange that requests are published to. Default: `""`, the default exchange. */
  readonly exchange?: string | undefined
  /** Default: the queue's name. */
  readonly routingKey?: string | undefined
}

/** The schema of a payload that was given as a schema or as the fields of a struct. */
export type PayloadSchema<Payload extends Schema.Constraint | Schema.Struct.Fields> = Payload extends Schema.Constraint
  ? Payload
  : Payload extends Schema.Struct.Fields
    ? Schema.Struct<Payload>
    : never

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

// --- The client ------------------------------------------------------------------------------------------------------

/** How a request is sent, and how long its reply is waited for. */
export interface CallOptions {
  /**
   * The longest wait, from the call to the reply: for a channel, for room, for the broker, for the server. 1 ms to 24.8
   * days. Default: 30 seconds.
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * What to do while the broker takes nothing from publishers (`connection.blocked`, `channel.flow`): wait, up to
   * `timeout`, or fail at once with `PublishForbidden`. Without a connection it waits, at most `maxWaiting` requests.
   * Default: `"wait"`.
   */
  readonly onBlocked?: "wait" | "fail" | undefined
  /**
   * Whether the broker drops the request if no server has taken it when the client's time is up, so that an overloaded
   * server does not work on what nobody waits for. Default: `true`.
   */
  readonly expires?: boolean | undefined
  /** 0 to 255; queues with `x-max-priority` use it. */
  readonly priority?: number | undefined
  /** For the handler to read. */
  readonly headers?: FieldTable | undefined
}

/** A procedure, called like a function. */
export interface Client<
  in out Payload extends Schema.Constraint,
  out Success extends Schema.Constraint,
  out Error extends Schema.Constraint
> {
  (
    payload: Payload["Type"],
    options?: CallOptions
  ): Effect.Effect<
    Success["Type"],
    Error["Type"] | AmqpError.AmqpError,
    AmqpRpc | Payload["EncodingServices"] | Success["DecodingServices"] | Error["DecodingServices"]
  >
}

/** The counts of a client. The last three count from its start. */
export interface Stats {
  /** Requests that were sent and wait for their reply. */
  readonly inFlight: number
  /** Requests in line: for a channel, for room, for publishers to be unblocked. */
  readonly waiting: number
  /** Replies that reached the request they belong to. */
  readonly replied: number
  /** Requests that ran out of time. */
  readonly timedOut: number
  /** Replies that nobody waited for: late ones, second ones, those of interrupted requests. They were dropped. */
  readonly unclaimed: number
}

/**
 * The client side, as a service: the one channel that all requests of a program go out on, and their replies come in on.
 *
 * It is opened at the first request, and anew at the next one when it has died.
 */
export class AmqpRpc extends Context.Service<
  AmqpRpc,
  {
    /** See `client`. */
    readonly call: <P extends Schema.Constraint, S extends Schema.Constraint, E extends Schema.Constraint>(
      procedure: Procedure<P, S, E>,
      payload: P["Type"],
      options?: CallOptions
    ) => Effect.Effect<
      S["Type"],
      E["Type"] | AmqpError.AmqpError,
      P["EncodingServices"] | S["DecodingServices"] | E["DecodingServices"]
    >
    readonly stats: Effect.Effect<Stats>
  }
>()("@effect-amqp/core/AmqpRpc") {}

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

/** The bounds of a client. */
export interface Options {
  /**
   * Requests that are sent and not answered, at most; further ones wait in line. At least 1. Default: 10,000.
   */
  readonly maxInFlight?: number | undefined
  /** Requests in line, at most; who comes after that fails at once with `PoolExhausted`. At least 0. Default: 10,000. */
  readonly maxWaiting?: number | undefined
  /**
   * The bytes of the contents of requests that are sent and not yet both confirmed by the broker and answered, at most; a
   * larger request goes alone. At least 1. Default: 64 MiB, as for `AmqpPublisher`.
   */
  readonly maxInFlightBytes?: number | undefined
  /**
   * The bytes of the contents of requests in line, at most; a request beyond that fails at once with `PoolExhausted`, so
   * that a broker which takes nothing does not fill the memory. The first in line always has its place. At least 1.
   * Default: 32 MiB, as for `AmqpPublisher`.
   */
  readonly maxWaitingBytes?: number | undefined
  /**
   * The largest content of a request in bytes; a larger one fails with `MessageTooLarge`, where the broker would close the
   * channel. At least 1. Default: what the broker takes by default, as for `AmqpPublisher`.
   */
  readonly maxMessageSize?: number | undefined
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

// --- The server ------------------------------------------------------------------------------------------------------

/** How a server consumes requests. */
export interface ServeOptions extends Omit<
  AmqpConsumer.ConsumeOptions,
  "onFailure" | "onDefect" | "queueType" | "offset" | "offsets" | "retrySecret"
> {
  /** How many requests are handled at a time, at most. Default: 16. */
  readonly concurrency?: number | undefined
  /**
   * How many requests the broker sends ahead. Those that wait here do not expire any more, and no other server takes them.
   * At least `concurrency`. Default: as many as `concurrency`.
   */
  readonly prefetch?: number | undefined
  /**
   * Which addresses are replied to: `"direct"`, those of RabbitMQ's direct reply-to alone; `"any"`, or those for whose name
   * the function says `true`, queues as well. Default: `"direct"`.
   *
   * A reply goes where its request says, with the permissions of the server. Whoever can send a request chooses what this
   * server writes to: with `"any"` every queue of the virtual host, such as another service's queue of work. Of clients that
   * have reply queues of their own (Pika's RPC tutorial) choose the names, and let a function compare them.
   */
  readonly replyTo?: "direct" | "any" | ((queue: string) => boolean) | undefined
}

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
