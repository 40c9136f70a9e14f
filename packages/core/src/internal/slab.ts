/**
 * Where the channels of one connection put small frames together. Bytes are given out once: what was handed to the socket
 * is never written to again, and is freed with all its slab.
 */

const size = 65_536

/** The most that fits into one, in bytes. */
export const slabSize = size

export class Slab {
  // Not from Node's own pool, which the rest of the process shares.
  room: Buffer = Buffer.allocUnsafeSlow(size)
  /** From here on it is free. */
  used = 0

  /** Sees to it that so many bytes are free in one piece. */
  ensure(bytes: number): void {
    if (this.used + bytes <= size) return
    this.room = Buffer.allocUnsafeSlow(size)
    this.used = 0
  }
}
