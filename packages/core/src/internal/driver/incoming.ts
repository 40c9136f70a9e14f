/**
 * The message that is on its way in on one channel: a method that announces it, its header, and its body in frames.
 *
 * AMQP 0-9-1, section 4.2.6 (https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
 */
import type { DeliveredProperties } from "../../model/message.ts"
import { type HeaderFrame, noHeaders } from "../wire/contentHeader.ts"
import type { DeliveredMessage, Refused, ReturnedMessage } from "./contract.ts"
import { contentTooLarge, ProtocolViolation } from "./ends.ts"
import { InboundBody } from "./inboundBody.ts"

const nothing: Buffer = Buffer.alloc(0)
const noProperties: DeliveredProperties = Object.freeze({ headers: noHeaders, persistent: false })

/** A message of `basic.deliver` or `basic.get`. A class, and all of its fields always there: V8 reads it fast then. */
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

/** A `basic.get` whose message is on its way. */
export interface Get {
  readonly queue: string
  readonly noAck: boolean
  readonly resolve: (message: Delivered) => void
  readonly reject: (cause: unknown) => void
}

/** Takes what is complete, and decides on what cannot be. */
export interface Receiver {
  readonly delivered: (message: Delivered) => void
  readonly returned: (message: Returned) => void
  readonly oversized: (refused: Refused) => boolean
  readonly undecodable: (refused: Refused, problem: Error) => boolean
}

/** What comes next; `dropped`: the rest of a message that is not taken in. */
type Step = "method" | "header" | "body" | "dropped"

export class Incoming {
  readonly #receiver: Receiver
  /** The largest body that is taken in, in bytes. */
  readonly #limit: number
  readonly #body = new InboundBody()
  #step: Step = "method"
  #message: Delivered | Returned | undefined = undefined
  #get: Get | undefined = undefined
  #dropLeft = 0

  constructor(receiver: Receiver, limit: number) {
    this.#receiver = receiver
    this.#limit = limit
  }

  /** A method has announced a message, for this `basic.get` if it is the answer to one. */
  announced(message: Delivered | Returned, get?: Get): ProtocolViolation | undefined {
    if (this.#step !== "method") {
      return new ProtocolViolation("Unexpected frame: a method of a message where the content of another is to come")
    }
    this.#step = "header"
    this.#message = message
    this.#get = get
    return undefined
  }

  /** Whether the message of a `basic.get` is on its way: it gets no answer when the channel ends. */
  get unanswered(): Get | undefined {
    return this.#get
  }

  header({ fields, size, undecodable }: HeaderFrame): ProtocolViolation | undefined {
    const message = this.#message
    if (this.#step !== "header" || message === undefined) {
      return new ProtocolViolation("Unexpected frame: a content header that no method has announced")
    }
    message.properties = fields
    if (undecodable !== undefined || size > this.#limit) return this.#refuse(message, size, undecodable)
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
      if (this.#body.isExceededBy(end - start)) return tooMuch()
      const content = this.#body.take(bytes, start, end)
      if (content === undefined) return undefined
      const message = this.#message!
      message.content = content
      this.#complete(message)
      return undefined
    }
    if (this.#step !== "dropped") {
      return new ProtocolViolation("Unexpected frame: a content body that no content header has announced")
    }
    this.#dropLeft -= end - start
    if (this.#dropLeft < 0) return tooMuch()
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

  #refuse(message: Delivered | Returned, size: number, problem: Error | undefined): ProtocolViolation | undefined {
    this.#message = undefined
    this.#step = size === 0 ? "method" : "dropped"
    this.#dropLeft = size
    const get = this.#get
    const refused: Refused = !(message instanceof Delivered)
      ? { method: "basic.return", message, size }
      : get === undefined
        ? { method: "basic.deliver", message, size }
        : { method: "basic.get", message, size, queue: get.queue, noAck: get.noAck, fail: get.reject }
    const isDone =
      problem === undefined ? this.#receiver.oversized(refused) : this.#receiver.undecodable(refused, problem)
    if (isDone) {
      this.#get = undefined
      return undefined
    }
    if (problem !== undefined) return new ProtocolViolation(problem.message)
    return new ProtocolViolation(
      `CONTENT_TOO_LARGE - ${size} bytes, maxInboundMessageBodySize is ${this.#limit}`,
      contentTooLarge
    )
  }
}

const tooMuch = () => new ProtocolViolation("Unexpected frame: more content than its header announced")
