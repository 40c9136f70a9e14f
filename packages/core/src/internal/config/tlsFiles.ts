/** The files of TLS, which are read when the configuration is made and again at each connect. */
import * as Effect from "effect/Effect"
import { readFileSync, type Stats, statSync } from "node:fs"
import { readFile, stat } from "node:fs/promises"
import type { Tls, TlsFile } from "../../model/config.ts"
import { certificatesIn, privateKeyIn } from "./pem.ts"

// Maximum size of a file, in bytes. A bundle of all public authorities takes a quarter of this. A device or a growing
// log would never end.
const maxFileSize = 1024 * 1024

export const errorCodeOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error && typeof error.code === "string"
    ? error.code
    : "unreadable"

const isReadable = (found: Stats): boolean => found.isFile() && found.size <= maxFileSize

const orRefused = (text: Effect.Effect<string | undefined, string>): Effect.Effect<string, string> =>
  Effect.filterOrFail(
    text,
    (text) => text !== undefined,
    () => "it is not a regular file of at most 1 MiB"
  )

/** Reads the text of a file for a connect, or fails with the reason why it cannot. */
const readPem = (path: string): Effect.Effect<string, string> =>
  orRefused(
    Effect.tryPromise({
      try: async (signal) =>
        isReadable(await stat(path)) ? await readFile(path, { encoding: "latin1", signal }) : undefined,
      catch: errorCodeOf
    })
  )

/**
 * Reads the text of a file for a configuration, or fails with the reason why it cannot. It does not wait: a `Config` of
 * Effect 3, which reads a configuration through this package, cannot.
 */
export const readPemSync = (path: string): Effect.Effect<string, string> =>
  orRefused(
    Effect.try({
      try: () => (isReadable(statSync(path)) ? readFileSync(path, "latin1") : undefined),
      catch: errorCodeOf
    })
  )

/** The reason why a file cannot be used now. */
export interface Unreadable extends TlsFile {
  readonly remark: string
}

const pick = Effect.fnUntraced(function* <A>(
  files: ReadonlyArray<TlsFile>,
  noun: string,
  of: (pem: string) => A | undefined
): Effect.fn.Return<Array<A>, Unreadable> {
  const found: Array<A> = []
  for (const file of files) {
    const text = yield* Effect.mapError(readPem(file.path), (remark): Unreadable => ({ ...file, remark }))
    const picked = of(text)
    if (picked === undefined) return yield* Effect.fail<Unreadable>({ ...file, remark: `it does not contain ${noun}` })
    found.push(picked)
  }
  return found
})

/** Returns the settings with the current contents of the files. */
export const reloadTls = Effect.fnUntraced(function* (tls: Tls): Effect.fn.Return<Tls, Unreadable> {
  const { files } = tls
  if (files === undefined) return tls
  const ca = yield* pick(files.ca, "certificates", certificatesIn)
  const cert = yield* pick(files.cert, "a certificate", certificatesIn)
  const key = yield* pick(files.key, "a private key", privateKeyIn)
  return {
    ...tls,
    ca: ca.length === 0 ? tls.ca : [...files.inlineCa, ...ca.flat()],
    cert: cert.length === 0 ? tls.cert : `${cert.flat().join("\n")}\n`,
    key: key[0] ?? tls.key
  }
})
