/**
 * `GET /consume/{queue}` by a WebSocket. Frames are JSON, one value each.
 *
 * - from the gateway: `{"event":"open",...}`, `{"event":"message",...}`, `{"event":"heartbeat"}`, `{"event":"end",...}`, and
 *   `{"event":"error",...}` about what the client has sent;
 * - from the client: `{"ack":"<id>"}`, `{"requeue":"<id>"}`, `{"reject":"<id>"}`.
 */
import * as Effect from "effect/Effect"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import { refuse } from "./answers.ts"
import { endingAsJson, nextOf } from "./attached.ts"
import { type Bounds, failWith, type Refused } from "./requests.ts"
import type { Attached, Settlement } from "./sessions.ts"

/** What a client has to say is short. */
const longestFrame = 1024

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
    const noUpgrade = () => failWith(refuse(400, "This connection cannot become a WebSocket."))
    const socket = yield* Effect.catchTag(request.upgrade, "HttpServerError", noUpgrade)
    const pull = yield* Effect.catchTag(Socket.readerString(socket), "SocketError", noUpgrade)
    const { write } = yield* socket.writer
    const next = nextOf(attached, bounds)

    const settle = (frame: string) => {
      const asked = frame.length > longestFrame ? undefined : parse(frame)
      if (asked === undefined)
        return write(errorOf('A frame is {"ack":"<id>"}, {"requeue":"<id>"} or {"reject":"<id>"}.'))
      const [how, id] = asked
      const gone = Effect.suspend(() => write(errorOf("It was settled before, or is not of this stream.", id)))
      const prefix = `${session.id}.`
      const settling = id.startsWith(prefix) ? session.settle(Number(id.slice(prefix.length)), how) : undefined
      return settling === undefined ? gone : Effect.catchTag(settling, "AmqpError", () => gone)
    }

    const listening = Effect.forever(
      Effect.flatMap(pull, (frames) => Effect.forEach(frames, settle, { discard: true }))
    )

    const telling = Effect.gen(function* () {
      yield* write(JSON.stringify({ event: "open", session: session.id, resumed }))
      for (const { data } of missed) yield* write(`{"event":"message",${data.slice(1)}`)
      for (;;) {
        const step = yield* next
        switch (step._tag) {
          case "Heartbeat":
            yield* write('{"event":"heartbeat"}')
            break
          case "End":
            yield* write(`{"event":"end",${endingAsJson(step.ending).slice(1)}`)
            return yield* write(new Socket.CloseEvent(step.ending.reason === "failed" ? 1011 : 1001))
          case "Delivery": {
            const { event, number } = session.add(step.delivery)
            session.touch()
            yield* write(`{"event":"message",${event.data.slice(1)}`)
            if (session.mode === "delivery") yield* session.written(number, event, prefetch)
          }
        }
      }
    })

    const both: Effect.Effect<void, Socket.SocketError> = Effect.raceFirst(listening, telling)
    // A client that closes its socket has left: that is no failure.
    yield* both.pipe(Effect.catchTag("SocketError", () => Effect.void))
    return HttpServerResponse.empty()
  }
)
