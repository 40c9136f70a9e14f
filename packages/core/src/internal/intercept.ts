/**
 * What a channel receives, taken before amqplib sees it.
 *
 * Hazards of amqplib 2.3 that this module answers:
 * - `channel.flow` from the broker crashes the connection, and confirms are matched in an array.
 * - A body is held however large it is, and by more memory than it has bytes.
 * - After an error of its own it sends `channel.close`, and says nothing until that is answered, which may be never.
 */
import type { DeliveredProperties } from "../AmqpMessage.ts"
import type { Channel, Frame } from "./amqplib.ts"
import { InboundBody } from "./inboundBody.ts"
import {
  basicAck,
  basicDeliver,
  basicGetEmpty,
  basicGetOk,
  basicNack,
  basicReturn,
  channelFlow,
  channelFlowOk,
  channelOpenOk,
  classBasic
} from "./protocol.ts"

const contentTooLarge = 311
const unexpectedFrame = 505
const internalError = 541

/** amqplib's way to go from frame to frame of a message: what takes the next one. */
type Step = (frame: Frame) => Step

interface ChannelInternals {
  accept: (frame: Frame) => void
  closeWithError: (id: number | undefined, text: string, code: number, error: Error & { code?: number }) => void
  handleMessage?: Step
  readonly sendImmediately: (method: number, fields: Record<string, unknown>) => void
}

/** A message that is not taken in: its body is larger than may be, or its header cannot be read. */
export interface NotTaken {
  readonly method: "basic.get" | "basic.deliver" | "basic.return"
  /** Of the method that has announced it. */
  readonly fields: Record<string, unknown>
  /** As far as they can be read. */
  readonly properties: DeliveredProperties
  /** Of its body, in bytes. */
  readonly size: number
}

/** The operation that asked for the message. */
export const operations = {
  "basic.get": "basic.get",
  "basic.deliver": "basic.consume",
  "basic.return": "basic.publish"
} as const

/** What a channel is told by the broker unasked. Called from amqplib's own event handlers: must not throw. */
export interface ChannelEvents {
  /** `channel.open` was answered: known here before amqplib's promise, and before what stands behind it. */
  readonly onOpened: () => void
  /** `basic.ack` (or `basic.nack`) of messages published on a confirm channel. */
  readonly onConfirm: (deliveryTag: number, multiple: boolean, acked: boolean) => void
  /** `channel.flow`, answered already. */
  readonly onFlow: (active: boolean) => void
  /** Whether all that had to be done is done: then the body is dropped as it comes. If not, the channel is closed. */
  readonly onOversized: (message: NotTaken) => boolean
  /** The same for a message whose header cannot be read. */
  readonly onUndecodable: (message: NotTaken, problem: Error) => boolean
  /** The oldest `basic.get` is answered. */
  readonly onGot: () => void
  /** The channel is of no use any more: `channel.close` has been sent, and may or may not be answered. */
  readonly onBroken: (error: unknown) => void
}

const nameOf = (id: number | undefined): NotTaken["method"] =>
  id === basicGetOk ? "basic.get" : id === basicReturn ? "basic.return" : "basic.deliver"

/** Drops a body of so many bytes, then goes on with `next`. */
const dropping = (bytes: number, next: Step): Step => {
  let left = bytes
  const drop: Step = ({ content }) => {
    if (content === undefined) throw new Error("Expected content frame after headers")
    left -= content.length
    if (left < 0) throw new Error(`Too much content sent! Expected ${bytes} bytes`)
    return left === 0 ? next : drop
  }
  return drop
}

/**
 * Puts `events` before amqplib's own handling, and takes in no body of more than `limit` bytes. amqplib takes all that off
 * itself when the channel is closing: what still comes then is dropped.
 */
export const intercept = (driver: Channel, limit: number, events: ChannelEvents): void => {
  const channel = driver as unknown as ChannelInternals
  const { accept, closeWithError, handleMessage: betweenMessages } = channel
  const body = new InboundBody()
  let announced: Frame | undefined

  channel.closeWithError = (id, text, code, error) => {
    // amqplib says so only later. What was thrown while a message was handled is no error of the broker's.
    if (code !== internalError) error.code = code
    closeWithError.call(driver, id, text, code, error)
    events.onBroken(error)
  }

  /** Whether the rest of this message is dropped; if not, its channel has to be closed. */
  const drops = (frame: Frame, size: number): boolean => {
    const by = announced
    if (by === undefined || betweenMessages === undefined) return false
    const { undecodable } = frame
    const message: NotTaken = {
      method: nameOf(by.id),
      fields: by.fields,
      properties: frame.fields as unknown as DeliveredProperties,
      size
    }
    const isDone = undecodable === undefined ? events.onOversized(message) : events.onUndecodable(message, undecodable)
    if (isDone) channel.handleMessage = size === 0 ? betweenMessages : dropping(size, betweenMessages)
    return isDone
  }

  const header = (frame: Frame) => {
    const { size = 0, undecodable } = frame
    // Unannounced: amqplib's to refuse.
    if (announced === undefined || (size <= limit && undecodable === undefined)) {
      announced = undefined
      body.begin(size)
      return accept.call(driver, frame)
    }
    const isDropped = drops(frame, size)
    announced = undefined
    if (isDropped) return
    if (undecodable !== undefined) {
      return channel.closeWithError(undefined, "content header cannot be read", unexpectedFrame, undecodable)
    }
    const text = `CONTENT_TOO_LARGE - ${size} bytes, maxInboundMessageBodySize is ${limit}`
    channel.closeWithError(undefined, text, contentTooLarge, new Error(text))
  }

  const content = (frame: Frame, piece: Buffer) => {
    // Unannounced: amqplib's to refuse.
    if (!body.isExpected) return accept.call(driver, frame)
    if (body.isExceededBy(piece.length)) {
      const text = "Unexpected frame: more content than its header announced"
      return channel.closeWithError(undefined, text, unexpectedFrame, new Error(text))
    }
    const content = body.take(piece)
    if (content === undefined) return
    return accept.call(driver, { channel: frame.channel, fields: frame.fields, content })
  }

  channel.accept = (frame) => {
    switch (frame.id) {
      case undefined:
        return frame.content === undefined ? accept.call(driver, frame) : content(frame, frame.content)
      case classBasic:
        return header(frame)
      case basicGetEmpty:
        events.onGot()
        return accept.call(driver, frame)
      case basicGetOk:
        events.onGot()
        announced = frame
        return accept.call(driver, frame)
      case basicDeliver:
      case basicReturn:
        announced = frame
        return accept.call(driver, frame)
      case basicAck:
      case basicNack:
        return events.onConfirm(
          frame.fields["deliveryTag"] as number,
          frame.fields["multiple"] as boolean,
          frame.id === basicAck
        )
      case channelOpenOk:
        events.onOpened()
        return accept.call(driver, frame)
      case channelFlow: {
        const active = frame.fields["active"] as boolean
        channel.sendImmediately(channelFlowOk, { active })
        return events.onFlow(active)
      }
      default:
        return accept.call(driver, frame)
    }
  }
}
