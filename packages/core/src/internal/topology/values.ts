/** Exchanges, queues and bindings as plain values, and how they are put together. */
import type { BindOptions, ExchangeDeclareOptions, ExchangeType, QueueDeclareOptions } from "../../model/channel.ts"
import { fingerprint } from "./fingerprint.ts"
import type { Exchange, Queue, Binding, External, AmqpTopology, Part } from "../../model/topology.ts"

/** An exchange: its name, its type, and what differs from the defaults. Durable unless told otherwise. */
export const exchange = (name: string, type: ExchangeType, options: ExchangeDeclareOptions = {}): Exchange => ({
  _tag: "Exchange",
  name,
  type,
  options
})

/**
 * A queue: its name, and what differs from the defaults. Durable unless told otherwise.
 *
 * It needs a name: one that the broker names is for `AmqpChannel`'s `queueDeclare`, which tells that name.
 */
export const queue = (name: string, options: QueueDeclareOptions = {}): Queue => ({ _tag: "Queue", name, options })

/**
 * A binding of a queue to an exchange. The routing key is what the exchange's type makes of it: compared by `direct`, a
 * pattern for `topic` (`*` one word, `#` any number), ignored by `fanout` and `headers`.
 */
export const queueBinding = (queue: string, exchange: string, routingKey = "", options: BindOptions = {}): Binding => ({
  _tag: "Binding",
  source: exchange,
  destinationType: "queue",
  destination: queue,
  routingKey,
  options
})

/** A binding of an exchange to another (RabbitMQ): what `source` routes by this key goes through `destination`, too. */
export const exchangeBinding = (
  destination: string,
  source: string,
  routingKey = "",
  options: BindOptions = {}
): Binding => ({ _tag: "Binding", source, destinationType: "exchange", destination, routingKey, options })

/**
 * An exchange that somebody else declares, so that it may be bound to, or be a dead-letter or alternate exchange. Those
 * that every virtual host has (`amq.topic` and the like) need no mention.
 */
export const externalExchange = (name: string): External => ({ _tag: "External", type: "exchange", name })

/** A queue that somebody else declares, so that it may be bound, or take dead letters. */
export const externalQueue = (name: string): External => ({ _tag: "External", type: "queue", name })

/**
 * Puts parts together, whole topologies among them: the modules of a service each describe what they use, and the service
 * makes one topology of it.
 *
 * What is given twice, with the same properties, is there once. The same name with different properties is a mistake,
 * which `check` reports; `make` itself never fails.
 *
 * @example
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
 */
export const make = (...parts: ReadonlyArray<Part>): AmqpTopology => {
  const exchanges: Array<Exchange> = []
  const queues: Array<Queue> = []
  const bindings: Array<Binding> = []
  const external: Array<External> = []
  const issues: Array<string> = []
  const seen = new Set<unknown>()
  const add = (part: Part): void => {
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
