/**
 * The body of the incoming message of one channel, assembled into one buffer.
 * A view of each frame would retain everything that the socket read with it: a body that arrives one byte per frame
 * would hold many times its size. So the bytes are copied. The buffer grows with the bytes that have arrived, not with
 * the announced size.
 */

/** Initial capacity, in bytes. */
const initialCapacity = 16_384

/**
 * The capacity is this multiple of the bytes that have arrived: for most bodies the first piece allocates all of it.
 */
const growthFactor = 32

export class InboundBody {
  #size = 0
  /** Bytes that have not arrived yet. */
  #left = 0
  #held: Buffer | undefined = undefined

  /** Starts a body of `size` bytes. */
  begin(size: number): void {
    this.#size = this.#left = size
    this.#held = undefined
  }

  /** Whether a body has started and is incomplete. */
  get isExpected(): boolean {
    return this.#left > 0
  }

  /** Whether a piece of `bytes` bytes is more than the header announced. */
  isExceededBy(bytes: number): boolean {
    return bytes > this.#left
  }

  /** Takes the piece from `start` to `end`. Returns the whole body if that was the last piece. */
  take(bytes: Buffer, start: number, end: number): Buffer | undefined {
    const length = end - start
    // The body came in one frame, as most do.
    if (length === this.#size) {
      this.begin(0)
      const whole = Buffer.allocUnsafe(length)
      bytes.copy(whole, 0, start, end)
      return whole
    }
    const from = this.#size - this.#left
    const held = this.#ensureCapacity(from + length)
    bytes.copy(held, from, start, end)
    this.#left -= length
    if (this.#left > 0) return undefined
    const whole = held.subarray(0, this.#size)
    this.begin(0)
    return whole
  }

  #ensureCapacity(bytes: number): Buffer {
    const held = this.#held
    if (held !== undefined && bytes <= held.length) return held
    const capacity = Math.min(this.#size, Math.max(initialCapacity, growthFactor * bytes))
    // Not allocated from Node's pool, which small messages share.
    const larger = Buffer.allocUnsafeSlow(capacity)
    held?.copy(larger)
    this.#held = larger
    return larger
  }
}
