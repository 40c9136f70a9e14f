/** An effect that fails with a reason. */
import * as Effect from "effect/Effect"
import * as AmqpError from "./error.ts"

export const fail = (reason: AmqpError.AmqpErrorReason): Effect.Effect<never, AmqpError.AmqpError> =>
  Effect.fail(AmqpError.fromReason(reason))
