/**
 * A borrowed channel: publishes, gets, consumes and settles messages, and declares what they are routed through.
 *
 * **When to use**
 *
 * Use for `get`, transactions, returned messages and declarations, which need a channel of their own. For publishing in
 * volume use `AmqpPublisher`, and for consuming use `AmqpConsumer`.
 *
 * **Details**
 *
 * A channel belongs to a scope. The scope borrows it from the `AmqpPool`, and returns it when it closes; a channel that
 * must not be reused is discarded instead. There is no call that returns a channel, so an application cannot forget it.
 * A borrowed channel is exclusive.
 *
 * The kind of a channel is a type:
 *
 * - `use` borrows a regular channel, whose `publish` completes when the connection has taken the bytes;
 * - `useConfirm` borrows a channel whose `publish` completes with the broker's confirm;
 * - `useTransaction` borrows a channel whose publishes and acknowledgements take effect together, or not at all.
 *
 * @see {@link use}
 * @see {@link useConfirm}
 * @see {@link useTransaction}
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
 * Uses the regular channel of the current scope.
 *
 * **When to use**
 *
 * Use for `get`, declarations and bindings, and to publish messages whose loss is acceptable.
 *
 * **Details**
 *
 * The first `use` in a scope borrows a channel, and further ones in that scope get the same channel. So a handler that
 * calls `use` ten times holds one channel, and cannot wait for a channel that it holds itself. If that channel has died
 * since, the next `use` borrows a fresh one. The channel is returned when the scope closes, on success, failure, defect
 * or interruption.
 *
 * While borrowing it fails as `AmqpPool.get` does: with `AcquireTimeout`, `PoolExhausted` or `PoolClosed`, or with the
 * error of opening a channel.
 *
 * **Example** (Publishing a message)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpChannel, AmqpLive } from "@effect-amqp/core"
 *
 * const program = Effect.scoped(
 *   AmqpChannel.use((channel) => channel.publish({ routingKey: "orders", content: "one order" }))
 * ).pipe(Effect.provide(AmqpLive))
 * ```
 *
 * @see {@link useConfirm} for publishing with confirms
 * @see {@link useTransaction} for transactions
 *
 * @category resource management
 * @since 0.1.0
 */
export const use = <A, E, R>(
  f: (channel: AmqpChannel) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | AmqpError, R | Scope.Scope | AmqpPool> =>
  Effect.withFiber((fiber) => Effect.flatMap(Context.getUnsafe(fiber.context, AmqpPool).ofScope, f))

/**
 * Uses the confirm channel of the current scope, whose `publish` completes with the broker's confirm.
 *
 * **When to use**
 *
 * Use to publish single messages that must not be lost. For publishing in volume use `AmqpPublisher`.
 *
 * **Details**
 *
 * The first `useConfirm` in a scope borrows a channel, further ones in that scope get the same channel, and it is
 * returned when the scope closes. If that channel has died since, the next `useConfirm` borrows a fresh one. A scope
 * may hold a regular and a confirm channel at the same time; each kind has a pool of its own.
 *
 * While borrowing it fails as `AmqpPool.get` does: with `AcquireTimeout`, `PoolExhausted` or `PoolClosed`, or with the
 * error of opening a channel.
 *
 * **Example** (Publishing a message that must reach a queue)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpChannel, AmqpLive } from "@effect-amqp/core"
 *
 * const program = Effect.scoped(
 *   AmqpChannel.useConfirm((channel) =>
 *     channel.publish({ routingKey: "orders", content: "one order" }, { mandatory: true })
 *   )
 * ).pipe(
 *   Effect.catchReason("AmqpError", "PublishReturned", () => Effect.logError("The queue does not exist")),
 *   Effect.provide(AmqpLive)
 * )
 * ```
 *
 * @see {@link use} for channels without confirms
 *
 * @category resource management
 * @since 0.1.0
 */
export const useConfirm = <A, E, R>(
  f: (channel: ConfirmChannel) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | AmqpError, R | Scope.Scope | AmqpPool> =>
  Effect.withFiber((fiber) => Effect.flatMap(Context.getUnsafe(fiber.context, AmqpPool).confirm.ofScope, f))

/**
 * Runs an effect in a transaction on a channel that is borrowed for it.
 *
 * **When to use**
 *
 * Use to publish and to settle together, or not at all: to move a message from one queue to another, for instance. For
 * safe publishing only, confirms are cheaper (https://www.rabbitmq.com/docs/semantics#tx): use `useConfirm` or
 * `AmqpPublisher`.
 *
 * **Details**
 *
 * What the effect publishes and settles on the channel takes effect when the effect has succeeded (`tx.commit`), or not
 * at all when it fails, dies or is interrupted (`tx.rollback`). The channel is borrowed for this effect only, so no
 * scope is needed, and a transaction within a transaction is a separate one.
 *
 * It fails as borrowing does (`AcquireTimeout`, `PoolExhausted`, `PoolClosed`, or the error of opening a channel), with
 * the effect's own error, or with the error of the commit.
 *
 * **Gotchas**
 *
 * - When the commit fails because the channel died, or because the reply did not arrive in time, the outcome is
 *   unknown.
 * - RabbitMQ's transactions are atomic for a single queue only, and slow: a commit waits for the disk.
 *
 * **Example** (Moving a message from one queue to another)
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import { AmqpChannel } from "@effect-amqp/core"
 *
 * // The message moves, or stays where it was.
 * const move = AmqpChannel.useTransaction((channel) =>
 *   Effect.gen(function* () {
 *     const delivery = yield* channel.get("incoming")
 *     if (Option.isNone(delivery)) return
 *     yield* channel.publish({ routingKey: "accepted", content: delivery.value.content })
 *     yield* channel.ack(delivery.value)
 *   })
 * )
 * ```
 *
 * @see {@link useConfirm} for safe publishing without a transaction
 *
 * @category resource management
 * @since 0.1.0
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
            // A channel with an open transaction is never reused: it is discarded if the rollback fails or is cut off.
            // An interruption cuts it off, and the cause of the effect must survive that.
            return Effect.andThen(Effect.exit(restore(channel.rollback)), Effect.failCause(exit.cause))
          }
        )
      )
    )
  )
