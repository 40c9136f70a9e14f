/** The HTTP server that an example listens with. */
import { AmqpHttpServer } from "@effect-amqp/http"
import { NodeHttpServer } from "@effect/platform-node"
import { Config, Duration, Effect, Layer, Schema } from "effect"
import { HttpServer, type HttpServerError } from "effect/http"
import { createServer } from "node:http"

// In a container the server has to listen on all of its addresses: LISTEN_HOST=0.0.0.0.
const Host = Config.String("LISTEN_HOST").pipe(Config.withDefault("127.0.0.1"))

const Port = Config.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 })), "PORT").pipe(
  Config.withDefault(3000)
)

// How long a server that stops continues to accept connections: as long as load balancers take to notice it.
const ShutdownDelay = Config.Duration("SHUTDOWN_DELAY").pipe(Config.withDefault(Duration.millis(250)))

/** The port is in use, or this user may not listen on it. */
export class PortRefused extends Schema.TaggedError<PortRefused>()("PortRefused", { message: Schema.String }) {}

const refused = (host: string, port: number) => (error: HttpServerError.ServeError) =>
  new PortRefused({
    message:
      Object(error.cause).code === "EADDRINUSE"
        ? `Port ${port} of ${host} is taken. Stop what listens there, or choose another port: PORT=${port + 1} npm start`
        : `Cannot listen on port ${port} of ${host} (PORT): ${String(error.cause)}`
  })

/**
 * Listens on 127.0.0.1, or the address that `LISTEN_HOST` gives, and on the port that `PORT` gives (default: 3000; 0 chooses a
 * free one).
 *
 * It stops within seconds, whichever clients are connected: requests that have arrived are answered, for at most five
 * seconds, and clients that keep their connection are notified to close it. `SHUTDOWN_DELAY` is the time in which it still
 * accepts connections (default: 250 millis).
 */
export const layer: Layer.Layer<HttpServer.HttpServer, Config.ConfigError | PortRefused> = Layer.unwrap(
  Effect.gen(function* () {
    const host = yield* Host
    const port = yield* Port
    const delay = yield* ShutdownDelay
    return Layer.effect(
      HttpServer.HttpServer,
      NodeHttpServer.make(createServer, { host, port, gracefulShutdownTimeout: "5 seconds" }).pipe(
        Effect.mapError(refused(host, port))
      )
    ).pipe(AmqpHttpServer.graceful({ delay }))
  })
)
