/** Runs an example as a separate program. */
import { NodeRuntime } from "@effect/platform-node"
import { Cause, Console, Effect, Exit, Layer, Runtime } from "effect"
import * as CompactLogger from "./CompactLogger.ts"

/**
 * Builds the layer, keeps it until Ctrl-C or SIGTERM, and releases it in order. An interruption is not a failure: the
 * exit code is 0 then, and 1 if the layer could not be built. For an expected failure only the message is printed.
 */
export const launch = <E extends { readonly message: string }>(layer: Layer.Layer<never, E>): void =>
  Layer.launch(layer).pipe(
    Effect.tapError((error) => Console.error(error.message)),
    Effect.tapDefect((defect) => Console.error(Cause.pretty(Cause.die(defect)))),
    Effect.onInterrupt(() => Console.log("Stopped.")),
    Effect.provide(CompactLogger.layer),
    NodeRuntime.runMain({
      disableErrorReporting: true,
      teardown: (exit, onExit) =>
        Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? onExit(0) : Runtime.defaultTeardown(exit, onExit)
    })
  )
