/**
 * A backlog: items that wait to be sent, bounded in count and in bytes. Publishers and RPC clients both use it, so that
 * a broker that accepts nothing does not fill the memory of its clients.
 */
import { counted, isOrAre } from "./phrases.ts"
import { type QueueNode, WaitQueue } from "./waitQueue.ts"

/** The limits of a backlog: number of messages, and bytes of their contents. */
export interface Bounds {
  readonly maxCount: number
  readonly maxBytes: number
}

const none: Bounds = { maxCount: 0, maxBytes: 0 }

/** What is held, and the limits. */
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
   * Whether one more message of this size is within the limits plus those of `more`. The first message may have any
   * size, because a message above the limit would never be sent otherwise.
   */
  hasRoomFor(bytes: number, more: Bounds = none): boolean {
    return (
      this.count < this.maxCount + more.maxCount &&
      (this.count === 0 || this.bytes + bytes <= this.maxBytes + more.maxBytes)
    )
  }
}

/** An item that waits in a backlog. */
export interface BacklogItem<Item extends BacklogItem<Item>> extends QueueNode<Item> {
  /** Size of the content, in bytes. */
  readonly size: number
}

/** A backlog counts as stalled when nothing has been sent from it for this time, in milliseconds. */
const stalledAfterMillis = 1000

export class Backlog<Item extends BacklogItem<Item>> {
  /**
   * Items that are sent first come, first served. Items that must keep their own order wait in wait queues of their
   * own.
   */
  readonly queue = new WaitQueue<Item>()
  /** The load of all wait queues. */
  readonly load: Load
  /** Whether waiting items are being sent now. */
  isDraining = false
  readonly #itemNoun: string
  /** Number of items that left the backlog and were sent. */
  #sent = 0
  // The values when `isStalled` last saw a change. So sending an item does not read the clock.
  #seenSent = -1
  #seenAt = 0

  /** `itemNoun` names one item in errors. */
  constructor(itemNoun: string, bounds: Bounds) {
    this.#itemNoun = itemNoun
    this.load = new Load(bounds)
  }

  add(item: Item, queue: WaitQueue<Item> = this.queue): void {
    queue.add(item)
    this.load.add(item.size)
  }

  /** Puts back an item that had its turn and could not use it. It is the next one again. */
  addFirst(item: Item, queue: WaitQueue<Item> = this.queue): void {
    queue.addFirst(item)
    this.load.add(item.size)
  }

  /** Returns whether the item was in a wait queue. */
  remove(item: Item): boolean {
    if (item.waitQueue === undefined) return false
    item.waitQueue.remove(item)
    this.load.remove(item.size)
    return true
  }

  /** Returns why the backlog accepts no more. `more` is the same as for `hasRoomFor`. */
  fullMessage(more: Bounds = none): string {
    const { bytes, count, maxBytes, maxCount } = this.load
    return count >= maxCount + more.maxCount
      ? `the backlog is full: ${counted(count, this.#itemNoun)} ${isOrAre(count)} waiting (maxWaiting ${maxCount})`
      : `the backlog is full: ${counted(count, this.#itemNoun)} with ${counted(bytes, "byte")} ${isOrAre(count)} waiting (maxWaitingBytes ${maxBytes})`
  }

  /**
   * Calls `sendNext` until it returns false or nothing waits. An item whose outcome is reported may cause another call,
   * which returns immediately: the running call handles what has changed.
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

  /** Records that an item that left the backlog was sent. */
  sent(): void {
    this.#sent++
  }

  /**
   * Whether no item has been sent from the backlog for a second, as far as earlier calls have seen. `now` is in
   * milliseconds.
   */
  isStalled(now: number): boolean {
    if (this.#seenSent === this.#sent) return now - this.#seenAt >= stalledAfterMillis
    this.#seenSent = this.#sent
    this.#seenAt = now
    return false
  }
}
