/** Exchanges, queues and bindings as plain values, and `make`, which combines them. */
import type { BindOptions, ExchangeDeclareOptions, ExchangeType, QueueDeclareOptions } from "../../model/channel.ts"
import { formatValue } from "../wire/optionTable.ts"
import { fingerprint } from "./fingerprint.ts"
import type { Exchange, Queue, Binding, External, AmqpTopology, Part } from "../../model/topology.ts"

/**
 * Creates the description of an exchange: its name, its type, and the options that differ from the defaults.
 *
 * **When to use**
 *
 * Use for an exchange that this application declares. Use `externalExchange` for one that it only refers to.
 *
 * **Details**
 *
 * An exchange is durable by default.
 *
 * @see {@link externalExchange} for an exchange that another application declares
 * @category constructors
 * @since 0.1.0
 */
export const exchange = (name: string, type: ExchangeType, options: ExchangeDeclareOptions = {}): Exchange => ({
  _tag: "Exchange",
  name,
  type,
  options
})

/**
 * Creates the description of a queue: its name, and the options that differ from the defaults.
 *
 * **When to use**
 *
 * Use for a queue that this application declares. Use `externalQueue` for one that it only refers to.
 *
 * **Details**
 *
 * A queue is durable by default. Its name must not be empty. For a queue that the broker names, use `queueDeclare` of
 * `AmqpChannel`, which returns that name.
 *
 * @see {@link workQueue} for a queue with delay queues and a dead-letter queue
 * @see {@link externalQueue} for a queue that another application declares
 * @category constructors
 * @since 0.1.0
 */
export const queue = (name: string, options: QueueDeclareOptions = {}): Queue => ({ _tag: "Queue", name, options })

/**
 * Creates the description of a binding of a queue to an exchange.
 *
 * **When to use**
 *
 * Use when a queue receives messages through an exchange. Every queue is bound to the default exchange by its own name
 * already.
 *
 * **Details**
 *
 * The type of the exchange determines what the routing key means: `direct` compares it, `topic` takes it as a pattern
 * (`*` is one word, `#` any number of words), `fanout` and `headers` ignore it. Default: `""`.
 *
 * @see {@link exchangeBinding} for binding an exchange
 * @category constructors
 * @since 0.1.0
 */
export const queueBinding = (queue: string, exchange: string, routingKey = "", options: BindOptions = {}): Binding => ({
  _tag: "Binding",
  source: exchange,
  destinationType: "queue",
  destination: queue,
  routingKey,
  options
})

/**
 * Creates the description of a binding between two exchanges (RabbitMQ): messages that `source` routes by this key go
 * through `destination`, too.
 *
 * **When to use**
 *
 * Use when an exchange receives a selection of the messages of another exchange.
 *
 * **Details**
 *
 * The routing key means what it means in `queueBinding`. Default: `""`.
 *
 * @see {@link queueBinding} for binding a queue
 * @category constructors
 * @since 0.1.0
 */
export const exchangeBinding = (
  destination: string,
  source: string,
  routingKey = "",
  options: BindOptions = {}
): Binding => ({ _tag: "Binding", source, destinationType: "exchange", destination, routingKey, options })

/**
 * Refers to an exchange that another application or an operator declares.
 *
 * **When to use**
 *
 * Use when the topology binds to this exchange, or has it as a dead-letter or alternate exchange. The exchanges of
 * every virtual host (`amq.topic` and the like) need no mention.
 *
 * @see {@link verify} for making sure that it exists
 * @category constructors
 * @since 0.1.0
 */
export const externalExchange = (name: string): External => ({ _tag: "External", type: "exchange", name })

/**
 * Refers to a queue that another application or an operator declares.
 *
 * **When to use**
 *
 * Use when the topology binds this queue, or dead-letters into it.
 *
 * @see {@link verify} for making sure that it exists
 * @category constructors
 * @since 0.1.0
 */
export const externalQueue = (name: string): External => ({ _tag: "External", type: "queue", name })

const tags: ReadonlySet<unknown> = new Set<Part["_tag"]>(["Exchange", "Queue", "Binding", "External", "Topology"])

const isPart = (value: unknown): value is Part =>
  typeof value === "object" && value !== null && "_tag" in value && tags.has(value._tag)

/**
 * Combines parts into one topology. A part may be a whole topology.
 *
 * **When to use**
 *
 * Use when each module of a service describes what it uses, and the service declares all of it together.
 *
 * **Details**
 *
 * A part that is given twice with the same properties appears once. The same name with different properties is a
 * mistake, which `check` reports, and so is a value that is not a part. `make` never fails.
 *
 * **Example** (Combining the topologies of two modules)
 *
 * ```ts
 * import { AmqpTopology } from "@effect-amqp/core"
 *
 * const events = AmqpTopology.exchange("events", "topic")
 *
 * const billing = AmqpTopology.make(
 *   events,
 *   AmqpTopology.queue("billing", { queueType: "quorum" }),
 *   AmqpTopology.queueBinding("billing", "events", "order.*")
 * )
 *
 * const audit = AmqpTopology.make(
 *   events,
 *   AmqpTopology.queue("audit", { queueType: "stream", maxAge: "90 days" }),
 *   AmqpTopology.queueBinding("audit", "events", "#")
 * )
 *
 * const topology = AmqpTopology.make(billing, audit)
 * ```
 *
 * @see {@link check} for finding mistakes in the result
 * @category constructors
 * @since 0.1.0
 */
export const make = (...parts: ReadonlyArray<Part>): AmqpTopology => {
  const exchanges: Array<Exchange> = []
  const queues: Array<Queue> = []
  const bindings: Array<Binding> = []
  const external: Array<External> = []
  const issues: Array<string> = []
  const seen = new Set<unknown>()
  const add = (part: Part): void => {
    if (!isPart(part)) {
      issues.push(
        `AmqpTopology: expected an exchange, a queue, a binding, an external name or a topology, got ${formatValue(part)}. Create parts with AmqpTopology's functions, and combine them with AmqpTopology.make`
      )
      return
    }
    if (part._tag === "Topology") {
      for (const inner of [part.exchanges, part.queues, part.bindings, part.external]) inner.forEach(add)
      issues.push(...(part.issues ?? []))
      return
    }
    const same = fingerprint(part)
    if (seen.has(same)) return
    seen.add(same)
    if (part._tag === "Exchange") exchanges.push(part)
    else if (part._tag === "Queue") queues.push(part)
    else if (part._tag === "Binding") bindings.push(part)
    else external.push(part)
  }
  parts.forEach(add)
  const topology: AmqpTopology = { _tag: "Topology", exchanges, queues, bindings, external }
  return issues.length === 0 ? topology : { ...topology, issues }
}
