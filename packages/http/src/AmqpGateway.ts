/**
 * AMQP for clients that have HTTP only: publishing, consuming and requests as routes. None is there by default: the layer
 * wants somebody who decides what is allowed, and limits.
 *
 * `POST /amqp/publish/{exchange}/{routingKey}` publishes the body as it is, and answers 200 when the broker has confirmed it.
 * The exchange without a name is `amq.default`. Properties are headers:
 *
 * | header | property |
 * | --- | --- |
 * | `content-type`, `content-encoding`; `amqp-content-type`, `amqp-content-encoding` go before them | `contentType`, `contentEncoding` |
 * | `amqp-message-id`, `amqp-correlation-id`, `amqp-reply-to`, `amqp-type`, `amqp-app-id`, `amqp-user-id` | the same |
 * | `amqp-persistent`: `true` (the default) or `false` | `persistent` |
 * | `amqp-priority`: 0 to 255 | `priority` |
 * | `amqp-expiration`: milliseconds | `expiration` |
 * | `amqp-timestamp`: a date in ISO 8601 | `timestamp` |
 * | `amqp-headers`: a JSON object | `headers`; `CC` and `BCC` are refused, since they lead elsewhere |
 * | `amqp-mandatory`: `true` (the default) or `false` | whether a message that no queue takes is answered with 422 |
 *
 * With the content type `application/x-ndjson` each line is a message: `{"content":"text"}`, `{"base64":"..."}` or
 * `{"json":...}`, and `properties` beside it. The answer has a line for each, in the same order: `{"status":"confirmed"}`, or
 * `{"status":"refused","problem":{...}}`. The messages are in the queue in the order of the lines. The answer is streamed:
 * lines are published while it is read. If it breaks off, the messages without a result may have been published.
 *
 * A client's mistake costs its own message alone. What RabbitMQ would close a channel for is refused with 400: a user other
 * than the one that this service logs in with (for users with the tag `impersonator`, too), and addresses of direct reply-to as
 * `amqp-reply-to`. What cannot be known goes by a channel of its own from the pool of confirm channels, at most four at a time:
 * the first message to an exchange, and each that is larger than 64 KiB and than those before. When the broker has taken it, others like it go
 * by the application's publisher, in whose counts those that went alone are not. An exchange that is missing, or that the broker
 * does not allow, is remembered for a second.
 *
 * What the broker has taken once it may refuse later: an exchange was deleted, a permission taken away, or the user's topic
 * permissions allow one routing key of an exchange and not another. The first message that meets this ends a channel of the
 * publisher: messages of others that are in flight on it are answered with 504 and may have arrived. Those after it go alone
 * again; after a refused topic each routing key of that exchange does, until the broker has taken it.
 *
 * `GET /amqp/consume/{queue}` is a stream of server-sent events: `open`, then `message` with a delivery as JSON, at last
 * `end` with a reason, unless the client leaves first; a comment as heartbeat in between. Queries: `ack=explicit` (the
 * default) or `ack=delivery`, and `prefetch`.
 *
 * - explicit: `POST /amqp/consume/{queue}/{id}/ack`, `.../requeue` or `.../reject` settles the delivery of an event's id, with
 *   204; 410 if it is settled already. At most `prefetch` are unsettled.
 * - on delivery: a delivery is acknowledged when its bytes have left this process. What lies in the buffers of the kernels by
 *   then, some megabytes, is lost with a client that never reads them. A client that comes back with `Last-Event-ID`, as an
 *   `EventSource` does, within `limits.resume` and to the same server, gets again what it has missed of the last `prefetch`
 *   events, as far as `limits.missed` holds them. It is at most once for a client that never comes back.
 *
 * Each event is written when the one before it has left: a client that does not read has one of them in memory, beside the at
 * most `prefetch` messages that the broker has sent ahead or that are unsettled. So a stream takes up to `prefetch` times the
 * largest message (`maxInboundMessageBodySize` of the configuration). A client that neither reads nor settles is cut off
 * after `limits.idle`.
 *
 * When the client leaves, whatever is unsettled goes back to the queue at once. With `Upgrade: websocket` the same route is a
 * WebSocket: the events are JSON texts (`{"event":"message",...}`), and the client sends `{"ack":"<id>"}`, `{"requeue":"<id>"}`
 * or `{"reject":"<id>"}` on it. A message of a client has at most 1 KiB: a longer one, however it is sent, closes the WebSocket
 * with 1009, one that is no settlement with 1008, each after one `{"event":"error",...}`. Pages of other origins are refused
 * (`origins`). WebSockets need `NodeHttpServer`; nothing is compressed on them.
 *
 * Each route has one spelling: `/AMQP/publish`, `/%61mqp/publish` or `//amqp/publish` are not found, and neither are parts that
 * are `.` or `..`, so a proxy can guard a route by its path. Names are percent-encoded: `%2F` in a name is not a separator, and
 * a proxy must not make one of it. No other route than `GET /amqp/consume/{queue}` becomes a WebSocket: it answers 400.
 *
 * `POST /amqp/rpc/{queue}` sends the body as it is, as a request of `AmqpRpc` or of any server that replies to `replyTo` with
 * the `correlationId`, and answers with the reply as it is: 200, or 422 for the procedure's own failure. Servers of `AmqpRpc`
 * want `content-type: application/json`; no body at all is their `null`. The procedure is `amqp-type` (default: the queue's
 * name); `amqp-headers`, `amqp-priority` and the content's type and encoding are as above. `amqp-timeout` (milliseconds) may
 * make the wait shorter than `limits.idle`.
 *
 * What goes wrong is answered with problem details, by the table of `AmqpHttpError`; besides, 404 for an exchange or a queue
 * that is not there, 403 for what the broker does not allow, and 400 for what AMQP does not.
 *
 * @since 0.1.0
 */
import { type Amqp, AmqpConnection, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as Layer from "effect/Layer"
import * as calling from "./internal/gateway/calling.ts"
import * as consuming from "./internal/gateway/consuming.ts"
import * as publish from "./internal/gateway/publishing.ts"
import { originsOf } from "./internal/gateway/origins.ts"
import { answering, boundsOf, guardOf, withoutUpgrade } from "./internal/gateway/requests.ts"
import { Publishing } from "./internal/gateway/apart.ts"
import type { Rules } from "./internal/gateway/messages.ts"
import { Sessions } from "./internal/gateway/sessions.ts"
import { provider } from "./internal/handlers.ts"
import type { Access, Decision, Limits } from "./internal/gateway/contract.ts"

export type { Access, Decision, Limits } from "./internal/gateway/contract.ts"

/** What the gateway is, and to whom. */
export interface Options<R = never> {
  /**
   * Decides what a request may do. It is asked before anything of a body is read, and before the broker hears of it.
   *
   * Browsers send cookies along with forms of other sites: who is known by a cookie is to be asked for the `Origin`, too.
   * WebSockets are checked before, see `origins`.
   */
  readonly authorize: (
    request: HttpServerRequest.HttpServerRequest,
    access: Access
  ) => Effect.Effect<Decision, never, R>
  readonly limits: Limits
  /** Where the routes are. Default: `/amqp`. */
  readonly prefix?: `/${string}` | undefined
  /**
   * The pages that may open a WebSocket, by their origins: `["https://app.example.com"]`, without a path; `"null"` are pages
   * that have none. Others are refused with 403. Requests without an `Origin` are none of a browser's, and pass. Default:
   * pages of the host that the request names (`Host`), so a proxy must hand it on.
   *
   * Other requests of foreign pages are up to CORS, and to `authorize`.
   */
  readonly origins?: ReadonlyArray<string> | undefined
  /** The `WWW-Authenticate` of a 401 (RFC 9110, section 11.6.1). Default: `Bearer`. */
  readonly challenge?: string | undefined
}

/**
 * The routes.
 *
 * @example
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
 *       limits: { body: "1 MiB", prefetch: 100, idle: "5 minutes", streams: 200 }
 *     })
 *   })
 * )
 *
 * const Server = HttpRouter.serve(Gateway).pipe(
 *   Layer.provide(NodeHttpServer.layer(createServer, { port: 3000 }).pipe(AmqpHttpServer.graceful())),
 *   Layer.provide(AmqpLive)
 * )
 * ```
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<never, never, HttpRouter.HttpRouter | Amqp.Amqp | R> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      const bounds = boundsOf(options.limits)
      const prefix = options.prefix ?? "/amqp"
      const services = yield* Effect.context<R>()
      const { connection, provide } = yield* provider
      const { config } = yield* AmqpConnection.AmqpConnection
      const { credentials, publishTimeout } = config
      const rules: Rules = {
        depth: bounds.depth,
        user: credentials._tag === "Plain" ? credentials.username : undefined
      }
      const publishing = new Publishing(yield* AmqpPublisher.AmqpPublisher, yield* AmqpPool.AmqpPool, publishTimeout)
      const sessions = new Sessions(bounds, yield* Effect.scope)
      // What the gateway is built with is for what decides; the request's own services besides.
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
        provide(answer(withoutUpgrade(calling.route(at("rpc"), bounds, guard, rules))))
      )
    })
  )
