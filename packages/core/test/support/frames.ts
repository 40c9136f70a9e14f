/**
 * Frames: the broker's half of AMQP 0-9-1 framing.
 *
 * `FrameReader` takes a client's bytes as they come and gives whole messages: a method with its arguments, and for
 * `basic.publish` with its content assembled. The encoders give the bytes of what a broker sends.
 */
import type { Args, ClientMethod, Method, Properties } from "../../src/testing/internal/memory/codec/methods.ts"
import {
  decodeMethod,
  decodeProperties,
  encodeMethod,
  encodeProperties
} from "../../src/testing/internal/memory/codec/methodCodec.ts"
import { WireError, WireReader } from "../../src/testing/internal/memory/codec/wire.ts"

export const FRAME_METHOD = 1
export const FRAME_HEADER = 2
export const FRAME_BODY = 3
export const FRAME_HEARTBEAT = 8
const frameTypes = new Set([FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT])
export const FRAME_END = 0xce
/** Octets of a frame that are not its payload. */
export const FRAME_OVERHEAD = 8

const BASIC_CLASS = 60

/** A client of AMQP 0-9-1 sends this first. A broker that supports only another version answers with its own. */
export const PROTOCOL_HEADER: Buffer = Buffer.from([0x41, 0x4d, 0x51, 0x50, 0, 0, 9, 1])

export interface Content {
  readonly properties: Properties
  readonly body: Buffer
}

/** What a reader gets from a client's bytes. */
export type ClientEvent =
  | { readonly event: "protocol-header"; readonly bytes: Buffer }
  | { readonly event: "heartbeat"; readonly channel: number }
  | {
      readonly event: "method"
      readonly channel: number
      readonly method: ClientMethod
      readonly args: Readonly<Record<string, unknown>>
      readonly content: Content | undefined
    }

interface Assembly {
  readonly args: Readonly<Record<string, unknown>>
  properties: Properties | undefined
  size: number
  received: number
  readonly chunks: Array<Buffer>
}

export class FrameReader {
  /** The largest frame that a client may send; 0 means no limit. */
  frameMax = 0
  private buffered: Buffer = Buffer.alloc(0)
  private headerSeen = false
  private readonly assemblies = new Map<number, Assembly>()
  /** Channels whose content is not read. */
  private readonly dropped = new Set<number>()

  /** Takes bytes and passes on each message that they complete. Throws a `WireError` at the first malformed frame. */
  push(bytes: Buffer, onEvent: (event: ClientEvent) => void): void {
    this.buffered = this.buffered.length === 0 ? bytes : Buffer.concat([this.buffered, bytes])
    for (;;) {
      const event = this.next()
      if (event === "incomplete") return
      if (event !== "partial") onEvent(event)
    }
  }

  /** Discards the incomplete content of a channel: later bytes belong to the next use of its number. */
  forget(channel: number): void {
    this.assemblies.delete(channel)
    this.dropped.delete(channel)
  }

  /**
   * Reads no content of a channel until it is discarded: the broker has closed the channel, and the rest is on its way.
   */
  drop(channel: number): void {
    this.assemblies.delete(channel)
    this.dropped.add(channel)
  }

  private take(length: number): Buffer {
    const taken = this.buffered.subarray(0, length)
    this.buffered = this.buffered.subarray(length)
    return taken
  }

  private next(): ClientEvent | "partial" | "incomplete" {
    if (!this.headerSeen) {
      if (this.buffered.length < PROTOCOL_HEADER.length) return "incomplete"
      this.headerSeen = true
      return { event: "protocol-header", bytes: this.take(PROTOCOL_HEADER.length) }
    }
    if (this.buffered.length < 7) return "incomplete"
    const type = this.buffered.readUInt8(0)
    if (!frameTypes.has(type)) throw new WireError(`unknown frame type ${type}`)
    const channel = this.buffered.readUInt16BE(1)
    const size = this.buffered.readUInt32BE(3)
    if (this.frameMax > 0 && size + FRAME_OVERHEAD > this.frameMax) {
      throw new WireError(`frame of ${size + FRAME_OVERHEAD} octets, frame-max is ${this.frameMax}`)
    }
    if (this.buffered.length < size + FRAME_OVERHEAD) return "incomplete"
    const frame = this.take(size + FRAME_OVERHEAD)
    if (frame[size + 7] !== FRAME_END) throw new WireError("frame does not end with the frame-end octet")
    return this.decode(type, channel, frame.subarray(7, size + 7))
  }

  private decode(type: number, channel: number, payload: Buffer): ClientEvent | "partial" {
    switch (type) {
      case FRAME_METHOD:
        return this.method(channel, payload)
      case FRAME_HEADER:
        return this.header(channel, payload)
      case FRAME_BODY:
        return this.body(channel, payload)
      default:
        if (channel !== 0 || payload.length > 0) throw new WireError("heartbeat with a channel or a payload")
        return { event: "heartbeat", channel }
    }
  }

  private method(channel: number, payload: Buffer): ClientEvent | "partial" {
    const { args, method } = decodeMethod(payload)
    if (method === "basic.publish" && this.dropped.has(channel)) return "partial"
    if (this.assemblies.has(channel))
      throw new WireError(`${method} on channel ${channel} amid the content of a publish`)
    if (method !== "basic.publish") return { event: "method", channel, method, args, content: undefined }
    this.assemblies.set(channel, { args, properties: undefined, size: 0, received: 0, chunks: [] })
    return "partial"
  }

  private header(channel: number, payload: Buffer): ClientEvent | "partial" {
    if (this.dropped.has(channel)) return "partial"
    const assembly = this.assemblies.get(channel)
    if (assembly === undefined || assembly.properties !== undefined) {
      throw new WireError(`unexpected content header on channel ${channel}`)
    }
    const reader = new WireReader(payload)
    const classId = reader.short()
    if (classId !== BASIC_CLASS) throw new WireError(`content header of class ${classId}`)
    reader.short() // weight, always 0
    assembly.size = Number(reader.longlong())
    assembly.properties = decodeProperties(reader)
    return this.assembled(channel, assembly, assembly.properties)
  }

  private body(channel: number, payload: Buffer): ClientEvent | "partial" {
    if (this.dropped.has(channel)) return "partial"
    const assembly = this.assemblies.get(channel)
    if (assembly?.properties === undefined) throw new WireError(`unexpected content body on channel ${channel}`)
    assembly.received += payload.length
    assembly.chunks.push(payload)
    return this.assembled(channel, assembly, assembly.properties)
  }

  private assembled(channel: number, assembly: Assembly, properties: Properties): ClientEvent | "partial" {
    if (assembly.received < assembly.size) return "partial"
    if (assembly.received > assembly.size) throw new WireError(`content body longer than its header's ${assembly.size}`)
    this.assemblies.delete(channel)
    const content: Content = { properties, body: Buffer.concat(assembly.chunks) }
    return { event: "method", channel, method: "basic.publish", args: assembly.args, content }
  }
}

/** One frame of any type. With `size` it announces a length that is not its payload's. */
export const encodeFrame = (type: number, channel: number, payload: Uint8Array, size = payload.length): Buffer => {
  const head = Buffer.alloc(7)
  head.writeUInt8(type, 0)
  head.writeUInt16BE(channel, 1)
  head.writeUInt32BE(size, 3)
  return Buffer.concat([head, payload, Buffer.from([FRAME_END])])
}

export const encodeHeartbeat = (): Buffer => encodeFrame(FRAME_HEARTBEAT, 0, Buffer.alloc(0))

/** A method frame, followed by the header and body frames of its content if it carries any. */
export const encodeMessage = <M extends Method>(
  channel: number,
  method: M,
  args: Partial<Args<M>> = {},
  content?: { readonly properties?: Properties; readonly body: Uint8Array },
  frameMax = 0
): Buffer => {
  const frames = [encodeFrame(FRAME_METHOD, channel, encodeMethod(method, args))]
  if (content !== undefined) {
    const head = Buffer.alloc(12)
    head.writeUInt16BE(BASIC_CLASS, 0)
    head.writeBigUInt64BE(BigInt(content.body.length), 4)
    const header = Buffer.concat([head, encodeProperties(content.properties ?? {})])
    frames.push(encodeFrame(FRAME_HEADER, channel, header))
    const step = frameMax > 0 ? frameMax - FRAME_OVERHEAD : Math.max(1, content.body.length)
    for (let at = 0; at < content.body.length; at += step) {
      frames.push(encodeFrame(FRAME_BODY, channel, content.body.subarray(at, at + step)))
    }
  }
  return Buffer.concat(frames)
}
