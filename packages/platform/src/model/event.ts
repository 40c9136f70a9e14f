/**
 * Events: a schema, an exchange and a routing key in one value.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"
import type { Json } from "../AmqpMessage.ts"
import type { PublishOptions } from "./channel.ts"
import type { Properties } from "./message.ts"

/**
 * Options of an event.
 *
 * **When to use**
 *
 * Use with `make`.
 *
 * **Details**
 *
 * An event whose routing key is a function of its value says with which `bindingKey` queues receive all of its values.
 *
 * @category options
 * @since 0.1.0
 */
export type EventOptions<S extends Schema.Schema.All> = {
  /** The schema of the event. Its values are sent as JSON. */
  readonly schema: S
  /** The exchange to publish to. Default: `""`, the default exchange, which routes to the queue named by `routingKey`. */
  readonly exchange?: string | undefined
  /** Properties of each message of the event. `type` is the event's name unless it is set here. */
  readonly properties?: Properties | undefined
} & (
  | {
      /** The routing key. At most 255 bytes. */
      readonly routingKey: string
      /** The binding key with which queues receive the event. Default: `routingKey`. */
      readonly bindingKey?: string | undefined
    }
  | {
      /** Derives the routing key from a value. At most 255 bytes. */
      readonly routingKey: (value: Schema.Schema.Type<S>) => string
      /** The binding key with which queues receive all values of the event, such as `order.placed.*`. */
      readonly bindingKey: string
    }
)

/**
 * An event: what is published, where to, and how consumers read it.
 *
 * **When to use**
 *
 * Use as the type of a value that `make` returns.
 *
 * @see {@link make} for declaring an event
 *
 * @category models
 * @since 0.1.0
 */
export interface Event<S extends Schema.Schema.All> {
  /** Its name, which messages have as their `type`. */
  readonly name: string
  /** The schema of its values, for the option `schema` of consumers. */
  readonly schema: S
  /** The exchange to publish to. */
  readonly exchange: string
  /** The routing key of a value. */
  readonly routingKey: (value: Schema.Schema.Type<S>) => string
  /** The binding key with which queues receive the event. */
  readonly bindingKey: string
  /** Properties of each message. */
  readonly properties: Properties
  /** Encodes and decodes its values. */
  readonly json: Json<Schema.Schema.Type<S>, Schema.Schema.Context<S>>
}

/**
 * Options of publishing an event.
 *
 * **When to use**
 *
 * Use with `publish`, for a deadline, for properties of this message such as a `messageId`, or to allow that no queue
 * receives it.
 *
 * @category options
 * @since 0.1.0
 */
export interface PublishEventOptions extends PublishOptions {
  /**
   * Whether the publish fails with `PublishReturned` if no queue is bound for the event. Default: `true`, so that an event
   * is never lost silently. Use `false` for events that need no subscriber.
   */
  readonly mandatory?: boolean | undefined
  /** Properties of this message, in addition to those of the event. */
  readonly properties?: Properties | undefined
}
