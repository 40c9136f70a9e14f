/**
 * Whether a queue is a stream, found over AMQP alone.
 *
 * AMQP has no operation that reads the type of a queue, and a consumer of a queue that is no stream would take its
 * messages. So it is declared again as a stream: the broker refuses this without an effect unless the queue is a stream
 * with the same properties, and says which property differs and what its value is. That value is adopted, until the
 * declaration is equal or the type itself differs.
 */
import { AmqpPool, type AmqpError, type AmqpMessage } from "@effect-amqp/core"
import * as Effect from "effect/Effect"

/** More than a stream has arguments. */
const attempts = 12

/** The value as a declaration has it. RabbitMQ 4.3 prints an age in milliseconds, and takes it with a unit only. */
const valueOf = (argument: string, text: string): AmqpMessage.FieldValue => {
  if (!/^-?\d{1,15}$/.test(text)) return text
  return argument === "x-max-age" ? `${Number(text) / 1000}s` : Number(text)
}

export const isStream = (queue: string): Effect.Effect<boolean, AmqpError.AmqpError, AmqpPool.AmqpPool> =>
  Effect.gen(function* () {
    const pool = yield* AmqpPool.AmqpPool
    const table: Record<string, AmqpMessage.FieldValue> = { "x-queue-type": "stream" }
    for (let i = 0; i < attempts; i++) {
      const differs = yield* pool
        // Passive first: the second one would create a queue that is gone.
        .use((channel) =>
          Effect.andThen(channel.queueDeclarePassive(queue), channel.queueDeclare(queue, { arguments: table }))
        )
        .pipe(
          Effect.as(undefined),
          Effect.catchReason("AmqpError", "PreconditionFailed", (reason) => Effect.succeed(reason))
        )
      if (differs === undefined) return true
      const { argument, current } = differs
      // Of streams only: `none` would mean that this queue does not have it.
      if (
        argument === undefined ||
        current === undefined ||
        !argument.startsWith("x-") ||
        argument === "x-queue-type"
      ) {
        return false
      }
      if (current === "none" || table[argument] !== undefined) return false
      table[argument] = valueOf(argument, current)
    }
    return false
  })
