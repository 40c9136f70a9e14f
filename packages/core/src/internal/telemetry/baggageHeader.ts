/** The header `baggage`, as W3C has it (https://www.w3.org/TR/baggage/#header-content). */
import type { Baggage, Entry } from "../../model/baggage.ts"
import type { Headers } from "../../model/message.ts"

export const name = "baggage"

export const none: Baggage = new Map()

// W3C: what has to be passed on, at least. OpenTelemetry's libraries read no more.
const mostMembers = 180
const mostBytes = 8192

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
/** Neither control characters nor white space, quotes, commas, semicolons and backslashes. */
const octets = /^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*$/
/** Properties, with the white space that may stand around them. */
const properties = /^[\t \x21\x23-\x2b\x2d-\x5b\x5d-\x7e]*$/

/** W3C: what is no UTF-8 is read as U+FFFD. */
const decode = (text: string): string => {
  if (!text.includes("%")) return text
  return Buffer.from(
    text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    "latin1"
  ).toString("utf8")
}

/** All that it encodes may be, and the rest must not. A lone surrogate is no text. */
const encode = (text: string): string => encodeURIComponent(text.toWellFormed())

export const parse = (header: string): Baggage => {
  const found = new Map<string, Entry>()
  let bytes = 0
  for (const member of header.split(",", mostMembers)) {
    bytes += member.length + 1
    if (bytes - 1 > mostBytes) break
    const semicolon = member.indexOf(";")
    const pair = semicolon < 0 ? member : member.slice(0, semicolon)
    const metadata = semicolon < 0 ? "" : member.slice(semicolon + 1).trim()
    const equals = pair.indexOf("=")
    const key = pair.slice(0, equals).trim()
    const value = pair.slice(equals + 1).trim()
    if (equals < 0 || !token.test(key) || !octets.test(value) || !properties.test(metadata)) continue
    found.set(key, metadata === "" ? { value: decode(value) } : { value: decode(value), metadata })
  }
  return found.size === 0 ? none : found
}

// A fiber publishes mostly with the baggage that it has published with before.
const formatted = new WeakMap<Baggage, string>()

/** A member in W3C's form, or `undefined`: types may have been circumvented, and no publish may die of its baggage. */
const memberOf = (key: unknown, entry: Partial<Record<keyof Entry, unknown>> | null | undefined) => {
  const value = entry?.value
  if (typeof key !== "string" || !token.test(key) || typeof value !== "string") return undefined
  const metadata = entry?.metadata
  const isKnown = typeof metadata === "string" && metadata !== "" && properties.test(metadata)
  return `${key}=${encode(value)}${isKnown ? `;${metadata}` : ""}`
}

const formatAgain = (baggage: Baggage): string => {
  let header = ""
  let members = 0
  for (const [key, entry] of baggage) {
    if (members === mostMembers) break
    const member = memberOf(key, entry)
    if (member === undefined) continue
    if (header.length + member.length + 1 > mostBytes) continue
    header += header === "" ? member : `,${member}`
    members++
  }
  return header
}

export const format = (baggage: Baggage): string | undefined => {
  if (baggage.size === 0) return undefined
  let header = formatted.get(baggage)
  if (header === undefined) formatted.set(baggage, (header = formatAgain(baggage)))
  return header === "" ? undefined : header
}

/** The baggage in a message's headers. Some clients send texts as byte arrays. */
export const ofHeaders = (headers: Headers): Baggage => {
  const given = headers[name]
  if (typeof given === "string") return parse(given)
  return given instanceof Uint8Array ? parse(Buffer.from(given).toString("latin1")) : none
}
