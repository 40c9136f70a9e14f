/** Effects that run as long as the application: consumers and servers as layers. */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { AmqpError } from "../model/error.ts"
import { refuse } from "./refusals.ts"

/** The application that `Amqp.launch` runs: the first background effect that fails ends it. */
const application = globalValue(Symbol.for("@effect-amqp/platform/Application"), () =>
  FiberRef.unsafeMake<Deferred.Deferred<never, AmqpError> | undefined>(undefined)
)

/** What follows when a background effect fails. */
export type WhenFailed = "end" | "unready"

const isWhenFailed = (value: unknown): value is WhenFailed => value === "end" || value === "unready"

const describe = (value: unknown): string => {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)
  return typeof value === "object" && value !== null ? "an object" : String(value)
}

/**
 * Runs an effect that never succeeds, until the layer's scope closes.
 *
 * A failure ends the application that `Amqp.launch` runs. With `"unready"` only the condition that the consumer or
 * server has reported remains. Another value is a failure, like any option that the effect refuses. `isEnding` says
 * whether the services of the effect are ending already.
 */
export const background = <R>(
  operation: string,
  effect: Effect.Effect<never, AmqpError, R>,
  whenFailed: WhenFailed,
  isEnding: Effect.Effect<boolean, never, R>
): Layer.Layer<never, never, Exclude<R, Scope.Scope>> =>
  Layer.scopedDiscard(
    Effect.forkScoped(
      // An interruption passes: the layer's scope has closed.
      Effect.catchAllCause(
        isWhenFailed(whenFailed) ? effect : refuse(operation, "whenFailed", '"end" or "unready"', describe(whenFailed)),
        (cause) =>
          whenFailed === "unready" || Cause.isInterruptedOnly(cause)
            ? Effect.void
            : Effect.flatMap(isEnding, (isEnding) => (isEnding ? Effect.void : failed(cause)))
      )
    )
  )

const failed = (cause: Cause.Cause<AmqpError>): Effect.Effect<void> =>
  Effect.flatMap(FiberRef.get(application), (launched) =>
    launched === undefined
      ? Effect.logError(
          'AMQP consumer or server ended, and the application continues without it: run the layer with Amqp.launch to end both, or choose whenFailed: "unready"'
        )
      : Effect.asVoid(Deferred.failCause(launched, cause))
  )

/** Runs a layer until it is interrupted, or until one of its background effects fails. */
export const launch = <ROut, E, RIn>(layer: Layer.Layer<ROut, E, RIn>): Effect.Effect<never, E | AmqpError, RIn> =>
  Effect.flatMap(Deferred.make<never, AmqpError>(), (launched) =>
    Effect.scoped(
      // A background effect may fail while another layer is still being built.
      Effect.raceFirst(
        Effect.zipRight(Effect.locally(Layer.build(layer), application, launched), Effect.never),
        Deferred.await(launched)
      )
    )
  )
