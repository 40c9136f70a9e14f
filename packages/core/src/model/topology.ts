/** Exchanges, queues and bindings as values. */
import type { BindOptions, ExchangeDeclareOptions, ExchangeType, QueueDeclareOptions } from "./channel.ts"

/** An exchange to be declared. */
export interface Exchange {
  readonly _tag: "Exchange"
  readonly name: string
  readonly type: ExchangeType
  readonly options: ExchangeDeclareOptions
}

/** A queue to be declared. */
export interface Queue {
  readonly _tag: "Queue"
  readonly name: string
  readonly options: QueueDeclareOptions
}

/** A binding: messages go from the source, an exchange, to the destination. */
export interface Binding {
  readonly _tag: "Binding"
  readonly source: string
  readonly destinationType: "queue" | "exchange"
  readonly destination: string
  readonly routingKey: string
  readonly options: BindOptions
}

/** An exchange or queue that somebody else declares. */
export interface External {
  readonly _tag: "External"
  readonly type: "exchange" | "queue"
  readonly name: string
}

/**
 * Exchanges, queues and bindings, as plain data: it can be printed, compared, kept in a file. Nothing is declared before
 * `declare` or `layer` does it.
 */
export interface AmqpTopology {
  readonly _tag: "Topology"
  readonly exchanges: ReadonlyArray<Exchange>
  readonly queues: ReadonlyArray<Queue>
  readonly bindings: ReadonlyArray<Binding>
  readonly external: ReadonlyArray<External>
  /** Mistakes that a shape such as `workQueue` has found in its options. `check` reports them. */
  readonly issues?: ReadonlyArray<string> | undefined
}

/** What a topology is made of. */
export type Part = Exchange | Queue | Binding | External | AmqpTopology
