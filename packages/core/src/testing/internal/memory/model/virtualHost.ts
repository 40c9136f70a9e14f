/** A virtual host: its exchanges and queues, and the way of a message through them. */
import * as Failure from "../failure.ts"
import type { Timers } from "../timers.ts"
import type { Behavior } from "../version.ts"
import { type Binding, Exchange, type ExchangeFlags, type ExchangeType, exchangeTypes } from "./exchange.ts"
import {
  type Death,
  type DeathReason,
  deathTable,
  isCycle,
  keysOf,
  type Message,
  readDeaths,
  recordDeath
} from "./message.ts"
import { Queue, type Queued, type QueueHost } from "./queue.ts"
import {
  argumentMismatch,
  comparedArguments,
  flagMismatch,
  type QueueFlags,
  queueType,
  readSettings
} from "./queueSettings.ts"
import * as Table from "./table.ts"

const predeclared: ReadonlyArray<readonly [name: string, type: ExchangeType]> = [
  ["amq.direct", "direct"],
  ["amq.fanout", "fanout"],
  ["amq.headers", "headers"],
  ["amq.match", "headers"],
  ["amq.topic", "topic"]
]

/** The names that stand for the queue of a direct reply begin with this. */
export const replyQueue = "amq.rabbitmq.reply-to"

/** What a virtual host needs of its broker. */
export interface VirtualHostBroker {
  readonly behavior: Behavior
  readonly timers: Timers
  readonly turn: () => number
  /** Wakes a queue at the end of the turn. */
  readonly wake: (queue: Queue) => void
  readonly nextName: (prefix: string) => string
}

/** The consumer of direct replies of one channel. */
export interface ReplyConsumer {
  readonly deliver: (message: Message) => void
}

export interface Routed {
  readonly queues: ReadonlyArray<Queue>
  /** The queue of a direct reply, if the message is one and its consumer is there. */
  readonly reply: ReplyConsumer | undefined
}

export class VirtualHost implements QueueHost {
  readonly name: string
  readonly exchanges = new Map<string, Exchange>()
  readonly queues = new Map<string, Queue>()
  /** The consumers of direct replies, by the name that stands for their queue. */
  readonly replies = new Map<string, ReplyConsumer>()
  readonly #broker: VirtualHostBroker

  constructor(broker: VirtualHostBroker, name: string) {
    this.#broker = broker
    this.name = name
    this.#predeclare()
  }

  #predeclare(): void {
    const flags = { durable: true, autoDelete: false, internal: false }
    this.exchanges.set("", new Exchange("", "direct", flags, [], undefined))
    for (const [name, type] of predeclared) this.exchanges.set(name, new Exchange(name, type, flags, [], undefined))
    // Here as on a real broker, it carries the broker's log, and no client publishes to it.
    const log = { ...flags, internal: true }
    this.exchanges.set("amq.rabbitmq.trace", new Exchange("amq.rabbitmq.trace", "topic", log, [], undefined))
  }

  // --- What queues need ------------------------------------------------------------------------------------------------

  get behavior(): Behavior {
    return this.#broker.behavior
  }

  get timers(): Timers {
    return this.#broker.timers
  }

  turn(): number {
    return this.#broker.turn()
  }

  wake(queue: Queue): void {
    this.#broker.wake(queue)
  }

  expired(queue: Queue): void {
    if (!queue.isDeleted) this.removeQueue(queue)
  }

  // --- Names -----------------------------------------------------------------------------------------------------------

  exchange(name: string): Exchange {
    const found = this.exchanges.get(name)
    if (found === undefined) throw Failure.notFound(`no ${Failure.exchangeIn(this.name, name)}`)
    return found
  }

  queue(name: string): Queue {
    const found = this.queues.get(name)
    if (found === undefined) throw Failure.notFound(`no ${Failure.queueIn(this.name, name)}`)
    return found
  }

  /** A queue that this connection may use. */
  usableQueue(name: string, connection: object): Queue {
    const queue = this.queue(name)
    if (queue.owner !== undefined && queue.owner !== connection) throw this.#locked(name)
    return queue
  }

  #locked(name: string): Failure.Failure {
    return Failure.resourceLocked(
      `cannot obtain exclusive access to locked ${Failure.queueIn(this.name, name)}. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration.`
    )
  }

  // --- Exchanges -------------------------------------------------------------------------------------------------------

  declareExchange(name: string, type: string, flags: ExchangeFlags, args: ReadonlyArray<Table.Entry>): void {
    const resource = Failure.exchangeIn(this.name, name)
    const known = exchangeTypes.find((one) => one === type)
    if (known === undefined) {
      if (type.startsWith("x-")) throw Failure.leftOut(`exchanges of type '${type}'`)
      // RabbitMQ 3 closes the connection (503), RabbitMQ 4 the channel.
      const problem = this.behavior.hasDeathRecords ? Failure.preconditionFailed : Failure.commandInvalid
      throw problem(`unknown exchange type '${type}'`)
    }
    if (name === "") throw defaultExchange()
    const existing = this.exchanges.get(name)
    if (existing !== undefined) {
      const current = existing.flags
      const mismatch =
        flagMismatch(resource, "type", existing.type, known) ??
        flagMismatch(resource, "durable", current.durable, flags.durable) ??
        flagMismatch(resource, "auto_delete", current.autoDelete, flags.autoDelete) ??
        flagMismatch(resource, "internal", current.internal, flags.internal) ??
        argumentMismatch(resource, ["alternate-exchange"], existing.args, args)
      if (mismatch !== undefined) throw mismatch
      return
    }
    if (name.startsWith("amq.")) {
      throw Failure.accessRefused(`exchange name '${name}' contains reserved prefix 'amq.*'`)
    }
    const alternate = Table.find(args, "alternate-exchange")
    if (alternate !== undefined && alternate.tag !== "S") {
      throw Failure.preconditionFailed(
        `invalid type '${Table.typeName(alternate)}' for arg 'alternate-exchange' in ${resource}`
      )
    }
    this.exchanges.set(name, new Exchange(name, known, flags, args, Table.text(alternate)))
  }

  deleteExchange(name: string, ifUnused: boolean): void {
    if (name === "") throw defaultExchange()
    if (name.startsWith("amq.")) {
      throw Failure.accessRefused(`deletion of system ${Failure.exchangeIn(this.name, name)} not allowed`)
    }
    const exchange = this.exchanges.get(name)
    if (exchange === undefined) return
    if (ifUnused && exchange.bindings.length > 0) {
      throw Failure.preconditionFailed(`${Failure.exchangeIn(this.name, name)} in use`)
    }
    this.#removeExchange(exchange)
  }

  #removeExchange(exchange: Exchange): void {
    exchange.isDeleted = true
    this.exchanges.delete(exchange.name)
    exchange.bindings = []
    this.#removeBindings(({ destination }) => destination === exchange)
  }

  // --- Bindings --------------------------------------------------------------------------------------------------------

  bind(source: string, destination: Queue | Exchange, routingKey: string, args: ReadonlyArray<Table.Entry>): void {
    const exchange = this.exchange(source)
    if (exchange.type === "headers") checkMatch(args)
    if (findBinding(exchange, { destination, routingKey, args }) !== undefined) return
    exchange.bindings = [...exchange.bindings, { destination, routingKey, args }]
  }

  unbind(source: string, destination: Queue | Exchange, routingKey: string, args: ReadonlyArray<Table.Entry>): void {
    const exchange = this.exchange(source)
    const found = findBinding(exchange, { destination, routingKey, args })
    if (found !== undefined) this.#dropBindings(exchange, (binding) => binding === found)
  }

  #removeBindings(isRemoved: (binding: Binding) => boolean): void {
    for (const exchange of this.exchanges.values()) this.#dropBindings(exchange, isRemoved)
  }

  #dropBindings(exchange: Exchange, isRemoved: (binding: Binding) => boolean): void {
    const left = exchange.bindings.filter((binding) => !isRemoved(binding))
    if (left.length === exchange.bindings.length) return
    exchange.bindings = left
    if (left.length === 0 && exchange.flags.autoDelete) this.#removeExchange(exchange)
  }

  // --- Queues ----------------------------------------------------------------------------------------------------------

  /** Declares a queue, and returns it. An empty name is chosen by the broker. */
  declareQueue(name: string, flags: QueueFlags, args: ReadonlyArray<Table.Entry>, connection: object): Queue {
    if (name === "") {
      const type = queueType(Failure.queueIn(this.name, name), args)
      if (type === "quorum") {
        throw Failure.preconditionFailed("Cannot declare a server-named queue for type rabbit_quorum_queue")
      }
      return this.#createQueue(this.#broker.nextName("amq.gen"), flags, args, connection)
    }
    const existing = this.queues.get(name)
    if (existing === undefined) {
      if (name.startsWith("amq.")) {
        throw Failure.accessRefused(`queue name '${name}' contains reserved prefix 'amq.*'`)
      }
      return this.#createQueue(name, flags, args, connection)
    }
    const resource = Failure.queueIn(this.name, name)
    if (existing.owner !== (flags.exclusive ? connection : undefined)) throw this.#locked(name)
    const { isQuorum } = existing.settings
    const typeOf = (given: ReadonlyArray<Table.Entry>) => Table.find(given, "x-queue-type") ?? Table.longstr("classic")
    const sameType = Table.sameValue(typeOf(args), typeOf(existing.args))
    // An argument that is left out is the default. RabbitMQ 4 says so in its error, RabbitMQ 3 says "none".
    const typed = (given: ReadonlyArray<Table.Entry>) =>
      sameType || this.behavior.hasDeathRecords ? Table.set(given, "x-queue-type", typeOf(given)) : given
    const mismatch =
      flagMismatch(resource, "durable", existing.flags.durable, flags.durable && !flags.exclusive) ??
      flagMismatch(resource, "auto_delete", existing.flags.autoDelete, flags.autoDelete) ??
      argumentMismatch(resource, comparedArguments(this.behavior, isQuorum), typed(existing.args), typed(args))
    if (mismatch !== undefined) throw mismatch
    existing.touch()
    return existing
  }

  #createQueue(name: string, flags: QueueFlags, args: ReadonlyArray<Table.Entry>, connection: object): Queue {
    const settings = readSettings(this.behavior, this.name, name, flags, args)
    const effective = { ...flags, durable: flags.durable && !flags.exclusive }
    const queue = new Queue(this, name, effective, args, settings, flags.exclusive ? connection : undefined)
    this.queues.set(name, queue)
    return queue
  }

  deleteQueue(name: string, ifUnused: boolean, ifEmpty: boolean, connection: object): number {
    if (!this.queues.has(name)) return 0
    const queue = this.usableQueue(name, connection)
    const resource = Failure.queueIn(this.name, name)
    const flag = ifUnused ? "if-unused" : ifEmpty ? "if-empty" : undefined
    if (queue.settings.isQuorum && flag !== undefined) {
      throw Failure.notImplemented(
        `cannot delete ${resource}. queue.delete operations with ${flag} flag set are not supported by quorum queues`
      )
    }
    if (ifUnused && queue.consumers.length > 0) throw Failure.preconditionFailed(`${resource} in use`)
    if (ifEmpty && queue.ready > 0) throw Failure.preconditionFailed(`${resource} not empty`)
    return this.removeQueue(queue)
  }

  removeQueue(queue: Queue): number {
    this.queues.delete(queue.name)
    const count = queue.delete()
    this.#removeBindings(({ destination }) => destination === queue)
    return count
  }

  /** The queues that end with their connection. */
  connectionEnded(connection: object): void {
    for (const queue of this.queues.values()) if (queue.owner === connection) this.removeQueue(queue)
  }

  // --- Messages --------------------------------------------------------------------------------------------------------

  /** The queues that a message reaches. */
  route(source: Exchange, message: Message): Routed {
    const queues = new Set<Queue>()
    const visited = new Set<Exchange>([source])
    const pending = [source]
    let reply: ReplyConsumer | undefined
    for (let exchange = pending.pop(); exchange !== undefined; exchange = pending.pop()) {
      let destinations: ReadonlyArray<Queue | Exchange>
      if (exchange.name === "") {
        destinations = message.routingKeys.flatMap((key) => this.queues.get(key) ?? [])
        reply ??= message.routingKeys.map((key) => this.replies.get(key)).find((found) => found !== undefined)
      } else {
        destinations = exchange.match(message.routingKeys, () => message.properties.headers)
      }
      const alternate = exchange.alternate === undefined ? undefined : this.exchanges.get(exchange.alternate)
      const next = destinations.length === 0 && alternate !== undefined ? [alternate] : destinations
      for (const destination of next) {
        if (destination instanceof Queue) queues.add(destination)
        else if (!visited.has(destination)) {
          visited.add(destination)
          pending.push(destination)
        }
      }
    }
    return { queues: [...queues], reply }
  }

  deadLetter(queue: Queue, queued: Queued, reason: DeathReason): boolean {
    const { deadLetterExchange, deadLetterRoutingKey } = queue.settings
    const exchange = this.exchanges.get(deadLetterExchange ?? "")
    if (exchange === undefined) return false
    const message = died(this.behavior, queued.message, {
      failures: failuresOf(queue, queued, reason),
      queue: queue.name,
      reason,
      time: Math.floor(this.timers.now() / 1000),
      exchange: exchange.name,
      routingKey: deadLetterRoutingKey
    })
    const { queues } = this.route(exchange, message)
    const deaths = this.behavior.hasDeathRecords
      ? message.deaths
      : readDeaths(Table.find(message.properties.headers, "x-death"))
    const targets = reason === "rejected" ? queues : queues.filter(({ name }) => !isCycle(name, deaths))
    // A queue that dead-letters at least once is a publisher, whose dead letters may be refused.
    const publisher = queue.settings.deadLettersAtLeastOnce ? queue : undefined
    const taken = targets.map((target) => target.enqueue(message, publisher))
    return taken.includes(true)
  }

  /** The broker has restarted. `keepsDurable`: durable exchanges and queues are kept. */
  restart(keepsDurable: boolean): void {
    this.replies.clear()
    for (const queue of this.queues.values()) {
      queue.restart()
      if (!keepsDurable || !queue.flags.durable) this.removeQueue(queue)
    }
    for (const exchange of this.exchanges.values()) {
      if (!keepsDurable || !exchange.flags.durable) this.#removeExchange(exchange)
    }
    if (!keepsDurable) this.#predeclare()
  }
}

const defaultExchange = () => Failure.accessRefused("operation not permitted on the default exchange")

/** RabbitMQ compares the arguments of a binding by value, in any order. */
const sameArguments = (a: ReadonlyArray<Table.Entry>, b: ReadonlyArray<Table.Entry>): boolean =>
  a.length === b.length &&
  a.every((one) => {
    const other = Table.find(b, one.key)
    return other !== undefined && Table.sameValue(one, other)
  })

const findBinding = (exchange: Exchange, wanted: Binding): Binding | undefined =>
  exchange.bindings.find(
    ({ args, destination, routingKey }) =>
      destination === wanted.destination && routingKey === wanted.routingKey && sameArguments(args, wanted.args)
  )

const checkMatch = (args: ReadonlyArray<Table.Entry>): void => {
  const value = Table.find(args, "x-match")
  if (value === undefined) return
  const name = Table.text(value)
  const expected = "expected all, any, all-with-x, or any-with-x"
  if (name === undefined) {
    throw Failure.preconditionFailed(
      `Invalid x-match field type ${Table.typeName(value)} (value ${String(Table.plain(value))}); expected longstr`
    )
  }
  if (!["all", "any", "all-with-x", "any-with-x"].includes(name)) {
    throw Failure.preconditionFailed(`Invalid x-match field value <<"${name}">>; ${expected}`)
  }
}

/** The count that a dead letter takes with it. A classic queue does not write its own into what expires. */
const failuresOf = ({ settings }: Queue, { failures, message }: Queued, reason: DeathReason): number =>
  failures > 0 && (settings.isQuorum || reason !== "expired") ? failures : message.failures

interface Dying {
  readonly failures: number
  readonly queue: string
  readonly reason: DeathReason
  readonly time: number
  /** The dead-letter exchange. */
  readonly exchange: string
  /** The queue's dead-letter routing key, if it has one. */
  readonly routingKey: string | undefined
}

/** The dead letter of a message. */
const died = (behavior: Behavior, message: Message, dying: Dying): Message => {
  const { properties } = message
  const { headers } = properties
  const withoutBcc = [message.routingKeys[0] ?? "", ...(keysOf(Table.find(headers, "CC")) ?? [])]
  const death: Death = {
    queue: dying.queue,
    reason: dying.reason,
    count: 1,
    time: dying.time,
    exchange: message.exchange,
    routingKeys: withoutBcc,
    originalExpiration: properties.expiration
  }
  const routingKeys = dying.routingKey === undefined ? message.routingKeys : [dying.routingKey]
  if (behavior.hasDeathRecords) {
    const deaths = recordDeath(message.deaths, death)
    return {
      exchange: dying.exchange,
      routingKeys,
      body: message.body,
      deaths,
      firstDeath: message.firstDeath ?? death,
      lastDeath: death,
      failures: dying.failures,
      properties: properties.withoutExpiration()
    }
  }
  const previous = Table.find(headers, "x-death")
  const first =
    previous === undefined
      ? [
          ["x-first-death-reason", death.reason] as const,
          ["x-first-death-queue", death.queue] as const,
          ["x-first-death-exchange", death.exchange] as const
        ]
      : []
  const withFirst = first.reduce((all, [key, value]) => Table.set(all, key, Table.longstr(value)), headers)
  const deaths = Table.array(recordDeath(readDeaths(previous), death).map(deathTable))
  const all = Table.set(withFirst, "x-death", deaths)
  return {
    exchange: dying.exchange,
    routingKeys,
    body: message.body,
    deaths: [],
    firstDeath: undefined,
    lastDeath: undefined,
    failures: 0,
    properties: properties
      .withHeaders(dying.routingKey === undefined ? all : Table.remove(all, "CC"))
      .withoutExpiration()
  }
}
