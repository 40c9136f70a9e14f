/** Tries the hosts of a cluster in rounds. Each round starts after the host that was tried last. */
import * as Effect from "effect/Effect"
import type { AmqpConfig, Host } from "../../model/config.ts"
import type { AmqpError } from "../../model/error.ts"
import { peerOf } from "../telemetry/logging.ts"
import { isLoginRefusal, isRefusal } from "./refusals.ts"

/**
 * Tries hosts until one accepts the connection. A host that refuses is skipped and logged, at Warning in the first
 * round and at Debug later. When no host accepts, the round fails with a refused login if there is one, then with a
 * transient failure, then with another refusal: see `make` in `supervisor.ts`.
 */
export const makeHostRotation = (
  hosts: AmqpConfig["hosts"],
  connectTo: (host: Host) => Effect.Effect<void, AmqpError>
): ((isRepeated: boolean) => Effect.Effect<void, AmqpError>) => {
  let next = 0
  return Effect.fnUntraced(function* (isRepeated) {
    let transient: AmqpError | undefined
    let final: AmqpError | undefined
    for (let i = 0; i < hosts.length; i++) {
      const host = hosts[next++ % hosts.length]!
      const error = yield* Effect.match(connectTo(host), { onFailure: (error) => error, onSuccess: () => undefined })
      if (error === undefined) return
      if (!isRefusal(error.reason)) {
        transient = error
        continue
      }
      if (final === undefined || !isLoginRefusal(final.reason)) final = error
      if (hosts.length > 1) {
        const text = "AMQP host refused the connection: it is skipped in this round"
        yield* Effect.annotateLogs(isRepeated ? Effect.logDebug(text) : Effect.logWarning(text), {
          host: peerOf(host),
          reason: error.reason.message
        })
      }
    }
    return yield* Effect.fail(
      final !== undefined && (transient === undefined || isLoginRefusal(final.reason)) ? final : transient!
    )
  })
}
