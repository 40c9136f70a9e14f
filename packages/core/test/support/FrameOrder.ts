/**
 * Checks the frames that one client sends against AMQP 0-9-1 and the client's earlier frames, whatever a broker makes
 * of them: a channel is used from its `channel.open` until its `channel.close` or `channel.close-ok`, a content is
 * complete before the next method of its channel, and nothing follows the end of the connection.
 *
 * AMQP 0-9-1, sections 4.2.2 to 4.2.6 (https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
 */
import {
  FRAME_BODY,
  FRAME_END,
  FRAME_HEADER,
  FRAME_HEARTBEAT,
  FRAME_METHOD,
  FRAME_OVERHEAD,
  PROTOCOL_HEADER
} from "./frames.ts"
import { decodeMethod } from "../../src/testing/internal/memory/codec/methodCodec.ts"
import type { ClientMethod } from "../../src/testing/internal/memory/codec/methods.ts"

/** A frame that a client has sent. */
export interface SentFrame {
  readonly channel: number
  readonly name: ClientMethod | "header" | "body" | "heartbeat"
  /** The size of its payload in bytes. */
  readonly size: number
}

interface Channel {
  /** `closing`: the client has sent `channel.close`, and the broker has not answered. */
  state: "open" | "closing" | "closed"
  /** Whether the broker has sent `channel.close`, and the client has not answered. */
  isAnswerDue: boolean
}

/** The bytes that are still missing from the content of a `basic.publish`. */
interface Content {
  left: number | "unknown"
}

const prefix = FRAME_OVERHEAD - 1

export class FrameOrder {
  readonly frames: Array<SentFrame> = []
  readonly problems: Array<string> = []
  /** The largest negotiated frame; 0 means no limit. */
  frameMax = 0
  /** Called after each frame. */
  onFrame: ((frame: SentFrame) => void) | undefined = undefined
  #rest: Buffer = Buffer.alloc(0)
  #isGreeted = false
  #isBroken = false
  /** The client's method that has ended the connection. */
  #ended: "connection.close" | "connection.close-ok" | undefined = undefined
  readonly #channels = new Map<number, Channel>()
  readonly #contents = new Map<number, Content>()

  /** Takes bytes, in pieces of any size. */
  take(bytes: Buffer): void {
    if (this.#isBroken) return
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes])
    if (!this.#isGreeted) {
      if (this.#rest.length < PROTOCOL_HEADER.length) return
      this.#isGreeted = true
      this.#rest = this.#rest.subarray(PROTOCOL_HEADER.length)
    }
    while (!this.#isBroken && this.#rest.length >= prefix) {
      const end = prefix + this.#rest.readUInt32BE(3)
      if (this.#rest.length <= end) return
      this.#frame(this.#rest.readUInt8(0), this.#rest.readUInt16BE(1), this.#rest.subarray(prefix, end))
      if (this.#rest[end] !== FRAME_END) this.#broken("a frame without its end")
      this.#rest = this.#rest.subarray(end + 1)
    }
  }

  /** The names of the frames of one channel. A body counts once, in however many frames it was sent. */
  namesOf(channel: number): ReadonlyArray<SentFrame["name"]> {
    return this.frames
      .filter((frame) => frame.channel === channel)
      .map(({ name }) => name)
      .filter((name, i, all) => name !== "body" || all[i - 1] !== "body")
  }

  #problem(problem: string): void {
    this.problems.push(`${problem} (frame ${this.frames.length})`)
  }

  /** Later frames are meaningless. */
  #broken(problem: string): void {
    this.#isBroken = true
    this.#problem(problem)
  }

  #frame(type: number, channel: number, payload: Buffer): void {
    const name = this.#nameOf(type, payload)
    if (name === undefined) return this.#broken(`a frame of type ${type} that no client sends`)
    const frame = { channel, name, size: payload.length }
    this.frames.push(frame)
    if (this.frameMax > 0 && payload.length + FRAME_OVERHEAD > this.frameMax) {
      this.#problem(`${name} of ${payload.length + FRAME_OVERHEAD} bytes, where frame-max is ${this.frameMax}`)
    }
    // Both sides may close the connection at the same time.
    if (this.#ended !== undefined && !(this.#ended === "connection.close" && name === "connection.close-ok")) {
      this.#problem(`${name} on channel ${channel} behind ${this.#ended}`)
    }
    if (name === "heartbeat") {
      if (channel !== 0 || payload.length > 0) this.#problem("a heartbeat with a channel or a payload")
    } else if (name === "header") this.#header(channel, payload)
    else if (name === "body") this.#body(channel, payload)
    else if (name.startsWith("connection.")) this.#onConnection(name, channel)
    else this.#onChannel(name, channel)
    this.onFrame?.(frame)
  }

  #nameOf(type: number, payload: Buffer): SentFrame["name"] | undefined {
    switch (type) {
      case FRAME_METHOD:
        try {
          return decodeMethod(payload).method
        } catch {
          return undefined
        }
      case FRAME_HEADER:
        return "header"
      case FRAME_BODY:
        return "body"
      case FRAME_HEARTBEAT:
        return "heartbeat"
      default:
        return undefined
    }
  }

  #onConnection(name: ClientMethod, channel: number): void {
    if (channel !== 0) this.#problem(`${name} on channel ${channel}`)
    if (name === "connection.close" || name === "connection.close-ok") this.#ended = name
  }

  #channel(number: number): Channel {
    const channel = this.#channels.get(number) ?? { state: "closed", isAnswerDue: false }
    this.#channels.set(number, channel)
    return channel
  }

  #onChannel(name: ClientMethod, number: number): void {
    const channel = this.#channel(number)
    const { isAnswerDue, state } = channel
    if (number === 0) this.#problem(`${name} on channel 0`)
    if (name === "channel.close-ok") {
      if (!isAnswerDue) this.#problem(`channel.close-ok on channel ${number}, which the broker has not closed`)
      channel.isAnswerDue = false
      // The broker reads no content of a channel that it has closed: its rest need not arrive.
      this.#contents.delete(number)
      if (state === "open") channel.state = "closed"
      return
    }
    if (this.#contents.has(number)) this.#problem(`${name} on channel ${number} where content is to come`)
    if (name === "channel.open") {
      if (state !== "closed") this.#problem(`channel.open on channel ${number}, which is ${state}`)
      if (isAnswerDue) this.#problem(`channel.open on channel ${number}, whose close is not answered`)
      channel.state = "open"
      return
    }
    if (state !== "open") this.#problem(`${name} on channel ${number}, which is ${state}`)
    if (name === "channel.close") channel.state = "closing"
    if (name === "basic.publish") this.#contents.set(number, { left: "unknown" })
  }

  /** The broker has sent `channel.close` or its answer. */
  brokerSent(number: number, method: "channel.close" | "channel.close-ok"): void {
    const channel = this.#channel(number)
    if (method === "channel.close") channel.isAnswerDue = true
    else if (channel.state === "closing") channel.state = "closed"
  }

  #header(channel: number, payload: Buffer): void {
    const content = this.#contents.get(channel)
    if (content?.left !== "unknown")
      return this.#problem(`a header on channel ${channel} that no publish has announced`)
    content.left = Number(payload.readBigUInt64BE(4))
    if (content.left === 0) this.#contents.delete(channel)
  }

  #body(channel: number, { length }: Buffer): void {
    const content = this.#contents.get(channel)
    if (content === undefined || content.left === "unknown") {
      return this.#problem(`a body on channel ${channel} that no header has announced`)
    }
    if (length === 0) this.#problem(`an empty body frame on channel ${channel}`)
    content.left -= length
    if (content.left < 0) this.#problem(`more body on channel ${channel} than its header has announced`)
    if (content.left <= 0) this.#contents.delete(channel)
  }
}
