/** Messages, for people and as JSON. */
import type { AmqpMessage } from "@effect-amqp/core"
import type { Output } from "./Output.ts"
import * as Text from "./text.ts"

type Message = Pick<AmqpMessage.Delivery, "content" | "exchange" | "routingKey"> & {
  readonly properties: AmqpMessage.Properties
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const textOf = (content: Uint8Array): string | undefined => {
  try {
    return utf8.decode(content)
  } catch {
    return undefined
  }
}

/** A value of a header as JSON has it: bytes become base64, times ISO 8601. */
const plain = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return textOf(value) ?? { base64: Buffer.from(value).toString("base64") }
  if (value instanceof Date) return value.toISOString()
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value === "object" && value !== null && [null, Object.prototype].includes(Object.getPrototypeOf(value))) {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]))
  }
  return value
}

/** The documented JSON of a message. `content` is text; `contentBase64` instead if it is not UTF-8. */
export const toJson = ({ content, exchange, properties, routingKey }: Message) => {
  const text = textOf(content)
  return {
    exchange,
    routingKey,
    properties: plain(properties),
    bytes: content.byteLength,
    ...(text === undefined ? { contentBase64: Buffer.from(content).toString("base64") } : { content: text })
  }
}

/** The content on one line. */
export const preview = (content: Uint8Array, columns: number | undefined): string => {
  // A content of megabytes is not escaped to show a line of it.
  const start = columns === undefined ? content : content.subarray(0, 4 * columns + 4)
  const text = textOf(content) === undefined ? Buffer.from(start).toString("hex") : Buffer.from(start).toString()
  const safe = Text.line(text)
  return columns === undefined ? safe : Text.truncate(safe, columns)
}

/** The lines of a message for people: where it went, then its content. */
export const toLines = (
  { color, columns }: Output["Service"],
  message: Message,
  full: boolean,
  prefix = ""
): ReadonlyArray<string> => {
  const { content, exchange, properties, routingKey } = message
  const facts = [
    `${exchange === "" ? "(default)" : exchange} → ${routingKey}`,
    properties.messageId === undefined ? "" : `id ${properties.messageId}`,
    properties.type === undefined ? "" : `type ${properties.type}`,
    `${content.byteLength} B`
  ].filter((fact) => fact !== "")
  const head = Text.line(`${prefix}${facts.join("  ")}`)
  const headers = Object.entries(properties.headers ?? {})
  return [
    color("cyan", columns === undefined || full ? head : Text.truncate(head, columns)),
    ...(full
      ? headers.map(([name, value]) =>
          color("dim", Text.line(`  ${name}: ${typeof value === "string" ? value : Text.json(plain(value))}`))
        )
      : []),
    `  ${preview(content, full || columns === undefined ? undefined : columns - 2)}`
  ]
}
