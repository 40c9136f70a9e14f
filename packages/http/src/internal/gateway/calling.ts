/** `POST /rpc/{queue}`: a request, and its reply. */
import { AmqpError, AmqpRpc } from "@effect-amqp/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Schema from "effect/Schema"
import { refuse } from "./answers.ts"
import {
  type Bounds,
  failWith,
  type Guard,
  notFound,
  pathBelow,
  readBody,
  type Refused,
  type Routed
} from "./requests.ts"

const noStore = { headers: { "cache-control": "no-store" } }

const utf8 = new TextDecoder("utf-8", { fatal: true })

const parse = (body: Uint8Array): Effect.Effect<Schema.Json, Refused> => {
  try {
    return Effect.succeed(body.length === 0 ? null : (JSON.parse(utf8.decode(body)) as Schema.Json))
  } catch {
    return failWith(refuse(400, "The body is not JSON."))
  }
}

/** How long the client wants to wait; not longer than it may. */
const timeoutOf = (header: string | undefined, { idle }: Bounds) => {
  if (header === undefined) return Effect.succeed(idle)
  const millis = Number(header)
  return Number.isInteger(millis) && millis >= 1
    ? Effect.succeed(Duration.min(Duration.millis(millis), idle))
    : failWith(refuse(400, "amqp-timeout is a number of milliseconds."))
}

export const route: (path: string, bounds: Bounds, guard: Guard) => Routed = Effect.fnUntraced(
  function* (path, bounds, guard) {
    const request = yield* HttpServerRequest.HttpServerRequest
    const [queue = "", ...more] = yield* pathBelow(request, path)
    if (queue === "" || more.length > 0) return yield* notFound
    yield* guard(request, { action: "request", queue })
    const timeout = yield* timeoutOf(request.headers["amqp-timeout"], bounds)
    const payload = yield* Effect.flatMap(readBody(request, bounds), parse)
    const procedure = AmqpRpc.make(request.headers["amqp-type"] ?? queue, {
      payload: Schema.Json,
      success: Schema.Json,
      error: Schema.Json,
      queue
    })
    return yield* AmqpRpc.client(procedure)(payload, { timeout }).pipe(
      Effect.map((reply) => HttpServerResponse.jsonUnsafe(reply, noStore)),
      Effect.catch((failure): Effect.Effect<HttpServerResponse.HttpServerResponse, Refused | AmqpError.AmqpError> => {
        // The procedure's own failure is JSON; it may look like anything, even like one of our errors.
        if (!(failure instanceof AmqpError.AmqpError)) {
          return Effect.succeed(HttpServerResponse.jsonUnsafe(failure, { status: 422, ...noStore }))
        }
        return failure.reason._tag === "PublishReturned"
          ? failWith(refuse(404, "There is no such queue."))
          : Effect.fail(failure)
      })
    )
  }
)
