/** What answers where an AMQP 0-9-1 broker was expected, by the first bytes that it sends. */

/** How many of its first bytes are kept: enough for the status line of HTTP, or the banner of SSH. */
export const firstBytes = 128

const protocolName = (header: Buffer): string => {
  const [id, major, minor, revision] = header.subarray(4)
  if (id === 0 && major === 0 && minor === 9 && revision === 1) return "AMQP 0-9-1"
  if (major === 1 && minor === 0 && revision === 0) return `AMQP 1.0${id === 3 ? " with SASL" : ""}`
  if (id === 1 && major === 1) return `AMQP ${minor}-${revision}`
  return `AMQP ${major}.${minor}.${revision}`
}

const ports = "RabbitMQ's port for AMQP is 5672, and 5671 with TLS."

/** The first line, of characters that can be printed. */
const lineOf = (first: Buffer): string => {
  const line = first.toString("latin1").split(/[\r\n]/, 1)[0] ?? ""
  return line.replaceAll(/[^\x20-\x7e]/g, "?").trim()
}

/**
 * What a peer is that begins with these bytes, and what to do about it; `undefined` for a broker's first frame, and if there
 * are too few to tell. `peer` is its address, for the message.
 */
export const foreignPeer = (first: Buffer, peer: string): string | undefined => {
  const type = first[0]
  // Frames of AMQP 0-9-1: a method, a content header, a body, a heartbeat.
  if (type === undefined || type <= 3 || type === 8) return undefined
  const text = first.toString("latin1")
  if (text.startsWith("AMQP") && first.length >= 8) {
    const spoken = protocolName(first)
    return spoken === "AMQP 0-9-1"
      ? `the peer answered with the protocol header of AMQP 0-9-1, as a broker does that was sent something else (${peer}). Does a proxy in between change what is sent?`
      : `the peer answered with the protocol header of ${spoken} (${peer}). It does not speak AMQP 0-9-1.`
  }
  if (text.startsWith("HTTP/")) {
    return `the peer answered HTTP: ${lineOf(first)} (${peer}). Is this a proxy whose broker is away, or the port of something else? ${ports}`
  }
  if (text.startsWith("SSH-")) {
    return `the peer answered SSH: ${lineOf(first)} (${peer}). Is this the broker's port? ${ports}`
  }
  // A record of TLS: change of cipher, alert, handshake or data.
  if (type >= 0x14 && type <= 0x17 && first[1] === 3) {
    return `the peer answered TLS, and this connection is without TLS (${peer}). Use amqps:// or tls, or the port without TLS. ${ports}`
  }
  const line = lineOf(first)
  const shown = /^[\x20-\x7e]{3}/.test(text)
    ? JSON.stringify(line)
    : `the bytes ${first.subarray(0, 8).toString("hex")}`
  return `the peer does not speak AMQP: it answered ${shown} (${peer}). ${ports}`
}
