/** Servers on a free port of the loopback, and where that is. */
import { AmqpHttpServer } from "@effect-amqp/http"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { HttpServer } from "effect/http"
import { createServer } from "node:http"

const listen = { host: "127.0.0.1", port: 0 }

/** Ends its connections when it stops. */
export const server = Layer.orDie(NodeHttpServer.layerServer(createServer, listen))

/** The same, with what an `HttpApi` needs besides. */
export const fullServer = Layer.orDie(NodeHttpServer.layer(createServer, listen))

/** Stops in order; its patience is longer than any of these tests. */
export const gracefulServer = (options: AmqpHttpServer.Options = { delay: 0 }) =>
  NodeHttpServer.layerServer(createServer, { ...listen, gracefulShutdownTimeout: "20 seconds" }).pipe(
    AmqpHttpServer.graceful(options),
    Layer.orDie
  )

/** For `HttpRouter.serve`: nothing is logged. */
export const quiet = { disableLogger: true, disableListenLog: true }

export const address = Effect.map(HttpServer.HttpServer, (server) => HttpServer.formatAddress(server.address))

/** Asks for a WebSocket, as Node's own client would not let a test do. */
export const upgradeRequest = (path: string): string =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
