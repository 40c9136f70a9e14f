/** The pool, for scopes of Effect 3. */
import type { AmqpPool as Core } from "@effect-amqp/core"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Scope4 from "@effect-amqp/effect4/Scope"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { AmqpError } from "../model/error.ts"
import type { ChannelsOf } from "../model/pool.ts"
import { type AmqpInside, makeChannel3, makeConfirmChannel3, makeTransactionChannel3, once } from "./channels.ts"
import { borrow4, closeScope, run4, scopeOf } from "./run.ts"

const channelsOf = <Channel4 extends object, Channel>(
  inside: AmqpInside,
  channels: Core.ChannelsOf<Channel4>,
  make: (inside: AmqpInside, channel: Channel4) => Channel
): ChannelsOf<Channel> => {
  const toChannel = once(make)
  const wrap = (channel: Channel4) => toChannel(inside, channel)
  const within = (
    effect: Effect4.Effect<Channel4, unknown, Scope4.Scope>,
    scope: Scope4.Scope
  ): Effect.Effect<Channel, AmqpError> => run4(inside, Effect4.provideService(effect, Scope4.Scope, scope), wrap)
  return {
    // The finalizer is added for a channel, and not for an attempt: a scope that is open for long may attempt many times.
    get: Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const lease = Scope4.makeUnsafe()
        return Effect.flatMap(
          Effect.exit(restore(within(channels.get, lease))),
          // An attempt that is interrupted may have its channel already.
          (exit): Effect.Effect<Channel, AmqpError, Scope.Scope> =>
            Exit.isSuccess(exit)
              ? Effect.as(
                  Effect.addFinalizer((end) => closeScope(lease, end)),
                  exit.value
                )
              : Effect.zipRight(closeScope(lease, exit), exit)
        )
      })
    ),
    ofScope: Effect.flatMap(Effect.scope, (scope) =>
      Effect.flatMap(scopeOf(scope), (scope) => within(channels.ofScope, scope))
    ),
    use: (f) =>
      borrow4(
        inside,
        (hold: (channel: Channel4) => Effect4.Effect<void>) => channels.use(hold),
        (channel) => f(make(inside, channel))
      ),
    stats: run4(inside, channels.stats)
  }
}

export const makePool = (inside: AmqpInside, pool: Core.AmqpPool["Service"]) => ({
  ...channelsOf(inside, pool, makeChannel3),
  confirm: channelsOf(inside, pool.confirm, makeConfirmChannel3),
  transaction: channelsOf(inside, pool.transaction, makeTransactionChannel3)
})
