/** The publisher: its service, options and outcomes. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { Confirmed, PublishOptions } from "./channel.ts"
import type { AmqpError } from "./error.ts"
import type { InsideId } from "./inside.ts"
import type { Message } from "./message.ts"

/** The settings of a publisher. Mistakes are `InvalidArgument`, when it is made. */
export interface Options {
  /**
   * Confirm channels, at most: 1 to 2047. The first is opened with the first message, another when more than one message
   * is on its way. A channel that a message kills takes down with it what is unconfirmed on it, so more channels mean
   * fewer messages of unknown outcome. Default: 2.
   */
  readonly channels?: number | undefined
  /**
   * Messages sent and not confirmed, at most: 1 to 1,000,000. It is one bound for all exchanges and queues: a queue that
   * confirms slowly or not at all, such as a quorum queue without its majority, fills it, and the others wait. Where
   * that may not be, give such queues a publisher of their own. Default: 1000.
   */
  readonly maxInFlight?: number | undefined
  /** The bytes of their contents, at most; a larger message goes alone. At least 1. Default: 64 MiB. */
  readonly maxInFlightBytes?: number | undefined
  /**
   * The bytes of contents that may wait while nothing is sent: without a connection, while the broker takes nothing from
   * publishers, or when it has taken and confirmed nothing for a second. A publish beyond that fails at once with
   * `PoolExhausted`, so that an outage does not fill the memory. The first message always has its place, and so has the
   * one that a `publishAll` waits with. At least 1. Default: 32 MiB.
   */
  readonly maxWaitingBytes?: number | undefined
  /**
   * The largest content in bytes that is sent; a larger one fails with `MessageTooLarge`, where the broker would close the
   * channel. At least 1. Default: what the broker takes by default, told by its product and version, 16 MiB for RabbitMQ 4
   * and later, 128 MiB for earlier ones; for other brokers no limit. It is for what applications publish: a consumer's
   * retries of larger messages go by a channel of their own.
   */
  readonly maxMessageSize?: number | undefined
}

/** What a message meets that is published now: the first of these that applies. */
export type Flow =
  /** It is sent. */
  | { readonly _tag: "Flowing" }
  /** The broker has blocked the connection (`connection.blocked`): it is short of memory or disk, and says which. */
  | { readonly _tag: "Blocked"; readonly reason: string }
  /** The broker has stopped every channel of this publisher (`channel.flow`). RabbitMQ does not. */
  | { readonly _tag: "Stopped" }
  /**
   * No channel takes more bytes, and has not for 10 ms: `writeBufferSize` of the configuration are waiting for the network
   * on each.
   */
  | { readonly _tag: "Buffering" }

/** Counts of a publisher, at one moment. From `confirmed` on they count from its start. */
export interface Stats {
  /** Messages sent that the broker has not answered for, those included whose publisher has given up. */
  readonly inFlight: number
  /** Messages in line. */
  readonly waiting: number
  /** Open channels. */
  readonly channels: number
  /** Publishes that succeeded. */
  readonly confirmed: number
  /** Those that failed with `PublishNacked`. */
  readonly nacked: number
  /** `PublishReturned`. */
  readonly returned: number
  /** `PublishUnknown`. */
  readonly unknown: number
  /** `PublishTimeout`, whether sent or not. */
  readonly timedOut: number
  /** `PublishForbidden`. */
  readonly forbidden: number
  /** Those that failed with any other reason. */
  readonly refused: number
}

/** What became of one message of many. */
export interface Outcome {
  readonly message: Message
  readonly result: Result.Result<Confirmed, AmqpError>
}

/** How to publish many messages. */
export interface PublishAllOptions extends PublishOptions {
  /**
   * What a message that fails does: `"end"`, the stream fails with its error, or `"values"`, the stream goes on, and
   * its elements are `Outcome`s. Default: `"end"`.
   */
  readonly failures?: "end" | "values" | undefined
}

/**
 * The publisher, as a service.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { AmqpConfig, AmqpConnection, AmqpPublisher } from "@effect-amqp/core"
 *
 * const Connection = Layer.unwrap(Effect.map(AmqpConfig.make({ host: "rabbit.internal" }), AmqpConnection.layer))
 * const Publisher = Layer.provide(AmqpPublisher.layer, Connection)
 *
 * const program = Effect.forEach(
 *   ["one", "two", "three"],
 *   (content) => AmqpPublisher.publish({ exchange: "orders", routingKey: "created", content }),
 *   { concurrency: "unbounded", discard: true }
 * ).pipe(Effect.provide(Publisher))
 * ```
 */
export class AmqpPublisher extends Context.Service<
  AmqpPublisher,
  {
    /** See `AmqpPublisher.publish`. */
    readonly publish: (message: Message, options?: PublishOptions) => Effect.Effect<Confirmed, AmqpError>
    /**
     * What holds messages up now, if anything does; `SubscriptionRef.changes` begins with the present state. A connection
     * that is lost is not blocked: its publishers wait for the next. For reading: do not set it.
     */
    readonly flow: SubscriptionRef.SubscriptionRef<Flow>
    readonly stats: Effect.Effect<Stats>
    /** For the library's own parts. A copy of the service keeps it, and one that is made by hand does without. */
    readonly [InsideId]?: object | undefined
  }
>()("@effect-amqp/core/AmqpPublisher") {}
