/** What the client tells the broker of itself. */
import * as Result from "effect/Result"
import { type Decoded, decoder, type Decoder, type Form, isUnicode, type Mistake, refuse } from "./decoder.ts"
import { parseLiteral } from "./literal.ts"
import { kind, shownName } from "./shown.ts"

const deepest = 8
// RabbitMQ takes no frame above 4096 bytes (8192 since 4.0) before the sizes are negotiated, and the login goes in the
// same frame.
const largest = 2048

const wants = "an object whose values are texts, finite numbers, booleans, null, or arrays and objects of these"

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype
}

class Refused extends Error {
  readonly mistake: Mistake
  constructor(mistake: Mistake) {
    super()
    this.mistake = mistake
  }
}

const copyValue = (value: unknown, at: string, depth: number): unknown => {
  if (depth > deepest) throw new Refused({ at, got: `more than ${deepest} levels`, wants })
  if (value === null || typeof value === "boolean") return value
  if (typeof value === "string" && isUnicode(value)) return value
  if (typeof value === "number" && Number.isFinite(value)) return value
  if (Array.isArray(value)) return value.map((item, i) => copyValue(item, `${at}[${i}]`, depth + 1))
  if (typeof value === "object" && isPlain(value)) return copyRecord(value, at, depth + 1)
  throw new Refused({ at, got: kind(value), wants })
}

const copyRecord = (record: object, at: string, depth: number): Record<string, unknown> => {
  const copy: Record<string, unknown> = Object.create(null)
  for (const [key, value] of Object.entries(record)) {
    const here = `${at}.${shownName(key)}`
    if (key === "__proto__" || key === "" || !isUnicode(key) || Buffer.byteLength(key) > 128) {
      throw new Refused({ at: here, got: "such a name", wants: "names of 1 to 128 bytes, and not __proto__" })
    }
    if (value !== undefined) copy[key] = copyValue(value, here, depth)
  }
  return copy
}

const read = (value: unknown, form: Form): Decoded<Readonly<Record<string, unknown>>> => {
  const record = form !== "plain" && typeof value === "string" ? parseLiteral(value) : value
  if (typeof record !== "object" || record === null || Array.isArray(record) || !isPlain(record)) {
    return refuse(form === "plain" ? wants : `JSON or a Python dict: ${wants}`, kind(value))
  }
  try {
    const copy = copyRecord(record, "", 0)
    // Without the library's own, the broker would neither report that it blocks nor answer with confirms.
    if ("capabilities" in copy) {
      return Result.fail([
        { at: ".capabilities", got: kind(copy["capabilities"]), wants: "nothing: the library sets it" }
      ])
    }
    const bytes = Buffer.byteLength(JSON.stringify(copy))
    return bytes > largest ? refuse(`at most ${largest} bytes as JSON`, `${bytes} bytes`) : Result.succeed(copy)
  } catch (error) {
    if (error instanceof Refused) return Result.fail([{ ...error.mistake, named: true }])
    throw error
  }
}

/** A copy without prototypes, of what an AMQP table can hold. */
export const clientProperties: Decoder<Readonly<Record<string, unknown>>> = decoder(read)
