/** Reports conditions of other packages, each under a key of its own. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AmqpConnection, ConditionReporter } from "../../model/connection.ts"
import { ConnectionInside } from "./connectionInternals.ts"

let reporters = 0

/** A reporter whose condition is cleared when the scope closes. For a connection made by hand it reports nothing. */
export const makeConditionReporter = (
  connection: AmqpConnection["Service"]
): Effect.Effect<ConditionReporter, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const internals = ConnectionInside.of(connection)
      const key = `reporter ${++reporters}`
      let isOpen = true
      const clear = Effect.sync(() => internals?.conditions.clear(key))
      const close = Effect.suspend(() => {
        isOpen = false
        return clear
      })
      const report: ConditionReporter["report"] = ({ kind, message, notReady }) =>
        Effect.sync(() => {
          if (!isOpen) return
          internals?.conditions.report(key, { kind, message, notReady }, internals.clock.currentTimeMillisUnsafe())
        })
      return { reporter: { report, clear }, close }
    }),
    ({ close }) => close
  ).pipe(Effect.map(({ reporter }) => reporter))
