/**
 * Confirmed publishing by many fibers over few channels.
 *
 * `publish` completes when the broker has taken responsibility for the message; otherwise it fails with a reason that
 * says what happened to the message. Thousands of fibers may publish at the same time. They share a few confirm
 * channels that belong to the publisher only, and the number of messages in flight is bounded; the others wait in the
 * backlog, first come, first served.
 *
 * Use it for publishing in volume, and for everything that must not be lost. A borrowed channel
 * (`AmqpChannel.useConfirm`) is for declarations and occasional messages.
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
import { isInvalidArgument, readPublish } from "./internal/wire/declarations.ts"
import * as internal from "./internal/publisher/publisher.ts"
import { checkMessages, readPublishAll } from "./internal/publisher/options.ts"
import { publishSequence } from "./internal/publisher/sequence.ts"
import { type Options, type Outcome, type PublishAllOptions, AmqpPublisher } from "./model/publisher.ts"

export * from "./model/publisher.ts"

/**
 * Publishes a message and completes when the broker has confirmed it.
 *
 * **When to use**
 *
 * Use for every message that must arrive.
 *
 * **Details**
 *
 * `timeout` covers everything: the wait for room among `maxInFlight`, a reconnect, the wait while the broker accepts
 * nothing, and the confirm. The library does not send a message twice; whether to try again is the caller's decision.
 *
 * Fails with
 *
 * - `PublishNacked`: the broker refused the message.
 * - `PublishReturned`: with `mandatory`, no queue took the message. It has the broker's code and text.
 * - `PublishForbidden`: with `onBlocked: "fail"`, there is no connection, or the broker accepts nothing now. Nothing
 *   was sent.
 * - `PoolExhausted`: nothing can be sent at the moment, and contents of `maxWaitingBytes` wait already. Nothing was
 *   sent.
 * - `PublishTimeout`: `sent` says whether the message may have arrived.
 * - `PublishUnknown`: the channel ended before the confirm. The message may have arrived.
 * - `NotFound`, `AccessRefused`, `PreconditionFailed`, `MessageTooLarge`: this message made the broker close the
 *   channel. The others on that channel fail with `PublishUnknown`; so do all of them where the offending publish
 *   cannot be identified.
 * - `InvalidArgument`, `MessageTooLarge`: the message was refused before anything was sent.
 * - `PoolClosed`: the publisher's scope has ended. Nothing was sent.
 * - the reason of the connection, if it is closed for good. Nothing was sent.
 *
 * **Gotchas**
 *
 * After `PublishUnknown`, and after `PublishTimeout` with `sent: true`, a second publish may make a duplicate.
 *
 * If the fiber is interrupted while the message waits, nothing is sent. If it is interrupted later, the message is
 * already sent, and counts towards `maxInFlight` until the broker has answered.
 *
 * **Example** (Retrying with at-least-once delivery)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpPublisher } from "@effect-amqp/core"
 *
 * const program = AmqpPublisher.publish(
 *   { exchange: "orders", routingKey: "created", content: "one order" },
 *   { mandatory: true, timeout: "5 seconds" }
 * ).pipe(
 *   Effect.catchReason("AmqpError", "PublishReturned", (reason) => Effect.logError(reason.replyText)),
 *   // At least once: consumers of orders recognize duplicates by their messageId.
 *   Effect.retry({ times: 3, while: (error) => error.isRetryable })
 * )
 * ```
 *
 * @see {@link publishAll} for many messages from one source
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
 * Publishes all messages of a stream or an iterable in order, and emits the outcome of each in the same order.
 *
 * **When to use**
 *
 * Use for many messages from one source. Use `publish` for single messages from many fibers.
 *
 * **Details**
 *
 * All messages go through one channel, so a queue has them in the order of the source; at most `maxInFlight` are in
 * flight. A message is taken from its source only when the one before it was sent, so the memory is bounded, whichever
 * of source, broker and reader is slow. An iterable may be endless. `timeout` applies to each message.
 *
 * By default the first failure, in order, ends the stream. With `failures: "values"` the stream continues and emits
 * `Outcome`s.
 *
 * @see {@link publish} for single messages and the reasons of a failure
 * @see {@link sink} for the end of a stream
 *
 * @category publishing
 * @since 0.1.0
 */
export const publishAll: {
  /**
   * Publishes all messages in order and emits an `Outcome` for each, whether it was confirmed or failed.
   *
   * **When to use**
   *
   * Use when the caller needs to know which messages failed.
   *
   * **Details**
   *
   * All messages go through one channel, so a queue has them in the order of the source; at most `maxInFlight` are in
   * flight. A message is taken from its source only when the one before it was sent, so the memory is bounded; an
   * iterable may be endless. `timeout` applies to each message. The stream fails if its source fails, or with
   * `InvalidArgument` for wrong options.
   *
   * **Gotchas**
   *
   * If the consumer of this stream ends early, messages in flight may still arrive.
   *
   * **Example** (Logging which messages failed)
   *
   * ```ts
   * import { Effect, Result, Stream } from "effect"
   * import { AmqpPublisher } from "@effect-amqp/core"
   *
   * const messages = Stream.map(Stream.range(1, 1_000_000), (n) => ({ routingKey: "numbers", content: String(n) }))
   *
   * const failed = AmqpPublisher.publishAll(messages, { mandatory: true, failures: "values" }).pipe(
   *   Stream.filter(({ result }) => Result.isFailure(result)),
   *   Stream.runForEach(({ message }) => Effect.logWarning("not published", message.content))
   * )
   * ```
   *
   * @category publishing
   * @since 0.1.0
   */
  <E = never, R = never>(
    messages: Iterable<Message> | Stream.Stream<Message, E, R>,
    options: PublishAllOptions & { readonly failures: "values" }
  ): Stream.Stream<Outcome, E | AmqpError, R | AmqpPublisher>
  /**
   * Publishes all messages in order and emits a `Confirmed` for each, up to the first failure.
   *
   * **When to use**
   *
   * Use when the messages are only useful together, or when a failure is to stop the source.
   *
   * **Details**
   *
   * All messages go through one channel, so a queue has them in the order of the source; at most `maxInFlight` are in
   * flight. A message is taken from its source only when the one before it was sent, so the memory is bounded; an
   * iterable may be endless. `timeout` applies to each message. The stream fails with the error of the first message
   * that fails, in order, as `publish` does, or with the error of its source.
   *
   * **Gotchas**
   *
   * Nothing is sent after a failure is known, but messages that are in flight at that time may arrive. If the consumer
   * of this stream ends early, messages in flight may still arrive too.
   *
   * **Example** (Publishing a stream)
   *
   * ```ts
   * import { Stream } from "effect"
   * import { AmqpPublisher } from "@effect-amqp/core"
   *
   * const messages = Stream.map(Stream.range(1, 1_000_000), (n) => ({ routingKey: "numbers", content: String(n) }))
   *
   * const all = Stream.runDrain(AmqpPublisher.publishAll(messages))
   * ```
   *
   * @category publishing
   * @since 0.1.0
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
    Effect.map(AmqpPublisher, (service): Stream.Stream<never, E | AmqpError, R> => {
      const settings = readPublishAll(options)
      if (isInvalidArgument(settings)) return Stream.fail(fromReason(settings))
      const refused = checkMessages(messages)
      if (refused !== undefined) return Stream.fail(fromReason(refused))
      const publisher = internal.ownPublisherOf(service)
      // A service that was made by hand, or whose `publish` was replaced, can only publish messages one by one.
      return (
        publisher === undefined
          ? oneByOne(service, messages, settings.failures, options)
          : publishSequence(publisher, messages, settings, settings.failures)
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
 * Publishes every message of a stream that is run into it, as `publishAll` does.
 *
 * **When to use**
 *
 * Use as the end of a stream of messages.
 *
 * **Details**
 *
 * Its result is the number of messages, all of which are confirmed. Fails with the first failure.
 *
 * **Example** (Running a stream into the broker)
 *
 * ```ts
 * import { Stream } from "effect"
 * import { AmqpPublisher } from "@effect-amqp/core"
 *
 * const program = Stream.make({ routingKey: "orders", content: "one order" }).pipe(Stream.run(AmqpPublisher.sink))
 * ```
 *
 * @see {@link sinkWith} for options
 *
 * @category publishing
 * @since 0.1.0
 */
export const sink: Sink.Sink<number, Message, never, AmqpError, AmqpPublisher> = /* @__PURE__ */ Sink.suspend(() =>
  sinkWith()
)

/**
 * Publishes every message of a stream that is run into it, with options that apply to each message.
 *
 * **When to use**
 *
 * Use instead of `sink` when the messages need options, such as `mandatory` or a `timeout`.
 *
 * **Details**
 *
 * Its result is the number of messages, all of which are confirmed. Fails with the first failure, and with
 * `InvalidArgument` for wrong options.
 *
 * **Example** (Requiring a queue for every message)
 *
 * ```ts
 * import { Stream } from "effect"
 * import { AmqpPublisher } from "@effect-amqp/core"
 *
 * const program = Stream.make({ routingKey: "orders", content: "one order" }).pipe(
 *   Stream.run(AmqpPublisher.sinkWith({ mandatory: true }))
 * )
 * ```
 *
 * @see {@link sink} for the default options
 *
 * @category publishing
 * @since 0.1.0
 */
export const sinkWith = (options?: PublishOptions): Sink.Sink<number, Message, never, AmqpError, AmqpPublisher> =>
  Sink.make<Message>()((messages) => {
    // These options exclude `failures`: with "values", failed messages would be counted as confirmed.
    const settings = readPublish(options)
    return isInvalidArgument(settings)
      ? Effect.fail(fromReason(settings))
      : Stream.runCount(publishAll(messages, options))
  })

/**
 * Makes a publisher on the connection in context.
 *
 * **When to use**
 *
 * Use for a publisher in addition to the usual one, for instance for a queue that confirms slowly.
 *
 * **Details**
 *
 * The publisher has channels of its own. They are opened when they are needed, and reopened after they or the
 * connection have ended. Fails with `InvalidArgument` for wrong options.
 *
 * When its scope closes, messages in the backlog and new ones fail with `PoolClosed`. The publisher waits up to
 * `shutdownTimeout` for the confirms of messages in flight (the rest fail with `PublishUnknown`), and closes its
 * channels, each within `closeTimeout`.
 *
 * **Example** (A second publisher)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpPublisher } from "@effect-amqp/core"
 *
 * const program = Effect.scoped(
 *   Effect.gen(function* () {
 *     const audit = yield* AmqpPublisher.make({ channels: 1, maxInFlight: 100 })
 *     yield* audit.publish({ routingKey: "audit", content: "one entry" })
 *   })
 * )
 * ```
 *
 * @see {@link layerWith} for the publisher as a layer
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options?: Options
): Effect.Effect<AmqpPublisher["Service"], AmqpError, AmqpConnection | Scope.Scope> =>
  Effect.flatMap(AmqpConnection, (connection) => internal.make(connection, options))

/**
 * A publisher with the default settings, as a layer.
 *
 * **When to use**
 *
 * Use to put the services together yourself. `Amqp.layer` provides a publisher together with everything else.
 *
 * @see {@link layerWith} for other settings
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<AmqpPublisher, AmqpError, AmqpConnection> = Layer.effect(AmqpPublisher, make())

/**
 * A publisher with these settings, as a layer.
 *
 * **When to use**
 *
 * Use instead of `layer` when the default settings do not fit.
 *
 * **Details**
 *
 * Building the layer fails with `InvalidArgument` for wrong options.
 *
 * **Example** (A smaller window)
 *
 * ```ts
 * import { AmqpPublisher } from "@effect-amqp/core"
 *
 * const Publisher = AmqpPublisher.layerWith({ maxInFlight: 100, maxWaitingBytes: 1024 * 1024 })
 * ```
 *
 * @see {@link layer} for the default settings
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: Options): Layer.Layer<AmqpPublisher, AmqpError, AmqpConnection> =>
  Layer.effect(AmqpPublisher, make(options))
