/** Certificates and keys as PEM text (RFC 7468), and the paths of files that contain them. */
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { X509Certificate } from "node:crypto"
import { type Decoded, decoder, type Decoder, unredact, refuse, secret } from "./decoder.ts"
import { describeType } from "./formatValue.ts"

const expectedCertificates = "certificates as PEM text (-----BEGIN CERTIFICATE-----), and nothing else"
const expectedKey = "a private key as PEM text (-----BEGIN PRIVATE KEY-----)"

const certificateBegin = /-----BEGIN (?:X509 )?CERTIFICATE-----/g
const certificateEnd = /-----END (?:X509 )?CERTIFICATE-----/g
const keyBegin = /-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----/

/** Maximum number of kinds of keys that are searched for. There are five. */
const maxKinds = 16

// A single expression from the beginning to the end of a block would be slow: for a text with many beginnings and no
// end, it would search to the end of the text from each beginning.
const certificateBlocks = (pem: string): Array<string> => {
  const blocks: Array<string> = []
  let from = 0
  for (;;) {
    certificateBegin.lastIndex = from
    const begin = certificateBegin.exec(pem)
    certificateEnd.lastIndex = certificateBegin.lastIndex
    if (begin === null || certificateEnd.exec(pem) === null) return blocks
    from = certificateEnd.lastIndex
    blocks.push(pem.slice(begin.index, from))
  }
}

const keyBlock = (pem: string): string | undefined => {
  const unended = new Set<string>()
  for (const { 0: line, 1: kind = "", index } of pem.matchAll(new RegExp(keyBegin, "g"))) {
    if (unended.has(kind)) continue
    const end = `-----END ${kind}-----`
    const at = pem.indexOf(end, index + line.length)
    if (at >= 0) return pem.slice(index, at + end.length)
    unended.add(kind)
    if (unended.size === maxKinds) break
  }
  return undefined
}

/** Returns the certificates in a PEM text, or `undefined` if there are none or one of them cannot be read. */
export const certificatesIn = (pem: string): ReadonlyArray<string> | undefined => {
  const blocks = certificateBlocks(pem)
  try {
    return blocks.length > 0 && blocks.every((block) => new X509Certificate(block).raw.length > 0) ? blocks : undefined
  } catch {
    return undefined
  }
}

/** Returns the private key in a PEM text, which may also contain certificates. */
export const privateKeyIn = (pem: string): Redacted.Redacted<string> | undefined => {
  const block = keyBlock(pem)
  return block === undefined ? undefined : Redacted.make(block)
}

const pemText = (value: unknown): string | undefined =>
  typeof value === "string" ? value : value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : undefined

const certificatesOf = (value: unknown): Decoded<ReadonlyArray<string>> => {
  const pem = pemText(value)
  if (pem === undefined) return refuse(expectedCertificates, describeType(value))
  // A private key in this setting would be printed with the configuration.
  if (keyBegin.test(pem)) return refuse(expectedCertificates, "a private key among them")
  const found = certificatesIn(pem)
  if (found !== undefined) return Result.succeed(found)
  return refuse(
    expectedCertificates,
    pem.includes("-----BEGIN")
      ? "PEM that cannot be read as certificates"
      : `${describeType(value)} that is not PEM (for a path, use the setting for files)`
  )
}

/**
 * One or several PEM texts. Certificates are parsed here, because Node silently ignores a CA that is not a certificate.
 */
export const certificates: Decoder<ReadonlyArray<string>> = decoder((value) => {
  if (!Array.isArray(value)) return certificatesOf(value)
  const all: Array<string> = []
  for (const item of value) {
    const found = certificatesOf(item)
    if (Result.isFailure(found)) return found
    all.push(...found.success)
  }
  return all.length > 0 ? Result.succeed(all) : refuse(expectedCertificates)
})

export const privateKey: Decoder<Redacted.Redacted<string>> = secret((value) => {
  const pem = unredact(value) ?? pemText(value)
  if (pem === undefined) return refuse(expectedKey, describeType(value))
  const key = privateKeyIn(pem)
  return key === undefined ? refuse(expectedKey, `${describeType(value)} without a private key`) : Result.succeed(key)
})

/** The path of a file, or several paths. */
export const paths: Decoder<ReadonlyArray<string>> = decoder((value) => {
  const items: ReadonlyArray<unknown> = Array.isArray(value) ? value : [value]
  const all = items.filter((item) => typeof item === "string" && item !== "" && !item.includes("\0")) as Array<string>
  return all.length > 0 && all.length === items.length
    ? Result.succeed(all)
    : refuse("the path of a file with PEM text")
})
