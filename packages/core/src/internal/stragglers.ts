/**
 * What a broker still sends on a channel that it has closed: RabbitMQ's may deliver until it has read our `close-ok` (seen
 * with `consumer_timeout` under load).
 *
 * Hazards of amqplib 2.3 that this module answers:
 * - It has given the channel's number back by then. What comes on a number that is no channel's ends the connection.
 * - The next channel gets the lowest number that is free: the one of which there may still be something on its way.
 */
import type { Frame, Internals } from "./amqplib.ts"
import { classBasic } from "./protocol.ts"

// amqplib's number of a method has its class in the upper half; that of a content header is the class; a body has none.
const isOfMessages = ({ content, id }: Frame) =>
  id === undefined ? content !== undefined : id === classBasic || id >>> 16 === classBasic

/** Takes a channel's number again when all the others have had their turn. */
export const reuseNumbersLast = ({ channelMax, freeChannels: taken }: Internals): void => {
  if (taken === undefined || channelMax === undefined) return
  const { nextClearBit } = taken
  let last = 0
  taken.nextClearBit = (from) => {
    const next = nextClearBit.call(taken, last + 1)
    last = next > channelMax ? nextClearBit.call(taken, from) : next
    return last
  }
}

/** Drops what concerns messages on a channel that is closed. A number that never was a channel stays amqplib's to refuse. */
export const dropStragglers = (connection: Internals): void => {
  const { accept, channels } = connection
  if (accept === undefined || channels === undefined) return
  connection.accept = (frame) => {
    // `null` was a channel; 0, the connection itself, never is.
    if (channels[frame.channel] === null && isOfMessages(frame)) return
    accept.call(connection, frame)
  }
}
