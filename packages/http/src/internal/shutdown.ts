/** The shutdown of a request's server. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/**
 * The shutdown of an HTTP server, as its requests see it.
 *
 * **When to use**
 *
 * Use when a handler or a test provides a shutdown of its own, in place of the one of `graceful`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Shutdown {
  /** Whether the shutdown has begun. */
  readonly isStopping: boolean
  /** Completes when the shutdown begins. */
  readonly stopping: Effect.Effect<void>
}

/**
 * A reference to the shutdown of the current request's server.
 *
 * **When to use**
 *
 * Use when a handler needs to know whether its server is stopping, for example in a health check of your own.
 *
 * **Gotchas**
 *
 * Without `graceful` the shutdown never begins: `isStopping` stays `false`, and `stopping` never completes.
 *
 * @see {@link stopping} for waiting until the shutdown begins
 *
 * @category references
 * @since 0.1.0
 */
export const Shutdown: Context.Reference<Shutdown> = Context.Reference<Shutdown>(
  "@effect-amqp/http/AmqpHttpServer/Shutdown",
  {
    defaultValue: () => ({ isStopping: false, stopping: Effect.never })
  }
)

/**
 * Completes when the shutdown of the current request's server begins.
 *
 * **When to use**
 *
 * Use to end responses that never end on their own, such as server-sent events and WebSockets.
 *
 * **Gotchas**
 *
 * It never completes without `graceful`.
 *
 * **Example** (Ending an event stream when the server stops)
 *
 * ```ts
 * import { AmqpHttpServer } from "@effect-amqp/http"
 * import { Schedule, Stream } from "effect"
 * import { HttpServerResponse } from "effect/http"
 *
 * const ticks = Stream.fromSchedule(Schedule.spaced("1 second")).pipe(
 *   Stream.map((n) => `data: ${n}\n\n`),
 *   Stream.interruptWhen(AmqpHttpServer.stopping),
 *   Stream.encodeText
 * )
 * const response = HttpServerResponse.stream(ticks, { contentType: "text/event-stream" })
 * ```
 *
 * @see {@link Shutdown} for reading whether the server is stopping
 *
 * @category accessors
 * @since 0.1.0
 */
export const stopping: Effect.Effect<void> = Effect.flatMap(Shutdown, ({ stopping }) => stopping)
