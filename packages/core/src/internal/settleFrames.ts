/** The frames of `basic.ack` and `basic.nack`, written straight to where the bytes of their channel wait. */
import { method } from "./amqplib.ts"
import { beginFrame, endFrame, methodFrame, overhead, setUint32, setUint64 } from "./frameWriter.ts"
import type { WriteBuffer } from "./writeBuffer.ts"

const basicAck = method(60, 80)
const basicNack = method(60, 120)

const size = overhead + 4 + 8 + 1

const write = (buffer: WriteBuffer, channel: number, id: number, deliveryTag: number, bits: number): void => {
  const at = buffer.reserve(size)
  const { room } = buffer
  const start = beginFrame(room, at, methodFrame, channel)
  const end = setUint64(room, setUint32(room, start, id), deliveryTag)
  room[end] = bits
  endFrame(room, start, end + 1)
  buffer.commit(size)
}

export const writeAck = (buffer: WriteBuffer, channel: number, deliveryTag: number, multiple: boolean): void =>
  write(buffer, channel, basicAck, deliveryTag, multiple ? 1 : 0)

export const writeNack = (
  buffer: WriteBuffer,
  channel: number,
  deliveryTag: number,
  multiple: boolean,
  requeue: boolean
): void => write(buffer, channel, basicNack, deliveryTag, (multiple ? 1 : 0) | (requeue ? 2 : 0))
