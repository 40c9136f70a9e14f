/** Certificates and keys as PEM text (RFC 7468), and the paths of files that hold them. */
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { X509Certificate } from "node:crypto"
import { type Decoded, decoder, type Decoder, exposed, refuse, secret } from "./decoder.ts"
import { kind } from "./shown.ts"

const wantsCertificates = "certificates as PEM text (-----BEGIN CERTIFICATE-----), and nothing else"
const wantsKey = "a private key as PEM text (-----BEGIN PRIVATE KEY-----)"

const certificateBegin = /-----BEGIN (?:X509 )?CERTIFICATE-----/g
const certificateEnd = /-----END (?:X509 )?CERTIFICATE-----/g
const keyBegin = /-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----/

/** How many kinds of keys are looked for: there are five. */
const mostKinds = 16

// No expression from the beginning to the end of a block: with many beginnings and no end, each would be looked at to the end
// of the text.
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
    if (unended.size === mostKinds) break
  }
  return undefined
}

/** The certificates in a PEM text, or `undefined` if there is none or one of them cannot be read. */
export const certificatesIn = (pem: string): ReadonlyArray<string> | undefined => {
  const blocks = certificateBlocks(pem)
  try {
    return blocks.length > 0 && blocks.every((block) => new X509Certificate(block).raw.length > 0) ? blocks : undefined
  } catch {
    return undefined
  }
}

/** The private key in a PEM text, which may hold certificates beside it. */
export const privateKeyIn = (pem: string): Redacted.Redacted<string> | undefined => {
  const block = keyBlock(pem)
  return block === undefined ? undefined : Redacted.make(block)
}

const pemText = (value: unknown): string | undefined =>
  typeof value === "string" ? value : value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : undefined

const certificatesOf = (value: unknown): Decoded<ReadonlyArray<string>> => {
  const pem = pemText(value)
  if (pem === undefined) return refuse(wantsCertificates, kind(value))
  // Kept, it would be printed with the configuration.
  if (keyBegin.test(pem)) return refuse(wantsCertificates, "a private key among them")
  const found = certificatesIn(pem)
  if (found !== undefined) return Result.succeed(found)
  return refuse(
    wantsCertificates,
    pem.includes("-----BEGIN")
      ? "PEM that cannot be read as certificates"
      : `${kind(value)} that is no PEM; is it a path?`
  )
}

/** PEM text, or several. Certificates are read here: Node silently passes over a CA that is none. */
export const certificates: Decoder<ReadonlyArray<string>> = decoder((value) => {
  if (!Array.isArray(value)) return certificatesOf(value)
  const all: Array<string> = []
  for (const item of value) {
    const found = certificatesOf(item)
    if (Result.isFailure(found)) return found
    all.push(...found.success)
  }
  return all.length > 0 ? Result.succeed(all) : refuse(wantsCertificates)
})

export const privateKey: Decoder<Redacted.Redacted<string>> = secret((value) => {
  const pem = exposed(value) ?? pemText(value)
  if (pem === undefined) return refuse(wantsKey, kind(value))
  const key = privateKeyIn(pem)
  return key === undefined ? refuse(wantsKey, `${kind(value)} without one`) : Result.succeed(key)
})

/** The path of a file, or several. */
export const paths: Decoder<ReadonlyArray<string>> = decoder((value) => {
  const items: ReadonlyArray<unknown> = Array.isArray(value) ? value : [value]
  const all = items.filter((item) => typeof item === "string" && item !== "" && !item.includes("\0")) as Array<string>
  return all.length > 0 && all.length === items.length
    ? Result.succeed(all)
    : refuse("the path of a file with PEM text")
})
