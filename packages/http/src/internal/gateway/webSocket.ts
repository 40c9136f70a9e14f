/**
 * `GET /consume/{queue}` as a WebSocket. Each frame is one JSON value.
 *
 * - from the gateway: `{"event":"open",...}`, `{"event":"message",...}`, `{"event":"heartbeat"}`,
 *   `{"event":"end",...}`, and `{"event":"error",...}` about a frame of the client;
 * - from the client: `{"ack":"<id>"}`, `{"requeue":"<id>"}`, `{"reject":"<id>"}`. Any other frame is answered with an
 *   error, and closes the WebSocket.
 *
 * Each frame is written after the previous one has left the process. For a client that does not read, one frame and one
 * answer are in memory.
 */
import * as Effect from "effect/Effect"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import { refuse } from "./refusals.ts"
import { endingAsJson, nextOf } from "./attachment.ts"
import { upgrade } from "./sockets.ts"
import { excessDetails } from "./frames.ts"
import { type Bounds, failWith, type RequestRefused } from "./requests.ts"
import type { Attachment, Settlement } from "./sessions.ts"

/** RFC 6455, section 7.4.1. */
const codes = { goingAway: 1001, policyViolation: 1008, messageTooBig: 1009, internalError: 1011 } as const

const errorOf = (detail: string, id?: string) =>
  JSON.stringify({ event: "error", detail, ...(id === undefined ? undefined : { id }) })

const parse = (frame: string): readonly [Settlement, string] | undefined => {
  try {
    const value: unknown = JSON.parse(frame)
    const [entry, ...others] = Object.entries(Object(value) as object)
    if (entry === undefined || others.length > 0) return undefined
    const [how, id] = entry as [string, unknown]
    return (how === "ack" || how === "requeue" || how === "reject") && typeof id === "string" ? [how, id] : undefined
  } catch {
    return undefined
  }
}

export const serveWebSocket: (
  request: HttpServerRequest.HttpServerRequest,
  attached: Attachment,
  bounds: Bounds,
  prefetch: number
) => Effect.Effect<HttpServerResponse.HttpServerResponse, RequestRefused, Scope.Scope> = Effect.fnUntraced(
  function* (request, attached, bounds, prefetch) {
    const { missed, resumed, session } = attached
    const { close, exceeded, pull, send } = yield* Effect.catchTag(
      upgrade(request),
      ["HttpServerError", "SocketError"],
      () => failWith(refuse(400, "This connection cannot be upgraded to a WebSocket."))
    )
    const next = nextOf(attached, bounds)

    const settle = (how: Settlement, id: string) => {
      // All frames of one read of the socket are handled in a loop, so the fiber yields after each error. Valid
      // settlements need no such bound, because there are at most as many as deliveries.
      const gone = Effect.suspend(() =>
        send(errorOf("This delivery was settled before, or does not belong to this stream.", id))
      ).pipe(Effect.andThen(Effect.yieldNow))
      const prefix = `${session.id}.`
      const settling = id.startsWith(prefix) ? session.settle(Number(id.slice(prefix.length)), how) : undefined
      return settling === undefined ? gone : Effect.catchTag(settling, "AmqpError", () => gone)
    }

    // The next frame is handled after the previous answer has left, so a client that does not read is not read from.
    const receiving = Effect.gen(function* () {
      for (;;) {
        for (const frame of yield* pull) {
          const asked = parse(frame)
          if (asked === undefined) {
            const detail = 'Expected {"ack":"<id>"}, {"requeue":"<id>"} or {"reject":"<id>"}.'
            return yield* close(codes.policyViolation, detail, errorOf(detail))
          }
          yield* settle(...asked)
        }
      }
    })

    const limiting = Effect.flatMap(exceeded, (excess) => {
      const code = excess === "tooLong" ? codes.messageTooBig : codes.policyViolation
      return close(code, excessDetails[excess], errorOf(excessDetails[excess]))
    })

    const sending = Effect.gen(function* () {
      yield* send(JSON.stringify({ event: "open", session: session.id, resumed }))
      for (const { data } of missed) yield* send(`{"event":"message",${data.slice(1)}`)
      for (;;) {
        const step = yield* next
        switch (step._tag) {
          case "Heartbeat":
            yield* send('{"event":"heartbeat"}')
            break
          case "End":
            return yield* close(
              step.ending.reason === "failed" ? codes.internalError : codes.goingAway,
              step.ending.reason,
              `{"event":"end",${endingAsJson(step.ending).slice(1)}`
            )
          case "Delivery": {
            const { event, number } = session.add(step.delivery)
            yield* send(`{"event":"message",${event.data.slice(1)}`)
            session.touch()
            if (session.mode === "delivery") yield* session.acknowledgeWritten(number, event, prefetch)
          }
        }
      }
    })

    const first: Effect.Effect<void, Socket.SocketError> = Effect.raceAllFirst([receiving, limiting, sending])
    // A client that closes its socket has left, which is not a failure.
    yield* first.pipe(Effect.catchTag("SocketError", () => Effect.void))
    return HttpServerResponse.empty()
  }
)
