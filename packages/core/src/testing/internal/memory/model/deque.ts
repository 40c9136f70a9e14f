/** A queue of items with places: first in, first out, and an item that returns finds its place again. */
export class Deque<A> {
  #items: Array<A | undefined> = []
  #head = 0
  readonly #isBefore: (a: A, b: A) => boolean

  constructor(isBefore: (a: A, b: A) => boolean) {
    this.#isBefore = isBefore
  }

  get size(): number {
    return this.#items.length - this.#head
  }

  get first(): A | undefined {
    return this.#items[this.#head]
  }

  push(item: A): void {
    this.#items.push(item)
  }

  shift(): A | undefined {
    if (this.size === 0) return undefined
    const item = this.#items[this.#head]
    this.#items[this.#head++] = undefined
    // The space in front is released when it is half of the array.
    if (this.#head > 32 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
    return item
  }

  /** Inserts an item in its place. */
  insert(item: A): void {
    let low = this.#head
    let high = this.#items.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#isBefore(item, this.#items[middle]!)) high = middle
      else low = middle + 1
    }
    if (low === this.#head && low > 0) this.#items[--this.#head] = item
    else this.#items.splice(low, 0, item)
  }

  clear(): ReadonlyArray<A> {
    const all = this.toArray()
    this.#items = []
    this.#head = 0
    return all
  }

  toArray(): ReadonlyArray<A> {
    return this.#items.slice(this.#head) as ReadonlyArray<A>
  }
}
