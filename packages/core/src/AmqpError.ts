/**
 * The error of this library and its reasons.
 *
 * **Example** (Handling one reason, and retrying others)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { type AmqpError } from "@effect-amqp/core"
 *
 * declare const publish: Effect.Effect<void, AmqpError.AmqpError>
 *
 * // Handles one reason and passes the others on.
 * const orLater = publish.pipe(
 *   Effect.catchReason("AmqpError", "PublishForbidden", () => Effect.log("the broker accepts no messages now"))
 * )
 * // Retries what may succeed later.
 * const persistent = publish.pipe(Effect.retry({ times: 3, while: (error) => error.isRetryable }))
 * ```
 *
 * @since 0.1.0
 */
export * from "./model/error.ts"
