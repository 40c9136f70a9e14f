/** The files of TLS: read when the configuration is made, and again at each connect. */
import * as Effect from "effect/Effect"
import { readFile, stat } from "node:fs/promises"
import type { Tls, TlsFile } from "../../model/config.ts"
import { certificatesIn, privateKeyIn } from "./pem.ts"

// A bundle of every public authority is a quarter of this; a device or a log would never end.
const largestFile = 1024 * 1024

export const codeOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error && typeof error.code === "string"
    ? error.code
    : "unreadable"

/** The text of a file, or why there is none. */
export const readPem = (path: string): Effect.Effect<string, string> =>
  Effect.tryPromise({
    try: async (signal) => {
      const { size } = await stat(path).then((found) => (found.isFile() ? found : { size: Infinity }))
      return size > largestFile ? undefined : await readFile(path, { encoding: "latin1", signal })
    },
    catch: codeOf
  }).pipe(
    Effect.filterOrFail(
      (text) => text !== undefined,
      () => "no regular file of at most 1 MiB"
    )
  )

/** Why a file cannot be used now. */
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
    if (picked === undefined) return yield* Effect.fail<Unreadable>({ ...file, remark: `without ${noun}` })
    found.push(picked)
  }
  return found
})

/** The settings, with what the files hold now. */
export const readAgain = Effect.fnUntraced(function* (tls: Tls): Effect.fn.Return<Tls, Unreadable> {
  const { files } = tls
  if (files === undefined) return tls
  const ca = yield* pick(files.ca, "certificates", certificatesIn)
  const cert = yield* pick(files.cert, "a certificate", certificatesIn)
  const key = yield* pick(files.key, "a private key", privateKeyIn)
  return {
    ...tls,
    ca: ca.length === 0 ? tls.ca : [...files.caBeside, ...ca.flat()],
    cert: cert.length === 0 ? tls.cert : `${cert.flat().join("\n")}\n`,
    key: key[0] ?? tls.key
  }
})
