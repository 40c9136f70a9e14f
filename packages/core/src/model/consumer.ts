/** Consumers: deliveries, options, and the service. */
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
 * A message that a consumer got, and how to settle it.
 *
 * It is settled at most once, and only on the channel that delivered it: it knows that channel, and shows no delivery tag
 * that could be used elsewhere. From any fiber, at any time: nothing is waited for. A late `ack` fails with
 * `DeliverySettled` and sends nothing: it was settled before, or its channel has ended, in which case the broker has
 * requeued the message and delivers it again.
 */
export interface Delivery {
  /** A view into what the socket has read, which it keeps in memory: see `AmqpMessage.bytes`. */
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
  /** The exchange that the broker took it from into the queue: after a `retry` the default exchange. See `origin`. */
  readonly exchange: string
  /** As the broker says: after a `retry` the queue's name. See `origin`. */
  readonly routingKey: string
  /**
   * Where the message was published first, if it comes from a `retry`: `undefined` if not.
   *
   * **Unverified**: the headers of the message say so, and whoever may publish to the queue can write them. Never decide by
   * it what a message may do, unless `retrySecret` is set.
   */
  readonly origin: Origin | undefined
  /** Whether the broker has handed this message out before, to whomever. */
  readonly redelivered: boolean
  /**
   * Which attempt to handle the message this is, as far as is known: 1 for the first.
   *
   * What counts is an attempt that has failed, not a delivery: one that lay unseen in a prefetch when its connection was
   * lost counts for nothing, and neither does a handler that was interrupted by the end of its consumer. So it counts the same
   * on every version of RabbitMQ, and for every type of queue: the broker's counts and `redelivered` have no part in it.
   * (`x-delivery-count` of a quorum queue counts every return up to 4.2, unseen deliveries too. Since 4.3 it counts what was
   * rejected and what a closed channel or a lost connection has given back, unseen or not, but no `basic.nack`;
   * `x-acquired-count` counts each delivery.) Known are:
   *
   * - failures in this application whose message went back to the queue (`redeliver`, `requeue`, `nack`, `reject`): the last
   *   10,000;
   * - with `maxDeliveries`, the attempts of other processes too, see there;
   * - attempts before a `retry`, as its headers say: unverified, unless `retrySecret` is set;
   * - what consumers of this queue have rejected, if a dead-letter exchange has brought it back by way of another queue
   *   (`x-death`).
   *
   * A message that was published again by somebody else begins again with 1: a dead letter that is moved back, for one.
   */
  readonly attempt: number
  /** Where it stands in its stream; `undefined` for other queues. */
  readonly offset: number | undefined
  /** Whether there is nothing left to settle: it was done, or its channel has ended. That of a stream outlives its channel. */
  readonly isSettled: boolean
  /** `basic.ack`: handled. The position of a stream moves when everything before it is handled, too. */
  readonly ack: Effect.Effect<void, AmqpError>
  /**
   * `basic.nack`: back into the queue at once, or, with `requeue: false`, dead-lettered or dropped. Default: `true`. Since
   * RabbitMQ 4.3 what goes back so does not count towards the delivery limit of a quorum queue: without `maxDeliveries` a
   * message that always fails comes back forever. Fails with `InvalidArgument` for a stream, which takes nothing back.
   */
  nack(options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError>
  /**
   * `basic.reject`: the same, but what goes back counts towards the delivery limit of a quorum queue on every version of
   * RabbitMQ. Beyond the limit the broker takes the message out: to the dead-letter exchange of the queue, or for good.
   */
  reject(options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError>
}

/** An exchange, and the routing key that a message was published to it with. */
export interface Origin {
  readonly exchange: string
  readonly routingKey: string
}

/** How a consumer has ended. */
export interface End {
  readonly queue: string
  /** Why it failed; `undefined` if it was asked to end: interrupted, or nobody wanted more of the stream. */
  readonly reason: AmqpError | undefined
  /** Deliveries that the broker had sent ahead and nobody has seen: they are back in the queue. */
  readonly requeued: number
  /**
   * Deliveries that were handed out and not settled: they are back in the queue too, and come again. After a lost channel
   * it is not known how many there were: 0.
   */
  readonly unsettled: number
}

/**
 * Where to begin reading a stream: `"first"`, the oldest message that is there; `"last"`, the last chunk, which has one message
 * or many; `"next"`, what is published from now on; a message by its offset, from 0; or what was published from a time on,
 * in whole seconds, or since some time `ago` (1 s to 50 years; by the clock of RabbitMQ, and of this machine with LavinMQ). By
 * a time the broker begins with the chunk that has it, so that earlier messages may come first.
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

/** How the position of a stream's consumer is saved. */
export interface SavedOffsets {
  /** Where: see `AmqpOffsetStore`. */
  readonly store: OffsetStore
  /** Under which name, the same at each start, and no other consumer's. 1 to 255 characters. */
  readonly name: string
  /** It is saved when so many messages were handled since the last time. 1 to 1,000,000. Default: 1000. */
  readonly every?: number | undefined
  /** Or so long after the first of these, whichever comes first. 10 ms to 1 hour. Default: 1 second. */
  readonly within?: Duration.Input | undefined
}

/** How to subscribe to a queue. */
export interface SubscribeOptions extends Omit<AmqpChannel.ConsumeOptions, "consumerTag" | "noAck"> {
  /** The consumer's name on its channel, as the broker's tools show it. Default: a random one. */
  readonly consumerTag?: string | undefined
  /**
   * What health checks call the consumer. Default: its queue, and its `consumerTag` if one was given. A consumer that was
   * started again is the same one by its name.
   */
  readonly name?: string | undefined
  /**
   * Whether the application is ready only while this consumer runs (`AmqpConnection.conditions`, `AmqpHealth`). Default:
   * true. `false` is for consumers that come and go with something else, such as one for each client of a server, whose end
   * is told to that client: they report nothing.
   */
  readonly essential?: boolean | undefined
  /**
   * How many unsettled deliveries the broker sends ahead (`basic.qos`), and so how many are in memory at most. 1 to 65535.
   * Default: 250, or as many as are handled at a time, if that is more. Fewer share the work more evenly among consumers;
   * 1 costs a round trip for each delivery.
   *
   * The last of them waits for `prefetch` times the time of a handler, divided by `concurrency`: choose a prefetch with
   * which that is well below a third of the consumer timeout. A handler of 10 seconds and a concurrency of 1 want 60 at
   * most for the default of 30 minutes. A warning is logged, once, when deliveries have waited for a third of it.
   */
  readonly prefetch?: number | undefined
  /**
   * How long a delivery of this consumer may stay unsettled before the broker takes it back. Whole milliseconds, at least 1, at
   * most 24.8 days. Default: as the queue was declared here (`QueueDeclareOptions.consumerTimeout`), else 30 minutes.
   *
   * RabbitMQ 4.3 takes it from consumers of quorum queues, as the argument `x-consumer-timeout`, in the place of the queue's: it
   * is sent where the queue was declared as one by this application, or is called one by `queueType`. Otherwise it sets nothing
   * on the broker, and states what holds there (`consumer_timeout`, a policy). Either way pauses end before it, and the warning
   * of `prefetch` is derived from it.
   *
   * A delivery that is not settled in time comes again, and its late `ack` fails with `DeliverySettled`. RabbitMQ 4.3 cancels
   * the consumer for it, which goes on as `resubscribe` says; what else it has in hand can still be settled. Up to 4.2 the
   * broker closes the channel, and all that the consumer has in hand comes again.
   */
  readonly consumerTimeout?: Duration.Input | undefined
  /**
   * Declares what is consumed, on the consumer's own channel and before each subscription: for an exclusive queue, which
   * belongs to one connection and goes with it, and for an auto-delete one. Others are better declared by `AmqpTopology`.
   * For nothing but declaring and binding.
   */
  readonly declare?: ((channel: AmqpChannel.AmqpChannel) => Effect.Effect<void, AmqpError>) | undefined
  /**
   * What follows when deliveries cease.
   *
   * | what happens                                       | `"never"` | `"lost"`                                       | `"always"`       |
   * | -------------------------------------------------- | --------- | ---------------------------------------------- | ---------------- |
   * | the connection or the channel is lost              | ends      | subscribes again                               | subscribes again |
   * | the broker cancels, and the queue is there         | ends      | subscribes again                               | subscribes again |
   * | the queue's node is down, or its process crashed   | ends      | waits for it                                   | waits for it     |
   * | the queue is gone, and this application declares it | ends     | subscribes again when it is declared again     | the same         |
   * | the queue is gone, and nothing here declares it    | ends      | ends: `ConsumerCancelled` or `NotFound`        | waits for it     |
   * | there is no such queue at the first start          | ends      | ends with `NotFound`, unless a layer has it    | waits for it     |
   * | there is no connection at the first start          | ends      | waits for it                                   | waits for it     |
   *
   * This application declares a queue by an `AmqpTopology.layer` on the same connection, which declares it again at once
   * when its consumer is cancelled, or by the consumer's own `declare`. A broker cancels for a deleted queue, for a node
   * that has stopped and, from RabbitMQ 4.3 on, for a delivery that was not settled in time (`consumerTimeout`).
   *
   * It tries again after a random time below `reconnect.minDelay`, doubled with each attempt up to `maxDelay`, and logs a
   * warning each time. A lost connection is recovered from, whatever the broker has closed it for. If that may have been a
   * method of this consumer (a quorum queue without a leader: 541), it subscribes again by a connection of its own, which is
   * closed with each attempt; one that has lasted for `reconnect.healthyAfter` is followed by the shared one again.
   *
   * What no waiting changes ends it in any case: no permission, a connection closed for good, a first subscription that the
   * broker has closed the connection for and refuses as such (502, 503, 530, 540: an unknown exchange type in `declare`, for
   * instance), a message that is larger than `maxInboundMessageBodySize` of the configuration (`MessageTooLarge`; it stays
   * in the queue).
   *
   * Default: `"lost"`; for `stream` `"never"`, since whoever holds deliveries of a lost channel wants to know.
   */
  readonly resubscribe?: "never" | "lost" | "always" | undefined
  /**
   * The type of the queue, where this application has not declared it. A consumer has to know that a queue is a stream:
   * from its declaration by this application, from `offset`, `offsets` or the argument `x-stream-offset`, or from
   * `queueType: "stream"`. Without that the first message which is not handled closes the connection on RabbitMQ up to 3.12.6.
   * See `consume` for how streams are consumed.
   */
  readonly queueType?: "classic" | "quorum" | "stream" | undefined
  /** Where to begin reading a stream, if no position is saved. Default: `"next"`. */
  readonly offset?: StreamOffset | undefined
  /** Saves the position in a stream, and goes on there after a restart. Default: it is kept in memory, until the end. */
  readonly offsets?: SavedOffsets | undefined
  /**
   * Signs what `retry` writes into headers (the count and the origin), by HMAC-SHA-256 over the queue, the count, the
   * origin, the content and the properties that a retry keeps. Then only signed headers are believed: without it, whoever
   * may publish to the queue can make up `Delivery.origin`, and a count that ends the retries of his own message early.
   * Counts in the broker's `x-death` are not believed either.
   *
   * At least 16 random bytes, the same for all consumers of the queue. Of several the first one signs and all are believed:
   * to replace a secret, add the new one last everywhere, then move it to the front, then remove the old one. Messages that
   * wait for a retry when it is set first begin again with attempt 1. Default: none, headers are believed if the newest
   * entry of `x-death` names a delay queue of this queue. Refused of a stream, whose messages are not tried again.
   */
  readonly retrySecret?: Redacted.Redacted<string> | ReadonlyArray<Redacted.Redacted<string>> | undefined
  /**
   * Runs when it has ended, whatever the way; for what is left of `shutdownTimeout` at most, or of `closeTimeout` when
   * nothing is.
   */
  readonly onEnd?: ((end: End) => Effect.Effect<void>) | undefined
}

/** How to consume by a handler that fails with `E`. */
export interface ConsumeOptions<E = unknown> extends SubscribeOptions {
  /** How many deliveries are handled at a time, at most; with 1 in the order in which they come. Default: 1. */
  readonly concurrency?: number | undefined
  /**
   * What becomes of a delivery whose handler has failed: a policy, or a function that chooses one by the error. Default:
   * `redeliver`: it comes again after a pause, as often as it takes. Of a stream `stop`.
   */
  readonly onFailure?: Policy | StreamPolicy | ((error: E, delivery: Delivery) => Policy | StreamPolicy) | undefined
  /** What becomes of a delivery whose handler has died of a defect, which is logged as an error. Default: `redeliver`. */
  readonly onDefect?:
    | Policy
    | StreamPolicy
    | ((defect: unknown, delivery: Delivery) => Policy | StreamPolicy)
    | undefined
  /**
   * How often handling a message may begin and not succeed; when it comes once more, it is given up (`onPoison`). At least
   * 1. Default: no limit, it comes back forever.
   *
   * It is compared with `Delivery.attempt`. Among processes, and for a message that kills its process, a redelivered message
   * is counted beside its queue before it is handled: in a classic queue `<queue>.attempts.<hash>`, which holds a record
   * per attempt, exists while the message is in hand or waits for its next attempt, and is removed by the broker when it was
   * not used for a day. That takes a declaration and a confirmed publish per redelivered message: some milliseconds, and
   * the permissions to configure and write such queues. A first delivery costs nothing. See `sharedCount`.
   *
   * The first attempt is not recorded, and only counts if its process lives on. So a message that kills each process is
   * handled once more than this says. 1,000 redelivered messages are recorded at a time and 10 per second after that;
   * others are counted in their process only.
   */
  readonly maxDeliveries?: number | undefined
  /**
   * Whether `maxDeliveries` counts attempts of other processes too, and survives the end of this one. With `false` nothing
   * is declared, and a message that kills its process comes back forever. Queues that are known to be exclusive or
   * auto-delete are counted so in any case, and all queues for a while after a record was refused (403, for
   * one) or not taken within 5 seconds, which is logged as a warning. Default: `true`.
   */
  readonly sharedCount?: boolean | undefined
  /** What becomes of a message that was delivered more often. Default: `deadLetter`. */
  readonly onPoison?: FinalPolicy | undefined
  /**
   * The delivery limit of the queue, if a policy of the broker sets one, or another application has declared it: how often
   * a message may come back before the broker takes it out. -1: there is none. `redeliver` keeps a message that has come
   * back often enough, so that it is not lost. Default: as the queue was declared here; else 20 for a quorum queue of
   * RabbitMQ 4. From 4.3 on what is redelivered does not count, and what `requeue` or `Delivery.reject` gives back does.
   * Refused of a stream, as all options that count attempts.
   */
  readonly deliveryLimit?: number | undefined
  /**
   * How long running handlers may go on when the consumer ends; then they are interrupted, and their deliveries requeued.
   * From 0. Default: what is left of the `shutdownTimeout` of the configuration, which consumers that stop together or right
   * after one another share with the rest of the application. One given here counts from that same moment.
   */
  readonly shutdownTimeout?: Duration.Input | undefined
}

/** What is added when the content is decoded before it is handled. */
export interface DecodeOptions<S extends Schema.Constraint> {
  /** Of the JSON in the content. See `AmqpMessage.json`. */
  readonly schema: S
  /**
   * What becomes of a message whose content is not what the schema wants (`DecodeFailed`). It never stops the consumer.
   * Default: `redeliver`; where publishers can send anything, choose `deadLetter` with a dead-letter exchange.
   */
  readonly onDecodeFailure?:
    | Policy
    | StreamPolicy
    | ((error: AmqpError, delivery: Delivery) => Policy | StreamPolicy)
    | undefined
}

/** When a batch is complete: whichever comes first. */
export interface BatchOptions {
  /** Deliveries in a batch, at most. 1 to 65535; times `concurrency` at most 65535. */
  readonly size: number
  /** How long the first delivery of a batch waits for the others. At least 1 ms. */
  readonly within: Duration.Input
}

/** How to consume by a stream. */
export interface StreamOptions extends SubscribeOptions {
  /**
   * Fails with `InactivityTimeout` when whoever pulls has waited for so long for a delivery. At least 1 ms. To end without
   * an error, use `Stream.timeout` instead. Default: none, it waits for ever.
   */
  readonly inactivityTimeout?: Duration.Input | undefined
}

/** What `consume` and `consumeBatch` need: what the handler needs, save a scope, which each call of it has of its own. */
export type Services<R> = Exclude<R, Scope.Scope> | AmqpConsumer

/** What consumers share. */
export class AmqpConsumer extends Context.Service<
  AmqpConsumer,
  {
    /**
     * The consumers' own connection, for as long as the scope is open: for a channel of one's own, or to watch its state.
     * The first to ask for it makes it, in the background (`lazyConnect`): its state says when it is open.
     */
    readonly connection: Effect.Effect<AmqpConnection["Service"], AmqpError, Scope.Scope>
    /** Publishes what is tried again later. */
    readonly publisher: AmqpPublisher["Service"]
    /** For the library's own parts. A copy of the service keeps it, and one that is made by hand does without. */
    readonly [InsideId]?: object | undefined
  }
>()("@effect-amqp/core/AmqpConsumer") {}
