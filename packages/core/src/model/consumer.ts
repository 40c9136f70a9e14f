/** Consumers: their deliveries, their options, and the service. */
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as AmqpChannel from "./channel.ts"
import type { AmqpConnection } from "./connection.ts"
import type { InsideId } from "./inside.ts"
import type { AmqpError } from "./error.ts"
import type { DeliveredProperties } from "./message.ts"
import type { AmqpPublisher } from "./publisher.ts"
import type { FinalPolicy, Policy } from "./policies.ts"
import type { StreamPolicy } from "./streamPolicies.ts"
import type { OffsetStore } from "./offsetStore.ts"

/**
 * A message that a consumer got, with the operations that settle it.
 *
 * **When to use**
 *
 * Use as the argument of handlers, and as the element of the stream that `AmqpConsumer.stream` returns.
 *
 * **Details**
 *
 * A delivery is settled at most once, and only on the channel that delivered it: it knows that channel, and exposes no
 * delivery tag that could be used elsewhere. It can be settled from any fiber, at any time, without waiting.
 *
 * **Gotchas**
 *
 * A late `ack` fails with `DeliverySettled` and sends nothing: the delivery was settled before, or its channel has
 * ended. In the latter case the broker has requeued the message and delivers it again.
 *
 * @category models
 * @since 0.1.0
 */
export interface Delivery {
  /** The body. It is a view into what the socket has read, and keeps all of that in memory: see `AmqpMessage.bytes`. */
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
  /** The exchange that routed the message to the queue: after a `retry` the default exchange. See `origin`. */
  readonly exchange: string
  /** The routing key that the message was routed by: after a `retry` the queue's name. See `origin`. */
  readonly routingKey: string
  /**
   * Where the message was published first, if it comes from a `retry`; otherwise `undefined`.
   *
   * **Unverified**: it is read from the headers of the message, which every client that may publish to the queue can
   * write. Never let it decide what a message may do, unless `retrySecret` is set.
   */
  readonly origin: Origin | undefined
  /** Whether the broker has delivered this message before, to any consumer. */
  readonly redelivered: boolean
  /**
   * Number of this attempt to handle the message, as far as is known: 1 for the first.
   *
   * It counts attempts that have failed, not deliveries. A delivery that was lost with its connection while it waited
   * in a prefetch does not count, and neither does a handler that was interrupted by the end of its consumer. So it
   * counts the same on every version of RabbitMQ and for every type of queue: it uses neither the broker's counts nor
   * `redelivered`. (`x-delivery-count` of a quorum queue counts every return up to 4.2, also of deliveries that no
   * handler has seen. Since 4.3 it counts what was rejected, and what a closed channel or a lost connection has
   * returned, seen or not, but no `basic.nack`; `x-acquired-count` counts each delivery.) These attempts are known:
   *
   * - failures in this application whose message was returned to the queue (`redeliver`, `requeue`, `nack`, `reject`):
   *   the last 10,000;
   * - with `maxDeliveries`, the attempts of other processes too: see there;
   * - attempts before a `retry`, from its headers: unverified, unless `retrySecret` is set;
   * - what consumers of this queue have rejected, if a dead-letter exchange has brought it back by way of another queue
   *   (`x-death`).
   *
   * A message that another client has published again, for instance a dead letter that was moved back, starts again at
   * 1. A delivery of a stream is always attempt 1.
   */
  readonly attempt: number
  /** Position of the message in its stream; `undefined` for other queues. */
  readonly offset: number | undefined
  /**
   * Whether there is nothing left to settle: the delivery was settled, or its channel has ended. A delivery of a stream
   * stays unsettled when its channel ends, and can be acknowledged after that.
   */
  readonly isSettled: boolean
  /**
   * `basic.ack`: the message was handled. The position of a stream moves only when all messages before this one are
   * handled, too. It fails with `DeliverySettled` if there is nothing left to settle.
   */
  readonly ack: Effect.Effect<void, AmqpError>
  /**
   * `basic.nack`: returns the message to the queue at once, or, with `requeue: false`, dead-letters or drops it.
   * Default of `requeue`: `true`.
   *
   * Since RabbitMQ 4.3 such a return does not count towards the delivery limit of a quorum queue: without
   * `maxDeliveries` a message that always fails comes back forever. It fails with `DeliverySettled` if there is nothing
   * left to settle, and with `InvalidArgument` for a stream, to which nothing can be returned.
   */
  nack(options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError>
  /**
   * `basic.reject`: does the same, but a return counts towards the delivery limit of a quorum queue on every version of
   * RabbitMQ. Beyond the limit the broker removes the message from the queue: it moves it to the queue's dead-letter
   * exchange, or drops it if the queue has none. Default of `requeue`: `true`.
   */
  reject(options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError>
}

/**
 * The exchange and the routing key that a message was first published with.
 *
 * **When to use**
 *
 * Use to read `origin` of a delivery.
 *
 * **Gotchas**
 *
 * It is unverified unless `retrySecret` is set.
 *
 * @see {@link Delivery}
 *
 * @category models
 * @since 0.1.0
 */
export interface Origin {
  readonly exchange: string
  readonly routingKey: string
}

/**
 * How a consumer has ended.
 *
 * **When to use**
 *
 * Use in `onEnd` of a consumer.
 *
 * @see {@link SubscribeOptions}
 *
 * @category models
 * @since 0.1.0
 */
export interface End {
  /** The queue that was consumed. */
  readonly queue: string
  /**
   * The error that it failed with; `undefined` if it was interrupted, or if the consumer of the stream took no more.
   */
  readonly reason: AmqpError | undefined
  /** Number of deliveries that the broker had sent ahead and no handler has seen: they are back in the queue. */
  readonly requeued: number
  /**
   * Number of deliveries that were handed out and not settled: they are back in the queue too, and are delivered again.
   * After the loss of a channel their number is not known: 0.
   */
  readonly unsettled: number
}

/**
 * The status of a consumer or RPC server at one moment.
 *
 * **When to use**
 *
 * Use to show or log what `AmqpConsumer.statuses` returns.
 *
 * **Details**
 *
 * The states are:
 *
 * - `Starting`: it has not subscribed yet.
 * - `Running`: it is subscribed.
 * - `WaitingForQueue`: its queue does not exist. It subscribes as soon as the queue exists (`resubscribe: "always"`, or
 *   a topology layer of this application declares the queue).
 * - `Reconnecting`: it has lost its subscription, and subscribes again.
 * - `Ended`: it does not subscribe again. See `lastEnd`.
 *
 * Errors are given by their tags, never by their messages. A consumer of the same name that starts after an ended one
 * replaces its status and continues its counts.
 *
 * @see {@link SubscribeOptions} for `name` and `requiredForReadiness`
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  /** The consumer's name. Default: its queue. Several consumers may have the same one. */
  readonly name: string
  readonly queue: string
  /** Whether the application is ready only while it runs. */
  readonly requiredForReadiness: boolean
  readonly state: "Starting" | "Running" | "WaitingForQueue" | "Reconnecting" | "Ended"
  /** When the state began, in milliseconds of Unix time. */
  readonly since: number
  /** Number of deliveries that were handed out. */
  readonly delivered: number
  /** Number of deliveries that wait in memory (`prefetch`). */
  readonly buffered: number
  /** Number of deliveries that were handed out and are not settled. */
  readonly inFlight: number
  /**
   * Failures of handlers and of decoding, by the tag of the error or of the reason of an `AmqpError`. At most ten tags
   * are counted one by one, the others as `_OTHER`. A failed batch counts once.
   */
  readonly failures: Readonly<Record<string, number>>
  /**
   * Dead letters that this consumer has made, by the tag of the failure, with the times of the first and the last one in
   * milliseconds of Unix time. Bounded as `failures` are.
   */
  readonly deadLetters: Readonly<
    Record<string, { readonly count: number; readonly firstAt: number; readonly lastAt: number }>
  >
  /** The last failure of a handler or of a subscription, in milliseconds of Unix time. */
  readonly lastError: { readonly tag: string; readonly at: number } | undefined
  /**
   * How it has ended last: unexpectedly (`failed`), or as the application has asked (`stopped`). It stays when a
   * consumer of the same name starts. `tag` is the reason, if there is one.
   */
  readonly lastEnd:
    | { readonly how: "failed" | "stopped"; readonly tag: string | undefined; readonly at: number }
    | undefined
}

/**
 * Where to begin reading a stream.
 *
 * **When to use**
 *
 * Use with the option `offset`, to consume a stream from another position than `"next"`.
 *
 * **Details**
 *
 * - `"first"`: the oldest message in the stream;
 * - `"last"`: the last chunk, which has one message or many;
 * - `"next"`: what is published from now on;
 * - a number or bigint from 0: the message with that offset;
 * - a `Date` or `DateTime`: what was published from that time on, in whole seconds;
 * - `ago`: what was published since that long ago, 1 s to 50 years, by the clock of RabbitMQ, and with LavinMQ by the
 *   clock of this machine.
 *
 * **Gotchas**
 *
 * For a time, the broker begins with the chunk that contains it, so earlier messages may come first.
 *
 * @see {@link SubscribeOptions}
 *
 * @category models
 * @since 0.1.0
 */
export type StreamOffset =
  | "first"
  | "last"
  | "next"
  | number
  | bigint
  | Date
  | DateTime.DateTime
  | { readonly ago: Duration.Input }

/**
 * Options of how the position of a stream's consumer is saved.
 *
 * **When to use**
 *
 * Use with the option `offsets`, to continue where the consumer was after a restart.
 *
 * @see {@link SubscribeOptions}
 *
 * @category models
 * @since 0.1.0
 */
export interface SavedOffsets {
  /** The store: see `AmqpOffsetStore`. */
  readonly store: OffsetStore
  /**
   * The name that the position is saved under: the same at each start, and not used by another consumer. 1 to 255
   * characters.
   */
  readonly name: string
  /** The position is saved when this many messages were handled since the last save. 1 to 1,000,000. Default: 1000. */
  readonly saveEvery?: number | undefined
  /**
   * The position is saved this long after the first message that was handled since the last save, if `saveEvery` is not
   * reached earlier. 10 ms to 1 hour. Default: 1 second.
   */
  readonly saveWithin?: Duration.Input | undefined
}

/**
 * Options of a subscription to a queue, for every way to consume.
 *
 * **When to use**
 *
 * Use with `AmqpConsumer.consume`, `consumeBatch` and `stream`, to set the prefetch, what happens after a loss, and the
 * position in a stream.
 *
 * @see {@link ConsumeOptions} for the options of handlers
 * @see {@link StreamOptions} for the options of `AmqpConsumer.stream`
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscribeOptions extends Omit<AmqpChannel.ConsumeOptions, "consumerTag" | "noAck"> {
  /** The consumer's name on its channel, which the broker's tools show. Default: a random one. */
  readonly consumerTag?: string | undefined
  /**
   * The consumer's name in health checks. Default: its queue, and its `consumerTag` if one was given. A consumer that
   * was started again is recognized by this name.
   */
  readonly name?: string | undefined
  /**
   * Whether the application is ready only while this consumer runs (`AmqpConnection.conditions`, `AmqpHealth`).
   * Default: `true`.
   *
   * Set `false` for consumers that come and go with something else, such as one per client of a server, where the
   * client learns of the consumer's end: these consumers report nothing.
   */
  readonly requiredForReadiness?: boolean | undefined
  /**
   * Maximum number of unsettled deliveries that the broker sends ahead (`basic.qos`), which is also the maximum in
   * memory. 1 to 65535. Default: 250, or the number of deliveries that are handled at a time, if that is higher. Lower
   * values distribute the work more evenly among consumers; 1 costs a round trip per delivery.
   *
   * The last delivery of a prefetch waits for `prefetch` times the duration of a handler, divided by `concurrency`.
   * Choose a prefetch with which that is well below a third of the consumer timeout: with handlers of 10 seconds, a
   * concurrency of 1 and the default timeout of 30 minutes, at most 60. A warning is logged, once, when deliveries have
   * waited for a third of the timeout.
   */
  readonly prefetch?: number | undefined
  /**
   * How long a delivery of this consumer may stay unsettled before the broker takes it back. Whole milliseconds, at
   * least 1, at most 24.8 days. Default: the timeout that the queue was declared with here
   * (`QueueDeclareOptions.consumerTimeout`), otherwise 30 minutes.
   *
   * RabbitMQ 4.3 accepts it from consumers of quorum queues, as the argument `x-consumer-timeout`, which then applies
   * instead of the queue's. It is sent if this application has declared the queue as a quorum queue, or if `queueType`
   * says that it is one. Otherwise it sets nothing on the broker, which an Info line per consumer says with the reason,
   * and states the timeout that applies there (`consumer_timeout`, a policy). In both cases pauses end before it, and
   * the warning of `prefetch` is derived from it.
   *
   * A delivery that is not settled in time is delivered again, and its late `ack` fails with `DeliverySettled`.
   * RabbitMQ 4.3 then cancels the consumer, which continues as `resubscribe` says; its other deliveries can still be
   * settled. Up to 4.2 the broker closes the channel, and all unsettled deliveries of the consumer are delivered again.
   */
  readonly consumerTimeout?: Duration.Input | undefined
  /**
   * Declares what is consumed, on the consumer's own channel and before each subscription. Use it for an exclusive
   * queue, which belongs to one connection and is deleted with it, and for an auto-delete queue. Declare other queues
   * with `AmqpTopology`. The channel is for declaring and binding only. Default: nothing is declared.
   */
  readonly declare?: ((channel: AmqpChannel.AmqpChannel) => Effect.Effect<void, AmqpError>) | undefined
  /**
   * What happens when deliveries stop.
   *
   * | what happens                                         | `"never"` | `"lost"`                                        | `"always"`       |
   * | ---------------------------------------------------- | --------- | ----------------------------------------------- | ---------------- |
   * | the connection or the channel is lost                | ends      | subscribes again                                | subscribes again |
   * | the broker cancels, and the queue exists             | ends      | subscribes again                                | subscribes again |
   * | the queue's node is down, or its process crashed     | ends      | waits for it                                    | waits for it     |
   * | the queue is gone, and this application declares it  | ends      | subscribes again when it is declared again      | the same         |
   * | the queue is gone, and nothing here declares it      | ends      | ends: `ConsumerCancelled` or `NotFound`         | waits for it     |
   * | the queue does not exist at the first start          | ends      | ends with `NotFound`, unless a layer declares it | waits for it     |
   * | there is no connection at the first start            | ends      | waits for it                                    | waits for it     |
   *
   * This application declares a queue by an `AmqpTopology.layer` on the same connection, which declares it again at
   * once when its consumer is cancelled, or by the consumer's own `declare`. A broker cancels for a deleted queue, for
   * a node that has stopped and, from RabbitMQ 4.3 on, for a delivery that was not settled in time (`consumerTimeout`).
   *
   * The consumer tries again after a random delay below `reconnect.minDelay`, which doubles with each attempt up to
   * `maxDelay`, and logs a warning each time. It recovers from a lost connection whatever the broker has closed it for.
   * If a method of this consumer may have been the reason (a quorum queue without a leader: 541), it subscribes again
   * on a connection of its own, which is closed with each attempt; after such a connection has lasted for
   * `reconnect.healthyAfter`, the next subscription uses the shared connection again.
   *
   * Some reasons end it in any case, because waiting does not change them: missing permission; a connection that is
   * closed for good; a first subscription for which the broker has closed the connection with a refusal (502, 503, 530,
   * 540: an unknown exchange type in `declare`, for instance); a message that is larger than
   * `maxInboundMessageBodySize` of the configuration (`MessageTooLarge`; it stays in the queue).
   *
   * Default: `"lost"`; for `stream` `"never"`, because a program that holds deliveries of a lost channel needs to know.
   */
  readonly resubscribe?: "never" | "lost" | "always" | undefined
  /**
   * The type of the queue, for a queue that this application has not declared. A consumer must know that a queue is a
   * stream: from its declaration by this application, from `offset`, `offsets` or the argument `x-stream-offset`, or
   * from `queueType: "stream"`. Otherwise the first message that is not handled closes the connection on RabbitMQ up to
   * 3.12.6. See `consume` for how streams are consumed.
   */
  readonly queueType?: "classic" | "quorum" | "stream" | undefined
  /** Where to begin reading a stream, if no position is saved. Default: `"next"`. */
  readonly offset?: StreamOffset | undefined
  /**
   * Saves the position in a stream, so that the consumer continues there after a restart. Default: the position is in
   * memory, and lasts until the consumer ends.
   */
  readonly offsets?: SavedOffsets | undefined
  /**
   * Secret that signs what `retry` writes into headers (the count and the origin), by HMAC-SHA-256 over the queue, the
   * count, the origin, the content and the properties that a retry keeps. With it, only signed headers are believed.
   * Without it, every client that may publish to the queue can make up `Delivery.origin`, and a count that ends the
   * retries of its own message early. With it, counts in the broker's `x-death` are not believed either.
   *
   * At least 16 random bytes, the same for all consumers of the queue. Of several secrets the first one signs and all
   * are believed. To replace a secret, add the new one last everywhere, then move it to the front, then remove the old
   * one. Messages that wait for a retry when a secret is first set start again at attempt 1.
   *
   * The first secret also signs the headers of dead letters (`deadLettering`, and `publishTo` of a stream).
   *
   * Default: none; headers are believed if the newest entry of `x-death` names a delay queue of this queue. A stream's
   * messages are not retried, so there it signs dead letters only.
   */
  readonly retrySecret?: Redacted.Redacted<string> | ReadonlyArray<Redacted.Redacted<string>> | undefined
  /**
   * Runs when the consumer has ended, for any reason. It may take what is left of `shutdownTimeout`, or `closeTimeout`
   * when nothing is left. Then it is interrupted, and a warning is logged. Default: nothing runs.
   */
  readonly onEnd?: ((end: End) => Effect.Effect<void>) | undefined
}

/**
 * How a consumer dead-letters a message when one of its policies says so.
 *
 * **When to use**
 *
 * Use with the option `deadLettering`.
 *
 * **Details**
 *
 * - `"publish"`: the consumer publishes the message to the queue's dead-letter exchange, confirmed and mandatory, with
 *   the reason in the headers `x-failed-*`, and acknowledges the delivery after the confirm. The exchange and the routing
 *   key are those that this application has declared the queue with. The copy also has the `x-death` that the broker
 *   would have written. If the process, the connection or the broker fails in between, the message is dead-lettered
 *   twice at most, or handled again; it is never lost. That is more than the broker promises for a rejected message of a
 *   classic queue, and of a quorum queue without `deadLetterStrategy: "at-least-once"`.
 * - `{ exchange, routingKey }`: the same with this exchange, for a queue whose dead-letter exchange comes from a policy of
 *   the broker, or that another application declares. Without `routingKey` the message keeps its own.
 * - `"reject"`: the consumer rejects the message (`basic.nack`), and the broker moves it, without a reason.
 *
 * It costs a confirmed publish per dead letter, during which the worker waits: a round trip to the broker's disk. A
 * message that is handled costs nothing more. It requires the permission to write to the dead-letter exchange.
 *
 * If a message cannot be published with a reason, it is rejected as with `"reject"`: if the dead-letter exchange is not
 * known here or refuses the message, if the message reaches no queue, if the broker blocks publishers or does not
 * confirm in time. A log line says so, the first times. Where headers leave too little room in a frame, the error's
 * message is left out first, then everything but queue, exchange, routing key and attempt.
 *
 * The format of the headers is described in docs/when-a-message-fails.md. With `retrySecret` they are signed.
 *
 * **Gotchas**
 *
 * What a handler rejects itself (`Delivery.reject`, `Delivery.nack`), and what the broker removes at a delivery limit,
 * has no reason.
 *
 * @see {@link ConsumeOptions}
 *
 * @category models
 * @since 0.1.0
 */
export type DeadLettering =
  | "publish"
  | "reject"
  | { readonly exchange: string; readonly routingKey?: string | undefined }

/**
 * Options of `consume` and `consumeBatch`, for a handler that fails with `E`.
 *
 * **When to use**
 *
 * Use to set the concurrency, and what happens to deliveries that are not handled.
 *
 * @see {@link DecodeOptions} for decoding before handling
 * @see {@link BatchOptions} for batches
 *
 * @category models
 * @since 0.1.0
 */
export interface ConsumeOptions<E = unknown> extends SubscribeOptions {
  /**
   * Maximum number of deliveries, or of batches, that are handled at a time. With 1 they are handled in the order of
   * arrival. Default: 1.
   */
  readonly concurrency?: number | undefined
  /**
   * What happens to a delivery whose handler has failed: a policy, or a function that chooses one by the error. For a
   * handler that throws see `onDefect`. Default: `redeliver`, it is delivered again after a pause, as often as it takes;
   * for a stream `stop`.
   */
  readonly onFailure?: Policy | StreamPolicy | ((error: E, delivery: Delivery) => Policy | StreamPolicy) | undefined
  /**
   * What happens to a delivery whose handler has died of a defect, which is logged as an error: a policy, or a function
   * that chooses one by the defect. Default: `redeliver`; for a stream `stop`.
   */
  readonly onDefect?:
    | Policy
    | StreamPolicy
    | ((defect: unknown, delivery: Delivery) => Policy | StreamPolicy)
    | undefined
  /**
   * How many attempts to handle a message may begin without success; at the next delivery it is given up (`onPoison`).
   * At least 1. Default: no limit, it comes back forever.
   *
   * It is compared with `Delivery.attempt`. To include other processes, and messages that kill their process, a
   * redelivered message is counted in a queue of its own before it is handled: a classic queue
   * `<queue>.attempts.<hash>`, which holds a record per attempt. It exists while the message is being handled or waits
   * for its next attempt, and the broker deletes it after a day without use. That takes a declaration and a confirmed
   * publish per redelivered message: some milliseconds, and the permissions to configure and write such queues. A first
   * delivery costs nothing. See `sharedCount`.
   *
   * The first attempt is not recorded, and counts only if its process survives. So a message that kills each process is
   * handled once more than this number. 1,000 redelivered messages are recorded at a time and 10 per second after that;
   * others are counted in their process only.
   */
  readonly maxDeliveries?: number | undefined
  /**
   * Whether `maxDeliveries` also counts attempts of other processes, and survives the end of this process. With `false`
   * nothing is declared, and a message that kills its process comes back forever.
   *
   * Attempts are counted in this process only for queues that are known to be exclusive or auto-delete, and for all
   * queues for a while after a record was refused (with 403, for instance) or was not accepted within 5 seconds, which
   * is logged as a warning. Default: `true`.
   */
  readonly sharedCount?: boolean | undefined
  /** What happens to a message that is given up because of `maxDeliveries`. Default: `deadLetter`. */
  readonly onPoison?: FinalPolicy | undefined
  /**
   * How a policy dead-letters a message: with its reason in headers, or by the broker. See `DeadLettering`. Default:
   * `"publish"`.
   */
  readonly deadLettering?: DeadLettering | undefined
  /**
   * The delivery limit of the queue, if a policy of the broker sets one, or if another application has declared the
   * queue: how often a message may come back before the broker removes it. -1 means no limit. `redeliver` retains a
   * message that has come back often enough, so that it is not lost.
   *
   * From RabbitMQ 4.3 on what is redelivered does not count, and what `requeue` or `Delivery.reject` returns does.
   * Default: the limit that the queue was declared with here, otherwise 20 for a quorum queue of RabbitMQ 4. It is
   * refused for a stream, as are all options that count attempts.
   */
  readonly deliveryLimit?: number | undefined
  /**
   * How long running handlers may continue when the consumer ends; then they are interrupted, and their deliveries are
   * requeued. From 0. Default: what is left of the `shutdownTimeout` of the configuration, which consumers that stop
   * together or shortly after one another share with the rest of the application. A value that is given here counts
   * from the same moment.
   */
  readonly shutdownTimeout?: Duration.Input | undefined
}

/**
 * Options of `consume` and `consumeBatch` for decoding the content before it is handled.
 *
 * **When to use**
 *
 * Use for handlers that take values of a schema instead of bytes.
 *
 * @see {@link ConsumeOptions}
 *
 * @category models
 * @since 0.1.0
 */
export interface DecodeOptions<S extends Schema.Constraint> {
  /**
   * The schema of the JSON in the content. See `AmqpMessage.json` for which content types and encodings are decoded.
   * Default: none, and the handler gets the delivery itself. It is never `undefined`, because the type of the handler
   * depends on whether it is given.
   */
  readonly schema?: S
  /**
   * What happens to a message whose content does not match the schema (`DecodeFailed`): a policy, or a function that
   * chooses one by the error. Only with `schema`. Such a message never stops the consumer of a queue. Default:
   * `redeliver`; for a stream `stop`. Where publishers can send anything, choose `deadLetter` with a dead-letter
   * exchange.
   */
  readonly onDecodeFailure?:
    | ([S] extends [never]
        ? never
        : Policy | StreamPolicy | ((error: AmqpError, delivery: Delivery) => Policy | StreamPolicy))
    | undefined
}

/**
 * The consumer that an inbox is made for.
 *
 * **When to use**
 *
 * Use as the type of the parameter of `make` of an `Inbox`.
 *
 * @see {@link Inbox}
 *
 * @category models
 * @since 0.1.0
 */
export interface InboxConsumer {
  /** The queue that is consumed. */
  readonly queue: string
  /**
   * The consumer's option `name`, by default its queue. It never contains a consumer tag: it is the same after a restart
   * and in every process, so that a message is recognized wherever it is delivered again.
   */
  readonly name: string
  /** Maximum number of deliveries that are handled at a time. */
  readonly concurrency: number
}

/**
 * Runs the handler of a delivery, or does not.
 *
 * **When to use**
 *
 * Use as the type of what `make` of an `Inbox` returns.
 *
 * **Details**
 *
 * - If it succeeds, the delivery is acknowledged, whether `handler` has run or not.
 * - If it fails, `onFailure` decides; if it dies, `onDefect`. An error of `handler` may be passed on or handled.
 * - If it is interrupted, the delivery returns to the queue.
 *
 * It is called once per attempt, and only for deliveries that were decoded and were not delivered too often. It runs in
 * the span of the delivery and in a scope of its own, which is closed before the delivery is settled. `handler` may run
 * several times, as for a transaction that is retried; each run has a scope of its own too.
 *
 * @see {@link Inbox}
 *
 * @category models
 * @since 0.1.0
 */
export type InboxHandler<out E = never, out R = never> = <A, E1, R1>(
  delivery: Delivery,
  handler: Effect.Effect<A, E1, R1>
) => Effect.Effect<void, E | E1, R | R1>

/**
 * Decides how the handler of a consumer runs for each delivery, for example in a transaction that also records the
 * message as handled.
 *
 * **When to use**
 *
 * Use with the option `inbox` of `consume` and `layerConsume`.
 *
 * **Example** (Skipping messages that this process has handled)
 *
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const inMemory: AmqpConsumer.Inbox = {
 *   make: () =>
 *     Effect.sync(() => {
 *       const handled = new Set<string>()
 *       return ({ properties: { messageId = "" } }, handler) =>
 *         Effect.suspend(() =>
 *           handled.has(messageId) ? Effect.void : Effect.andThen(handler, Effect.sync(() => handled.add(messageId)))
 *         )
 *     })
 * }
 *
 * const payments = AmqpConsumer.consume("payments", () => Effect.log("charged"), { inbox: inMemory })
 * ```
 *
 * @see {@link InboxHandler} for how deliveries are settled
 *
 * @category models
 * @since 0.1.0
 */
export interface Inbox<out E = never, out R = never> {
  /**
   * Makes the inbox of one consumer. It is called once per consumer, before it subscribes, and its scope closes after
   * the consumer's last handler has ended. If it fails, the consumer ends with that error, which is logged.
   */
  readonly make: (consumer: InboxConsumer) => Effect.Effect<InboxHandler<E, R>, AmqpError, R | Scope.Scope>
}

/**
 * The option of `consume` and `layerConsume` for an inbox that fails with `E` and requires `R`.
 *
 * **When to use**
 *
 * Use to run handlers inside of something that every delivery needs, such as a transaction.
 *
 * @see {@link Inbox}
 *
 * @category models
 * @since 0.1.0
 */
export interface InboxOptions<E = never, R = never> {
  /**
   * Decides how the handler runs for each delivery: see `Inbox`. `onFailure` also gets its errors, and the consumer
   * requires its services. Batches and `stream` have no inbox. Default: none, the handler runs for each delivery.
   */
  readonly inbox?: Inbox<E, R> | undefined
}

/**
 * What the handler of a consumer gets: the value that the schema decodes, or without a schema the delivery.
 *
 * **When to use**
 *
 * Use to annotate a function that wraps `consume`.
 *
 * @category utility types
 * @since 0.1.0
 */
export type HandlerInput<S extends Schema.Constraint> = [S] extends [never] ? Delivery : S["Type"]

/**
 * Options of `consumeBatch`: when a batch is complete.
 *
 * **When to use**
 *
 * Use with `consumeBatch`. A batch is complete when it has `size` deliveries, or when its first delivery has waited for
 * `within`, whichever comes first.
 *
 * @see {@link ConsumeOptions}
 *
 * @category models
 * @since 0.1.0
 */
export interface BatchOptions {
  /** Maximum number of deliveries in a batch. 1 to 65535; multiplied by `concurrency`, at most 65535. */
  readonly size: number
  /** How long the first delivery of a batch waits for the others. At least 1 ms. */
  readonly within: Duration.Input
}

/**
 * Options of `AmqpConsumer.stream`.
 *
 * **When to use**
 *
 * Use to fail when no delivery arrives for some time, and to set the options of the subscription.
 *
 * @see {@link SubscribeOptions}
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamOptions extends SubscribeOptions {
  /**
   * The stream fails with `InactivityTimeout` when a pull has waited this long for a delivery. At least 1 ms. To end
   * without an error, use `Stream.timeout` instead. Default: none, it waits forever.
   */
  readonly inactivityTimeout?: Duration.Input | undefined
}

/**
 * The services that `consume` and `consumeBatch` require: `AmqpConsumer`, and those of the handler except a scope.
 *
 * **When to use**
 *
 * Use to annotate a function that returns a consumer.
 *
 * **Details**
 *
 * Each call of the handler has a scope of its own.
 *
 * @category utility types
 * @since 0.1.0
 */
export type Services<R> = Exclude<R, Scope.Scope> | AmqpConsumer

/**
 * The service that consumers share.
 *
 * **When to use**
 *
 * Use as a requirement of programs that consume. `AmqpConsumer.layer` provides it.
 *
 * @category services
 * @since 0.1.0
 */
export class AmqpConsumer extends Context.Service<
  AmqpConsumer,
  {
    /**
     * The consumers' own connection, which stays open until the scope closes: for a channel of your own, or to observe
     * its state. The first use opens the connection, in the background (`lazyConnect`): its state says when it is open.
     */
    readonly connection: Effect.Effect<AmqpConnection["Service"], AmqpError, Scope.Scope>
    /** The publisher of the messages that are retried later. */
    readonly publisher: AmqpPublisher["Service"]
    /** The internal part of the service. A copy of the service keeps it; a service that is written by hand has none. */
    readonly [InsideId]?: object | undefined
  }
>()("@effect-amqp/core/AmqpConsumer") {}
