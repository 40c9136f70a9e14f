/**
 * The memory in which the channels of one connection assemble their output. A slab is reused when the socket has taken
 * its bytes. Memory of this size is expensive to allocate: the garbage collector runs for every 64 MiB.
 */
import type { Writable } from "node:stream"

/** Capacity of a slab, in bytes, unless a channel needs more. */
export const slabSize = 65_536
/** Largest capacity that a channel may need, in bytes. */
export const maxSlabSize = 131_072

/** Number of full slabs that are retained for reuse. */
const maxRetained = 16

export class Slab {
  // Not allocated from Node's pool, which the rest of the process shares. Zeroed, because memory that others have
  // released still holds their data, which may be a password.
  readonly buffer: Buffer
  /** Index of the first free byte. */
  used = 0
  /** Number of bytes that have not been given to the socket. */
  unread = 0
  /** The connection's count of given bytes when this slab was last read. */
  readAt = 0

  constructor(size: number) {
    this.buffer = Buffer.alloc(size)
  }
}

export class SlabPool {
  current = new Slab(slabSize)
  readonly #socket: Pick<Writable, "writableLength"> | undefined
  /** Full slabs, in the order in which they were filled. */
  readonly #full: Array<Slab> = []
  /** Number of bytes that the connection has been given. */
  #given = 0

  /** @param socket the socket that the bytes are written to; without it, no slab is reused */
  constructor(socket?: Pick<Writable, "writableLength">) {
    this.#socket = socket
  }

  /** Ensures that `bytes` bytes are free in the current slab. */
  ensure(bytes: number): void {
    const { buffer, used } = this.current
    if (used + bytes <= buffer.length) return
    this.#full.push(this.current)
    this.current = this.#reclaim(bytes) ?? new Slab(bytes <= slabSize ? slabSize : maxSlabSize)
    if (this.#full.length > maxRetained) this.#full.shift()
  }

  /** Records that bytes were given to the connection, from this slab if they were in one. */
  consumed(bytes: number, slab: Slab | undefined): void {
    this.#given += bytes
    if (slab === undefined) return
    slab.unread -= bytes
    slab.readAt = this.#given
  }

  /** Records that bytes of a slab are dropped and not given to the connection. */
  discarded(bytes: number, slab: Slab | undefined): void {
    if (slab !== undefined) slab.unread -= bytes
  }

  #reclaim(bytes: number): Slab | undefined {
    if (this.#socket === undefined) return undefined
    // The socket also holds other bytes, such as heartbeats, which makes this number too small, never too large.
    const taken = this.#given - this.#socket.writableLength
    const index = this.#full.findIndex(
      ({ readAt, buffer, unread }) => unread === 0 && readAt <= taken && buffer.length >= bytes
    )
    if (index < 0) return undefined
    const [slab] = this.#full.splice(index, 1)
    slab!.used = 0
    return slab
  }
}
