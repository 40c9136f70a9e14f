/** The page, and what it may do: nothing but what is in it, and the stream of its own server. */
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

/** Of both, the page and its events: nobody keeps them, nobody takes them for something else, no other site gets them. */
export const guarding = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin"
}

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
  return HttpServerResponse.text(markup(style, script), {
    contentType: "text/html; charset=utf-8",
    headers: { ...guarding, "content-security-policy": policy.join("; ") }
  })
})
