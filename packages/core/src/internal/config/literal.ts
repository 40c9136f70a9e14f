/**
 * JSON and Python literals, as in Pika's URLs: `{'product': 'shop', 'retries': 3, 'beta': True}`.
 *
 * The accepted subset contains only data: None, True, False, numbers, strings, lists, tuples, and dicts whose keys are
 * strings.
 */

export type Literal = null | boolean | number | string | ReadonlyArray<Literal> | { readonly [key: string]: Literal }

/** Maximum length of a text, in characters: more than any configuration has. */
const maxLength = 65_536

// Maximum nesting: deeper than any configuration, and far shallower than the stack.
const maxDepth = 16

const constants: ReadonlyMap<string, Literal> = new Map<string, Literal>([
  ["None", null],
  ["null", null],
  ["True", true],
  ["true", true],
  ["False", false],
  ["false", false]
])

const escapes: ReadonlyMap<string, string> = new Map([
  ["\\", "\\"],
  ["'", "'"],
  ['"', '"'],
  ["/", "/"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ["b", "\b"],
  ["f", "\f"],
  ["v", "\v"],
  ["a", "\u0007"]
])

const hexEscapes: ReadonlyMap<string, number> = new Map([
  ["x", 2],
  ["u", 4],
  ["U", 8]
])

class NotALiteral extends Error {}

class LiteralParser {
  #at = 0
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  whole(): Literal {
    const value = this.#value(0)
    this.#space()
    if (this.#at < this.#text.length) throw new NotALiteral()
    return value
  }

  #space(): void {
    while (/\s/.test(this.#text.charAt(this.#at))) this.#at++
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0]
    if (found !== undefined) this.#at += found.length
    return found
  }

  #next(character: string): boolean {
    this.#space()
    if (this.#text[this.#at] !== character) return false
    this.#at++
    return true
  }

  #value(depth: number): Literal {
    if (depth > maxDepth) throw new NotALiteral()
    if (this.#next("{")) return this.#dict(depth)
    if (this.#next("[")) return this.#list("]", depth)
    if (this.#next("(")) return this.#tuple(depth)
    if (this.#next("'")) return this.#string("'")
    if (this.#next('"')) return this.#string('"')
    const number = this.#take(/[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])/y)
    if (number !== undefined) return this.#number(number)
    const constant = constants.get(this.#take(/[A-Za-z]+/y) ?? "")
    if (constant === undefined) throw new NotALiteral()
    return constant
  }

  #number(digits: string): number {
    const number = Number(digits)
    // An integer that a double cannot represent exactly would silently become another one.
    if (!Number.isFinite(number) || (/^[-+]?\d+$/.test(digits) && !Number.isSafeInteger(number)))
      throw new NotALiteral()
    return number
  }

  #list(end: string, depth: number): ReadonlyArray<Literal> {
    const items: Array<Literal> = []
    while (!this.#next(end)) {
      items.push(this.#value(depth + 1))
      if (this.#next(",")) continue
      if (!this.#next(end)) throw new NotALiteral()
      break
    }
    return items
  }

  // In Python, `(x)` is x, and `(x,)` and `()` are tuples.
  #tuple(depth: number): Literal {
    if (this.#next(")")) return []
    const first = this.#value(depth + 1)
    if (this.#next(")")) return first
    if (!this.#next(",")) throw new NotALiteral()
    return [first, ...this.#list(")", depth)]
  }

  #dict(depth: number): Literal {
    // In an object without a prototype, `__proto__` is an ordinary key.
    const dict: Record<string, Literal> = Object.create(null)
    while (!this.#next("}")) {
      const quote = this.#next("'") ? "'" : this.#next('"') ? '"' : undefined
      if (quote === undefined) throw new NotALiteral()
      const key = this.#string(quote)
      if (Object.hasOwn(dict, key) || !this.#next(":")) throw new NotALiteral()
      dict[key] = this.#value(depth + 1)
      if (this.#next(",")) continue
      if (!this.#next("}")) throw new NotALiteral()
      break
    }
    return dict
  }

  #string(quote: string): string {
    let text = ""
    for (;;) {
      const character = this.#text[this.#at++]
      if (character === undefined || character === "\n") throw new NotALiteral()
      if (character === quote) return text
      text += character === "\\" ? this.#escape() : character
    }
  }

  #escape(): string {
    const character = this.#text[this.#at++] ?? ""
    const plain = escapes.get(character)
    if (plain !== undefined) return plain
    const length = hexEscapes.get(character)
    if (length === undefined) throw new NotALiteral()
    const digits = this.#text.slice(this.#at, this.#at + length)
    const code = Number.parseInt(digits, 16)
    if (!new RegExp(`^[0-9a-fA-F]{${length}}$`).test(digits) || code > 0x10ffff) throw new NotALiteral()
    this.#at += length
    return String.fromCodePoint(code)
  }
}

/** Returns the value of a literal, or `undefined` if the text is not a literal. */
export const parseLiteral = (text: string): Literal | undefined => {
  if (text.length > maxLength) return undefined
  try {
    return new LiteralParser(text).whole()
  } catch (error) {
    if (error instanceof NotALiteral) return undefined
    throw error
  }
}
