/**
 * `GET /consume/{queue}` by a WebSocket. Frames are JSON, one value each.
 *
 * - from the gateway: `{"event":"open",...}`, `{"event":"message",...}`, `{"event":"heartbeat"}`, `{"event":"end",...}`, and
 *   `{"event":"error",...}` about what the client has sent;
 * - from the client: `{"ack":"<id>"}`, `{"requeue":"<id>"}`, `{"reject":"<id>"}`. Anything else is answered with an error, and
 *   ends the conversation.
 *
 * Each frame is written when the one before it has left, so a client that does not read has one in memory, and one answer.
 */
import * as Effect from "effect/Effect"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import { refuse } from "./answers.ts"
import { endingAsJson, nextOf } from "./attached.ts"
import { upgrade } from "./connection.ts"
import { details } from "./frames.ts"
import { type Bounds, failWith, type Refused } from "./requests.ts"
import type { Attached, Settlement } from "./sessions.ts"

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

export const converse: (
  request: HttpServerRequest.HttpServerRequest,
  attached: Attached,
  bounds: Bounds,
  prefetch: number
) => Effect.Effect<HttpServerResponse.HttpServerResponse, Refused, Scope.Scope> = Effect.fnUntraced(
  function* (request, attached, bounds, prefetch) {
    const { missed, resumed, session } = attached
    const { close, exceeded, pull, send } = yield* Effect.catchTag(
      upgrade(request),
      ["HttpServerError", "SocketError"],
      () => failWith(refuse(400, "This connection cannot become a WebSocket."))
    )
    const next = nextOf(attached, bounds)

    const settle = (how: Settlement, id: string) => {
      // What one read of the socket brings is taken within that read: others have their turn after each answer. Settlements
      // that are right need no bound, since there are no more than deliveries.
      const gone = Effect.suspend(() => send(errorOf("It was settled before, or is not of this stream.", id))).pipe(
        Effect.andThen(Effect.yieldNow)
      )
      const prefix = `${session.id}.`
      const settling = id.startsWith(prefix) ? session.settle(Number(id.slice(prefix.length)), how) : undefined
      return settling === undefined ? gone : Effect.catchTag(settling, "AmqpError", () => gone)
    }

    // An answer has left before the next frame is looked at: whoever does not read is not read from.
    const listening = Effect.gen(function* () {
      for (;;) {
        for (const frame of yield* pull) {
          const asked = parse(frame)
          if (asked === undefined) {
            const detail = 'A frame is {"ack":"<id>"}, {"requeue":"<id>"} or {"reject":"<id>"}.'
            return yield* close(codes.policyViolation, detail, errorOf(detail))
          }
          yield* settle(...asked)
        }
      }
    })

    const limiting = Effect.flatMap(exceeded, (excess) => {
      const code = excess === "tooLong" ? codes.messageTooBig : codes.policyViolation
      return close(code, details[excess], errorOf(details[excess]))
    })

    const telling = Effect.gen(function* () {
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
            if (session.mode === "delivery") yield* session.written(number, event, prefetch)
          }
        }
      }
    })

    const first: Effect.Effect<void, Socket.SocketError> = Effect.raceAllFirst([listening, limiting, telling])
    // A client that closes its socket has left: that is no failure.
    yield* first.pipe(Effect.catchTag("SocketError", () => Effect.void))
    return HttpServerResponse.empty()
  }
)
