/**
 * Consuming: handlers that settle by how they end, streams of deliveries, batches.
 *
 * `consume` is for services: it runs a handler for each delivery, acknowledges what succeeded, and does with what failed
 * what its policies say. `consumeBatch` does the same for many deliveries together. `stream` hands deliveries out one by
 * one, for whoever settles them himself.
 *
 * All consumers of a layer share one connection, apart from that of the publishers: a broker that is short of memory
 * blocks connections that publish, and deliveries and acknowledgements have to go on meanwhile. It is made for the first
 * consumer, and closed some seconds after the last. Each consumer has a channel of its own on it.
 *
 * Deliveries come at least once: after a lost connection, a shutdown or a failure the same message comes again, perhaps
 * after it was handled. Handlers have to be idempotent.
 *
 * Handlers are fibers, so heartbeats and acknowledgements go on while they wait, however long. One that computes without
 * ever waiting holds up the whole process: after two to three heartbeats the broker takes the connection for dead. Let it
 * pause with `Effect.yieldNow`, or compute in a worker thread.
 *
 * @since 0.1.0
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type * as AmqpChannel from "./AmqpChannel.ts"
import { AmqpConnection } from "./AmqpConnection.ts"
import type { AmqpError } from "./model/error.ts"
import { type DeliveredProperties, json } from "./AmqpMessage.ts"
import { AmqpPublisher } from "./AmqpPublisher.ts"
import { sharedConnection } from "./internal/consumer/connection.ts"
import { handleBatches, handleEach, refuse } from "./internal/consumer/handling.ts"
import { readBatching, readHandling, readStream } from "./internal/consumer/options.ts"
import type { FinalPolicy, Policy } from "./model/policies.ts"
import type { StreamPolicy } from "./model/streamPolicies.ts"
import type { OffsetStore } from "./AmqpOffsetStore.ts"
import { accessOf, queuesOf, register, Running, runningOf } from "./internal/consumer/running.ts"
import * as Streaming from "./internal/consumer/streaming.ts"
import { isRefused } from "./internal/wire/declarations.ts"

export * from "./model/policies.ts"
export * from "./model/streamPolicies.ts"

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
 * in whole seconds, or since some time `ago` (1 s to 50 years). By a time the broker begins with the chunk that has it, so that
 * earlier messages may come first.
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
   * entry of `x-death` names a delay queue of this queue.
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
   * is declared, and a message that kills its process comes back forever. Queues that are known to be exclusive,
   * auto-delete or a stream are counted so in any case, and all queues for a while after a record was refused (403, for
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
  }
>()("@effect-amqp/core/AmqpConsumer") {}

/**
 * Runs a handler for each delivery of a queue, and settles the delivery by how the handler ends:
 *
 * | the handler          | the delivery                                                                   |
 * | -------------------- | ------------------------------------------------------------------------------ |
 * | succeeds             | acknowledged                                                                   |
 * | fails                | `onFailure`, by default `redeliver`                                            |
 * | dies of a defect     | `onDefect`, by default `redeliver`; logged as an error                         |
 * | is interrupted       | given back: at once when the consumer ends, like `redeliver` if it was by itself |
 * | settles it itself    | as the handler did; how it ends is logged only                                 |
 * | is not even called   | `onDecodeFailure` if it could not be decoded, `onPoison` if it comes too often |
 *
 * With a `schema` the handler gets the decoded value, and the delivery as its second argument. Each call has a scope of
 * its own, closed before the delivery is settled, so `AmqpChannel.use` in a handler borrows for that call. Fork with
 * `Effect.forkScoped` what is to end with the call: calls take turns on the same fibers, so what `Effect.forkChild` starts
 * goes on until the consumer ends.
 *
 * It runs until it is interrupted, or fails with an `AmqpError`; never does it end in silence, and a failure is logged as
 * an error besides. It fails with `InvalidArgument` (an option was refused, nothing was sent), with why there will be
 * no connection (login, virtual host, certificate), with `NotFound` or `AccessRefused` when it cannot consume, and as `resubscribe` says.
 *
 * Interrupted, it ends in order. The broker is asked for no more (`basic.cancel`); running handlers may go on for
 * `shutdownTimeout`, then they are interrupted. When nothing is in hand, one `basic.nack` gives back what nobody has seen,
 * together with what the interrupted handlers had; what is still in hand then goes back when the channel closes. The
 * single active consumer of a classic queue on RabbitMQ 3 is not cancelled, since that can crash the queue: the close of
 * its channel ends it.
 * Handlers that are running when their channel is lost go on too, but cannot settle: their deliveries come again.
 * If nobody interrupts it before the scope of the `AmqpConsumer` closes, it ends in the same order then, with
 * `ConnectionClosed`; handlers can publish and borrow until they are done.
 *
 * A stream is consumed in the same way, with these differences. Messages stay in it, so nothing is given back: what is not
 * handled ends the consumer (`stop`, the default, with `StreamStopped`), or is passed over (`skip`, `publishTo`), and
 * `maxDeliveries` and the policies of queues are refused. The consumer has a position, the lowest offset that is not handled,
 * and goes on there after each reconnect: nothing is passed over, and what handlers have in hand meanwhile is not handed to
 * them again. With `offsets` it goes on there after a restart, too. At most `prefetch` messages (and what is left of a chunk) are
 * above the position, so a message that takes long holds up the others when that many have been handled behind it. A
 * consumer that begins at `"next"` and is cut off before its first message may get those of the last 5 seconds before it began, one
 * that begins at `"last"` those of the last minute.
 *
 * There are as many fibers as handlers run at a time, and `prefetch` deliveries in memory, however slow the handlers are.
 * RabbitMQ takes a delivery back that is not settled within 30 minutes: see `consumerTimeout`.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { AmqpConsumer } from "@effect-amqp/core"
 *
 * class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { item: Schema.String }) {}
 * class Timeout extends Schema.TaggedError<Timeout>()("Timeout", {}) {}
 *
 * const Order = Schema.Struct({ id: Schema.Int, item: Schema.String })
 * declare const fulfil: (order: typeof Order.Type) => Effect.Effect<void, OutOfStock | Timeout>
 *
 * const orders = AmqpConsumer.consume("orders", fulfil, {
 *   schema: Order,
 *   concurrency: 10,
 *   onFailure: (error) =>
 *     error._tag === "Timeout"
 *       ? AmqpConsumer.retry({ delays: ["1 second", "10 seconds", "1 minute"] })
 *       : AmqpConsumer.deadLetter
 * })
 *
 * // Beside the rest of the application, which ends if this does.
 * declare const server: Effect.Effect<never>
 * const main = Effect.raceFirst(server, orders)
 * ```
 */
export const consume: {
  <S extends Schema.Constraint, A, E, R>(
    queue: string,
    handler: (value: S["Type"], delivery: Delivery) => Effect.Effect<A, E, R>,
    options: ConsumeOptions<NoInfer<E>> & DecodeOptions<S>
  ): Effect.Effect<never, AmqpError, Services<R | S["DecodingServices"]>>
  <A, E, R>(
    queue: string,
    handler: (delivery: Delivery) => Effect.Effect<A, E, R>,
    options?: ConsumeOptions<NoInfer<E>>
  ): Effect.Effect<never, AmqpError, Services<R>>
} = <A, E, R>(
  queue: string,
  handler: (...args: ReadonlyArray<never>) => Effect.Effect<A, E, R>,
  options?: ConsumeOptions<never> & Partial<DecodeOptions<Schema.Constraint>>
): Effect.Effect<never, AmqpError, Services<R>> =>
  Effect.flatMap(AmqpConsumer, (consumer) => {
    const settings = readHandling(queue, options, handler, queuesOf(consumer))
    return isRefused(settings)
      ? refuse(consumer, accessOf(consumer), queue, settings)
      : handleEach(consumer, settings, decoderOf(options), handler)
  }) as Effect.Effect<never, AmqpError, Services<R>>

/**
 * Runs a handler for many deliveries together: for work that is cheaper in bulk, such as inserting rows.
 *
 * A batch has at least one delivery, and is complete with `size` of them or `within` a time of its first, whichever comes
 * first. If the handler succeeds, all of them are acknowledged, with one `multiple` acknowledgement as far as that
 * covers no delivery outside the batch; with a `concurrency` above 1 an earlier batch may still be at work. If it fails,
 * dies or is interrupted, each delivery is settled by the policy, which a function may choose for each: a delivery that
 * the handler has settled itself stays as it is. Those that cannot be decoded or come too often are taken out before.
 *
 * With a `schema` the handler gets the decoded values, and the deliveries in the same order as its second argument. For
 * the rest it is like `consume`.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { AmqpConsumer } from "@effect-amqp/core"
 *
 * const Reading = Schema.Struct({ sensor: Schema.String, celsius: Schema.Number })
 * declare const insert: (rows: ReadonlyArray<typeof Reading.Type>) => Effect.Effect<void, Error>
 *
 * const readings = AmqpConsumer.consumeBatch("readings", (rows) => insert(rows), {
 *   schema: Reading,
 *   size: 500,
 *   within: "200 millis",
 *   onFailure: AmqpConsumer.retry({ delay: "5 seconds", times: 10 })
 * })
 * ```
 */
export const consumeBatch: {
  <S extends Schema.Constraint, A, E, R>(
    queue: string,
    handler: (
      values: NonEmptyReadonlyArray<S["Type"]>,
      deliveries: NonEmptyReadonlyArray<Delivery>
    ) => Effect.Effect<A, E, R>,
    options: BatchOptions & ConsumeOptions<NoInfer<E>> & DecodeOptions<S>
  ): Effect.Effect<never, AmqpError, Services<R | S["DecodingServices"]>>
  <A, E, R>(
    queue: string,
    handler: (deliveries: NonEmptyReadonlyArray<Delivery>) => Effect.Effect<A, E, R>,
    options: BatchOptions & ConsumeOptions<NoInfer<E>>
  ): Effect.Effect<never, AmqpError, Services<R>>
} = <A, E, R>(
  queue: string,
  handler: (...args: ReadonlyArray<never>) => Effect.Effect<A, E, R>,
  options: BatchOptions & ConsumeOptions<never> & Partial<DecodeOptions<Schema.Constraint>>
): Effect.Effect<never, AmqpError, Services<R>> =>
  Effect.flatMap(AmqpConsumer, (consumer) => {
    const settings = readBatching(queue, options, handler, queuesOf(consumer))
    return isRefused(settings)
      ? refuse(consumer, accessOf(consumer), queue, settings)
      : handleBatches(consumer, settings, decoderOf(options), handler)
  }) as Effect.Effect<never, AmqpError, Services<R>>

const decoderOf = (options: Partial<DecodeOptions<Schema.Constraint>> | undefined) =>
  options?.schema === undefined ? undefined : json(options.schema).decode

/**
 * The deliveries of a queue as a stream, to be settled by `ack`, `nack` or `reject` of each.
 *
 * They are pulled one by one; up to `prefetch` wait in memory. The stream never ends by itself: it fails, as `resubscribe`
 * says, or it is left: `Stream.take(10)` gets ten. Whatever the way, it cancels its consumer, the broker requeues what
 * was sent ahead and what was not settled, and the channel is closed before the stream's end is seen. `onEnd` and the
 * log tell how many there were. So settle deliveries inside of the stream: later, `ack` fails with `DeliverySettled`.
 *
 * To consume without acknowledgements (`noAck`) use `AmqpChannel`'s `consume`: nothing would limit what is sent ahead.
 *
 * @example
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { AmqpConsumer, AmqpMessage } from "@effect-amqp/core"
 *
 * const firstTen = AmqpConsumer.stream("orders", { inactivityTimeout: "30 seconds" }).pipe(
 *   Stream.tap((delivery) => Effect.andThen(Effect.log(AmqpMessage.text(delivery)), delivery.ack)),
 *   Stream.take(10),
 *   Stream.runDrain
 * )
 * ```
 */
export const stream = (queue: string, options?: StreamOptions): Stream.Stream<Delivery, AmqpError, AmqpConsumer> =>
  Stream.unwrap(
    Effect.map(AmqpConsumer, (consumer) => {
      const settings = readStream(queue, options, queuesOf(consumer))
      return isRefused(settings)
        ? Stream.fromEffect(refuse(consumer, accessOf(consumer), queue, settings))
        : Streaming.stream(consumer, settings)
    })
  )

/** What consumers share, made of the connection and the publisher in context, until the scope closes. */
export const make: Effect.Effect<AmqpConsumer["Service"], never, AmqpConnection | AmqpPublisher | Scope.Scope> =
  Effect.gen(function* () {
    const main = yield* AmqpConnection
    const publisher = yield* AmqpPublisher
    const connection = yield* SubscriptionRef.make<AmqpConnection["Service"] | undefined>(undefined)
    const running = new Running(main, connection, yield* Clock.Clock)
    // First, so last: until its consumers have ended.
    yield* Effect.addFinalizer(() => Effect.sync(() => running.presences.end()))
    return register({ connection: yield* sharedConnection(main, running), publisher }, running)
  })

/**
 * The consumers' own connection as it comes and goes: `undefined` while nobody consumes, and has consumed for some seconds.
 * For whoever wants to look at it; `connection` of the service makes one, and keeps it.
 *
 * @example
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const { value } = yield* AmqpConsumer.ownConnection
 *   yield* Effect.log(value === undefined ? "nobody consumes" : value.state.value._tag)
 * })
 * ```
 */
export const ownConnection: Effect.Effect<
  SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>,
  never,
  AmqpConsumer
> = Effect.flatMap(AmqpConsumer, (consumer) => {
  const running = runningOf(consumer)
  return running === undefined
    ? SubscriptionRef.make<AmqpConnection["Service"] | undefined>(undefined)
    : Effect.succeed(running.connection)
})

/**
 * Consumers as a layer. They connect with the settings of the `AmqpConnection` in context, to the same broker, by a
 * connection of their own, whose name ends in ` consumers`.
 */
export const layer: Layer.Layer<AmqpConsumer, never, AmqpConnection | AmqpPublisher> = Layer.effect(AmqpConsumer, make)
