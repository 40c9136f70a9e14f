/** The page and its security policy: it runs only its own script and style, and connects only to its own server. */
import * as Effect from "effect/Effect"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { markup } from "./markup.ts"
import { script } from "./script.generated.ts"
import { style } from "./style.ts"

const hashOf = (text: string) =>
  Effect.map(
    Effect.promise(() => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))),
    (digest) => `'sha256-${btoa(String.fromCharCode(...new Uint8Array(digest)))}'`
  )

/**
 * Headers of the page and its events: they are not cached, their type is not guessed, and no other site can read them.
 */
export const securityHeaders = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin"
}

/** Encodings of the page, the best first. A response has the first one that its request accepts. */
const compress = async (text: string) => {
  const bytes = new TextEncoder().encode(text)
  const encoded: Array<readonly [encoding: string, body: Uint8Array]> = []
  const zlib = globalThis.process?.getBuiltinModule?.("node:zlib")
  if (zlib !== undefined) {
    // The synchronous function would hold up every other request for a tenth of a second.
    const body = await new Promise<Uint8Array>((resolve, reject) =>
      zlib.brotliCompress(bytes, (error, result) => (error === null ? resolve(result) : reject(error)))
    )
    encoded.push(["br", body])
  }
  if (typeof CompressionStream !== "undefined") {
    const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"))
    encoded.push(["gzip", new Uint8Array(await new Response(stream).arrayBuffer())])
  }
  return encoded
}

/** The quality that `Accept-Encoding` gives to an encoding (RFC 9110, section 12.5.3). 0: it is not acceptable. */
const qualityOf = (accepted: string, encoding: string): number => {
  const qualities = new Map<string, number>()
  for (const part of accepted.split(",")) {
    const [name = "", ...parameters] = part.split(";")
    const quality = parameters.map((parameter) => /^\s*q=([\d.]+)\s*$/i.exec(parameter)?.[1]).find(Boolean)
    qualities.set(name.trim().toLowerCase(), quality === undefined ? 1 : Number(quality))
  }
  return qualities.get(encoding) ?? qualities.get("*") ?? 0
}

/**
 * Makes the page. The returned function answers a request with this `Accept-Encoding`. The first request compresses the
 * page, for all later ones: a service must not start later for a page that may never be viewed.
 */
export const make = Effect.gen(function* () {
  const policy = [
    "default-src 'none'",
    `script-src ${yield* hashOf(script)}`,
    `style-src ${yield* hashOf(style)}`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'"
  ]
  const contentType = "text/html; charset=utf-8"
  const headers = { ...securityHeaders, vary: "accept-encoding", "content-security-policy": policy.join("; ") }
  const text = markup(style, script)
  const plain = HttpServerResponse.text(text, { contentType, headers })
  const compressed = async () =>
    (await compress(text)).map(
      ([encoding, body]) =>
        [
          encoding,
          HttpServerResponse.uint8Array(body, { contentType, headers: { ...headers, "content-encoding": encoding } })
        ] as const
    )
  // A promise and no `Effect.cached`: a client that leaves would interrupt the effect for all others.
  let encodings: ReturnType<typeof compressed> | undefined
  return (accepted = ""): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
    Effect.map(
      Effect.promise(() => (encodings ??= compressed())),
      (encodings) => {
        let best: HttpServerResponse.HttpServerResponse = plain
        let most = 0
        for (const [encoding, response] of encodings) {
          const quality = qualityOf(accepted, encoding)
          if (quality <= most) continue
          best = response
          most = quality
        }
        return best
      }
    )
})
