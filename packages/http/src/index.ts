/**
 * AMQP for Effect's HTTP servers: middleware for handlers, error responses, health checks, a gateway and a dashboard.
 *
 * @since 0.1.0
 */

/**
 * A live page for operators about this process's pool, connections, publishers and consumers.
 *
 * **When to use**
 *
 * Use when operators need to see the state of AMQP in a running process without a metrics system.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpDashboard from "./AmqpDashboard.ts"

/**
 * Routes for operators: why messages were dead-lettered, and redrive and discard of chosen ones.
 *
 * **When to use**
 *
 * Use when operators, or tools of your own, bring dead letters back over HTTP.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpDeadLettersHttp from "./AmqpDeadLettersHttp.ts"

/**
 * Routes for clients that have HTTP only: publishing, consuming and RPC requests.
 *
 * **When to use**
 *
 * Use when browsers, webhooks or scripts must reach queues and exchanges without an AMQP client.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpGateway from "./AmqpGateway.ts"

/**
 * Health checks: liveness and readiness, as routes or as an effect.
 *
 * **When to use**
 *
 * Use when an orchestrator or a load balancer probes the service.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpHealth from "./AmqpHealth.ts"

/**
 * Middleware that provides AMQP to the handlers of an `HttpRouter`, and answers their AMQP errors.
 *
 * **When to use**
 *
 * Use when the handlers of an `HttpRouter` use AMQP. A request borrows a channel, and the end of the response returns
 * it.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpHttp from "./AmqpHttp.ts"

/**
 * AMQP errors as HTTP responses with problem details.
 *
 * **When to use**
 *
 * Use when a handler answers an AMQP error itself.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpHttpError from "./AmqpHttpError.ts"

/**
 * Middleware that provides AMQP to the typed endpoints of an `HttpApi`, and declares their problems.
 *
 * **When to use**
 *
 * Use when the handlers of an `HttpApi` use AMQP.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpHttpApi from "./AmqpHttpApi.ts"

/**
 * An HTTP server that shuts down in order.
 *
 * **When to use**
 *
 * Use when a server is restarted while clients use it.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpHttpServer from "./AmqpHttpServer.ts"

/**
 * AMQP errors as typed problems, for the endpoints of an `HttpApi`.
 *
 * **When to use**
 *
 * Use when an endpoint's handler ends with `AmqpProblem.orProblem`, or when a client handles the problems.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpProblem from "./AmqpProblem.ts"
