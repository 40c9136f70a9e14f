/** Messages, their properties and field tables, as plain data. */
import type * as BigDecimal from "effect/BigDecimal"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { AmqpError } from "./error.ts"

/**
 * A value of an AMQP field table. Headers and the arguments of declarations are field tables.
 *
 * **When to use**
 *
 * Use to look up how a value of a header is encoded, and what it is when it is delivered.
 *
 * **Details**
 *
 * | published                              | on the wire (RabbitMQ's tag)     | delivered                                     |
 * | -------------------------------------- | -------------------------------- | --------------------------------------------- |
 * | `null`, `boolean`                      | void `V`, boolean `t`            | the same                                      |
 * | `number`, a safe integer               | the smallest of `b`, `s`, `I`, `l` | the same                                    |
 * | `number`, any other; `-0`              | double `d`                       | the same                                      |
 * | `bigint` from -2^63 to 2^63 - 1        | 64-bit integer `l`               | `number` if it is a safe integer, else `bigint` |
 * | `string`                               | long string `S`                  | the same; `Uint8Array` if it is not UTF-8     |
 * | `Uint8Array`, also a `Buffer`          | byte array `x`                   | `Uint8Array`, its own                         |
 * | `Date`, `DateTime`, from 1970 on       | timestamp `T`, in seconds        | `Date`, milliseconds cut off                  |
 * | `BigDecimal`                           | decimal `D`                      | `BigDecimal`                                  |
 * | array                                  | array `A`                        | array                                         |
 * | plain object                           | table `F`                        | object without a prototype                    |
 *
 * Other publishers can send more types. Unsigned and short integers, integers of tag `L` and floats are delivered as
 * `number` (or `bigint`), a timestamp beyond the year 275760 as a `bigint` of seconds, and a value that is nested more
 * than 512 levels deep as the bytes of its encoding. A byte of a key that is not UTF-8 is delivered as a lone
 * surrogate, U+DC80 to U+DCFF for 0x80 to 0xFF, and is written as that byte again.
 *
 * The headers of a delivery can be published again, whatever they are: each header that still is the value that was
 * read is written as the bytes that were read, with the type that its publisher chose. That holds for
 * `properties.headers` itself, which `fromDelivery` passes on, but not for a table into which the headers were copied.
 *
 * **Gotchas**
 *
 * The following are refused with `InvalidArgument`, before anything is sent:
 *
 * - `NaN` and the infinities, because RabbitMQ closes the connection over them;
 * - text with a lone surrogate;
 * - keys of more than 255 bytes;
 * - decimals that are negative or have more than 32 bits;
 * - `undefined` in an array;
 * - instances of classes, functions, symbols and cycles;
 * - more than 512 tables nested in one another;
 * - headers that do not fit into a frame with the other properties (`frameMax`).
 *
 * Arguments of declarations and bindings must fit into a frame with all names, and have at most 64 KiB.
 *
 * Sources: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3; AMQP 0-9-1, section 4.2.5.
 *
 * @see {@link FieldTable}
 *
 * @category models
 * @since 0.1.0
 */
export type FieldValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Date
  | DateTime.DateTime
  | BigDecimal.BigDecimal
  | ReadonlyArray<FieldValue>
  | FieldTable

/**
 * An AMQP field table: values by their keys.
 *
 * **When to use**
 *
 * Use as the type of headers and of the arguments of declarations.
 *
 * **Details**
 *
 * Keys whose value is `undefined` are left out. `__proto__` is a key like any other.
 *
 * @see {@link FieldValue} for the types of values, and for what is refused
 *
 * @category models
 * @since 0.1.0
 */
export interface FieldTable {
  readonly [key: string]: FieldValue | undefined
}

/**
 * The application headers of a message: an AMQP field table.
 *
 * **When to use**
 *
 * Use as the type of `headers` of a message, and of the `arguments` of declarations, bindings and consumers.
 *
 * @see {@link FieldTable}
 *
 * @category models
 * @since 0.1.0
 */
export type Headers = FieldTable

/**
 * The basic properties of a message, by their names in AMQP.
 *
 * **When to use**
 *
 * Use to describe a message for its consumers and for the broker: the type of its content, its headers, its time to
 * live.
 *
 * **Details**
 *
 * All properties are optional. Texts have at most 255 bytes. A byte of a text that is not UTF-8 is delivered as a lone
 * surrogate, U+DC80 to U+DCFF for 0x80 to 0xFF, and is written as that byte again.
 *
 * Sources: AMQP 0-9-1, class `basic`; https://www.rabbitmq.com/docs/publishers#message-properties.
 *
 * @see {@link Message} for a message to be published
 * @see {@link DeliveredProperties} for the properties of a delivery
 *
 * @category models
 * @since 0.1.0
 */
export interface Properties {
  /** MIME type of the content, such as `application/json`. */
  readonly contentType?: string | undefined
  /** MIME content encoding, such as `utf-8` or `gzip`. */
  readonly contentEncoding?: string | undefined
  /** Application headers. */
  readonly headers?: Headers | undefined
  /** Whether the message survives a restart of the broker, in a durable queue. Default: `true`. */
  readonly persistent?: boolean | undefined
  /** Priority of the message, 0 to 255, for queues with `x-max-priority`. */
  readonly priority?: number | undefined
  /** Identifier that correlates a reply with its request. */
  readonly correlationId?: string | undefined
  /** Routing key that replies go to, usually the name of a queue. */
  readonly replyTo?: string | undefined
  /**
   * Time to live, after which the broker drops or dead-letters the message. A number is milliseconds. Whole
   * milliseconds from 0 to 315,360,000,000 (3650 days), RabbitMQ's maximum (https://www.rabbitmq.com/docs/ttl).
   */
  readonly expiration?: Duration.Input | undefined
  /** Identifier of the message, which the application chooses. */
  readonly messageId?: string | undefined
  /** Time of the message, from 1970 on. It is sent in seconds: milliseconds are cut off. */
  readonly timestamp?: Date | DateTime.DateTime | undefined
  /** Type of the message, which the application chooses. */
  readonly type?: string | undefined
  /** User that publishes. RabbitMQ refuses the message if this is not the connection's user. */
  readonly userId?: string | undefined
  /** Identifier of the application that publishes. */
  readonly appId?: string | undefined
}

/**
 * The properties of a message as they are delivered.
 *
 * **When to use**
 *
 * Use as the type of `properties` of a delivery.
 *
 * @see {@link Properties} for the properties that a publisher sets
 *
 * @category models
 * @since 0.1.0
 */
export interface DeliveredProperties extends Properties {
  /** Application headers; empty if the message has none. */
  readonly headers: Headers
  /** Whether the message survives a restart of the broker, in a durable queue. */
  readonly persistent: boolean
  /** Time to live, in milliseconds. */
  readonly expiration?: number | undefined
  /**
   * Time of the message. It is also `undefined` for a time beyond the years of a `Date`, for instance if the publisher
   * sent nanoseconds instead of seconds.
   */
  readonly timestamp?: Date | undefined
}

/**
 * A message without its content: where it goes, and its properties.
 *
 * **When to use**
 *
 * Use with `encode` of `AmqpMessage.json`, which adds the content.
 *
 * @see {@link Message} for an envelope with its content
 *
 * @category models
 * @since 0.1.0
 */
export interface Envelope extends Properties {
  /** The exchange. Default: `""`, the default exchange, which routes to the queue that `routingKey` names. */
  readonly exchange?: string | undefined
  /**
   * The routing key. At most 255 bytes, like the exchange's name.
   *
   * On the default exchange, a key that looks like an address of direct reply-to (`amq.rabbitmq.reply-to.…`) and is
   * none is refused, also in the headers `CC` and `BCC`: RabbitMQ up to 4.0 closes the connection over it.
   */
  readonly routingKey: string
}

/**
 * A message to be published.
 *
 * **When to use**
 *
 * Use with `publish` of a channel, with `AmqpPublisher.publish` and with `AmqpPublisher.publishAll`.
 *
 * **Gotchas**
 *
 * A message with a property that is not known here is refused.
 *
 * @see {@link Json} for making messages from values
 *
 * @category models
 * @since 0.1.0
 */
export interface Message extends Envelope {
  /**
   * The body. Text is sent as UTF-8, and refused if it has a lone surrogate, which UTF-8 cannot encode. Neither bytes
   * nor headers are copied: do not change them until `publish` has completed.
   */
  readonly content: string | Uint8Array
}

/**
 * A message as plain strings and bytes, to be stored and published later, exactly.
 *
 * **When to use**
 *
 * Use as the type of what `AmqpMessage.toEncoded` returns and `AmqpMessage.fromEncoded` reads, for instance for the
 * columns of a table.
 *
 * **Gotchas**
 *
 * `exchange` and `routingKey` may contain U+0000, and, in a message that was forwarded from a delivery, lone surrogates
 * (see `Properties`). PostgreSQL's type `text` accepts neither.
 *
 * @see {@link Message} for a message as its publisher writes it
 *
 * @category models
 * @since 0.1.0
 */
export interface Encoded {
  /** The exchange; `""` is the default exchange. */
  readonly exchange: string
  /** The routing key. */
  readonly routingKey: string
  /**
   * The properties, headers included, as they are sent: flags and values of AMQP's property list for class `basic`
   * (AMQP 0-9-1, section 4.2.6.1). The format is the protocol's, so it does not change with the library's version.
   */
  readonly properties: Uint8Array
  /** The body. It is a view if the message's content is bytes, otherwise the text in UTF-8. */
  readonly content: Uint8Array
}

/**
 * Limits for a message that is encoded without a connection.
 *
 * **When to use**
 *
 * Use with `AmqpMessage.toEncoded` if your broker or your configuration has other limits than RabbitMQ's defaults.
 *
 * @category options
 * @since 0.1.0
 */
export interface EncodeOptions {
  /**
   * Maximum size of a frame, in bytes, of the connection that will publish the message: the properties have to fit into
   * one frame. 4096 to 2^32 - 1. Default: 131072, that of RabbitMQ and of `AmqpConfig`.
   */
  readonly frameMax?: number | undefined
  /**
   * Maximum size of the content, in bytes. At least 1. Default: 128 MiB, the default of RabbitMQ 3; that of RabbitMQ 4
   * is 16 MiB (https://www.rabbitmq.com/docs/configure#config-items, `max_message_size`).
   */
  readonly maxMessageSize?: number | undefined
}

/**
 * A message that a queue has delivered to a channel.
 *
 * **When to use**
 *
 * Use for what `get` and `consume` of a borrowed channel deliver. The deliveries of `AmqpConsumer` are of another type,
 * which settles itself.
 *
 * **Details**
 *
 * The delivery stays unsettled until it is acknowledged, rejected or requeued by `ack`, `nack` or `reject` of its
 * channel.
 *
 * @category models
 * @since 0.1.0
 */
export interface Delivery {
  /** The body. It is a view into what the socket has read: see `AmqpMessage.bytes`. */
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
  /** The exchange that routed the message to the queue. */
  readonly exchange: string
  /** The routing key that the message was routed by. */
  readonly routingKey: string
  /** Whether the broker has delivered this message before. */
  readonly redelivered: boolean
  /** Number of the delivery on its channel. It has no meaning on another channel. */
  readonly deliveryTag: number
  /** Number of messages that were left in the queue, for a message that `get` has taken; otherwise `undefined`. */
  readonly messageCount: number | undefined
}

/**
 * Encodes values to messages with JSON content, and decodes deliveries to values, by a schema.
 *
 * **When to use**
 *
 * Use as the type of what `AmqpMessage.json` returns.
 *
 * @category models
 * @since 0.1.0
 */
export interface Json<S extends Schema.Constraint> {
  /**
   * Makes a message with a value as its JSON content. `contentType` is `application/json` and `contentEncoding` is
   * `utf-8`, unless the envelope sets them. It fails with `InvalidArgument` if the value does not match the schema.
   */
  readonly encode: {
    /**
     * Makes messages with the same envelope from values: for `Effect.flatMap`, or for a `Stream.mapEffect`.
     *
     * **Details**
     *
     * The value becomes the JSON content. `contentType` is `application/json` and `contentEncoding` is `utf-8`, unless
     * the envelope sets them. It fails with `InvalidArgument` if the value does not match the schema.
     */
    (envelope: Envelope): (value: S["Type"]) => Effect.Effect<Message, AmqpError, S["EncodingServices"]>
    /**
     * Makes a message from a value and an envelope.
     *
     * **Details**
     *
     * The value becomes the JSON content. `contentType` is `application/json` and `contentEncoding` is `utf-8`, unless
     * the envelope sets them. It fails with `InvalidArgument` if the value does not match the schema.
     */
    (value: S["Type"], envelope: Envelope): Effect.Effect<Message, AmqpError, S["EncodingServices"]>
  }
  /**
   * Decodes the value of a delivery. It fails with `DecodeFailed`, whose message says what is wrong and where, but not
   * what the content is, for:
   *
   * - a `contentType` that is not JSON. `application/json` and types that end in `+json` are JSON, with UTF-8 as
   *   `charset` if they name one; a message without a content type is read as JSON;
   * - a `contentEncoding` other than `utf-8` or `identity`, such as `gzip`;
   * - content that is not UTF-8, is not JSON, or does not match the schema.
   */
  readonly decode: (
    delivery: Pick<Delivery, "content"> & { readonly properties: Properties }
  ) => Effect.Effect<S["Type"], AmqpError, S["DecodingServices"]>
}
