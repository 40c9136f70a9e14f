/** Options that override a URL. */
import type { Draft } from "./draft.ts"
import type { Key } from "./settings.ts"

/** Settings that express the same thing in different ways: an override of the first replaces the others as well. */
const replaced: ReadonlyArray<readonly [Key, ...Array<Key>]> = [
  ["host", "hosts"],
  ["hosts", "host"],
  ["tls.ca", "tls.caFile"],
  ["tls.caFile", "tls.ca"],
  ["tls.cert", "tls.certFile"],
  ["tls.certFile", "tls.cert"],
  ["tls.key", "tls.keyFile"],
  ["tls.keyFile", "tls.key"]
]

/** Overrides a URL's settings with `options`, except whether TLS is on: the URL's scheme says that visibly. */
export const overrideUrl = (draft: Draft, options: Draft): void => {
  const scheme = draft.get("tls")
  const tls = options.get("tls")
  if (scheme !== undefined && tls !== undefined && scheme.value !== tls.value) {
    const [got, expected] = tls.value === true ? ["TLS", "an amqps:// URL"] : ["TLS switched off", "an amqp:// URL"]
    draft.report.add(tls.setting, `${got} with an ${scheme.value === true ? "amqps" : "amqp"}:// URL`, expected)
    // Mistakes in the other TLS options would only repeat this one.
    for (const [key] of options.entries()) if (key.startsWith("tls")) options.forget(key)
  }
  for (const [key, ...others] of replaced) if (options.get(key) !== undefined) draft.forget(...others)
  if (options.get("authMechanism")?.value === "external") draft.forget("username", "password")
  if (options.get("pool")?.value === false) {
    for (const [key] of draft.entries()) if (key.startsWith("pool.")) draft.forget(key)
  }
  draft.override(options)
}
