/**
 * Request and reply: procedures, options and counts.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Schema from "effect/Schema"
import type { ConsumeOptions } from "./consumer.ts"
import type { FieldTable } from "./message.ts"

/**
 * A remote procedure: its name, the schemas of its payload, success and error, and the route of its requests.
 *
 * **When to use**
 *
 * Use as the value that client and server share. `make` creates it; a copy or an object written by hand is refused with
 * `InvalidArgument`.
 *
 * @see {@link make} for declaring a procedure
 * @see {@link client} for calling it
 * @see {@link serve} for serving it
 * @category models
 * @since 0.1.0
 */
export interface Procedure<
  out Payload extends Schema.Schema.All,
  out Success extends Schema.Schema.All,
  out Error extends Schema.Schema.All
> {
  readonly name: string
  readonly payloadSchema: Payload
  readonly successSchema: Success
  readonly errorSchema: Error
  /** The queue that the server consumes requests from. */
  readonly queue: string
  /**
   * The exchange that the client publishes requests to. `""` is the default exchange, which routes to the queue named
   * by `routingKey`.
   */
  readonly exchange: string
  /** The routing key of requests. */
  readonly routingKey: string
}

/**
 * Options of `make`: the schemas of a procedure and the route of its requests.
 *
 * **When to use**
 *
 * Use when a procedure has a payload, a success or an error, or when its requests take another route than the queue
 * with the procedure's name.
 *
 * @see {@link make} for the function that takes these options
 * @category options
 * @since 0.1.0
 */
export interface ProcedureOptions<
  Payload extends Schema.Schema.All | Schema.Struct.Fields,
  Success extends Schema.Schema.All,
  Error extends Schema.Schema.All
> {
  /** The schema of a request's payload, or the fields of a struct. Default: `Schema.Void`, no payload. */
  readonly payload?: Payload | undefined
  /** The schema of a success. Default: `Schema.Void`, no content. */
  readonly success?: Success | undefined
  /**
   * The schema of a failure; the client fails with the same value. Default: `Schema.Never`, the procedure does not
   * fail.
   */
  readonly error?: Error | undefined
  /** The queue of the requests. Not empty, at most 255 bytes. Default: the procedure's name. */
  readonly queue?: string | undefined
  /** The exchange that requests are published to, at most 255 bytes. Default: `""`, the default exchange. */
  readonly exchange?: string | undefined
  /** The routing key of requests, at most 255 bytes. Default: the queue's name. */
  readonly routingKey?: string | undefined
}

/**
 * The schema of a payload that is declared as a schema or as the fields of a struct.
 *
 * **When to use**
 *
 * Use in the types of functions that pass on the `payload` option of `make`.
 *
 * @see {@link make} for the function that returns a procedure with this schema
 * @category utility types
 * @since 0.1.0
 */
export type PayloadSchema<Payload extends Schema.Schema.All | Schema.Struct.Fields> = Payload extends Schema.Schema.All
  ? Payload
  : Payload extends Schema.Struct.Fields
    ? Schema.Struct<Payload>
    : never

/**
 * Options of one call, or of all calls of a client: timeout, expiration, priority and headers of the request.
 *
 * **When to use**
 *
 * Use with `client` for the options of every call, and with a single call to override them.
 *
 * @see {@link client} for the function that takes these options
 * @category options
 * @since 0.1.0
 */
export interface CallOptions {
  /**
   * The longest wait from the call to the reply. It includes the waits for a channel, for room in flight, for the
   * broker and for the server. 1 ms to 24.8 days. Default: 30 seconds.
   */
  readonly timeout?: Duration.DurationInput | undefined
  /**
   * What a call does while the broker accepts no publishes (`connection.blocked`, `channel.flow`): `"wait"` waits for
   * up to `timeout`, `"fail"` fails at once with `PublishForbidden`. Without a connection a call waits in both cases,
   * and at most `maxWaiting` requests wait. Default: `"wait"`.
   */
  readonly onBlocked?: "wait" | "fail" | undefined
  /**
   * Whether the broker drops the request when the call times out before a server has received it. An overloaded server
   * then does no work for calls that have ended. Default: `true`.
   */
  readonly expires?: boolean | undefined
  /** The priority of the request, 0 to 255, for queues with `x-max-priority`. Default: none. */
  readonly priority?: number | undefined
  /** Headers of the request, which the handler can read. Default: none. */
  readonly headers?: FieldTable | undefined
}

/**
 * A point-in-time count of a client's requests and replies.
 *
 * **When to use**
 *
 * Use for health checks, and tests. `AmqpMetrics.snapshot` has the same counts.
 *
 * **Details**
 *
 * `replied`, `timedOut` and `unclaimed` count from the start of the client.
 *
 * @see {@link stats} for reading these counts
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Requests that are sent and wait for their reply. */
  readonly inFlight: number
  /** Requests in the backlog: they wait for a channel, for room in flight, or until the broker unblocks publishers. */
  readonly waiting: number
  /** Replies that were matched to their request. */
  readonly replied: number
  /** Requests that timed out. */
  readonly timedOut: number
  /**
   * Replies that matched no waiting request: late ones, duplicates and those of interrupted requests. They were
   * dropped.
   */
  readonly unclaimed: number
}

/**
 * Options of a client: bounds of its requests in flight and of its backlog.
 *
 * **When to use**
 *
 * Use with `makeClient` or `layerWith` where the default bounds do not fit.
 *
 * @see {@link layerWith} for a layer with these options
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The maximum number of requests that are sent and not answered; further ones wait in the backlog. At least 1.
   * Default: 10,000.
   */
  readonly maxInFlight?: number | undefined
  /**
   * The maximum number of requests in the backlog; a request beyond that fails at once with `PoolExhausted`. At least
   * 0. Default: 10,000.
   */
  readonly maxWaiting?: number | undefined
  /**
   * The maximum sum, in bytes, of the contents of requests in flight. A request counts until the broker has confirmed
   * it and its call has ended. A request that is larger than this bound is sent while no other counts. At least 1.
   * Default: 64 MiB, as for `AmqpPublisher`.
   */
  readonly maxInFlightBytes?: number | undefined
  /**
   * The maximum sum, in bytes, of the contents of requests in the backlog. A request beyond that fails at once with
   * `PoolExhausted`, so that a broker that accepts no publishes does not exhaust the memory. The first request in the
   * backlog is always accepted. At least 1. Default: 32 MiB, as for `AmqpPublisher`.
   */
  readonly maxWaitingBytes?: number | undefined
  /**
   * The maximum content of a request, in bytes. A larger one fails with `MessageTooLarge`, where the broker would close
   * the channel. At least 1. Default: the broker's default limit, as for `AmqpPublisher`.
   */
  readonly maxMessageSize?: number | undefined
}

/**
 * Options of a server: those of its consumer, and the addresses that it replies to.
 *
 * **When to use**
 *
 * Use with `serve` to set how many requests are handled at once, or to accept clients that have reply queues of their
 * own.
 *
 * @see {@link serve} for the function that takes these options
 * @category options
 * @since 0.1.0
 */
export interface ServeOptions extends Omit<
  ConsumeOptions,
  "onFailure" | "onDefect" | "queueType" | "offset" | "offsets" | "retrySecret"
> {
  /** The maximum number of requests that are handled at once. 1 to 65,535. Default: 16. */
  readonly concurrency?: number | undefined
  /**
   * The number of requests that the broker sends ahead, at least `concurrency`. Default: `concurrency`.
   *
   * Requests that wait in this process no longer expire, and no other server can take them.
   */
  readonly prefetch?: number | undefined
  /**
   * The reply addresses that the server accepts: `"direct"` accepts only those of direct reply-to (RabbitMQ's and
   * LavinMQ's), `"any"` accepts every queue as well, and a function accepts the queues for whose name it returns
   * `true`. Default: `"direct"`.
   *
   * A reply is published to the address in its request, with the permissions of the server. A client that can send a
   * request therefore chooses where this server writes to: with `"any"` that is every queue of the virtual host, such
   * as the work queue of another service. If clients have reply queues of their own (as in Pika's RPC tutorial), choose
   * the names of these queues and compare them in a function.
   */
  readonly replyTo?: "direct" | "any" | ((queue: string) => boolean) | undefined
}
