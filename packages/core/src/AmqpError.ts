/**
 * The one error of this library, and the reasons inside it.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { type AmqpError } from "@effect-amqp/core"
 *
 * declare const publish: Effect.Effect<void, AmqpError.AmqpError>
 *
 * // One reason handled, the others passed on.
 * const orLater = publish.pipe(
 *   Effect.catchReason("AmqpError", "PublishForbidden", () => Effect.log("the broker is short of memory"))
 * )
 * // Whatever may pass is tried again.
 * const persistent = publish.pipe(Effect.retry({ times: 3, while: (error) => error.isRetryable }))
 * ```
 *
 * @since 0.1.0
 */
export * from "./model/error.ts"
