/** Options laid over a URL. */
import type { Draft } from "./draft.ts"
import type { Key } from "./settings.ts"

/** Settings that say the same in another way: an override of the first replaces the others as well. */
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

/** Lays `options` over what a URL gave. Only TLS itself is not overridden: the URL's scheme says it in plain sight. */
export const overrideUrl = (draft: Draft, options: Draft): void => {
  const scheme = draft.get("tls")
  const tls = options.get("tls")
  if (scheme !== undefined && tls !== undefined && scheme.value !== tls.value) {
    const [got, wants] = tls.value === true ? ["TLS", "a URL of amqps://"] : ["TLS switched off", "a URL of amqp://"]
    draft.report.add(tls.setting, `${got} beside a URL of ${scheme.value === true ? "amqps" : "amqp"}://`, wants)
    // Their own complaints would only repeat this one.
    for (const [key] of options.entries()) if (key.startsWith("tls")) options.forget(key)
  }
  for (const [key, ...others] of replaced) if (options.get(key) !== undefined) draft.forget(...others)
  if (options.get("authMechanism")?.value === "external") draft.forget("username", "password")
  if (options.get("pool")?.value === false) {
    for (const [key] of draft.entries()) if (key.startsWith("pool.")) draft.forget(key)
  }
  draft.override(options)
}
