/** Exchanges, queues and bindings as values. */
import type { BindOptions, ExchangeDeclareOptions, ExchangeType, QueueDeclareOptions } from "./channel.ts"

/**
 * An exchange that a topology declares.
 *
 * **When to use**
 *
 * Use as part of a topology; `exchange` creates it.
 *
 * @see {@link exchange} for creating one
 * @category models
 * @since 0.1.0
 */
export interface Exchange {
  readonly _tag: "Exchange"
  readonly name: string
  readonly type: ExchangeType
  readonly options: ExchangeDeclareOptions
}

/**
 * A queue that a topology declares.
 *
 * **When to use**
 *
 * Use as part of a topology; `queue` creates it.
 *
 * @see {@link queue} for creating one
 * @category models
 * @since 0.1.0
 */
export interface Queue {
  readonly _tag: "Queue"
  readonly name: string
  readonly options: QueueDeclareOptions
}

/**
 * A binding: the broker routes messages from the source, an exchange, to the destination.
 *
 * **When to use**
 *
 * Use as part of a topology; `queueBinding` and `exchangeBinding` create it.
 *
 * @see {@link queueBinding} for binding a queue
 * @see {@link exchangeBinding} for binding an exchange
 * @category models
 * @since 0.1.0
 */
export interface Binding {
  readonly _tag: "Binding"
  readonly source: string
  readonly destinationType: "queue" | "exchange"
  readonly destination: string
  readonly routingKey: string
  readonly options: BindOptions
}

/**
 * An exchange or queue that another application or an operator declares.
 *
 * **When to use**
 *
 * Use as part of a topology that refers to the name; `externalExchange` and `externalQueue` create it.
 *
 * @see {@link externalExchange} for an exchange
 * @see {@link externalQueue} for a queue
 * @category models
 * @since 0.1.0
 */
export interface External {
  readonly _tag: "External"
  readonly type: "exchange" | "queue"
  readonly name: string
}

/**
 * Exchanges, queues and bindings as plain data.
 *
 * **When to use**
 *
 * Use to describe what a service needs at the broker before anything is declared. The description can be printed,
 * compared and stored in a file.
 *
 * **Details**
 *
 * Only `declare` and `layer` declare anything at the broker.
 *
 * @see {@link make} for creating a topology from its parts
 * @see {@link check} for finding mistakes without a broker
 * @see {@link layer} for declaring a topology and keeping it declared
 * @category models
 * @since 0.1.0
 */
export interface AmqpTopology {
  readonly _tag: "Topology"
  readonly exchanges: ReadonlyArray<Exchange>
  readonly queues: ReadonlyArray<Queue>
  readonly bindings: ReadonlyArray<Binding>
  readonly external: ReadonlyArray<External>
  /** Mistakes that a shape such as `workQueue` has found in its options. `check` reports them. Default: none. */
  readonly issues?: ReadonlyArray<string> | undefined
}

/**
 * A part of a topology: an exchange, a queue, a binding, an external name, or a whole topology.
 *
 * **When to use**
 *
 * Use as the type of what `make` combines, and of what `check`, `declare`, `verify` and `layer` take.
 *
 * @see {@link make} for combining parts
 * @category models
 * @since 0.1.0
 */
export type Part = Exchange | Queue | Binding | External | AmqpTopology
