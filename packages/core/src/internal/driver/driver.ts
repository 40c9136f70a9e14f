/**
 * The driver: one connection to a broker as an object, and its channels.
 *
 * amqplib holds the conversation, we carry the messages. This module is all that the rest of the house knows of either: see
 * `docs/architecture.md`, "The driver".
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
  Refused,
  RefusedGet,
  ReturnedMessage
} from "./contract.ts"
export {
  BrokerClose,
  ChannelEnded,
  MechanismRefused,
  NoChannelLeft,
  OpeningTimedOut,
  ProtocolViolation
} from "./ends.ts"
export { foreignPeer } from "./foreignPeer.ts"
export { type Attempt, type Endpoint, open } from "./open.ts"
