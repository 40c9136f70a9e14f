/**
 * Which pages may open a WebSocket: browsers let any page do that, with the cookies of the user.
 *
 * A browser always sends `Origin` with the handshake (RFC 6455, section 10.2), and no page can change it. Other clients send
 * what they like.
 */
import * as Effect from "effect/Effect"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import { refuse } from "./answers.ts"
import { failWith, type Refused } from "./requests.ts"

const isOrigin = (text: string): boolean => {
  // The origin of pages that have none.
  if (text === "null") return true
  try {
    return new URL(text).origin === text
  } catch {
    return false
  }
}

/** A mistake in them is one in the program, and ends it where it is built. */
export const originsOf = (origins: ReadonlyArray<string> | undefined): ReadonlySet<string> | undefined => {
  const wrong = origins?.find((origin) => !isOrigin(origin))
  if (wrong === undefined) return origins === undefined ? undefined : new Set(origins)
  throw new Error(
    `AmqpGateway: origins: expected origins as browsers send them, such as "https://app.example.com", got ${JSON.stringify(wrong)}`
  )
}

/** Whether a page is of the host that the request names: its scheme is not known behind a proxy that ends TLS. */
const isOfHost = (origin: string, host: string | undefined): boolean => {
  const [, named] = /^https?:\/\/([^/]+)$/.exec(origin) ?? []
  return named !== undefined && named.toLowerCase() === host?.toLowerCase()
}

/** Refuses a WebSocket of a page that may not open one. Asked before anything else. */
export const checkOrigin = (
  { headers }: HttpServerRequest.HttpServerRequest,
  origins: ReadonlySet<string> | undefined
): Effect.Effect<void, Refused> => {
  const { host, origin } = headers
  if (origin === undefined) return Effect.void
  return (origins === undefined ? isOfHost(origin, host) : origins.has(origin))
    ? Effect.void
    : failWith(refuse(403, "Pages of this origin may not open a WebSocket here."))
}
