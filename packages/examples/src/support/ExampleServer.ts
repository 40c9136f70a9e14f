/** The HTTP server that an example listens with. */
import { AmqpHttpServer } from "@effect-amqp/http"
import { NodeHttpServer } from "@effect/platform-node"
import { Config, Effect, Layer, Schema } from "effect"
import { HttpServer, type HttpServerError } from "effect/http"
import { createServer } from "node:http"

const host = "127.0.0.1"

const Port = Config.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 })), "PORT").pipe(
  Config.withDefault(3000)
)

/** The port is somebody else's, or not for us. */
export class PortRefused extends Schema.TaggedError<PortRefused>()("PortRefused", { message: Schema.String }) {}

const refused = (port: number) => (error: HttpServerError.ServeError) =>
  new PortRefused({
    message:
      Object(error.cause).code === "EADDRINUSE"
        ? `Port ${port} of ${host} is taken. Stop what listens there, or choose another port: PORT=${port + 1} npm start`
        : `Cannot listen on port ${port} of ${host} (PORT): ${String(error.cause)}`
  })

/**
 * Listens on 127.0.0.1, on the port that `PORT` says (3000; 0 for any).
 *
 * It stops in seconds, whoever is connected: requests that have come are answered, for five seconds at most, and clients
 * that keep their connection are told to leave it.
 */
export const layer: Layer.Layer<HttpServer.HttpServer, Config.ConfigError | PortRefused> = Layer.effect(
  HttpServer.HttpServer,
  Effect.flatMap(Port, (port) =>
    NodeHttpServer.make(createServer, { host, port, gracefulShutdownTimeout: "5 seconds" }).pipe(
      Effect.mapError(refused(port))
    )
  )
).pipe(AmqpHttpServer.graceful())
