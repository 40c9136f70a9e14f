/**
 * Where dead letters go, as far as names and keys tell, and in which circles.
 *
 * A message that comes back to a queue it was dead-lettered from is dropped by RabbitMQ, without a word, unless a
 * consumer's rejection was among the causes on the way (https://www.rabbitmq.com/docs/dlx#routing). Where a rejection is
 * among them it goes on for ever, so there has to be a pause.
 *
 * Only what certainly happens is reported. Exchanges of the types `direct`, `fanout` and `topic` are followed; others,
 * and external ones, are not. Keys tried are the queues' names, since anybody may publish to the default exchange, and
 * those of the bindings.
 */
import { findCycles } from "./cycles.ts"
import type { AmqpTopology, Binding, Queue } from "../../model/topology.ts"

/** Exchanges that every virtual host has, by RabbitMQ's own account. */
const builtIn: ReadonlyMap<string, string> = new Map([
  ["amq.direct", "direct"],
  ["amq.fanout", "fanout"],
  ["amq.topic", "topic"]
])

const matchesTopic = (pattern: ReadonlyArray<string>, words: ReadonlyArray<string>): boolean => {
  let word = 0
  let part = 0
  // The last `#` takes one word more whenever what follows it does not match: no other needs to be tried again.
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

/** A key that a binding's pattern matches. */
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

/** The circles of dead letters in which messages are lost, or go round without a pause. */
export const deadLetterIssues = (topology: AmqpTopology): ReadonlyArray<string> => {
  const queues = new Map(topology.queues.map((queue) => [queue.name, queue]))
  if (!topology.queues.some(({ options }) => options.deadLetterExchange !== undefined)) return []
  const exchanges = new Map(topology.exchanges.map((exchange) => [exchange.name, exchange]))
  const bindings = new Map<string, Array<Binding>>()
  for (const binding of topology.bindings) {
    const ofSource = bindings.get(binding.source)
    if (ofSource === undefined) bindings.set(binding.source, [binding])
    else ofSource.push(binding)
  }

  /** The queues that a message reaches. */
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

  // A message in a queue, by the key it came with. JSON, so that no name can look like another pair.
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

  const circles = (isPartOf: (queue: Queue) => boolean) => {
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
    // The same circle may be found by several keys.
    return new Map(
      findCycles(places, next).map((cycle) => {
        const names = cycle.map(queueOf)
        return [JSON.stringify([...new Set(names)].sort()), names.map((name) => JSON.stringify(name)).join(" -> ")]
      })
    )
  }

  const lossy = circles(isAutomatic)
  const hasty = [...circles(({ options }) => options.messageTtl === undefined)].filter(([same]) => !lossy.has(same))
  return [
    ...[...lossy.values()].map(
      (circle) =>
        `dead letters go round, ${circle}, and each of these queues dead-letters by itself (messageTtl, maxLength, maxLengthBytes, deliveryLimit): RabbitMQ drops a message that comes back so. Let one of them dead-letter by rejection only, or let the dead letters end in another queue`
    ),
    ...hasty.map(
      ([, circle]) =>
        `dead letters go round without a pause, ${circle}: a message that is always rejected comes back at once, for ever. Put a queue with a messageTtl between, as retryQueues does, or let the dead letters end in another queue`
    )
  ]
}
