/** Baggage: names and values that go along with a piece of work. */
import * as Context from "effect/Context"

/**
 * The value of a name, and what is said about it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  /** Any text. */
  readonly value: string
  /** Properties in W3C's words, such as `ttl=60;internal`; they are handed on as they are. Default: none. */
  readonly metadata?: string | undefined
}

/**
 * Values by their names. Names are tokens as HTTP has them: letters, digits and ``!#$%&'*+-.^_`|~``.
 *
 * @category models
 * @since 0.1.0
 */
export type Baggage = ReadonlyMap<string, Entry>

const none: Baggage = new Map()

/**
 * The baggage of the current fiber, and of those that it forks. Default: none.
 *
 * @category references
 * @since 0.1.0
 */
export const Current: Context.Reference<Baggage> = Context.Reference<Baggage>("@effect-amqp/core/AmqpBaggage", {
  defaultValue: () => none
})
