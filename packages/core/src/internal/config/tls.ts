/** TLS: on or off, the files it names, and whether key, certificate and passphrase fit together. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto"
import { createSecureContext } from "node:tls"
import type { Tls, TlsFile, TlsFiles } from "../../model/config.ts"
import type { Draft } from "./draft.ts"
import { certificatesIn, privateKeyIn } from "./pem.ts"
import { type Key, keys } from "./settings.ts"
import { codeOf, readPem } from "./tlsFiles.ts"

const tlsKeys = keys.filter((key) => key.startsWith("tls."))

/** What `pick` finds in each file that a setting names. Files that cannot be read, or hold none, are reported. */
const fromFiles = Effect.fnUntraced(function* <A>(
  draft: Draft,
  key: "tls.caFile" | "tls.certFile" | "tls.keyFile",
  noun: string,
  pick: (pem: string) => A | undefined
) {
  const found: Array<A> = []
  const setting = draft.get(key)?.setting ?? key
  for (const path of draft.read(key) ?? []) {
    const text = yield* Effect.result(readPem(path))
    const picked = text._tag === "Success" ? pick(text.success) : undefined
    if (picked !== undefined) {
      found.push(picked)
      continue
    }
    const remark = text._tag === "Success" ? `without ${noun}` : text.failure
    draft.report.show(setting, path, `the path of a file with ${noun} as PEM text`, ` (${remark})`)
  }
  return found
})

/** A certificate, and the key beside it if the file holds both, as Python's `certfile` may. */
const certificateAndKey = (pem: string) => {
  const certificates = certificatesIn(pem)
  return certificates === undefined ? undefined : { certificates, key: privateKeyIn(pem) }
}

/** Reports a setting that is given both as PEM and as a file, and forgets the file. */
const onlyOne = (draft: Draft, inline: Key, file: Key): void => {
  const first = draft.get(inline)
  const second = draft.get(file)
  if (first === undefined || second === undefined) return
  draft.report.add(second.setting, `the same setting as ${first.setting} gave`, "one of the two")
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
      return draft.report.add(keySetting, `a private key that cannot be read (${codeOf(error)})`, "a private key")
    }
    const setting = draft.get("tls.passphrase")?.setting ?? draft.nameOf("tls.passphrase")
    const got = passphrase === undefined ? "nothing" : "one that does not open the private key"
    return draft.report.add(setting, got, "the passphrase of the private key")
  }
  if (!new X509Certificate(certificate).checkPrivateKey(read)) {
    draft.report.add(keySetting, "the key of another certificate", "the private key of the client certificate")
  }
}

const checkCiphers = (draft: Draft, ciphers: string): void => {
  try {
    createSecureContext({ ciphers })
  } catch {
    draft.report.show(draft.get("tls.ciphers")?.setting ?? "tls.ciphers", ciphers, "cipher suites that OpenSSL knows")
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
  const keyBeside = certFiles.findIndex((file) => file.key !== undefined)
  const key = draft.read("tls.key") ?? keyFiles[0] ?? certFiles[keyBeside]?.key
  if (report.size > before) return undefined
  const certificate = certificates[0]
  if (certificate !== undefined && key !== undefined) {
    checkKey(draft, certificate, key, passphrase)
    const cert = filesOf(draft, "tls.certFile")
    const isFromFile = draft.read("tls.key") === undefined
    const ownFiles =
      keyFiles.length > 0 ? filesOf(draft, "tls.keyFile").slice(0, 1) : cert.slice(keyBeside, keyBeside + 1)
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
    report.add(draft.get("tls.passphrase")?.setting ?? "tls.passphrase", "a passphrase without a key", "a private key")
  }
  return undefined
})

/** Whether TLS is on: as said, or by any setting of TLS, since those are of no use without it. */
export const isTlsOn = (draft: Draft): boolean => draft.read("tls") ?? draft.first(tlsKeys) !== undefined

/** The TLS settings, `undefined` for a connection without TLS. */
export const readTls = Effect.fnUntraced(function* (draft: Draft, on: boolean) {
  if (!on) {
    const off = draft.get("tls")?.setting ?? draft.nameOf("tls")
    for (const key of tlsKeys) {
      const given = draft.get(key)
      if (given === undefined) continue
      draft.report.add(given.setting, "a setting of TLS", `TLS, which ${off} switches off, or not to be given`)
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
    caBeside: draft.read("tls.ca") ?? [],
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
