/**
 * Requests whose reply has not come, by their correlation ids: a hash table whose chains are linked through the requests.
 *
 * Not a `Map`: one that changes all the time makes the garbage collector keep what has left it, see `deadlines`. Not an array
 * by number either: one request may wait for an hour while millions come and go.
 */

/** What a request has for it: only the table sets `sibling`. */
export interface Numbered<Self extends Numbered<Self>> {
  readonly correlationId: string
  /** Of which its correlation id is made: numbers that follow one another share no chain. */
  readonly number: number
  sibling: Self | undefined
}

/** Chains at first: a power of two. */
const fewest = 64

const chains = <Call>(count: number): Array<Call | undefined> => Array.from({ length: count }, () => undefined)

export class Pending<Call extends Numbered<Call>> {
  #chains = chains<Call>(fewest)
  size = 0

  add(call: Call): void {
    if (this.size >= this.#chains.length) this.#grow()
    this.#link(call)
    this.size++
  }

  #link(call: Call): void {
    const at = call.number & (this.#chains.length - 1)
    call.sibling = this.#chains[at]
    this.#chains[at] = call
  }

  #grow(): void {
    const all = Array.from(this)
    this.#chains = chains(2 * this.#chains.length)
    for (const call of all) this.#link(call)
  }

  /** The one of this id; `number`: that it would have, if it is one of ours. */
  find(correlationId: string, number: number): Call | undefined {
    let call = this.#chains[number & (this.#chains.length - 1)]
    while (call !== undefined && call.correlationId !== correlationId) call = call.sibling
    return call
  }

  /** Does nothing if it is not among them. */
  delete(call: Call): void {
    const at = call.number & (this.#chains.length - 1)
    let before: Call | undefined
    for (let one = this.#chains[at]; one !== undefined; before = one, one = one.sibling) {
      if (one !== call) continue
      if (before === undefined) this.#chains[at] = call.sibling
      else before.sibling = call.sibling
      call.sibling = undefined
      this.size--
      return
    }
  }

  *[Symbol.iterator](): Generator<Call> {
    for (const first of this.#chains) for (let call = first; call !== undefined; call = call.sibling) yield call
  }
}
