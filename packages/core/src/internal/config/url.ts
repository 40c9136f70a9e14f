/**
 * Takes an AMQP URL apart: `amqp[s]://user:password@host:port,host:port/vhost?parameters`.
 *
 * It does not use `URL`, which takes one host, keeps the password in its error, and reads `amqp:/alice:pw@host` as a
 * path without a host. A part that may be the tail of a password with an unescaped character is never shown.
 */
import type { Draft } from "./draft.ts"
import { unredact } from "./decoder.ts"
import { reportUnknownName, type KnownNames } from "./unknownNames.ts"
import { readSslOptions, readTcpOptions } from "./pika.ts"
import { type Key, urlParameters } from "./settings.ts"
import { describeType } from "./formatValue.ts"

const expectedUrl = "a URL such as amqp://user:password@host:5672/vhost, or amqps:// for TLS"
const expectedEscapes =
  "percent-encoded special characters (@ is %40, / is %2F, : is %3A, # is %23, ? is %3F, % is %25)"

/** Maximum length of a URL, in characters: more than any URL has, even with certificates among its parameters. */
const maxUrlLength = 262_144

/** Maximum number of parameters: more than twice the number of settings. */
const maxParameters = 200

// Parameters that are accepted because existing URLs contain them.
const special = ["ssl_options", "tcp_options", "backpressure_detection", "maxFrameSize"] as const

const allParameters: ReadonlySet<string> = new Set([...urlParameters.keys(), ...special])

const parameterNames: KnownNames = {
  noun: "parameter",
  known: allParameters,
  listed: [...allParameters].filter((name) => !/[A-Z]/.test(name)),
  suffix: "="
}

// Other libraries know these, with another unit or meaning. They are not misspellings, so each has its own hint.
const foreign: ReadonlyMap<string, string> = new Map([
  ["connection_timeout", "connect_timeout, in seconds (RabbitMQ's connection_timeout is in milliseconds)"],
  ["timeout", "connect_timeout or socket_timeout, in seconds"],
  ["verify", "tls_verify=true or tls_verify=false"],
  ["rejectUnauthorized", "tls_verify=true or tls_verify=false"]
])

const decoded = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    // The text contains a lone % or bytes that are not UTF-8. The error is not passed on: it would repeat the text.
    return undefined
  }
}

interface Parts {
  readonly scheme: "amqp" | "amqps"
  readonly userinfo: string | undefined
  readonly hosts: string
  readonly path: string
  readonly query: string
}

const otherScheme = /^(?:https?|wss?|mqtts?|stomp|tcp|tls|ssl|kafka|redis|nats|postgres(?:ql)?|rabbitmq|pulsar):/i

/** Returns the parts of a URL if they can be distinguished beyond doubt, or what is wrong with it. */
const split = (url: string): Parts | { readonly got: string; readonly expected: string } => {
  const found = /^(amqps?):\/\/([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?$/is.exec(url)
  if (found === null) {
    if (/^amqps?:/i.test(url)) return { got: "a URL without //", expected: expectedUrl }
    const scheme = otherScheme.exec(url)?.[0]
    return {
      got: scheme === undefined ? `${describeType(url)} without amqp://` : `a URL with the scheme ${scheme}`,
      expected: expectedUrl
    }
  }
  const [, scheme = "", authority = "", path = "", query = "", fragment] = found
  const [userinfo, hosts, ...more] = authority.includes("@") ? authority.split("@") : [undefined, authority]
  if (more.length > 0 || [path, query, fragment].some((part) => part?.includes("@") === true)) {
    return { got: "an @ other than the one that ends the user name and password", expected: expectedEscapes }
  }
  if (fragment !== undefined) return { got: "an unescaped #", expected: expectedEscapes }
  // oxlint-disable-next-line no-control-regex
  if (/[\u0000-\u0020\u007f]/.test(authority + path))
    return { got: "a space or control character", expected: expectedEscapes }
  // user:password without @host looks like host:port.
  if (userinfo === undefined && /:[^:\],]*[^\d:\],]/.test(authority.replaceAll(/\[[^[\]]*\]/g, ""))) {
    return { got: "a port that is not a number, or a user name and password without @host", expected: expectedUrl }
  }
  return {
    scheme: scheme.toLowerCase() === "amqps" ? "amqps" : "amqp",
    userinfo,
    // RFC 6874: the % of an IPv6 zone is written as %25.
    hosts: (hosts ?? "").replaceAll(/\[[^[\]]*\]/g, (address) => address.replace("%25", "%")),
    path,
    query: query.slice(1)
  }
}

const readUser = (draft: Draft, name: string, userinfo: string): void => {
  const colon = userinfo.indexOf(":")
  const parts: ReadonlyArray<readonly [Key, string, string]> = [
    ["username", "user name", colon < 0 ? userinfo : userinfo.slice(0, colon)],
    ...(colon < 0 ? [] : [["password", "password", userinfo.slice(colon + 1)] as const])
  ]
  for (const [key, noun, raw] of parts) {
    draft.report.addSecret(key === "password" ? raw : undefined)
    const value = decoded(raw)
    if (value === undefined) draft.report.add(`${name} ${noun}`, "an invalid percent-encoding", expectedEscapes)
    // A part that cannot be decoded still counts as given, so it is not reported as missing.
    draft.set(key, { setting: `${name} ${noun}`, value: value ?? "unreadable", form: "text", isSensitive: true })
  }
}

const readPath = (draft: Draft, name: string, path: string): void => {
  // As in Pika and amqplib, and unlike in RabbitMQ's URI specification, `/` alone is the default virtual host.
  if (path === "" || path === "/") return
  const setting = `${name} virtual host`
  if (path.includes("/", 1))
    return draft.report.add(setting, "a path with more than one /", "a virtual host in which / is written as %2F")
  const value = decoded(path.slice(1))
  if (value === undefined) return draft.report.add(setting, "an invalid percent-encoding", expectedEscapes)
  draft.set("vhost", { setting, value, form: "text", isSensitive: true })
}

const readSpecial = (draft: Draft, setting: string, parameter: (typeof special)[number], value: string): void => {
  switch (parameter) {
    case "ssl_options":
      // Older releases of Pika had no amqps, and verified nothing.
      if (value.trim() === "None" && draft.get("tls")?.value === true) {
        draft.report.add(setting, "None", "a dict, or an amqp:// URL for a connection without TLS")
      }
      return readSslOptions(draft, setting, value)
    case "tcp_options":
      return readTcpOptions(draft, setting, value)
    case "backpressure_detection":
      // Pika before 1.0 used it to watch its own send buffer. Here publishing always waits for the socket.
      if (!/^(?:t|f|true|false)$/i.test(value)) draft.report.addWithValue(setting, value, "t or f")
      return undefined
    case "maxFrameSize":
      // This is amqplib's bound for incoming frames. Here the negotiated frame-max bounds them, which is never above
      // ours.
      if (!/^\d+$/.test(value) || (Number(value) !== 0 && Number(value) < 4096)) {
        draft.report.addWithValue(setting, value, "0, or an integer from 4096")
      }
      return undefined
  }
}

const isSpecial = (parameter: string): parameter is (typeof special)[number] =>
  special.some((name) => name === parameter)

const readParameter = (draft: Draft, prefix: string, seen: Set<string>, pair: string): void => {
  const equals = pair.indexOf("=")
  const rawName = equals < 0 ? pair : pair.slice(0, equals)
  const parameter = decoded(rawName.replaceAll("+", " "))
  const value = equals < 0 ? undefined : decoded(pair.slice(equals + 1).replaceAll("+", " "))
  // A name without a value may be the tail of a password.
  if (equals < 0 && !allParameters.has(rawName)) {
    return draft.report.add(`${prefix}?`, "a parameter without =", "a parameter of the form name=value")
  }
  if (parameter === undefined)
    return draft.report.add(`${prefix}?`, "a name with an invalid percent-encoding", expectedEscapes)
  const key = urlParameters.get(parameter)
  const setting = `${prefix}?${parameter}=`
  if (key === undefined && !isSpecial(parameter)) {
    const hint = foreign.get(parameter)
    if (hint !== undefined) return draft.report.add(setting, "an unknown parameter", hint)
    return reportUnknownName(draft, { ...parameterNames, prefix: `${prefix}?` }, parameter, value)
  }
  if (value === undefined) {
    if (equals < 0) return draft.report.add(setting, "nothing", "a value")
    return draft.report.add(setting, "an invalid percent-encoding", expectedEscapes)
  }
  if (isSpecial(parameter)) {
    if (seen.has(parameter)) return draft.report.add(setting, "more than one value", "one value")
    seen.add(parameter)
    return readSpecial(draft, setting, parameter, value)
  }
  if (key !== undefined) draft.set(key, { setting, value, form: "text" })
}

/** Reads a URL. `name` is the user's name for it: `url` or `AMQP_URL`. */
export const readUrl = (draft: Draft, name: string, url: unknown): void => {
  const text = unredact(url)
  if (text === undefined) return draft.report.add(name, describeType(url), "a string, or a Redacted of one")
  if (text.trim() === "") return draft.report.add(name, "an empty string", expectedUrl)
  if (text.length > maxUrlLength) {
    return draft.report.add(
      name,
      `a string of ${text.length} characters`,
      `a URL of at most ${maxUrlLength} characters`
    )
  }
  const parts = split(text.trim())
  if ("got" in parts) return draft.report.add(name, parts.got, parts.expected)
  if (parts.userinfo !== undefined) readUser(draft, name, parts.userinfo)
  draft.set("tls", { setting: `${name} ${parts.scheme}://`, value: parts.scheme === "amqps", form: "plain" })
  if (parts.hosts === "") draft.report.add(`${name} host`, "nothing", "a host after //, such as amqp://localhost")
  // An empty host counts as given: localhost is not assumed for a URL without a host.
  draft.set("hosts", { setting: `${name} host`, value: parts.hosts, form: "text", isSensitive: true })
  readPath(draft, name, parts.path)
  const prefix = name === "url" ? "" : `${name} `
  const seen = new Set<string>()
  const pairs = parts.query.split("&")
  if (pairs.length > maxParameters) {
    return draft.report.add(`${prefix}?`, `${pairs.length} parameters`, `at most ${maxParameters}`)
  }
  for (const pair of pairs) {
    if (pair !== "") readParameter(draft, prefix, seen, pair)
  }
}
