/** The log of an example in a terminal: one line per event. */
import { Array, Cause, type Layer, Logger, References } from "effect"

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 3 })

/** Escapes what would begin a new line, or act on the terminal. */
const escape = (text: string) =>
  text.replace(
    // oxlint-disable-next-line no-control-regex
    /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g,
    (character) => (character === "\n" ? String.raw`\n` : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)
  )

const quote = (text: string) => `"${escape(text).replaceAll('"', String.raw`\"`)}"`

const format = (value: unknown): string => {
  if (typeof value === "number" || typeof value === "bigint") return number.format(value)
  if (typeof value === "string") return /^[\p{L}\p{N}._:/@*#-]+$/u.test(value) ? value : quote(value)
  return escape(JSON.stringify(value) ?? String(value))
}

/** A message is a sentence, which needs no quotes. */
const say = (message: unknown) => (typeof message === "string" ? escape(message) : format(message))

const isExpected = (cause: Cause.Cause<unknown>) => cause.reasons.every((reason) => !Cause.isDieReason(reason))

/**
 * A line has the time (UTC), the level, the message and the annotations, with numbers as 12,345. An expected failure is one
 * of the annotations. Only a defect, which is a mistake in the program, has its stack on the following lines.
 */
export const compact: Logger.Logger<unknown, string> = Logger.make(({ cause, date, fiber, logLevel, message }) => {
  const annotations = Object.entries(fiber.getRef(References.CurrentLogAnnotations))
  const errors = cause.reasons.length > 0 && isExpected(cause) ? Cause.prettyErrors(cause) : []
  const line = [
    date.toISOString().slice(11, 23),
    logLevel.toUpperCase().padEnd(5),
    ...Array.ensure(message).map(say),
    ...errors.map((error) => `error=${quote(`${error.name}: ${error.message}`)}`),
    ...annotations.map(([name, value]) => `${name}=${format(value)}`)
  ].join(" ")
  return isExpected(cause) ? line : `${line}\n${Cause.pretty(cause)}`
})

export const layer: Layer.Layer<never> = Logger.layer([Logger.withConsoleLog(compact)])
