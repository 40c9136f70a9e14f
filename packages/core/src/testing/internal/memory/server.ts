/** A listener of the memory broker on the loopback interface. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import { TestBrokerError } from "../../TestBrokerError.ts"
import type { Broker } from "./model/broker.ts"
import { ServerConnection } from "./serverConnection.ts"

const host = "127.0.0.1"

interface Listener {
  readonly server: Net.Server
  readonly connections: Set<ServerConnection>
}

const start = (broker: Broker, port: number): Effect.Effect<Listener, TestBrokerError> =>
  Effect.callback((resume) => {
    const connections = new Set<ServerConnection>()
    const server = Net.createServer({ pauseOnConnect: true }, (socket) => {
      if (broker.isRefusing) return void socket.resetAndDestroy()
      const connection = new ServerConnection(broker, socket)
      connections.add(connection)
      return void socket.once("close", () => connections.delete(connection))
    })
    server.once("error", (error) => {
      const message = `MemoryBroker.listen: cannot listen on ${host}:${port}: ${error.message}. Choose another port, or none for a free one`
      resume(Effect.fail(new TestBrokerError({ reason: "StartFailed", message })))
    })
    server.listen(port, host, () => resume(Effect.succeed({ server, connections })))
    return Effect.sync(() => server.close())
  })

const stop = ({ connections, server }: Listener): Effect.Effect<void> =>
  Effect.callback((resume) => {
    server.close(() => resume(Effect.void))
    for (const connection of connections) connection.cut()
  })

/** Listens until the scope closes, and returns the URL. */
export const listen = (broker: Broker, port: number): Effect.Effect<string, TestBrokerError, Scope.Scope> =>
  Effect.acquireRelease(start(broker, port), stop).pipe(
    Effect.map(({ server }) => {
      const address = server.address()
      const bound = typeof address === "object" && address !== null ? address.port : port
      const [[user, password] = ["guest", "guest"]] = broker.users
      return `amqp://${encodeURIComponent(user)}:${encodeURIComponent(password)}@${host}:${bound}`
    })
  )
