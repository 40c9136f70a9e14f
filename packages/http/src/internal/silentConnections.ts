/**
 * Connections on which nothing has come yet. Node's server closes idle ones when it stops, and does not take these for idle:
 * a browser that has connected in advance holds the server up until its patience ends.
 *
 * Effect's server does not show Node's, so connections are learnt of as Node tells them to whoever asks
 * (https://nodejs.org/api/diagnostics_channel.html). Where it does not, nothing changes.
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
 * For how long a connection may say nothing once the server does not listen any more, in milliseconds, counted from when it
 * was made. A request follows its connection within a round trip: who has said nothing for longer has connected in advance.
 */
const patience = 1000

const addressOf = (server: Server): NetAddress.SocketAddress | undefined => {
  const address = server.address()
  if (typeof address === "string") return unixPathAddress(address)
  return address === null ? undefined : Result.getOrUndefined(inetAddressFromIpString(address.address, address.port))
}

/** Watches the connections of the server that listens at this address, and ends silent ones when that is asked for. */
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
      setTimeout(end, Math.max(0, at + patience - performance.now())).unref()
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
