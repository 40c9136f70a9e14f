/**
 * One channel of a connection, shared with amqplib. Methods that have a reply go through amqplib where it declares
 * them; this module writes and reads all others.
 * Hazards of amqplib 2.3 that this module handles:
 * - amqplib writes a method in a later turn than the call. So a method waits until everything written before it has
 *   been passed to the socket, and everything written after it waits for its reply: a channel sends in the order of the
 *   calls.
 * - A close that overtakes its open ends the whole connection (504). A channel that is closed while it opens is closed
 *   once it has opened.
 * - Frames after a `channel.close` or `channel.close-ok` end the connection too (504). Nothing is written once either
 *   is due.
 * - amqplib has no function for `confirm.select`, `tx.*` and `channel.flow`, and `basic.get` delivers a message: this
 *   module sends these methods itself.
 * - amqplib's promises never settle when the peer does not answer. Ours reject when the channel ends, whatever
 *   amqplib's promises do.
 * - An `error` event without a listener takes the connection down.
 */
import type { FieldTable } from "../../model/message.ts"
import type { HeaderFrame } from "../wire/contentHeader.ts"
import type { Outgoing } from "../wire/properties.ts"
import {
  basicAck,
  basicCancel,
  basicCancelOk,
  basicConsumeOk,
  basicDeliver,
  basicGet,
  basicGetEmpty,
  basicGetOk,
  basicNack,
  basicQosOk,
  basicRecoverOk,
  basicReturn,
  channelClose,
  channelCloseOk,
  channelFlow,
  channelFlowOk,
  confirmSelect,
  confirmSelectOk,
  exchangeBindOk,
  exchangeDeclareOk,
  exchangeDeleteOk,
  exchangeUnbindOk,
  methodName,
  operationOf,
  queueBindOk,
  queueDeclareOk,
  queueDeleteOk,
  queuePurgeOk,
  queueUnbindOk,
  txCommit,
  txCommitOk,
  txRollback,
  txRollbackOk,
  txSelect,
  txSelectOk
} from "../wire/protocol.ts"
import { type Channel as Amqplib, numberOf } from "./amqplib.ts"
import { ChannelOutput, type OutputEvents } from "./channelOutput.ts"
import type { ConnectionOutput } from "./connectionOutput.ts"
import type {
  ChannelEnd,
  ChannelEvents,
  ConsumeDeclaration,
  DeliveredMessage,
  DriverChannel,
  ExchangeDeclaration,
  QueueCounts,
  QueueDeclaration,
  DroppedMessage
} from "./contract.ts"
import { ChannelEnded, ProtocolViolation } from "./errors.ts"
import {
  type Delivered,
  type PendingGet,
  ContentAssembler,
  type ContentReceiver,
  type Returned
} from "./contentAssembler.ts"
import {
  type DeliverReader,
  readBit,
  readCancel,
  readClose,
  readGetOk,
  readReturn,
  writeCancelOk,
  writeGet,
  writeMethod
} from "./methods.ts"
import { uint64 } from "./framing.ts"
import { writePublish } from "./publishFrames.ts"
import { SettleFrames } from "./settleFrames.ts"
import type { ChannelFrames, Tap } from "./tap.ts"

/** A method that waits for its reply. */
interface Request {
  /** The position in this channel's output at which the method belongs. */
  readonly mark: number
  readonly operation: string
  readonly reply: number
  readonly reject: (cause: unknown) => void
}

/** A method that amqplib sends, and whose reply amqplib reads. */
interface AmqplibRequest extends Request {
  /** Whether the tap has read the reply. */
  isAnswered: boolean
  readonly send: (channel: Amqplib) => void
}

/** A method that this module has written itself. */
interface OwnRequest extends Request {
  readonly resolve: (bit: boolean) => void
}

/** A `basic.get`, and the caller that gets its message. */
interface OwnGetRequest extends Request, Omit<PendingGet, "resolve"> {
  readonly resolve: (message: Delivered | undefined) => void
}

type State = "opening" | "open" | "closing" | "closed"

const channelEnded = () => new ChannelEnded("the channel is closed")

const ignore = () => {}

/** The part of a connection that its channels use. */
export interface ChannelHost {
  readonly frameMax: number
  readonly maxInboundMessageBodySize: number
  readonly writeBufferSize: number
  readonly tap: Pick<Tap, "attach" | "detach">
  readonly output: ConnectionOutput
  readonly deliverReader: DeliverReader
  /** Whether `close` was called. Channels send no further messages and requests after that. */
  readonly isClosing: boolean
  /** The `close` listener that all amqplib channels share. */
  readonly onChannelClose: (this: Amqplib) => void
  /** amqplib has handed out the channel, so its number is known. */
  channelAttached(channel: Channel): void
  /** The channel is released and its number may be reused. */
  channelGone(channel: Channel): void
}

export class Channel implements DriverChannel, ChannelFrames, OutputEvents, ContentReceiver {
  number = 0
  readonly #connection: ChannelHost
  readonly #events: ChannelEvents
  #amqplib: Amqplib | undefined = undefined
  #output: ChannelOutput | undefined = undefined
  #state: State = "opening"
  /** Whether `close` was called, or the channel was closed because of a violation. */
  #isCloseRequested = false
  /** Whether amqplib was asked to close the channel. */
  #isCloseSent = false
  /** Whether the end was reported with `closed`, or needs no report. */
  #hasEnded = false
  #isGone = false
  #settling: SettleFrames | undefined = undefined
  #incoming: ContentAssembler | undefined = undefined
  /** Methods that amqplib sends, in order. Only the first one can have been sent. */
  #calls: Array<AmqplibRequest> | undefined = undefined
  #isFirstCallSent = false
  /** Replies that amqplib has not read yet. It would never read them once it is asked to close. */
  #unread = 0
  /** Own methods that are sent and not answered, in the order of their replies. */
  #ownRequests: Array<OwnRequest | OwnGetRequest> | undefined = undefined

  constructor(connection: ChannelHost, events: ChannelEvents) {
    this.#connection = connection
    this.#events = events
  }

  // --- Opening ---------------------------------------------------------------------------------------------------------

  /** Attaches amqplib's channel once amqplib has handed it out. */
  attach(amqplib: Amqplib): void {
    const connection = this.#connection
    this.#amqplib = amqplib
    this.number = numberOf(amqplib)
    amqplib.on("error", ignore)
    // All channels share one listener: see `ChannelHost.onChannelClose`.
    amqplib.on("close", connection.onChannelClose)
    this.#state = "open"
    this.#events.opened()
    connection.channelAttached(this)
    connection.tap.attach(this.number, this)
    if (this.#isCloseRequested && this.#state === "open") this.#close()
  }

  // --- Methods that amqplib sends --------------------------------------------------------------------------------------

  #call<A>(operation: string, reply: number, send: (channel: Amqplib) => Promise<A>): Promise<A> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) throw channelEnded()
      const call: AmqplibRequest = {
        isAnswered: false,
        operation,
        reply,
        reject,
        mark: this.#output?.mark() ?? 0,
        send: (channel) => {
          send(channel).then(
            (value) => {
              resolve(value)
              this.#callSettled(call)
            },
            (cause) => {
              // amqplib rejects with other errors when the channel has ended. Callers get `ChannelEnded`.
              reject(this.#state === "open" ? cause : channelEnded())
              this.#callSettled(call)
            }
          )
        }
      }
      const calls = (this.#calls ??= [])
      calls.push(call)
      if (calls.length === 1) this.#nextCall()
    })
  }

  #nextCall(): void {
    const [call] = this.#calls ?? []
    const output = this.#output
    output?.fenceAt(call?.mark ?? Infinity)
    if (call === undefined || output?.isTaken === false) return
    try {
      this.#isFirstCallSent = true
      call.send(this.#amqplib!)
    } catch (cause) {
      // An argument cannot be encoded: nothing was sent.
      this.#callEnded()
      call.reject(cause)
    }
  }

  #callEnded(): void {
    this.#calls!.shift()
    this.#isFirstCallSent = false
    this.#nextCall()
  }

  /** amqplib has read the reply, or will not read one. */
  #callSettled(call: AmqplibRequest): void {
    if (!call.isAnswered) return
    this.#unread--
    if (this.#state === "closing") this.#sendClose()
  }

  outputTaken(): void {
    if (this.#state === "closing") this.#sendClose()
    else this.#nextCall()
  }

  outputDrained(): void {
    this.#events.drained()
  }

  qos(prefetchCount: number, global: boolean): Promise<void> {
    return this.#call("basic.qos", basicQosOk, (channel) => channel.prefetch(prefetchCount, global).then(ignore))
  }

  consume(queue: string, consumerTag: string, options: ConsumeDeclaration): Promise<void> {
    return this.#call("basic.consume", basicConsumeOk, (channel) =>
      // The tap passes no deliveries to amqplib, so this callback never runs.
      channel.consume(queue, ignore, { ...options, consumerTag }).then(ignore)
    )
  }

  cancel(consumerTag: string): Promise<void> {
    return this.#call("basic.cancel", basicCancelOk, (channel) => channel.cancel(consumerTag).then(ignore))
  }

  recover(): Promise<void> {
    return this.#call("basic.recover", basicRecoverOk, (channel) => channel.recover().then(ignore))
  }

  exchangeDeclare(exchange: string, type: string, options: ExchangeDeclaration): Promise<void> {
    return this.#call("exchange.declare", exchangeDeclareOk, (channel) =>
      channel.assertExchange(exchange, type, options).then(ignore)
    )
  }

  exchangeDeclarePassive(exchange: string): Promise<void> {
    return this.#call("exchange.declare", exchangeDeclareOk, (channel) => channel.checkExchange(exchange).then(ignore))
  }

  exchangeDelete(exchange: string, options: { readonly ifUnused: boolean }): Promise<void> {
    return this.#call("exchange.delete", exchangeDeleteOk, (channel) =>
      channel.deleteExchange(exchange, options).then(ignore)
    )
  }

  exchangeBind(destination: string, source: string, routingKey: string, table: FieldTable): Promise<void> {
    return this.#call("exchange.bind", exchangeBindOk, (channel) =>
      channel.bindExchange(destination, source, routingKey, table).then(ignore)
    )
  }

  exchangeUnbind(destination: string, source: string, routingKey: string, table: FieldTable): Promise<void> {
    return this.#call("exchange.unbind", exchangeUnbindOk, (channel) =>
      channel.unbindExchange(destination, source, routingKey, table).then(ignore)
    )
  }

  queueDeclare(queue: string, options: QueueDeclaration): Promise<QueueCounts> {
    return this.#call("queue.declare", queueDeclareOk, (channel) => channel.assertQueue(queue, options))
  }

  queueDeclarePassive(queue: string): Promise<QueueCounts> {
    return this.#call("queue.declare", queueDeclareOk, (channel) => channel.checkQueue(queue))
  }

  queueDelete(queue: string, options: { readonly ifEmpty: boolean; readonly ifUnused: boolean }): Promise<number> {
    return this.#call("queue.delete", queueDeleteOk, (channel) =>
      channel.deleteQueue(queue, options).then(({ messageCount }) => messageCount)
    )
  }

  queueBind(queue: string, exchange: string, routingKey: string, table: FieldTable): Promise<void> {
    return this.#call("queue.bind", queueBindOk, (channel) =>
      channel.bindQueue(queue, exchange, routingKey, table).then(ignore)
    )
  }

  queueUnbind(queue: string, exchange: string, routingKey: string, table: FieldTable): Promise<void> {
    return this.#call("queue.unbind", queueUnbindOk, (channel) =>
      channel.unbindQueue(queue, exchange, routingKey, table).then(ignore)
    )
  }

  queuePurge(queue: string): Promise<number> {
    return this.#call("queue.purge", queuePurgeOk, (channel) =>
      channel.purgeQueue(queue).then(({ messageCount }) => messageCount)
    )
  }

  // --- Methods that this module sends ----------------------------------------------------------------------------------

  /** Whether no more methods and messages are accepted. A close of the connection waits for those before it only. */
  get #isClosed(): boolean {
    return this.#state !== "open" || this.#connection.isClosing
  }

  get #writable(): ChannelOutput {
    if (this.#isClosed) throw channelEnded()
    return this.#output ?? this.#newOutput()
  }

  /** Created on the first write: many channels of a pool are idle. */
  #newOutput(): ChannelOutput {
    const { output, writeBufferSize } = this.#connection
    const mine = new ChannelOutput(writeBufferSize, output, this)
    // Everything written now comes after the method that waits for its reply.
    if (this.#calls !== undefined && this.#calls.length > 0) mine.fenceAt(0)
    return (this.#output = mine)
  }

  get #settle(): SettleFrames {
    const output = this.#writable
    return (this.#settling ??= new SettleFrames(output, this.number))
  }

  publish(outgoing: Outgoing): boolean {
    return writePublish(this.#writable, this.number, this.#connection.frameMax, outgoing)
  }

  ack(deliveryTag: number, multiple: boolean): void {
    this.#settle.ack(deliveryTag, multiple)
  }

  ackAmong(unsettled: ReadonlySet<number>, deliveryTag: number): void {
    this.#settle.ackAmong(unsettled, deliveryTag)
  }

  nack(deliveryTag: number, multiple: boolean, requeue: boolean): void {
    this.#settle.nack(deliveryTag, multiple, requeue)
  }

  reject(deliveryTag: number, requeue: boolean): void {
    this.#settle.reject(deliveryTag, requeue)
  }

  #sendRequest(operation: string, method: number, reply: number, bit?: boolean): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const output = this.#writable
      const mark = output.position
      writeMethod(output, this.number, method, bit)
      ;(this.#ownRequests ??= []).push({ mark, operation, reply, resolve, reject })
    })
  }

  get(queue: string, noAck: boolean): Promise<DeliveredMessage | undefined> {
    return new Promise((resolve, reject) => {
      const output = this.#writable
      const mark = output.position
      writeGet(output, this.number, basicGet, queue, noAck)
      ;(this.#ownRequests ??= []).push({
        mark,
        operation: "basic.get",
        reply: basicGetOk,
        queue,
        noAck,
        resolve,
        reject
      })
    })
  }

  flow(active: boolean): Promise<boolean> {
    return this.#sendRequest("channel.flow", channelFlow, channelFlowOk, active)
  }

  select(mode: "confirm" | "transaction"): Promise<void> {
    return (
      mode === "confirm"
        ? this.#sendRequest("confirm.select", confirmSelect, confirmSelectOk, false)
        : this.#sendRequest("tx.select", txSelect, txSelectOk)
    ).then(ignore)
  }

  commit(): Promise<void> {
    return this.#sendRequest("tx.commit", txCommit, txCommitOk).then(ignore)
  }

  rollback(): Promise<void> {
    return this.#sendRequest("tx.rollback", txRollback, txRollbackOk).then(ignore)
  }

  // --- Receiving -------------------------------------------------------------------------------------------------------

  method(id: number, bytes: Buffer, start: number, end: number): boolean {
    switch (id) {
      case basicDeliver: {
        const message = this.#connection.deliverReader.read(id, bytes, start, end)
        this.#failOn(this.#receiving.begin(message))
        return false
      }
      case basicAck:
      case basicNack:
        if (end - start < 13)
          throw new ProtocolViolation(`Invalid frame: the size of ${methodName(id)} does not match its fields`)
        this.#events.confirmed(uint64(bytes, start + 4), (bytes[start + 12]! & 1) === 1, id === basicAck)
        return false
      case basicReturn:
        this.#failOn(this.#receiving.begin(readReturn(id, bytes, start, end)))
        return false
      case basicGetOk:
      case basicGetEmpty:
        this.#got(id, bytes, start, end)
        return false
      case basicCancel: {
        const { consumerTag, nowait } = readCancel(id, bytes, start, end)
        if (this.#state !== "open") return false
        if (!nowait) writeCancelOk(this.#writable, this.number, basicCancelOk, consumerTag)
        this.#events.cancelled(consumerTag)
        return false
      }
      case channelFlow: {
        const active = readBit(id, bytes, start, end)
        if (this.#state !== "open") return false
        writeMethod(this.#writable, this.number, channelFlowOk, active)
        this.#events.flow(active)
        return false
      }
      case channelFlowOk:
      case confirmSelectOk:
      case txSelectOk:
      case txCommitOk:
      case txRollbackOk:
        this.#answered(id, bytes, start, end)
        return false
      case channelClose:
        return this.#closedByPeer(id, bytes, start, end)
      case channelCloseOk:
        if (!this.#isCloseSent)
          throw new ProtocolViolation(`Unexpected frame: got ${methodName(id)} on a channel that was not closed`)
        this.#connection.tap.detach(this.number)
        return true
      default:
        return this.#replied(id)
    }
  }

  header(header: HeaderFrame): void {
    this.#failOn(this.#receiving.header(header))
  }

  body(bytes: Buffer, start: number, end: number): void {
    this.#failOn(this.#receiving.body(bytes, start, end))
  }

  get #receiving(): ContentAssembler {
    return (this.#incoming ??= new ContentAssembler(this, this.#connection.maxInboundMessageBodySize))
  }

  #failOn(violation: ProtocolViolation | undefined): void {
    if (violation !== undefined) this.#failWith(violation)
  }

  delivered(message: Delivered): void {
    // The broker requeues deliveries on a closing channel.
    if (this.#state === "open") this.#events.delivered(message)
  }

  returned(message: Returned): void {
    if (!this.#hasEnded) this.#events.returned(message)
  }

  oversized(dropped: DroppedMessage): boolean {
    return this.#state !== "open" || this.#events.oversized(dropped)
  }

  undecodable(dropped: DroppedMessage, problem: Error): boolean {
    return this.#state !== "open" || this.#events.undecodable(dropped, problem)
  }

  /** Returns whether amqplib gets the reply. A reply that amqplib does not wait for would end the connection. */
  #replied(id: number): boolean {
    const [call] = this.#calls ?? []
    // The channel is closing, and amqplib ignores everything except `channel.close-ok`.
    if (this.#isCloseSent) return false
    if (call !== undefined && this.#isFirstCallSent && id === call.reply) {
      call.isAnswered = true
      this.#unread++
      this.#callEnded()
      return true
    }
    this.#unexpected(id)
    return false
  }

  #answered(id: number, bytes: Buffer, start: number, end: number): void {
    const first = this.#nextOwnRequest
    if (first === undefined || first.reply !== id || "queue" in first) return this.#unexpected(id)
    this.#ownRequests!.shift()
    first.resolve(id === channelFlowOk && readBit(id, bytes, start, end))
  }

  #got(id: number, bytes: Buffer, start: number, end: number): void {
    const first = this.#nextOwnRequest
    if (first === undefined || !("queue" in first)) return this.#unexpected(id)
    this.#ownRequests!.shift()
    if (id === basicGetEmpty) return first.resolve(undefined)
    this.#failOn(this.#receiving.begin(readGetOk(id, bytes, start, end), first))
  }

  /** The own method that is answered next. A method that waits behind one of amqplib's has not been sent. */
  get #nextOwnRequest(): OwnRequest | OwnGetRequest | undefined {
    const [first] = this.#ownRequests ?? []
    const [call] = this.#calls ?? []
    return first !== undefined && call !== undefined && first.mark >= call.mark ? undefined : first
  }

  #unexpected(id: number): void {
    if (this.#state !== "open") return
    const [first] = this.#sent
    const expected = first === undefined ? "no reply" : methodName(first.reply)
    const violation = new ProtocolViolation(`Unexpected frame: expected ${expected}, got ${methodName(id)}`)
    first?.reject(violation)
    this.#failWith(violation)
  }

  // --- Closing ---------------------------------------------------------------------------------------------------------

  /**
   * The broker closed the channel. This is read before amqplib answers, because nothing may be written after that
   * answer. Returns whether amqplib gets the frame.
   */
  #closedByPeer(id: number, bytes: Buffer, start: number, end: number): boolean {
    const close = readClose(id, bytes, start, end)
    // Both sides have closed the channel: amqplib waits for the answer to its own close.
    if (this.#isCloseSent) return true
    this.#connection.tap.detach(this.number)
    const operation = operationOf(close.classId, close.methodId)
    // When no waiting request is of this operation, a method without a reply, such as a publish, caused the close. The
    // first waiting request then fails with it.
    const isOfAny = this.#sent.some((request) => request.operation === operation)
    this.#end(close, (request) => !isOfAny || request.operation === operation)
    return true
  }

  /** The broker violated the protocol, or sent more than the limit allows: the channel is closed. */
  #failWith(violation: ProtocolViolation): void {
    if (this.#state !== "open" || this.#hasEnded) return
    const get = this.#incoming?.pendingGet
    get?.reject(violation)
    this.#hasEnded = true
    this.#close()
    this.#events.closed(violation)
  }

  /** The channel ended with its connection. */
  connectionEnded(): void {
    this.#end(undefined, () => false)
    this.gone()
  }

  /**
   * `isCause` returns whether the channel was closed because of a request. The first sent request for which it returns
   * `true` rejects with `end`.
   */
  #end(end: ChannelEnd | undefined, isCause: (request: Request) => boolean): void {
    const wasClosing = this.#isCloseRequested
    this.#state = "closed"
    this.#output?.end()
    this.#reject(end, isCause)
    if (this.#hasEnded) return
    this.#hasEnded = true
    if (!wasClosing) this.#events.closed(end)
  }

  /** Requests that are sent and not answered, in the order of their replies. */
  get #sent(): ReadonlyArray<Request> {
    const own = this.#ownRequests ?? []
    const [call] = this.#calls ?? []
    if (call === undefined) return own
    const before = own.filter(({ mark }) => mark < call.mark)
    return this.#isFirstCallSent ? [...before, call] : before
  }

  #reject(end: ChannelEnd | undefined, isCause: (request: Request) => boolean): void {
    const sent = this.#sent
    const all = [...(this.#ownRequests ?? []), ...(this.#calls ?? [])]
    this.#ownRequests = undefined
    this.#calls = undefined
    this.#isFirstCallSent = false
    let cause: unknown = end
    for (const request of sent) {
      if (cause !== undefined && isCause(request)) {
        request.reject(cause)
        cause = undefined
      }
    }
    for (const request of all) request.reject(channelEnded())
    this.#incoming?.pendingGet?.reject(channelEnded())
  }

  close(): void {
    this.#isCloseRequested = true
    if (this.#state === "open") this.#close()
  }

  #close(): void {
    this.#state = "closing"
    this.#isCloseRequested = true
    const isAnswerDue = this.#isFirstCallSent
    this.#reject(undefined, () => false)
    // A close that waits behind an unanswered method may be sent once amqplib has written that method.
    if (isAnswerDue) this.#connection.output.whenAmqplibHasWritten(() => this.#sendClose())
    else this.#sendClose()
  }

  /** Sends `channel.close` once everything written before it has been taken. */
  #sendClose(): void {
    if (this.#state !== "closing" || this.#isCloseSent || this.#unread > 0) return
    const output = this.#output
    output?.fenceAt(Infinity)
    if (output?.isTaken === false) return
    output?.end()
    // The connection's close ends the channel too.
    if (this.#connection.isClosing) return
    this.#isCloseSent = true
    this.#amqplib!.close().catch(ignore)
  }

  /** Releases the channel: amqplib has released its number, or the connection has ended. */
  gone(): void {
    if (this.#isGone) return
    this.#isGone = true
    this.#state = "closed"
    this.#output?.end()
    this.#connection.channelGone(this)
    this.#events.gone()
  }
}
