/**
 * AMQP 0-9-1 for Effect 3 and `@effect/platform`: channels as scoped resources, borrowed from a pool.
 *
 * @since 0.1.0
 */

/**
 * All services as layers: connection, pool, publisher and consumers.
 *
 * **When to use**
 *
 * Use to provide an application with everything that it needs for one broker.
 *
 * @category modules
 * @since 0.1.0
 */
export * as Amqp from "./Amqp.ts"

export { AmqpLive } from "./Amqp.ts"

/**
 * Borrowed channels: publishing, receiving, declaring and transactions on a channel that belongs to a scope.
 *
 * **When to use**
 *
 * Use for `get`, transactions, returned messages and declarations.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpChannel from "./AmqpChannel.ts"

/**
 * The settings of a connection and its pool: from an object, a URL or the environment.
 *
 * **When to use**
 *
 * Use to configure a connection, and to report every mistake in a configuration before anything connects.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpConfig from "./AmqpConfig.ts"

/**
 * The connection to the broker, which reconnects after a loss until its scope closes.
 *
 * **When to use**
 *
 * Use to observe the connection's state and the broker's flow control, or to replace its secret.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpConnection from "./AmqpConnection.ts"

/**
 * Consumers: handlers whose outcome settles the delivery, batches, and streams of deliveries.
 *
 * **When to use**
 *
 * Use to consume a queue or a stream, with policies for failures.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpConsumer from "./AmqpConsumer.ts"

/**
 * The error of this library and its reasons.
 *
 * **When to use**
 *
 * Use to handle an error by its reason or severity.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpError from "./AmqpError.ts"

/**
 * Events: a schema, an exchange and a routing key in one value, which publishers and consumers share.
 *
 * **When to use**
 *
 * Use to publish and to consume values of a schema.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpEvent from "./AmqpEvent.ts"

/**
 * Whether a process is alive and ready, as far as its broker is concerned.
 *
 * **When to use**
 *
 * Use to answer the probes of an orchestrator.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpHealth from "./AmqpHealth.ts"

/**
 * Messages as plain data: what is published and what is delivered.
 *
 * **When to use**
 *
 * Use to encode and decode contents with schemas, and for the types of messages, properties and deliveries.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpMessage from "./AmqpMessage.ts"

/**
 * Metrics of connection, pool, publisher, consumers and requests.
 *
 * **When to use**
 *
 * Use to read the metrics as plain data, or as a page for Prometheus.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpMetrics from "./AmqpMetrics.ts"

/**
 * Stores in which consumers of streams save their positions.
 *
 * **When to use**
 *
 * Use to continue where a consumer of a stream was before a restart.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpOffsetStore from "./AmqpOffsetStore.ts"

/**
 * The pool of channels of a connection.
 *
 * **When to use**
 *
 * Use to borrow channels explicitly, and to read the pool's counts.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpPool from "./AmqpPool.ts"

/**
 * Confirmed publishing by many fibers over a few channels.
 *
 * **When to use**
 *
 * Use to publish in volume, and for messages that must not be lost.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpPublisher from "./AmqpPublisher.ts"

/**
 * Request and reply (RPC) over AMQP.
 *
 * **When to use**
 *
 * Use when a caller needs the reply of another service, in any language, and both can reach the broker.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpRpc from "./AmqpRpc.ts"

/**
 * Exchanges, queues and bindings as values: described, checked and declared.
 *
 * **When to use**
 *
 * Use when an application declares what it publishes to and consumes from.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpTopology from "./AmqpTopology.ts"
