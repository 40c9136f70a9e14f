/**
 * Writes the parts of frames in place (AMQP 0-9-1, section 2.3.5; https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
 */
import { frameEnd, frameHeaderSize } from "./protocol.ts"

export const setUint16 = (room: Buffer, at: number, value: number): number => {
  room[at] = value >>> 8
  room[at + 1] = value
  return at + 2
}

export const setUint32 = (room: Buffer, at: number, value: number): number => {
  room[at] = value >>> 24
  room[at + 1] = value >>> 16
  room[at + 2] = value >>> 8
  room[at + 3] = value
  return at + 4
}

/** Writes an integer, signed or not. */
export const setUint64 = (room: Buffer, at: number, value: number): number =>
  setUint32(room, setUint32(room, at, Math.floor(value / 2 ** 32)), value % 2 ** 32)

/** Writes the header of a frame, and returns where the payload begins. `endFrame` fills in the payload's size. */
export const beginFrame = (room: Buffer, at: number, type: number, channel: number): number => {
  room[at] = type
  setUint16(room, at + 1, channel)
  return at + frameHeaderSize
}

/** Ends a frame whose payload begins at `start`, and returns where the next frame begins. */
export const endFrame = (room: Buffer, start: number, end: number): number => {
  setUint32(room, start - 4, end - start)
  room[end] = frameEnd
  return end + 1
}
