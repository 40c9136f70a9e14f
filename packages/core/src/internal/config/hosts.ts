/** Host names, addresses and lists of them. */
import * as Result from "effect/Result"
import { isIPv4, isIPv6 } from "node:net"
import { type Decoded, decoder, type Decoder, type Mistake, refuse } from "./decoder.ts"
import { kind } from "./shown.ts"

/** A host whose port may still be the default one. */
export interface HostAndPort {
  readonly host: string
  readonly port: number | undefined
}

const wantsHost = "a host name (letters, digits, - . _) or an IP address, such as rabbit-1.example.org, 10.0.0.1 or ::1"
const wantsPort = "a port from 1 to 65535"
/** More than any cluster has. */
const mostHosts = 100

const wantsList = "one to 100 hosts, such as a.example.org:5672,b.example.org,[::1]:5673"

const isName = (host: string): boolean =>
  host.length <= 253 &&
  /^(?:[\w](?:[\w-]{0,61}[\w])?\.)*[\w](?:[\w-]{0,61}[\w])?\.?$/.test(host) &&
  // 999.1.1.1 is neither an address nor a name: no top-level domain is a number.
  !/(?:^|\.)\d+\.?$/.test(host)

const readHost = (value: unknown): string | undefined => {
  if (typeof value !== "string") return undefined
  const bracketed = /^\[(.*)\]$/.exec(value)?.[1]
  if (bracketed !== undefined) return isIPv6(bracketed) ? bracketed : undefined
  return isIPv4(value) || isIPv6(value) || isName(value) ? value : undefined
}

const isPort = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= 65535

/** One host, without a port. */
export const host: Decoder<string> = decoder((value) => {
  const read = readHost(value)
  if (read !== undefined) return Result.succeed(read)
  return typeof value === "string" && /^[^:]*:\d+$|,/.test(value)
    ? refuse("a host without a port; ports go into the port setting, several hosts into the hosts setting")
    : refuse(wantsHost)
})

/** A name to check the peer's certificate against; as SNI it takes no IP address (RFC 6066, section 3). */
export const serverName: Decoder<string> = decoder((value) =>
  typeof value === "string" && isName(value) ? Result.succeed(value) : refuse("a host name, not an IP address")
)

// What the text says is not repeated: in a URL without its @ it may be the tail of a password.
const readListed = (item: string): Result.Result<HostAndPort, Mistake> => {
  const parts = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(item)
  const name = parts?.[1] ?? ""
  const port = parts?.[2]
  if (item === "") return Result.fail({ got: "nothing", wants: wantsHost })
  if (parts === null)
    return Result.fail({ got: "more than one colon", wants: "an IPv6 address in brackets: [::1]:5672" })
  const read = readHost(name.startsWith("[") || !isIPv6(name) ? name : "")
  if (read === undefined) {
    return Result.fail({ got: name === "" ? "no host" : "something that is no host", wants: wantsHost })
  }
  if (port === undefined) return Result.succeed({ host: read, port: undefined })
  if (!/^\d+$/.test(port)) {
    return Result.fail({ got: port === "" ? "nothing after the colon" : "a port that is no number", wants: wantsPort })
  }
  const number = Number(port)
  return isPort(number)
    ? Result.succeed({ host: read, port: number })
    : Result.fail({ got: number === 0 ? "port 0" : "a port above 65535", wants: wantsPort })
}

const readItem = (item: unknown): Result.Result<HostAndPort, Mistake> => {
  if (typeof item === "string") return readListed(item.trim())
  if (typeof item !== "object" || item === null || Array.isArray(item)) {
    return Result.fail({ got: kind(item), wants: "a text such as a.example.org:5672, or { host, port }" })
  }
  const { host: name, port, ...others } = item as { readonly host?: unknown; readonly port?: unknown }
  const read = readHost(name)
  if (Object.keys(others).length > 0)
    return Result.fail({ got: "other fields than host and port", wants: "{ host, port }" })
  if (read === undefined) return Result.fail({ got: kind(name), wants: wantsHost })
  if (port !== undefined && !isPort(port)) {
    return Result.fail({ value: port, wants: wantsPort })
  }
  return Result.succeed({ host: read, port })
}

const readAll = (items: ReadonlyArray<unknown>): Decoded<ReadonlyArray<HostAndPort>> => {
  if (items.length > mostHosts) return refuse(wantsList, `${items.length} hosts`)
  const hosts: Array<HostAndPort> = []
  const mistakes: Array<Mistake> = []
  for (const [i, item] of items.entries()) {
    const read = readItem(item)
    if (Result.isSuccess(read)) hosts.push(read.success)
    else mistakes.push(items.length === 1 ? read.failure : { ...read.failure, at: `[${i}]` })
  }
  if (mistakes.length > 0) return Result.fail(mistakes)
  return hosts.length > 0 ? Result.succeed(hosts) : refuse(wantsList)
}

/** Several hosts: an array, or text with commas. */
export const hosts: Decoder<ReadonlyArray<HostAndPort>> = decoder((value, form) => {
  if (form !== "plain" && typeof value === "string") return readAll(value.split(","))
  return Array.isArray(value) ? readAll(value) : refuse(wantsList)
})

/** Whether a broker there runs on this machine: the only place where RabbitMQ lets guest in by default. */
export const isLoopback = (host: string): boolean =>
  /^(?:.+\.)?localhost\.?$/i.test(host) || (isIPv4(host) && host.startsWith("127.")) || host === "::1"
