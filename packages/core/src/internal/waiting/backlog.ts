/**
 * What waits to be sent, bounded in count and in bytes: the same for publishers and RPC clients, so that a broker which takes
 * nothing does not fill the memory of its clients.
 */
import { type InLine, Line } from "./line.ts"

/** How much may be held: messages, and bytes of their contents. */
export interface Bounds {
  readonly maxCount: number
  readonly maxBytes: number
}

const none: Bounds = { maxCount: 0, maxBytes: 0 }

/** How much is held. */
export class Load implements Bounds {
  count = 0
  bytes = 0
  readonly maxCount: number
  readonly maxBytes: number

  constructor({ maxBytes, maxCount }: Bounds) {
    this.maxCount = maxCount
    this.maxBytes = maxBytes
  }

  add(bytes: number): void {
    this.count++
    this.bytes += bytes
  }

  remove(bytes: number): void {
    this.count--
    this.bytes -= bytes
  }

  /**
   * Whether one more message of this size is within the bounds, and those of `more`. The first may have any size: else a
   * message above the bound would never be sent.
   */
  takes(bytes: number, more: Bounds = none): boolean {
    return (
      this.count < this.maxCount + more.maxCount &&
      (this.count === 0 || this.bytes + bytes <= this.maxBytes + more.maxBytes)
    )
  }
}

/** What waits in a backlog. */
export interface InBacklog<Item extends InBacklog<Item>> extends InLine<Item> {
  /** Bytes of content. */
  readonly size: number
}

/** How long nothing must have been sent for the backlog to count as stalled, in milliseconds. */
const stalledAfter = 1000

export class Backlog<Item extends InBacklog<Item>> {
  /** Those that are sent first come, first served. Items that must keep an order of their own wait in lines of their own. */
  readonly line = new Line<Item>()
  /** What waits, in all lines. */
  readonly load: Load
  /** Whether what waits is being sent now. */
  isDraining = false
  readonly #what: string
  /** Items that have left it to be sent. */
  #sent = 0
  // As they were when `isStalled` last saw a change: so that sending an item reads no clock.
  #seenSent = -1
  #seenAt = 0

  /** `what` the items are, in errors. */
  constructor(what: string, bounds: Bounds) {
    this.#what = what
    this.load = new Load(bounds)
  }

  add(item: Item, line: Line<Item> = this.line): void {
    line.add(item)
    this.load.add(item.size)
  }

  /** For one that had its turn and could not use it: it is the next again. */
  addFirst(item: Item, line: Line<Item> = this.line): void {
    line.addFirst(item)
    this.load.add(item.size)
  }

  /** Whether it was in a line. */
  remove(item: Item): boolean {
    if (item.line === undefined) return false
    item.line.remove(item)
    this.load.remove(item.size)
    return true
  }

  /** Why it takes no more. `more`: as it was for `takes`. */
  full(more: Bounds = none): string {
    const { bytes, count, maxBytes, maxCount } = this.load
    return count >= maxCount + more.maxCount
      ? `${count} ${this.#what} wait already (maxWaiting ${maxCount})`
      : `${count} ${this.#what} with ${bytes} bytes wait already (maxWaitingBytes ${maxBytes})`
  }

  /**
   * Calls `sendNext` until it returns false or nothing waits. An item that is told its outcome may cause another call, which
   * returns at once: the one that is running sees to what has changed.
   */
  drain(sendNext: () => boolean): void {
    if (this.isDraining) return
    this.isDraining = true
    try {
      while (this.load.count > 0 && sendNext());
    } finally {
      this.isDraining = false
    }
  }

  /** An item that has left it was sent. */
  sent(): void {
    this.#sent++
  }

  /** Whether no item has been sent from it for a second, as far as earlier calls have seen. `now` in milliseconds. */
  isStalled(now: number): boolean {
    if (this.#seenSent === this.#sent) return now - this.#seenAt >= stalledAfter
    this.#seenSent = this.#sent
    this.#seenAt = now
    return false
  }
}
