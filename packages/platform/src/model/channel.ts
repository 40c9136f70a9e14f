/**
 * The channel that a scope borrows: its operations, their options and their results.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type { AmqpError } from "./error.ts"
import type { Delivery, Headers, Message, Properties } from "./message.ts"

/**
 * Options of one `publish`: how long it waits, and what happens to a message that reaches no queue.
 *
 * **When to use**
 *
 * Use to return unroutable messages, or to change the timeout or the behavior of one publish while the broker has
 * blocked publishers.
 *
 * @see {@link ConfirmChannel} for a `publish` that fails with `PublishReturned`
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishOptions {
  /**
   * What `publish` does while the broker has blocked publishers (`connection.blocked`, `channel.flow`), or while an
   * `AmqpPublisher` has no connection: it waits, up to `timeout`, or fails at once with `PublishForbidden`. Default:
   * `"wait"`.
   */
  readonly onBlocked?: "wait" | "fail" | undefined
  /**
   * Whether the broker returns the message if it reaches no queue. On a confirm channel `publish` then fails with
   * `PublishReturned`; on the other channels the message arrives in `returns`. Default: `false`, the broker drops it.
   */
  readonly mandatory?: boolean | undefined
  /**
   * Maximum duration of this publish, including its confirm. At least 1 ms. Default: `publishTimeout` of the
   * configuration.
   */
  readonly timeout?: Duration.DurationInput | undefined
}

/**
 * The broker's `basic.ack` for a published message: the broker has taken responsibility for it.
 *
 * **When to use**
 *
 * Use as the type of what `publish` of a confirm channel succeeds with.
 *
 * @see {@link ConfirmChannel}
 *
 * @category models
 * @since 0.1.0
 */
export interface Confirmed {
  readonly _tag: "Confirmed"
}

/**
 * A mandatory message that reached no queue, as the broker returned it (`basic.return`).
 *
 * **When to use**
 *
 * Use to read what `returns` of a regular channel or a transaction channel delivers.
 *
 * **Details**
 *
 * A confirm channel has no `returns`: its `publish` fails with `PublishReturned`.
 *
 * @see {@link PublishOptions} for `mandatory`
 *
 * @category models
 * @since 0.1.0
 */
export interface Returned {
  /** The body of the message. */
  readonly content: Uint8Array
  readonly properties: Properties
  /** The exchange that the message was published to. */
  readonly exchange: string
  /** The routing key that the message was published with. */
  readonly routingKey: string
  /** The reason as a number: 312 (no route) on RabbitMQ. */
  readonly replyCode: number
  /** The reason as text. */
  readonly replyText: string
}

/**
 * The type of an exchange: one that RabbitMQ has built in, or the name of one that a plugin adds.
 *
 * **When to use**
 *
 * Use as the second argument of `exchangeDeclare`.
 *
 * @see {@link Operations}
 *
 * @category models
 * @since 0.1.0
 */
export type ExchangeType = "direct" | "fanout" | "topic" | "headers" | (string & {})

/**
 * Options of `exchange.declare`.
 *
 * **When to use**
 *
 * Use with `exchangeDeclare` of a channel, or with `AmqpTopology.exchange`.
 *
 * **Gotchas**
 *
 * `exchangeDeclare` fails with `PreconditionFailed` if the exchange exists with other properties.
 *
 * @see {@link Operations}
 *
 * @category models
 * @since 0.1.0
 */
export interface ExchangeDeclareOptions {
  /** Whether the exchange survives a restart of the broker. Default: `true`. */
  readonly durable?: boolean | undefined
  /** Whether the broker deletes the exchange when its last binding is removed. Default: `false`. */
  readonly autoDelete?: boolean | undefined
  /** Whether the exchange takes messages from bindings only, not from publishers. Default: `false`. */
  readonly internal?: boolean | undefined
  /** The exchange that gets the messages which match no binding (`alternate-exchange`). Default: none. */
  readonly alternateExchange?: string | undefined
  /** Further arguments, such as those of a plugin's exchange type. */
  readonly arguments?: Headers | undefined
}

/**
 * Options of `queue.declare`.
 *
 * **When to use**
 *
 * Use with `queueDeclare` of a channel, or with `AmqpTopology.queue`.
 *
 * **Details**
 *
 * An option that is sent in the table of arguments has its `x-` name in its description. All of them are RabbitMQ's
 * (https://www.rabbitmq.com/docs/queues#optional-arguments).
 *
 * **Gotchas**
 *
 * `queueDeclare` fails with `PreconditionFailed` if the queue exists with other properties.
 *
 * @see {@link Operations}
 *
 * @category models
 * @since 0.1.0
 */
export interface QueueDeclareOptions {
  /**
   * Whether the queue survives a restart of the broker. Quorum queues and streams are always durable. Default: `true`.
   *
   * RabbitMQ deprecates queues that are neither durable nor exclusive. From 4.0 on, a broker whose configuration does
   * not permit them (`deprecated_features.permit.transient_nonexcl_queues`) closes the connection when such a queue is
   * declared (541). After the first of these failures the application's next declarations of such queues are refused
   * with `InvalidArgument`.
   */
  readonly durable?: boolean | undefined
  /**
   * Whether only this connection may use the queue. The broker deletes the queue when the connection ends. Default:
   * `false`.
   */
  readonly exclusive?: boolean | undefined
  /** Whether the broker deletes the queue when its last consumer ends. Default: `false`. */
  readonly autoDelete?: boolean | undefined
  /** `x-queue-type`. Default: the virtual host's, which is `"classic"` unless it was configured. */
  readonly queueType?: "classic" | "quorum" | "stream" | undefined
  /**
   * `x-queue-mode`: `"lazy"` keeps messages on disk. It has an effect on classic queues up to RabbitMQ 3.11; later
   * versions keep them on disk in any case. RabbitMQ 4.3 has removed the argument: from there on the option is refused
   * with `InvalidArgument`.
   */
  readonly queueMode?: "default" | "lazy" | undefined
  /** `x-single-active-consumer`: one consumer at a time gets messages; the others stand by. */
  readonly singleActiveConsumer?: boolean | undefined
  /**
   * `x-delivery-limit`: how often a message may come back before the broker dead-letters it, or drops it in a queue
   * without a dead-letter exchange. For quorum queues. At least 0, or `"default"`: the broker's own limit, which is
   * none up to RabbitMQ 3, and 20 since 4. Up to RabbitMQ 4.2 every return counts; since 4.3 a return by `basic.nack`
   * does not. On every version the end of a connection or of a channel counts for all deliveries that were sent ahead
   * on it, including those that no handler has seen.
   *
   * Default: the broker's own limit for a queue with a `deadLetterExchange`. A queue without one is declared with no
   * limit (`x-delivery-limit: -1` in RabbitMQ 4), so that it loses no messages. Where such a queue exists with the
   * broker's own limit, it stays as it is, and a warning is logged. Choose `"default"` if other applications declare
   * the same queue without that argument.
   */
  readonly deliveryLimit?: number | "default" | undefined
  /** `x-max-length`: maximum number of messages in the queue. At least 0. */
  readonly maxLength?: number | undefined
  /** `x-max-length-bytes`: maximum size of all content in the queue, in bytes. At least 0. */
  readonly maxLengthBytes?: number | undefined
  /** `x-overflow`: what happens at the maximum. Default: `"drop-head"`, the oldest messages are dropped. */
  readonly overflow?: "drop-head" | "reject-publish" | "reject-publish-dlx" | undefined
  /**
   * `x-dead-letter-exchange`: the exchange that gets rejected, expired and overflowing messages. `""` is the default
   * exchange. Default: none.
   */
  readonly deadLetterExchange?: string | undefined
  /** `x-dead-letter-routing-key`. Default: the message's own routing key. */
  readonly deadLetterRoutingKey?: string | undefined
  /** `x-dead-letter-strategy`: `"at-least-once"` requires a quorum queue with `overflow: "reject-publish"`. */
  readonly deadLetterStrategy?: "at-most-once" | "at-least-once" | undefined
  /**
   * `x-message-ttl`: how long a message may stay in the queue. A number is milliseconds. 0 ms to 3650 days. Default: no
   * limit.
   */
  readonly messageTtl?: Duration.DurationInput | undefined
  /**
   * `x-expires`: how long the queue may be unused before the broker deletes it. A number is milliseconds. 1 ms to 3650
   * days. Default: no limit.
   */
  readonly expires?: Duration.DurationInput | undefined
  /**
   * `x-consumer-timeout`: how long a delivery of this queue may stay unsettled before the broker takes it back. A
   * number is milliseconds. 1 ms to 3650 days. Default: the broker's `consumer_timeout`, 30 minutes.
   *
   * On RabbitMQ 4.3 only quorum queues have this timeout: the broker cancels the consumer, and `AmqpConsumer` then
   * subscribes again. For a queue of another type the option is refused with `InvalidArgument`. From 3.11.15 to 4.2
   * queues of all types have it: the broker checks once a minute, and closes the consumer's channel. Earlier versions
   * ignore the argument.
   */
  readonly consumerTimeout?: Duration.DurationInput | undefined
  /**
   * `x-max-priority`: 1 to 255; RabbitMQ recommends up to 5. For classic queues. Quorum queues refuse the argument, and
   * have priorities without it: two levels in RabbitMQ 4.0 to 4.2 (up to 4, and above), 32 levels from 4.3 on (0 to
   * 31), none in earlier versions.
   */
  readonly maxPriority?: number | undefined
  /** `x-max-age`: how long a stream keeps messages, in whole seconds. */
  readonly maxAge?: Duration.DurationInput | undefined
  /** `x-stream-max-segment-size-bytes`: maximum size of a segment file of a stream, in bytes. */
  readonly streamMaxSegmentSizeBytes?: number | undefined
  /** `x-quorum-initial-group-size`: number of replicas of a quorum queue. At least 1. */
  readonly quorumInitialGroupSize?: number | undefined
  /** `x-queue-leader-locator`: where the leader is placed. */
  readonly queueLeaderLocator?: "client-local" | "balanced" | undefined
  /**
   * `x-delayed-retry-type`: which returned messages the broker delivers again only after a pause. `"failed"`: those
   * that `basic.reject` or a lost channel or connection has returned. `"returned"`: those that `basic.nack` has
   * returned. `"all"`: both. For quorum queues from RabbitMQ 4.3 on, together with `delayedRetryMin`. Earlier versions
   * would ignore it, so there it is refused with `InvalidArgument`. Default: none of them.
   *
   * `AmqpConsumer.retry` waits on every version, with delays of your choice, and counts failures only. See
   * docs/decisions.md, "The broker's own delayed retry".
   */
  readonly delayedRetryType?: "all" | "failed" | "returned" | undefined
  /**
   * `x-delayed-retry-min`: the pause before the first return of a message. A number is milliseconds. The next pauses
   * are this pause times the message's `x-delivery-count`. 1 ms to 3650 days. It requires `delayedRetryType`.
   */
  readonly delayedRetryMin?: Duration.DurationInput | undefined
  /** `x-delayed-retry-max`: the longest pause. From `delayedRetryMin` to 3650 days. Default: `delayedRetryMin`. */
  readonly delayedRetryMax?: Duration.DurationInput | undefined
  /**
   * `x-consumer-disconnected-timeout`: how long messages stay with consumers on a node that cannot be reached, before
   * the broker gives them to other consumers. 0 ms to 3650 days. For quorum queues from RabbitMQ 4.3 on. Earlier
   * versions would ignore it, so there it is refused with `InvalidArgument`. Default: the broker's, 60 seconds.
   */
  readonly consumerDisconnectedTimeout?: Duration.DurationInput | undefined
  /**
   * Further arguments, or the options above by their `x-` names. An argument that is given in both ways is refused with
   * `InvalidArgument`.
   */
  readonly arguments?: Headers | undefined
}

/**
 * The broker's reply to `queue.declare`.
 *
 * **When to use**
 *
 * Use to learn the name of a queue that the broker has named, or how many messages and consumers a queue has.
 *
 * @see {@link Operations} for `queueDeclare` and `queueDeclarePassive`
 *
 * @category models
 * @since 0.1.0
 */
export interface QueueDeclared {
  /** The queue's name; the broker's choice if none was given. */
  readonly queue: string
  /** Number of messages in the queue that are ready for delivery. */
  readonly messageCount: number
  /** Number of consumers of the queue. */
  readonly consumerCount: number
}

/**
 * Options of `queue.bind`, `queue.unbind`, `exchange.bind` and `exchange.unbind`.
 *
 * **When to use**
 *
 * Use to bind to a headers exchange.
 *
 * @see {@link Operations}
 *
 * @category models
 * @since 0.1.0
 */
export interface BindOptions {
  /** The values that a headers exchange compares, and how it does so (`x-match`). */
  readonly arguments?: Headers | undefined
}

/**
 * Options of `basic.consume` on a borrowed channel.
 *
 * **When to use**
 *
 * Use with `consume` of a borrowed channel. Services consume with `AmqpConsumer.consume`, which has options of its own.
 *
 * @see {@link Operations}
 *
 * @category models
 * @since 0.1.0
 */
export interface ConsumeOptions {
  /** The consumer's name on this channel. Default: the broker chooses. */
  readonly consumerTag?: string | undefined
  /**
   * Whether deliveries count as acknowledged when they are sent: messages in flight are lost in a crash. It is not for
   * streams, because RabbitMQ closes the connection (540): it is refused with `InvalidArgument` if this application has
   * declared the stream. Default: `false`.
   */
  readonly noAck?: boolean | undefined
  /** Whether the queue refuses other consumers. Default: `false`. */
  readonly exclusive?: boolean | undefined
  /** `x-priority`: the broker serves consumers of higher priority first. An integer. Default: 0. */
  readonly priority?: number | undefined
  /**
   * `x-stream-offset` and others. The offset of a stream is `"first"`, `"last"`, `"next"`, a number or bigint from 0, a
   * `Date`, or an interval in the broker's notation (`"5m"`). Anything else is refused, because RabbitMQ closes the
   * connection over it.
   */
  readonly arguments?: Headers | undefined
}

/**
 * A consumer on a borrowed channel.
 *
 * **When to use**
 *
 * Use to take deliveries from a queue while a scope is open. Services consume with `AmqpConsumer`, which subscribes
 * again after a loss and settles each delivery.
 *
 * **Details**
 *
 * The consumer ends with the scope, or with `cancel`.
 *
 * @see {@link Operations} for `consume`, `cancel` and `qos`
 *
 * @category models
 * @since 0.1.0
 */
export interface Consumer {
  /** The consumer's name on its channel. */
  readonly consumerTag: string
  /**
   * Deliveries as they arrive. The stream ends after `cancel`. It fails with `ConsumerCancelled` if the broker ends
   * the consumer, with `ChannelClosed` or `ConnectionClosed` if the channel dies, and with `ChannelReleased` when its
   * scope ends.
   *
   * Only `qos` limits how many deliveries the broker sends ahead.
   */
  readonly deliveries: Stream.Stream<Delivery, AmqpError>
}

/**
 * The operations that channels of every kind have.
 *
 * **When to use**
 *
 * Use as the type of a function that works with any kind of channel, and to look up an operation.
 *
 * **Details**
 *
 * Every operation is one effect, may be interrupted, and fails with an `AmqpError`. These reasons are common to all:
 *
 * - `InvalidArgument`: an argument or option was refused, and nothing was sent;
 * - `ChannelReleased`: the scope has ended;
 * - `ChannelClosed` or `ConnectionClosed`: the channel or the connection died earlier;
 * - `ReplyTimeout`, for operations that wait for a reply: the reply did not arrive within `continuationTimeout`.
 *
 * A channel error (`NotFound`, `AccessRefused`, `PreconditionFailed`, ...) closes this channel; the next `use` in the
 * same scope borrows a fresh one.
 *
 * Names of queues, names of exchanges and routing keys have at most 255 bytes.
 *
 * **Gotchas**
 *
 * An empty queue name, which in AMQP means the queue that was declared last on the channel, is refused except in
 * `queueDeclare`: on a pooled channel an earlier borrower may have declared that queue.
 *
 * @see {@link AmqpChannel} for regular channels
 * @see {@link ConfirmChannel} for channels in confirm mode
 * @see {@link TransactionChannel} for channels in transaction mode
 *
 * @category models
 * @since 0.1.0
 */
export interface Operations {
  /**
   * `basic.get`: takes one message, if there is one. The delivery stays unsettled until it is settled, unless `noAck`
   * is set (default: `false`).
   *
   * It is not for streams, because RabbitMQ closes the connection (540): it fails with `InvalidArgument`, and nothing
   * is sent, if this application has declared the stream. Consume the stream instead.
   */
  get(
    queue: string,
    options?: { readonly noAck?: boolean | undefined }
  ): Effect.Effect<Option.Option<Delivery>, AmqpError>
  /**
   * `basic.ack`: acknowledges this delivery; with `multiple`, also all earlier unsettled deliveries of this channel.
   * Default of `multiple`: `false`. It fails with `DeliverySettled` if the delivery was settled before, or if it was
   * made on another channel or to an earlier borrower: in that case the broker has requeued it.
   */
  ack(delivery: Delivery, options?: { readonly multiple?: boolean | undefined }): Effect.Effect<void, AmqpError>
  /**
   * `basic.nack`: returns the message to its queue (`requeue: true`, the default), or dead-letters or drops it
   * (`requeue: false`). With `multiple` it does the same to all earlier unsettled deliveries of this channel. Default
   * of `multiple`: `false`. It fails with `DeliverySettled` as `ack` does.
   */
  nack(
    delivery: Delivery,
    options?: { readonly multiple?: boolean | undefined; readonly requeue?: boolean | undefined }
  ): Effect.Effect<void, AmqpError>
  /**
   * `basic.reject`: does what `nack` does, for one delivery. Since RabbitMQ 4.3 only a return by `reject` counts
   * towards the delivery limit of a quorum queue; in earlier versions both count.
   */
  reject(delivery: Delivery, options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError>
  /**
   * `basic.recover`: requeues every unsettled delivery of this channel. It fails with `InvalidArgument` if one of them
   * is known to come from a stream.
   */
  readonly recover: Effect.Effect<void, AmqpError>
  /**
   * `basic.qos`: sets how many unsettled deliveries a consumer (with `global`: this channel) may have. 0 to 65535; 0
   * means no limit. It applies to consumers that are started afterwards. Default of `global`: `false`.
   *
   * RabbitMQ 4.3 has no `global`: it bounds each consumer by that number instead, unless its configuration permits the
   * old behavior (`deprecated_features.permit.global_qos = true`). A warning is logged in that case, once per
   * connection.
   *
   * Before RabbitMQ 4.3, a consumer of a quorum queue that starts after a `qos` with `global` ends the connection
   * (540): `consume` fails with `InvalidArgument` instead if this application has declared the queue.
   */
  qos(prefetchCount: number, options?: { readonly global?: boolean | undefined }): Effect.Effect<void, AmqpError>
  /** `basic.consume`: starts a consumer, which ends with the scope. Services consume with `AmqpConsumer`. */
  consume(queue: string, options?: ConsumeOptions): Effect.Effect<Consumer, AmqpError>
  /** `basic.cancel`: ends a consumer of this channel. Its unsettled deliveries stay unsettled. */
  cancel(consumerTag: string): Effect.Effect<void, AmqpError>
  /**
   * `channel.flow`: stops (`false`) or resumes (`true`) deliveries on this channel, and succeeds with the state that
   * the broker reports. RabbitMQ closes the whole connection when it gets `false` (540), so there `false` is refused
   * with `InvalidArgument`: use `qos` or `cancel` instead.
   */
  flow(active: boolean): Effect.Effect<boolean, AmqpError>
  /**
   * `exchange.declare`: creates the exchange if it does not exist. It fails with `PreconditionFailed`, which names the
   * difference, if the exchange exists with other properties.
   */
  exchangeDeclare(
    exchange: string,
    type: ExchangeType,
    options?: ExchangeDeclareOptions
  ): Effect.Effect<void, AmqpError>
  /** `exchange.declare`, passive: fails with `NotFound` if the exchange does not exist. */
  exchangeDeclarePassive(exchange: string): Effect.Effect<void, AmqpError>
  /**
   * `exchange.delete`: deletes the exchange. With `ifUnused` (default: `false`) it fails with `PreconditionFailed`
   * while something is bound to the exchange.
   */
  exchangeDelete(
    exchange: string,
    options?: { readonly ifUnused?: boolean | undefined }
  ): Effect.Effect<void, AmqpError>
  /** `exchange.bind` (RabbitMQ): routes messages from `source` to `destination`. */
  exchangeBind(
    destination: string,
    source: string,
    routingKey: string,
    options?: BindOptions
  ): Effect.Effect<void, AmqpError>
  /** `exchange.unbind` (RabbitMQ): removes a binding. It takes the same arguments as the binding. */
  exchangeUnbind(
    destination: string,
    source: string,
    routingKey: string,
    options?: BindOptions
  ): Effect.Effect<void, AmqpError>
  /**
   * `queue.declare`: creates the queue if it does not exist. With an empty name the broker chooses one. It fails with
   * `PreconditionFailed`, which names the difference, if the queue exists with other properties.
   */
  queueDeclare(queue: string, options?: QueueDeclareOptions): Effect.Effect<QueueDeclared, AmqpError>
  /** `queue.declare`, passive: reads the queue's counts. It fails with `NotFound` if the queue does not exist. */
  queueDeclarePassive(queue: string): Effect.Effect<QueueDeclared, AmqpError>
  /** `queue.bind`: routes messages from `exchange` to `queue`. */
  queueBind(queue: string, exchange: string, routingKey: string, options?: BindOptions): Effect.Effect<void, AmqpError>
  /** `queue.unbind`: removes a binding. It takes the same arguments as the binding. */
  queueUnbind(
    queue: string,
    exchange: string,
    routingKey: string,
    options?: BindOptions
  ): Effect.Effect<void, AmqpError>
  /**
   * `queue.purge`: drops the messages in the queue, and succeeds with their number. Unsettled deliveries are not
   * dropped.
   *
   * It is not for streams, because RabbitMQ closes the connection (540): it fails with `InvalidArgument`, and nothing
   * is sent, if this application has declared the stream.
   */
  queuePurge(queue: string): Effect.Effect<number, AmqpError>
  /**
   * `queue.delete`: deletes the queue, and succeeds with the number of messages that were in it. With `ifEmpty` or
   * `ifUnused` (defaults: `false`) it fails with `PreconditionFailed` while the queue has messages or consumers.
   *
   * The two conditions are not for quorum queues, because RabbitMQ closes the connection (540): the operation fails
   * with `InvalidArgument`, and nothing is sent, if this application has declared the queue. A stream accepts the
   * conditions, and is deleted in any case.
   */
  queueDelete(
    queue: string,
    options?: { readonly ifEmpty?: boolean | undefined; readonly ifUnused?: boolean | undefined }
  ): Effect.Effect<number, AmqpError>
}

/**
 * A regular channel, which `AmqpChannel.use` borrows.
 *
 * **When to use**
 *
 * Use to declare, bind, get and delete, and to publish messages whose loss is acceptable.
 *
 * @see {@link ConfirmChannel} for publishing with confirms
 *
 * @category models
 * @since 0.1.0
 */
export interface AmqpChannel extends Operations {
  readonly kind: "regular"
  /**
   * `basic.publish` without a confirm: completes when the connection has taken the bytes and has room for more.
   *
   * It waits, up to `publishTimeout`, while the broker has blocked publishers (it then fails with `PublishTimeout` and
   * `sent: false`), or while this channel's write buffer is full (`sent: true`). A message that cannot be encoded fails
   * with `InvalidArgument`, which names the property, and nothing is sent.
   *
   * An exchange that does not exist is reported only later: the broker closes the channel, and the message is lost. Use
   * confirms where that matters.
   */
  publish(message: Message, options?: PublishOptions): Effect.Effect<void, AmqpError>
  /**
   * Mandatory messages that reached no queue. The stream fails with `ChannelReleased` when the scope has ended, and with
   * the cause when the channel has died.
   */
  readonly returns: Stream.Stream<Returned, AmqpError>
}

/**
 * A channel in confirm mode (`confirm.select`), which `AmqpChannel.useConfirm` borrows.
 *
 * **When to use**
 *
 * Use to publish single messages that must not be lost. For publishing in volume use `AmqpPublisher`.
 *
 * @see {@link AmqpChannel} for publishing without confirms
 *
 * @category models
 * @since 0.1.0
 */
export interface ConfirmChannel extends Operations {
  readonly kind: "confirm"
  /**
   * `basic.publish`: completes when the broker has confirmed the message. Several fibers may publish at the same time.
   *
   * It fails with:
   *
   * - `PublishNacked`: the broker refuses responsibility for the message;
   * - `PublishReturned`: the message is `mandatory` and reached no queue;
   * - `PublishTimeout`: `sent` says whether the message may have arrived;
   * - `PublishUnknown`: the channel died before the confirm;
   * - the reason why the channel was closed, for the message that caused it: `NotFound` for an exchange that does not
   *   exist.
   */
  publish(message: Message, options?: PublishOptions): Effect.Effect<Confirmed, AmqpError>
}

/**
 * A channel in transaction mode (`tx.select`), which `AmqpChannel.useTransaction` borrows.
 *
 * **When to use**
 *
 * Use to publish and to settle together, or not at all.
 *
 * **Gotchas**
 *
 * RabbitMQ's transactions are atomic for a single queue only, and slow: a commit waits for the disk
 * (https://www.rabbitmq.com/docs/semantics#tx).
 *
 * @see {@link ConfirmChannel} for safe publishing at a lower cost
 *
 * @category models
 * @since 0.1.0
 */
export interface TransactionChannel extends Operations {
  readonly kind: "transaction"
  /** `basic.publish`: takes effect with the commit. */
  publish(message: Message, options?: PublishOptions): Effect.Effect<void, AmqpError>
  /** Mandatory messages that reached no queue; they arrive with the commit. */
  readonly returns: Stream.Stream<Returned, AmqpError>
  /** `tx.commit`: what was published and settled so far takes effect. `useTransaction` commits at the end. */
  readonly commit: Effect.Effect<void, AmqpError>
  /** `tx.rollback`: undoes what was published and settled so far; the deliveries stay unsettled. */
  readonly rollback: Effect.Effect<void, AmqpError>
}

/**
 * The kind of a channel.
 *
 * **When to use**
 *
 * Use to tell channels apart by their `kind`.
 *
 * **Details**
 *
 * The kind is fixed when a channel opens, because a channel cannot leave confirm mode or transaction mode in AMQP.
 *
 * @see {@link Operations}
 *
 * @category models
 * @since 0.1.0
 */
export type Kind = "regular" | "confirm" | "transaction"
