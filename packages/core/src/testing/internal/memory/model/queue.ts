/**
 * One queue, classic or quorum: its messages, its consumers, and what it does with messages that expire, do not fit, or
 * come back.
 */
import type { Behavior } from "../version.ts"
import type { Timers } from "../timers.ts"
import { Deque } from "./deque.ts"
import type { DeathReason, Message } from "./message.ts"
import type { QueueFlags, QueueSettings } from "./queueSettings.ts"
import type * as Table from "./table.ts"

/** A message in a queue. */
export interface Queued {
  readonly message: Message
  /** Its place in the order of arrival. */
  place: number
  readonly priority: number
  readonly expiresAt: number | undefined
  /** How often it has come back, for whatever reason. */
  returns: number
  /** How often its delivery has failed, as the delivery limit of a quorum queue counts. RabbitMQ 4 counts in both types. */
  failures: number
  /** Whether it was stored. A classic queue hands a message to a consumer that waits for one without that. */
  hasWaited: boolean
  /** The turn in which it has arrived. In that turn a consumer gets it even if its time to live is zero. */
  readonly turn: number
}

/** Who gets the messages of a queue. */
export interface Consumer {
  readonly tag: string
  readonly queue: Queue
  readonly isExclusive: boolean
  /** Consumers with a higher priority are served first, while they can take more. */
  readonly priority: number
  /** Whether it can take another delivery now. */
  readonly canTake: () => boolean
  readonly deliver: (queued: Queued) => void
  /** The broker has cancelled it. */
  readonly cancelled: () => void
  /** Whether a delivery needs no acknowledgement. */
  readonly noAck: boolean
  /** The deliveries that a quorum queue has taken back for their age, and that the client has not settled since. */
  timedOut: number
}

/** What a queue needs of its virtual host. */
export interface QueueHost {
  readonly behavior: Behavior
  readonly timers: Timers
  /** The number of the turn: what the broker does between two rests. */
  readonly turn: () => number
  /** Routes a dead letter. Returns whether a queue has taken it. */
  readonly deadLetter: (queue: Queue, queued: Queued, reason: DeathReason) => boolean
  /** The queue has work for its consumers. */
  readonly wake: (queue: Queue) => void
  /** The queue is to be deleted, because it is unused. */
  readonly expired: (queue: Queue) => void
}

/** How a delivery is settled without being handled. */
export type Return = "nack" | "reject" | "lost"

/** RabbitMQ tries a dead letter that no queue has taken again after this time, in milliseconds. */
const deadLetterPause = 180_000

export class Queue {
  readonly name: string
  readonly flags: QueueFlags
  readonly args: ReadonlyArray<Table.Entry>
  readonly settings: QueueSettings
  /** The connection that alone may use it. */
  readonly owner: object | undefined
  readonly #host: QueueHost
  readonly #ready: Deque<Queued>
  /** Messages that came back to a quorum queue. They are delivered first. */
  readonly #returned: Deque<Queued>
  /** Deliveries, with the consumer that has got them; `undefined`: it was taken with `basic.get`. */
  readonly #unsettled = new Map<Queued, Consumer | undefined>()
  /** Dead letters that no queue has taken yet. */
  #deadLetters: Array<readonly [queued: Queued, reason: DeathReason]> = []
  #consumers: ReadonlyArray<Consumer> = []
  /** With a single active consumer, the one that is active. */
  #active: Consumer | undefined
  #readyBytes = 0
  #places = 0
  #isRejecting = false
  /** The publishers of a quorum queue, and whether each is refused. */
  readonly #refused = new Map<object, boolean>()
  readonly #priorities = new Set<number>()
  /** Whether a message with a time to live has come. */
  #mayExpire = false
  #hadConsumers = false
  #expiryAt: number | undefined
  #cancelExpiry: (() => void) | undefined
  #cancelUnused: (() => void) | undefined
  isDeleted = false

  constructor(
    host: QueueHost,
    name: string,
    flags: QueueFlags,
    args: ReadonlyArray<Table.Entry>,
    settings: QueueSettings,
    owner: object | undefined
  ) {
    this.#host = host
    this.name = name
    this.flags = flags
    this.args = args
    this.settings = settings
    this.owner = owner
    const byPriority = settings.isQuorum && host.behavior.hasQuorumPriorities
    this.#ready = new Deque<Queued>((a, b) =>
      byPriority && a.priority !== b.priority ? a.priority > b.priority : a.place < b.place
    )
    this.#returned = new Deque<Queued>(() => false)
    this.touch()
  }

  // --- Counts ----------------------------------------------------------------------------------------------------------

  get ready(): number {
    return this.#ready.size + this.#returned.size
  }

  get unsettled(): number {
    return this.#unsettled.size
  }

  /** Ready messages, deliveries, and dead letters that wait. */
  get total(): number {
    return this.ready + this.unsettled + this.#deadLetters.length
  }

  /**
   * The number of consumers as RabbitMQ counts. For a quorum queue these are also the consumers that have ended and hold
   * deliveries, each unsettled `basic.get`, and of those with a single active consumer only the active one.
   */
  get consumerCount(): number {
    if (!this.settings.isQuorum) return this.#consumers.length
    const holders = [...this.#unsettled.values()].map((consumer) => consumer ?? {})
    const { isSingleActiveConsumer } = this.settings
    const running = isSingleActiveConsumer ? this.#consumers.filter((each) => each === this.#active) : this.#consumers
    return new Set<object>([...running, ...holders]).size
  }

  get consumers(): ReadonlyArray<Consumer> {
    return this.#consumers
  }

  /** The ready messages in the order of their delivery. */
  get messages(): ReadonlyArray<Queued> {
    return [...this.#returned.toArray(), ...this.#ready.toArray()]
  }

  // --- Publishing ------------------------------------------------------------------------------------------------------

  /**
   * Takes a message. Returns whether it is confirmed; otherwise the queue is full, and its publisher gets a nack.
   *
   * A quorum queue that is full refuses each publisher until it is less than four fifths full. One that comes later is refused if
   * the queue is still beyond its limit then. Publishers refuse themselves, by what the queue reports, so a dead letter without
   * a publisher is never refused.
   */
  enqueue(message: Message, publisher?: object): boolean {
    const { isQuorum, messageTtl, overflow } = this.settings
    const ttl = minimum(messageTtl, millisOf(message.properties.expiration))
    const queued: Queued = {
      message,
      place: this.#places++,
      priority: Math.min(message.properties.priority ?? 4, 31),
      expiresAt: ttl === undefined ? undefined : this.#host.timers.now() + ttl,
      returns: 0,
      failures: this.#host.behavior.carriesFailures ? message.failures : 0,
      hasWaited: isQuorum,
      turn: this.#host.turn()
    }
    if (overflow !== "drop-head" && (isQuorum ? this.#refuses(publisher) : !this.#fits(message))) {
      if (overflow === "reject-publish-dlx") this.#die(queued, "maxlen")
      return false
    }
    this.#mayExpire ||= ttl !== undefined
    this.#priorities.add(queued.priority)
    if (isQuorum && this.#host.behavior.hasQuorumPriorities) this.#ready.insert(queued)
    else this.#ready.push(queued)
    this.#readyBytes += this.#size(message)
    // A consumer that can take it gets it before the limits are checked.
    this.dispatch()
    queued.hasWaited = true
    this.#limit()
    this.#host.wake(this)
    return true
  }

  #refuses(publisher: object | undefined): boolean {
    if (publisher === undefined) return false
    const known = this.#refused.get(publisher)
    if (known !== undefined) return known
    this.#refused.set(publisher, this.#isFull)
    return this.#isFull
  }

  #setRejecting(isRejecting: boolean): void {
    this.#isRejecting = isRejecting
    for (const publisher of this.#refused.keys()) this.#refused.set(publisher, isRejecting)
  }

  /** The publisher ends. */
  forget(publisher: object): void {
    this.#refused.delete(publisher)
  }

  /** What a message counts of `x-max-length-bytes`. */
  #size({ body, properties }: Message): number {
    const { settings } = this
    return body.length + (settings.isQuorum && this.#host.behavior.countsProperties ? properties.bytes.length : 0)
  }

  #fits(message: Message): boolean {
    const { maxLength = Infinity, maxLengthBytes = Infinity } = this.settings
    return this.ready + 1 <= maxLength && this.#readyBytes + this.#size(message) <= maxLengthBytes
  }

  get #isFull(): boolean {
    const { maxLength = Infinity, maxLengthBytes = Infinity } = this.settings
    const waiting = this.settings.isQuorum ? this.#deadLetters.length : 0
    return this.ready + waiting > maxLength || this.#readyBytes > maxLengthBytes
  }

  #limit(): void {
    if (this.settings.overflow === "drop-head") {
      while (this.#isFull && this.ready > 0) this.#die(this.#take()!, "maxlen")
      return
    }
    if (!this.settings.isQuorum) return
    if (this.#isFull) this.#setRejecting(true)
    else if (this.#isRejecting && this.#isBelowSoftLimit) this.#setRejecting(false)
  }

  /** A quorum queue that was full accepts messages again when it is less than four fifths full. */
  get #isBelowSoftLimit(): boolean {
    const { maxLength = Infinity, maxLengthBytes = Infinity } = this.settings
    return this.ready <= Math.trunc(maxLength * 0.8) && this.#readyBytes <= Math.trunc(maxLengthBytes * 0.8)
  }

  // --- Taking ----------------------------------------------------------------------------------------------------------

  #take(): Queued | undefined {
    const queued = this.#returned.shift() ?? this.#ready.shift()
    if (queued !== undefined) this.#readyBytes -= this.#size(queued.message)
    return queued
  }

  get #first(): Queued | undefined {
    return this.#returned.first ?? this.#ready.first
  }

  /** Takes the first message for `basic.get`. */
  get(noAck: boolean): Queued | undefined {
    this.touch()
    this.#expire()
    const queued = this.#take()
    if (queued !== undefined && !noAck) this.#unsettled.set(queued, undefined)
    // The client also gets the number of messages that are left.
    if (!this.settings.isQuorum) this.#expire()
    this.#host.wake(this)
    return queued
  }

  /** Delivers what the consumers can take, one message each in turn. */
  dispatch(): void {
    const turn = this.#host.turn()
    this.#expire((queued) => queued.turn !== turn)
    while (this.ready > 0) {
      const consumer = this.#nextConsumer()
      if (consumer === undefined) break
      const queued = this.#take()!
      if (!consumer.noAck) this.#unsettled.set(queued, consumer)
      consumer.deliver(queued)
      this.#expire((next) => next.turn !== turn)
    }
  }

  #nextConsumer(): Consumer | undefined {
    if (this.settings.isSingleActiveConsumer) return this.#active?.canTake() === true ? this.#active : undefined
    let next: Consumer | undefined
    for (const consumer of this.#consumers) {
      if ((next === undefined || consumer.priority > next.priority) && consumer.canTake()) next = consumer
    }
    // Those of the same priority take turns.
    if (next !== undefined && this.#consumers.length > 1) {
      this.#consumers = [...this.#consumers.filter((consumer) => consumer !== next), next]
    }
    return next
  }

  // --- Settling --------------------------------------------------------------------------------------------------------

  #settle(queued: Queued): boolean {
    return this.#unsettled.delete(queued)
  }

  acknowledge(queued: Queued): void {
    if (this.#settle(queued)) this.#host.wake(this)
  }

  /** A consumer does not want the message: it becomes a dead letter, or ends here. */
  discard(queued: Queued, how: Return): void {
    if (!this.#settle(queued)) return
    if (how === "reject" && this.#host.behavior.carriesFailures) queued.failures++
    this.#die(queued, "rejected")
    this.#host.wake(this)
  }

  /** The message is delivered again. Returns whether it is: beyond its delivery limit it becomes a dead letter. */
  requeue(queued: Queued, how: Return): boolean {
    if (!this.#settle(queued)) return true
    queued.returns++
    const { deliveryLimit, isQuorum } = this.settings
    const { carriesFailures, nackCounts } = this.#host.behavior
    if ((isQuorum || carriesFailures) && (how !== "nack" || nackCounts)) queued.failures++
    const isBeyond = isQuorum && deliveryLimit !== undefined && queued.failures > deliveryLimit
    if (isBeyond) this.#die(queued, "delivery_limit")
    else {
      if (!isQuorum) this.#ready.insert(queued)
      else if (deliveryLimit === undefined && how !== "lost" && !this.#host.behavior.hasUnlimitedDeliveries) {
        this.#append(queued)
      } else this.#returned.push(queued)
      this.#readyBytes += this.#size(queued.message)
      // A quorum queue delivers what came back before it looks at its limits.
      if (!isQuorum) this.#limit()
    }
    this.#host.wake(this)
    return !isBeyond
  }

  /** Without a delivery limit, a quorum queue of RabbitMQ 3 writes a returned message to its log again, at the end. */
  #append(queued: Queued): void {
    queued.place = this.#places++
    this.#ready.insert(queued)
  }

  /** A quorum queue takes back deliveries that were not settled in time. Their consumer gets no more until it settles them. */
  takeBack(consumer: Consumer | undefined, overdue: ReadonlyArray<Queued>): void {
    for (const queued of overdue) {
      if (!this.#settle(queued)) continue
      queued.returns++
      this.#returned.push(queued)
      this.#readyBytes += this.#size(queued.message)
    }
    if (consumer !== undefined && this.#active === consumer) this.#activate()
    this.#limit()
    this.#host.wake(this)
  }

  /** A consumer has settled all that was taken back from it. */
  resume(): void {
    if (this.#active === undefined || this.#active.timedOut > 0) this.#activate()
    this.#host.wake(this)
  }

  #activate(): void {
    this.#active = this.#consumers.find(({ timedOut }) => timedOut === 0)
  }

  /** Removes all ready messages. */
  purge(): number {
    const count = this.ready
    this.#ready.clear()
    this.#returned.clear()
    this.#readyBytes = 0
    this.#limit()
    return count
  }

  // --- Consumers -------------------------------------------------------------------------------------------------------

  addConsumer(consumer: Consumer): void {
    this.#hadConsumers = true
    this.#consumers = [...this.#consumers, consumer]
    this.#active ??= consumer
    this.#cancelUnused?.()
    this.#cancelUnused = undefined
    this.#host.wake(this)
  }

  /** Removes a consumer. Returns whether the queue is to be deleted with it. */
  removeConsumer(consumer: Consumer): boolean {
    this.#consumers = this.#consumers.filter((other) => other !== consumer)
    if (this.#active === consumer) this.#activate()
    this.#host.wake(this)
    if (this.#consumers.length > 0) return false
    this.touch()
    return this.flags.autoDelete && this.#hadConsumers
  }

  get hasExclusiveConsumer(): boolean {
    return this.#consumers.some(({ isExclusive }) => isExclusive)
  }

  // --- Time ------------------------------------------------------------------------------------------------------------

  /** Starts the time of an unused queue again: it was declared, read, or has lost its last consumer. */
  touch(): void {
    const { expires } = this.settings
    if (expires === undefined || this.#consumers.length > 0 || this.isDeleted) return
    this.#cancelUnused?.()
    this.#cancelUnused = this.#host.timers.at(this.#host.timers.now() + expires, () => this.#host.expired(this))
  }

  /** What has to happen after each turn: deliveries, and the timer of the first message. */
  settle(): void {
    if (this.isDeleted) return
    this.dispatch()
    this.#expire()
    this.#limit()
    this.#setExpiry()
  }

  get #expiresAtEachHead(): boolean {
    return this.settings.isQuorum && this.#host.behavior.expiresAtEachHead
  }

  /** Removes the messages at the head whose time is over. */
  #expire(also: (queued: Queued) => boolean = () => true): void {
    const now = this.#host.timers.now()
    const isOver = (queued: Queued | undefined) =>
      queued?.expiresAt !== undefined && queued.expiresAt <= now && also(queued)
    while (isOver(this.#first)) this.#die(this.#take()!, "expired")
    if (!this.#expiresAtEachHead || !this.#mayExpire) return
    for (const head of this.#heads()) if (isOver(head)) this.#expireFrom(head, isOver)
  }

  /** The first of the messages that came back, and the first one of each priority. */
  #heads(): ReadonlyArray<Queued> {
    const heads = new Map<number, Queued>()
    const ready = this.#priorities.size > 1 ? this.#ready.toArray() : [this.#ready.first]
    for (const queued of ready)
      if (queued !== undefined && !heads.has(queued.priority)) heads.set(queued.priority, queued)
    return [...(this.#returned.first === undefined ? [] : [this.#returned.first]), ...heads.values()]
  }

  /** Removes a message, and those behind it in its priority whose time is over as well. */
  #expireFrom(head: Queued, isOver: (queued: Queued | undefined) => boolean): void {
    const expired: Array<Queued> = []
    if (this.#priorities.size > 1) {
      const ready = this.#ready.clear()
      const isOther = ({ priority }: Queued) => priority !== head.priority
      const end = ready.findIndex((queued) => !isOther(queued) && !isOver(queued))
      ready.forEach((queued, index) => {
        if (isOther(queued) || (end >= 0 && index >= end)) this.#ready.push(queued)
        else expired.push(queued)
      })
    } else while (isOver(this.#ready.first)) expired.push(this.#ready.shift()!)
    for (const queued of expired) {
      this.#readyBytes -= this.#size(queued.message)
      this.#die(queued, "expired")
    }
  }

  #setExpiry(): void {
    const next = this.#expiresAtEachHead && this.#mayExpire ? this.#heads() : [this.#first]
    const times = next.map((queued) => queued?.expiresAt ?? Infinity)
    const earliest = Math.min(...times, Infinity)
    const due = earliest === Infinity ? undefined : earliest
    if (due === undefined || (this.#expiryAt !== undefined && this.#expiryAt <= due)) return
    this.#cancelExpiry?.()
    this.#expiryAt = due
    this.#cancelExpiry = this.#host.timers.at(due, () => {
      this.#expiryAt = undefined
      this.#host.wake(this)
    })
  }

  // --- Dead letters ----------------------------------------------------------------------------------------------------

  #die(queued: Queued, reason: DeathReason): void {
    if (this.settings.deadLetterExchange === undefined) return
    const isTaken = this.#host.deadLetter(this, queued, reason)
    if (isTaken || !this.settings.deadLettersAtLeastOnce) return
    this.#deadLetters.push([queued, reason])
    if (this.#deadLetters.length === 1) this.#retryDeadLetters()
  }

  #retryDeadLetters(): void {
    this.#host.timers.at(this.#host.timers.now() + deadLetterPause, () => {
      if (this.isDeleted) return
      this.#deadLetters = this.#deadLetters.filter(([queued, reason]) => !this.#host.deadLetter(this, queued, reason))
      if (this.#deadLetters.length > 0) this.#retryDeadLetters()
      this.#host.wake(this)
    })
  }

  // --- The end ---------------------------------------------------------------------------------------------------------

  /** Ends the queue: its consumers are cancelled. Returns the number of its ready messages. */
  delete(): number {
    const count = this.ready
    this.isDeleted = true
    this.#cancelExpiry?.()
    this.#cancelUnused?.()
    const consumers = this.#consumers
    this.#consumers = []
    this.#active = undefined
    for (const consumer of consumers) consumer.cancelled()
    this.purge()
    this.#unsettled.clear()
    return count
  }

  /** The broker has restarted: transient messages of a classic queue are gone. */
  restart(): void {
    this.#consumers = []
    this.#active = undefined
    if (this.settings.isQuorum) return
    for (const queued of this.#ready.clear()) {
      if (queued.message.properties.isPersistent) this.#ready.push(queued)
      else this.#readyBytes -= this.#size(queued.message)
    }
  }
}

const minimum = (a: number | undefined, b: number | undefined): number | undefined =>
  a === undefined ? b : b === undefined ? a : Math.min(a, b)

const millisOf = (expiration: string | undefined): number | undefined =>
  expiration === undefined ? undefined : Number(expiration)
