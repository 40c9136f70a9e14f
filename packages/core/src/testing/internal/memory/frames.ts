/** The frames that the broker writes. */
import {
  bodyFrame,
  classBasic,
  frameEnd,
  frameOverhead,
  headerFrame,
  methodFrame
} from "../../../internal/wire/protocol.ts"
import { encodeMethod } from "./codec/methodCodec.ts"
import type { Args, ServerMethod } from "./codec/methods.ts"
import type { Properties } from "./model/properties.ts"

const frame = (type: number, channel: number, payload: Buffer): Buffer => {
  const bytes = Buffer.allocUnsafe(payload.length + frameOverhead)
  bytes[0] = type
  bytes.writeUInt16BE(channel, 1)
  bytes.writeUInt32BE(payload.length, 3)
  bytes.set(payload, 7)
  bytes[bytes.length - 1] = frameEnd
  return bytes
}

export const heartbeat: Buffer = frame(8, 0, Buffer.alloc(0))

export const method = <M extends ServerMethod>(channel: number, name: M, args: Partial<Args<M>>): Buffer =>
  frame(methodFrame, channel, encodeMethod(name, args))

/** The header and the body of a message. */
export const content = (
  channel: number,
  { bytes }: Properties,
  body: Buffer,
  frameMax: number
): ReadonlyArray<Buffer> => {
  const header = Buffer.allocUnsafe(12 + bytes.length)
  header.writeUInt32BE(classBasic << 16, 0)
  header.writeBigUInt64BE(BigInt(body.length), 4)
  header.set(bytes, 12)
  const frames = [frame(headerFrame, channel, header)]
  const step = frameMax > 0 ? frameMax - frameOverhead : Math.max(1, body.length)
  for (let at = 0; at < body.length; at += step) frames.push(frame(bodyFrame, channel, body.subarray(at, at + step)))
  return frames
}
