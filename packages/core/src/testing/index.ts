/**
 * All services of `@effect-amqp/core` on a broker in memory, for tests without RabbitMQ.
 *
 * **When to use**
 *
 * Use in tests of an application's own logic.
 *
 * @category modules
 * @since 0.1.0
 */
export * as AmqpTest from "./AmqpTest.ts"
/**
 * A broker in memory: what it does on command, and what a test reads of it.
 *
 * **When to use**
 *
 * Use for faults on demand in a test with `AmqpTest.layer`, and for clients of other libraries.
 *
 * @category modules
 * @since 0.1.0
 */
export * as MemoryBroker from "./MemoryBroker.ts"
/**
 * A real RabbitMQ for tests, with a virtual host per layer, an exact census, and faults on demand.
 *
 * **When to use**
 *
 * Use in tests of what an application does with a real broker.
 *
 * @category modules
 * @since 0.1.0
 */
export * as TestBroker from "./TestBroker.ts"
