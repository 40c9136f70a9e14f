/**
 * AMQP 0-9-1 for Effect: channels as scoped resources, borrowed from a pool.
 *
 * @since 0.1.0
 */

/**
 * All services as layers: connection, pool, publisher, consumers and requests.
 *
 * **When to use**
 *
 * Use to provide an application with everything that it needs for one broker.
 *
 * @category modules
 * @since 0.1.0
 */
export * as Amqp from "./Amqp.ts"

/**
 * Baggage: names and values that accompany a piece of work through all services that take part in it (W3C).
 *
 * **When to use**
 *
 * Use to pass context such as a tenant to the handlers of other services without adding it to the content of messages.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpBaggage from "./AmqpBaggage.ts"

/**
 * Several brokers in one application, each with a key of its own.
 *
 * **When to use**
 *
 * Use when an application connects to more than one broker. One broker needs no key.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpBroker from "./AmqpBroker.ts"

/**
 * Borrowed channels: publishing, receiving, declaring and transactions on a channel that belongs to a scope.
 *
 * **When to use**
 *
 * Use for `get`, transactions, returned messages and declarations. Use `AmqpPublisher` to publish in volume, and
 * `AmqpConsumer` to consume.
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
 * Use to observe the connection's state, its conditions and the broker's flow control, or to replace its secret.
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
 * Dead letters: why messages failed, and how they get back to where they belong.
 *
 * **When to use**
 *
 * Use to read, redrive and discard what is in dead-letter queues.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpDeadLetters from "./AmqpDeadLetters.ts"

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
 * Use to publish and consume typed events without repeating where they go and how they are encoded.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpEvent from "./AmqpEvent.ts"

export { AmqpLive } from "./Amqp.ts"

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
 * Metrics of connection, pool, publisher, consumers and requests, as Effect `Metric`s.
 *
 * **When to use**
 *
 * Use to export metrics, or to read them in a program. `Amqp.layer` and `AmqpLive` register them.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpMetrics from "./AmqpMetrics.ts"

/**
 * Stores for the positions of stream consumers, so that a restarted consumer continues where it stopped.
 *
 * **When to use**
 *
 * Use with consumers of streams that must not start from a fixed offset at each start.
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
 * Request and reply: procedures with schemas, their clients and servers.
 *
 * **When to use**
 *
 * Use when a caller needs the reply of another service.
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
