/**
 * Connections on which nothing was received yet. When Node's server stops, it closes idle connections, but does not
 * count these as idle. A browser that has connected in advance therefore delays the shutdown until
 * `gracefulShutdownTimeout` expires.
 *
 * Effect's server does not expose Node's server, so this module learns of connections from Node's diagnostics channel
 * (https://nodejs.org/api/diagnostics_channel.html). On a runtime without that channel nothing changes.
 */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type * as NetAddress from "effect/net/NetAddress"
import { inetAddressFromIpString, unixPathAddress } from "effect/net/NetAddress"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { subscribe, unsubscribe } from "node:diagnostics_channel"
import type { Server, Socket } from "node:net"

const channel = "net.server.socket"

/**
 * Age at which a silent connection is closed once the server no longer listens, in milliseconds. A request follows its
 * connection within a round trip, so a client that is silent for longer has connected in advance.
 */
const maxSilence = 1000

const addressOf = (server: Server): NetAddress.SocketAddress | undefined => {
  const address = server.address()
  if (typeof address === "string") return unixPathAddress(address)
  return address === null ? undefined : Result.getOrUndefined(inetAddressFromIpString(address.address, address.port))
}

/** Watches the connections of the server that listens at this address. `end` closes the silent ones. */
export const watch = (
  address: NetAddress.SocketAddress
): Effect.Effect<{ readonly end: Effect.Effect<void> }, never, Scope.Scope> =>
  Effect.gen(function* () {
    const servers = new WeakMap<Server, boolean>()
    const opened = new Map<Socket, number>()
    let isEnding = false

    const isOurs = (server: Server): boolean => {
      const known = servers.get(server)
      if (known !== undefined) return known
      const isOne = Equal.equals(addressOf(server), address)
      servers.set(server, isOne)
      return isOne
    }
    const endIfSilent = (socket: Socket, at: number) => {
      const end = () => {
        if (socket.bytesRead === 0) socket.destroy()
      }
      setTimeout(end, Math.max(0, at + maxSilence - performance.now())).unref()
    }
    const onSocket = (message: unknown) => {
      const { socket } = message as { readonly socket: Socket & { readonly server?: Server } }
      if (socket.server === undefined || !isOurs(socket.server)) return
      const now = performance.now()
      opened.set(socket, now)
      socket.once("close", () => opened.delete(socket))
      if (isEnding) endIfSilent(socket, now)
    }

    yield* Effect.acquireRelease(
      Effect.sync(() => subscribe(channel, onSocket)),
      () => Effect.sync(() => unsubscribe(channel, onSocket))
    )
    return {
      end: Effect.sync(() => {
        isEnding = true
        for (const [socket, at] of opened) endIfSilent(socket, at)
      })
    }
  })
