/** `GET /consume/{queue}` as server-sent events, and the routes that settle their deliveries. */
import { AmqpPool } from "@effect-amqp/core"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Stream from "effect/Stream"
import type { Writable } from "node:stream"
import { refuse } from "./refusals.ts"
import { endingAsJson, nextOf } from "./attachment.ts"
import { awaitFlushed, isWebSocket, outputOf } from "./sockets.ts"
import { checkOrigin } from "./origins.ts"
import { type Bounds, failWith, type Guard, notFound, pathBelow, type RouteEffect } from "./requests.ts"
import type { Attachment, Event, AckMode, Sessions, Settlement } from "./sessions.ts"
import { serveWebSocket } from "./webSocket.ts"

const retry = "retry: 1000\n\n"
const comment = ": heartbeat\n\n"
const eventOf = (name: string, data: string) => `event: ${name}\ndata: ${data}\n\n`
const messageOf = ({ data, id }: Event) => `id: ${id}\nevent: message\ndata: ${data}\n\n`

/**
 * The events of an attached client. A pull shows only that the HTTP server has taken the previous event. The server
 * buffers about 64 KiB for a client that does not read, so each pull waits until the output has flushed that event.
 */
const eventsOf = (
  attached: Attachment,
  bounds: Bounds,
  prefetch: number,
  output: Writable | undefined
): Stream.Stream<string> => {
  const left = output === undefined ? Effect.succeed(true) : awaitFlushed(output)
  const { missed, resumed, session } = attached
  const next = nextOf(attached, bounds)
  const first = [
    retry,
    eventOf("open", JSON.stringify({ session: session.id, resumed })),
    ...missed.map(messageOf)
  ].join("")
  let hasBegun = false
  let hasEnded = false
  let last: { readonly number: number; readonly event: Event } | undefined
  const pull = Effect.gen(function* () {
    if (hasEnded) return yield* Cause.done()
    if (!hasBegun) {
      hasBegun = true
      return [first] as const
    }
    if (last !== undefined) {
      const { event, number } = last
      last = undefined
      // The output is closed, so the response is about to be interrupted.
      if (!(yield* left)) return yield* Effect.never
      session.touch()
      if (session.mode === "delivery") yield* session.acknowledgeWritten(number, event, prefetch)
    }
    const step = yield* next
    switch (step._tag) {
      case "Heartbeat":
        return [comment] as const
      case "End":
        hasEnded = true
        return [eventOf("end", endingAsJson(step.ending))] as const
      case "Delivery": {
        last = session.add(step.delivery)
        return [messageOf(last.event)] as const
      }
    }
  })
  return Stream.fromPull(Effect.succeed(pull))
}

/** Fails for a queue that does not exist, or that is exclusive to another connection, before a stream starts. */
const exists = (queue: string) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use((channel) => channel.queueDeclarePassive(queue)))

const modeOf = (value: string | undefined): AckMode | undefined =>
  value === undefined || value === "explicit" ? "explicit" : value === "delivery" ? "delivery" : undefined

const single = (value: string | ReadonlyArray<string> | undefined) => (typeof value === "string" ? value : undefined)

export const route: (
  path: string,
  bounds: Bounds,
  guard: Guard,
  sessions: Sessions,
  origins: ReadonlySet<string> | undefined
) => RouteEffect = Effect.fnUntraced(function* (path, bounds, guard, sessions, origins) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const [queue = "", ...more] = yield* pathBelow(request, path)
  // The router sends HEAD requests here too.
  if (request.method !== "GET" || queue === "" || more.length > 0) return yield* notFound
  if (isWebSocket(request)) yield* checkOrigin(request, origins)
  yield* guard(request, { action: "consume", queue })
  const query = yield* HttpServerRequest.ParsedSearchParams
  const mode = modeOf(single(query["ack"]))
  if (mode === undefined) return yield* failWith(refuse(400, "ack: expected explicit or delivery."))
  const prefetch = query["prefetch"] === undefined ? bounds.prefetch : Number(query["prefetch"])
  if (!Number.isInteger(prefetch) || prefetch < 1 || prefetch > bounds.prefetch) {
    return yield* failWith(refuse(400, `prefetch: expected an integer from 1 to ${bounds.prefetch}.`))
  }
  const lastEventId = request.headers["last-event-id"] ?? single(query["lastEventId"])
  yield* exists(queue)
  const attached = yield* sessions.attach(queue, mode, prefetch, lastEventId)
  if (isWebSocket(request)) {
    return yield* serveWebSocket(request, attached, bounds, prefetch)
  }
  return HttpServerResponse.stream(Stream.encodeText(eventsOf(attached, bounds, prefetch, outputOf(request))), {
    contentType: "text/event-stream",
    // Some proxies buffer a response before they forward it.
    headers: { "cache-control": "no-store", "x-accel-buffering": "no" }
  })
})

const settlements: ReadonlySet<string> = new Set<Settlement>(["ack", "requeue", "reject"])

/** `POST /consume/{queue}/{id}/{ack|requeue|reject}` */
export const settle: (path: string, guard: Guard, sessions: Sessions) => RouteEffect = Effect.fnUntraced(
  function* (path, guard, sessions) {
    const request = yield* HttpServerRequest.HttpServerRequest
    const [queue = "", id = "", how = "", ...more] = yield* pathBelow(request, path)
    if (queue === "" || !settlements.has(how) || more.length > 0) return yield* notFound
    yield* guard(request, { action: "settle", queue })
    const found = sessions.find(queue, id)
    const settling = found?.[0].settle(found[1], how as Settlement)
    const gone = failWith(
      refuse(410, "This delivery was settled before, or its stream has ended and it has returned to the queue.")
    )
    if (settling === undefined) return yield* gone
    yield* Effect.catchReason(settling, "AmqpError", "DeliverySettled", () => gone)
    return HttpServerResponse.empty({ status: 204 })
  }
)
