/**
 * Requests whose reply has not arrived, by their correlation ids: a hash table whose chains are linked through the
 * requests.
 *
 * It is not a `Map`: with constant changes, the garbage collector retains the entries that were removed from a `Map`,
 * see `deadlines`. It is not an array indexed by number either: one request may wait for an hour while millions of
 * others come and go.
 */

/** What the table needs of a request. Only the table sets `nextInChain`. */
export interface Numbered<Self extends Numbered<Self>> {
  readonly correlationId: string
  /** The number in its correlation id. Consecutive numbers share no chain. */
  readonly number: number
  nextInChain: Self | undefined
}

/** The initial number of chains, a power of two. */
const fewest = 64

const chains = <Call>(count: number): Array<Call | undefined> => Array.from({ length: count }, () => undefined)

export class PendingCalls<Call extends Numbered<Call>> {
  #chains = chains<Call>(fewest)
  size = 0

  add(call: Call): void {
    if (this.size >= this.#chains.length) this.#grow()
    this.#link(call)
    this.size++
  }

  #link(call: Call): void {
    const at = call.number & (this.#chains.length - 1)
    call.nextInChain = this.#chains[at]
    this.#chains[at] = call
  }

  #grow(): void {
    const all = Array.from(this)
    this.#chains = chains(2 * this.#chains.length)
    for (const call of all) this.#link(call)
  }

  /**
   * Finds the request with this correlation id. `number` is the number that the id contains if this client has made it.
   */
  find(correlationId: string, number: number): Call | undefined {
    let call = this.#chains[number & (this.#chains.length - 1)]
    while (call !== undefined && call.correlationId !== correlationId) call = call.nextInChain
    return call
  }

  /** Removes a request. Does nothing if the table does not contain it. */
  delete(call: Call): void {
    const at = call.number & (this.#chains.length - 1)
    let before: Call | undefined
    for (let one = this.#chains[at]; one !== undefined; before = one, one = one.nextInChain) {
      if (one !== call) continue
      if (before === undefined) this.#chains[at] = call.nextInChain
      else before.nextInChain = call.nextInChain
      call.nextInChain = undefined
      this.size--
      return
    }
  }

  *[Symbol.iterator](): Generator<Call> {
    for (const first of this.#chains) for (let call = first; call !== undefined; call = call.nextInChain) yield call
  }
}
