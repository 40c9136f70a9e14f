/** Servers on a free port of the loopback interface, and their address. */
import { AmqpHttpServer } from "@effect-amqp/http"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { Socket } from "effect/socket"
import { createServer } from "node:http"

const listen = { host: "127.0.0.1", port: 0 }

/** A server that closes its connections when it stops. */
export const server = Layer.orDie(NodeHttpServer.layerServer(createServer, listen))

/** The same server, with the other services that an `HttpApi` requires. */
export const fullServer = Layer.orDie(NodeHttpServer.layer(createServer, listen))

/** A server that shuts down in order. Its shutdown timeout is longer than any of these tests. */
export const gracefulServer = (options: AmqpHttpServer.Options = { delay: 0 }) =>
  NodeHttpServer.layerServer(createServer, { ...listen, gracefulShutdownTimeout: "20 seconds" }).pipe(
    AmqpHttpServer.graceful(options),
    Layer.orDie
  )

/** Options of `HttpRouter.serve` that disable its log. */
export const quiet = { disableLogger: true, disableListenLog: true }

export const address = Effect.map(HttpServer.HttpServer, (server) => HttpServer.formatAddress(server.address))

/** A raw request for a WebSocket, which Node's client cannot send in this form. */
export const upgradeRequest = (path: string): string =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

/**
 * Upgrades to a WebSocket, and runs `opened` once it is open. It answers each frame with the result of `answer`, until
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
