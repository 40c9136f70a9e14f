/** Why the broker closes a channel or a connection: RabbitMQ's reply codes and texts. */

export class Failure extends Error {
  override readonly name = "Failure"
  readonly of: "channel" | "connection"
  /** The AMQP reply code. */
  readonly code: number

  constructor(of: "channel" | "connection", code: number, text: string) {
    super(text)
    this.of = of
    this.code = code
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
