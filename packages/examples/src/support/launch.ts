/** Runs an example as a program of its own. */
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Console, Effect, Exit, Layer, Runtime } from "effect"

/**
 * Builds the layer, keeps it until Ctrl-C or SIGTERM, and takes it down again in order. To be stopped is no failure: the
 * exit code is 0 then, and 1 when the layer could not be built. Of an expected failure only the message is printed.
 */
export const launch = <E extends { readonly message: string }>(layer: Layer.Layer<never, E>): void =>
  Layer.launch(layer).pipe(
    Effect.tapError((error) => Console.error(error.message)),
    Effect.tapDefect((defect) => Console.error(Cause.pretty(Cause.die(defect)))),
    Effect.onInterrupt(() => Console.log("Stopped.")),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      teardown: (exit, onExit) =>
        Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? onExit(0) : Runtime.defaultTeardown(exit, onExit)
    })
  )
