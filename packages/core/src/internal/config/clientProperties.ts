/** The client properties, which describe the client to the broker. */
import * as Result from "effect/Result"
import { type Decoded, decoder, type Decoder, type Form, isUnicode, type Mistake, refuse } from "./decoder.ts"
import { parseLiteral } from "./literal.ts"
import { describeType, formatName } from "./formatValue.ts"

const maxDepth = 8
// RabbitMQ accepts no frame above 4096 bytes (8192 since 4.0) before the sizes are negotiated, and the credentials are
// in the same frame.
const maxBytes = 2048

const expected = "an object whose values are strings, finite numbers, booleans, null, or arrays and objects of these"

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype
}

class InvalidProperty extends Error {
  readonly mistake: Mistake
  constructor(mistake: Mistake) {
    super()
    this.mistake = mistake
  }
}

const copyValue = (value: unknown, at: string, depth: number): unknown => {
  if (depth > maxDepth)
    throw new InvalidProperty({ at, got: "more", expected: `at most ${maxDepth} levels of nesting` })
  if (value === null || typeof value === "boolean") return value
  if (typeof value === "string" && isUnicode(value)) return value
  if (typeof value === "number" && Number.isFinite(value)) return value
  if (Array.isArray(value)) return value.map((item, i) => copyValue(item, `${at}[${i}]`, depth + 1))
  if (typeof value === "object" && isPlain(value)) return copyRecord(value, at, depth + 1)
  throw new InvalidProperty({ at, got: describeType(value), expected })
}

const copyRecord = (record: object, at: string, depth: number): Record<string, unknown> => {
  const copy: Record<string, unknown> = Object.create(null)
  for (const [key, value] of Object.entries(record)) {
    const here = `${at}.${formatName(key)}`
    if (key === "__proto__" || key === "" || !isUnicode(key) || Buffer.byteLength(key) > 128) {
      throw new InvalidProperty({
        at: here,
        got: "an invalid name",
        expected: "a name of 1 to 128 bytes in UTF-8, other than __proto__"
      })
    }
    if (value !== undefined) copy[key] = copyValue(value, here, depth)
  }
  return copy
}

const read = (value: unknown, form: Form): Decoded<Readonly<Record<string, unknown>>> => {
  const record = form !== "plain" && typeof value === "string" ? parseLiteral(value) : value
  if (typeof record !== "object" || record === null || Array.isArray(record) || !isPlain(record)) {
    return refuse(form === "plain" ? expected : `JSON or a Python dict: ${expected}`, describeType(value))
  }
  try {
    const copy = copyRecord(record, "", 0)
    // The library sets its own capabilities. Without them the broker neither reports that it blocks nor sends confirms.
    if ("capabilities" in copy) {
      return Result.fail([
        {
          at: ".capabilities",
          got: describeType(copy["capabilities"]),
          expected: "no value, because the library sets it"
        }
      ])
    }
    const bytes = Buffer.byteLength(JSON.stringify(copy))
    return bytes > maxBytes ? refuse(`at most ${maxBytes} bytes as JSON`, `${bytes} bytes`) : Result.succeed(copy)
  } catch (error) {
    if (error instanceof InvalidProperty) return Result.fail([{ ...error.mistake, named: true }])
    throw error
  }
}

/** Copies the client properties into objects without prototypes, which hold only values that an AMQP table can hold. */
export const clientProperties: Decoder<Readonly<Record<string, unknown>>> = decoder(read)
