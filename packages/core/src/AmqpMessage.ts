/**
 * Messages as plain data: what is published, and what is delivered.
 *
 * @since 0.1.0
 */

/**
 * The basic properties of a message, in AMQP's words (AMQP 0-9-1, class `basic`;
 * https://www.rabbitmq.com/docs/publishers#message-properties). All are optional.
 */
export interface Properties {
  /** MIME type of the content, such as `application/json`. */
  readonly contentType?: string | undefined
  /** MIME content encoding, such as `utf-8` or `gzip`. */
  readonly contentEncoding?: string | undefined
  /** Application headers. Values are those of an AMQP field table. */
  readonly headers?: Headers | undefined
  /** Whether the message survives a restart of the broker, on a durable queue. Default: `true`. */
  readonly persistent?: boolean | undefined
  /** 0 to 255; queues with `x-max-priority` use it. */
  readonly priority?: number | undefined
  readonly correlationId?: string | undefined
  readonly replyTo?: string | undefined
  /** Time to live in milliseconds, after which the broker drops or dead-letters the message. */
  readonly expiration?: number | undefined
  readonly messageId?: string | undefined
  /** Seconds on the wire: milliseconds are cut off. */
  readonly timestamp?: Date | undefined
  readonly type?: string | undefined
  /** RabbitMQ refuses the message if this is not the connection's user. */
  readonly userId?: string | undefined
  readonly appId?: string | undefined
}

/** Application headers: an AMQP field table. */
export interface Headers {
  readonly [key: string]: unknown
}

/** A message to be published. */
export interface Message extends Properties {
  /** The exchange. Default: `""`, the default exchange, which routes to the queue named by `routingKey`. */
  readonly exchange?: string | undefined
  readonly routingKey: string
  /**
   * The body. Text is sent as UTF-8. Bytes are not copied: do not change them until `publish` has completed.
   */
  readonly content: string | Uint8Array
}

/** A message that a queue handed out. It stays unsettled until it is acknowledged, rejected or requeued. */
export interface Delivery {
  readonly content: Uint8Array
  readonly properties: Properties
  readonly exchange: string
  readonly routingKey: string
  /** Whether the broker has handed this message out before. */
  readonly redelivered: boolean
  /** Counts the deliveries of one channel: it means nothing on another. */
  readonly deliveryTag: number
  /** What was left in the queue, for messages taken with `get`. */
  readonly messageCount: number | undefined
}

const decoder = new TextDecoder()

/** The content of a delivery as text, read as UTF-8. */
export const text = (delivery: Delivery): string => decoder.decode(delivery.content)
