/** The consumers' connection: there while somebody consumes. */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as RcRef from "effect/RcRef"
import * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpConfig } from "../../model/config.ts"
import type { AmqpConnection } from "../../model/connection.ts"
import { make } from "../connection/supervisor.ts"
import * as AmqpError from "../../model/error.ts"
import { fail } from "../../model/failures.ts"
import { joinTo, type Links, linksOf } from "../connection/links.ts"
import { SharedLogin } from "../connection/login.ts"
import { ownConfig } from "./ownConfig.ts"

// Streams that come and go, one a request for instance, are not to connect each time.
const idleTimeToLive = "10 seconds"

/** Why a consumer does not start after the end of its service. */
export const notStarted = new AmqpError.ConnectionClosed({
  message: "basic.consume: nothing was sent: the scope of the AmqpConsumer has ended"
})

/** Who uses the shared connection. */
export interface Users {
  /** The connection while there is one. */
  readonly connection: SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>
  /** Ends them. */
  readonly stop: Effect.Effect<void>
}

/**
 * A connection of its own for all who ask for it, by the settings and the secret of `main`, with which it is one
 * application. It is made in the background: a consumer that starts while the broker is away is to wait for it, as one
 * that was there before does.
 */
export const sharedConnection = Effect.fnUntraced(function* (
  main: AmqpConnection["Service"],
  running: Users
): Effect.fn.Return<Effect.Effect<AmqpConnection["Service"], AmqpError.AmqpError, Scope.Scope>, never, Scope.Scope> {
  const connect = Effect.tap(make(ownConfig(main.config)), (connection) => {
    joinTo(connection, main)
    // Before it closes. Another may be there already, if this one was closed for good.
    const gone = SubscriptionRef.update(running.connection, (now) => (now === connection ? undefined : now))
    return Effect.andThen(
      SubscriptionRef.set(running.connection, connection),
      Effect.addFinalizer(() => gone)
    )
  })
  // The first consumer's fiber makes it, and all consumers share it: it has the annotations, spans and loggers of the layer,
  // and none of that consumer's.
  const context = yield* Effect.context<never>()
  const login = Effect.provideService(connect, SharedLogin, linksOf(main).login)
  const acquire = Effect.updateContext(login, (asking: Context.Context<Scope.Scope>) =>
    Context.add(context, Scope.Scope, Context.get(asking, Scope.Scope))
  )
  const shared = yield* RcRef.make({ acquire, idleTimeToLive })
  let hasEnded = false
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      hasEnded = true
      return running.stop
    })
  )
  return Effect.suspend(() => {
    if (hasEnded) return fail(notStarted)
    return Effect.flatMap(RcRef.get(shared), (connection) =>
      // Closed for good, and kept by others that have not noticed yet.
      connection.state.value._tag === "Closed"
        ? Effect.andThen(RcRef.invalidate(shared), RcRef.get(shared))
        : Effect.succeed(connection)
    ).pipe(
      // An ended `RcRef` interrupts whoever asks or waits: a consumer would end without a word.
      Effect.catchCause((cause) =>
        hasEnded && Cause.hasInterruptsOnly(cause) ? fail(notStarted) : Effect.failCause(cause)
      )
    )
  })
})

/**
 * A connection for one consumer, whose subscription has ended the one that all share, or may have: as long as the scope is
 * open. It is made in the background, too.
 */
export const aloneOf =
  (main: AmqpConnection["Service"]) =>
  (queue: string): Effect.Effect<Links, AmqpError.AmqpError, Scope.Scope> => {
    const { connectionName } = main.config
    const config: AmqpConfig = {
      ...main.config,
      connectionName: `${connectionName === undefined ? "" : `${connectionName} `}consumer of ${queue}`,
      lazyConnect: true
    }
    return Effect.map(Effect.provideService(make(config), SharedLogin, linksOf(main).login), (connection) => {
      joinTo(connection, main)
      return linksOf(connection)
    })
  }
