/** Reads and writes the header `baggage` in W3C's format (https://www.w3.org/TR/baggage/#header-content). */
import type { Baggage, Entry } from "../../model/baggage.ts"
import type { Headers } from "../../model/message.ts"

export const headerName = "baggage"

export const emptyBaggage: Baggage = new Map()

// W3C: the least that must be propagated. OpenTelemetry's libraries read no more.
const maxMembers = 180
const maxBytes = 8192

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
/** A value: no control characters, white space, quotes, commas, semicolons or backslashes. */
const octets = /^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*$/
/** Properties, with the white space that is allowed around them. */
const properties = /^[\t \x21\x23-\x2b\x2d-\x5b\x5d-\x7e]*$/

/** W3C: invalid UTF-8 is read as U+FFFD. */
const decode = (text: string): string => {
  if (!text.includes("%")) return text
  return Buffer.from(
    text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    "latin1"
  ).toString("utf8")
}

/**
 * Percent-encodes a value. `encodeURIComponent` encodes every character that W3C does not allow, and more than W3C
 * requires, which is permitted. Lone surrogates are replaced first, because they cannot be encoded.
 */
const encode = (text: string): string => encodeURIComponent(text.toWellFormed())

export const parse = (header: string): Baggage => {
  const found = new Map<string, Entry>()
  let bytes = 0
  for (const member of header.split(",", maxMembers)) {
    bytes += member.length + 1
    if (bytes - 1 > maxBytes) break
    const semicolon = member.indexOf(";")
    const pair = semicolon < 0 ? member : member.slice(0, semicolon)
    const metadata = semicolon < 0 ? "" : member.slice(semicolon + 1).trim()
    const equals = pair.indexOf("=")
    const key = pair.slice(0, equals).trim()
    const value = pair.slice(equals + 1).trim()
    if (equals < 0 || !token.test(key) || !octets.test(value) || !properties.test(metadata)) continue
    found.set(key, metadata === "" ? { value: decode(value) } : { value: decode(value), metadata })
  }
  return found.size === 0 ? emptyBaggage : found
}

// A fiber usually publishes with the same baggage as before, so formatted headers are cached.
const formatted = new WeakMap<Baggage, string>()

/**
 * Formats one member, or returns `undefined` for an invalid one: types can be circumvented, and a publish must not fail
 * because of its baggage.
 */
const memberOf = (key: unknown, entry: Partial<Record<keyof Entry, unknown>> | null | undefined) => {
  const value = entry?.value
  if (typeof key !== "string" || !token.test(key) || typeof value !== "string") return undefined
  const metadata = entry?.metadata
  const isKnown = typeof metadata === "string" && metadata !== "" && properties.test(metadata)
  return `${key}=${encode(value)}${isKnown ? `;${metadata}` : ""}`
}

const formatUncached = (baggage: Baggage): string => {
  let header = ""
  let members = 0
  for (const [key, entry] of baggage) {
    if (members === maxMembers) break
    const member = memberOf(key, entry)
    if (member === undefined) continue
    if (header.length + member.length + 1 > maxBytes) continue
    header += header === "" ? member : `,${member}`
    members++
  }
  return header
}

export const format = (baggage: Baggage): string | undefined => {
  if (baggage.size === 0) return undefined
  let header = formatted.get(baggage)
  if (header === undefined) formatted.set(baggage, (header = formatUncached(baggage)))
  return header === "" ? undefined : header
}

/** Reads the baggage from a message's headers. Some clients send strings as byte arrays. */
export const extract = (headers: Headers): Baggage => {
  const given = headers[headerName]
  if (typeof given === "string") return parse(given)
  return given instanceof Uint8Array ? parse(Buffer.from(given).toString("latin1")) : emptyBaggage
}
