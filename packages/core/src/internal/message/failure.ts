/** An error, as far as headers and spans tell it. */

/** An error as far as it is told: its tag, or its name, and its message. */
export interface Failure {
  readonly tag: string
  readonly message: string
}

// A getter of somebody's error may throw.
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
  const tag = textOf(value, "_tag") ?? textOf(value, "name") ?? "Object"
  return { tag, message: textOf(value, "message") ?? "" }
}

export const primitive = (value: unknown): string => (typeof value === "function" ? "a function" : String(value))
