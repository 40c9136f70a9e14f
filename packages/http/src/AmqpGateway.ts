/**
 * AMQP for clients that have HTTP only: publishing, consuming and RPC requests as routes.
 *
 * The routes exist only where the layer is built, and the layer requires limits and a function that decides what a
 * request may do.
 *
 * **Publishing**
 *
 * `POST /amqp/publish/{exchange}/{routingKey}` publishes the body unchanged, and answers 200 once the broker has
 * confirmed the message. The default exchange, whose name is empty, is written `amq.default`. Headers set the
 * properties:
 *
 * | header | property |
 * | --- | --- |
 * | `content-type`, `content-encoding`; `amqp-content-type`, `amqp-content-encoding` take precedence | `contentType`, `contentEncoding` |
 * | `amqp-message-id`, `amqp-correlation-id`, `amqp-reply-to`, `amqp-type`, `amqp-app-id`, `amqp-user-id` | the same |
 * | `amqp-persistent`: `true` (the default) or `false` | `persistent` |
 * | `amqp-priority`: 0 to 255 | `priority` |
 * | `amqp-expiration`: milliseconds | `expiration` |
 * | `amqp-timestamp`: a date in ISO 8601 | `timestamp` |
 * | `amqp-headers`: a JSON object | `headers`; `CC` and `BCC` are refused, because they send copies elsewhere |
 * | `amqp-mandatory`: `true` (the default) or `false` | whether a message that reaches no queue is answered with 422 |
 *
 * With the content type `application/x-ndjson` each line is a message: `{"content":"text"}`, `{"base64":"..."}` or
 * `{"json":...}`, with an optional `properties` next to it. The answer has one line per message, in the same order:
 * `{"status":"confirmed"}`, or `{"status":"refused","problem":{...}}`. The messages are in the queue in the order of
 * the lines. The answer is streamed: lines are published while the client reads the answer. If the answer breaks off,
 * the messages without a result may have been published.
 *
 * A client's mistake affects its own message only. The gateway refuses with 400 what RabbitMQ would close a channel
 * for: an `amqp-user-id` other than the user that this service logs in with (even if that user has the tag
 * `impersonator`), and addresses of direct reply-to as `amqp-reply-to`. A message that the broker may refuse is
 * published on a channel of its own from the pool of confirm channels, at most four at a time. These are the first
 * message to an exchange, and each message that is larger than 64 KiB and larger than those accepted before. Once the
 * broker has accepted such a message, similar ones use the application's publisher. The publisher's counts do not
 * include the messages that had a channel of their own. An exchange that is missing, or that the broker does not allow,
 * is remembered for one second.
 *
 * The broker may later refuse what it has accepted once: an exchange was deleted, a permission was revoked, or the
 * user's topic permissions allow one routing key of an exchange and not another. The first message that meets such a
 * change closes a channel of the publisher. Messages of other clients that are in flight on that channel are answered
 * with 504 and may have arrived. The following messages use channels of their own again. After a refused topic this
 * applies to each routing key of that exchange, until the broker has accepted it.
 *
 * **Consuming**
 *
 * `GET /amqp/consume/{queue}` is a stream of server-sent events: `open`, then `message` with a delivery as JSON,
 * finally `end` with a reason, unless the client leaves first. Comments between the events are heartbeats. Query
 * parameters: `ack=explicit` (the default) or `ack=delivery`, and `prefetch`.
 *
 * - explicit: `POST /amqp/consume/{queue}/{id}/ack`, `.../requeue` or `.../reject` settles the delivery of an event's
 *   id, and answers 204, or 410 if the delivery is already settled. At most `prefetch` deliveries are unsettled.
 * - on delivery: a delivery is acknowledged when its bytes have left this process. If the client never reads them, the
 *   messages that lie in the buffers of the kernels by then, some megabytes, are lost. A client that reconnects with
 *   `Last-Event-ID`, as an `EventSource` does, within `limits.resumeTimeout` and to the same server, gets the events
 *   again that it missed, out of the last `prefetch` events, as far as `limits.replayBuffer` holds them. A client that
 *   never reconnects gets each message at most once.
 *
 * Each event is written after the previous one has left the process. For a client that does not read, one event is in
 * memory, plus at most `prefetch` messages that the broker has sent ahead or that are unsettled. A stream therefore
 * takes up to `prefetch` times the largest message (`maxInboundMessageBodySize` of the configuration). A client that
 * neither reads nor settles is disconnected after `limits.idleTimeout`.
 *
 * When the client leaves, its unsettled deliveries return to the queue immediately.
 *
 * With `Upgrade: websocket` the same route is a WebSocket. The events are JSON texts (`{"event":"message",...}`), and
 * the client sends `{"ack":"<id>"}`, `{"requeue":"<id>"}` or `{"reject":"<id>"}`. A message from a client has at most 1
 * KiB. A longer one, however it is sent, closes the WebSocket with 1009, and one that is not a settlement closes it
 * with 1008, each after one `{"event":"error",...}`. Pages of other origins are refused (`origins`). WebSockets need
 * `NodeHttpServer`, and are not compressed.
 *
 * **RPC**
 *
 * `POST /amqp/rpc/{queue}` sends the body unchanged as a request to `AmqpRpc`, or to any server that replies to
 * `replyTo` with the `correlationId`, and answers with the unchanged reply: 200, or 422 for the procedure's own
 * failure. Servers of `AmqpRpc` expect `content-type: application/json`; a request without a body is sent as `null`.
 * The procedure is `amqp-type` (default: the queue's name). `amqp-headers`, `amqp-priority`, and the type and encoding
 * of the content are as above. `amqp-timeout` (milliseconds) can make the wait shorter than `limits.idleTimeout`.
 *
 * **Paths and errors**
 *
 * Each route has one spelling: `/AMQP/publish`, `/%61mqp/publish` and `//amqp/publish` are not found, and neither are
 * paths with a part `.` or `..`. A proxy can therefore guard a route by its path. Names are percent-encoded: `%2F` in a
 * name is not a separator, and a proxy must not decode it into one. No route except `GET /amqp/consume/{queue}` accepts
 * a WebSocket; the others answer 400.
 *
 * Failures are answered as problem details, by the table of `AmqpHttpError`. In addition, 404 means an exchange or a
 * queue that does not exist, 403 what the broker does not allow, and 400 what AMQP does not allow.
 *
 * @since 0.1.0
 */
import { type Amqp, AmqpConnection, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as Layer from "effect/Layer"
import * as rpc from "./internal/gateway/rpc.ts"
import * as consuming from "./internal/gateway/consuming.ts"
import * as publish from "./internal/gateway/publishing.ts"
import { originsOf } from "./internal/gateway/origins.ts"
import { answering, boundsOf, guardOf, withoutUpgrade } from "./internal/gateway/requests.ts"
import { GatewayPublisher } from "./internal/gateway/gatewayPublisher.ts"
import type { Rules } from "./internal/gateway/messages.ts"
import { Sessions } from "./internal/gateway/sessions.ts"
import { provider } from "./internal/handlers.ts"
import { type Names, refuseUnknownNames } from "./internal/options.ts"
import type { Access, Decision, Limits } from "./internal/gateway/contract.ts"

export type { Access, Decision, Limits } from "./internal/gateway/contract.ts"

/**
 * Options of the gateway: who may do what, limits, and where the routes are.
 *
 * **When to use**
 *
 * Use when you configure {@link layer}, or pass its options through a function of your own.
 *
 * **Details**
 *
 * `R` is the requirement of `authorize`. The layer takes it from the context in which it is built.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<R = never> {
  /**
   * Decides what a request may do. It runs before any part of the body is read, and before anything is sent to the
   * broker.
   *
   * Browsers send cookies with forms of other sites too. If you identify clients by a cookie, check the `Origin` header
   * as well. For WebSockets the gateway checks it first, see `origins`.
   */
  readonly authorize: (
    request: HttpServerRequest.HttpServerRequest,
    access: Access
  ) => Effect.Effect<Decision, never, R>
  /** What clients may ask for at most. */
  readonly limits: Limits
  /** The path prefix of the routes. Default: `/amqp`. */
  readonly prefix?: `/${string}` | undefined
  /**
   * The origins whose pages may open a WebSocket: `["https://app.example.com"]`, without a path. `"null"` means pages
   * that have no origin. Pages of other origins get a 403. Requests without an `Origin` do not come from a browser, and
   * are not checked. Default: pages of the host that the request names (`Host`), so a proxy must forward that header.
   *
   * Other requests of foreign pages are subject to CORS and to `authorize`.
   */
  readonly origins?: ReadonlyArray<string> | undefined
  /** The `WWW-Authenticate` header of a 401 (RFC 9110, section 11.6.1). Default: `Bearer`. */
  readonly challenge?: string | undefined
}

const optionNames: Names<Options> = { authorize: true, limits: true, prefix: true, origins: true, challenge: true }

/**
 * Adds the gateway's routes to the `HttpRouter`: publish, consume, settle and RPC.
 *
 * **When to use**
 *
 * Use when clients must reach queues and exchanges over HTTP because they cannot use AMQP, such as browsers, webhooks
 * and scripts. An application whose own handlers publish or consume uses `AmqpHttp` instead.
 *
 * **Details**
 *
 * - `authorize` runs once per request, with the services of the context in which the layer is built.
 * - AMQP errors are logged with their reason and answered by the table of `AmqpHttpError`; 404, 403 and 400 are added
 *   for names and properties that the client has chosen.
 * - On a server that is wrapped in `AmqpHttpServer.graceful`, all streams end as soon as its shutdown begins, so the
 *   shutdown does not wait for them.
 *
 * **Gotchas**
 *
 * - A limit or an origin that is not valid, or the name of an option that is unknown, makes the layer die while it is
 *   built.
 * - A client can publish to any queue if `authorize` allows it the default exchange (`exchange: ""`).
 * - WebSockets need `NodeHttpServer` of `@effect/platform-node`.
 *
 * **Example** (Allowing clients with a token to publish orders)
 *
 * ```ts
 * import { NodeHttpServer } from "@effect/platform-node"
 * import { AmqpLive } from "@effect-amqp/core"
 * import { AmqpGateway, AmqpHttpServer } from "@effect-amqp/http"
 * import { Config, Effect, Layer, Redacted } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { createServer } from "node:http"
 *
 * const Gateway = Layer.unwrap(
 *   Effect.gen(function* () {
 *     const token = yield* Config.Redacted("GATEWAY_TOKEN")
 *     return AmqpGateway.layer({
 *       authorize: ({ headers }, access) =>
 *         Effect.sync(() => {
 *           if (headers["authorization"] !== `Bearer ${Redacted.value(token)}`) return "authenticate"
 *           return access.action === "publish" && access.exchange === "orders" ? "allow" : "deny"
 *         }),
 *       limits: { body: "1 MiB", prefetch: 100, idleTimeout: "5 minutes", streams: 200 }
 *     })
 *   })
 * )
 *
 * const Server = HttpRouter.serve(Gateway).pipe(
 *   Layer.provide(NodeHttpServer.layer(createServer, { port: 3000 }).pipe(AmqpHttpServer.graceful())),
 *   Layer.provide(AmqpLive)
 * )
 * ```
 *
 * @see {@link Options} for the settings
 * @see {@link Limits} for the bounds on what clients may ask for
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<never, never, HttpRouter.HttpRouter | Amqp.Amqp | R> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      refuseUnknownNames<Options<R>>("AmqpGateway", options, optionNames)
      const bounds = boundsOf(options.limits)
      const prefix = options.prefix ?? "/amqp"
      const services = yield* Effect.context<R>()
      const { connection, provide } = yield* provider
      const { config } = yield* AmqpConnection.AmqpConnection
      const { credentials, publishTimeout } = config
      const rules: Rules = {
        depth: bounds.jsonDepth,
        user: credentials._tag === "Plain" ? credentials.username : undefined
      }
      const publishing = new GatewayPublisher(
        yield* AmqpPublisher.AmqpPublisher,
        yield* AmqpPool.AmqpPool,
        publishTimeout
      )
      const sessions = new Sessions(bounds, yield* Effect.scope)
      // `authorize` gets the services that the layer is built with, in addition to those of the request.
      const guard = guardOf((request, access) => Effect.provideContext(options.authorize(request, access), services))
      const origins = originsOf(options.origins)
      const answer = answering(options.challenge ?? "Bearer", connection)
      const at = (path: string) => `${prefix}/${path}`
      yield* router.add(
        "POST",
        `${prefix}/publish/*`,
        provide(answer(withoutUpgrade(publish.route(at("publish"), bounds, guard, rules, publishing))))
      )
      yield* router.add(
        "GET",
        `${prefix}/consume/*`,
        provide(answer(consuming.route(at("consume"), bounds, guard, sessions, origins)))
      )
      yield* router.add(
        "POST",
        `${prefix}/consume/*`,
        provide(answer(withoutUpgrade(consuming.settle(at("consume"), guard, sessions))))
      )
      yield* router.add(
        "POST",
        `${prefix}/rpc/*`,
        provide(answer(withoutUpgrade(rpc.route(at("rpc"), bounds, guard, rules))))
      )
    })
  )
