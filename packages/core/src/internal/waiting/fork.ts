/** How the pool runs effects in the background. */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"

/** Runs an effect in the background, owned by the pool. */
export type Fork = (effect: Effect.Effect<void>) => Fiber.Fiber<void>
