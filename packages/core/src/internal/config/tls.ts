/** TLS: whether it is on, the files that it names, and whether key, certificate and passphrase belong together. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto"
import { createSecureContext } from "node:tls"
import type { Tls, TlsFile, TlsFiles } from "../../model/config.ts"
import type { Draft } from "./draft.ts"
import { certificatesIn, privateKeyIn } from "./pem.ts"
import { type Key, keys } from "./settings.ts"
import { errorCodeOf, readPemSync } from "./tlsFiles.ts"

const tlsKeys = keys.filter((key) => key.startsWith("tls."))

/**
 * Returns what `pick` finds in each file that a setting names. Reports files that cannot be read or do not contain it.
 */
const fromFiles = Effect.fnUntraced(function* <A>(
  draft: Draft,
  key: "tls.caFile" | "tls.certFile" | "tls.keyFile",
  noun: string,
  pick: (pem: string) => A | undefined
) {
  const found: Array<A> = []
  const setting = draft.get(key)?.setting ?? key
  for (const path of draft.read(key) ?? []) {
    const text = yield* Effect.result(readPemSync(path))
    const picked = text._tag === "Success" ? pick(text.success) : undefined
    if (picked !== undefined) {
      found.push(picked)
      continue
    }
    const remark = text._tag === "Success" ? `it does not contain ${noun}` : text.failure
    draft.report.addWithValue(setting, path, `the path of a file with ${noun} as PEM text`, ` (${remark})`)
  }
  return found
})

/** Returns the certificates, and the private key if the file contains both, as Python's `certfile` may. */
const certificateAndKey = (pem: string) => {
  const certificates = certificatesIn(pem)
  return certificates === undefined ? undefined : { certificates, key: privateKeyIn(pem) }
}

/** Reports a setting that is given both as PEM and as a file, and drops the file. */
const onlyOne = (draft: Draft, inline: Key, file: Key): void => {
  const first = draft.get(inline)
  const second = draft.get(file)
  if (first === undefined || second === undefined) return
  draft.report.add(second.setting, "both", `either ${first.setting} or ${second.setting}`)
  draft.forget(file)
}

const checkKey = (
  draft: Draft,
  certificate: string,
  key: Redacted.Redacted<string>,
  passphrase: Redacted.Redacted<string> | undefined
): void => {
  const keySetting = draft.first(["tls.key", "tls.keyFile", "tls.certFile"])?.setting ?? "tls.key"
  let read: KeyObject
  try {
    read = createPrivateKey({
      key: Redacted.value(key),
      format: "pem",
      ...(passphrase === undefined ? undefined : { passphrase: Redacted.value(passphrase) })
    })
  } catch (error) {
    const isEncrypted = Redacted.value(key).includes("ENCRYPTED")
    if (!isEncrypted) {
      return draft.report.add(keySetting, `one that cannot be read (${errorCodeOf(error)})`, "a private key")
    }
    const setting = draft.get("tls.passphrase")?.setting ?? draft.nameOf("tls.passphrase")
    const got = passphrase === undefined ? "nothing" : "a passphrase that does not open it"
    return draft.report.add(setting, got, "the passphrase of the private key")
  }
  if (!new X509Certificate(certificate).checkPrivateKey(read)) {
    draft.report.add(keySetting, "the private key of another certificate", "the private key of the client certificate")
  }
}

const checkCiphers = (draft: Draft, ciphers: string): void => {
  try {
    createSecureContext({ ciphers })
  } catch {
    draft.report.addWithValue(
      draft.get("tls.ciphers")?.setting ?? "tls.ciphers",
      ciphers,
      "cipher suites that OpenSSL knows"
    )
  }
}

const filesOf = (draft: Draft, key: "tls.caFile" | "tls.certFile" | "tls.keyFile"): ReadonlyArray<TlsFile> => {
  const setting = draft.get(key)?.setting ?? key
  return (draft.read(key) ?? []).map((path) => ({ setting, path }))
}

const identity = Effect.fnUntraced(function* (draft: Draft) {
  const { report } = draft
  const before = report.size
  onlyOne(draft, "tls.cert", "tls.certFile")
  onlyOne(draft, "tls.key", "tls.keyFile")
  const passphrase = draft.read("tls.passphrase")
  const certFiles = yield* fromFiles(draft, "tls.certFile", "a certificate", certificateAndKey)
  const keyFiles = yield* fromFiles(draft, "tls.keyFile", "a private key", privateKeyIn)
  const certificates = draft.read("tls.cert") ?? certFiles.flatMap((file) => file.certificates)
  const withKey = certFiles.findIndex((file) => file.key !== undefined)
  const key = draft.read("tls.key") ?? keyFiles[0] ?? certFiles[withKey]?.key
  if (report.size > before) return undefined
  const certificate = certificates[0]
  if (certificate !== undefined && key !== undefined) {
    checkKey(draft, certificate, key, passphrase)
    const cert = filesOf(draft, "tls.certFile")
    const isFromFile = draft.read("tls.key") === undefined
    const ownFiles = keyFiles.length > 0 ? filesOf(draft, "tls.keyFile").slice(0, 1) : cert.slice(withKey, withKey + 1)
    return {
      cert: `${certificates.join("\n")}\n`,
      key,
      passphrase,
      files: { cert, key: isFromFile ? ownFiles : [] }
    }
  }
  if (certificate !== undefined)
    report.add(draft.nameOf("tls.key"), "nothing", "the private key of the client certificate")
  if (key !== undefined) report.add(draft.nameOf("tls.cert"), "nothing", "the certificate of the private key")
  if (key === undefined && passphrase !== undefined) {
    report.add(
      draft.get("tls.passphrase")?.setting ?? "tls.passphrase",
      "a passphrase without a key",
      "a private key as well"
    )
  }
  return undefined
})

/** Whether TLS is on: as set, or because of any TLS setting, since those have no effect without TLS. */
export const isTlsOn = (draft: Draft): boolean => draft.read("tls") ?? draft.first(tlsKeys) !== undefined

/** Returns the TLS settings, or `undefined` for a connection without TLS. */
export const readTls = Effect.fnUntraced(function* (draft: Draft, on: boolean) {
  if (!on) {
    const off = draft.get("tls")?.setting ?? draft.nameOf("tls")
    for (const key of tlsKeys) {
      const given = draft.get(key)
      if (given === undefined) continue
      draft.report.add(given.setting, "a TLS setting", `no value, because ${off} switches TLS off`)
    }
    return undefined
  }
  const authorities = yield* fromFiles(draft, "tls.caFile", "certificates", certificatesIn)
  const ca = [...(draft.read("tls.ca") ?? []), ...authorities.flat()]
  const ciphers = draft.read("tls.ciphers")
  if (ciphers !== undefined) checkCiphers(draft, ciphers)
  const own = yield* identity(draft)
  const files: TlsFiles = {
    ca: filesOf(draft, "tls.caFile"),
    inlineCa: draft.read("tls.ca") ?? [],
    cert: own?.files.cert ?? [],
    key: own?.files.key ?? []
  }
  const tls: Tls = {
    ca: ca.length > 0 ? ca : undefined,
    cert: own?.cert,
    key: own?.key,
    passphrase: own?.passphrase,
    servername: draft.read("tls.servername"),
    verify: draft.read("tls.verify") ?? true,
    minVersion: draft.read("tls.minVersion") ?? "TLSv1.2",
    ciphers,
    files: files.ca.length + files.cert.length + files.key.length > 0 ? files : undefined
  }
  return tls
})
