/**
 * A channel, borrowed: the capability to publish, to take messages, to declare what they travel through.
 *
 * A channel belongs to a scope. The scope borrows it from the `AmqpPool` and gives it back, or discards it when it is not
 * fit for the next borrower: there is no call to return it, so none can be forgotten.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { AmqpError } from "./AmqpError.ts"
import type { Delivery, Headers, Message } from "./AmqpMessage.ts"
import { AmqpPool } from "./AmqpPool.ts"

/** How a publish waits. */
export interface PublishOptions {
  /**
   * What to do while the broker has blocked the connection: wait (up to `timeout`), or fail at once with
   * `ConnectionBlocked`. Default: `"wait"`.
   */
  readonly onBlocked?: "wait" | "fail" | undefined
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
  /** Further arguments, such as `alternate-exchange`. */
  readonly arguments?: Headers | undefined
}

/** `queue.declare`. */
export interface QueueDeclareOptions {
  /** Survives a restart of the broker. Default: `true`. */
  readonly durable?: boolean | undefined
  /** Only this connection may use it, and it goes with the connection. Default: `false`. */
  readonly exclusive?: boolean | undefined
  /** Deleted when its last consumer goes. Default: `false`. */
  readonly autoDelete?: boolean | undefined
  /** Further arguments, such as `x-queue-type` or `x-message-ttl`. */
  readonly arguments?: Headers | undefined
}

/** What the broker says of a declared queue. */
export interface QueueDeclared {
  /** The queue's name; the broker's choice if none was given. */
  readonly queue: string
  readonly messageCount: number
  readonly consumerCount: number
}

/**
 * The channel that a scope has borrowed.
 *
 * Every operation is one effect, may be interrupted, and fails with an `AmqpError`. Common to all are `ChannelReleased`
 * (the scope has ended), `ChannelClosed` (the channel died earlier) and, for those that wait for a reply, `ReplyTimeout`
 * (`continuationTimeout`). A channel error (`NotFound`, `AccessRefused`, `PreconditionFailed`, ...) closes this channel;
 * the next `use` in the same scope borrows a fresh one.
 */
export interface AmqpChannel {
  /**
   * `basic.publish`, without a confirm: completes when the connection has taken the bytes and has room for more.
   *
   * It waits, up to `publishTimeout`, while the broker has blocked the connection (then `ConnectionBlocked`: nothing was
   * sent) or while this channel's write buffer is full (then `PublishTimeout`). An exchange that does not exist shows only later: the broker closes the channel,
   * and the message is lost. Use confirms where that matters.
   */
  publish(message: Message, options?: PublishOptions): Effect.Effect<void, AmqpError>
  /** `basic.get`: takes one message, if there is one. It stays unsettled until `ack` or `nack`. */
  get(queue: string): Effect.Effect<Option.Option<Delivery>, AmqpError>
  /**
   * `basic.ack`. Fails with `DeliverySettled` if the delivery was settled before, or was made on another channel or to an
   * earlier borrower: the broker has requeued it then.
   */
  ack(delivery: Delivery): Effect.Effect<void, AmqpError>
  /** `basic.nack`: gives the message back to its queue (`requeue`, the default), or drops or dead-letters it. */
  nack(delivery: Delivery, options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError>
  /** `exchange.declare`. Fails with `PreconditionFailed` if it exists with other properties. */
  exchangeDeclare(
    exchange: string,
    type: ExchangeType,
    options?: ExchangeDeclareOptions
  ): Effect.Effect<void, AmqpError>
  /** `queue.declare`. An empty name lets the broker choose one. Fails with `PreconditionFailed` if it exists with other properties. */
  queueDeclare(queue: string, options?: QueueDeclareOptions): Effect.Effect<QueueDeclared, AmqpError>
  /** `queue.bind`. */
  queueBind(
    queue: string,
    exchange: string,
    routingKey: string,
    options?: { readonly arguments?: Headers | undefined }
  ): Effect.Effect<void, AmqpError>
  /** `queue.delete`: how many messages went with it. */
  queueDelete(queue: string): Effect.Effect<number, AmqpError>
  /** `queue.purge`: how many messages were dropped. */
  queuePurge(queue: string): Effect.Effect<number, AmqpError>
}

/**
 * Uses the channel of the current scope.
 *
 * The first `use` in a scope borrows a channel, further ones in that scope get the same one, so a handler that calls it
 * ten times holds one channel and cannot wait for itself. If that channel has died meanwhile, the next `use` borrows a
 * fresh one. The channel goes back when the scope closes, by success, failure, defect or interruption.
 *
 * Fails as `AmqpPool.get` does while borrowing: `AcquireTimeout`, `PoolExhausted`, `PoolClosed`, or the error of opening.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpChannel, AmqpLive } from "@effect-amqp/core"
 *
 * const program = Effect.scoped(
 *   AmqpChannel.use((channel) => channel.publish({ routingKey: "orders", content: "one order" }))
 * ).pipe(Effect.provide(AmqpLive))
 * ```
 */
export const use = <A, E, R>(
  f: (channel: AmqpChannel) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | AmqpError, R | Scope.Scope | AmqpPool> =>
  Effect.withFiber((fiber) => Effect.flatMap(Context.getUnsafe(fiber.context, AmqpPool).ofScope, f))
