/**
 * Checks whether the broker dead-letters at least once. RabbitMQ 3.10 and 3.11 do so only with the feature flag
 * `stream_queue`, and do not report its absence to a client that declares a queue. The flag is required from 3.12 on,
 * and 4.x no longer has it.
 *
 * A client can find out by declaring an exclusive stream, which RabbitMQ always refuses: with the flag by 406, because
 * streams cannot be exclusive; without it by 541, which ends the connection. So the check uses a connection of its own.
 */
import * as Effect from "effect/Effect"
import type { AmqpError } from "../../model/error.ts"
import type { AmqpConfig } from "../../model/config.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import * as Logging from "../telemetry/logging.ts"
import { versionOf } from "../wire/versions.ts"
import type { Declaration, QueueOperations } from "./queueOperations.ts"

const exclusiveStream: Declaration = {
  durable: true,
  exclusive: true,
  autoDelete: false,
  arguments: { "x-queue-type": "stream" }
}

const isStreamQueueEnabled = (declaring: QueueOperations): Effect.Effect<boolean | undefined, AmqpError> =>
  declaring.onOwnConnection((own) =>
    own.declare("effect-amqp.is-stream-queue-enabled", exclusiveStream).pipe(
      Effect.as(undefined),
      Effect.catch(({ reason }) =>
        Effect.succeed(
          reason._tag === "PreconditionFailed" ? true : reason.message.includes("feature flag") ? false : undefined
        )
      )
    )
  )

/** The applications for which the answer is known or requested, each identified by its `KnownQueues`. */
const checkedApplications = new WeakSet<KnownQueues>()

/**
 * Logs a warning that says what to do if the broker does not dead-letter at least once. A positive answer is checked
 * once per application. A negative one is checked and logged again for each consumer.
 */
export const warnUnlessAtLeastOnce = (declaring: QueueOperations, config: AmqpConfig): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { internals } = declaring
    const [major, minor] = versionOf(internals.currentLink()?.product ?? "") ?? []
    if (major === undefined || minor === undefined || major > 3 || (major === 3 && minor > 11)) return Effect.void
    const warn = (why: string, remedy: string) =>
      Effect.annotateLogs(
        Effect.logWarning(
          `AMQP retries may be lost: delay queues dead-letter their messages at most once, because ${why}. ${remedy}`
        ),
        Logging.connectionAnnotations(config)
      )
    if (major < 3 || minor < 10) {
      return warn(
        `RabbitMQ ${major}.${minor} does not support dead-lettering at least once`,
        "Upgrade to RabbitMQ 3.10 or later."
      )
    }
    if (checkedApplications.has(internals.queues)) return Effect.void
    checkedApplications.add(internals.queues)
    const forget = Effect.sync(() => {
      checkedApplications.delete(internals.queues)
    })
    return isStreamQueueEnabled(declaring).pipe(
      Effect.onInterrupt(() => forget),
      Effect.matchEffect({
        onFailure: (error) =>
          Effect.andThen(
            forget,
            Effect.annotateLogs(
              Effect.logDebug(
                "AMQP consumer could not check the broker's feature flag stream_queue; it checks again when the next delay queue is declared"
              ),
              {
                reason: error.message,
                ...Logging.connectionAnnotations(config)
              }
            )
          ),
        onSuccess: (enabled) =>
          enabled === false
            ? Effect.andThen(
                forget,
                warn(
                  "the broker's feature flag stream_queue is disabled",
                  "Enable it: rabbitmqctl enable_feature_flag stream_queue. For existing delay queues, then change any policy that applies to them, or delete them when they are empty and let the consumer declare them again."
                )
              )
            : Effect.void
      })
    )
  })
