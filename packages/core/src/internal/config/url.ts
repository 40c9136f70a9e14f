/**
 * An AMQP URL taken apart: `amqp[s]://user:password@host:port,host:port/vhost?parameters`.
 *
 * By hand, not with `URL`: that takes one host, keeps the password in its error, and reads `amqp:/alice:pw@host` as a
 * path without a host. A part that may be the tail of a password with an unescaped character is never shown.
 */
import type { Draft } from "./draft.ts"
import { exposed } from "./decoder.ts"
import { refuseName, type Names } from "./names.ts"
import { readSslOptions, readTcpOptions } from "./pika.ts"
import { type Key, urlParameters } from "./settings.ts"
import { kind } from "./shown.ts"

const wantsUrl = "a URL: amqp://user:password@host:5672/vhost, or amqps:// for TLS"
const wantsEscapes = "special characters percent-encoded (@ is %40, / is %2F, : is %3A, # is %23, ? is %3F, % is %25)"

/** In characters: with certificates among the parameters, more than any has. */
const longestUrl = 262_144

/** Twice as many as there are settings. */
const mostParameters = 200

// Understood for the sake of the URLs that carry them.
const special = ["ssl_options", "tcp_options", "backpressure_detection", "maxFrameSize"] as const

const allParameters: ReadonlySet<string> = new Set([...urlParameters.keys(), ...special])

const parameterNames: Names = {
  noun: "parameter",
  known: allParameters,
  listed: [...allParameters].filter((name) => !/[A-Z]/.test(name)),
  suffix: "="
}

// Known elsewhere, with another unit or meaning: no misspelling, so a hint of its own.
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
    // A lone % or bytes that are no UTF-8; the error would repeat the text.
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

/** The parts of a URL that can be told apart beyond doubt, or what is wrong with it. */
const split = (url: string): Parts | { readonly got: string; readonly wants: string } => {
  const found = /^(amqps?):\/\/([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?$/is.exec(url)
  if (found === null) {
    if (/^amqps?:/i.test(url)) return { got: "a URL without //", wants: wantsUrl }
    const scheme = otherScheme.exec(url)?.[0]
    return { got: scheme === undefined ? `${kind(url)} without amqp://` : `a URL of ${scheme}`, wants: wantsUrl }
  }
  const [, scheme = "", authority = "", path = "", query = "", fragment] = found
  const [userinfo, hosts, ...more] = authority.includes("@") ? authority.split("@") : [undefined, authority]
  if (more.length > 0 || [path, query, fragment].some((part) => part?.includes("@") === true)) {
    return { got: "an @ beside the one that ends the user name and password", wants: wantsEscapes }
  }
  if (fragment !== undefined) return { got: "a #", wants: wantsEscapes }
  // oxlint-disable-next-line no-control-regex
  if (/[\u0000-\u0020\u007f]/.test(authority + path))
    return { got: "a space or control character", wants: wantsEscapes }
  // user:password without @host looks like host:port.
  if (userinfo === undefined && /:[^:\],]*[^\d:\],]/.test(authority.replaceAll(/\[[^[\]]*\]/g, ""))) {
    return { got: "a port that is no number, or a user and password without @host", wants: wantsUrl }
  }
  return {
    scheme: scheme.toLowerCase() === "amqps" ? "amqps" : "amqp",
    userinfo,
    // RFC 6874: the % of an IPv6 zone is %25.
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
    draft.report.keep(key === "password" ? raw : undefined)
    const value = decoded(raw)
    if (value === undefined) draft.report.add(`${name} ${noun}`, "a % that begins no character of UTF-8", wantsEscapes)
    // Even if it cannot be read it was given: it is not missing.
    draft.give(key, { setting: `${name} ${noun}`, value: value ?? "unreadable", form: "text", quiet: true })
  }
}

const readPath = (draft: Draft, name: string, path: string): void => {
  // As in Pika and amqplib, and unlike RabbitMQ's URI specification, `/` alone is the default virtual host.
  if (path === "" || path === "/") return
  const setting = `${name} virtual host`
  if (path.includes("/", 1)) return draft.report.add(setting, "a path with more than one /", "a / in a name as %2F")
  const value = decoded(path.slice(1))
  if (value === undefined) return draft.report.add(setting, "a % that begins no character of UTF-8", wantsEscapes)
  draft.give("vhost", { setting, value, form: "text", quiet: true })
}

const readSpecial = (draft: Draft, setting: string, parameter: (typeof special)[number], value: string): void => {
  switch (parameter) {
    case "ssl_options":
      // Pika's older releases had no amqps, and verified nothing.
      if (value.trim() === "None" && draft.get("tls")?.value === true) {
        draft.report.add(setting, "None", "a dict, or amqp:// without TLS")
      }
      return readSslOptions(draft, setting, value)
    case "tcp_options":
      return readTcpOptions(draft, setting, value)
    case "backpressure_detection":
      // Pika before 1.0 watched its own send buffer with it. Here publishing always waits for the socket.
      if (!/^(?:t|f|true|false)$/i.test(value)) draft.report.show(setting, value, "t or f")
      return undefined
    case "maxFrameSize":
      // amqplib's bound for frames that come in; they are held to the negotiated frame-max, which is never above ours.
      if (!/^\d+$/.test(value) || (Number(value) !== 0 && Number(value) < 4096)) {
        draft.report.show(setting, value, "0, or a whole number from 4096")
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
  // A name alone may be the tail of a password.
  if (equals < 0 && !allParameters.has(rawName)) {
    return draft.report.add(`${prefix}?`, "a parameter without =", "parameters as name=value")
  }
  if (parameter === undefined) return draft.report.add(`${prefix}?`, "a name with a lone %", wantsEscapes)
  const key = urlParameters.get(parameter)
  const setting = `${prefix}?${parameter}=`
  if (key === undefined && !isSpecial(parameter)) {
    const hint = foreign.get(parameter)
    if (hint !== undefined) return draft.report.add(setting, "an unknown parameter", hint)
    return refuseName(draft, { ...parameterNames, prefix: `${prefix}?` }, parameter, value)
  }
  if (value === undefined) {
    return draft.report.add(setting, equals < 0 ? "nothing" : "a % that begins no character of UTF-8", wantsEscapes)
  }
  if (isSpecial(parameter)) {
    if (seen.has(parameter)) return draft.report.add(setting, "it more than once", "it at most once")
    seen.add(parameter)
    return readSpecial(draft, setting, parameter, value)
  }
  if (key !== undefined) draft.give(key, { setting, value, form: "text" })
}

/** Reads a URL. `name` is what the user calls it: `url`, or `AMQP_URL`. */
export const readUrl = (draft: Draft, name: string, url: unknown): void => {
  const text = exposed(url)
  if (text === undefined) return draft.report.add(name, kind(url), "a text, or a Redacted of one")
  if (text.trim() === "") return draft.report.add(name, "an empty text", wantsUrl)
  if (text.length > longestUrl) {
    return draft.report.add(name, `a text of ${text.length} characters`, `a URL of at most ${longestUrl} characters`)
  }
  const parts = split(text.trim())
  if ("got" in parts) return draft.report.add(name, parts.got, parts.wants)
  if (parts.userinfo !== undefined) readUser(draft, name, parts.userinfo)
  draft.give("tls", { setting: `${name} ${parts.scheme}://`, value: parts.scheme === "amqps", form: "plain" })
  if (parts.hosts === "") draft.report.add(`${name} host`, "nothing", "a host after //, such as amqp://localhost")
  // Given even if it is empty: localhost is not assumed for a URL that lacks its host.
  draft.give("hosts", { setting: `${name} host`, value: parts.hosts, form: "text", quiet: true })
  readPath(draft, name, parts.path)
  const prefix = name === "url" ? "" : `${name} `
  const seen = new Set<string>()
  const pairs = parts.query.split("&")
  if (pairs.length > mostParameters) {
    return draft.report.add(`${prefix}?`, `${pairs.length} parameters`, `at most ${mostParameters}`)
  }
  for (const pair of pairs) {
    if (pair !== "") readParameter(draft, prefix, seen, pair)
  }
}
