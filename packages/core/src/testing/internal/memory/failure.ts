/** Why the broker closes a channel or a connection: RabbitMQ's reply codes and texts. */

export class Failure extends Error {
  override readonly name = "Failure"
  readonly of: "channel" | "connection"
  /** The AMQP reply code. */
  readonly code: number
  /** Whether the broker reads nothing after it, because it does not know where the next frame begins. */
  readonly isFatal: boolean

  constructor(of: "channel" | "connection", code: number, text: string, isFatal = false) {
    super(text)
    this.of = of
    this.code = code
    this.isFatal = isFatal
  }
}

const onChannel = (code: number, name: string) => (text: string) => new Failure("channel", code, `${name} - ${text}`)
const onConnection = (code: number, name: string) => (text: string) =>
  new Failure("connection", code, `${name} - ${text}`)

export const accessRefused = onChannel(403, "ACCESS_REFUSED")
export const notFound = onChannel(404, "NOT_FOUND")
export const resourceLocked = onChannel(405, "RESOURCE_LOCKED")
export const preconditionFailed = onChannel(406, "PRECONDITION_FAILED")
export const connectionForced = onConnection(320, "CONNECTION_FORCED")
export const frameError = onConnection(501, "FRAME_ERROR")
export const syntaxError = onConnection(502, "SYNTAX_ERROR")
export const commandInvalid = onConnection(503, "COMMAND_INVALID")
export const channelError = onConnection(504, "CHANNEL_ERROR")
export const unexpectedFrame = onConnection(505, "UNEXPECTED_FRAME")
export const notAllowed = onConnection(530, "NOT_ALLOWED")
export const notImplemented = onConnection(540, "NOT_IMPLEMENTED")
export const internalError = onConnection(541, "INTERNAL_ERROR")

/** A binary, as Erlang prints it. */
const binary = (bytes: Uint8Array): string => {
  const isText = bytes.length > 0 && bytes.every((byte) => byte >= 32 && byte < 127)
  return `<<${isText ? JSON.stringify(Buffer.from(bytes).toString("latin1")) : bytes.join(",")}>>`
}

/** The first bytes of a frame's payload. */
const snippet = (payload: Uint8Array): string =>
  `${payload.length > 16 ? "first 16" : "all"} octets = ${binary(payload.subarray(0, 16))}`

/** A method whose fields cannot be read. */
export const undecodable = (fields: Uint8Array): Failure => frameError(`cannot decode ${binary(fields)}`)

/** An error that RabbitMQ does not explain. */
export const internal: Failure = new Failure("connection", 541, "INTERNAL_ERROR")

/** A frame whose payload is none of its type. */
export const unknownFrame = (type: number, payload: Uint8Array): Failure =>
  frameError(`type ${type}, ${snippet(payload)}: unknown_frame`)

/** A frame that must not be on its channel. */
export const unexpectedOnChannel = (type: number, payload: Uint8Array): Failure =>
  unexpectedFrame(`type ${type}, ${snippet(payload)}`)

/** Bytes that are no frame. */
export const noFrame = (type: number, payload: Uint8Array, reason: string): Failure =>
  new Failure("connection", 501, `FRAME_ERROR - type ${type}, ${snippet(payload)}: ${reason}`, true)

const without = (what: string) =>
  `NOT_IMPLEMENTED - MemoryBroker has no ${what}: use TestBroker, which is a real RabbitMQ, for this test`

/**
 * What the memory broker leaves out. It is refused, so that no test passes by a silent difference. Only the channel ends: a
 * client whose connection ends reconnects and tries again, which delays the error.
 */
export const leftOut = (what: string): Failure => new Failure("channel", 540, without(what))

/** The same for what a login asks for. */
export const leftOutOfLogins = (what: string): Failure => new Failure("connection", 540, without(what))

export const queueIn = (vhost: string, name: string): string => `queue '${name}' in vhost '${vhost}'`
export const exchangeIn = (vhost: string, name: string): string => `exchange '${name}' in vhost '${vhost}'`
