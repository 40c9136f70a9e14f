/** Request and reply: procedures, options, and the service. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as AmqpConsumer from "./consumer.ts"
import type * as AmqpError from "./error.ts"
import type { InsideId } from "./inside.ts"
import type { FieldTable } from "./message.ts"

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
    /** For the library's own parts. A copy of the service keeps it, and one that is made by hand does without. */
    readonly [InsideId]?: object | undefined
  }
>()("@effect-amqp/core/AmqpRpc") {}

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
   * Which addresses are replied to: `"direct"`, those of direct reply-to alone (RabbitMQ's and LavinMQ's); `"any"`, or those
   * for whose name the function says `true`, queues as well. Default: `"direct"`.
   *
   * A reply goes where its request says, with the permissions of the server. Whoever can send a request chooses what this
   * server writes to: with `"any"` every queue of the virtual host, such as another service's queue of work. Of clients that
   * have reply queues of their own (Pika's RPC tutorial) choose the names, and let a function compare them.
   */
  readonly replyTo?: "direct" | "any" | ((queue: string) => boolean) | undefined
}
