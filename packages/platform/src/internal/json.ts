/** What a schema of Effect 3 has encoded, as JSON has it. */

type Path = ReadonlyArray<PropertyKey>

/** A value that JSON does not have: where it is, and what was expected there. */
export class NotJson {
  readonly path: Path
  readonly message: string

  constructor(path: Path, got: string) {
    this.path = path
    this.message = `expected a value that JSON has, got ${got}`
  }
}

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  // The `Object.prototype` of another realm has no prototype either.
  return prototype === null || prototype === Object.prototype || Object.getPrototypeOf(prototype) === null
}

/** Describes a value without its content: messages contain secrets. */
const describe = (value: unknown): string => {
  if (typeof value === "number" || value === undefined) return String(value)
  if (typeof value !== "object" || value === null) return `a ${typeof value}`
  const name: unknown = (value as { readonly constructor?: { readonly name?: unknown } }).constructor?.name
  return typeof name === "string" && name !== "" ? `an instance of ${name}` : "an instance of a class"
}

// Deeper values are left to the core, which does not use the stack to check them.
const maxDepth = 1000

/**
 * A value without the keys that are `undefined`, which `JSON.stringify` leaves out; the same value if it has none.
 *
 * It throws `NotJson` for what `JSON.stringify` would replace or cannot write. That includes `undefined` in an array: it
 * would become `null`, which the schema does not decode.
 */
export const withoutUndefined = (value: unknown): unknown => {
  const path: Array<PropertyKey> = []
  const around = new Set<object>()
  const refuse = (got: string): never => {
    throw new NotJson([...path], got)
  }
  const elementsOf = (value: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
    let copy: Array<unknown> | undefined
    for (let i = 0; i < value.length; i++) {
      path.push(i)
      const after = walk(value[i])
      path.pop()
      if (after !== value[i]) (copy ??= value.slice())[i] = after
    }
    return copy ?? value
  }
  const fieldsOf = (value: object): object => {
    let isSame = true
    const fields: Array<readonly [string, unknown]> = []
    for (const [key, before] of Object.entries(value) as ReadonlyArray<[string, unknown]>) {
      if (before === undefined) {
        isSame = false
        continue
      }
      path.push(key)
      const after = walk(before)
      path.pop()
      if (after !== before) isSame = false
      fields.push([key, after])
    }
    return isSame ? value : Object.fromEntries(fields)
  }
  const walk = (value: unknown): unknown => {
    if (typeof value === "string" || typeof value === "boolean" || value === null) return value
    if (typeof value === "number" && Number.isFinite(value)) return value
    if (typeof value !== "object") return refuse(describe(value))
    const isArray = Array.isArray(value)
    if (!isArray && !isPlain(value)) return refuse(describe(value))
    if (around.has(value)) return refuse("one that contains itself")
    if (path.length > maxDepth) return value
    around.add(value)
    const after = isArray ? elementsOf(value) : fieldsOf(value)
    around.delete(value)
    return after
  }
  return walk(value)
}
