/**
 * Decides which pages may open a WebSocket. Browsers let every page open one, with the cookies of the user.
 *
 * A browser always sends `Origin` with the handshake (RFC 6455, section 10.2), and no page can change it. Other clients
 * can send any value.
 */
import * as Effect from "effect/Effect"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import { refuse } from "./refusals.ts"
import { failWith, type RequestRefused } from "./requests.ts"

const isOrigin = (text: string): boolean => {
  // Browsers send "null" for pages that have no origin.
  if (text === "null") return true
  try {
    return new URL(text).origin === text
  } catch {
    return false
  }
}

/** Reads the option `origins`. A wrong origin is a mistake in the program, so the layer dies while it is built. */
export const originsOf = (
  origins: ReadonlyArray<string> | undefined,
  where = "AmqpGateway"
): ReadonlySet<string> | undefined => {
  const wrong = origins?.find((origin) => !isOrigin(origin))
  if (wrong === undefined) return origins === undefined ? undefined : new Set(origins)
  throw new Error(
    `${where}: origins: expected origins as browsers send them, such as "https://app.example.com", got ${JSON.stringify(wrong)}`
  )
}

/**
 * Whether a page belongs to the host that the request names. The scheme is unknown behind a proxy that terminates TLS.
 */
const isOfHost = (origin: string, host: string | undefined): boolean => {
  const [, named] = /^https?:\/\/([^/]+)$/.exec(origin) ?? []
  return named !== undefined && named.toLowerCase() === host?.toLowerCase()
}

/** Whether a page of this origin is allowed: one of the origins, or without them one of the host. */
export const isAllowedOrigin = (
  origin: string,
  host: string | undefined,
  origins: ReadonlySet<string> | undefined
): boolean => (origins === undefined ? isOfHost(origin, host) : origins.has(origin))

/** Refuses a WebSocket of a page that may not open one. It is checked before everything else. */
export const checkOrigin = (
  { headers }: HttpServerRequest.HttpServerRequest,
  origins: ReadonlySet<string> | undefined
): Effect.Effect<void, RequestRefused> => {
  const { host, origin } = headers
  if (origin === undefined) return Effect.void
  return isAllowedOrigin(origin, host, origins)
    ? Effect.void
    : failWith(refuse(403, "Pages of this origin may not open a WebSocket at this service."))
}
