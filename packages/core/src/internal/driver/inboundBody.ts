/**
 * The body of the message that is on its way in on one channel, gathered into one piece.
 *
 * A view of each frame would keep all that the socket read with it: a body that trickles in, a byte per frame, would hold
 * many times its size. So what comes is copied. What is held grows with what has come, not with what was announced.
 */

/** How much room is made at first, in bytes. */
const firstRoom = 16_384

/** How many times as much room is made as has come: most bodies get theirs with the first piece. */
const mostAhead = 32

export class InboundBody {
  #size = 0
  /** What is still to come of it. */
  #left = 0
  #held: Buffer | undefined = undefined

  /** A body of so many bytes begins. */
  begin(size: number): void {
    this.#size = this.#left = size
    this.#held = undefined
  }

  /** Whether one has begun and is not complete. */
  get isExpected(): boolean {
    return this.#left > 0
  }

  /** Whether a piece of so many bytes is more than was announced. */
  isExceededBy(bytes: number): boolean {
    return bytes > this.#left
  }

  /** Takes a piece, from `start` to `end`; returns the whole body, if that was the last one. */
  take(bytes: Buffer, start: number, end: number): Buffer | undefined {
    const length = end - start
    // One frame, as most are.
    if (length === this.#size) {
      this.begin(0)
      const whole = Buffer.allocUnsafe(length)
      bytes.copy(whole, 0, start, end)
      return whole
    }
    const from = this.#size - this.#left
    const held = this.#roomFor(from + length)
    bytes.copy(held, from, start, end)
    this.#left -= length
    if (this.#left > 0) return undefined
    const whole = held.subarray(0, this.#size)
    this.begin(0)
    return whole
  }

  #roomFor(bytes: number): Buffer {
    const held = this.#held
    if (held !== undefined && bytes <= held.length) return held
    const room = Math.min(this.#size, Math.max(firstRoom, mostAhead * bytes))
    // Not from Node's pool, which small messages share.
    const larger = Buffer.allocUnsafeSlow(room)
    held?.copy(larger)
    this.#held = larger
    return larger
  }
}
