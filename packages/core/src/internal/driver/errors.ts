/**
 * Why a channel or a connection ended, where frames state it. Errors that Node and amqplib report are not wrapped here.
 */

/** The broker's `channel.close` or `connection.close`. */
export class BrokerClose extends Error {
  override readonly name = "BrokerClose"
  /** Whether the broker closed a channel or the connection. */
  readonly of: "channel" | "connection"
  /** The AMQP reply code. */
  readonly code: number
  /** The class of the method that caused the close; 0: the broker names no method. */
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

/** The peer sent something that AMQP does not allow at that point. */
export class ProtocolViolation extends Error {
  override readonly name = "ProtocolViolation"
  /** The AMQP reply code for this violation. */
  readonly code: number

  constructor(message: string, code = unexpectedFrame) {
    super(message)
    this.code = code
  }
}

export const contentTooLarge = 311
export const frameError = 501
export const unexpectedFrame = 505

/** The broker does not offer the SASL mechanism that the credentials require. */
export class MechanismRefused extends Error {
  override readonly name = "MechanismRefused"
}

/** Nothing more can be sent: the channel is closed or closing, or its connection has ended. */
export class ChannelEnded extends Error {
  override readonly name = "ChannelEnded"
}

/** All channel numbers of the connection are in use. */
export class ChannelNumbersExhausted extends Error {
  override readonly name = "ChannelNumbersExhausted"
}

/** The peer sent nothing for longer than `socketTimeout` while the connection was opening. */
export class HandshakeTimedOut extends Error {
  override readonly name = "HandshakeTimedOut"
}
