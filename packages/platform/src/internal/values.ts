/** Values of Effect 3 in options and messages, as Effect 4 has them. */
import * as BigDecimal4 from "@effect-amqp/effect4/BigDecimal"
import * as Redacted4 from "@effect-amqp/effect4/Redacted"
import type { AmqpMessage as Core } from "@effect-amqp/core"
import * as BigDecimal from "effect/BigDecimal"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"
import type { Message } from "../model/message.ts"

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** An object that is being translated, within the objects around it. */
interface Frame {
  readonly value: object
  readonly parent: Frame | undefined
  readonly depth: number
  copy: object | undefined
}

// The core refuses deeper tables. They must not overflow the stack before it does.
const maxDepth = 1024

const copyOf = (frame: Frame): object => {
  // The copy has the prototype of the original: the core tells own options from inherited ones.
  frame.copy ??= Array.isArray(frame.value)
    ? (frame.value.slice() as Array<unknown>)
    : (Object.create(
        Object.getPrototypeOf(frame.value) as object | null,
        Object.getOwnPropertyDescriptors(frame.value)
      ) as object)
  return frame.copy
}

const set = (frame: Frame, key: PropertyKey, value: unknown): void => {
  Object.defineProperty(copyOf(frame), key, { value, enumerable: true, configurable: true, writable: true })
}

const translateInstance = (value: object): unknown => {
  if (Duration.isDuration(value)) return Duration.toMillis(value)
  if (Redacted.isRedacted(value)) return Redacted4.make(Redacted.value(value))
  if (DateTime.isDateTime(value)) return DateTime.toDate(value)
  if (BigDecimal.isBigDecimal(value)) return BigDecimal4.make(value.value, value.scale)
  return value
}

/** A value with everything in it translated; the same value if there is nothing to translate. */
const translate = (value: unknown, parent?: Frame): unknown => {
  if (typeof value !== "object" || value === null) return value
  // A message's content, most of the time.
  if (ArrayBuffer.isView(value)) return value
  const isArray = Array.isArray(value)
  if (!isArray && !isPlain(value)) return translateInstance(value)
  // What contains itself stays so, because the core refuses it by its path.
  for (let around = parent; around !== undefined; around = around.parent) {
    if (around.value === value) return copyOf(around)
  }
  const depth = parent === undefined ? 0 : parent.depth + 1
  if (depth > maxDepth) return value
  const frame: Frame = { value, parent, depth, copy: undefined }
  if (isArray) {
    for (let i = 0; i < value.length; i++) {
      const before: unknown = value[i]
      const after = translate(before, frame)
      if (after !== before) set(frame, i, after)
    }
  } else {
    for (const key of Object.keys(value)) {
      const before = (value as Record<string, unknown>)[key]
      const after = translate(before, frame)
      if (after !== before) set(frame, key, after)
    }
  }
  return frame.copy ?? value
}

/** Options as the core reads them. The core checks them, so they may be anything. */
export const toOptions4 = <T>(options: unknown): T => translate(options) as T

/**
 * A message as the core reads it. Its headers stay the same object unless they hold a value of Effect 3, because the
 * core knows the headers that it has delivered.
 */
export const toMessage4 = (message: Message): Core.Message => translate(message) as Core.Message

/** Replaces the decimals of Effect 4 in a delivered field table by those of Effect 3. Hardly any publisher sends one. */
export const adoptTable = <T>(table: T): T => {
  if (typeof table !== "object" || table === null) return table
  const entries = table as Record<string, unknown>
  for (const key of Object.keys(entries)) {
    const value = entries[key]
    if (typeof value !== "object" || value === null) continue
    if (BigDecimal4.isBigDecimal(value)) entries[key] = BigDecimal.make(value.value, value.scale)
    else if (Array.isArray(value) || isPlain(value)) adoptTable(value)
  }
  return table
}
