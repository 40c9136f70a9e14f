/**
 * How much waits to be sent, in messages and bytes, and whether it may become more. Publishers and RPC clients use the same
 * bounds, so that a broker which takes nothing does not fill the memory of its clients.
 */

/** The default of `maxInFlightBytes`. */
export const defaultMaxInFlightBytes = 64 * 1024 * 1024

/** The default of `maxWaitingBytes`. */
export const defaultMaxWaitingBytes = 32 * 1024 * 1024

/** How long nothing must have been sent for the backlog to count as stalled, in milliseconds. */
const stalledAfter = 1000

export class Backlog {
  /** Messages that wait. */
  size = 0
  /** Bytes of their contents. */
  bytes = 0
  readonly maxBytes: number
  /** Messages that have left it to be sent. */
  #sent = 0
  // As they were when `isStalled` last saw a change: so that sending a message reads no clock.
  #seenSent = -1
  #seenAt = 0

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes
  }

  enter(bytes: number): void {
    this.size++
    this.bytes += bytes
  }

  leave(bytes: number): void {
    this.size--
    this.bytes -= bytes
  }

  /** A message that has left it was sent. */
  sent(): void {
    this.#sent++
  }

  /** Whether one more message of this size may wait. The first always may, however large it is. `more`: of the bound. */
  takes(bytes: number, more = 0): boolean {
    return this.size === 0 || this.bytes + bytes <= this.maxBytes + more
  }

  /** Whether no message has been sent from it for a second, as far as earlier calls have seen. `now` in milliseconds. */
  isStalled(now: number): boolean {
    if (this.#seenSent === this.#sent) return now - this.#seenAt >= stalledAfter
    this.#seenSent = this.#sent
    this.#seenAt = now
    return false
  }
}
