/**
 * Assembles the incoming message of one channel from the method that announces it, its header, and its body frames.
 * AMQP 0-9-1, section 4.2.6 (https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
 */
import type { DeliveredProperties } from "../../model/message.ts"
import { type HeaderFrame, noHeaders } from "../wire/contentHeader.ts"
import type { DeliveredMessage, DroppedMessage, ReturnedMessage } from "./contract.ts"
import { contentTooLarge, ProtocolViolation } from "./errors.ts"
import { InboundBody } from "./inboundBody.ts"

const nothing: Buffer = Buffer.alloc(0)
const noProperties: DeliveredProperties = Object.freeze({ headers: noHeaders, persistent: false })

/**
 * A message of `basic.deliver` or `basic.get`. It is a class whose fields all exist from the start, because V8 reads
 * such objects fast.
 */
export class Delivered implements DeliveredMessage {
  readonly consumerTag: string
  readonly deliveryTag: number
  readonly redelivered: boolean
  readonly exchange: string
  readonly routingKey: string
  readonly messageCount: number | undefined
  properties = noProperties
  content = nothing

  constructor(
    consumerTag: string,
    deliveryTag: number,
    redelivered: boolean,
    exchange: string,
    routingKey: string,
    messageCount: number | undefined
  ) {
    this.consumerTag = consumerTag
    this.deliveryTag = deliveryTag
    this.redelivered = redelivered
    this.exchange = exchange
    this.routingKey = routingKey
    this.messageCount = messageCount
  }
}

/** A message of `basic.return`. */
export class Returned implements ReturnedMessage {
  readonly replyCode: number
  readonly replyText: string
  readonly exchange: string
  readonly routingKey: string
  properties = noProperties
  content = nothing

  constructor(replyCode: number, replyText: string, exchange: string, routingKey: string) {
    this.replyCode = replyCode
    this.replyText = replyText
    this.exchange = exchange
    this.routingKey = routingKey
  }
}

/** A `basic.get` whose message is arriving. */
export interface PendingGet {
  readonly queue: string
  readonly noAck: boolean
  readonly resolve: (message: Delivered) => void
  readonly reject: (cause: unknown) => void
}

/** Receives complete messages, and decides what happens to those that cannot be completed. */
export interface ContentReceiver {
  readonly delivered: (message: Delivered) => void
  readonly returned: (message: Returned) => void
  readonly oversized: (dropped: DroppedMessage) => boolean
  readonly undecodable: (dropped: DroppedMessage, problem: Error) => boolean
}

/** The expected frame; `dropped`: the rest of a message that is dropped. */
type Step = "method" | "header" | "body" | "dropped"

export class ContentAssembler {
  readonly #receiver: ContentReceiver
  /** Maximum body size, in bytes. */
  readonly #maxBodySize: number
  readonly #body = new InboundBody()
  #step: Step = "method"
  #message: Delivered | Returned | undefined = undefined
  #get: PendingGet | undefined = undefined
  #dropLeft = 0

  constructor(receiver: ContentReceiver, limit: number) {
    this.#receiver = receiver
    this.#maxBodySize = limit
  }

  /** Starts a message that a method has announced; `get` is the `basic.get` that it answers, if it answers one. */
  begin(message: Delivered | Returned, get?: PendingGet): ProtocolViolation | undefined {
    if (this.#step !== "method") {
      return new ProtocolViolation("Unexpected frame: expected the content of a message, got the method of another one")
    }
    this.#step = "header"
    this.#message = message
    this.#get = get
    return undefined
  }

  /** The `basic.get` whose message is arriving, if any. It stays unanswered when the channel ends. */
  get pendingGet(): PendingGet | undefined {
    return this.#get
  }

  header({ fields, size, decodeError: undecodable }: HeaderFrame): ProtocolViolation | undefined {
    const message = this.#message
    if (this.#step !== "header" || message === undefined) {
      return new ProtocolViolation("Unexpected frame: got a content header that no method has announced")
    }
    message.properties = fields
    if (undecodable !== undefined || size > this.#maxBodySize) return this.#drop(message, size, undecodable)
    if (size === 0) {
      this.#complete(message)
      return undefined
    }
    this.#step = "body"
    this.#body.begin(size)
    return undefined
  }

  body(bytes: Buffer, start: number, end: number): ProtocolViolation | undefined {
    if (this.#step === "body") {
      if (this.#body.isExceededBy(end - start)) return excessContent()
      const content = this.#body.take(bytes, start, end)
      if (content === undefined) return undefined
      const message = this.#message!
      message.content = content
      this.#complete(message)
      return undefined
    }
    if (this.#step !== "dropped") {
      return new ProtocolViolation("Unexpected frame: got a content body that no content header has announced")
    }
    this.#dropLeft -= end - start
    if (this.#dropLeft < 0) return excessContent()
    if (this.#dropLeft === 0) this.#step = "method"
    return undefined
  }

  #complete(message: Delivered | Returned): void {
    this.#step = "method"
    this.#message = undefined
    if (!(message instanceof Delivered)) return this.#receiver.returned(message)
    const get = this.#get
    if (get === undefined) return this.#receiver.delivered(message)
    this.#get = undefined
    get.resolve(message)
  }

  #drop(message: Delivered | Returned, size: number, problem: Error | undefined): ProtocolViolation | undefined {
    this.#message = undefined
    this.#step = size === 0 ? "method" : "dropped"
    this.#dropLeft = size
    const get = this.#get
    const dropped: DroppedMessage = !(message instanceof Delivered)
      ? { method: "basic.return", message, size }
      : get === undefined
        ? { method: "basic.deliver", message, size }
        : { method: "basic.get", message, size, queue: get.queue, noAck: get.noAck, fail: get.reject }
    const isDone =
      problem === undefined ? this.#receiver.oversized(dropped) : this.#receiver.undecodable(dropped, problem)
    if (isDone) {
      this.#get = undefined
      return undefined
    }
    if (problem !== undefined) return new ProtocolViolation(problem.message)
    return new ProtocolViolation(
      `CONTENT_TOO_LARGE - expected a body of at most ${this.#maxBodySize} bytes (maxInboundMessageBodySize), got ${size}`,
      contentTooLarge
    )
  }
}

const excessContent = () => new ProtocolViolation("Unexpected frame: the body is larger than its header announced")
