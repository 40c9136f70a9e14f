/**
 * The addresses of a host, and how long each may be silent.
 * Node uses the first address that accepts a connection. An address that accepts and then stays silent, such as a proxy
 * without a backend or a paused node, would hide the other addresses.
 */
import * as Effect from "effect/Effect"
import dns, { type LookupAddress } from "node:dns"
import { isIP, type LookupFunction } from "node:net"

/** Alternates IPv4 and IPv6, starting with the family of the first address (RFC 8305), as Node tries them. */
const interleaved = (addresses: ReadonlyArray<LookupAddress>): Array<LookupAddress> => {
  const first = addresses.filter(({ family }) => family === addresses[0]?.family)
  const second = addresses.filter(({ family }) => family !== addresses[0]?.family)
  const result: Array<LookupAddress> = []
  for (let i = 0; i < Math.max(first.length, second.length); i++) {
    result.push(...first.slice(i, i + 1), ...second.slice(i, i + 1))
  }
  return result
}

/** Resolves a host name to its addresses. An IP address resolves to an empty list. */
export const addressesOf = (host: string): Effect.Effect<ReadonlyArray<LookupAddress>, NodeJS.ErrnoException> =>
  isIP(host) !== 0
    ? Effect.succeed([])
    : Effect.callback((resume) => {
        // `dns.lookup` is read at each call, so that an application's replacement is used.
        dns.lookup(host, { all: true, hints: dns.ADDRCONFIG }, (error, found) =>
          resume(error === null ? Effect.succeed(interleaved(found)) : Effect.fail(error))
        )
      })

/**
 * Returns the socket option `lookup` that answers with these addresses. The socket connects to the first that accepts.
 */
export const makeLookup =
  (addresses: ReadonlyArray<LookupAddress>): LookupFunction =>
  (_, { all }, found) => {
    const [first] = addresses
    if (all === true || first === undefined) found(null, [...addresses])
    else found(null, first.address, first.family)
  }

/** Minimum time per address, in milliseconds, when there is enough for two addresses. */
const minAddressTimeout = 2000

/** Returns how long the first of `addresses` may stay silent before the next one is tried, in milliseconds. */
export const addressTimeout = (left: number, addresses: number): number =>
  addresses <= 1 ? left : Math.max(left / addresses, Math.min(minAddressTimeout, left / 2))
