/**
 * An HTTP server that shuts down in order, so that a restart loses no request.
 *
 * A server that stops accepts no more connections, and finishes the requests it has. But it continues to serve clients
 * that keep their connection and send one request after another, until `gracefulShutdownTimeout` expires and cuts off
 * their requests. Responses that never end on their own (server-sent events, WebSockets) delay the shutdown just as
 * long, and so does a client that has connected and has not sent anything yet. With `graceful`
 *
 * 1. the server reports that it is not ready (`AmqpHealth`), and accepts connections for `delay` longer, until load
 *    balancers have noticed;
 * 2. every response from then on asks the client to close the connection (`Connection: close`; RFC 9112, section 9.6),
 *    so that clients reconnect and reach another server;
 * 3. endless responses are notified (`stopping`), and end;
 * 4. connections on which nothing was received, such as those that browsers open in advance, are closed when they are
 *    one second old;
 * 5. requests finish, their channels return to the pool, and the layers that are provided outside of the server close:
 *    channels, connection.
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpEffect from "effect/http/HttpEffect"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as SilentConnections from "./internal/silentConnections.ts"
import { refuseUnknownNames } from "./internal/options.ts"
import { Shutdown } from "./internal/shutdown.ts"

export { Shutdown, stopping } from "./internal/shutdown.ts"

/**
 * Options of a graceful shutdown.
 *
 * **When to use**
 *
 * Use when load balancers need longer than 250 milliseconds to notice that the service is not ready.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * How long the server continues to accept connections after the shutdown has begun. Choose the time that load
   * balancers need to notice that the server is not ready. Clients that send a request in this time are asked to close
   * their connection. A connection that is idle at the end of this time is closed, and a request that is on its way to
   * it then must be sent again. Default: 250 milliseconds.
   */
  readonly delay?: Duration.Input | undefined
}

const gracefully = Effect.fnUntraced(function* (server: HttpServer.HttpServer["Service"], options: Options) {
  refuseUnknownNames("AmqpHttpServer.graceful", options, { delay: true })
  const { delay = "250 millis" } = options
  const silent = yield* SilentConnections.watch(server.address)
  return HttpServer.make({
    address: server.address,
    serve: Effect.fnUntraced(function* (app, middleware) {
      const begun = Deferred.makeUnsafe<void>()
      const shutdown = { isStopping: false, stopping: Deferred.await(begun) }
      const closingApp = HttpEffect.withPreResponseHandler(app, (_, response) =>
        Effect.succeed(shutdown.isStopping ? HttpServerResponse.setHeader(response, "connection", "close") : response)
      )
      // The service is provided to the whole server, not only to the app, because bodies are streamed after the app has
      // returned.
      yield* Effect.provideService(
        middleware === undefined ? server.serve(closingApp) : server.serve(closingApp, middleware),
        Shutdown,
        shutdown
      )
      // This finalizer is added last, so it runs first: before the server stops listening.
      yield* Effect.addFinalizer(() =>
        Effect.suspend(() => {
          shutdown.isStopping = true
          Deferred.doneUnsafe(begun, Effect.void)
          return Effect.andThen(Effect.sleep(delay), silent.end)
        })
      )
    })
  })
})

/**
 * Wraps the HTTP server of a layer so that it shuts down in order.
 *
 * **When to use**
 *
 * Use for every server that is restarted while clients use it, in particular one that serves event streams or
 * WebSockets, such as `AmqpGateway` and `AmqpDashboard`.
 *
 * **Details**
 *
 * The server's own setting bounds how long the requests that have begun may take: `gracefulShutdownTimeout` of
 * `NodeHttpServer`, 20 seconds by default.
 *
 * **Gotchas**
 *
 * The shutdown waits just as long for a client that has sent a part of a request and stops, and for one that has
 * completed only the TLS handshake. The name of an option that is unknown makes the layer die while it is built.
 *
 * **Example** (Stopping behind a load balancer)
 *
 * ```ts
 * import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
 * import { AmqpLive } from "@effect-amqp/core"
 * import { AmqpHealth, AmqpHttpServer } from "@effect-amqp/http"
 * import { Layer } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { createServer } from "node:http"
 *
 * const Server = NodeHttpServer.layer(createServer, { port: 3000, gracefulShutdownTimeout: "10 seconds" }).pipe(
 *   AmqpHttpServer.graceful({ delay: "5 seconds" })
 * )
 *
 * HttpRouter.serve(AmqpHealth.layer()).pipe(
 *   Layer.provide(Server),
 *   Layer.provide(AmqpLive),
 *   Layer.launch,
 *   NodeRuntime.runMain
 * )
 * ```
 *
 * @see {@link stopping} for responses that never end on their own
 * @see {@link Shutdown} for reading whether the server is stopping
 *
 * @category combinators
 * @since 0.1.0
 */
export const graceful =
  (options: Options = {}) =>
  <A, E, R>(server: Layer.Layer<A | HttpServer.HttpServer, E, R>): Layer.Layer<A | HttpServer.HttpServer, E, R> =>
    Layer.effect(
      HttpServer.HttpServer,
      Effect.flatMap(HttpServer.HttpServer, (service) => gracefully(service, options))
    ).pipe(Layer.provideMerge(server))
