/** What the gateway's routes have in common: where a request leads, who may, and how much of it is read. */
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
import { isUpgrade, isWebSocket, letGo, socketOf } from "./connection.ts"
import { type Refusal, refusalOf, refuse, responseOf } from "./answers.ts"

/** A route ends early by failing with why. */
export class Refused {
  readonly _tag = "Refused"
  readonly refusal: Refusal
  constructor(refusal: Refusal) {
    this.refusal = refusal
  }
}

export const failWith = (refusal: Refusal) => Effect.fail(new Refused(refusal))

export const notFound = failWith(refuse(404, "There is no such route."))

const whole = (name: string, value: number, most: number, least = 1) => {
  if (Number.isInteger(value) && value >= least && value <= most) return value
  throw new Error(`AmqpGateway: limits.${name}: wants a whole number from ${least} to ${most}, got ${value}`)
}

const bytes = (name: string, value: ByteSize.Input, least: number) => {
  let size: number
  try {
    size = ByteSize.toNumberUnsafe(ByteSize.fromInputUnsafe(value))
  } catch {
    throw new Error(`AmqpGateway: limits.${name}: wants a size in bytes, got ${String(value)}`)
  }
  return whole(name, size, Number.MAX_SAFE_INTEGER, least)
}

const positive = (name: string, value: Duration.Input) => {
  const duration = Duration.fromInputUnsafe(value)
  const millis = Duration.toMillis(duration)
  // Node fires longer timers at once.
  if (millis >= 1 && millis <= 2_147_483_647) return duration
  throw new Error(`AmqpGateway: limits.${name}: wants a duration from 1 millisecond to 24.8 days`)
}

/** How each limit is read: one that `Limits` has and this has not does not compile. */
const reading = {
  body: (size: ByteSize.Input) => bytes("body", size, 1),
  lines: (count = 10_000) => whole("lines", count, 1_000_000),
  // Where tables in tables end: see `AmqpMessage.FieldTable`.
  depth: (levels = 64) => whole("depth", levels, 512),
  prefetch: (count: number) => whole("prefetch", count, 65_535),
  idle: (time: Duration.Input) => positive("idle", time),
  streams: (count: number) => whole("streams", count, Number.MAX_SAFE_INTEGER),
  heartbeat: (time: Duration.Input = "15 seconds") => positive("heartbeat", time),
  resume: (time: Duration.Input = "30 seconds") => positive("resume", time),
  missed: (size: ByteSize.Input = 262_144) => bytes("missed", size, 0)
} satisfies { readonly [Name in keyof Limits]-?: (limit: Limits[Name]) => unknown }

/** The limits, read once: sizes in bytes. */
export type Bounds = { readonly [Name in keyof typeof reading]: ReturnType<(typeof reading)[Name]> }

/** A mistake in them is one in the program, and ends it where it is built. */
export const boundsOf = (limits: Limits): Bounds => {
  for (const [name, limit] of Object.entries(limits)) {
    if (limit === undefined || Object.hasOwn(reading, name)) continue
    throw new Error(
      `AmqpGateway: limits.${name}: wants one of ${Object.keys(reading).join(", ")}, got one of this name`
    )
  }
  return Object.fromEntries(
    Object.entries(reading).map(([name, read]) => [name, read(limits[name as keyof Limits] as never)])
  ) as Bounds
}

/** Whether this request may do this. Asked before anything is read, and before the broker hears of it. */
export type Guard = (request: HttpServerRequest.HttpServerRequest, access: Access) => Effect.Effect<void, Refused>

export const guardOf =
  (authorize: (request: HttpServerRequest.HttpServerRequest, access: Access) => Effect.Effect<Decision>): Guard =>
  (request, access) =>
    Effect.flatMap(authorize(request, access), (decision) =>
      decision === "allow"
        ? Effect.void
        : failWith(
            decision === "authenticate"
              ? refuse(401, "Say who you are, as WWW-Authenticate says.")
              : refuse(403, "This is not allowed.")
          )
    )

const dots: ReadonlySet<string> = new Set([".", ".."])

/**
 * The decoded parts of the path below a route: `a%2Fb/c` is `a/b` and `c`.
 *
 * The router takes `/AMQP/`, `/%61mqp/` and `//amqp/` for `/amqp/`, and a proxy that guards `/amqp/publish` does not: there is
 * one spelling of each route. Parts that are dots are gone once a proxy has put the path in order.
 */
export const pathBelow = (
  request: HttpServerRequest.HttpServerRequest,
  route: string
): Effect.Effect<ReadonlyArray<string>, Refused> => {
  const [path = ""] = request.url.split(/[?#]/, 1)
  if (!path.startsWith(`${route}/`)) return notFound
  try {
    const parts = path
      .slice(route.length + 1)
      .split("/")
      .map(decodeURIComponent)
    return parts.some((part) => dots.has(part)) ? notFound : Effect.succeed(parts)
  } catch {
    return failWith(refuse(400, "The path is not percent-encoded UTF-8."))
  }
}

/** The whole body, if it is not larger and does not take longer than it may. */
export const readBody = (
  request: HttpServerRequest.HttpServerRequest,
  { body, idle }: Bounds
): Effect.Effect<Uint8Array, Refused, Scope.Scope> => {
  const tooLarge = failWith(refuse(413, "The request is larger than this service takes."))
  // Told before it is sent, where the client says how much it is.
  if (Number(request.headers["content-length"]) > body) return tooLarge
  return request.arrayBuffer.pipe(
    Effect.provideService(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(body)),
    Effect.map((buffer) => new Uint8Array(buffer)),
    Effect.catch(({ reason }) =>
      "reason" in reason && reason.reason === "BodyTooLarge"
        ? tooLarge
        : failWith(refuse(400, "The body could not be read."))
    ),
    // To interrupt the reading is to destroy the connection: so it goes on until the client has been answered.
    Effect.forkScoped({ startImmediately: true }),
    Effect.flatMap(Fiber.join),
    Effect.timeoutOrElse({ duration: idle, orElse: () => failWith(refuse(408, "The body did not come in time.")) })
  )
}

/** What a route does: all of them end so. */
export type Routed = Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  Refused | AmqpError.AmqpError,
  Amqp.Amqp | HttpRouter.Provided
>

/**
 * Node lets go of a connection that asks for an upgrade: it has no timeouts any more, and the answer only half-closes it. A
 * client that does not close its half would keep it for ever.
 */
const freeUpgraded: Effect.Effect<void, never, HttpRouter.Provided> = Effect.flatMap(
  HttpServerRequest.HttpServerRequest,
  (request) => {
    const socket = isUpgrade(request) ? socketOf(request) : undefined
    return socket === undefined ? Effect.void : Effect.addFinalizer(() => Effect.sync(() => letGo(socket)))
  }
)

/**
 * A route that never becomes a WebSocket: it refuses a request for one, whose body nobody has read. Node hands its connection
 * over, and Effect's server would give the route an empty body.
 */
export const withoutUpgrade = (route: Routed): Routed =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
    isWebSocket(request) ? failWith(refuse(400, "Only GET of a queue becomes a WebSocket.")) : route
  )

/** Answers what a route has failed with. */
export const answering =
  (challenge: string, connection: string) =>
  (route: Routed): Effect.Effect<HttpServerResponse.HttpServerResponse, never, Amqp.Amqp | HttpRouter.Provided> =>
    Effect.andThen(freeUpgraded, route).pipe(
      Effect.catch((failure) => {
        if (AmqpError.isAmqpError(failure)) {
          const refusal = refusalOf(failure)
          return Effect.as(logFailure(failure, refusal.status, connection), responseOf(refusal))
        }
        const { refusal } = failure
        const response = responseOf(refusal)
        if (refusal.status === 401) {
          return Effect.succeed(HttpServerResponse.setHeader(response, "www-authenticate", challenge))
        }
        // What has not been read of the body would be taken for the next request.
        return Effect.succeed(
          refusal.status === 413 || refusal.status === 408
            ? HttpServerResponse.setHeader(response, "connection", "close")
            : response
        )
      })
    )
