/**
 * What a broker still sends on a channel that has been closed.
 *
 * RabbitMQ's `channel.close` comes from the connection's process, deliveries and confirms from another one: some can
 * arrive behind it (seen with `consumer_timeout` under load). By then amqplib 2.3 has given the channel's number back, and
 * takes them for frames on an unknown channel, which ends the connection for all the others.
 */
import type { Frame, Internals } from "./amqplib.ts"

const basic = 60

// amqplib's number of a method has its class in the upper half; that of a content header is the class; a body has none.
const isOfMessages = ({ content, id }: Frame) =>
  id === undefined ? content !== undefined : id === basic || id >>> 16 === basic

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
