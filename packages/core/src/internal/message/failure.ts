/** An error as headers and spans report it. */
import { AmqpError } from "../../model/error.ts"
import { redactText } from "./redaction.ts"

/** An error as it is reported: its tag (of an `AmqpError` that of its reason), or its name, and its message. */
export interface Failure {
  readonly tag: string
  readonly message: string
}

// A getter of a foreign error may throw.
export const textOf = (value: unknown, key: string): string | undefined => {
  try {
    const text: unknown = (value as Record<string, unknown>)[key]
    return typeof text === "string" ? text : undefined
  } catch {
    return undefined
  }
}

export const failureOf = (value: unknown): Failure => {
  if (typeof value !== "object" || value === null) return { tag: typeof value, message: primitive(value) }
  // The reason says what has happened.
  if (value instanceof AmqpError) return { tag: value.reason._tag, message: value.message }
  const tag = textOf(value, "_tag") ?? textOf(value, "name") ?? "Object"
  return { tag, message: textOf(value, "message") ?? "" }
}

export const primitive = (value: unknown): string => (typeof value === "function" ? "a function" : String(value))

// Longer texts are truncated, because headers have to fit into one frame.
const longestTag = 128
const longestMessage = 1024

export const truncate = (text: string, longest: number): string =>
  // The cut may split a surrogate pair.
  (text.length > longest ? `${text.slice(0, longest - 1)}…` : text).toWellFormed()

/** A failure as it is written into headers: bounded, and without the secrets that can be recognized. */
export const boundedFailure = ({ message, tag }: Failure): Failure => ({
  tag: truncate(tag, longestTag),
  // A longer text is cut first, so that the expressions run on a bounded one.
  message: truncate(redactText(message.slice(0, 2 * longestMessage)), longestMessage)
})
