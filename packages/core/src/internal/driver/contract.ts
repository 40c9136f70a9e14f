/** What the driver gives to the rest of the house, and what it wants to be told of: `driver.ts` is the door to it. */
import type { DeliveredProperties, FieldTable } from "../../model/message.ts"
import type { BrokerClose, ChannelEnded, ProtocolViolation } from "./ends.ts"
import type { Outgoing } from "../wire/properties.ts"

/** A message that a consumer or `basic.get` gets. */
export interface DeliveredMessage {
  /** Empty for `basic.get`. */
  readonly consumerTag: string
  readonly deliveryTag: number
  readonly redelivered: boolean
  readonly exchange: string
  readonly routingKey: string
  /** How many messages are left in the queue, as `basic.get` says. */
  readonly messageCount: number | undefined
  readonly properties: DeliveredProperties
  readonly content: Buffer
}

/** A mandatory message that reached no queue. */
export interface ReturnedMessage {
  readonly replyCode: number
  readonly replyText: string
  readonly exchange: string
  readonly routingKey: string
  readonly properties: DeliveredProperties
  readonly content: Buffer
}

/** A message whose content is dropped: its body is larger than `maxInboundMessageBodySize`, or its header is unreadable. */
export type Refused = RefusedGet | RefusedDelivery | RefusedReturn

export interface RefusedGet {
  readonly method: "basic.get"
  readonly message: Omit<DeliveredMessage, "content">
  /** The size of its body, in bytes. */
  readonly size: number
  readonly queue: string
  readonly noAck: boolean
  /** Fails the `get` that waits for it. */
  readonly fail: (cause: unknown) => void
}

export interface RefusedDelivery {
  readonly method: "basic.deliver"
  readonly message: Omit<DeliveredMessage, "content">
  /** The size of its body, in bytes. */
  readonly size: number
}

export interface RefusedReturn {
  readonly method: "basic.return"
  readonly message: Omit<ReturnedMessage, "content">
  /** The size of its body, in bytes. */
  readonly size: number
}

/** What a channel ended with: the broker's `channel.close`, or what the broker sent against the protocol. */
export type ChannelEnd = BrokerClose | ProtocolViolation | ChannelEnded

/**
 * What happens on one channel. Called while bytes are read from the socket, in the order of the frames: none of these may
 * throw, and none may keep what it was given beyond the call unless it says so.
 */
export interface ChannelEvents {
  /** `channel.open` is answered. */
  readonly opened: () => void
  /** `channel.open` cannot be sent: the connection has no number left. */
  readonly notOpened: (cause: unknown) => void
  /** The message is the receiver's. */
  readonly delivered: (message: DeliveredMessage) => void
  /** The message is the receiver's. */
  readonly returned: (message: ReturnedMessage) => void
  /** The broker's `basic.ack` (`isAck`) or `basic.nack` of what was published. Tag 0 with `multiple`: all there are. */
  readonly confirmed: (deliveryTag: number, multiple: boolean, isAck: boolean) => void
  /** `channel.flow` from the broker, which is answered already. */
  readonly flow: (active: boolean) => void
  /** The broker has ended a consumer (`basic.cancel`). */
  readonly cancelled: (consumerTag: string) => void
  /** A body is larger than `maxInboundMessageBodySize`. Whether it is dealt with; if not, the channel is closed. */
  readonly oversized: (refused: Refused) => boolean
  /** A content header cannot be read. Whether it is dealt with; if not, the channel is closed. */
  readonly undecodable: (refused: Refused, problem: Error) => boolean
  /** There is room for more, after `publish` has said that there is none. */
  readonly drained: () => void
  /** The channel ended, once, and not because `close` was called. `undefined`: its connection ended. */
  readonly closed: (end: ChannelEnd | undefined) => void
  /** Nothing is left of it, once: the broker knows that it is closed, or the connection has ended. */
  readonly gone: () => void
}

/** How many messages and consumers a queue has. */
export interface QueueCounts {
  readonly queue: string
  readonly messageCount: number
  readonly consumerCount: number
}

export interface ExchangeDeclaration {
  readonly durable?: boolean
  readonly autoDelete?: boolean
  readonly internal?: boolean
  readonly arguments?: FieldTable
}

export interface QueueDeclaration {
  readonly durable?: boolean
  readonly exclusive?: boolean
  readonly autoDelete?: boolean
  readonly arguments?: FieldTable
}

export interface ConsumeDeclaration {
  readonly noAck: boolean
  readonly exclusive: boolean
  readonly arguments: FieldTable
}

/**
 * One channel of a connection.
 *
 * What is called on it is sent in the order of the calls. A method that has a reply returns a promise, which rejects with
 * the `ChannelEnd` when the channel ends first, and stays pending when the broker says nothing: callers bound it. The
 * others throw a `ChannelEnded` when the channel is closed or closing.
 */
export interface DriverChannel {
  /** Its number on its connection; 0 until `opened`. */
  readonly number: number
  /** Writes a message; whether there is room for more. If not, `drained` follows. */
  readonly publish: (outgoing: Outgoing) => boolean
  readonly ack: (deliveryTag: number, multiple: boolean) => void
  /**
   * Acknowledges one delivery. The frame may become one with the acknowledgement before it, when no delivery of
   * `unsettled`, in the order of their tags, lies between the two.
   */
  readonly ackAmong: (unsettled: ReadonlySet<number>, deliveryTag: number) => void
  readonly nack: (deliveryTag: number, multiple: boolean, requeue: boolean) => void
  readonly reject: (deliveryTag: number, requeue: boolean) => void
  /** `undefined`: the queue is empty. */
  readonly get: (queue: string, noAck: boolean) => Promise<DeliveredMessage | undefined>
  /** The tag is the caller's choice: deliveries may stand right behind the reply. */
  readonly consume: (queue: string, consumerTag: string, options: ConsumeDeclaration) => Promise<void>
  readonly cancel: (consumerTag: string) => Promise<void>
  readonly qos: (prefetchCount: number, global: boolean) => Promise<void>
  readonly recover: () => Promise<void>
  /** Asks the broker to stop or go on delivering; what it answers. */
  readonly flow: (active: boolean) => Promise<boolean>
  readonly select: (mode: "confirm" | "transaction") => Promise<void>
  readonly commit: () => Promise<void>
  readonly rollback: () => Promise<void>
  readonly exchangeDeclare: (exchange: string, type: string, options: ExchangeDeclaration) => Promise<void>
  readonly exchangeDeclarePassive: (exchange: string) => Promise<void>
  readonly exchangeDelete: (exchange: string, options: { readonly ifUnused: boolean }) => Promise<void>
  readonly exchangeBind: (destination: string, source: string, routingKey: string, table: FieldTable) => Promise<void>
  readonly exchangeUnbind: (destination: string, source: string, routingKey: string, table: FieldTable) => Promise<void>
  readonly queueDeclare: (queue: string, options: QueueDeclaration) => Promise<QueueCounts>
  readonly queueDeclarePassive: (queue: string) => Promise<QueueCounts>
  /** How many messages were in it. */
  readonly queueDelete: (
    queue: string,
    options: { readonly ifEmpty: boolean; readonly ifUnused: boolean }
  ) => Promise<number>
  readonly queueBind: (queue: string, exchange: string, routingKey: string, table: FieldTable) => Promise<void>
  readonly queueUnbind: (queue: string, exchange: string, routingKey: string, table: FieldTable) => Promise<void>
  /** How many messages were in it. */
  readonly queuePurge: (queue: string) => Promise<number>
  /**
   * Closes it when all that was called before is sent; one that is opening, when it has opened. `gone` follows when the
   * broker has answered. Does nothing when it is closed or closing.
   */
  readonly close: () => void
}

/** What happens to a connection. Called while bytes are read from the socket: none of these may throw. */
export interface ConnectionEvents {
  readonly blocked: (reason: string) => void
  readonly unblocked: () => void
  /** The oldest new secret that was not answered is taken. */
  readonly secretTaken: () => void
  /**
   * It ended, once, unless `destroy` was called. Its channels are told behind this. The cause is the broker's
   * `BrokerClose`, a `ProtocolViolation`, or what Node or amqplib has reported; `undefined`: `close` was called.
   */
  readonly ended: (cause: unknown) => void
}

/** One connection to a broker, with AMQP's handshake behind it. */
export interface DriverConnection {
  /** The broker's name and version. */
  readonly product: string
  /** Most channels at a time. */
  readonly channelMax: number
  /** Most bytes of a frame; 0: no limit. */
  readonly frameMax: number
  /** In seconds; 0: none. */
  readonly heartbeat: number
  /** How many bytes have been read. */
  readonly bytesRead: number
  /** Begins to tell. What came behind the handshake waits until then. */
  readonly watch: (events: ConnectionEvents) => void
  /** Sends `channel.open`. */
  readonly openChannel: (events: ChannelEvents) => DriverChannel
  /** `connection.update-secret`. */
  readonly updateSecret: (secret: Buffer, reason: string) => void
  /** `connection.close`, behind all that was written. `ended` follows when the broker has answered. */
  readonly close: () => void
  /** Ends it at once, without a word to the broker. Channels are told, `ended` is not called. */
  readonly destroy: (cause: Error) => void
}
