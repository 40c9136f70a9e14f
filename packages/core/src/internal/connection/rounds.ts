/** Rounds over the hosts of a cluster, each of which begins behind the host that was tried last. */
import * as Effect from "effect/Effect"
import type { AmqpConfig, Host } from "../../model/config.ts"
import type { AmqpError } from "../../model/error.ts"
import { peerOf } from "../telemetry/logging.ts"
import { isOfLogin, isRefusal } from "./refusals.ts"

/**
 * Tries hosts until one takes the connection. One that refuses is passed over, and logged: at Warning in the first round. If
 * none takes it, a refused login counts, then what may pass, then another refusal: see `make`.
 */
export const roundsOver = (
  hosts: AmqpConfig["hosts"],
  connectTo: (host: Host) => Effect.Effect<void, AmqpError>
): ((isRepeated: boolean) => Effect.Effect<void, AmqpError>) => {
  let next = 0
  return Effect.fnUntraced(function* (isRepeated) {
    let passing: AmqpError | undefined
    let final: AmqpError | undefined
    for (let i = 0; i < hosts.length; i++) {
      const host = hosts[next++ % hosts.length]!
      const error = yield* Effect.match(connectTo(host), { onFailure: (error) => error, onSuccess: () => undefined })
      if (error === undefined) return
      if (!isRefusal(error.reason)) {
        passing = error
        continue
      }
      if (final === undefined || !isOfLogin(final.reason)) final = error
      if (hosts.length > 1) {
        const text = "AMQP host refused"
        yield* Effect.annotateLogs(isRepeated ? Effect.logDebug(text) : Effect.logWarning(text), {
          host: peerOf(host),
          reason: error.reason.message
        })
      }
    }
    return yield* Effect.fail(
      final !== undefined && (passing === undefined || isOfLogin(final.reason)) ? final : passing!
    )
  })
}
