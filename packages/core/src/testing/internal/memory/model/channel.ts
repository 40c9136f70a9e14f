/** One channel of a client, as the broker has it: its consumers, its deliveries, and what it publishes. */
import * as Failure from "../failure.ts"
import type { Behavior } from "../version.ts"
import { deliveredProperties } from "./delivered.ts"
import { keysOf, type Message } from "./message.ts"
import type { Properties } from "./properties.ts"
import type { Consumer, Queue, Queued, Return } from "./queue.ts"
import { type QueueFlags, readConsumerSettings } from "./queueSettings.ts"
import type { ExchangeFlags } from "./exchange.ts"
import * as Table from "./table.ts"
import { replyQueue, type VirtualHost } from "./virtualHost.ts"

/** A message on its way to the client. */
export interface Outbound {
  readonly deliveryTag: number
  readonly redelivered: boolean
  readonly exchange: string
  readonly routingKey: string
  readonly properties: Properties
  readonly body: Buffer
}

/** What a channel sends to its client without being asked. */
export interface ChannelClient {
  readonly deliver: (consumerTag: string, message: Outbound) => void
  readonly returned: (code: number, text: string, message: Omit<Outbound, "deliveryTag" | "redelivered">) => void
  readonly confirm: (deliveryTag: number, isAck: boolean) => void
  readonly cancelled: (consumerTag: string) => void
  /** Whether the client accepts that the broker cancels a consumer. */
  readonly acceptsCancels: () => boolean
  /** The broker closes the channel by itself. */
  readonly fail: (failure: Failure.Failure) => void
}

/** Where a channel belongs. */
export interface Place {
  /** The identity of the connection, to which exclusive queues belong. */
  readonly connection: object
  readonly user: string
  readonly number: number
}

/** A published message, for those who look at the broker. */
export interface Publication {
  readonly vhost: string
  readonly message: Message
  readonly queues: ReadonlyArray<string>
}

/** What a channel needs of its broker. */
export interface ChannelBroker {
  readonly behavior: Behavior
  readonly nextName: (prefix: string) => string
  readonly nextReplyName: () => string
  /** Sends a confirm, or does with it what the test has asked for. */
  readonly confirm: (isAck: boolean, send: (isAck: boolean) => void) => void
  readonly published: (publication: Publication) => void
}

interface Unsettled {
  readonly queued: Queued
  readonly queue: Queue
  readonly consumer: ChannelConsumer | undefined
  /** When the consumer timeout is over; `Infinity`: never. */
  readonly dueAt: number
  /** Whether the queue has taken it back. The client may still settle it, to no effect on the message. */
  isTakenBack: boolean
}

interface ChannelConsumer extends Consumer {
  /** The consumer timeout that it has asked for, in milliseconds. */
  readonly timeout: number | undefined
  unsettled: number
  /** Deliveries beyond its prefetch. */
  credit: number
}

export interface Counts {
  readonly queue: string
  readonly messageCount: number
  readonly consumerCount: number
}

export type Args = ReadonlyArray<Table.Entry>

export class Channel {
  readonly #broker: ChannelBroker
  readonly #vhost: VirtualHost
  /** The identity of the connection, to which exclusive queues belong. */
  readonly #connection: object
  readonly #user: string
  readonly #number: number
  readonly #client: ChannelClient
  readonly #consumers = new Map<string, ChannelConsumer>()
  readonly #unsettled = new Map<number, Unsettled>()
  #reply: { readonly tag: string; readonly name: string } | undefined
  #deliveries = 0
  #published = 0
  #confirms = false
  #prefetch = 0
  #globalPrefetch = 0
  #lastQueue = ""
  #isOpen = true
  readonly #openedAt: number
  /** When deliveries are next checked against the consumer timeout. */
  #checksAt = Infinity
  #cancelCheck: (() => void) | undefined

  constructor(broker: ChannelBroker, vhost: VirtualHost, { connection, number, user }: Place, client: ChannelClient) {
    this.#broker = broker
    this.#vhost = vhost
    this.#connection = connection
    this.#user = user
    this.#number = number
    this.#client = client
    this.#openedAt = vhost.timers.now()
  }

  get consumers(): number {
    return this.#consumers.size
  }

  get unsettled(): number {
    return this.#unsettled.size
  }

  // --- Topology --------------------------------------------------------------------------------------------------------

  exchangeDeclare(name: string, type: string, flags: ExchangeFlags, args: Args): void {
    this.#vhost.declareExchange(withoutLineBreaks(name), type, flags, args)
  }

  exchangeDeclarePassive(name: string): void {
    notDefault(name)
    this.#vhost.exchange(withoutLineBreaks(name))
  }

  exchangeDelete(name: string, ifUnused: boolean): void {
    this.#vhost.deleteExchange(withoutLineBreaks(name), ifUnused)
  }

  exchangeBind(destination: string, source: string, routingKey: string, args: Args): void {
    notDefault(destination, source)
    this.#vhost.exchange(source)
    this.#vhost.bind(source, this.#vhost.exchange(destination), routingKey, args)
  }

  exchangeUnbind(destination: string, source: string, routingKey: string, args: Args): void {
    notDefault(destination, source)
    const bound = this.#vhost.exchanges.get(destination)
    if (bound !== undefined && this.#vhost.exchanges.has(source)) this.#vhost.unbind(source, bound, routingKey, args)
  }

  queueDeclare(name: string, flags: QueueFlags, args: Args): Counts {
    if (name.startsWith(replyQueue)) return this.queueDeclarePassive(name)
    return this.#counted(this.#vhost.declareQueue(withoutLineBreaks(name), flags, args, this.#connection))
  }

  queueDeclarePassive(name: string): Counts {
    if (this.#vhost.replies.has(name)) return { queue: name, messageCount: 0, consumerCount: 1 }
    const queue = this.#vhost.usableQueue(withoutLineBreaks(name), this.#connection)
    queue.touch()
    return this.#counted(queue)
  }

  #counted(queue: Queue): Counts {
    this.#lastQueue = queue.name
    return { queue: queue.name, messageCount: queue.ready, consumerCount: queue.consumerCount }
  }

  queueDelete(name: string, ifUnused: boolean, ifEmpty: boolean): number {
    return this.#vhost.deleteQueue(this.#named(name), ifUnused, ifEmpty, this.#connection)
  }

  queuePurge(name: string): number {
    return this.#queue(name).purge()
  }

  queueBind(name: string, exchange: string, routingKey: string, args: Args): void {
    const named = this.#named(name)
    notDefault(exchange)
    this.#vhost.exchange(exchange)
    const bound = this.#vhost.usableQueue(named, this.#connection)
    this.#vhost.bind(exchange, bound, this.#key(name, routingKey), args)
  }

  queueUnbind(name: string, exchange: string, routingKey: string, args: Args): void {
    const named = this.#named(name)
    notDefault(exchange)
    // What is not there is not bound.
    if (!this.#vhost.queues.has(named) || !this.#vhost.exchanges.has(exchange)) return
    const bound = this.#vhost.usableQueue(named, this.#connection)
    this.#vhost.unbind(exchange, bound, this.#key(name, routingKey), args)
  }

  /** An empty name stands for the queue that the channel has declared last, and an empty key with it for its name. */
  #key(name: string, routingKey: string): string {
    return name === "" && routingKey === "" ? this.#lastQueue : routingKey
  }

  #named(name: string): string {
    if (name !== "") return withoutLineBreaks(name)
    if (this.#lastQueue === "") throw Failure.notFound("no previously declared queue")
    return this.#lastQueue
  }

  #queue(name: string): Queue {
    return this.#vhost.usableQueue(this.#named(name), this.#connection)
  }

  // --- Publishing ------------------------------------------------------------------------------------------------------

  confirmSelect(): void {
    this.#confirms = true
  }

  publish(
    exchangeName: string,
    routingKey: string,
    { immediate, mandatory }: { readonly mandatory: boolean; readonly immediate: boolean },
    given: Properties,
    body: Buffer
  ): void {
    if (immediate) throw Failure.notImplemented("immediate=true")
    const { maxMessageSize } = this.#broker.behavior
    if (body.length > maxMessageSize) {
      throw Failure.preconditionFailed(
        `message size ${body.length} is larger than configured max size ${maxMessageSize}`
      )
    }
    const exchange = this.#vhost.exchange(exchangeName)
    if (exchange.flags.internal) {
      throw Failure.accessRefused(`cannot publish to internal ${Failure.exchangeIn(this.#vhost.name, exchangeName)}`)
    }
    const properties = this.#withReplyTo(given)
    checkExpiration(properties.expiration)
    const { headers, userId } = properties
    if (userId !== undefined && userId !== this.#user) {
      throw Failure.preconditionFailed(`user_id property set to '${userId}' but authenticated user was '${this.#user}'`)
    }
    const withoutBcc = Table.find(headers, "BCC") === undefined ? headers : Table.remove(headers, "BCC")
    const stored = this.#broker.behavior.sortsHeaders ? Table.sorted(withoutBcc) : withoutBcc
    const message: Message = {
      exchange: exchangeName,
      routingKeys: [routingKey, ...additionalKeys("CC", headers), ...additionalKeys("BCC", headers)],
      properties: stored === headers ? properties : properties.withHeaders(stored),
      body,
      deaths: [],
      firstDeath: undefined,
      lastDeath: undefined,
      failures: 0
    }
    const tag = this.#confirms ? ++this.#published : 0
    const { queues, reply } = this.#vhost.route(exchange, message)
    this.#broker.published({ vhost: this.#vhost.name, message, queues: queues.map(({ name }) => name) })
    const isRouted = queues.length > 0 || (reply !== undefined && this.#broker.behavior.routesReplies)
    if (mandatory && !isRouted) {
      this.#client.returned(312, "NO_ROUTE", {
        exchange: exchangeName,
        routingKey,
        properties: message.properties,
        body
      })
    }
    reply?.deliver(message)
    const isTaken = queues.map((queue) => queue.enqueue(message, this)).every((taken) => taken)
    if (tag > 0) this.#broker.confirm(isTaken, (isAck) => this.#isOpen && this.#client.confirm(tag, isAck))
  }

  #withReplyTo(properties: Properties): Properties {
    if (properties.replyTo !== replyQueue) return properties
    if (this.#reply === undefined) throw Failure.preconditionFailed("fast reply consumer does not exist")
    return properties.withReplyTo(this.#reply.name)
  }

  // --- Consuming -------------------------------------------------------------------------------------------------------

  qos(prefetchSize: number, prefetchCount: number, isGlobal: boolean): void {
    if (prefetchSize !== 0) throw Failure.notImplemented(`prefetch_size!=0 (${prefetchSize})`)
    if (isGlobal && this.#broker.behavior.hasGlobalPrefetch) this.#globalPrefetch = prefetchCount
    else this.#prefetch = prefetchCount
    for (const { queue } of this.#consumers.values()) this.#vhost.wake(queue)
  }

  /** Starts a consumer, and returns its tag. Its deliveries begin at the end of the turn. */
  consume(
    name: string,
    given: string,
    { args, isExclusive, noAck }: { readonly noAck: boolean; readonly isExclusive: boolean; readonly args: Args }
  ): string {
    if (this.#consumers.has(given) || this.#reply?.tag === given) {
      throw Failure.notAllowed(`attempt to reuse consumer tag '${given}'`)
    }
    const tag = given === "" ? this.#broker.nextName("amq.ctag") : given
    if (name === replyQueue) return this.#consumeReplies(tag, noAck)
    const queue = this.#queue(name)
    const resource = Failure.queueIn(this.#vhost.name, queue.name)
    const { priority, timeout } = readConsumerSettings(this.#broker.behavior, resource, queue.settings.isQuorum, args)
    if (priority !== undefined && queue.settings.isSingleActiveConsumer) {
      throw Failure.leftOut("priorities of consumers of a queue with a single active consumer")
    }
    if (queue.settings.isQuorum && this.#globalPrefetch > 0) {
      throw Failure.notImplemented(`${resource} does not support global qos`)
    }
    const { isQuorum, isSingleActiveConsumer } = queue.settings
    const isTaken = queue.consumers.length > 0 || isSingleActiveConsumer
    // Quorum queues do not know exclusive consumers.
    if (!isQuorum && (queue.hasExclusiveConsumer || (isExclusive && isTaken))) {
      throw Failure.accessRefused(`${resource} in exclusive use`)
    }
    const consumer: ChannelConsumer = {
      tag,
      queue,
      isExclusive,
      priority: priority ?? 0,
      timeout,
      noAck,
      timedOut: 0,
      unsettled: 0,
      credit: 0,
      canTake: () => this.#canTake(consumer, prefetch),
      deliver: (queued) => {
        if (!noAck) consumer.unsettled++
        this.#client.deliver(tag, this.#outbound(queue, queued, consumer, noAck))
      },
      cancelled: () => {
        this.#consumers.delete(tag)
        this.#client.cancelled(tag)
      }
    }
    const prefetch = this.#prefetch
    this.#consumers.set(tag, consumer)
    queue.addConsumer(consumer)
    return tag
  }

  #canTake({ credit, noAck, timedOut, unsettled }: ChannelConsumer, prefetch: number): boolean {
    if (noAck) return true
    if (timedOut > 0) return false
    if (prefetch > 0 && unsettled >= prefetch + credit) return false
    return this.#globalPrefetch === 0 || this.#unsettled.size < this.#globalPrefetch
  }

  #outbound(queue: Queue, queued: Queued, consumer: ChannelConsumer | undefined, noAck: boolean): Outbound {
    const deliveryTag = ++this.#deliveries
    if (!noAck) {
      const dueAt = this.#dueAt(queue, consumer)
      this.#unsettled.set(deliveryTag, { queued, queue, consumer, dueAt, isTakenBack: false })
      if (dueAt < this.#checksAt) this.#checkAt(dueAt)
    }
    const { body, exchange, routingKeys } = queued.message
    return {
      deliveryTag,
      redelivered: queued.returns > 0 || (queued.hasWaited && queued.message.failures > 0),
      exchange,
      routingKey: routingKeys[0] ?? "",
      properties: deliveredProperties(this.#broker.behavior, queue, queued, consumer === undefined),
      body
    }
  }

  #consumeReplies(tag: string, noAck: boolean): string {
    if (!noAck) throw Failure.preconditionFailed("reply consumer cannot acknowledge")
    if (this.#reply !== undefined) throw Failure.preconditionFailed("reply consumer already set")
    const name = this.#broker.nextReplyName()
    this.#reply = { tag, name }
    this.#vhost.replies.set(name, {
      deliver: ({ body, exchange, properties, routingKeys: [routingKey = ""] }) => {
        const deliveryTag = ++this.#deliveries
        this.#client.deliver(tag, { deliveryTag, redelivered: false, exchange, routingKey, properties, body })
      }
    })
    return tag
  }

  cancel(tag: string): void {
    if (this.#reply?.tag === tag) return this.#endReplies()
    const consumer = this.#consumers.get(tag)
    if (consumer === undefined) return
    this.#consumers.delete(tag)
    this.#removeConsumer(consumer)
  }

  #removeConsumer(consumer: ChannelConsumer): void {
    const { queue } = consumer
    if (queue.removeConsumer(consumer)) this.#vhost.removeQueue(queue)
  }

  #endReplies(): void {
    if (this.#reply !== undefined) this.#vhost.replies.delete(this.#reply.name)
    this.#reply = undefined
  }

  get(name: string, noAck: boolean): (Outbound & { readonly messageCount: number }) | undefined {
    const queue = this.#queue(name)
    const { isQuorum, isSingleActiveConsumer } = queue.settings
    if (isQuorum && isSingleActiveConsumer) {
      const type = this.#broker.behavior.hasDeathRecords ? '<<"quorum">>' : "quorum"
      throw Failure.resourceLocked(
        `cannot obtain access to locked ${Failure.queueIn(this.#vhost.name, queue.name)}. basic.get operations are not supported by ${type} queues with single active consumer`
      )
    }
    const queued = queue.get(noAck)
    if (queued === undefined) return undefined
    return { ...this.#outbound(queue, queued, undefined, noAck), messageCount: queue.ready }
  }

  // --- Settling --------------------------------------------------------------------------------------------------------

  ack(deliveryTag: number, multiple: boolean): void {
    for (const { queue, queued } of this.#settled(deliveryTag, multiple)) queue.acknowledge(queued)
  }

  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.#return(this.#settled(deliveryTag, multiple), requeue, "nack")
  }

  reject(deliveryTag: number, requeue: boolean): void {
    this.#return(this.#settled(deliveryTag, false), requeue, "reject")
  }

  recover(requeue: boolean): void {
    if (!requeue) throw Failure.notImplemented("requeue=false")
    this.#return(this.#takeAll(), true, "nack")
  }

  #return(settled: ReadonlyArray<Unsettled>, requeue: boolean, how: Return): void {
    for (const { consumer, queue, queued } of inOrderOfReturn(settled)) {
      if (!requeue) queue.discard(queued, how)
      else if (!queue.requeue(queued, how) && consumer !== undefined && this.#broker.behavior.nackCounts) {
        // RabbitMQ 3.10 gives credit twice for a message beyond its delivery limit.
        consumer.credit++
      }
    }
  }

  #settled(deliveryTag: number, multiple: boolean): ReadonlyArray<Unsettled> {
    if (multiple && deliveryTag === 0) return this.#takeAll()
    if (!this.#unsettled.has(deliveryTag)) {
      throw Failure.preconditionFailed(`unknown delivery tag ${deliveryTag}`)
    }
    if (!multiple) return this.#takeThese([deliveryTag])
    const tags: Array<number> = []
    for (const tag of this.#unsettled.keys()) if (tag <= deliveryTag) tags.push(tag)
    return this.#takeThese(tags)
  }

  #takeAll(): ReadonlyArray<Unsettled> {
    return this.#takeThese([...this.#unsettled.keys()])
  }

  /** Takes deliveries, and returns those that their queues have not taken back. */
  #takeThese(tags: ReadonlyArray<number>): ReadonlyArray<Unsettled> {
    return tags.map((tag) => this.#take(tag)).filter(({ isTakenBack }) => !isTakenBack)
  }

  #take(tag: number): Unsettled {
    const unsettled = this.#unsettled.get(tag)!
    this.#unsettled.delete(tag)
    const { consumer, isTakenBack, queue } = unsettled
    if (consumer !== undefined && isTakenBack) {
      if (--consumer.timedOut === 0 && queue.consumers.includes(consumer)) queue.resume()
    } else if (consumer !== undefined) {
      consumer.unsettled--
      this.#vhost.wake(queue)
    }
    // Capacity for all consumers of the channel.
    if (this.#globalPrefetch > 0) for (const { queue } of this.#consumers.values()) this.#vhost.wake(queue)
    return unsettled
  }

  // --- The consumer timeout --------------------------------------------------------------------------------------------

  #dueAt(queue: Queue, consumer: ChannelConsumer | undefined): number {
    const now = this.#vhost.timers.now()
    if (this.#broker.behavior.timeoutEnds === "channel") {
      // RabbitMQ checks once per minute, from the opening of the channel on, for what is older than the timeout.
      const minutes = Math.floor((now + defaultTimeout - this.#openedAt) / 60_000) + 1
      return this.#openedAt + minutes * 60_000
    }
    const { consumerTimeout, isQuorum } = queue.settings
    return isQuorum ? now + (consumer?.timeout ?? consumerTimeout ?? defaultTimeout) : Infinity
  }

  #checkAt(dueAt: number): void {
    this.#cancelCheck?.()
    this.#checksAt = dueAt
    this.#cancelCheck = this.#vhost.timers.at(dueAt, () => this.#check())
  }

  /** Looks for deliveries that were not settled in time. */
  #check(): void {
    this.#checksAt = Infinity
    const now = this.#vhost.timers.now()
    const overdue = [...this.#unsettled.values()].filter(({ dueAt, isTakenBack }) => dueAt <= now && !isTakenBack)
    if (overdue.length > 0 && this.#broker.behavior.timeoutEnds === "channel") {
      return this.#client.fail(timedOut(this.#number, defaultTimeout))
    }
    const groups = new Map<ChannelConsumer | Queue, Array<Unsettled>>()
    for (const delivery of overdue) {
      const key = delivery.consumer ?? delivery.queue
      groups.set(key, [...(groups.get(key) ?? []), delivery])
    }
    for (const [{ consumer, queue }, deliveries] of [...groups.values()].map((all) => [all[0]!, all] as const)) {
      for (const delivery of deliveries) {
        delivery.isTakenBack = true
        if (consumer === undefined) continue
        consumer.unsettled--
        consumer.timedOut++
      }
      queue.takeBack(
        consumer,
        deliveries.map(({ queued }) => queued)
      )
      const isConsuming = consumer !== undefined && this.#consumers.get(consumer.tag) === consumer
      if (!isConsuming || !this.#client.acceptsCancels()) return this.#client.fail(timedOut(this.#number, -1))
      // The consumer goes on when its client settles what was taken back, or ends when its client cancels it, too.
      this.#client.cancelled(consumer.tag)
    }
    let next = Infinity
    for (const { dueAt, isTakenBack } of this.#unsettled.values()) if (!isTakenBack) next = Math.min(next, dueAt)
    if (next < Infinity) this.#checkAt(next)
  }

  // --- The end ---------------------------------------------------------------------------------------------------------

  /** The broker cancels the consumers of a queue. */
  cancelConsumersOf(queue: Queue): void {
    for (const consumer of this.#consumers.values()) {
      if (consumer.queue !== queue) continue
      this.cancel(consumer.tag)
      this.#client.cancelled(consumer.tag)
    }
  }

  /** Ends the channel, whoever closes it: its consumers are removed, and its deliveries return to their queues. */
  end(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#cancelCheck?.()
    for (const queue of this.#vhost.queues.values()) queue.forget(this)
    this.#endReplies()
    const consumers = [...this.#consumers.values()]
    this.#consumers.clear()
    for (const { queue, queued } of this.#takeAll()) queue.requeue(queued, "lost")
    for (const consumer of consumers) this.#removeConsumer(consumer)
  }
}

/**
 * RabbitMQ settles by queue, and for each queue by consumer, in the order of their names, after what was taken with
 * `basic.get`.
 */
const inOrderOfReturn = (settled: ReadonlyArray<Unsettled>): ReadonlyArray<Unsettled> => {
  if (settled.length < 2) return settled
  const name = ({ consumer, queue }: Unsettled) => `${queue.name}\0${consumer === undefined ? "" : `\0${consumer.tag}`}`
  const named = settled.map((each) => [name(each), each] as const)
  return named.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)).map(([, each]) => each)
}

/** RabbitMQ's default, in milliseconds. */
const defaultTimeout = 30 * 60_000

const timedOut = (channel: number, millis: number): Failure.Failure =>
  Failure.preconditionFailed(
    `delivery acknowledgement on channel ${channel} timed out. Timeout value used: ${millis} ms. This timeout value can be configured, see consumers doc guide to learn more`
  )

const notDefault = (...exchanges: ReadonlyArray<string>): void => {
  if (exchanges.includes("")) throw Failure.accessRefused("operation not permitted on the default exchange")
}

const withoutLineBreaks = (name: string): string => name.replaceAll(/[\r\n]/g, "")

const checkExpiration = (expiration: string | undefined): void => {
  if (expiration === undefined) return
  const invalid = (problem: string) => Failure.preconditionFailed(`invalid expiration '${expiration}': ${problem}`)
  if (!/^[+-]?\d+$/.test(expiration)) {
    const digits = /^[+-]?\d+/.exec(expiration)?.[0]
    throw invalid(digits === undefined ? "no_integer" : `{leftover_string,"${expiration.slice(digits.length)}"}`)
  }
  const millis = Number(expiration)
  if (millis < 0) throw invalid(`{value_negative,${millis}}`)
  if (millis > 315_360_000_000) throw invalid(`{value_too_large,${millis}}`)
}

/** The keys of the header CC or BCC. */
const additionalKeys = (name: string, headers: Args): ReadonlyArray<string> => {
  const value = Table.find(headers, name)
  const keys = keysOf(value)
  if (keys !== undefined) return keys
  throw Failure.preconditionFailed(`invalid message: {unacceptable_type_in_header,"${name}",${Table.typeName(value!)}}`)
}
