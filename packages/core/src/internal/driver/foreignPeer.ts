/** Describes a peer that is not an AMQP 0-9-1 broker, by the first bytes that it sends. */

/** Number of first bytes that are kept: enough for an HTTP status line or an SSH banner. */
export const firstBytes = 128

const protocolName = (header: Buffer): string => {
  const [id, major, minor, revision] = header.subarray(4)
  if (id === 0 && major === 0 && minor === 9 && revision === 1) return "AMQP 0-9-1"
  if (major === 1 && minor === 0 && revision === 0) return `AMQP 1.0${id === 3 ? " with SASL" : ""}`
  if (id === 1 && major === 1) return `AMQP ${minor}-${revision}`
  return `AMQP ${major}.${minor}.${revision}`
}

/** On which ports a broker is expected, for messages. */
export const ports = "RabbitMQ listens for AMQP on port 5672, and on port 5671 with TLS."

/** Returns the first line, with `?` in place of every character that cannot be printed. */
const lineOf = (first: Buffer): string => {
  const line = first.toString("latin1").split(/[\r\n]/, 1)[0] ?? ""
  return line.replaceAll(/[^\x20-\x7e]/g, "?").trim()
}

/**
 * Returns what kind of peer starts with these bytes, and what to do about it. `undefined`: it is a broker's first
 * frame, or there are too few bytes to tell. `peer` is its address, for the message.
 */
export const describeForeignPeer = (first: Buffer, peer: string): string | undefined => {
  const type = first[0]
  // The frame types of AMQP 0-9-1: method, content header, body, heartbeat.
  if (type === undefined || type <= 3 || type === 8) return undefined
  const text = first.toString("latin1")
  if (text.startsWith("AMQP") && first.length >= 8) {
    const spoken = protocolName(first)
    return spoken === "AMQP 0-9-1"
      ? `the peer answered with the protocol header of AMQP 0-9-1 (${peer}). A broker does so when it receives another header than its own. Check whether a proxy changes the bytes that are sent.`
      : `the peer answered with the protocol header of ${spoken} (${peer}). It does not speak AMQP 0-9-1.`
  }
  if (text.startsWith("HTTP/")) {
    return `the peer answered HTTP: ${lineOf(first)} (${peer}). Check whether this is a proxy whose broker is unavailable, or the port of another service. ${ports}`
  }
  if (text.startsWith("SSH-")) {
    return `the peer answered SSH: ${lineOf(first)} (${peer}). Check that this is the broker's port. ${ports}`
  }
  // TLS record types: change cipher spec, alert, handshake, application data.
  if (type >= 0x14 && type <= 0x17 && first[1] === 3) {
    return `the peer answered TLS, but this connection does not use TLS (${peer}). Use amqps:// or set tls, or connect to the port without TLS. ${ports}`
  }
  const line = lineOf(first)
  const shown = /^[\x20-\x7e]{3}/.test(text)
    ? JSON.stringify(line)
    : `the bytes ${first.subarray(0, 8).toString("hex")}`
  return `the peer does not speak AMQP: it answered ${shown} (${peer}). ${ports}`
}
