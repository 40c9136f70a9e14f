/**
 * A channel, borrowed: the capability to publish, to take messages, to declare what they travel through.
 *
 * A channel belongs to a scope. The scope borrows it from the `AmqpPool` and gives it back, or discards it when it is not
 * fit for the next borrower: there is no call to return it, so none can be forgotten.
 *
 * Its kind is a type. `use` borrows a regular channel, whose `publish` completes when the bytes are on their way;
 * `useConfirm` one whose `publish` completes with the broker's confirm; `useTransaction` one whose publishes and
 * acknowledgements take effect together, or not at all.
 *
 * A borrowed channel is exclusive. That is what `get`, transactions, returns and declarations want; for publishing in
 * volume there is `AmqpPublisher`, and for consuming `AmqpConsumer`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { AmqpError } from "./model/error.ts"
import { AmqpPool } from "./model/pool.ts"
import type { AmqpChannel, ConfirmChannel, TransactionChannel } from "./model/channel.ts"

export * from "./model/channel.ts"

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

/**
 * Uses the confirm channel of the current scope: as `use`, with a channel whose `publish` completes with the broker's
 * confirm. A scope may hold a regular and a confirm channel beside each other; each comes from a pool of its own.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpChannel, AmqpLive } from "@effect-amqp/core"
 *
 * const program = Effect.scoped(
 *   AmqpChannel.useConfirm((channel) =>
 *     channel.publish({ routingKey: "orders", content: "one order" }, { mandatory: true })
 *   )
 * ).pipe(
 *   Effect.catchReason("AmqpError", "PublishReturned", () => Effect.logError("nobody has declared the queue")),
 *   Effect.provide(AmqpLive)
 * )
 * ```
 */
export const useConfirm = <A, E, R>(
  f: (channel: ConfirmChannel) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | AmqpError, R | Scope.Scope | AmqpPool> =>
  Effect.withFiber((fiber) => Effect.flatMap(Context.getUnsafe(fiber.context, AmqpPool).confirm.ofScope, f))

/**
 * Runs an effect in a transaction: what it publishes and settles on the channel takes effect when it has succeeded
 * (`tx.commit`), or not at all when it fails, dies or is interrupted (`tx.rollback`).
 *
 * The channel is borrowed for this effect alone, so it needs no scope, and a transaction within a transaction is another
 * one. RabbitMQ's transactions are atomic for a single queue, and slow: a commit waits for the disk. For safe publishing
 * alone confirms are cheaper (https://www.rabbitmq.com/docs/semantics#tx).
 *
 * Fails as borrowing does, with the effect's own error, or with that of the commit: then the outcome is unknown if the
 * channel died or the reply did not come in time.
 *
 * @example
 * ```ts
 * import { Effect, Option } from "effect"
 * import { AmqpChannel } from "@effect-amqp/core"
 *
 * // A message moves from one queue to another, or stays where it was.
 * const move = AmqpChannel.useTransaction((channel) =>
 *   Effect.gen(function* () {
 *     const delivery = yield* channel.get("incoming")
 *     if (Option.isNone(delivery)) return
 *     yield* channel.publish({ routingKey: "accepted", content: delivery.value.content })
 *     yield* channel.ack(delivery.value)
 *   })
 * )
 * ```
 */
export const useTransaction = <A, E, R>(
  f: (channel: TransactionChannel) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | AmqpError, R | AmqpPool> =>
  Effect.flatMap(AmqpPool, (pool) =>
    pool.transaction.use((channel) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(
          Effect.exit(restore(Effect.suspend(() => f(channel)))),
          (exit): Effect.Effect<A, E | AmqpError> => {
            if (Exit.isSuccess(exit)) return Effect.as(restore(channel.commit), exit.value)
            // Interrupted or not, the channel is never lent with an open transaction: an unfinished one is discarded with it.
            return Effect.andThen(Effect.ignore(restore(channel.rollback)), Effect.failCause(exit.cause))
          }
        )
      )
    )
  )
