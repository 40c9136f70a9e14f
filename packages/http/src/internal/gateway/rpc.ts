/** `POST /rpc/{queue}`: sends an RPC request and answers with its reply. */
import { AmqpError, AmqpRpc } from "@effect-amqp/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { refuse } from "./refusals.ts"
import { isRefused, propertiesOf, type Rules } from "./messages.ts"
import {
  type Bounds,
  failWith,
  type Guard,
  notFound,
  pathBelow,
  readBody,
  type RequestRefused,
  type RouteEffect
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

// A body that is declared as JSON and is not valid would otherwise look like a failure of the RPC server.
const isDeclaredJson = (contentType: string | undefined): boolean =>
  contentType !== undefined && /^application\/(?:[^;]+\+)?json\s*(?:;|$)/i.test(contentType)

// A request without a body calls a procedure without a payload, which is `null` in JSON.
const nullPayload = { content: new TextEncoder().encode("null"), contentType: "application/json" }

/** Content codings that HTTP defines too. In AMQP the encoding can be any string, such as `utf-8`. */
const codings: ReadonlySet<string | undefined> = new Set(["gzip", "deflate", "br", "zstd"])

/** The response for a reply. It has the reply's content type if that is valid in a header. */
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
      // The content comes from a service behind this one. A browser must not guess that it is a page of this site.
      "x-content-type-options": "nosniff",
      ...(codings.has(contentEncoding) ? { "content-encoding": contentEncoding } : undefined)
    }
  })

/** The timeout that the client asks for, at most `limits.idleTimeout`. */
const timeoutOf = (header: string | undefined, { idleTimeout: idle }: Bounds) => {
  if (header === undefined) return Effect.succeed(idle)
  const millis = Number(header)
  return Number.isInteger(millis) && millis >= 1
    ? Effect.succeed(Duration.min(Duration.millis(millis), idle))
    : failWith(refuse(400, "amqp-timeout: expected an integer from 1, in milliseconds."))
}

export const route: (path: string, bounds: Bounds, guard: Guard, rules: Rules) => RouteEffect = Effect.fnUntraced(
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
    if (isDeclaredJson(contentType) && contentEncoding === undefined && !isJson(content)) {
      return yield* failWith(refuse(400, "The body is not valid JSON, although its content type says so."))
    }
    const procedure = AmqpRpc.make(request.headers["amqp-type"] ?? queue, {
      payload: AmqpRpc.Content,
      success: AmqpRpc.Content,
      error: AmqpRpc.Content,
      queue
    })
    const payload =
      content.length === 0 && contentType === undefined ? nullPayload : { content, contentType, contentEncoding }
    return yield* AmqpRpc.client(procedure)(payload, { timeout, headers, priority }).pipe(
      Effect.map((reply) => answerOf(reply, 200)),
      Effect.catch(
        (failure): Effect.Effect<HttpServerResponse.HttpServerResponse, RequestRefused | AmqpError.AmqpError> => {
          // Any other failure is the procedure's own.
          if (!(failure instanceof AmqpError.AmqpError)) return Effect.succeed(answerOf(failure, 422))
          return failure.reason._tag === "PublishReturned"
            ? failWith(refuse(404, "No such queue. Check its name."))
            : Effect.fail(failure)
        }
      )
    )
  }
)
