/**
 * A search for secrets: it looks for a word through everything that can be printed of a value or reached from it, in
 * every encoding in which a program could print it.
 */
import { Cause, Exit } from "effect"
import { format, inspect } from "node:util"
import { isProxy, isTypedArray } from "node:util/types"

const codes = (word: string) => Array.from(word, (character) => character.codePointAt(0)!)

// Bytes in a Buffer outside the pool: the search looks at the pool's memory too.
const bytesOf = (...parts: ReadonlyArray<string>) => {
  const text = parts.join("")
  const bytes = Buffer.alloc(Buffer.byteLength(text))
  bytes.write(text)
  return bytes
}

/**
 * The part of a word's base64 that does not depend on the bytes around it, for each position in a group of three bytes.
 */
const base64Of = (word: string) =>
  [0, 1, 2].map((offset) =>
    bytesOf("\0".repeat(offset), word)
      .toString("base64")
      .slice(Math.ceil((offset * 8) / 6), Math.floor(((offset + word.length) * 8) / 6))
  )

const forms = (word: string) => {
  const lower = word.toLowerCase()
  const base64 = base64Of(word)
  const hex = bytesOf(word).toString("hex")
  const numbers = codes(word).join(",")
  const letters = lower.replaceAll(/[^a-z0-9]/g, "")
  /** How a text contains the word, if it does. */
  return (text: string): string | undefined => {
    if (text.length < letters.length) return undefined
    const small = text.toLowerCase()
    if (small.includes(lower)) return "as it is"
    if (base64.some((part) => text.includes(part))) return "as base64"
    if (small.replaceAll(/0x|\\x|[^0-9a-f]/g, "").includes(hex)) return "as hexadecimal digits"
    if (text.replaceAll(/\s/g, "").includes(numbers)) return "as a list of numbers"
    if (small.replaceAll(/[^a-z0-9]/g, "").includes(letters)) return "letter by letter"
    return undefined
  }
}

const attempt = <A>(f: () => A): A | undefined => {
  try {
    return f()
  } catch {
    return undefined
  }
}

const everything = {
  depth: Number.POSITIVE_INFINITY,
  showHidden: true,
  showProxy: true,
  getters: true,
  maxArrayLength: Number.POSITIVE_INFINITY,
  maxStringLength: Number.POSITIVE_INFINITY
}

/** What `inspect` prints of a value, in full where that is finite: shared values are printed again each time. */
const inspected = (value: unknown) => [
  inspect(value),
  inspect(value, { ...everything, depth: 8 }),
  value instanceof Error || Exit.isExit(value) || Cause.isCause(value) ? inspect(value, everything) : ""
]

/** What a program can print of a value. */
const printed = (value: unknown): ReadonlyArray<string | undefined> => [
  attempt(() => String(value)),
  attempt(() => JSON.stringify(value)),
  ...(attempt(() => inspected(value)) ?? []),
  attempt(() => format("%s %j %o %O", value, value, value, value)),
  value instanceof Error ? `${value.name} ${value.message} ${value.stack}` : undefined,
  ...(Cause.isCause(value) ? [Cause.pretty(value)] : []),
  ...(Exit.isExit(value) && Exit.isFailure(value) ? [Cause.pretty(value.cause)] : [])
]

export class SecretSearch {
  /** Where the word was found, and how it was encoded there. */
  readonly found: Array<string> = []
  /** The number of values seen. */
  seen = 0
  readonly #holds: (text: string) => string | undefined
  readonly #visited = new WeakSet<object>()

  constructor(word: string) {
    this.#holds = forms(word)
  }

  /** Searches everything that is printed of a value, and everything that can be reached from it. */
  look(name: string, value: unknown): void {
    for (const text of printed(value)) this.text(name, text)
    this.reach(name, value)
    const clone = attempt(() => structuredClone(value))
    if (clone !== undefined) this.reach(`${name}, cloned`, clone)
  }

  text(name: string, text: string | undefined): void {
    const form = text === undefined ? undefined : this.#holds(text)
    if (form !== undefined) this.found.push(`${name}: ${form}`)
  }

  /**
   * Every property of every reachable object, including hidden ones, symbols and getters; closures are out of reach.
   */
  reach(name: string, value: unknown): void {
    const pending: Array<readonly [path: string, value: unknown]> = [[name, value]]
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const [path, now] = next
      this.seen++
      if (typeof now === "string") this.text(path, now)
      if (typeof now === "symbol") this.text(path, now.description)
      if ((typeof now !== "object" && typeof now !== "function") || now === null) continue
      if (this.#visited.has(now) || now === globalThis || now === process || isProxy(now)) continue
      this.#visited.add(now)
      for (const [key, inside] of this.#parts(path, now)) pending.push([`${path}.${key}`, inside])
    }
  }

  *#parts(path: string, value: object): Iterable<readonly [string, unknown]> {
    if (isTypedArray(value))
      return this.text(path, Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("latin1"))
    if (Array.isArray(value)) this.text(path, value.filter((item) => typeof item !== "object").join(","))
    if (value instanceof Map || value instanceof Set) {
      for (const entry of value.entries()) yield ["entry", entry]
    }
    const prototype: unknown = Object.getPrototypeOf(value)
    const inherited = typeof prototype === "object" && prototype !== null ? Object.getOwnPropertyNames(prototype) : []
    for (const key of Reflect.ownKeys(value)) {
      this.text(`${path}: a key`, String(key))
      yield [String(key), attempt(() => Reflect.get(value, key) as unknown)]
    }
    for (const key of inherited) {
      if (Object.getOwnPropertyDescriptor(prototype, key)?.get === undefined) continue
      yield [key, attempt(() => Reflect.get(value, key) as unknown)]
    }
  }
}
