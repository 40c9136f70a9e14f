/** `POST /rpc/{queue}`: a request, and its reply. */
import { AmqpError, AmqpRpc } from "@effect-amqp/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { refuse } from "./answers.ts"
import { isRefused, propertiesOf, type Rules } from "./messages.ts"
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

const utf8 = new TextDecoder("utf-8", { fatal: true })

const isJson = (content: Uint8Array): boolean => {
  try {
    JSON.parse(utf8.decode(content))
    return true
  } catch {
    return false
  }
}

// What says that it is JSON and is not would be the server's failure otherwise.
const isSaidToBeJson = (contentType: string | undefined): boolean =>
  contentType !== undefined && /^application\/(?:[^;]+\+)?json\s*(?:;|$)/i.test(contentType)

// A request without a body asks a procedure that wants nothing to be said: in JSON that is null.
const nothing = { content: new TextEncoder().encode("null"), contentType: "application/json" }

/** Codings that HTTP has as well; AMQP's may be anything, such as `utf-8`. */
const codings: ReadonlySet<string | undefined> = new Set(["gzip", "deflate", "br", "zstd"])

/** A content as a response: its type as it was said, if it can be. */
const answerOf = (
  { content, contentEncoding, contentType }: typeof AmqpRpc.Content.Type,
  status: 200 | 422
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.uint8Array(content, {
    status,
    contentType:
      contentType !== undefined && /^[\x21-\x7e][\x20-\x7e]*$/.test(contentType)
        ? contentType
        : "application/octet-stream",
    headers: {
      "cache-control": "no-store",
      // It was made by somebody behind this server, and is not to become a page of it by guessing.
      "x-content-type-options": "nosniff",
      ...(codings.has(contentEncoding) ? { "content-encoding": contentEncoding } : undefined)
    }
  })

/** How long the client wants to wait; not longer than it may. */
const timeoutOf = (header: string | undefined, { idle }: Bounds) => {
  if (header === undefined) return Effect.succeed(idle)
  const millis = Number(header)
  return Number.isInteger(millis) && millis >= 1
    ? Effect.succeed(Duration.min(Duration.millis(millis), idle))
    : failWith(refuse(400, "amqp-timeout is a number of milliseconds."))
}

export const route: (path: string, bounds: Bounds, guard: Guard, rules: Rules) => Routed = Effect.fnUntraced(
  function* (path, bounds, guard, rules) {
    const request = yield* HttpServerRequest.HttpServerRequest
    const [queue = "", ...more] = yield* pathBelow(request, path)
    if (queue === "" || more.length > 0) return yield* notFound
    yield* guard(request, { action: "request", queue })
    const timeout = yield* timeoutOf(request.headers["amqp-timeout"], bounds)
    const properties = propertiesOf(request.headers, rules)
    if (isRefused(properties)) return yield* failWith(properties)
    const { contentEncoding, contentType, headers, priority } = properties
    const content = yield* readBody(request, bounds)
    if (isSaidToBeJson(contentType) && contentEncoding === undefined && !isJson(content)) {
      return yield* failWith(refuse(400, "The body is not JSON."))
    }
    const procedure = AmqpRpc.make(request.headers["amqp-type"] ?? queue, {
      payload: AmqpRpc.Content,
      success: AmqpRpc.Content,
      error: AmqpRpc.Content,
      queue
    })
    const payload =
      content.length === 0 && contentType === undefined ? nothing : { content, contentType, contentEncoding }
    return yield* AmqpRpc.client(procedure)(payload, { timeout, headers, priority }).pipe(
      Effect.map((reply) => answerOf(reply, 200)),
      Effect.catch((failure): Effect.Effect<HttpServerResponse.HttpServerResponse, Refused | AmqpError.AmqpError> => {
        // The procedure's own failure.
        if (!(failure instanceof AmqpError.AmqpError)) return Effect.succeed(answerOf(failure, 422))
        return failure.reason._tag === "PublishReturned"
          ? failWith(refuse(404, "There is no such queue."))
          : Effect.fail(failure)
      })
    )
  }
)
