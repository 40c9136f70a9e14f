/**
 * The publisher: its service, options and outcomes.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { Confirmed, PublishOptions } from "./channel.ts"
import type { AmqpError } from "./error.ts"
import type { InsideId } from "./inside.ts"
import type { Message } from "./message.ts"

/**
 * The settings of a publisher.
 *
 * **When to use**
 *
 * Use with `AmqpPublisher.make` and `AmqpPublisher.layerWith`, when the defaults do not fit.
 *
 * **Details**
 *
 * Every setting is optional. Making a publisher fails with `InvalidArgument` if a setting is unknown or out of bounds.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * Maximum number of confirm channels: 1 to 2047. The first is opened with the first message, another one when more
   * than one message is in flight. If the broker closes a channel because of a message, the other messages in flight on
   * that channel have an unknown outcome, so more channels mean fewer such messages. Default: 2.
   */
  readonly channels?: number | undefined
  /**
   * Maximum number of messages that are sent and not confirmed: 1 to 1,000,000. It is one bound for all exchanges and
   * queues. A queue that confirms slowly or not at all, such as a quorum queue without its majority, fills it, and
   * messages for other queues wait. Give such queues a publisher of their own where this must not happen. Default:
   * 1000.
   */
  readonly maxInFlight?: number | undefined
  /** Maximum size of the contents in flight, in bytes. A larger message is sent alone. At least 1. Default: 64 MiB. */
  readonly maxInFlightBytes?: number | undefined
  /**
   * Maximum size of the contents that wait while nothing is sent, in bytes: without a connection, while the broker
   * accepts nothing from publishers, or when it has taken and confirmed nothing for a second. A publish beyond that
   * fails immediately with `PoolExhausted`, so that an outage does not fill the memory. The first message always has
   * room, and so does the message that a `publishAll` waits with. At least 1. Default: 32 MiB.
   */
  readonly maxWaitingBytes?: number | undefined
  /**
   * Maximum size of a content, in bytes. A larger one fails with `MessageTooLarge`; without this limit the broker would
   * close the channel. At least 1. Default: the default limit of the broker's product and version, which is 16 MiB for
   * RabbitMQ 4 and later and 128 MiB for earlier versions; other brokers have no limit. The limit applies to what
   * applications publish: a consumer sends its retries of larger messages on a separate channel.
   */
  readonly maxMessageSize?: number | undefined
}

/**
 * What happens to a message that is published now. The first state that applies wins.
 *
 * **When to use**
 *
 * Use to show or log why messages wait, or to stop taking work while they do.
 *
 * **Details**
 *
 * - `Flowing`: the message is sent.
 * - `Blocked`: the broker has blocked the connection.
 * - `Stopped`: the broker has stopped every channel of this publisher.
 * - `Buffering`: the write buffers of all channels are full.
 *
 * @see {@link AmqpPublisher} for the service that has the present state
 *
 * @category models
 * @since 0.1.0
 */
export type Flow =
  /** The message is sent. */
  | { readonly _tag: "Flowing" }
  /** The broker has blocked the connection (`connection.blocked`): it is short of memory or disk, and says of which. */
  | { readonly _tag: "Blocked"; readonly reason: string }
  /** The broker has stopped every channel of this publisher (`channel.flow`). RabbitMQ does not do that. */
  | { readonly _tag: "Stopped" }
  /** No channel has accepted more bytes for 10 ms: on each, `writeBufferSize` bytes wait for the network. */
  | { readonly _tag: "Buffering" }

/**
 * The counts of a publisher, at one moment.
 *
 * **When to use**
 *
 * Use to see how busy a publisher is and how its publishes ended.
 *
 * **Details**
 *
 * `inFlight`, `waiting` and `channels` are the present numbers; the others count from the publisher's start.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Messages that are sent and that the broker has not answered, including those whose caller has given up. */
  readonly inFlight: number
  /** Messages in the backlog. */
  readonly waiting: number
  /** Open channels. */
  readonly channels: number
  /** Publishes that succeeded. */
  readonly confirmed: number
  /** Publishes that failed with `PublishNacked`. */
  readonly nacked: number
  /** Publishes that failed with `PublishReturned`. */
  readonly returned: number
  /** Publishes that failed with `PublishUnknown`. */
  readonly unknown: number
  /** Publishes that failed with `PublishTimeout`, whether sent or not. */
  readonly timedOut: number
  /** Publishes that failed with `PublishForbidden`. */
  readonly forbidden: number
  /** Publishes that failed with any other reason. */
  readonly refused: number
}

/**
 * What happened to one message of many.
 *
 * **When to use**
 *
 * Use with `AmqpPublisher.publishAll` and `failures: "values"` to find out which messages failed.
 *
 * @see {@link PublishAllOptions} for the option that turns failures into values
 *
 * @category models
 * @since 0.1.0
 */
export interface Outcome {
  /** The message, as it came from the source. */
  readonly message: Message
  /** The broker's confirm, or the error of this message. */
  readonly result: Result.Result<Confirmed, AmqpError>
}

/**
 * Options for publishing many messages.
 *
 * **When to use**
 *
 * Use with `AmqpPublisher.publishAll`. The other options apply to each message.
 *
 * @see {@link Outcome} for the elements of the stream with `failures: "values"`
 *
 * @category options
 * @since 0.1.0
 */
export interface PublishAllOptions extends PublishOptions {
  /**
   * What happens when a message fails. `"end"`: the stream fails with its error. `"values"`: the stream continues, and
   * its elements are `Outcome`s. Default: `"end"`.
   */
  readonly failures?: "end" | "values" | undefined
}

/**
 * The publisher, as a service.
 *
 * **When to use**
 *
 * Use `AmqpPublisher.publish` and `AmqpPublisher.publishAll`, which need this service, for everything that must not be
 * lost. Use the service itself to read its state and counts.
 *
 * **Example** (Publishing from many fibers)
 *
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
 *
 * @see {@link Options} for its settings
 *
 * @category services
 * @since 0.1.0
 */
export class AmqpPublisher extends Context.Service<
  AmqpPublisher,
  {
    /** Publishes a message and completes when the broker has confirmed it. See `AmqpPublisher.publish`. */
    readonly publish: (message: Message, options?: PublishOptions) => Effect.Effect<Confirmed, AmqpError>
    /**
     * Whether messages are sent or wait now, and why; `SubscriptionRef.changes` begins with the present state. A lost
     * connection does not count as blocked: messages wait for the next connection. For reading only; do not set it.
     */
    readonly flow: SubscriptionRef.SubscriptionRef<Flow>
    /** The present counts. */
    readonly stats: Effect.Effect<Stats>
    /**
     * For the library's internal use. A copy of the service keeps it; a service that is made by hand does not need it.
     */
    readonly [InsideId]?: object | undefined
  }
>()("@effect-amqp/core/AmqpPublisher") {}
