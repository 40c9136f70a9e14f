/** Effects that run as long as the application: consumers and servers as layers. */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { AmqpError } from "../../model/error.ts"
import { fail } from "../../model/failures.ts"
import { invalidArgument } from "../wire/fieldTable.ts"
import { choice, formatValue } from "../wire/optionTable.ts"
import { isEndOfService } from "./runningConsumers.ts"

/** The application that `Amqp.launch` runs: the first background effect that fails ends it. */
class Application extends Context.Reference<Deferred.Deferred<never, AmqpError> | undefined>(
  "@effect-amqp/core/Application",
  { defaultValue: () => undefined }
) {}

/** What follows when a background effect fails. */
export type WhenFailed = "end" | "unready"

const rule = choice<WhenFailed>(["end", "unready"])

/**
 * Runs an effect that never succeeds, until the layer's scope closes.
 *
 * A failure ends the application that `Amqp.launch` runs. With `"unready"` only the condition that the consumer or
 * server has reported remains. Another value is a failure, like any option that the effect refuses.
 */
export const background = <R>(
  operation: string,
  effect: Effect.Effect<never, AmqpError, R>,
  whenFailed: WhenFailed
): Layer.Layer<never, never, Exclude<R, Scope.Scope>> =>
  Layer.effectDiscard(
    Effect.flatMap(Application, (application) =>
      Effect.forkScoped(
        Effect.onExit(rule.read(whenFailed, operation) === undefined ? refuse(operation, whenFailed) : effect, (exit) =>
          Exit.isFailure(exit) ? failed(exit.cause, whenFailed, application) : Effect.void
        )
      )
    )
  )

const refuse = (operation: string, whenFailed: unknown) =>
  fail(invalidArgument(operation, "whenFailed", rule.expected, formatValue(whenFailed)))

const failed = (
  cause: Cause.Cause<AmqpError>,
  whenFailed: WhenFailed,
  application: Deferred.Deferred<never, AmqpError> | undefined
): Effect.Effect<void> => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  // The application is ending already, or the fiber that runs this was interrupted.
  if (whenFailed === "unready" || Cause.hasInterruptsOnly(cause) || (error !== undefined && isEndOfService(error))) {
    return Effect.void
  }
  return application === undefined
    ? Effect.logError(
        'AMQP consumer or server ended, and the application continues without it: run the layer with Amqp.launch to end both, or choose whenFailed: "unready"'
      )
    : Effect.asVoid(Deferred.failCause(application, cause))
}

/** Runs a layer until it is interrupted, or until one of its background effects fails. */
export const launch = <ROut, E, RIn>(layer: Layer.Layer<ROut, E, RIn>): Effect.Effect<never, E | AmqpError, RIn> =>
  Effect.flatMap(Deferred.make<never, AmqpError>(), (application) =>
    Effect.scoped(
      // A background effect may fail while another layer is still being built.
      Effect.raceFirst(
        Effect.andThen(Effect.provideService(Layer.build(layer), Application, application), Effect.never),
        Deferred.await(application)
      )
    )
  )
