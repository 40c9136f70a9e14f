/** JSON content that a schema describes. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { isUtf8 } from "node:buffer"
import * as AmqpError from "../../model/error.ts"
import type { Delivery, Envelope, Json, Message, Properties } from "../../model/message.ts"
import { asBuffer, invalidArgument } from "../wire/fieldTable.ts"
import { formatValue } from "../wire/optionTable.ts"

export { asBuffer }

const contentType = "application/json"
const contentEncoding = "utf-8"

// Issues do not contain the input: messages contain secrets, and errors are logged.
const options = { reportInput: false }
const format = SchemaIssue.makeFormatterStandardSchemaV1()

const issuesOf = (error: Schema.SchemaError): string =>
  format(error.issue)
    .issues.map(({ message, path }) => `${message} at ${pathOf(path ?? [])}`)
    .join("; ")

const pathOf = (path: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }>): string => {
  let text = "$"
  for (const part of path) {
    const key = typeof part === "object" ? part.key : part
    text += typeof key === "string" && /^[\w$]+$/.test(key) ? `.${key}` : `[${JSON.stringify(key) ?? String(key)}]`
  }
  return text
}

const decodeFailed = (what: string) =>
  Effect.fail(AmqpError.fromReason(new AmqpError.DecodeFailed({ message: `content: ${what}`, operation: "decode" })))

// A schema can be recursive, so the publisher decides how deep a content is nested.
const isTooDeep = (cause: unknown): boolean => cause instanceof RangeError && cause.message.includes("call stack")

const tooDeep = /* @__PURE__ */ decodeFailed("nested too deep for its schema")

const undecoded = (cause: Cause.Cause<Schema.SchemaError>): Effect.Effect<never, AmqpError.AmqpError> => {
  const error = Cause.findError(cause)
  if (Result.isSuccess(error))
    return decodeFailed(`expected a value that matches its schema: ${issuesOf(error.success)}`)
  return isTooDeep(Cause.squash(cause)) ? tooDeep : Effect.failCause(error.failure)
}

const encodeFailed = (what: string) =>
  Effect.fail(
    AmqpError.fromReason(
      new AmqpError.InvalidArgument({ message: `content: ${what}`, operation: "encode", argument: "content" })
    )
  )

const isJsonType = (value: string): boolean => {
  const [type = "", ...parameters] = value.toLowerCase().split(";")
  if (!/^application\/json$|^[^\s/]+\/[^\s/]+\+json$/.test(type.trim())) return false
  return parameters.every((parameter) => {
    const [name = "", charset = ""] = parameter.split("=")
    return name.trim() !== "charset" || /^"?utf-?8"?$/.test(charset.trim())
  })
}

const isPlainEncoding = (value: string): boolean => /^(utf-?8|identity|)$/i.test(value.trim())

// A property's value comes from another client, and may be anything.
const shown = (value: string): string => JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)

type Encoded = Pick<Delivery, "content"> & { readonly properties: Properties }

const parse = ({ content, properties }: Encoded): Effect.Effect<unknown, AmqpError.AmqpError> => {
  const type = properties.contentType
  if (type !== undefined && type !== contentType && !isJsonType(type))
    return decodeFailed(`expected JSON, got the contentType ${shown(type)}`)
  const encoding = properties.contentEncoding
  if (encoding !== undefined && encoding !== contentEncoding && !isPlainEncoding(encoding)) {
    return decodeFailed(`expected the contentEncoding utf-8, got ${shown(encoding)}`)
  }
  if (!isUtf8(content)) return decodeFailed("expected UTF-8, got other bytes")
  const text = asBuffer(content).toString()
  try {
    // RFC 8259, section 8.1: a parser may ignore a byte order mark.
    return Effect.succeed(JSON.parse(text.startsWith("\uFEFF") ? text.slice(1) : text))
  } catch (cause) {
    // The engine's message quotes the text, so only its position is used.
    const position = /at position \d+/.exec(String(cause))?.[0]
    return decodeFailed(
      `expected JSON, got ${content.byteLength} bytes that are not JSON${position === undefined ? "" : ` ${position}`}`
    )
  }
}

/** Its effects fail, because a schema is mostly compiled where a module is loaded. */
const notSchema = <S extends Schema.Constraint>(schema: unknown): Json<S> => {
  const refused = Effect.fail(
    AmqpError.fromReason(invalidArgument("AmqpMessage.json", "schema", "a Schema", formatValue(schema)))
  )
  return { encode: dual(2, (_value: S["Type"], _envelope: Envelope) => refused), decode: () => refused }
}

export const json = <S extends Schema.Constraint>(schema: S): Json<S> => {
  if (!Schema.isSchema(schema)) return notSchema(schema)
  const codec = Schema.toCodecJson(schema)
  const decodeUnknown = Schema.decodeUnknownEffect(codec, options)
  const encodeUnknown = Schema.encodeUnknownEffect(codec, options)
  const encode = (
    value: S["Type"],
    envelope: Envelope
  ): Effect.Effect<Message, AmqpError.AmqpError, S["EncodingServices"]> =>
    Effect.matchEffect(encodeUnknown(value), {
      onFailure: (error) => encodeFailed(`expected a value that matches its schema: ${issuesOf(error)}`),
      onSuccess: (encoded) => {
        let content: string | undefined
        try {
          content = JSON.stringify(encoded)
        } catch {
          return encodeFailed("expected a value that JSON can represent")
        }
        if (content === undefined) return encodeFailed("expected a value that JSON can represent")
        return Effect.succeed({ contentType, contentEncoding, ...envelope, content })
      }
    })
  return {
    encode: dual(2, encode),
    decode: (delivery) =>
      Effect.flatMap(parse(delivery), (value) => {
        try {
          return Effect.catchCause(decodeUnknown(value), undecoded)
        } catch (cause) {
          if (isTooDeep(cause)) return tooDeep
          throw cause
        }
      })
  }
}
