/**
 * A page for operators: what the pool, the connection, publishers and consumers of this process do, live.
 *
 * It shows the last five minutes as plots: channels in use and borrowers in line, the states of the connection and of the
 * consumers' own and what they have been through, messages published and consumed a second, how long confirms and handlers
 * take (median, 95th and 99th percentile), what is on its way and in line. Beside each plot is a table of its numbers. Of
 * channels it shows the pool's, of published messages those of `AmqpPublisher`.
 *
 * The page is one response without anything from outside (a `Content-Security-Policy` holds it to that), fed by server-sent
 * events. One fiber takes a sample a second for all viewers, and none while nobody looks; what the connection goes through
 * is remembered all the time. Conditions that need attention, such as a consumer that has ended, are listed with their
 * texts (`AmqpConnection.conditions`). It is for eyes that may know hosts, products, counts, and the queues and errors that
 * these texts name: no user and no password is on it.
 *
 * It is not there by default, and not for everybody: the layer wants somebody who decides who may look.
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
import * as Page from "./internal/dashboard/page.ts"
import { type Refusal, refuse, responseOf } from "./internal/gateway/answers.ts"

/** Whether somebody may look: `"allow"`; `"deny"`, 403; `"authenticate"`, 401, since it is not known who it is. */
export type Decision = AmqpGateway.Decision

/** Where the dashboard is, and for whom. */
export interface Options<R = never> {
  /**
   * Decides whether the sender of a request may look. It is asked for the page, and for each stream of events: a browser
   * sends cookies and HTTP authentication along with both, and no other header can be added to the second.
   */
  readonly authorize: (request: HttpServerRequest.HttpServerRequest) => Effect.Effect<Decision, never, R>
  /** Where the page is; its events are at `events` below that. Default: `/amqp/dashboard`. */
  readonly path?: `/${string}` | undefined
  readonly limits?: Limits | undefined
  /**
   * The `WWW-Authenticate` of a 401 (RFC 9110, section 11.6.1). Default: `Basic realm="AMQP"`, for which browsers ask their
   * user; it takes TLS.
   */
  readonly challenge?: string | undefined
}

/** What viewers may cost at most. */
export interface Limits {
  /** Open pages at a time. Further ones are answered with 503. At least 1. Default: 16. */
  readonly streams?: number | undefined
  /** The longest silence of a stream, after which a heartbeat is sent. 1 ms to 24.8 days. Default: 15 seconds. */
  readonly heartbeat?: Duration.Input | undefined
}

// A mistake in them is one in the program, and ends it where it is built.
const boundsOf = ({ heartbeat = "15 seconds", streams = 16 }: Limits): Feed.Bounds => {
  if (!Number.isSafeInteger(streams) || streams < 1) {
    throw new Error(`AmqpDashboard: limits.streams: wants a whole number from 1, got ${streams}`)
  }
  const duration = Duration.fromInputUnsafe(heartbeat)
  const millis = Duration.toMillis(duration)
  // Node fires longer timers at once.
  if (!(millis >= 1 && millis <= 2_147_483_647)) {
    throw new Error("AmqpDashboard: limits.heartbeat: wants a duration from 1 millisecond to 24.8 days")
  }
  return { streams, heartbeat: duration }
}

const refused = (refusal: Refusal) => HttpServerResponse.setHeaders(responseOf(refusal), Page.guarding)

/**
 * The page, and its events.
 *
 * @example
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
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<never, never, HttpRouter.HttpRouter | Amqp.Amqp | R> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      const path = (options.path ?? "/amqp/dashboard").replace(/^\/+|\/+$/g, "")
      const challenge = options.challenge ?? 'Basic realm="AMQP"'
      // What the dashboard is built with is for what decides; the request's own services besides.
      const services = yield* Effect.context<R>()
      const page = yield* Page.make
      const feed = yield* Feed.make(boundsOf(options.limits ?? {}))

      const guarded = <E, R1>(route: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R1>) =>
        Effect.gen(function* () {
          const request = yield* HttpServerRequest.HttpServerRequest
          switch (yield* Effect.provideContext(options.authorize(request), services)) {
            case "allow":
              return yield* route
            case "deny":
              return refused(refuse(403, "This is not allowed."))
            case "authenticate":
              return HttpServerResponse.setHeader(
                refused(refuse(401, "Say who you are, as WWW-Authenticate says.")),
                "www-authenticate",
                challenge
              )
          }
        })

      const events = Effect.gen(function* () {
        const request = yield* HttpServerRequest.HttpServerRequest
        // HEAD is led here as well, and would begin a stream.
        if (request.method !== "GET") return refused(refuse(404, "There is no such route."))
        // A page of another site could open streams by its visitors' cookies until there are no more to be had.
        if (!["same-origin", "none", undefined].includes(request.headers["sec-fetch-site"])) {
          return refused(refuse(403, "These events are for the dashboard's own page."))
        }
        const stream = Stream.interruptWhen(yield* feed.join, AmqpHttpServer.stopping)
        return HttpServerResponse.stream(Stream.encodeText(stream), {
          contentType: "text/event-stream",
          // Some proxies collect a response before they pass it on.
          headers: { ...Page.guarding, "x-accel-buffering": "no" }
        })
      }).pipe(
        Effect.catch(() =>
          Effect.succeed(refused(refuse(503, "As many look at the dashboard as may. Try again later.", 10)))
        )
      )

      yield* router.add("GET", `/${path}`, guarded(Effect.succeed(page)))
      yield* router.add("GET", `/${path === "" ? "" : `${path}/`}events`, guarded(events))
    })
  )
