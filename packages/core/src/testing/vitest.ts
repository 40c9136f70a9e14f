import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Lobby from "./internal/lobby.ts"
import * as Resolve from "./internal/resolve.ts"

/**
 * A `globalSetup` for vitest: one broker for the whole test run, started when the first test file needs one, and
 * stopped at the end.
 *
 * **When to use**
 *
 * Use in a vitest configuration, so that the worker processes share a broker. Without it, every worker process starts
 * its own.
 *
 * **Example** (A vitest configuration)
 *
 * ```ts
 * import { defineConfig } from "vitest/config"
 *
 * export default defineConfig({
 *   test: { globalSetup: ["@effect-amqp/core/testing/vitest"] }
 * })
 * ```
 *
 * @category setup
 * @since 0.1.0
 */
export default async function setup(): Promise<() => Promise<void>> {
  const scope = Scope.makeUnsafe()
  await Effect.runPromise(Scope.provide(Lobby.open(Resolve.first(Resolve.ways({ exclusive: false }))), scope))
  return () => Effect.runPromise(Scope.close(scope, Exit.void))
}
