/** Frames of a client, wherever its bytes are split (AMQP 0-9-1, section 2.3.5). */
import { frameEnd, frameHeaderSize, frameOverhead } from "../../../internal/wire/protocol.ts"
import { noFrame } from "./failure.ts"

export interface Frame {
  readonly type: number
  readonly channel: number
  readonly payload: Buffer
}

export const protocolHeader: Buffer = Buffer.from("AMQP\0\0\u0009\u0001", "latin1")

export class FrameReader {
  /** Maximum size of a frame, in bytes. */
  frameMax: number
  #chunks: Array<Buffer> = []
  #size = 0

  constructor(frameMax: number) {
    this.frameMax = frameMax
  }

  push(bytes: Buffer): void {
    this.#chunks.push(bytes)
    this.#size += bytes.length
  }

  /** Takes bytes, if there are that many. */
  #take(size: number): Buffer | undefined {
    if (this.#size < size) return undefined
    let [first = Buffer.alloc(0)] = this.#chunks
    if (first.length < size) {
      first = Buffer.concat(this.#chunks)
      this.#chunks = [first]
    }
    this.#size -= size
    if (first.length === size) this.#chunks.shift()
    else this.#chunks[0] = first.subarray(size)
    return first.subarray(0, size)
  }

  #peek(size: number): Buffer | undefined {
    if (this.#size < size) return undefined
    if (this.#chunks[0]!.length < size) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0]!
  }

  header(): Buffer | undefined {
    return this.#take(protocolHeader.length)
  }

  /** The next frame, if it has arrived. Throws a fatal `Failure` if the bytes are no frame. */
  next(): Frame | undefined {
    const head = this.#peek(frameHeaderSize)
    if (head === undefined) return undefined
    const type = head[0]!
    const channel = head.readUInt16BE(1)
    const size = head.readUInt32BE(3)
    // RabbitMQ does not count what surrounds the payload.
    if (size > this.frameMax) {
      throw noFrame(type, Buffer.alloc(0), `{frame_too_large,${size},${this.frameMax - frameOverhead}}`)
    }
    const frame = this.#take(size + frameOverhead)
    if (frame === undefined) return undefined
    const payload = frame.subarray(frameHeaderSize, size + frameHeaderSize)
    const end = frame[size + frameHeaderSize]
    if (end !== frameEnd) throw noFrame(type, payload, `{invalid_frame_end_marker,${end}}`)
    return { type, channel, payload }
  }
}
