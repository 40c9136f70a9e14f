/**
 * AMQP in handlers of `@effect/platform`.
 *
 * @since 0.1.0
 */

/**
 * AMQP in handlers of `HttpRouter` and `HttpApi`: problem details for AMQP errors, and health checks.
 *
 * **When to use**
 *
 * Use in applications that serve HTTP with `@effect/platform`.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpHttp from "./http/AmqpHttp.ts"
