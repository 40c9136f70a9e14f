/**
 * Confirmed publishing by many fibers over a few channels.
 *
 * @since 0.1.0
 */
import { AmqpPublisher as Core } from "@effect-amqp/core"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as Subscribable from "effect/Subscribable"
import { insideOf } from "./internal/inside.ts"
import { publishAllOn } from "./internal/publishing.ts"
import type { Confirmed, PublishOptions } from "./model/channel.ts"
import type { AmqpError } from "./model/error.ts"
import type { Message } from "./model/message.ts"
import type { Flow, Outcome, PublishAllOptions, Stats } from "./model/publisher.ts"

export * from "./model/publisher.ts"

/**
 * The operations of `AmqpPublisher`.
 *
 * **When to use**
 *
 * Use as the type of a parameter that takes the service.
 *
 * @see {@link AmqpPublisher} for the service
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  /** Publishes a message and completes when the broker has confirmed it. See `AmqpPublisher.publish`. */
  readonly publish: (message: Message, options?: PublishOptions) => Effect.Effect<Confirmed, AmqpError>
  /**
   * Whether messages are sent or wait now, and why; `changes` begins with the present state. A lost connection does not
   * count as blocked: messages wait for the next connection.
   */
  readonly flow: Subscribable.Subscribable<Flow>
  /** The present counts. */
  readonly stats: Effect.Effect<Stats>
}

/**
 * The publisher, as a service.
 *
 * **When to use**
 *
 * Use `AmqpPublisher.publish` and `AmqpPublisher.publishAll`, which need this service, for everything that must not be
 * lost. Use the service itself to read its state and counts.
 *
 * @category services
 * @since 0.1.0
 */
export class AmqpPublisher extends Context.Tag("@effect-amqp/platform/AmqpPublisher")<AmqpPublisher, Service>() {}

/**
 * Publishes a message and completes when the broker has confirmed it.
 *
 * **When to use**
 *
 * Use for every message that must not be lost. Many fibers may publish at the same time; they share a few channels.
 *
 * **Details**
 *
 * It fails with `PublishNacked`, `PublishReturned` (with `mandatory`), `PublishTimeout` (`sent` says whether the message
 * may have arrived), `PublishUnknown`, `PublishForbidden`, `PoolExhausted`, `MessageTooLarge`, `InvalidArgument` or the
 * reason for which the broker has closed the channel, such as `NotFound` for an exchange that does not exist.
 *
 * @see {@link publishAll} for many messages in order
 *
 * @category publishing
 * @since 0.1.0
 */
export const publish = (
  message: Message,
  options?: PublishOptions
): Effect.Effect<Confirmed, AmqpError, AmqpPublisher> =>
  Effect.flatMap(AmqpPublisher, (publisher) => publisher.publish(message, options))

/**
 * Publishes all messages in order, through one channel.
 *
 * **When to use**
 *
 * Use for a stream or a large number of messages.
 *
 * **Details**
 *
 * At most `maxInFlight` messages are in flight. A message is taken from its source only when the one before it was sent,
 * so the memory is bounded; an iterable may be endless. `timeout` applies to each message.
 *
 * **Gotchas**
 *
 * If the consumer of this stream ends early, messages in flight may still arrive.
 *
 * @see {@link publish} for single messages
 *
 * @category publishing
 * @since 0.1.0
 */
export const publishAll: {
  /**
   * Publishes all messages in order and emits an `Outcome` for each, whether it was confirmed or failed. The stream fails
   * if its source fails, or with `InvalidArgument` for wrong options.
   */
  <E = never, R = never>(
    messages: Iterable<Message> | Stream.Stream<Message, E, R>,
    options: PublishAllOptions & { readonly failures: "values" }
  ): Stream.Stream<Outcome, E | AmqpError, R | AmqpPublisher>
  /**
   * Publishes all messages in order and emits a `Confirmed` for each, up to the first failure: the stream fails with the
   * error of that message, or with the error of its source.
   */
  <E = never, R = never>(
    messages: Iterable<Message> | Stream.Stream<Message, E, R>,
    options?: PublishOptions & { readonly failures?: "end" | undefined }
  ): Stream.Stream<Confirmed, E | AmqpError, R | AmqpPublisher>
} = <E, R>(
  messages: Iterable<Message> | Stream.Stream<Message, E, R>,
  options?: PublishAllOptions
): Stream.Stream<never, E | AmqpError, R | AmqpPublisher> =>
  Stream.unwrap(
    Effect.map(AmqpPublisher, (service) =>
      publishAllOn<E, R>(insideOf("AmqpPublisher.publishAll", service), Core.publishAll, messages, options)
    )
  )
