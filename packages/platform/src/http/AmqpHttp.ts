/**
 * AMQP in handlers of `@effect/platform`'s `HttpRouter` and `HttpApi`.
 *
 * In a handler, `AmqpChannel.use` needs nothing else: the request's scope returns the channel at the end of the
 * response, also of a streamed one, when the client hangs up, and when the handler fails or dies.
 *
 * @since 0.1.0
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpRouter from "@effect/platform/HttpRouter"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as LogLevel from "effect/LogLevel"
import type { AmqpConnection } from "../AmqpConnection.ts"
import * as AmqpHealth from "../AmqpHealth.ts"
import * as AmqpMetrics from "../AmqpMetrics.ts"
import { answerOf, titles } from "../model/answers.ts"
import { type AmqpError, isAmqpError } from "../model/error.ts"
import type { AmqpPool } from "../model/pool.ts"

/**
 * The response to an AMQP error, as problem details (RFC 9457).
 *
 * **When to use**
 *
 * Use in an error handler of your own. `middleware` and `orResponse` answer AMQP errors themselves.
 *
 * **Details**
 *
 * A broker that cannot be reached or has no capacity left is 503 with `Retry-After`, an operation whose outcome is
 * unknown 504, an unroutable message 422, a message that is too large 413. Everything else is 500, and says nothing
 * about its cause.
 *
 * @see {@link middleware} for all handlers of a router
 *
 * @category responses
 * @since 0.1.0
 */
export const toResponse = (error: AmqpError): HttpServerResponse.HttpServerResponse => {
  const { detail, retryAfter, status } = answerOf(error)
  return HttpServerResponse.unsafeJson(
    { type: "about:blank", status, title: titles[status], ...(detail === undefined ? undefined : { detail }) },
    {
      status,
      contentType: "application/problem+json",
      ...(retryAfter === undefined ? undefined : { headers: { "retry-after": String(retryAfter) } })
    }
  )
}

/** One line per failure, with the reason that is not sent to the client. */
const logFailure = (error: AmqpError, status: number): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => {
    const request = Context.getOption(
      fiber.currentContext as Context.Context<unknown>,
      HttpServerRequest.HttpServerRequest
    )
    const route = Context.getOption(fiber.currentContext as Context.Context<unknown>, HttpRouter.RouteContext)
    const level = status === 503 || status === 504 ? LogLevel.Warning : status < 500 ? LogLevel.Info : LogLevel.Error
    return Effect.annotateLogs(Effect.logWithLevel(level, "HTTP request failed with an AMQP error"), {
      ...(request._tag === "None" ? undefined : { "http.method": request.value.method }),
      ...(route._tag === "None" ? undefined : { "http.route": route.value.route.path }),
      "http.status": status,
      error: error.reason._tag,
      reason: error.message
    })
  })

/**
 * Options of `middlewareWith` and `orResponseWith`.
 *
 * **When to use**
 *
 * Use to answer some AMQP errors differently.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * Makes the response to an AMQP error; `undefined` falls back to `toResponse`. It is called only for errors that the
   * handler has not handled itself. Default: `toResponse`.
   */
  readonly toResponse?: ((error: AmqpError) => HttpServerResponse.HttpServerResponse | undefined) | undefined
}

/**
 * Answers the AMQP errors of a handler, by these options.
 *
 * **When to use**
 *
 * Use for single handlers, and for handlers of an `HttpApi`, when `orResponse` does not fit.
 *
 * @see {@link orResponse} without options
 *
 * @category handlers
 * @since 0.1.0
 */
export const orResponseWith =
  (options: Options) =>
  <A, E, R>(
    self: Effect.Effect<A, E, R>
  ): Effect.Effect<A | HttpServerResponse.HttpServerResponse, Exclude<E, AmqpError>, R> =>
    Effect.catchIf(self, isAmqpError as (error: E) => error is E & AmqpError, (error) => {
      const response = options.toResponse?.(error) ?? toResponse(error)
      return Effect.as(logFailure(error, response.status), response)
    }) as Effect.Effect<A | HttpServerResponse.HttpServerResponse, Exclude<E, AmqpError>, R>

/**
 * Answers the AMQP errors of a handler with problem details, and logs a line for each.
 *
 * **When to use**
 *
 * Use for single handlers, and for handlers of an `HttpApi`, which may succeed with a response instead of their value.
 *
 * @see {@link middleware} for all handlers of a router
 *
 * @category handlers
 * @since 0.1.0
 */
export const orResponse: <A, E, R>(
  self: Effect.Effect<A, E, R>
) => Effect.Effect<A | HttpServerResponse.HttpServerResponse, Exclude<E, AmqpError>, R> = orResponseWith({})

/**
 * Answers the AMQP errors of an application's handlers, by these options.
 *
 * **When to use**
 *
 * Use when `middleware` does not fit.
 *
 * @see {@link middleware} without options
 *
 * @category middleware
 * @since 0.1.0
 */
export const middlewareWith: (
  options: Options
) => <E, R>(app: HttpApp.Default<E, R>) => HttpApp.Default<Exclude<E, AmqpError>, R> = orResponseWith

/**
 * Answers the AMQP errors of an application's handlers with problem details, and logs a line for each.
 *
 * **When to use**
 *
 * Use with `HttpRouter.use(AmqpHttp.middleware)`, or as the middleware of `HttpServer.serve`.
 *
 * @see {@link toResponse} for the responses
 *
 * @category middleware
 * @since 0.1.0
 */
export const middleware: <E, R>(app: HttpApp.Default<E, R>) => HttpApp.Default<Exclude<E, AmqpError>, R> =
  middlewareWith({})

const answer = (name: "live" | "ready", report: AmqpHealth.Report) =>
  HttpServerResponse.unsafeJson(
    { status: report[name] ? "pass" : "fail", ...report },
    {
      status: report[name] ? 200 : 503,
      headers: { "cache-control": "no-store", ...(report[name] ? undefined : { "retry-after": "5" }) }
    }
  )

/**
 * A handler for liveness probes: 200 while the process can recover without a restart, otherwise 503.
 *
 * **When to use**
 *
 * Use as the handler of a route such as `/health/live`.
 *
 * @see {@link ready} for readiness probes
 *
 * @category health
 * @since 0.1.0
 */
export const live: Effect.Effect<HttpServerResponse.HttpServerResponse, never, AmqpConnection | AmqpPool> = Effect.map(
  AmqpHealth.check(),
  (report) => answer("live", report)
)

/**
 * A handler for readiness probes: 200 while the service can take requests, otherwise 503 with the reasons.
 *
 * **When to use**
 *
 * Use as the handler of a route such as `/health/ready`.
 *
 * @see {@link live} for liveness probes
 *
 * @category health
 * @since 0.1.0
 */
export const ready: Effect.Effect<HttpServerResponse.HttpServerResponse, never, AmqpConnection | AmqpPool> = Effect.map(
  AmqpHealth.check(),
  (report) => answer("ready", report)
)

/**
 * A handler for Prometheus: the metrics of this process in its text format.
 *
 * **When to use**
 *
 * Use as the handler of a route such as `/metrics`, on an internal port: it has no authentication.
 *
 * **Details**
 *
 * `AmqpMetrics.format` describes the text. The metrics of Effect 3's own registry are not in it.
 *
 * @category metrics
 * @since 0.1.0
 */
export const metrics: Effect.Effect<HttpServerResponse.HttpServerResponse> = Effect.map(AmqpMetrics.format, (text) =>
  HttpServerResponse.text(text, { contentType: "text/plain; version=0.0.4; charset=utf-8" })
)
