/** A borrowed channel: its operations, their options and results. */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Queue from "effect/Queue"
import type { AmqpError } from "./error.ts"
import type { Delivery, Headers, Message, Properties } from "./message.ts"

/** How a publish waits, and what becomes of a message that no queue takes. */
export interface PublishOptions {
  /**
   * What to do while the broker takes nothing from publishers (`connection.blocked`, `channel.flow`), or an
   * `AmqpPublisher` has no connection: wait, up to `timeout`, or fail at once with `PublishForbidden`. Default: `"wait"`.
   */
  readonly onBlocked?: "wait" | "fail" | undefined
  /**
   * Asks the broker to give the message back if it reaches no queue. On a confirm channel `publish` fails with
   * `PublishReturned` then; on the others the message arrives in `returns`. Default: `false`, the broker drops it.
   */
  readonly mandatory?: boolean | undefined
  /** The longest wait of this publish, its confirm included. At least 1 ms. Default: `publishTimeout` of the configuration. */
  readonly timeout?: Duration.Input | undefined
}

/** The broker's `basic.ack` for a published message: it has taken responsibility for it. */
export interface Confirmed {
  readonly _tag: "Confirmed"
}

/** A mandatory message that reached no queue (`basic.return`). */
export interface Returned {
  readonly content: Uint8Array
  readonly properties: Properties
  readonly exchange: string
  readonly routingKey: string
  /** 312 (no route) on RabbitMQ. */
  readonly replyCode: number
  readonly replyText: string
}

/** The kinds of exchange that RabbitMQ has built in. Plugins add others. */
export type ExchangeType = "direct" | "fanout" | "topic" | "headers" | (string & {})

/** `exchange.declare`. */
export interface ExchangeDeclareOptions {
  /** Survives a restart of the broker. Default: `true`. */
  readonly durable?: boolean | undefined
  /** Deleted when its last binding goes. Default: `false`. */
  readonly autoDelete?: boolean | undefined
  /** Takes messages from bindings only, not from publishers. Default: `false`. */
  readonly internal?: boolean | undefined
  /** Where messages go that no binding takes (`alternate-exchange`). */
  readonly alternateExchange?: string | undefined
  /** Further arguments, such as those of a plugin's exchange type. */
  readonly arguments?: Headers | undefined
}

/**
 * `queue.declare`. Those that travel in the table of arguments have their `x-` name beside them; all are RabbitMQ's
 * (https://www.rabbitmq.com/docs/queues#optional-arguments).
 */
export interface QueueDeclareOptions {
  /**
   * Survives a restart of the broker. Quorum queues and streams are always durable. Default: `true`.
   *
   * RabbitMQ gives up queues that are neither durable nor exclusive: from 4.0 on, a broker whose configuration does not permit
   * them (`deprecated_features.permit.transient_nonexcl_queues`) ends the connection over one (541). After the first of these
   * failures the application's next ones are refused with `InvalidArgument`.
   */
  readonly durable?: boolean | undefined
  /** Only this connection may use it, and it goes with the connection. Default: `false`. */
  readonly exclusive?: boolean | undefined
  /** Deleted when its last consumer goes. Default: `false`. */
  readonly autoDelete?: boolean | undefined
  /** `x-queue-type`. Default: the virtual host's, `"classic"` unless it was configured. */
  readonly queueType?: "classic" | "quorum" | "stream" | undefined
  /**
   * `x-queue-mode`: `"lazy"` keeps messages on disk. Classic queues up to RabbitMQ 3.11: later ones do so anyway. RabbitMQ 4.3
   * has removed it, so from there on it is refused with `InvalidArgument`.
   */
  readonly queueMode?: "default" | "lazy" | undefined
  /** `x-single-active-consumer`: one consumer at a time gets messages, the others stand by. */
  readonly singleActiveConsumer?: boolean | undefined
  /**
   * `x-delivery-limit`: how often a message may come back before it is dead-lettered, or lost in a queue without a
   * dead-letter exchange. Quorum queues. At least 0, or `"default"`: the broker's own, which is none up to RabbitMQ 3, and
   * 20 since 4. Up to RabbitMQ 4.2 every return counts; since 4.3 what `basic.nack` gives back does not. On every version the
   * end of a connection or a channel counts for all that was sent ahead on it, which nobody may have seen.
   *
   * Default: the broker's own for a queue with a `deadLetterExchange`. A queue without one is declared with no limit
   * (`x-delivery-limit: -1` in RabbitMQ 4), so that it loses nothing. Where such a queue exists with the broker's own limit,
   * it stays as it is, and a warning is logged. Choose `"default"` if others declare the same queue without that argument.
   */
  readonly deliveryLimit?: number | "default" | undefined
  /** `x-max-length`: messages in the queue, at most. At least 0. */
  readonly maxLength?: number | undefined
  /** `x-max-length-bytes`: bytes of content in the queue, at most. At least 0. */
  readonly maxLengthBytes?: number | undefined
  /** `x-overflow`: what happens at the maximum. Default: `"drop-head"`, the oldest go. */
  readonly overflow?: "drop-head" | "reject-publish" | "reject-publish-dlx" | undefined
  /** `x-dead-letter-exchange`: where rejected, expired and overflowing messages go. `""` is the default exchange. */
  readonly deadLetterExchange?: string | undefined
  /** `x-dead-letter-routing-key`. Default: the message's own. */
  readonly deadLetterRoutingKey?: string | undefined
  /** `x-dead-letter-strategy`: `"at-least-once"` needs a quorum queue with `overflow: "reject-publish"`. */
  readonly deadLetterStrategy?: "at-most-once" | "at-least-once" | undefined
  /** `x-message-ttl`: how long a message may stay. A number is milliseconds. 0 ms to 3650 days. */
  readonly messageTtl?: Duration.Input | undefined
  /** `x-expires`: the queue goes after being unused for this long. A number is milliseconds. 1 ms to 3650 days. */
  readonly expires?: Duration.Input | undefined
  /**
   * `x-consumer-timeout`: how long a delivery of this queue may stay unsettled before the broker takes it back. A number is
   * milliseconds. 1 ms to 3650 days. Default: the broker's `consumer_timeout`, 30 minutes.
   *
   * On RabbitMQ 4.3 quorum queues alone have one: the broker cancels the consumer, which `AmqpConsumer` answers by subscribing
   * again, and for a queue of another type the option is refused with `InvalidArgument`. From 3.11.15 to 4.2 queues of all
   * types have one: the broker looks once a minute, and closes the consumer's channel. Earlier versions ignore it.
   */
  readonly consumerTimeout?: Duration.Input | undefined
  /**
   * `x-max-priority`: 1 to 255; RabbitMQ recommends up to 5. Classic queues. Quorum queues refuse it, and have priorities
   * without it: two levels in RabbitMQ 4.0 to 4.2 (up to 4, and above), 32 from 4.3 on (0 to 31), none before.
   */
  readonly maxPriority?: number | undefined
  /** `x-max-age`: how long a stream keeps messages, in whole seconds. */
  readonly maxAge?: Duration.Input | undefined
  /** `x-stream-max-segment-size-bytes`. Streams. */
  readonly streamMaxSegmentSizeBytes?: number | undefined
  /** `x-quorum-initial-group-size`: replicas of a quorum queue. At least 1. */
  readonly quorumInitialGroupSize?: number | undefined
  /** `x-queue-leader-locator`: where the leader is placed. */
  readonly queueLeaderLocator?: "client-local" | "balanced" | undefined
  /**
   * `x-delayed-retry-type`: what the broker gives out again after a pause only. `"failed"`: what `basic.reject` gave back, or
   * a lost channel or connection did. `"returned"`: what `basic.nack` gave back. `"all"`: both. Quorum queues from RabbitMQ
   * 4.3 on, with a `delayedRetryMin`: earlier ones would do nothing, so it is refused with `InvalidArgument`. Default: none
   * of it.
   *
   * `AmqpConsumer.retry` waits on every version, by delays of your choice, and counts failures alone. See
   * docs/decisions.md, "The broker's own delayed retry".
   */
  readonly delayedRetryType?: "all" | "failed" | "returned" | undefined
  /**
   * `x-delayed-retry-min`: the pause before a message's first return, in milliseconds if it is a number. The next ones are
   * that many times its `x-delivery-count`. 1 ms to 3650 days. It needs a `delayedRetryType`.
   */
  readonly delayedRetryMin?: Duration.Input | undefined
  /** `x-delayed-retry-max`: the longest pause. From `delayedRetryMin` to 3650 days. Default: `delayedRetryMin`. */
  readonly delayedRetryMax?: Duration.Input | undefined
  /**
   * `x-consumer-disconnected-timeout`: how long messages stay with consumers on a node that cannot be reached, before they
   * are given to others. 0 ms to 3650 days. Quorum queues from RabbitMQ 4.3 on: earlier ones would do nothing, so it is
   * refused with `InvalidArgument`. Default: the broker's, 60 seconds.
   */
  readonly consumerDisconnectedTimeout?: Duration.Input | undefined
  /** Further arguments, or the same by their `x-` names. One that is given both ways is refused. */
  readonly arguments?: Headers | undefined
}

/** What the broker says of a declared queue. */
export interface QueueDeclared {
  /** The queue's name; the broker's choice if none was given. */
  readonly queue: string
  readonly messageCount: number
  readonly consumerCount: number
}

/** `queue.bind`, `queue.unbind`, `exchange.bind`, `exchange.unbind`. */
export interface BindOptions {
  /** What a headers exchange compares, such as `x-match`. */
  readonly arguments?: Headers | undefined
}

/** `basic.consume`. */
export interface ConsumeOptions {
  /** The consumer's name on this channel. Default: the broker chooses. */
  readonly consumerTag?: string | undefined
  /**
   * Deliveries count as acknowledged when they are sent: what is in flight at a crash is lost. Not of a stream, over which
   * RabbitMQ closes the connection (540): refused with `InvalidArgument` if this application has declared it. Default: `false`.
   */
  readonly noAck?: boolean | undefined
  /** Refuses other consumers on the queue. Default: `false`. */
  readonly exclusive?: boolean | undefined
  /** `x-priority`: consumers of higher priority are served first. An integer. Default: 0. */
  readonly priority?: number | undefined
  /**
   * `x-stream-offset` and others. The offset of a stream is `"first"`, `"last"`, `"next"`, a number or bigint from 0, a Date, or
   * an interval in the broker's words (`"5m"`): anything else is refused, since RabbitMQ closes the connection over it.
   */
  readonly arguments?: Headers | undefined
}

/** A consumer on a borrowed channel. */
export interface Consumer {
  readonly consumerTag: string
  /**
   * Deliveries as they come. Done after `cancel`; fails with `ConsumerCancelled` if the broker ends the consumer,
   * `ChannelClosed` or `ConnectionClosed` if the channel dies, `ChannelReleased` when its scope ends.
   *
   * Nothing but `qos` limits how many the broker sends ahead.
   */
  readonly deliveries: Queue.Dequeue<Delivery, AmqpError | Cause.Done>
}

/**
 * What channels of every kind can do.
 *
 * Every operation is one effect, may be interrupted, and fails with an `AmqpError`. Common to all are `InvalidArgument`
 * (an argument or option was refused, nothing was sent), `ChannelReleased` (the scope has ended), `ChannelClosed` or
 * `ConnectionClosed` (it died earlier) and, for those that wait for a reply, `ReplyTimeout` (`continuationTimeout`). A
 * channel error (`NotFound`, `AccessRefused`, `PreconditionFailed`, ...) closes this channel; the next `use` in the same
 * scope borrows a fresh one.
 *
 * Names of queues and exchanges and routing keys have at most 255 bytes. An empty queue name, which in AMQP means the
 * queue declared last on the channel, is refused except in `queueDeclare`: on a pooled channel that may have been
 * somebody else.
 */
export interface Operations {
  /**
   * `basic.get`: takes one message, if there is one. It stays unsettled until it is settled, unless `noAck`.
   *
   * Not of a stream: RabbitMQ closes the connection over it (540). It fails with `InvalidArgument`, and nothing is sent, if
   * this application has declared the stream. Consume it instead.
   */
  get(
    queue: string,
    options?: { readonly noAck?: boolean | undefined }
  ): Effect.Effect<Option.Option<Delivery>, AmqpError>
  /**
   * `basic.ack`; with `multiple` this delivery and all earlier ones of this channel that are unsettled. Fails with
   * `DeliverySettled` if the delivery was settled before, or was made on another channel or to an earlier borrower: the
   * broker has requeued it then.
   */
  ack(delivery: Delivery, options?: { readonly multiple?: boolean | undefined }): Effect.Effect<void, AmqpError>
  /**
   * `basic.nack`: gives the message back to its queue (`requeue`, the default), or drops or dead-letters it. With
   * `multiple` all earlier ones too.
   */
  nack(
    delivery: Delivery,
    options?: { readonly multiple?: boolean | undefined; readonly requeue?: boolean | undefined }
  ): Effect.Effect<void, AmqpError>
  /**
   * `basic.reject`: what `nack` does, for one delivery. Since RabbitMQ 4.3 what goes back to a quorum queue counts towards its
   * delivery limit by `reject` alone; before, by both.
   */
  reject(delivery: Delivery, options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError>
  /**
   * `basic.recover`: requeues every unsettled delivery of this channel. Fails with `InvalidArgument` if one of them is known
   * to be of a stream.
   */
  readonly recover: Effect.Effect<void, AmqpError>
  /**
   * `basic.qos`: how many unsettled deliveries a consumer (with `global`: this channel) may have. 0 to 65535; 0 means no
   * limit. It applies to consumers started afterwards.
   *
   * RabbitMQ 4.3 has no `global`: it bounds each consumer by that number instead, unless its configuration permits the former
   * (`deprecated_features.permit.global_qos = true`). That is logged as a warning, once per connection.
   *
   * Before RabbitMQ 4.3, a consumer of a quorum queue that starts behind one with `global` ends the connection (540):
   * `consume` fails with `InvalidArgument` instead if this application has declared the queue.
   */
  qos(prefetchCount: number, options?: { readonly global?: boolean | undefined }): Effect.Effect<void, AmqpError>
  /** `basic.consume`. The scope's end ends the consumer; services consume by `AmqpConsumer`. */
  consume(queue: string, options?: ConsumeOptions): Effect.Effect<Consumer, AmqpError>
  /** `basic.cancel`: ends a consumer of this channel. Its unsettled deliveries stay unsettled. */
  cancel(consumerTag: string): Effect.Effect<void, AmqpError>
  /**
   * `channel.flow`: asks the broker to stop (`false`) or resume (`true`) deliveries on this channel; the state it is in
   * then. RabbitMQ closes the whole connection when asked to stop (540), so `false` is refused there with
   * `InvalidArgument`: use `qos`, or `cancel`.
   */
  flow(active: boolean): Effect.Effect<boolean, AmqpError>
  /** `exchange.declare`. Fails with `PreconditionFailed`, which names the difference, if it exists with other properties. */
  exchangeDeclare(
    exchange: string,
    type: ExchangeType,
    options?: ExchangeDeclareOptions
  ): Effect.Effect<void, AmqpError>
  /** `exchange.declare`, passive: fails with `NotFound` if it does not exist. */
  exchangeDeclarePassive(exchange: string): Effect.Effect<void, AmqpError>
  /** `exchange.delete`. With `ifUnused` it fails with `PreconditionFailed` while something is bound to it. */
  exchangeDelete(
    exchange: string,
    options?: { readonly ifUnused?: boolean | undefined }
  ): Effect.Effect<void, AmqpError>
  /** `exchange.bind` (RabbitMQ): messages go from `source` to `destination`. */
  exchangeBind(
    destination: string,
    source: string,
    routingKey: string,
    options?: BindOptions
  ): Effect.Effect<void, AmqpError>
  /** `exchange.unbind` (RabbitMQ). It takes the same arguments as the binding. */
  exchangeUnbind(
    destination: string,
    source: string,
    routingKey: string,
    options?: BindOptions
  ): Effect.Effect<void, AmqpError>
  /**
   * `queue.declare`. An empty name lets the broker choose one. Fails with `PreconditionFailed`, which names the
   * difference, if it exists with other properties.
   */
  queueDeclare(queue: string, options?: QueueDeclareOptions): Effect.Effect<QueueDeclared, AmqpError>
  /** `queue.declare`, passive: its counts; fails with `NotFound` if it does not exist. */
  queueDeclarePassive(queue: string): Effect.Effect<QueueDeclared, AmqpError>
  /** `queue.bind`. */
  queueBind(queue: string, exchange: string, routingKey: string, options?: BindOptions): Effect.Effect<void, AmqpError>
  /** `queue.unbind`. It takes the same arguments as the binding. */
  queueUnbind(
    queue: string,
    exchange: string,
    routingKey: string,
    options?: BindOptions
  ): Effect.Effect<void, AmqpError>
  /**
   * `queue.purge`: how many messages were dropped. Unsettled deliveries are not among them.
   *
   * Not of a stream: RabbitMQ closes the connection over it (540). It fails with `InvalidArgument`, and nothing is sent, if
   * this application has declared the stream.
   */
  queuePurge(queue: string): Effect.Effect<number, AmqpError>
  /**
   * `queue.delete`: how many messages went with it. With `ifEmpty` or `ifUnused` it fails with `PreconditionFailed` while
   * it has messages or consumers.
   *
   * A quorum queue takes no condition: RabbitMQ closes the connection over it (540). It fails with `InvalidArgument`, and
   * nothing is sent, if this application has declared the queue. A stream takes it, and is deleted in any case.
   */
  queueDelete(
    queue: string,
    options?: { readonly ifEmpty?: boolean | undefined; readonly ifUnused?: boolean | undefined }
  ): Effect.Effect<number, AmqpError>
}

/** A regular channel, borrowed by `use`. */
export interface AmqpChannel extends Operations {
  readonly kind: "regular"
  /**
   * `basic.publish`, without a confirm: completes when the connection has taken the bytes and has room for more.
   *
   * It waits, up to `publishTimeout`, while the broker has blocked publishers (`PublishTimeout` with `sent: false`) or
   * while this channel's write buffer is full (`sent: true`). An exchange that does not exist shows only later: the broker
   * closes the channel, and the message is lost. Use confirms where that matters. A message that cannot be encoded fails
   * with `InvalidArgument`, naming the property, and nothing is sent.
   */
  publish(message: Message, options?: PublishOptions): Effect.Effect<void, AmqpError>
  /** Mandatory messages that reached no queue. Fails with `ChannelReleased` when the scope has ended, or why the channel died. */
  readonly returns: Queue.Dequeue<Returned, AmqpError>
}

/** A channel in confirm mode (`confirm.select`), borrowed by `useConfirm`. */
export interface ConfirmChannel extends Operations {
  readonly kind: "confirm"
  /**
   * `basic.publish`; completes when the broker has confirmed the message. Fibers may publish at the same time.
   *
   * Fails with `PublishNacked`, `PublishReturned` (with `mandatory`), `PublishTimeout` (`sent` says whether it may have
   * arrived), `PublishUnknown` (the channel died before the confirm), or, for the message that killed the channel, with
   * the reason of that: `NotFound` for an exchange that does not exist.
   */
  publish(message: Message, options?: PublishOptions): Effect.Effect<Confirmed, AmqpError>
}

/** A channel in transaction mode (`tx.select`), borrowed by `useTransaction`. */
export interface TransactionChannel extends Operations {
  readonly kind: "transaction"
  /** `basic.publish`: takes effect with the commit. */
  publish(message: Message, options?: PublishOptions): Effect.Effect<void, AmqpError>
  /** Mandatory messages that reached no queue; they come with the commit. */
  readonly returns: Queue.Dequeue<Returned, AmqpError>
  /** `tx.commit`: what was published and settled so far takes effect. `useTransaction` does it at the end. */
  readonly commit: Effect.Effect<void, AmqpError>
  /** `tx.rollback`: what was published and settled so far is undone; the deliveries stay unsettled. */
  readonly rollback: Effect.Effect<void, AmqpError>
}

/** What a channel is for: fixed when it opens, since AMQP has no way back from confirm or transaction mode. */
export type Kind = "regular" | "confirm" | "transaction"

/** How to start a consumer, checked already. */
export interface ConsumerStart {
  readonly queue: string
  readonly consumerTag: string
  readonly noAck: boolean
  readonly exclusive: boolean
  readonly arguments: Headers
}
