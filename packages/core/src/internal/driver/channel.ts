/**
 * One channel of a connection, shared with amqplib: methods that have a reply go through amqplib, as far as it declares
 * them, and the rest is written and read here.
 *
 * Hazards of amqplib 2.3 that this module answers:
 * - It writes a method in a later turn than it is called. So a method waits until what was written before it has left, and
 *   what is written behind it waits until it is answered: a channel is one conversation, in the order of the calls.
 * - A close that overtakes its open ends the connection of all (504): a channel that is given up while it opens is closed
 *   when it has opened.
 * - Frames behind a `channel.close` or `channel.close-ok` end it as well (504): nothing is written once either is due.
 * - It has no function for `confirm.select`, `tx.*` and `channel.flow`, and `basic.get` brings a message: these are ours.
 * - A promise of its never settles when the peer says nothing: ours reject when the channel ends, whatever amqplib's do.
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
  nameOf,
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
  Refused
} from "./contract.ts"
import { ChannelEnded, ProtocolViolation } from "./ends.ts"
import { type Delivered, type Get, Incoming, type Receiver, type Returned } from "./incoming.ts"
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

/** What to send and what answers it. */
interface Request {
  /** Where it stands in what this channel has written. */
  readonly mark: number
  readonly operation: string
  readonly reply: number
  readonly reject: (cause: unknown) => void
}

/** A method that amqplib sends. */
interface Call extends Request {
  /** Whether the tap has read its answer. */
  isAnswered: boolean
  readonly send: (channel: Amqplib) => void
}

/** A method that we write ourselves, and have written. */
interface Asked extends Request {
  readonly resolve: (bit: boolean) => void
}

/** `basic.get`, and where its message goes. */
interface AskedGet extends Request, Omit<Get, "resolve"> {
  readonly resolve: (message: Delivered | undefined) => void
}

type State = "opening" | "open" | "closing" | "closed"

const ended = () => new ChannelEnded("the channel is closed")

const ignore = () => {}

/** The connection, as its channels know it. */
export interface ChannelHost {
  readonly frameMax: number
  readonly maxInboundMessageBodySize: number
  readonly writeBufferSize: number
  readonly tap: Pick<Tap, "attach" | "detach">
  readonly output: ConnectionOutput
  readonly deliverReader: DeliverReader
  /** Whether `close` was called: amqplib is asked for nothing more. */
  readonly isClosing: boolean
  /** The listener of all of amqplib's channels. */
  readonly onChannelClose: (this: Amqplib) => void
  /** amqplib has handed the channel out, so it has its number. */
  attached(channel: Channel): void
  /** Nothing is left of the channel. */
  left(channel: Channel): void
}

export class Channel implements DriverChannel, ChannelFrames, OutputEvents, Receiver {
  number = 0
  readonly #connection: ChannelHost
  readonly #events: ChannelEvents
  #amqplib: Amqplib | undefined = undefined
  #output: ChannelOutput | undefined = undefined
  #state: State = "opening"
  /** Whether `close` was called, or it was broken off. */
  #isGivenUp = false
  /** Whether amqplib has been asked to close it. */
  #isCloseSent = false
  /** Whether `closed` was told. */
  #hasEnded = false
  #isGone = false
  #settling: SettleFrames | undefined = undefined
  #incoming: Incoming | undefined = undefined
  /** Methods that amqplib is to send; the first one may be sent. */
  #calls: Array<Call> | undefined = undefined
  #isFirstCallSent = false
  /** Answers that amqplib has not read: it would not once it is asked to close. */
  #unread = 0
  /** Methods that are sent and not answered, in the order of their answers. */
  #asked: Array<Asked | AskedGet> | undefined = undefined

  constructor(connection: ChannelHost, events: ChannelEvents) {
    this.#connection = connection
    this.#events = events
  }

  // --- Its beginning ---------------------------------------------------------------------------------------------------

  /** amqplib has handed it out. */
  attach(amqplib: Amqplib): void {
    const connection = this.#connection
    this.#amqplib = amqplib
    this.number = numberOf(amqplib)
    amqplib.on("error", ignore)
    // One for all channels: see there.
    amqplib.on("close", connection.onChannelClose)
    this.#state = "open"
    this.#events.opened()
    connection.attached(this)
    connection.tap.attach(this.number, this)
    if (this.#isGivenUp && this.#state === "open") this.#close()
  }

  // --- Methods that amqplib sends --------------------------------------------------------------------------------------

  #call<A>(operation: string, reply: number, send: (channel: Amqplib) => Promise<A>): Promise<A> {
    return new Promise((resolve, reject) => {
      if (this.#state !== "open" || this.#connection.isClosing) throw ended()
      const call: Call = {
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
              // When the channel has ended, amqplib says so in other words.
              reject(this.#state === "open" ? cause : ended())
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
      // An argument that cannot be encoded: nothing was sent.
      this.#callEnded()
      call.reject(cause)
    }
  }

  #callEnded(): void {
    this.#calls!.shift()
    this.#isFirstCallSent = false
    this.#nextCall()
  }

  /** amqplib has read the answer, or will read none. */
  #callSettled(call: Call): void {
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
      // amqplib sees no delivery.
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

  // --- Methods that we send --------------------------------------------------------------------------------------------

  get #writable(): ChannelOutput {
    if (this.#state !== "open") throw ended()
    return this.#output ?? this.#newOutput()
  }

  /** Made when something is written: many channels of a pool are idle. */
  #newOutput(): ChannelOutput {
    const { output, writeBufferSize } = this.#connection
    const mine = new ChannelOutput(writeBufferSize, output, this)
    // It stands behind the method that waits for its answer.
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

  #ask(operation: string, method: number, reply: number, bit?: boolean): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const output = this.#writable
      const mark = output.position
      writeMethod(output, this.number, method, bit)
      ;(this.#asked ??= []).push({ mark, operation, reply, resolve, reject })
    })
  }

  get(queue: string, noAck: boolean): Promise<DeliveredMessage | undefined> {
    return new Promise((resolve, reject) => {
      const output = this.#writable
      const mark = output.position
      writeGet(output, this.number, basicGet, queue, noAck)
      ;(this.#asked ??= []).push({ mark, operation: "basic.get", reply: basicGetOk, queue, noAck, resolve, reject })
    })
  }

  flow(active: boolean): Promise<boolean> {
    return this.#ask("channel.flow", channelFlow, channelFlowOk, active)
  }

  select(mode: "confirm" | "transaction"): Promise<void> {
    return (
      mode === "confirm"
        ? this.#ask("confirm.select", confirmSelect, confirmSelectOk, false)
        : this.#ask("tx.select", txSelect, txSelectOk)
    ).then(ignore)
  }

  commit(): Promise<void> {
    return this.#ask("tx.commit", txCommit, txCommitOk).then(ignore)
  }

  rollback(): Promise<void> {
    return this.#ask("tx.rollback", txRollback, txRollbackOk).then(ignore)
  }

  // --- What comes ------------------------------------------------------------------------------------------------------

  method(id: number, bytes: Buffer, start: number, end: number): boolean {
    switch (id) {
      case basicDeliver: {
        const message = this.#connection.deliverReader.read(id, bytes, start, end)
        this.#checked(this.#receiving.announced(message))
        return false
      }
      case basicAck:
      case basicNack:
        if (end - start < 13) throw new ProtocolViolation(`Invalid frame: ${nameOf(id)} ends before its fields do`)
        this.#events.confirmed(uint64(bytes, start + 4), (bytes[start + 12]! & 1) === 1, id === basicAck)
        return false
      case basicReturn:
        this.#checked(this.#receiving.announced(readReturn(id, bytes, start, end)))
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
          throw new ProtocolViolation(`Unexpected frame: ${nameOf(id)} on a channel that was not closed`)
        this.#connection.tap.detach(this.number)
        return true
      default:
        return this.#replied(id)
    }
  }

  header(header: HeaderFrame): void {
    this.#checked(this.#receiving.header(header))
  }

  body(bytes: Buffer, start: number, end: number): void {
    this.#checked(this.#receiving.body(bytes, start, end))
  }

  get #receiving(): Incoming {
    return (this.#incoming ??= new Incoming(this, this.#connection.maxInboundMessageBodySize))
  }

  #checked(violation: ProtocolViolation | undefined): void {
    if (violation !== undefined) this.#broken(violation)
  }

  delivered(message: Delivered): void {
    // What comes on a channel that is closing goes back to its queue.
    if (this.#state === "open") this.#events.delivered(message)
  }

  returned(message: Returned): void {
    if (!this.#hasEnded) this.#events.returned(message)
  }

  oversized(refused: Refused): boolean {
    return this.#state !== "open" || this.#events.oversized(refused)
  }

  undecodable(refused: Refused, problem: Error): boolean {
    return this.#state !== "open" || this.#events.undecodable(refused, problem)
  }

  /** Whether amqplib waits for it. What it does not wait for would end the connection. */
  #replied(id: number): boolean {
    const [call] = this.#calls ?? []
    // It is closing, and amqplib ignores all but the answer to that.
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
    const first = this.#firstAsked
    if (first === undefined || first.reply !== id || "queue" in first) return this.#unexpected(id)
    this.#asked!.shift()
    first.resolve(id === channelFlowOk && readBit(id, bytes, start, end))
  }

  #got(id: number, bytes: Buffer, start: number, end: number): void {
    const first = this.#firstAsked
    if (first === undefined || !("queue" in first)) return this.#unexpected(id)
    this.#asked!.shift()
    if (id === basicGetEmpty) return first.resolve(undefined)
    this.#checked(this.#receiving.announced(readGetOk(id, bytes, start, end), first))
  }

  /** The method of ours that is answered next. One that waits behind a method of amqplib's is not sent. */
  get #firstAsked(): Asked | AskedGet | undefined {
    const [first] = this.#asked ?? []
    const [call] = this.#calls ?? []
    return first !== undefined && call !== undefined && first.mark >= call.mark ? undefined : first
  }

  #unexpected(id: number): void {
    if (this.#state !== "open") return
    const [first] = this.#sent
    const expected = first === undefined ? "none" : nameOf(first.reply)
    const violation = new ProtocolViolation(
      `Unexpected frame: ${nameOf(id)}, where the reply that is expected is ${expected}`
    )
    first?.reject(violation)
    this.#broken(violation)
  }

  // --- Its end ---------------------------------------------------------------------------------------------------------

  /** The broker has closed it: read before amqplib answers, behind which nothing may be written. Whether amqplib gets it. */
  #closedByPeer(id: number, bytes: Buffer, start: number, end: number): boolean {
    const close = readClose(id, bytes, start, end)
    // Both have closed it: amqplib waits for the answer to its own.
    if (this.#isCloseSent) return true
    this.#connection.tap.detach(this.number)
    const operation = operationOf(close.classId, close.methodId)
    // What has no reply, such as a publish, is found out by the request that waits for one.
    const isOfAny = this.#sent.some((request) => request.operation === operation)
    this.#end(close, (request) => !isOfAny || request.operation === operation)
    return true
  }

  /** The broker has sent what it may not, or more than is taken in: the channel is of no use any more. */
  #broken(violation: ProtocolViolation): void {
    if (this.#state !== "open" || this.#hasEnded) return
    const get = this.#incoming?.unanswered
    get?.reject(violation)
    this.#hasEnded = true
    this.#close()
    this.#events.closed(violation)
  }

  /** It ended with its connection. */
  connectionEnded(): void {
    this.#end(undefined, () => false)
    this.gone()
  }

  /** `isCause`: whether the channel was closed for this request, which is the first that was sent, or one like it. */
  #end(end: ChannelEnd | undefined, isCause: (request: Request) => boolean): void {
    const wasClosing = this.#isGivenUp
    this.#state = "closed"
    this.#output?.end()
    this.#reject(end, isCause)
    if (this.#hasEnded) return
    this.#hasEnded = true
    if (!wasClosing) this.#events.closed(end)
  }

  /** Requests that are sent and not answered, in the order of their answers. */
  get #sent(): ReadonlyArray<Request> {
    const asked = this.#asked ?? []
    const [call] = this.#calls ?? []
    if (call === undefined) return asked
    const before = asked.filter(({ mark }) => mark < call.mark)
    return this.#isFirstCallSent ? [...before, call] : before
  }

  #reject(end: ChannelEnd | undefined, isCause: (request: Request) => boolean): void {
    const sent = this.#sent
    const all = [...(this.#asked ?? []), ...(this.#calls ?? [])]
    this.#asked = undefined
    this.#calls = undefined
    this.#isFirstCallSent = false
    let cause: unknown = end
    for (const request of sent) {
      if (cause !== undefined && isCause(request)) {
        request.reject(cause)
        cause = undefined
      }
    }
    for (const request of all) request.reject(ended())
    this.#incoming?.unanswered?.reject(ended())
  }

  close(): void {
    this.#isGivenUp = true
    if (this.#state === "open") this.#close()
  }

  #close(): void {
    this.#state = "closing"
    this.#isGivenUp = true
    const isAnswerDue = this.#isFirstCallSent
    this.#reject(undefined, () => false)
    // What waits behind a method that has no answer may go, once that method has been written.
    if (isAnswerDue) this.#connection.output.whenAmqplibHasWritten(() => this.#sendClose())
    else this.#sendClose()
  }

  /** Sends `channel.close`, when all that was written before it has left. */
  #sendClose(): void {
    if (this.#state !== "closing" || this.#isCloseSent || this.#unread > 0) return
    const output = this.#output
    output?.fenceAt(Infinity)
    if (output?.isTaken === false) return
    output?.end()
    // The connection's own close ends it as well.
    if (this.#connection.isClosing) return
    this.#isCloseSent = true
    this.#amqplib!.close().catch(ignore)
  }

  /** Nothing is left of it: amqplib has let go of its number, or the connection has ended. */
  gone(): void {
    if (this.#isGone) return
    this.#isGone = true
    this.#state = "closed"
    this.#output?.end()
    this.#connection.left(this)
    this.#events.gone()
  }
}
