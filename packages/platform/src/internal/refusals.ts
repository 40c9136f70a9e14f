/** Arguments that the bridge itself refuses, in the wording of the core. */
import * as Effect from "effect/Effect"
import * as AmqpError from "../model/error.ts"

export const refuse = (
  operation: string,
  argument: string,
  expected: string,
  got: string
): Effect.Effect<never, AmqpError.AmqpError> =>
  Effect.fail(
    AmqpError.fromReason(
      new AmqpError.reasons.InvalidArgument({
        message: `${operation}: ${argument}: expected ${expected}, got ${got}. Nothing was sent.`,
        operation,
        argument
      })
    )
  )
