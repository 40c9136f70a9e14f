/**
 * Confirmed publishing by many fibers over few channels.
 *
 * `publish` completes when the broker has taken responsibility for the message, and fails with what became of it
 * otherwise. Thousands of fibers may publish at the same time: they share a few confirm channels that belong to the
 * publisher alone, and a bounded number of messages is on its way; the others wait in line, first come, first served.
 *
 * For publishing in volume, and for whatever must not be lost. A borrowed channel (`AmqpChannel.useConfirm`) is for
 * declarations and a message now and then.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { Confirmed, PublishOptions } from "./model/channel.ts"
import { AmqpConnection } from "./model/connection.ts"
import { type AmqpError, fromReason } from "./model/error.ts"
import type { Message } from "./model/message.ts"
import { isRefused, readPublish } from "./internal/wire/declarations.ts"
import * as internal from "./internal/publisher/publisher.ts"
import { checkMessages, readPublishAll } from "./internal/publisher/options.ts"
import { inSequence } from "./internal/publisher/sequence.ts"
import { type Options, type Outcome, type PublishAllOptions, AmqpPublisher } from "./model/publisher.ts"

export * from "./model/publisher.ts"

/**
 * Publishes a message; completes when the broker has confirmed it.
 *
 * Use it for whatever must arrive. `timeout` covers everything: a place among `maxInFlight`, a reconnect, the wait while
 * the broker takes nothing, and the confirm. Nothing is sent twice: whether to try again is the caller's decision, and
 * `PublishUnknown` and `PublishTimeout` with `sent: true` mean that a second try may make a duplicate.
 *
 * Fails with
 * - `PublishNacked`: the broker refused the message.
 * - `PublishReturned`: with `mandatory`, no queue took it; with the broker's code and text.
 * - `PublishForbidden`: with `onBlocked: "fail"`, there is no connection, or the broker takes nothing now. Nothing was sent.
 * - `PoolExhausted`: likewise, and others wait for that with `maxWaitingBytes` already. Nothing was sent.
 * - `PublishTimeout`: `sent` tells whether it may have arrived.
 * - `PublishUnknown`: its channel died before the confirm. It may have arrived.
 * - `NotFound`, `AccessRefused`, `PreconditionFailed`, `MessageTooLarge`: this very message made the broker close the
 *   channel. Others on that channel fail with `PublishUnknown`; where it cannot be told which one it was, all do.
 * - `InvalidArgument`, `MessageTooLarge`: refused before anything was sent.
 * - `PoolClosed`: the publisher's scope has ended; or why the connection is closed for good. Nothing was sent.
 *
 * Interrupted while it waits, nothing is sent. Interrupted later, the message is on its way, and keeps its place among
 * `maxInFlight` until the broker has answered.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpPublisher } from "@effect-amqp/core"
 *
 * const program = AmqpPublisher.publish(
 *   { exchange: "orders", routingKey: "created", content: "one order" },
 *   { mandatory: true, timeout: "5 seconds" }
 * ).pipe(
 *   Effect.catchReason("AmqpError", "PublishReturned", (reason) => Effect.logError(reason.replyText)),
 *   // At least once: consumers of orders know duplicates by their messageId.
 *   Effect.retry({ times: 3, while: (error) => error.isRetryable })
 * )
 * ```
 */
export const publish = (
  message: Message,
  options?: PublishOptions
): Effect.Effect<Confirmed, AmqpError, AmqpPublisher> =>
  Effect.flatMap(AmqpPublisher, (publisher) => publisher.publish(message, options))

/**
 * Publishes all messages of a stream or an iterable, in order, and emits what became of each, in the same order.
 *
 * Use it for many messages from one source. They go through one channel, so a queue has them in the order of the source;
 * at most `maxInFlight` are on their way. A message is taken from its source only when the one before it was sent, so the
 * memory is bounded, whichever of source, broker and reader is slow; an iterable may be endless.
 *
 * By default the first failure, in order, ends the stream, and nothing is sent after it is known; what was on its way by
 * then may arrive. With `failures: "values"` the stream goes on and emits `Outcome`s, for whoever has to know which
 * messages failed. `timeout` is each message's own.
 *
 * Fails as `publish` does, and as its source does. Leaving it early leaves the messages that are on their way to the
 * broker.
 *
 * @example
 * ```ts
 * import { Effect, Result, Stream } from "effect"
 * import { AmqpPublisher } from "@effect-amqp/core"
 *
 * const messages = Stream.map(Stream.range(1, 1_000_000), (n) => ({ routingKey: "numbers", content: String(n) }))
 *
 * // All, or up to the first that fails.
 * const all = Stream.runDrain(AmqpPublisher.publishAll(messages))
 *
 * // All, and which of them failed.
 * const failed = AmqpPublisher.publishAll(messages, { mandatory: true, failures: "values" }).pipe(
 *   Stream.filter(({ result }) => Result.isFailure(result)),
 *   Stream.runForEach(({ message }) => Effect.logWarning("not published", message.content))
 * )
 * ```
 */
export const publishAll: {
  <E = never, R = never>(
    messages: Iterable<Message> | Stream.Stream<Message, E, R>,
    options: PublishAllOptions & { readonly failures: "values" }
  ): Stream.Stream<Outcome, E | AmqpError, R | AmqpPublisher>
  <E = never, R = never>(
    messages: Iterable<Message> | Stream.Stream<Message, E, R>,
    options?: PublishOptions & { readonly failures?: "end" | undefined }
  ): Stream.Stream<Confirmed, E | AmqpError, R | AmqpPublisher>
} = <E, R>(
  messages: Iterable<Message> | Stream.Stream<Message, E, R>,
  options?: PublishAllOptions
): Stream.Stream<never, E | AmqpError, R | AmqpPublisher> =>
  Stream.unwrap(
    Effect.map(AmqpPublisher, (service): Stream.Stream<never, E | AmqpError, R> => {
      const settings = readPublishAll(options)
      if (isRefused(settings)) return Stream.fail(fromReason(settings))
      const refused = checkMessages(messages)
      if (refused !== undefined) return Stream.fail(fromReason(refused))
      const publisher = internal.ownPublisherOf(service)
      // A service that was made by hand, or whose `publish` was replaced, can only publish one by one.
      return (
        publisher === undefined
          ? oneByOne(service, messages, settings.failures, options)
          : inSequence(publisher, messages, settings, settings.failures)
      ) as Stream.Stream<never, E | AmqpError, R>
    })
  )

const oneByOne = <E, R>(
  service: AmqpPublisher["Service"],
  messages: Iterable<Message> | Stream.Stream<Message, E, R>,
  failures: "end" | "values",
  options: PublishAllOptions = {}
): Stream.Stream<Outcome | Confirmed, E | AmqpError, R> => {
  const { failures: _, ...each } = options
  return Stream.mapEffect(
    Stream.isStream(messages) ? messages : Stream.fromIterable(messages),
    (message): Effect.Effect<Outcome | Confirmed, AmqpError> => {
      const publish = service.publish(message, each)
      return failures === "end" ? publish : Effect.map(Effect.result(publish), (result) => ({ message, result }))
    }
  )
}

/**
 * Publishes what is run into it, as `publishAll` does; its result is how many messages were confirmed, all of them. Fails
 * with the first failure.
 *
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import { AmqpPublisher } from "@effect-amqp/core"
 *
 * const program = Stream.make({ routingKey: "orders", content: "one order" }).pipe(Stream.run(AmqpPublisher.sink))
 * ```
 */
export const sink: Sink.Sink<number, Message, never, AmqpError, AmqpPublisher> = /* @__PURE__ */ Sink.suspend(() =>
  sinkWith()
)

/** `sink` with options for every message. */
export const sinkWith = (options?: PublishOptions): Sink.Sink<number, Message, never, AmqpError, AmqpPublisher> =>
  Sink.make<Message>()((messages) => {
    // Failures as values would be counted as confirmed.
    const settings = readPublish(options)
    return isRefused(settings) ? Effect.fail(fromReason(settings)) : Stream.runCount(publishAll(messages, options))
  })

/**
 * A publisher on the connection in context, with channels of its own, opened as they are needed and again after they or
 * the connection have died.
 *
 * Closing its scope turns publishes in line and new ones away with `PoolClosed`, waits up to `shutdownTimeout` for the
 * confirms of those in flight (the rest are `PublishUnknown`), and closes the channels, each within `closeTimeout`.
 */
export const make = (
  options?: Options
): Effect.Effect<AmqpPublisher["Service"], AmqpError, AmqpConnection | Scope.Scope> =>
  Effect.flatMap(AmqpConnection, (connection) => internal.make(connection, options))

/** A publisher with the default settings, as a layer. */
export const layer: Layer.Layer<AmqpPublisher, AmqpError, AmqpConnection> = Layer.effect(AmqpPublisher, make())

/** A publisher with these settings, as a layer. */
export const layerWith = (options: Options): Layer.Layer<AmqpPublisher, AmqpError, AmqpConnection> =>
  Layer.effect(AmqpPublisher, make(options))
