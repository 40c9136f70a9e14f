/**
 * The addresses of a host, and how long each may be silent.
 *
 * Node takes the first address that accepts a connection. One that accepts and then says nothing, as a proxy without a
 * backend or a paused node does, would hide the others for as long as it stays so.
 */
import * as Effect from "effect/Effect"
import dns, { type LookupAddress } from "node:dns"
import { isIP, type LookupFunction } from "node:net"

/** IPv4 and IPv6 by turns, beginning with the first (RFC 8305), as Node tries them. */
const interleaved = (addresses: ReadonlyArray<LookupAddress>): Array<LookupAddress> => {
  const first = addresses.filter(({ family }) => family === addresses[0]?.family)
  const second = addresses.filter(({ family }) => family !== addresses[0]?.family)
  const result: Array<LookupAddress> = []
  for (let i = 0; i < Math.max(first.length, second.length); i++) {
    result.push(...first.slice(i, i + 1), ...second.slice(i, i + 1))
  }
  return result
}

/** The addresses of a name; of an address there are none to look up. */
export const addressesOf = (host: string): Effect.Effect<ReadonlyArray<LookupAddress>, NodeJS.ErrnoException> =>
  isIP(host) !== 0
    ? Effect.succeed([])
    : Effect.callback((resume) => {
        // Read from the module at each call, so that what an application has put there is used.
        dns.lookup(host, { all: true, hints: dns.ADDRCONFIG }, (error, found) =>
          resume(error === null ? Effect.succeed(interleaved(found)) : Effect.fail(error))
        )
      })

/** The option of a socket that leads it to these addresses: to the first that accepts a connection. */
export const lookupOf =
  (addresses: ReadonlyArray<LookupAddress>): LookupFunction =>
  (_, { all }, found) => {
    const [first] = addresses
    if (all === true || first === undefined) found(null, [...addresses])
    else found(null, first.address, first.family)
  }

/** The least time that an address gets, in milliseconds, where there is enough for two of them. */
const leastShare = 2000

/** How long the first of so many addresses may say nothing before the next one is tried. In milliseconds. */
export const shareOf = (left: number, addresses: number): number =>
  addresses <= 1 ? left : Math.max(left / addresses, Math.min(leastShare, left / 2))
