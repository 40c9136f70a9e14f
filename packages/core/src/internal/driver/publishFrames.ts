/**
 * Writes the frames of a publish in place, into the output of its channel.
 * AMQP 0-9-1, sections 2.3.5, 4.2.5 and 4.2.6 (https://www.rabbitmq.com/amqp-0-9-1-protocol.pdf).
 */
import { fixedHeaderSize } from "../wire/contentHeader.ts"
import { beginFrame, endFrame, setUint16, setUint32, setUint64 } from "../wire/frameWriter.ts"
import type { Outgoing } from "../wire/properties.ts"
import { maxPropertyListSize, setPropertyList, setShortstr } from "../wire/propertyList.ts"
import { basicPublish, bodyFrame, classBasic, headerFrame, methodFrame, frameOverhead } from "../wire/protocol.ts"
import { maxSlabSize } from "./slabPool.ts"
import type { ChannelOutput } from "./channelOutput.ts"

/** Largest body that is written in one piece with its header, in bytes. */
const maxInlineBody = 4096
/** Size of both frames without the property list and the names: the fields of fixed size and the lengths of the names. */
const fixedSize = 2 * frameOverhead + 4 + 2 + 2 + 1 + fixedHeaderSize

/** Upper bound of the encoded size, without a body. */
const maxEncodedSize = (outgoing: Outgoing): number =>
  fixedSize + (outgoing.exchange.length + outgoing.routingKey.length) * 3 + maxPropertyListSize(outgoing)

const setPublish = (
  buffer: Buffer,
  at: number,
  channel: number,
  { exchange, mandatory, routingKey }: Outgoing
): number => {
  const start = beginFrame(buffer, at, methodFrame, channel)
  let end = setUint32(buffer, start, basicPublish)
  end = setUint16(buffer, end, 0)
  end = setShortstr(buffer, end, exchange)
  end = setShortstr(buffer, end, routingKey)
  buffer[end] = mandatory ? 1 : 0
  return endFrame(buffer, start, end + 1)
}

const setHeader = (buffer: Buffer, at: number, channel: number, outgoing: Outgoing): number => {
  const start = beginFrame(buffer, at, headerFrame, channel)
  const size = outgoing.content.length
  setUint16(buffer, start, classBasic)
  setUint16(buffer, start + 2, 0)
  setUint64(buffer, start + 4, size)
  return endFrame(buffer, start, setPropertyList(buffer, start + fixedHeaderSize, outgoing))
}

/** Writes a body in its own frames, as many as it needs. */
const writeBody = (output: ChannelOutput, channel: number, content: Buffer, maxPayloadSize: number): void => {
  const { length } = content
  for (let from = 0; from < length; from += maxPayloadSize) {
    const end = Math.min(from + maxPayloadSize, length)
    const at = output.reserve(end - from + frameOverhead)
    const start = beginFrame(output.buffer, at, bodyFrame, channel)
    output.commit(endFrame(output.buffer, start, start + content.copy(output.buffer, start, from, end)) - at)
  }
}

/** Writes a message whose headers do not fit into a slab. */
const writeLarge = (
  output: ChannelOutput,
  channel: number,
  most: number,
  maxPayloadSize: number,
  outgoing: Outgoing
): void => {
  const buffer = Buffer.allocUnsafeSlow(most)
  const end = setHeader(buffer, setPublish(buffer, 0, channel, outgoing), channel, outgoing)
  output.write(buffer.subarray(0, end))
  writeBody(output, channel, outgoing.content, maxPayloadSize)
}

/**
 * Writes the frames of one message. Returns whether the output has room for more.
 *
 * @param frameMax the connection's frame-max, larger than the overhead of a frame
 */
export const writePublish = (output: ChannelOutput, channel: number, frameMax: number, outgoing: Outgoing): boolean => {
  const { content } = outgoing
  const { length } = content
  const maxPayloadSize = Math.min(frameMax, maxSlabSize) - frameOverhead
  const isSmall = length <= maxInlineBody && length <= maxPayloadSize
  const most = maxEncodedSize(outgoing) + (isSmall ? length + frameOverhead : 0)
  if (most > maxSlabSize) {
    writeLarge(output, channel, most, maxPayloadSize, outgoing)
    return !output.isFull
  }
  const at = output.reserve(most)
  const { buffer } = output
  let end = setPublish(buffer, at, channel, outgoing)
  end = setHeader(buffer, end, channel, outgoing)
  if (isSmall && length > 0) {
    const start = beginFrame(buffer, end, bodyFrame, channel)
    buffer.set(content, start)
    end = endFrame(buffer, start, start + length)
  }
  output.commit(end - at)
  if (!isSmall) writeBody(output, channel, content, maxPayloadSize)
  return !output.isFull
}
