/** Every mistake in a topology that can be found without a broker. */
import { checkNameOrEmpty, isInvalidArgument, readBind } from "../wire/declarations.ts"
import type { InvalidArgument } from "../../model/errorReason.ts"
import { findCycles } from "./cycles.ts"
import { deadLetterIssues } from "./deadLetters.ts"
import { describe, propertiesOf, readOptions } from "./fingerprint.ts"
import type { AmqpTopology, Binding, Exchange, Queue } from "../../model/topology.ts"

const quoted = (name: string) => JSON.stringify(name)

/** A refusal as one of the sentences of `check`, which never sends anything, so they leave that out. */
export const textOf = (refused: InvalidArgument) => refused.message.replace(/ Nothing was sent\.$/, "")

const isBuiltIn = (exchange: string) => typeof exchange === "string" && exchange.startsWith("amq.")

/** The mistakes, one sentence each. */
export const check = (topology: AmqpTopology): ReadonlyArray<string> => {
  const issues: Array<string> = []
  const exchanges = new Set(topology.exchanges.map(({ name }) => name))
  const queues = new Set(topology.queues.map(({ name }) => name))
  for (const { name, type } of topology.external) (type === "exchange" ? exchanges : queues).add(name)

  const needsExchange = (name: string, by: string) => {
    if (!exchanges.has(name) && !isBuiltIn(name)) {
      issues.push(
        `${by}: exchange ${quoted(name)} is not declared here: declare it, or add externalExchange(${quoted(name)}) if another application declares it`
      )
    }
  }
  const needsQueue = (name: string, by: string) => {
    if (!queues.has(name)) {
      issues.push(
        `${by}: queue ${quoted(name)} is not declared here: declare it, or add externalQueue(${quoted(name)}) if another application declares it`
      )
    }
  }
  const checkName = (part: Exchange | Queue) => {
    const { name } = part
    const refused = checkNameOrEmpty(describe(part), "name", name)
    if (refused !== undefined) {
      issues.push(textOf(refused))
    } else if (name === "") {
      issues.push(
        part._tag === "Queue"
          ? 'queue "": expected a name. For a queue that the broker names, use AmqpChannel\'s queueDeclare, which returns the name'
          : 'exchange "": the default exchange always exists: leave it out'
      )
    } else if (isBuiltIn(name)) {
      issues.push(`${describe(part)}: names that begin with "amq." are reserved for the broker: choose another name`)
    } else if (/[\r\n]/.test(name)) {
      issues.push(`${describe(part)}: the broker would remove the line breaks from its name: leave them out`)
    }
  }

  for (const exchange of topology.exchanges) {
    checkName(exchange)
    if (typeof exchange.type !== "string" || exchange.type === "") {
      issues.push(
        `${describe(exchange)}: its type is missing: expected "direct", "fanout", "topic", "headers" or a plugin's type`
      )
    }
    const read = readOptions(exchange)
    if (isInvalidArgument(read)) issues.push(textOf(read))
    else if (exchange.options.alternateExchange !== undefined && exchange.options.alternateExchange !== "") {
      needsExchange(exchange.options.alternateExchange, `${describe(exchange)}: alternateExchange`)
    }
  }

  for (const queue of topology.queues) {
    checkName(queue)
    const read = readOptions(queue)
    if (isInvalidArgument(read)) {
      issues.push(textOf(read))
      continue
    }
    const { deadLetterExchange, deadLetterRoutingKey } = queue.options
    if (deadLetterExchange === undefined) {
      if (deadLetterRoutingKey !== undefined) {
        issues.push(`${describe(queue)}: deadLetterRoutingKey needs a deadLetterExchange`)
      }
    } else if (deadLetterExchange !== "") {
      needsExchange(deadLetterExchange, `${describe(queue)}: deadLetterExchange`)
    } else if (deadLetterRoutingKey !== undefined) {
      needsQueue(deadLetterRoutingKey, `${describe(queue)}: deadLetterRoutingKey`)
    }
    issues.push(...typeIssues(queue), ...strategyIssues(queue))
  }

  for (const binding of topology.bindings) issues.push(...bindingIssues(binding))
  for (const binding of topology.bindings) {
    const { destination, destinationType, source } = binding
    if (source !== "") needsExchange(source, describe(binding))
    if (destinationType === "queue") needsQueue(destination, describe(binding))
    else if (destination !== "") needsExchange(destination, describe(binding))
  }

  issues.push(...differences(topology.exchanges), ...differences(topology.queues))
  issues.push(...exchangeCycles(topology), ...deadLetterIssues(readable(topology)))
  issues.push(...refusalIssues(readable(topology)), ...(topology.issues ?? []))
  return [...new Set(issues)]
}

/** Without parts that have no text where text is expected: these are reported already. */
const readable = (topology: AmqpTopology): AmqpTopology => ({
  ...topology,
  queues: topology.queues.filter((queue) => !isInvalidArgument(readOptions(queue))),
  bindings: topology.bindings.filter(({ routingKey }) => typeof routingKey === "string")
})

/** The value of an option, which is given by its name or among the arguments. */
const optionOf = (
  { options }: Queue,
  name: "queueType" | "overflow" | "deadLetterStrategy",
  argument: string
): unknown => options[name] ?? options.arguments?.[argument]

const strategyOf = (queue: Queue) => optionOf(queue, "deadLetterStrategy", "x-dead-letter-strategy")
const overflowOf = (queue: Queue) => optionOf(queue, "overflow", "x-overflow")
const typeOf = (queue: Queue) => optionOf(queue, "queueType", "x-queue-type")

/** Options that queues of other types refuse, each with its argument, its queue type and what to do instead. */
const optionsOfTypes = {
  deliveryLimit: ["x-delivery-limit", "quorum", "no other queue counts deliveries"],
  delayedRetryType: ["x-delayed-retry-type", "quorum", "AmqpConsumer.retry waits for queues of every type"],
  consumerDisconnectedTimeout: ["x-consumer-disconnected-timeout", "quorum", "no other queue has this timeout"],
  queueMode: ["x-queue-mode", "classic", "other queues keep their messages on disk"],
  maxPriority: [
    "x-max-priority",
    "classic",
    "a quorum queue has priorities without it, two levels from RabbitMQ 4.0 and 32 from 4.3 on, and a stream has none"
  ],
  maxAge: ["x-max-age", "stream", "use messageTtl for messages that consumers remove"]
} as const

const typeIssues = (queue: Queue): ReadonlyArray<string> => {
  const type = typeOf(queue)
  if (type === undefined) return []
  return Object.entries(optionsOfTypes).flatMap(([option, [argument, of, instead]]) => {
    const given = queue.options[option as keyof typeof optionsOfTypes] ?? queue.options.arguments?.[argument]
    if (given === undefined || given === "default" || type === of) return []
    return [`${describe(queue)}: ${option} is for queueType "${of}": leave it out, ${instead}`]
  })
}

/** Options that RabbitMQ accepts and ignores, or refuses with a message that does not say what to do. */
const strategyIssues = (queue: Queue): ReadonlyArray<string> => {
  const issues: Array<string> = []
  const type = typeOf(queue)
  if ((type === "quorum" || type === "stream") && queue.options.durable === false) {
    issues.push(`${describe(queue)}: a ${type} queue is durable: leave durable out, or use queueType "classic"`)
  }
  if (strategyOf(queue) !== "at-least-once") return issues
  if (type !== "quorum") {
    issues.push(`${describe(queue)}: deadLetterStrategy "at-least-once" needs queueType "quorum"`)
  } else if (overflowOf(queue) !== "reject-publish") {
    issues.push(
      `${describe(queue)}: deadLetterStrategy "at-least-once" needs overflow "reject-publish": with another overflow RabbitMQ dead-letters at most once, and does not report it. Use overflow "reject-publish", or deadLetterStrategy "at-most-once"`
    )
  }
  return issues
}

/** Queues whose messages expire into a queue that refuses them when it is full: these messages are dropped. */
const refusalIssues = (topology: AmqpTopology): ReadonlyArray<string> => {
  const refusing = new Set(
    topology.queues
      .filter(
        (queue) =>
          (queue.options.maxLength ?? queue.options.maxLengthBytes) !== undefined &&
          String(overflowOf(queue)).startsWith("reject-publish")
      )
      .map(({ name }) => name)
  )
  return topology.queues.flatMap((queue) => {
    const { deadLetterExchange, deadLetterRoutingKey: target, messageTtl } = queue.options
    if (messageTtl === undefined || deadLetterExchange !== "" || target === undefined) return []
    if (!refusing.has(target) || strategyOf(queue) === "at-least-once") return []
    return [
      `${describe(queue)}: its messages expire into queue ${quoted(target)}, which refuses them when it is full: they are then dropped. Use queueType "quorum" with deadLetterStrategy "at-least-once" and overflow "reject-publish" for ${describe(queue)}, as retryQueues does, or leave maxLength and maxLengthBytes out of queue ${quoted(target)}`
    ]
  })
}

const bindingIssues = (binding: Binding): ReadonlyArray<string> => {
  const issues: Array<string> = []
  const by = describe(binding)
  const toDefault = binding.destinationType === "exchange" && binding.destination === ""
  if (binding.source === "" || toDefault) {
    issues.push(`${by}: the default exchange takes no bindings: every queue is bound to it by its own name already`)
  }
  for (const refused of [checkNameOrEmpty(by, "routingKey", binding.routingKey), readBind(by, binding.options)]) {
    if (isInvalidArgument(refused)) issues.push(textOf(refused))
  }
  return issues
}

/** Declarations of the same name with different properties. */
const differences = (parts: ReadonlyArray<Exchange | Queue>): ReadonlyArray<string> => {
  const issues: Array<string> = []
  const first = new Map<string, Exchange | Queue>()
  for (const part of parts) {
    const earlier = first.get(part.name)
    if (earlier === undefined) {
      first.set(part.name, part)
      continue
    }
    const one = propertiesOf(earlier)
    const other = propertiesOf(part)
    if (one === undefined || other === undefined) continue
    const differing = [...new Set([...one.keys(), ...other.keys()])]
      .filter((name) => one.get(name) !== other.get(name))
      .map((name) => `${name} (${one.get(name) ?? "none"} and ${other.get(name) ?? "none"})`)
    if (differing.length > 0) issues.push(`${describe(part)}: described twice, with different ${differing.join(", ")}`)
  }
  return issues
}

const exchangeCycles = ({ bindings, exchanges }: AmqpTopology): ReadonlyArray<string> => {
  const bound = new Map<string, Array<string>>()
  for (const { destination, destinationType, source } of bindings) {
    if (destinationType === "exchange") bound.set(source, [...(bound.get(source) ?? []), destination])
  }
  const alternates = new Map(
    exchanges.flatMap(({ name, options }) =>
      options.alternateExchange === undefined ? [] : [[name, [options.alternateExchange]] as const]
    )
  )
  const cycles = (graph: ReadonlyMap<string, ReadonlyArray<string>>, subject: string) =>
    findCycles(graph.keys(), (name) => graph.get(name) ?? []).map(
      (cycle) => `${subject} form a cycle: ${cycle.map(quoted).join(" -> ")}`
    )
  return [...cycles(bound, "bindings of exchanges"), ...cycles(alternates, "alternate exchanges")]
}
