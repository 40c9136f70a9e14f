/**
 * Whether the broker dead-letters at least once. RabbitMQ 3.10 and 3.11 do it only with the feature flag `stream_queue`, and
 * say nothing to a client that declares a queue without it. From 3.12 on the flag is required, 4.x knows it no more.
 *
 * A client can tell by declaring an exclusive stream, which RabbitMQ refuses in any case: with the flag by 406, for streams
 * cannot be exclusive; without it by 541, which ends the connection. So that is done on a connection of its own.
 */
import * as Effect from "effect/Effect"
import type { AmqpError } from "../../model/error.ts"
import type { AmqpConfig } from "../../model/config.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import * as Logging from "../telemetry/logging.ts"
import { versionOf } from "../wire/versions.ts"
import type { Declaration, Declaring } from "./declaring.ts"

const exclusiveStream: Declaration = {
  durable: true,
  exclusive: true,
  autoDelete: false,
  arguments: { "x-queue-type": "stream" }
}

const isEnabled = (declaring: Declaring): Effect.Effect<boolean | undefined, AmqpError> =>
  declaring.aside((own) =>
    own.declare("effect-amqp.is-stream-queue-enabled", exclusiveStream).pipe(
      Effect.as(undefined),
      Effect.catch(({ reason }) =>
        Effect.succeed(
          reason._tag === "PreconditionFailed" ? true : reason.message.includes("feature flag") ? false : undefined
        )
      )
    )
  )

/** The applications, by what they share, for which the answer is known or being asked for. */
const asked = new WeakSet<KnownQueues>()

/** Logs a warning with the cure if the broker does not. Once per application, and for each consumer while it does not. */
export const warnUnlessAtLeastOnce = (declaring: Declaring, config: AmqpConfig): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { links } = declaring
    const [major, minor] = versionOf(links.current()?.product ?? "") ?? []
    if (major === undefined || minor === undefined || major > 3 || (major === 3 && minor > 11)) return Effect.void
    const warn = (why: string, cure: string) =>
      Effect.annotateLogs(
        Effect.logWarning(`AMQP delay queues hand their messages on at most once: ${why}. ${cure}`),
        Logging.ofConnection(config)
      )
    if (major < 3 || minor < 10) {
      return warn(`RabbitMQ ${major}.${minor} cannot do better`, "Use RabbitMQ 3.10 or a later one.")
    }
    if (asked.has(links.queues)) return Effect.void
    asked.add(links.queues)
    const forget = Effect.sync(() => {
      asked.delete(links.queues)
    })
    return isEnabled(declaring).pipe(
      Effect.onInterrupt(() => forget),
      Effect.matchEffect({
        onFailure: (error) =>
          Effect.andThen(
            forget,
            Effect.annotateLogs(Effect.logDebug("AMQP: the feature flag stream_queue could not be checked"), {
              reason: error.message,
              ...Logging.ofConnection(config)
            })
          ),
        onSuccess: (enabled) =>
          enabled === false
            ? Effect.andThen(
                forget,
                warn(
                  "the broker's feature flag stream_queue is disabled",
                  "Enable it (rabbitmqctl enable_feature_flag stream_queue). Queues that were declared before heed it after any change of their policy, or when they are empty, deleted and declared again."
                )
              )
            : Effect.void
      })
    )
  })
