/** Host names, addresses and lists of them. */
import * as Result from "effect/Result"
import { isIPv4, isIPv6 } from "node:net"
import { type Decoded, decoder, type Decoder, type Mistake, refuse } from "./decoder.ts"
import { describeType } from "./formatValue.ts"

/** A host. Its port is `undefined` where the default port applies. */
export interface HostAndPort {
  readonly host: string
  readonly port: number | undefined
}

const expectedHost =
  "a host name (letters, digits, - . _) or an IP address, such as rabbit-1.example.org, 10.0.0.1 or ::1"
const expectedPort = "a port from 1 to 65535"
/** Maximum number of hosts: more than any cluster has. */
const maxHosts = 100

const expectedList = "one to 100 hosts, such as a.example.org:5672,b.example.org,[::1]:5673"

const isName = (host: string): boolean =>
  host.length <= 253 &&
  /^(?:[\w](?:[\w-]{0,61}[\w])?\.)*[\w](?:[\w-]{0,61}[\w])?\.?$/.test(host) &&
  // 999.1.1.1 is neither an address nor a name, because no top-level domain is a number.
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
    ? refuse("one host without a port (a port belongs in the port setting, several hosts in the hosts setting)")
    : refuse(expectedHost)
})

/** A name to check the peer's certificate against. As SNI it cannot be an IP address (RFC 6066, section 3). */
export const serverName: Decoder<string> = decoder((value) =>
  typeof value === "string" && isName(value) ? Result.succeed(value) : refuse("a host name, not an IP address")
)

// The text is not repeated in the error: in a URL without its @ it may be the tail of a password.
const readListed = (item: string): Result.Result<HostAndPort, Mistake> => {
  const parts = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/.exec(item)
  const name = parts?.[1] ?? ""
  const port = parts?.[2]
  if (item === "") return Result.fail({ got: "nothing", expected: expectedHost })
  if (parts === null)
    return Result.fail({ got: "more than one colon", expected: "an IPv6 address in brackets: [::1]:5672" })
  const read = readHost(name.startsWith("[") || !isIPv6(name) ? name : "")
  if (read === undefined) {
    return Result.fail({ got: name === "" ? "no host" : "an invalid host", expected: expectedHost })
  }
  if (port === undefined) return Result.succeed({ host: read, port: undefined })
  if (!/^\d+$/.test(port)) {
    return Result.fail({
      got: port === "" ? "nothing after the colon" : "a port that is not a number",
      expected: expectedPort
    })
  }
  const number = Number(port)
  return isPort(number)
    ? Result.succeed({ host: read, port: number })
    : Result.fail({ got: number === 0 ? "port 0" : "a port above 65535", expected: expectedPort })
}

const readItem = (item: unknown): Result.Result<HostAndPort, Mistake> => {
  if (typeof item === "string") return readListed(item.trim())
  if (typeof item !== "object" || item === null || Array.isArray(item)) {
    return Result.fail({ got: describeType(item), expected: "a string such as a.example.org:5672, or { host, port }" })
  }
  const { host: name, port, ...others } = item as { readonly host?: unknown; readonly port?: unknown }
  const read = readHost(name)
  if (Object.keys(others).length > 0)
    return Result.fail({ got: "fields other than host and port", expected: "{ host, port }" })
  if (read === undefined) return Result.fail({ got: describeType(name), expected: expectedHost })
  if (port !== undefined && !isPort(port)) {
    return Result.fail({ value: port, expected: expectedPort })
  }
  return Result.succeed({ host: read, port })
}

const readAll = (items: ReadonlyArray<unknown>): Decoded<ReadonlyArray<HostAndPort>> => {
  if (items.length > maxHosts) return refuse(expectedList, `${items.length} hosts`)
  const hosts: Array<HostAndPort> = []
  const mistakes: Array<Mistake> = []
  for (const [i, item] of items.entries()) {
    const read = readItem(item)
    if (Result.isSuccess(read)) hosts.push(read.success)
    else mistakes.push(items.length === 1 ? read.failure : { ...read.failure, at: `[${i}]` })
  }
  if (mistakes.length > 0) return Result.fail(mistakes)
  return hosts.length > 0 ? Result.succeed(hosts) : refuse(expectedList)
}

/** Several hosts: an array, or in text a list with commas. */
export const hosts: Decoder<ReadonlyArray<HostAndPort>> = decoder((value, form) => {
  if (form !== "plain" && typeof value === "string") return readAll(value.split(","))
  return Array.isArray(value) ? readAll(value) : refuse(expectedList)
})

/** Whether a broker at this host runs on this machine. By default, RabbitMQ lets guest in only from there. */
export const isLoopback = (host: string): boolean =>
  /^(?:.+\.)?localhost\.?$/i.test(host) || (isIPv4(host) && host.startsWith("127.")) || host === "::1"
