/**
 * The interface between the driver and the rest of the library, which imports it from `driver.ts`: connections,
 * channels and their events.
 */
import type { DeliveredProperties, FieldTable } from "../../model/message.ts"
import type { BrokerClose, ChannelEnded, ProtocolViolation } from "./errors.ts"
import type { Outgoing } from "../wire/properties.ts"

/** A message that a consumer or `basic.get` receives. */
export interface DeliveredMessage {
  /** The consumer's tag; empty for `basic.get`. */
  readonly consumerTag: string
  readonly deliveryTag: number
  readonly redelivered: boolean
  readonly exchange: string
  readonly routingKey: string
  /** The number of messages left in the queue, as `basic.get-ok` states it; `undefined` for a consumer's delivery. */
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

/**
 * A message whose content is dropped, because its body is larger than `maxInboundMessageBodySize` or its header cannot
 * be decoded.
 */
export type DroppedMessage = DroppedGet | DroppedDelivery | DroppedReturn

export interface DroppedGet {
  readonly method: "basic.get"
  readonly message: Omit<DeliveredMessage, "content">
  /** The size of the body, in bytes. */
  readonly size: number
  readonly queue: string
  readonly noAck: boolean
  /** Fails the `get` call that waits for the message. */
  readonly fail: (cause: unknown) => void
}

export interface DroppedDelivery {
  readonly method: "basic.deliver"
  readonly message: Omit<DeliveredMessage, "content">
  /** The size of the body, in bytes. */
  readonly size: number
}

export interface DroppedReturn {
  readonly method: "basic.return"
  readonly message: Omit<ReturnedMessage, "content">
  /** The size of the body, in bytes. */
  readonly size: number
}

/** Why a channel ended: the broker's `channel.close`, a protocol violation by the broker, or `ChannelEnded`. */
export type ChannelEnd = BrokerClose | ProtocolViolation | ChannelEnded

/**
 * The events of one channel. The driver calls them while it reads bytes from the socket, in the order of the frames.
 * They must not throw, and must not keep their arguments beyond the call unless the event says so.
 */
export interface ChannelEvents {
  /** The broker has answered `channel.open`. */
  readonly opened: () => void
  /** `channel.open` cannot be sent, because all channel numbers of the connection are in use. */
  readonly notOpened: (cause: unknown) => void
  /** A message was delivered to a consumer. The receiver may keep it. */
  readonly delivered: (message: DeliveredMessage) => void
  /** The broker returned a mandatory message. The receiver may keep it. */
  readonly returned: (message: ReturnedMessage) => void
  /**
   * The broker confirmed a publish with `basic.ack` (`isAck`) or `basic.nack`. Tag 0 with `multiple` stands for all
   * outstanding publishes.
   */
  readonly confirmed: (deliveryTag: number, multiple: boolean, isAck: boolean) => void
  /** The broker sent `channel.flow`; the driver has already answered it. */
  readonly flow: (active: boolean) => void
  /** The broker cancelled a consumer (`basic.cancel`). */
  readonly cancelled: (consumerTag: string) => void
  /**
   * A body is larger than `maxInboundMessageBodySize`. Returns whether the message has been dealt with; if not, the
   * channel is closed.
   */
  readonly oversized: (dropped: DroppedMessage) => boolean
  /**
   * A content header cannot be decoded. Returns whether the message has been dealt with; if not, the channel is closed.
   */
  readonly undecodable: (dropped: DroppedMessage, problem: Error) => boolean
  /** The output has room again, after `publish` returned `false`. */
  readonly drained: () => void
  /** The channel ended for another reason than `close`. Called at most once. `undefined`: its connection ended. */
  readonly closed: (end: ChannelEnd | undefined) => void
  /** The channel is released: the broker knows that it is closed, or the connection has ended. Called once. */
  readonly gone: () => void
}

/** The counts that `queue.declare-ok` reports for a queue. */
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
 * Methods are sent in the order of the calls. A method that has a reply returns a promise. It rejects with the
 * `ChannelEnd` when the channel ends first, and stays pending when the broker does not answer, so callers need a
 * timeout. The other methods throw a `ChannelEnded` when the channel or its connection is closed or closing.
 */
export interface DriverChannel {
  /** The channel's number on its connection; 0 until `opened`. */
  readonly number: number
  /** Writes a message. Returns whether the output has room for more; if not, `drained` follows. */
  readonly publish: (outgoing: Outgoing) => boolean
  readonly ack: (deliveryTag: number, multiple: boolean) => void
  /**
   * Acknowledges one delivery. The frame may be merged with the acknowledgement before it, when no delivery of
   * `unsettled`, which is in the order of the tags, lies between the two.
   */
  readonly ackAmong: (unsettled: ReadonlySet<number>, deliveryTag: number) => void
  readonly nack: (deliveryTag: number, multiple: boolean, requeue: boolean) => void
  readonly reject: (deliveryTag: number, requeue: boolean) => void
  /** Resolves to the next message; `undefined`: the queue is empty. */
  readonly get: (queue: string, noAck: boolean) => Promise<DeliveredMessage | undefined>
  /** Starts a consumer. The caller chooses the tag, because deliveries may directly follow the reply. */
  readonly consume: (queue: string, consumerTag: string, options: ConsumeDeclaration) => Promise<void>
  readonly cancel: (consumerTag: string) => Promise<void>
  readonly qos: (prefetchCount: number, global: boolean) => Promise<void>
  readonly recover: () => Promise<void>
  /** Asks the broker to pause or resume deliveries (`channel.flow`). Resolves to the state that the broker answers. */
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
  /** Resolves to the number of messages that the deleted queue held. */
  readonly queueDelete: (
    queue: string,
    options: { readonly ifEmpty: boolean; readonly ifUnused: boolean }
  ) => Promise<number>
  readonly queueBind: (queue: string, exchange: string, routingKey: string, table: FieldTable) => Promise<void>
  readonly queueUnbind: (queue: string, exchange: string, routingKey: string, table: FieldTable) => Promise<void>
  /** Resolves to the number of messages that were removed. */
  readonly queuePurge: (queue: string) => Promise<number>
  /**
   * Closes the channel after everything that was written before, or once it has opened if it is still opening. `gone`
   * follows when the broker has answered. Does nothing when the channel is closed or closing.
   */
  readonly close: () => void
}

/** The events of a connection. The driver calls them while it reads bytes from the socket. They must not throw. */
export interface ConnectionEvents {
  readonly blocked: (reason: string) => void
  readonly unblocked: () => void
  /** The broker accepted the oldest secret that it had not answered yet. */
  readonly secretUpdated: () => void
  /**
   * The connection ended. Called once, and not after `destroy`. The channels get their own events after this one. The
   * cause is the broker's `BrokerClose`, a `ProtocolViolation`, or what Node or amqplib reported; `undefined`: `close`
   * was called.
   */
  readonly ended: (cause: unknown) => void
}

/** One connection to a broker whose AMQP handshake is complete. */
export interface DriverConnection {
  /** The broker's product name and version. */
  readonly product: string
  /** Maximum number of channels that are open at the same time. */
  readonly channelMax: number
  /** Maximum frame size, in bytes. Where both sides set no limit, this is the largest size that AMQP can express. */
  readonly frameMax: number
  /** Heartbeat interval, in seconds; 0: no heartbeats. */
  readonly heartbeat: number
  /** Number of bytes received so far. */
  readonly bytesRead: number
  /** Starts the events. Frames that arrived after the handshake are held until then. */
  readonly watch: (events: ConnectionEvents) => void
  /** Opens a channel (`channel.open`). */
  readonly openChannel: (events: ChannelEvents) => DriverChannel
  /** Sends `connection.update-secret`. */
  readonly updateSecret: (secret: Buffer, reason: string) => void
  /** Sends `connection.close` after everything that was written. `ended` follows when the broker has answered. */
  readonly close: () => void
  /** Destroys the socket at once, without `connection.close`. The channels get their events; `ended` is not called. */
  readonly destroy: (cause: Error) => void
}
