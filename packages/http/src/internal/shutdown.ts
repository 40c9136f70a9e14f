/** Whether the server of a request is stopping. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"

/** The end of a server. */
export interface Shutdown {
  readonly hasBegun: boolean
  /** Completes when it begins. */
  readonly begun: Effect.Effect<void>
}

/** Whether the server of the current request is stopping. Without `graceful` nobody says so. */
export const Shutdown: Context.Reference<Shutdown> = Context.Reference<Shutdown>(
  "@effect-amqp/http/AmqpHttpServer/Shutdown",
  {
    defaultValue: () => ({ hasBegun: false, begun: Effect.never })
  }
)

/**
 * Completes when the server of the current request begins to stop: for responses that do not end by themselves.
 *
 * @example
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
 */
export const stopping: Effect.Effect<void> = Effect.flatMap(Shutdown, ({ begun }) => begun)
