/** Baggage: names and values that accompany a piece of work. */
import * as Context from "effect/Context"

/**
 * A value of baggage, and its metadata.
 *
 * **When to use**
 *
 * Use with `AmqpBaggage.add` to add a value with metadata, and to read what `Current` has.
 *
 * @see {@link Baggage}
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  /** The value: any text. */
  readonly value: string
  /** W3C's properties of the value, such as `ttl=60;internal`. They are passed on unchanged. Default: none. */
  readonly metadata?: string | undefined
}

/**
 * Values by their names.
 *
 * **When to use**
 *
 * Use as the type of the whole baggage of a fiber, a header or a delivery.
 *
 * **Details**
 *
 * Names are tokens as HTTP defines them: letters, digits and ``!#$%&'*+-.^_`|~``.
 *
 * @see {@link Current} for the baggage of the current fiber
 *
 * @category models
 * @since 0.1.0
 */
export type Baggage = ReadonlyMap<string, Entry>

const none: Baggage = new Map()

/**
 * The baggage of the current fiber, and of the fibers that it forks.
 *
 * **When to use**
 *
 * Use to read the whole baggage, or to replace it. For one value use `AmqpBaggage.get` and `AmqpBaggage.add`.
 *
 * **Details**
 *
 * Default: no values.
 *
 * @category references
 * @since 0.1.0
 */
export const Current: Context.Reference<Baggage> = Context.Reference<Baggage>("@effect-amqp/core/AmqpBaggage", {
  defaultValue: () => none
})
