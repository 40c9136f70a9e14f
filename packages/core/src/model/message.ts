/** What travels: messages and their properties, as plain data. */
import type * as BigDecimal from "effect/BigDecimal"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { AmqpError } from "./error.ts"

/**
 * A value of an AMQP field table, the form of headers and of the arguments of declarations.
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
 * Other publishers have more to choose from: unsigned and short integers, integers of tag `L` and floats are delivered as
 * `number` (or `bigint`), a timestamp beyond the year 275760 as a `bigint` of seconds, and what is nested more than 512 deep
 * as the bytes of its encoding. A byte of a key that is not UTF-8 is a lone surrogate, U+DC80 to U+DCFF for 0x80 to 0xFF,
 * and is written as that byte again.
 *
 * Headers of a delivery can be published again, whatever they are: each of them that still is what was read is written as
 * the bytes that it was, with the type that its publisher chose. That holds for `properties.headers` itself, as
 * `fromDelivery` has them, not for a table into which they were copied.
 *
 * Refused with `InvalidArgument`, before anything is sent: `NaN` and the infinities (RabbitMQ closes the connection on
 * them), text with a lone surrogate, keys of more than 255 bytes, decimals that are negative or of more than 32 bits,
 * `undefined` in an array, instances of classes, functions, symbols, cycles, more than 512 tables in one another, and
 * headers that do not fit into a frame with the other properties (`frameMax`). Arguments of declarations and bindings have to
 * fit into a frame with all names, and have at most 64 KiB.
 *
 * Sources: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3; AMQP 0-9-1, section 4.2.5.
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

/** An AMQP field table. Keys whose value is `undefined` are left out; `__proto__` is a key like any other. */
export interface FieldTable {
  readonly [key: string]: FieldValue | undefined
}

/** Application headers: an AMQP field table. */
export type Headers = FieldTable

/**
 * The basic properties of a message, in AMQP's words (AMQP 0-9-1, class `basic`;
 * https://www.rabbitmq.com/docs/publishers#message-properties). All are optional. Texts have at most 255 bytes. A byte that
 * is not UTF-8 is delivered as a lone surrogate, U+DC80 to U+DCFF for 0x80 to 0xFF, and written as that byte again.
 */
export interface Properties {
  /** MIME type of the content, such as `application/json`. */
  readonly contentType?: string | undefined
  /** MIME content encoding, such as `utf-8` or `gzip`. */
  readonly contentEncoding?: string | undefined
  /** Application headers. */
  readonly headers?: Headers | undefined
  /** Whether the message survives a restart of the broker, on a durable queue. Default: `true`. */
  readonly persistent?: boolean | undefined
  /** 0 to 255; queues with `x-max-priority` use it. */
  readonly priority?: number | undefined
  readonly correlationId?: string | undefined
  readonly replyTo?: string | undefined
  /**
   * Time to live, after which the broker drops or dead-letters the message. A number is milliseconds. Whole milliseconds
   * from 0 to 315,360,000,000 (3650 days), RabbitMQ's maximum (https://www.rabbitmq.com/docs/ttl).
   */
  readonly expiration?: Duration.Input | undefined
  readonly messageId?: string | undefined
  /** From 1970 on. Seconds on the wire: milliseconds are cut off. */
  readonly timestamp?: Date | DateTime.DateTime | undefined
  readonly type?: string | undefined
  /** RabbitMQ refuses the message if this is not the connection's user. */
  readonly userId?: string | undefined
  readonly appId?: string | undefined
}

/** Properties as they arrive. */
export interface DeliveredProperties extends Properties {
  /** Empty if the message has none. */
  readonly headers: Headers
  readonly persistent: boolean
  /** In milliseconds. */
  readonly expiration?: number | undefined
  /** `undefined` also for what is beyond the years of a `Date`: nanoseconds in the place of seconds, for one. */
  readonly timestamp?: Date | undefined
}

/** Where a message goes, and its properties: a message without its content. */
export interface Envelope extends Properties {
  /** The exchange. Default: `""`, the default exchange, which routes to the queue named by `routingKey`. */
  readonly exchange?: string | undefined
  /**
   * At most 255 bytes, like the exchange's name. On the default exchange, what looks like an address of direct reply-to
   * (`amq.rabbitmq.reply-to.…`) and is none is refused, also among the headers `CC` and `BCC`: RabbitMQ up to 4.0 closes
   * the connection over it.
   */
  readonly routingKey: string
}

/** A message to be published. Properties that are not known here are refused. */
export interface Message extends Envelope {
  /**
   * The body. Text is sent as UTF-8, and refused if it cannot be: with a lone surrogate. Neither bytes nor headers are
   * copied: do not change them until `publish` has completed.
   */
  readonly content: string | Uint8Array
}

/** A message that a queue handed out. It stays unsettled until it is acknowledged, rejected or requeued. */
export interface Delivery {
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
  readonly exchange: string
  readonly routingKey: string
  /** Whether the broker has handed this message out before. */
  readonly redelivered: boolean
  /** Counts the deliveries of one channel: it means nothing on another. */
  readonly deliveryTag: number
  /** What was left in the queue, for messages taken with `get`. */
  readonly messageCount: number | undefined
}

/** Makes messages of values, and values of deliveries, by a schema. See `json`. */
export interface Json<S extends Schema.Constraint> {
  /**
   * The message with this value as its content, `contentType` `application/json` and `contentEncoding` `utf-8` unless the
   * envelope says otherwise. Fails with `InvalidArgument` if the value is not what the schema wants.
   */
  readonly encode: {
    (envelope: Envelope): (value: S["Type"]) => Effect.Effect<Message, AmqpError, S["EncodingServices"]>
    (value: S["Type"], envelope: Envelope): Effect.Effect<Message, AmqpError, S["EncodingServices"]>
  }
  /**
   * The value of a delivery. Fails with `DecodeFailed`, whose message says what is wrong and where, but not what the
   * content is:
   *
   * - a `contentType` that is not JSON's: `application/json` and types that end in `+json` are, with UTF-8 as `charset`
   *   if they name one; a message without content type is taken for JSON;
   * - a `contentEncoding` other than `utf-8` or `identity`, such as `gzip`;
   * - content that is not UTF-8, not JSON, or not what the schema wants.
   */
  readonly decode: (
    delivery: Pick<Delivery, "content"> & { readonly properties: Properties }
  ) => Effect.Effect<S["Type"], AmqpError, S["DecodingServices"]>
}
