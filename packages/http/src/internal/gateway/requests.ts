/** The common parts of the gateway's routes: limits, authorization, paths, bodies and error responses. */
import { type Amqp, AmqpError } from "@effect-amqp/core"
import * as ByteSize from "effect/ByteSize"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpIncomingMessage from "effect/http/HttpIncomingMessage"
import type * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Access, Decision, Limits } from "./contract.ts"
import { logFailure } from "../handlers.ts"
import { isUpgrade, isWebSocket, closeGracefully, socketOf } from "./sockets.ts"
import { type Names, refuseUnknownNames } from "../options.ts"
import { type Refusal, refusalOf, refuse, responseOf } from "./refusals.ts"

/** The failure of a route that refuses a request. */
export class RequestRefused {
  readonly _tag = "Refused"
  readonly refusal: Refusal
  constructor(refusal: Refusal) {
    this.refusal = refusal
  }
}

export const failWith = (refusal: Refusal) => Effect.fail(new RequestRefused(refusal))

export const notFound = failWith(refuse(404, "No such route. Check the path and the method."))

const readInteger = (name: string, value: number, most: number, least = 1) => {
  if (Number.isInteger(value) && value >= least && value <= most) return value
  throw new Error(`AmqpGateway: limits.${name}: expected an integer from ${least} to ${most}, got ${value}`)
}

const readByteSize = (name: string, value: ByteSize.Input, least: number) => {
  let size: number
  try {
    size = ByteSize.toNumberUnsafe(ByteSize.fromInputUnsafe(value))
  } catch {
    throw new Error(`AmqpGateway: limits.${name}: expected a size in bytes, got ${String(value)}`)
  }
  return readInteger(name, size, Number.MAX_SAFE_INTEGER, least)
}

const readDuration = (name: string, value: Duration.Input) => {
  const duration = Duration.fromInputUnsafe(value)
  const millis = Duration.toMillis(duration)
  // A timer of Node that is longer than this fires immediately.
  if (millis >= 1 && millis <= 2_147_483_647) return duration
  throw new Error(`AmqpGateway: limits.${name}: expected a duration from 1 millisecond to 24.8 days, got ${millis} ms`)
}

/** The readers of the limits. A limit that `Limits` has and this table lacks does not compile. */
const limitReaders = {
  body: (size: ByteSize.Input) => readByteSize("body", size, 1),
  batchLines: (count = 10_000) => readInteger("batchLines", count, 1_000_000),
  // 512 is also the maximum nesting of field tables, see `AmqpMessage.FieldTable`.
  jsonDepth: (levels = 64) => readInteger("jsonDepth", levels, 512),
  prefetch: (count: number) => readInteger("prefetch", count, 65_535),
  idleTimeout: (time: Duration.Input) => readDuration("idleTimeout", time),
  streams: (count: number) => readInteger("streams", count, Number.MAX_SAFE_INTEGER),
  heartbeatInterval: (time: Duration.Input = "15 seconds") => readDuration("heartbeatInterval", time),
  resumeTimeout: (time: Duration.Input = "30 seconds") => readDuration("resumeTimeout", time),
  replayBuffer: (size: ByteSize.Input = 262_144) => readByteSize("replayBuffer", size, 0)
} satisfies { readonly [Name in keyof Limits]-?: (limit: Limits[Name]) => unknown }

const limitNames = Object.fromEntries(Object.keys(limitReaders).map((name) => [name, true])) as Names<Limits>

/** The limits as they are read, with sizes in bytes. */
export type Bounds = { readonly [Name in keyof typeof limitReaders]: ReturnType<(typeof limitReaders)[Name]> }

/** Reads the limits. A wrong limit is a mistake in the program, so the layer dies while it is built. */
export const boundsOf = (limits: Limits): Bounds => {
  refuseUnknownNames("AmqpGateway: limits", limits, limitNames)
  return Object.fromEntries(
    Object.entries(limitReaders).map(([name, read]) => [name, read(limits[name as keyof Limits] as never)])
  ) as Bounds
}

/**
 * Checks whether a request may do what it asks for, before its body is read and before anything is sent to the broker.
 */
export type Guard = (
  request: HttpServerRequest.HttpServerRequest,
  access: Access
) => Effect.Effect<void, RequestRefused>

export const guardOf =
  (authorize: (request: HttpServerRequest.HttpServerRequest, access: Access) => Effect.Effect<Decision>): Guard =>
  (request, access) =>
    Effect.flatMap(authorize(request, access), (decision) =>
      decision === "allow"
        ? Effect.void
        : failWith(
            decision === "authenticate"
              ? refuse(401, "Authentication required; see WWW-Authenticate.")
              : refuse(403, "Access denied. This client may not make this request.")
          )
    )

const dots: ReadonlySet<string> = new Set([".", ".."])

/**
 * The decoded parts of the path below a route: `a%2Fb/c` is `a/b` and `c`.
 *
 * The router treats `/AMQP/`, `/%61mqp/` and `//amqp/` as `/amqp/`, but a proxy that guards `/amqp/publish` does not.
 * Therefore only one spelling of each route is accepted. Parts that are `.` or `..` are refused, because a proxy that
 * normalizes the path removes them.
 */
export const pathBelow = (
  request: HttpServerRequest.HttpServerRequest,
  route: string
): Effect.Effect<ReadonlyArray<string>, RequestRefused> => {
  const [path = ""] = request.url.split(/[?#]/, 1)
  if (!path.startsWith(`${route}/`)) return notFound
  try {
    const parts = path
      .slice(route.length + 1)
      .split("/")
      .map(decodeURIComponent)
    return parts.some((part) => dots.has(part)) ? notFound : Effect.succeed(parts)
  } catch {
    return failWith(refuse(400, "The path is not valid percent-encoded UTF-8."))
  }
}

/** Reads the whole body. It refuses a body that exceeds `limits.body` or takes longer than `limits.idleTimeout`. */
export const readBody = (
  request: HttpServerRequest.HttpServerRequest,
  { body, idleTimeout: idle }: { readonly body: number; readonly idleTimeout: Duration.Input }
): Effect.Effect<Uint8Array, RequestRefused, Scope.Scope> => {
  const tooLarge = failWith(refuse(413, "The body is larger than this service accepts. Send a smaller one."))
  // A client that announces the length is refused before it sends the body.
  if (Number(request.headers["content-length"]) > body) return tooLarge
  return request.arrayBuffer.pipe(
    Effect.provideService(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(body)),
    Effect.map((buffer) => new Uint8Array(buffer)),
    Effect.catch(({ reason }) =>
      "reason" in reason && reason.reason === "BodyTooLarge"
        ? tooLarge
        : failWith(refuse(400, "The body could not be read. Check its length and encoding."))
    ),
    // Interrupting the read would destroy the connection, so it continues until the response is sent.
    Effect.forkScoped({ startImmediately: true }),
    Effect.flatMap(Fiber.join),
    Effect.timeoutOrElse({ duration: idle, orElse: () => failWith(refuse(408, "The body did not arrive in time.")) })
  )
}

/** The effect of a route. */
export type RouteEffect = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  RequestRefused | AmqpError.AmqpError,
  Amqp.Amqp | HttpRouter.Provided
>

/**
 * Closes the connection of a request that asked for an upgrade. Node hands such a connection over: it has no timeouts
 * any more, and the response only half-closes it. A client that does not close its half would keep the connection
 * forever.
 */
const closeUpgraded: Effect.Effect<void, never, HttpRouter.Provided> = Effect.flatMap(
  HttpServerRequest.HttpServerRequest,
  (request) => {
    const socket = isUpgrade(request) ? socketOf(request) : undefined
    return socket === undefined ? Effect.void : Effect.addFinalizer(() => Effect.sync(() => closeGracefully(socket)))
  }
)

/**
 * A route that never becomes a WebSocket. It refuses a request that asks for an upgrade: Node hands its connection over
 * without reading the body, and Effect's server would give the route an empty body.
 */
export const withoutUpgrade = (route: RouteEffect): RouteEffect =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
    isWebSocket(request)
      ? failWith(refuse(400, "This route does not accept a WebSocket. Only GET of a queue does."))
      : route
  )

/** Answers the failures of a route, and logs the AMQP errors among them. */
export const answering =
  (challenge: string, connection: string, answerOf: (error: AmqpError.AmqpError) => Refusal = refusalOf) =>
  (route: RouteEffect): Effect.Effect<HttpServerResponse.HttpServerResponse, never, Amqp.Amqp | HttpRouter.Provided> =>
    Effect.andThen(closeUpgraded, route).pipe(
      Effect.catch((failure) => {
        if (AmqpError.isAmqpError(failure)) {
          const refusal = answerOf(failure)
          return Effect.as(logFailure(failure, refusal.status, connection), responseOf(refusal))
        }
        const { refusal } = failure
        const response = responseOf(refusal)
        if (refusal.status === 401) {
          return Effect.succeed(HttpServerResponse.setHeader(response, "www-authenticate", challenge))
        }
        // The connection must close: the unread rest of the body would be parsed as the next request.
        return Effect.succeed(
          refusal.status === 413 || refusal.status === 408
            ? HttpServerResponse.setHeader(response, "connection", "close")
            : response
        )
      })
    )
