/** Why a channel or a connection ended, where frames say so. What Node and amqplib report stays what it is. */

/** The broker's `channel.close` or `connection.close`. */
export class BrokerClose extends Error {
  override readonly name = "BrokerClose"
  /** What it closes. */
  readonly of: "channel" | "connection"
  /** The reply code. */
  readonly code: number
  /** The class of the method that the broker closes it for; 0: it does not say. */
  readonly classId: number
  readonly methodId: number

  constructor(of: "channel" | "connection", code: number, text: string, classId: number, methodId: number) {
    super(text)
    this.of = of
    this.code = code
    this.classId = classId
    this.methodId = methodId
  }
}

/** The peer has sent something that AMQP does not allow there. */
export class ProtocolViolation extends Error {
  override readonly name = "ProtocolViolation"
  /** The reply code of AMQP for it. */
  readonly code: number

  constructor(message: string, code = unexpectedFrame) {
    super(message)
    this.code = code
  }
}

export const contentTooLarge = 311
export const frameError = 501
export const unexpectedFrame = 505

/** The broker offers no SASL mechanism that these credentials have. */
export class MechanismRefused extends Error {
  override readonly name = "MechanismRefused"
}

/** Nothing can be sent any more: the channel is closed or closing, or its connection has ended. */
export class ChannelEnded extends Error {
  override readonly name = "ChannelEnded"
}

/** All numbers of channels are in use. */
export class NoChannelLeft extends Error {
  override readonly name = "NoChannelLeft"
}

/** The peer was silent for too long while the connection opened. */
export class OpeningTimedOut extends Error {
  override readonly name = "OpeningTimedOut"
}
