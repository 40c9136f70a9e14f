/**
 * The door for clients in this process: a `DriverConnection` without a socket. What a client sends is kept in order and
 * read in a later turn, as from a socket, so no event is called from inside one of the client's calls. The turns are those
 * of Effect's scheduler: a `TestClock` waits for them.
 */
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"
import type * as Scheduler from "effect/Scheduler"
import type { AmqpConfig } from "../../../model/config.ts"
import type { FieldTable } from "../../../model/message.ts"
import {
  BrokerClose,
  ChannelEnded,
  type ChannelEnd,
  type ChannelEvents,
  ChannelNumbersExhausted,
  type ConnectAttempt,
  type ConnectionEvents,
  type ConsumeDeclaration,
  type DeliveredMessage,
  type DriverChannel,
  type DriverConnection,
  type DroppedMessage,
  type Endpoint,
  type ExchangeDeclaration,
  ProtocolViolation,
  type QueueCounts,
  type QueueDeclaration,
  type ReturnedMessage
} from "../../../internal/driver/driver.ts"
import type { Outgoing } from "../../../internal/wire/properties.ts"
import { propertyListOf } from "../../../internal/wire/propertyList.ts"
import { bytesOfTable } from "../../../internal/wire/tableBytes.ts"
import { causeOf } from "./codec/methods.ts"
import { Failure, leftOut, leftOutOfLogins, preconditionFailed, notImplemented } from "./failure.ts"
import type { Broker } from "./model/broker.ts"
import type { Args, Channel, ChannelClient, Outbound } from "./model/channel.ts"
import { Properties } from "./model/properties.ts"
import { Session, type SessionClient } from "./model/session.ts"
import { readEntries } from "./model/table.ts"
import { decodeProperties } from "./views.ts"

/** As RabbitMQ tunes by default. */
const maxFrameSize = 131_072
const maxChannels = 2047

const entriesOf = (table: FieldTable | undefined): Args =>
  table === undefined ? [] : readEntries(bytesOfTable(table).subarray(4))

const closeOf = ({ code, message, of }: Failure, method: string): BrokerClose => {
  const { classId, methodId } = causeOf(method)
  return new BrokerClose(of, code, message, classId, methodId)
}

const smaller = (ours: number, theirs: number): number => (theirs === 0 ? ours : Math.min(ours, theirs))

const reset = (): Error =>
  Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET", errno: -104, syscall: "read" })

const checkLogin = (broker: Broker, { credentials, tls }: AmqpConfig): void => {
  if (tls !== undefined) throw leftOutOfLogins("TLS")
  if (credentials._tag !== "Plain") throw leftOutOfLogins("logins by a certificate (EXTERNAL)")
  broker.logIn(credentials.username, Redacted.value(credentials.password))
}

/** Opens a connection to the broker, as the driver does. */
export const open =
  (broker: Broker, dispatcher: Scheduler.SchedulerDispatcher) =>
  (
    { config }: Endpoint,
    opened: (connection: DriverConnection) => void,
    failed: (cause: unknown) => void
  ): ConnectAttempt => {
    let isAborted = false
    broker.activity++
    dispatcher.scheduleTask(() => {
      if (isAborted) return failed(new Error("The operation was aborted"))
      if (broker.isRefusing) {
        return failed(
          Object.assign(new Error("connect ECONNREFUSED (the memory broker refuses connections)"), {
            code: "ECONNREFUSED",
            syscall: "connect"
          })
        )
      }
      try {
        checkLogin(broker, config)
      } catch (cause) {
        return failed(cause instanceof Failure ? closeOf(cause, "connection.start-ok") : cause)
      }
      if (!broker.vhosts.has(config.vhost)) {
        return failed(
          closeOf(new Failure("connection", 530, `NOT_ALLOWED - vhost ${config.vhost} not found`), "connection.open")
        )
      }
      opened(new MemoryConnection(broker, dispatcher, config))
    }, 0)
    return {
      first: Buffer.alloc(0),
      address: undefined,
      abort: () => {
        isAborted = true
      }
    }
  }

class MemoryConnection implements DriverConnection, SessionClient {
  readonly product: string
  readonly channelMax: number
  readonly frameMax: number
  readonly heartbeat: number
  readonly maxBodySize: number
  readonly writeBufferSize: number
  readonly session: Session
  readonly broker: Broker
  bytesRead = 0
  isClosing = false
  readonly #dispatcher: Scheduler.SchedulerDispatcher
  readonly #channels = new Map<number, MemoryChannel>()
  readonly #opening = new Set<MemoryChannel>()
  #events: ConnectionEvents | undefined
  /** What the client has sent and the broker has not read. */
  #input: Array<() => void> = []
  /** What the broker has sent while it stalls. */
  #output: Array<() => void> = []
  #putBack: (() => void) | undefined
  #isScheduled = false
  #hasEnded = false

  constructor(broker: Broker, dispatcher: Scheduler.SchedulerDispatcher, config: AmqpConfig) {
    this.broker = broker
    this.#dispatcher = dispatcher
    this.product = `RabbitMQ ${broker.behavior.product}`
    this.channelMax = smaller(maxChannels, config.channelMax)
    this.frameMax = smaller(maxFrameSize, config.frameMax)
    this.heartbeat = Duration.toSeconds(config.heartbeat)
    this.maxBodySize = config.maxInboundMessageBodySize
    this.writeBufferSize = config.writeBufferSize
    const user = config.credentials._tag === "Plain" ? config.credentials.username : "guest"
    this.session = new Session(broker, broker.vhosts.get(config.vhost)!, user, this)
  }

  // --- What the client sends -------------------------------------------------------------------------------------------

  /** Sends something, which the broker reads in a later turn. */
  send(read: () => void): void {
    if (this.#hasEnded) return
    this.broker.activity++
    this.#input.push(read)
    this.#schedule()
  }

  #schedule(): void {
    if (this.#isScheduled || this.#input.length === 0 || this.#events === undefined) return
    this.#isScheduled = true
    this.#dispatcher.scheduleTask(() => this.#read(), 0)
  }

  #read(): void {
    this.#isScheduled = false
    while (!this.#hasEnded && !this.session.isHeld) {
      const input = this.#input
      if (input.length === 0) return
      this.#input = []
      let read = 0
      // During an alarm a publish is put back, and nothing more is read.
      while (read < input.length && !this.#hasEnded && !this.session.isHeld) this.broker.run(input[read++]!)
      const again = this.#putBack === undefined ? [] : [this.#putBack]
      this.#putBack = undefined
      if (again.length > 0 || read < input.length) this.#input = [...again, ...input.slice(read), ...this.#input]
    }
  }

  /** What is read now is read again, before all others, when the connection is no longer blocked. */
  putBack(read: () => void): void {
    this.#putBack = read
  }

  heldChanged(): void {
    if (this.broker.isStalled) return
    for (const event of this.#output.splice(0)) event()
    if (!this.session.isHeld) this.#schedule()
  }

  /** Sends something to the client. */
  emit(event: () => void): void {
    if (this.#hasEnded) return
    this.bytesRead++
    this.broker.activity++
    if (this.broker.isStalled) this.#output.push(event)
    else event()
  }

  // --- Events of the connection ----------------------------------------------------------------------------------------

  watch(events: ConnectionEvents): void {
    this.#events = events
    this.#schedule()
  }

  blocked(reason: string): void {
    this.emit(() => this.#events?.blocked(reason))
  }

  unblocked(): void {
    this.emit(() => this.#events?.unblocked())
  }

  cut(): void {
    this.#end(reset())
  }

  /** The broker closes the connection, because of a method or by itself. */
  closeFor(failure: Failure, method: string): void {
    this.session.end()
    this.emit(() => this.#end(closeOf(failure, method)))
  }

  close(failure?: Failure): void {
    if (failure !== undefined) return this.closeFor(failure, "")
    if (this.#hasEnded || this.isClosing) return
    this.isClosing = true
    this.send(() => {
      this.session.end()
      this.emit(() => this.#end(undefined))
    })
  }

  destroy(cause: Error): void {
    this.#events = undefined
    this.#end(cause)
  }

  #end(cause: unknown): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#input = []
    this.#output = []
    this.broker.run(() => this.session.end())
    this.#events?.ended(this.isClosing ? undefined : cause)
    for (const channel of [...this.#opening, ...this.#channels.values()]) channel.connectionEnded()
  }

  updateSecret(): void {
    this.send(() => this.emit(() => this.#events?.secretUpdated()))
  }

  // --- Channels --------------------------------------------------------------------------------------------------------

  openChannel(events: ChannelEvents): DriverChannel {
    const channel = new MemoryChannel(this, events)
    this.#opening.add(channel)
    if (this.#hasEnded || this.isClosing) {
      this.#dispatcher.scheduleTask(() => channel.connectionEnded(), 0)
      return channel
    }
    this.send(() => {
      const number = this.#freeNumber()
      if (number === undefined) {
        this.#opening.delete(channel)
        return this.emit(() =>
          events.notOpened(
            new ChannelNumbersExhausted(`all channels of this connection are in use (channelMax ${this.channelMax})`)
          )
        )
      }
      this.#channels.set(number, channel)
      const opened = this.session.openChannel(number, channel)
      return this.emit(() => {
        this.#opening.delete(channel)
        channel.opened(number, opened)
      })
    })
    return channel
  }

  #freeNumber(): number | undefined {
    for (let number = 1; number <= this.channelMax; number++) if (!this.#channels.has(number)) return number
    return undefined
  }

  channelGone(channel: MemoryChannel): void {
    this.#opening.delete(channel)
    if (this.#channels.get(channel.number) === channel) this.#channels.delete(channel.number)
  }
}

const channelEnded = () => new ChannelEnded("the channel is closed")

type State = "opening" | "open" | "closing" | "closed"

class MemoryChannel implements DriverChannel, ChannelClient {
  number = 0
  readonly #connection: MemoryConnection
  readonly #events: ChannelEvents
  #channel: Channel | undefined
  #state: State = "opening"
  #isCloseRequested = false
  /** Whether the broker has closed the channel, or has read the client's close. */
  #isClosedThere = false
  #isGone = false
  /** The requests that wait for an answer, in their order. */
  readonly #requests = new Set<(cause: unknown) => void>()
  /** The size of what is sent and not read, in bytes. */
  #unread = 0
  #isFull = false

  constructor(connection: MemoryConnection, events: ChannelEvents) {
    this.#connection = connection
    this.#events = events
  }

  opened(number: number, channel: Channel): void {
    this.number = number
    this.#channel = channel
    if (this.#state !== "opening") return
    this.#state = "open"
    this.#events.opened()
    if (this.#isCloseRequested) this.#close()
  }

  // --- Requests --------------------------------------------------------------------------------------------------------

  get #isClosed(): boolean {
    return this.#state !== "open" || this.#connection.isClosing
  }

  /** Runs a method at the broker, unless the channel has ended meanwhile. */
  #run<A>(method: string, run: (channel: Channel) => A, done: (value: A) => void): void {
    this.#connection.send(() => this.#process(method, run, done))
  }

  #process<A>(method: string, run: (channel: Channel) => A, done: (value: A) => void): void {
    if (this.#isClosedThere) return
    let value: A
    try {
      value = run(this.#channel!)
    } catch (cause) {
      if (!(cause instanceof Failure)) throw cause
      return this.#failed(cause, method)
    }
    done(value)
  }

  #call<A>(method: string, run: (channel: Channel) => A): Promise<A> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) throw channelEnded()
      this.#requests.add(reject)
      this.#run(method, run, (value) =>
        this.#connection.emit(() => {
          this.#requests.delete(reject)
          resolve(value)
        })
      )
    })
  }

  #send(method: string, run: (channel: Channel) => void): void {
    if (this.#isClosed) throw channelEnded()
    this.#run(method, run, () => {})
  }

  /** The broker closes the channel or the connection, because of a method. */
  #failed(failure: Failure, method: string): void {
    this.#isClosedThere = true
    if (failure.of === "connection") return this.#connection.closeFor(failure, method)
    this.#connection.session.closeChannel(this.number)
    const close = closeOf(failure, method)
    this.#connection.emit(() => {
      this.#end(close)
      this.gone()
    })
  }

  // --- Topology --------------------------------------------------------------------------------------------------------

  exchangeDeclare(exchange: string, type: string, options: ExchangeDeclaration): Promise<void> {
    const { autoDelete = false, durable = true, internal = false } = options
    const args = entriesOf(options.arguments)
    return this.#call("exchange.declare", (channel) =>
      channel.exchangeDeclare(exchange, type, { autoDelete, durable, internal }, args)
    )
  }

  exchangeDeclarePassive(exchange: string): Promise<void> {
    return this.#call("exchange.declare", (channel) => channel.exchangeDeclarePassive(exchange))
  }

  exchangeDelete(exchange: string, { ifUnused }: { readonly ifUnused: boolean }): Promise<void> {
    return this.#call("exchange.delete", (channel) => channel.exchangeDelete(exchange, ifUnused))
  }

  exchangeBind(destination: string, source: string, routingKey: string, table: FieldTable): Promise<void> {
    const args = entriesOf(table)
    return this.#call("exchange.bind", (channel) => channel.exchangeBind(destination, source, routingKey, args))
  }

  exchangeUnbind(destination: string, source: string, routingKey: string, table: FieldTable): Promise<void> {
    const args = entriesOf(table)
    return this.#call("exchange.unbind", (channel) => channel.exchangeUnbind(destination, source, routingKey, args))
  }

  queueDeclare(queue: string, options: QueueDeclaration): Promise<QueueCounts> {
    const { autoDelete = false, durable = true, exclusive = false } = options
    const args = entriesOf(options.arguments)
    return this.#call("queue.declare", (channel) =>
      channel.queueDeclare(queue, { autoDelete, durable, exclusive }, args)
    )
  }

  queueDeclarePassive(queue: string): Promise<QueueCounts> {
    return this.#call("queue.declare", (channel) => channel.queueDeclarePassive(queue))
  }

  queueDelete(
    queue: string,
    { ifEmpty, ifUnused }: { readonly ifEmpty: boolean; readonly ifUnused: boolean }
  ): Promise<number> {
    return this.#call("queue.delete", (channel) => channel.queueDelete(queue, ifUnused, ifEmpty))
  }

  queueBind(queue: string, exchange: string, routingKey: string, table: FieldTable): Promise<void> {
    const args = entriesOf(table)
    return this.#call("queue.bind", (channel) => channel.queueBind(queue, exchange, routingKey, args))
  }

  queueUnbind(queue: string, exchange: string, routingKey: string, table: FieldTable): Promise<void> {
    const args = entriesOf(table)
    return this.#call("queue.unbind", (channel) => channel.queueUnbind(queue, exchange, routingKey, args))
  }

  queuePurge(queue: string): Promise<number> {
    return this.#call("queue.purge", (channel) => channel.queuePurge(queue))
  }

  // --- Messages --------------------------------------------------------------------------------------------------------

  publish(outgoing: Outgoing): boolean {
    const { exchange, mandatory, routingKey } = outgoing
    const properties = new Properties(Buffer.from(propertyListOf(outgoing).buffer))
    // The caller may reuse its bytes.
    const body = Buffer.from(outgoing.content)
    const size = body.length + properties.bytes.length
    if (this.#isClosed) throw channelEnded()
    const read = (): void => {
      if (this.#connection.session.publishes()) return this.#connection.putBack(read)
      const publish = (channel: Channel) => {
        this.#unread -= size
        channel.publish(exchange, routingKey, { mandatory, immediate: false }, properties, body)
        this.#drain()
      }
      return this.#process("basic.publish", publish, () => {})
    }
    this.#connection.send(read)
    this.#unread += size
    this.#isFull ||= this.#unread > this.#connection.writeBufferSize
    return !this.#isFull
  }

  #drain(): void {
    if (!this.#isFull || this.#unread > this.#connection.writeBufferSize) return
    this.#isFull = false
    this.#events.drained()
  }

  ack(deliveryTag: number, multiple: boolean): void {
    this.#send("basic.ack", (channel) => channel.ack(deliveryTag, multiple))
  }

  ackAmong(_unsettled: ReadonlySet<number>, deliveryTag: number): void {
    this.ack(deliveryTag, false)
  }

  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.#send("basic.nack", (channel) => channel.nack(deliveryTag, multiple, requeue))
  }

  reject(deliveryTag: number, requeue: boolean): void {
    this.#send("basic.reject", (channel) => channel.reject(deliveryTag, requeue))
  }

  get(queue: string, noAck: boolean): Promise<DeliveredMessage | undefined> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) throw channelEnded()
      this.#requests.add(reject)
      this.#run(
        "basic.get",
        (channel) => channel.get(queue, noAck),
        (got) =>
          this.#connection.emit(() => {
            this.#requests.delete(reject)
            if (got === undefined) return resolve(undefined)
            return this.#receive("", got.messageCount, got, resolve, (message) => ({
              method: "basic.get",
              message,
              size: got.body.length,
              queue,
              noAck,
              fail: reject
            }))
          })
      )
    })
  }

  consume(queue: string, consumerTag: string, options: ConsumeDeclaration): Promise<void> {
    const args = entriesOf(options.arguments)
    const { exclusive: isExclusive, noAck } = options
    return this.#call("basic.consume", (channel) => {
      channel.consume(queue, consumerTag, { noAck, isExclusive, args })
    })
  }

  cancel(consumerTag: string): Promise<void> {
    return this.#call("basic.cancel", (channel) => channel.cancel(consumerTag))
  }

  qos(prefetchCount: number, isGlobal: boolean): Promise<void> {
    return this.#call("basic.qos", (channel) => channel.qos(0, prefetchCount, isGlobal))
  }

  recover(): Promise<void> {
    return this.#call("basic.recover", (channel) => channel.recover(true))
  }

  flow(active: boolean): Promise<boolean> {
    return this.#call("channel.flow", () => {
      if (!active) throw notImplemented("active=false")
      return true
    })
  }

  select(mode: "confirm" | "transaction"): Promise<void> {
    if (mode === "confirm") return this.#call("confirm.select", (channel) => channel.confirmSelect())
    return this.#call("tx.select", () => {
      throw leftOut("transactions")
    })
  }

  commit(): Promise<void> {
    return this.#notTransactional("tx.commit")
  }

  rollback(): Promise<void> {
    return this.#notTransactional("tx.rollback")
  }

  #notTransactional(method: string): Promise<void> {
    return this.#call(method, () => {
      throw preconditionFailed("channel is not transactional")
    })
  }

  // --- What the broker sends -------------------------------------------------------------------------------------------

  #emit(event: () => void): void {
    this.#connection.emit(() => {
      if (this.#state === "open" || this.#state === "closing") event()
    })
  }

  deliver(consumerTag: string, outbound: Outbound): void {
    this.#emit(() =>
      this.#receive(
        consumerTag,
        undefined,
        outbound,
        (message) => this.#events.delivered(message),
        (message) => ({ method: "basic.deliver", message, size: outbound.body.length })
      )
    )
  }

  #receive(
    consumerTag: string,
    messageCount: number | undefined,
    { body, deliveryTag, exchange, properties, redelivered, routingKey }: Outbound,
    taken: (message: DeliveredMessage) => void,
    dropped: (message: Omit<DeliveredMessage, "content">) => DroppedMessage
  ): void {
    const { fields, problem } = decodeProperties(properties, body.length)
    const message = { consumerTag, deliveryTag, redelivered, exchange, routingKey, messageCount, properties: fields }
    if (problem === undefined && body.length <= this.#connection.maxBodySize) taken({ ...message, content: body })
    else this.#drop(dropped(message), problem)
  }

  returned(
    replyCode: number,
    replyText: string,
    { body, exchange, properties, routingKey }: Omit<Outbound, "deliveryTag" | "redelivered">
  ): void {
    this.#emit(() => {
      const { fields, problem } = decodeProperties(properties, body.length)
      const message: Omit<ReturnedMessage, "content"> = {
        replyCode,
        replyText,
        exchange,
        routingKey,
        properties: fields
      }
      if (problem === undefined && body.length <= this.#connection.maxBodySize) {
        return this.#events.returned({ ...message, content: body })
      }
      return this.#drop({ method: "basic.return", message, size: body.length }, problem)
    })
  }

  #drop(dropped: DroppedMessage, problem: Error | undefined): void {
    const isDone = problem === undefined ? this.#events.oversized(dropped) : this.#events.undecodable(dropped, problem)
    if (isDone) return
    const violation =
      problem === undefined
        ? new ProtocolViolation(
            `CONTENT_TOO_LARGE - expected a body of at most ${this.#connection.maxBodySize} bytes (maxInboundMessageBodySize), got ${dropped.size}`,
            311
          )
        : new ProtocolViolation(problem.message)
    if (dropped.method === "basic.get") dropped.fail(violation)
    this.#end(violation)
    this.#close()
  }

  confirm(deliveryTag: number, isAck: boolean): void {
    this.#emit(() => this.#events.confirmed(deliveryTag, false, isAck))
  }

  cancelled(consumerTag: string): void {
    this.#emit(() => this.#events.cancelled(consumerTag))
  }

  readonly acceptsCancels = (): boolean => true

  fail(failure: Failure): void {
    this.#failed(failure, "")
  }

  // --- The end ---------------------------------------------------------------------------------------------------------

  close(): void {
    this.#isCloseRequested = true
    if (this.#state === "open") this.#close()
  }

  /** Closes the channel after everything that was sent before. */
  #close(): void {
    this.#connection.send(() => {
      if (this.#isClosedThere) return
      this.#isClosedThere = true
      this.#connection.session.closeChannel(this.number)
      this.#connection.emit(() => this.gone())
    })
    this.#state = "closing"
    this.#rejectAll()
  }

  connectionEnded(): void {
    this.#end(undefined)
    this.gone()
  }

  /** The channel has ended for this reason. The request that is the cause, or the first one, fails with it. */
  #end(end: ChannelEnd | undefined): void {
    if (this.#state === "closed") return
    const wasClosing = this.#state === "closing"
    this.#state = "closed"
    const [first] = this.#requests
    if (end !== undefined) first?.(end)
    this.#rejectAll()
    if (!wasClosing) this.#events.closed(end)
  }

  #rejectAll(): void {
    for (const reject of this.#requests) reject(channelEnded())
    this.#requests.clear()
  }

  gone(): void {
    if (this.#isGone) return
    this.#isGone = true
    this.#state = "closed"
    this.#connection.channelGone(this)
    this.#events.gone()
  }
}
