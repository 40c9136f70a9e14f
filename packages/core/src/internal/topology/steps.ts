/** A topology as a sequence of steps, each of which declares one exchange, queue or binding. */
import type * as Effect from "effect/Effect"
import type { AmqpChannel } from "../../model/channel.ts"
import type { AmqpError } from "../../model/error.ts"
import type { AmqpTopology, Exchange } from "../../model/topology.ts"

export interface Step {
  readonly kind: "exchange" | "queue" | "binding"
  /** The declared thing, for logs: `queue "orders"`. */
  readonly what: string
  /** The name of the exchange or queue; empty for a binding. */
  readonly name: string
  /** The exchanges and queues that a binding connects, as far as this topology declares them. */
  readonly dependencies: ReadonlyArray<Step>
  /** Whether it is deleted with the connection that declares it: an exclusive queue, and its bindings. */
  readonly isExclusive: boolean
  /** Whether the broker deletes it on purpose when it is unused, so that its absence is no fault. */
  readonly mayExpire: boolean
  readonly declare: (channel: AmqpChannel) => Effect.Effect<unknown, AmqpError>
}

const quoted = (name: string) => JSON.stringify(name)

/** Sorts alternate exchanges before the exchanges that refer to them. */
const inOrder = (exchanges: ReadonlyArray<Exchange>): Iterable<Exchange> => {
  const byName = new Map(exchanges.map((exchange) => [exchange.name, exchange]))
  const ordered = new Set<Exchange>()
  for (const exchange of exchanges) {
    const chain: Array<Exchange> = []
    for (let next: Exchange | undefined = exchange; next !== undefined && !ordered.has(next);) {
      chain.push(next)
      next = byName.get(next.options.alternateExchange ?? "")
    }
    for (const each of chain.toReversed()) ordered.add(each)
  }
  return ordered
}

/** The steps of a topology: exchanges, then queues, then bindings. */
export const stepsOf = (topology: AmqpTopology): ReadonlyArray<Step> => {
  const exchanges = new Map<string, Step>()
  for (const { name, options, type } of inOrder(topology.exchanges)) {
    exchanges.set(name, {
      kind: "exchange",
      what: `exchange ${quoted(name)} of type ${quoted(type)}`,
      name,
      dependencies: [],
      isExclusive: false,
      mayExpire: options.autoDelete === true,
      declare: (channel) => channel.exchangeDeclare(name, type, options)
    })
  }
  const queues = new Map<string, Step>()
  for (const { name, options } of topology.queues) {
    queues.set(name, {
      kind: "queue",
      what: `queue ${quoted(name)}`,
      name,
      dependencies: [],
      isExclusive: options.exclusive === true,
      mayExpire: options.autoDelete === true || options.expires !== undefined,
      declare: (channel) => channel.queueDeclare(name, options)
    })
  }
  const bindings = topology.bindings.map(({ destination, destinationType, options, routingKey, source }): Step => {
    const ends = [exchanges.get(source), (destinationType === "queue" ? queues : exchanges).get(destination)]
    const dependencies = ends.filter((step) => step !== undefined)
    return {
      kind: "binding",
      what: `binding of ${destinationType} ${quoted(destination)} to exchange ${quoted(source)} by ${quoted(routingKey)}`,
      name: "",
      dependencies,
      isExclusive: dependencies.some((step) => step.isExclusive),
      mayExpire: false,
      declare: (channel) =>
        destinationType === "queue"
          ? channel.queueBind(destination, source, routingKey, options)
          : channel.exchangeBind(destination, source, routingKey, options)
    }
  })
  return [...exchanges.values(), ...queues.values(), ...bindings]
}
