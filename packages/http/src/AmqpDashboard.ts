/**
 * A live page for operators: what is wrong, since when, and what to do, and the state of this process's pool,
 * connections, publishers and consumers.
 *
 * The top of the page says in words what is wrong, by the rules of `AmqpHealth` and some more; `docs/dashboard.md` lists
 * them. Below it are:
 *
 * - the consumers: state, how many run and how many should, messages in flight, rate, the last error, the last end;
 * - channels in use, and borrowers in the wait queue;
 * - the states of the connection and of the consumers' own connection, with their history;
 * - messages published and consumed per second, returned, dead-lettered and redelivered;
 * - how long confirms and handlers take (median, 95th and 99th percentile);
 * - messages in flight and messages that wait to be sent.
 *
 * A table of the numbers stands under each plot. The plots of channels count the pool's channels. The plots of
 * published messages count those of `AmqpPublisher`.
 *
 * The page is a single response that loads nothing from elsewhere (a `Content-Security-Policy` enforces this).
 * Server-sent events feed it. One sample per ten seconds is always taken and kept for an hour; while there are viewers,
 * one fiber takes one sample per second for all of them, which is kept for five minutes. The history of the connections
 * is recorded all the time.
 *
 * The page shows hosts, broker products, counts, names of queues and consumers, tags of errors, and the texts of
 * conditions (`AmqpConnection.conditions`). It never shows a user or a password.
 *
 * The dashboard exists only where the layer is built, and the layer requires a function that decides who may view it.
 *
 * @since 0.1.0
 */
import type { Amqp } from "@effect-amqp/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type * as AmqpGateway from "./AmqpGateway.ts"
import * as AmqpHttpServer from "./AmqpHttpServer.ts"
import * as Feed from "./internal/dashboard/feed.ts"
import { mostQueues } from "./internal/dashboard/queueCounter.ts"
import * as Page from "./internal/dashboard/page.ts"
import { type Refusal, refuse, responseOf } from "./internal/gateway/refusals.ts"
import { type Names, refuseUnknownNames } from "./internal/options.ts"

/**
 * The answer of `authorize`: whether a request may view the dashboard.
 *
 * **When to use**
 *
 * Use as the success type of an `authorize` effect that is written apart from the call of {@link layer}.
 *
 * **Details**
 *
 * `"allow"` serves the request. `"deny"` is answered with 403. `"authenticate"` is answered with 401 and the
 * `WWW-Authenticate` of `challenge`, because the sender of the request is unknown.
 *
 * @category models
 * @since 0.1.0
 */
export type Decision = AmqpGateway.Decision

/**
 * Options of the dashboard: who may view it, its path and its limits.
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
   * Decides whether the sender of a request may view the dashboard. It runs for the page and for each stream of events.
   * A browser sends cookies and HTTP authentication with both, and no other header can be added to the second.
   */
  readonly authorize: (request: HttpServerRequest.HttpServerRequest) => Effect.Effect<Decision, never, R>
  /** The path of the page. Its events are at `events` below this path. Default: `/amqp/dashboard`. */
  readonly path?: `/${string}` | undefined
  /** Bounds on what viewers cost. Default: the defaults of {@link Limits}. */
  readonly limits?: Limits | undefined
  /**
   * The `WWW-Authenticate` header of a 401 (RFC 9110, section 11.6.1). Default: `Basic realm="AMQP"`, for which
   * browsers prompt their user. Basic authentication is safe over TLS only.
   */
  readonly challenge?: string | undefined
  /** The version of the application, for the page. Default: none. */
  readonly version?: string | undefined
  /**
   * Whether the service counts as ready while the broker blocks publishers, as for `AmqpHealth`. Default: `"notReady"`.
   */
  readonly blocked?: "ready" | "notReady" | undefined
  /**
   * Whether the broker is asked how many messages wait in the consumers' queues, and how many consumers these have.
   * Default: `false`. See {@link QueueCounts} for its cost.
   */
  readonly queueCounts?: boolean | QueueCounts | undefined
}

/**
 * How the broker is asked for the counts of queues.
 *
 * **When to use**
 *
 * Use as the option `queueCounts` when queues that this process does not consume matter too, or to ask more slowly.
 *
 * **Details**
 *
 * Each round declares each queue passively, one after the other, on a channel of the pool: one small request per queue,
 * whether or not there are viewers. 50 queues and 30 seconds are 1.7 requests per second. A queue answers in its own
 * process, so a busy queue answers late; each answer has 5 seconds. A round leaves out what it would have to wait for:
 * it borrows no channel while all are in use, and asks nothing while the broker blocks the connection. The last counts
 * then stay on the page, with their time. For a queue that does not exist or is refused the broker closes the channel,
 * and the pool opens another one. At most 100 queues are counted.
 *
 * **Gotchas**
 *
 * A passive declaration answers with the number of messages that are ready, and the number of consumers of all
 * processes. How many messages are unacknowledged in the whole queue cannot be seen; the page shows those that this
 * process holds. On RabbitMQ 4.3 a passive declaration needs one of the three permissions on the queue, whichever it is;
 * on earlier versions it needs none. It fails for a queue that another connection has exclusively. RabbitMQ reports no consumers of a stream: count only streams that this process consumes.
 *
 * @category models
 * @since 0.1.0
 */
export interface QueueCounts {
  /** Further queues to count, in addition to those of this process's consumers. At most 100. Default: none. */
  readonly queues?: ReadonlyArray<string> | undefined
  /** Time between two rounds. From 5 seconds to 1 hour. Default: 30 seconds. */
  readonly interval?: Duration.Input | undefined
}

/**
 * Bounds on what the viewers of the dashboard cost.
 *
 * **When to use**
 *
 * Use as the option `limits` when more than 16 pages must be open at once, or when a proxy closes connections that are
 * silent for less than 15 seconds.
 *
 * **Details**
 *
 * A value out of bounds, or a name that is unknown, is a mistake in the program. The layer dies while it is built, with
 * an error that names the limit.
 *
 * @category models
 * @since 0.1.0
 */
export interface Limits {
  /** Maximum number of pages that are open at once. Further pages get a 503. At least 1. Default: 16. */
  readonly viewers?: number | undefined
  /** Silence of a stream after which a heartbeat is sent. From 1 millisecond to 24.8 days. Default: 15 seconds. */
  readonly heartbeatInterval?: Duration.Input | undefined
}

const optionNames: Names<Options> = {
  authorize: true,
  path: true,
  limits: true,
  challenge: true,
  version: true,
  blocked: true,
  queueCounts: true
}

// A wrong limit is a mistake in the program, so the layer dies while it is built.
const boundsOf = (limits: Limits): Pick<Feed.Settings, "streams" | "heartbeat"> => {
  refuseUnknownNames("AmqpDashboard: limits", limits, { viewers: true, heartbeatInterval: true })
  const { heartbeatInterval: heartbeat = "15 seconds", viewers: streams = 16 } = limits
  if (!Number.isSafeInteger(streams) || streams < 1) {
    throw new Error(`AmqpDashboard: limits.viewers: expected an integer from 1, got ${streams}`)
  }
  const duration = Duration.fromInputUnsafe(heartbeat)
  const millis = Duration.toMillis(duration)
  // A timer of Node that is longer than this fires immediately.
  if (!(millis >= 1 && millis <= 2_147_483_647)) {
    throw new Error(
      `AmqpDashboard: limits.heartbeatInterval: expected a duration from 1 millisecond to 24.8 days, got ${millis} ms`
    )
  }
  return { streams, heartbeat: duration }
}

const countingOf = (counts: boolean | QueueCounts): Feed.Settings["queueCounting"] => {
  if (counts === false) return undefined
  const given = counts === true ? {} : counts
  refuseUnknownNames("AmqpDashboard: queueCounts", given, { queues: true, interval: true })
  const { interval = "30 seconds", queues = [] } = given
  const millis = Duration.toMillis(Duration.fromInputUnsafe(interval))
  if (!(millis >= 5000 && millis <= 3_600_000)) {
    throw new Error(
      `AmqpDashboard: queueCounts.interval: expected a duration from 5 seconds to 1 hour, got ${millis} ms`
    )
  }
  if (queues.length > mostQueues) {
    throw new Error(`AmqpDashboard: queueCounts.queues: expected at most ${mostQueues} queues, got ${queues.length}`)
  }
  return { queues, interval: millis }
}

const refused = (refusal: Refusal) => HttpServerResponse.setHeaders(responseOf(refusal), Page.securityHeaders)

/**
 * Adds the dashboard's page and its stream of events to the `HttpRouter`.
 *
 * **When to use**
 *
 * Use in a service whose operators need to see, during an incident, whether it waits for channels, for the broker or
 * for its own handlers.
 *
 * **Details**
 *
 * - `GET /amqp/dashboard` is the page, and `GET /amqp/dashboard/events` is its stream (`path` moves both).
 * - `authorize` runs for both routes, with the services of the context in which the layer is built.
 * - A request without credentials gets a 401, a denied one a 403. A page beyond `limits.viewers` gets a 503 with
 *   `Retry-After`. A stream that a page of another site opens gets a 403.
 * - All streams end when the layer closes. On a server that is wrapped in `AmqpHttpServer.graceful` they end as soon as
 *   its shutdown begins, so the shutdown does not wait for viewers.
 * - Rates of consumed messages and the percentiles need `AmqpMetrics` to be registered.
 *
 * **Gotchas**
 *
 * A limit that is out of bounds, or the name of an option that is unknown, makes the layer die while it is built.
 *
 * **Example** (Protecting the dashboard with a password)
 *
 * ```ts
 * import { NodeHttpServer } from "@effect/platform-node"
 * import { AmqpLive } from "@effect-amqp/core"
 * import { AmqpDashboard } from "@effect-amqp/http"
 * import { Config, Effect, Layer, Redacted } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { createServer } from "node:http"
 *
 * // http://127.0.0.1:3000/amqp/dashboard
 * const Dashboard = Layer.unwrap(
 *   Effect.gen(function* () {
 *     const password = yield* Config.Redacted("DASHBOARD_PASSWORD")
 *     const expected = `Basic ${btoa(`operator:${Redacted.value(password)}`)}`
 *     return AmqpDashboard.layer({
 *       authorize: ({ headers }) => Effect.succeed(headers["authorization"] === expected ? "allow" : "authenticate")
 *     })
 *   })
 * )
 *
 * const Server = HttpRouter.serve(Dashboard).pipe(
 *   Layer.provide(NodeHttpServer.layer(createServer, { port: 3000 })),
 *   Layer.provide(AmqpLive)
 * )
 * ```
 *
 * @see {@link Options} for the settings
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<never, never, HttpRouter.HttpRouter | Amqp.Amqp | R> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      refuseUnknownNames<Options<R>>("AmqpDashboard", options, optionNames)
      const path = (options.path ?? "/amqp/dashboard").replace(/^\/+|\/+$/g, "")
      const challenge = options.challenge ?? 'Basic realm="AMQP"'
      // `authorize` gets the services that the layer is built with, in addition to those of the request.
      const services = yield* Effect.context<R>()
      const page = yield* Page.make
      const feed = yield* Feed.make({
        ...boundsOf(options.limits ?? {}),
        queueCounting: countingOf(options.queueCounts ?? false),
        blocked: options.blocked ?? "notReady",
        version: options.version
      })

      const guarded = <E, R1>(route: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R1>) =>
        Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          switch (yield* Effect.provideContext(options.authorize(request), services)) {
            case "allow":
              return yield* route
            case "deny":
              return refused(refuse(403, "Access denied. This client may not view the dashboard."))
            case "authenticate":
              return HttpServerResponse.setHeader(
                refused(refuse(401, "Authentication required; see WWW-Authenticate.")),
                "www-authenticate",
                challenge
              )
          }
        })

      const events = Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        // The router sends HEAD requests here too, and they would start a stream.
        if (request.method !== "GET") return refused(refuse(404, "No such route. Check the path and the method."))
        // A page of another site could use its visitors' cookies to open streams until the limit of viewers is reached.
        if (!["same-origin", "none", undefined].includes(request.headers["sec-fetch-site"])) {
          return refused(refuse(403, "Only the dashboard's own page may read these events."))
        }
        const stream = Stream.interruptWhen(yield* feed.join, AmqpHttpServer.stopping)
        return HttpServerResponse.stream(Stream.encodeText(stream), {
          contentType: "text/event-stream",
          // Some proxies buffer a response before they forward it.
          headers: { ...Page.securityHeaders, "x-accel-buffering": "no" }
        })
      }).pipe(
        Effect.catch(() =>
          Effect.succeed(refused(refuse(503, "The dashboard has reached its limit of viewers. Try again later.", 10)))
        )
      )

      const answer = Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) =>
        page(headers["accept-encoding"])
      )
      yield* router.add("GET", `/${path}`, guarded(answer))
      yield* router.add("GET", `/${path === "" ? "" : `${path}/`}events`, guarded(events))
    })
  )
