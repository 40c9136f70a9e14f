/** Servers on a free port of the loopback, and where that is. */
import { AmqpHttpServer } from "@effect-amqp/http"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Socket } from "effect/socket"
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

/**
 * Becomes a WebSocket, and once it is one, does what is to be done then. Each frame comes back as what is made of it, until
 * the client leaves or the server stops.
 */
export const echo = <E, R, E2 = never, R2 = never>(
  answer: (frame: string) => Effect.Effect<string, E, R>,
  opened: Effect.Effect<unknown, E2, R2> = Effect.void
) =>
  Effect.gen(function* () {
    const socket = yield* Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ upgrade }) => upgrade)
    const pull = yield* Socket.readerString(socket)
    const { write } = yield* socket.writer
    yield* opened
    yield* Effect.forever(
      Effect.flatMap(
        pull,
        Effect.forEach((frame) => Effect.flatMap(answer(frame), write))
      )
    ).pipe(
      Effect.catchTag("SocketError", () => Effect.void),
      Effect.raceFirst(AmqpHttpServer.stopping)
    )
    return HttpServerResponse.empty()
  })
