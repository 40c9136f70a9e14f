/** The consumers' connection, which is open while there are consumers. */
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
import { shareInternals, type ConnectionInternals, connectionInternals } from "../connection/connectionInternals.ts"
import { SharedLogin } from "../connection/login.ts"
import { ownConfig } from "./ownConfig.ts"

// Short-lived streams, for instance one per request, must not open a connection each time.
const idleTimeToLive = "10 seconds"

/** The reason why a consumer does not start after the end of its service. */
export const notStarted = new AmqpError.ConnectionClosed({
  message: "basic.consume: the scope of the AmqpConsumer has closed. Nothing was sent."
})

/** The users of the shared connection. */
export interface ConnectionUsers {
  /** The connection, while there is one. */
  readonly connection: SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>
  /** Stops all users. */
  readonly stop: Effect.Effect<void>
}

/**
 * A separate connection that all consumers share. It uses the settings and the secret of `main`, and belongs to the
 * same application. It is opened in the background: a consumer that starts while the broker is unavailable waits for
 * the broker, as a running consumer does.
 */
export const sharedConnection = Effect.fnUntraced(function* (
  main: AmqpConnection["Service"],
  running: ConnectionUsers
): Effect.fn.Return<Effect.Effect<AmqpConnection["Service"], AmqpError.AmqpError, Scope.Scope>, never, Scope.Scope> {
  const connect = Effect.tap(make(ownConfig(main.config)), (connection) => {
    shareInternals(connection, main)
    // Runs before the connection closes. A newer connection may have replaced this one already, if this one was closed
    // for good.
    const gone = SubscriptionRef.update(running.connection, (now) => (now === connection ? undefined : now))
    return Effect.andThen(
      SubscriptionRef.set(running.connection, connection),
      Effect.addFinalizer(() => gone)
    )
  })
  // The first consumer's fiber makes the connection, but all consumers share it. So it has the annotations, spans and
  // loggers of the layer, and none of that consumer's.
  const context = yield* Effect.context<never>()
  const login = Effect.provideService(connect, SharedLogin, connectionInternals(main).login)
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
      // The connection is closed for good, and other consumers that have not noticed that yet still hold it.
      connection.state.value._tag === "Closed"
        ? Effect.andThen(RcRef.invalidate(shared), RcRef.get(shared))
        : Effect.succeed(connection)
    ).pipe(
      // An ended `RcRef` interrupts its waiting and new users: a consumer would end without a reason.
      Effect.catchCause((cause) =>
        hasEnded && Cause.hasInterruptsOnly(cause) ? fail(notStarted) : Effect.failCause(cause)
      )
    )
  })
})

/**
 * A connection for one consumer whose subscription has ended the shared connection, or may have done so. It is open
 * until the scope closes, and opened in the background, too.
 */
export const openDedicatedConnection =
  (main: AmqpConnection["Service"]) =>
  (queue: string): Effect.Effect<ConnectionInternals, AmqpError.AmqpError, Scope.Scope> => {
    const { connectionName } = main.config
    const config: AmqpConfig = {
      ...main.config,
      connectionName: `${connectionName === undefined ? "" : `${connectionName} `}consumer of ${queue}`,
      lazyConnect: true
    }
    return Effect.map(
      Effect.provideService(make(config), SharedLogin, connectionInternals(main).login),
      (connection) => {
        shareInternals(connection, main)
        return connectionInternals(connection)
      }
    )
  }
