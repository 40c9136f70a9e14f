/**
 * The publisher: its options, outcomes and counts.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import type * as Either from "effect/Either"
import type { Confirmed, PublishOptions } from "./channel.ts"
import type { AmqpError } from "./error.ts"
import type { Message } from "./message.ts"

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
  readonly result: Either.Either<Confirmed, AmqpError>
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
