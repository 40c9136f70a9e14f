/**
 * The driver: one connection to a broker as an object, and its channels. amqplib handles the connection protocol, and
 * the driver handles the messages. Other folders import only this module: see "The driver" in `docs/architecture.md`.
 */
export type {
  ChannelEnd,
  ChannelEvents,
  ConnectionEvents,
  ConsumeDeclaration,
  DeliveredMessage,
  DriverChannel,
  DriverConnection,
  ExchangeDeclaration,
  QueueCounts,
  QueueDeclaration,
  DroppedMessage,
  DroppedGet,
  ReturnedMessage
} from "./contract.ts"
export {
  BrokerClose,
  ChannelEnded,
  MechanismRefused,
  ChannelNumbersExhausted,
  HandshakeTimedOut,
  ProtocolViolation
} from "./errors.ts"
export { describeForeignPeer, ports } from "./foreignPeer.ts"
export { type ConnectAttempt, type Endpoint, open } from "./open.ts"
export { Opener } from "./opener.ts"
