/** TLS in front of a broker without TLS: with its own certificate and requirements, and the plain stream behind it. */
import { Effect } from "effect"
import { type AddressInfo, connect, type Socket } from "node:net"
import { createServer, type Server, type TlsOptions } from "node:tls"
import * as Certificates from "./certificates.ts"

/** When one side of a connection ends, the other one ends too, after all its bytes are written. */
const joined = (client: Socket, upstream: Socket) => {
  client.pipe(upstream).pipe(client)
  for (const [one, other] of [
    [client, upstream],
    [upstream, client]
  ] as const) {
    one.on("error", () => other.destroy())
    one.on("close", () => other.destroySoon())
  }
}

/**
 * Listens on 127.0.0.1, and presents `Certificates.server` unless the options say otherwise. Its sockets are closed
 * with the scope.
 */
export const make = Effect.fnUntraced(function* (
  upstream: { readonly host: string; readonly port: number },
  options: TlsOptions = {}
) {
  const sockets = new Set<Socket>()
  const server = yield* Effect.acquireRelease(
    Effect.callback<Server>((resume) => {
      const server = createServer({ ...Certificates.server, ...options })
      // The socket below TLS, which exists before the handshake, and if the handshake fails.
      server.on("connection", (socket: Socket) => {
        sockets.add(socket)
        socket.once("close", () => sockets.delete(socket))
      })
      server.on("secureConnection", (client) => {
        const broker = connect(upstream.port, upstream.host)
        sockets.add(broker)
        broker.once("close", () => sockets.delete(broker))
        joined(client, broker)
      })
      server.on("tlsClientError", () => {})
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
  )
  return { server, port: (server.address() as AddressInfo).port }
})
