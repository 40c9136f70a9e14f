/**
 * The routes of dead letters, as far as names and keys determine them, and the cycles among these routes.
 *
 * RabbitMQ silently drops a message that returns to a queue that it was dead-lettered from, unless a consumer has
 * rejected it on the way (https://www.rabbitmq.com/docs/dlx#routing). If a consumer has rejected it, the message
 * circulates forever, so the cycle needs a pause.
 *
 * Only cycles that certainly happen are reported. Exchanges of the types `direct`, `fanout` and `topic` are followed;
 * others, and external ones, are not. The keys that are followed are the names of the queues, because any client may
 * publish to the default exchange, and the keys of the bindings.
 */
import { findCycles } from "./cycles.ts"
import type { AmqpTopology, Binding, Queue } from "../../model/topology.ts"

/** Exchanges that RabbitMQ creates in every virtual host. */
const builtIn: ReadonlyMap<string, string> = new Map([
  ["amq.direct", "direct"],
  ["amq.fanout", "fanout"],
  ["amq.topic", "topic"]
])

const matchesTopic = (pattern: ReadonlyArray<string>, words: ReadonlyArray<string>): boolean => {
  let word = 0
  let part = 0
  // If what follows the last `#` does not match, that `#` takes one more word. No earlier `#` needs to be tried again.
  let afterHash: { part: number; word: number } | undefined
  while (word < words.length || part < pattern.length) {
    if (pattern[part] === "#") {
      afterHash = { part: ++part, word }
    } else if (word < words.length && (pattern[part] === "*" || pattern[part] === words[word])) {
      part++
      word++
    } else if (afterHash !== undefined && afterHash.word < words.length) {
      word = ++afterHash.word
      part = afterHash.part
    } else {
      return false
    }
  }
  return true
}

const wordsOf = (key: string) => (key === "" ? [] : key.split("."))

const matches = (type: string | undefined, pattern: string, key: string): boolean => {
  switch (type) {
    case "fanout":
      return true
    case "direct":
      return pattern === key
    case "topic":
      return matchesTopic(wordsOf(pattern), wordsOf(key))
    default:
      return false
  }
}

/** An example of a routing key that a binding's pattern matches. */
const instanceOf = (pattern: string) =>
  wordsOf(pattern)
    .filter((word) => word !== "#")
    .map((word) => (word === "*" ? "any" : word))
    .join(".")

/** Whether messages leave a queue for its dead-letter exchange without a consumer's rejection. */
const isAutomatic = ({ options }: Queue): boolean =>
  options.messageTtl !== undefined ||
  options.deliveryLimit !== undefined ||
  ((options.maxLength ?? options.maxLengthBytes) !== undefined && options.overflow !== "reject-publish")

/** Finds the queues that a message with this routing key reaches from an exchange. */
type Route = (exchange: string, key: string) => Set<string>

const bindingsOf = (topology: AmqpTopology): ReadonlyMap<string, ReadonlyArray<Binding>> => {
  const bindings = new Map<string, Array<Binding>>()
  for (const binding of topology.bindings) {
    const ofSource = bindings.get(binding.source)
    if (ofSource === undefined) bindings.set(binding.source, [binding])
    else ofSource.push(binding)
  }
  return bindings
}

const routeOf = (topology: AmqpTopology, bindings: ReadonlyMap<string, ReadonlyArray<Binding>>): Route => {
  const exchanges = new Map(topology.exchanges.map((exchange) => [exchange.name, exchange]))
  const route = (exchange: string, key: string, found = new Set<string>(), seen = new Set<string>()) => {
    if (exchange === "") return found.add(key)
    if (seen.has(exchange)) return found
    seen.add(exchange)
    const declared = exchanges.get(exchange)
    const type = declared?.type ?? builtIn.get(exchange)
    let routed = false
    for (const { destination, destinationType, routingKey } of bindings.get(exchange) ?? []) {
      if (!matches(type, routingKey, key)) continue
      routed = true
      if (destinationType === "queue") found.add(destination)
      else route(destination, key, found, seen)
    }
    const alternate = declared?.options.alternateExchange
    if (!routed && alternate !== undefined && type !== undefined) route(alternate, key, found, seen)
    return found
  }
  return (exchange, key) => route(exchange, key)
}

/** The keys that messages may keep when they are dead-lettered: examples of those that bindings match. */
const keysOf = (topology: AmqpTopology): ReadonlySet<string> =>
  new Set([
    ...topology.bindings.map(({ routingKey }) => instanceOf(routingKey)),
    ...topology.queues.map(({ name }) => name)
  ])

/**
 * The queues in which dead letters of a topology end, in the order of their declaration: those that a dead-letter
 * exchange routes to, and that have none themselves. External queues that are named by the default exchange count too.
 */
export const deadLetterQueues = (topology: AmqpTopology): ReadonlyArray<string> => {
  const route = routeOf(topology, bindingsOf(topology))
  const keys = keysOf(topology)
  const reached = new Set<string>()
  for (const { name, options } of topology.queues) {
    const { deadLetterExchange: exchange, deadLetterRoutingKey: key } = options
    if (exchange === undefined) continue
    for (const each of key === undefined ? (exchange === "" ? [name] : keys) : [key]) {
      for (const queue of route(exchange, each)) reached.add(queue)
    }
  }
  const passing = new Set(
    topology.queues.filter(({ options }) => options.deadLetterExchange !== undefined).map(({ name }) => name)
  )
  const ends = [...reached].filter((queue) => !passing.has(queue))
  const order = new Map(topology.queues.map(({ name }, i) => [name, i]))
  return ends.sort((a, b) => (order.get(a) ?? Infinity) - (order.get(b) ?? Infinity))
}

/** The cycles of dead letters in which messages are lost, or circulate without a pause. */
export const deadLetterIssues = (topology: AmqpTopology): ReadonlyArray<string> => {
  const queues = new Map(topology.queues.map((queue) => [queue.name, queue]))
  if (!topology.queues.some(({ options }) => options.deadLetterExchange !== undefined)) return []
  const bindings = bindingsOf(topology)
  const route = routeOf(topology, bindings)

  // A message in a queue, identified by the queue and the message's routing key. It is JSON, so that no name can be
  // mistaken for another pair.
  const at = (queue: string, key: string) => JSON.stringify([queue, key])
  const queueOf = (place: string) => (JSON.parse(place) as [string, string])[0]
  const places = new Set(topology.queues.map(({ name }) => at(name, name)))
  const keepsKey = topology.queues.some(
    ({ options }) => options.deadLetterExchange !== undefined && options.deadLetterRoutingKey === undefined
  )
  if (keepsKey) {
    const keys = new Set(topology.bindings.map(({ routingKey }) => instanceOf(routingKey)))
    for (const exchange of bindings.keys()) {
      for (const key of keys) for (const queue of route(exchange, key)) places.add(at(queue, key))
    }
  }

  const cycles = (isPartOf: (queue: Queue) => boolean) => {
    const next = function* (place: string) {
      const [name, ownKey] = JSON.parse(place) as [string, string]
      const queue = queues.get(name)
      if (queue?.options.deadLetterExchange === undefined || !isPartOf(queue)) return
      const key = queue.options.deadLetterRoutingKey ?? ownKey
      for (const reached of route(queue.options.deadLetterExchange, key)) {
        const target = queues.get(reached)
        if (target !== undefined && isPartOf(target)) yield at(reached, key)
      }
    }
    // Several keys may lead to the same cycle.
    return new Map(
      findCycles(places, next).map((cycle) => {
        const names = cycle.map(queueOf)
        return [JSON.stringify([...new Set(names)].sort()), names.map((name) => JSON.stringify(name)).join(" -> ")]
      })
    )
  }

  const losing = cycles(isAutomatic)
  const immediate = [...cycles(({ options }) => options.messageTtl === undefined)].filter(([key]) => !losing.has(key))
  return [
    ...[...losing.values()].map(
      (cycle) =>
        `dead letters form a cycle, ${cycle}, and each of these queues dead-letters automatically (messageTtl, maxLength, maxLengthBytes, deliveryLimit): RabbitMQ drops a message that returns this way. Let one of the queues dead-letter by rejection only, or let the dead letters end in another queue`
    ),
    ...immediate.map(
      ([, cycle]) =>
        `dead letters form a cycle without a pause, ${cycle}: a message that is always rejected returns at once, forever. Insert a queue with a messageTtl, as retryQueues does, or let the dead letters end in another queue`
    )
  ]
}
