/** Which pages may use routes that act with their visitors' credentials. */
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import { isAllowedOrigin } from "../gateway/origins.ts"

/**
 * Whether a request comes from a page that may send it, or from no page at all. Browsers send `Sec-Fetch-Site` with each
 * request, and `Origin` with each one that is not a plain GET of the same origin; no page can change them.
 */
export const isOwnPage =
  (origins: ReadonlySet<string> | undefined) =>
  ({ headers }: HttpServerRequest.HttpServerRequest): boolean => {
    const { host, origin } = headers
    if (origin !== undefined) return isAllowedOrigin(origin, host, origins)
    return ["same-origin", "none", undefined].includes(headers["sec-fetch-site"])
  }
