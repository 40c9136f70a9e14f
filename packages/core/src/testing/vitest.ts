import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Lobby from "./internal/lobby.ts"
import * as Resolve from "./internal/resolve.ts"

/**
 * A `globalSetup` for vitest: one broker for the whole run, started when the first test file wants one, and stopped at
 * the end. Without it, every worker process starts its own.
 *
 * @example
 * ```ts
 * import { defineConfig } from "vitest/config"
 *
 * export default defineConfig({
 *   test: { globalSetup: ["@effect-amqp/core/testing/vitest"] }
 * })
 * ```
 */
export default async function setup(): Promise<() => Promise<void>> {
  const scope = Scope.makeUnsafe()
  await Effect.runPromise(Scope.provide(Lobby.open(Resolve.first(Resolve.ways({ exclusive: false }))), scope))
  return () => Effect.runPromise(Scope.close(scope, Exit.void))
}
