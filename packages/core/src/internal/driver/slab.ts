/**
 * Where the channels of one connection put together what they write: pieces of memory that are used again when the socket
 * has taken what was in them. Memory of this size is dear to make: the garbage collector is called for every 64 MiB.
 */
import type { Writable } from "node:stream"

/** What fits into one, in bytes, unless somebody has needed more. */
export const slabSize = 65_536
/** The most that somebody may need. */
export const largestSlab = 131_072

/** So many that are full are kept an eye on, to be used again. */
const mostKept = 16

export class Slab {
  // Not from Node's own pool, which the rest of the process shares; and empty: memory that others have given back holds what
  // they had in it, which may be a password.
  readonly room: Buffer
  /** From here on it is free. */
  used = 0
  /** Bytes that no socket has been given yet. */
  unread = 0
  /** How many bytes the connection had been given when this was read to its end. */
  readAt = 0

  constructor(size: number) {
    this.room = Buffer.alloc(size)
  }
}

export class Slabs {
  current = new Slab(slabSize)
  readonly #socket: Pick<Writable, "writableLength"> | undefined
  /** In the order in which they were filled. */
  readonly #full: Array<Slab> = []
  /** Bytes that the connection has been given. */
  #given = 0

  /** @param socket what the bytes are written to; without it nothing is used again */
  constructor(socket?: Pick<Writable, "writableLength">) {
    this.#socket = socket
  }

  /** Sees to it that so many bytes are free in the current one. */
  ensure(bytes: number): void {
    const { room, used } = this.current
    if (used + bytes <= room.length) return
    this.#full.push(this.current)
    this.current = this.#usedAgain(bytes) ?? new Slab(bytes <= slabSize ? slabSize : largestSlab)
    if (this.#full.length > mostKept) this.#full.shift()
  }

  /** These bytes have been given to the connection, from this slab if from one. */
  gave(bytes: number, slab: Slab | undefined): void {
    this.#given += bytes
    if (slab === undefined) return
    slab.unread -= bytes
    slab.readAt = this.#given
  }

  /** These bytes of a slab are given to nobody. */
  dropped(bytes: number, slab: Slab | undefined): void {
    if (slab !== undefined) slab.unread -= bytes
  }

  #usedAgain(bytes: number): Slab | undefined {
    if (this.#socket === undefined) return undefined
    // What else the socket holds, such as heartbeats, makes this less than it is.
    const taken = this.#given - this.#socket.writableLength
    const index = this.#full.findIndex(
      ({ readAt, room, unread }) => unread === 0 && readAt <= taken && room.length >= bytes
    )
    if (index < 0) return undefined
    const [slab] = this.#full.splice(index, 1)
    slab!.used = 0
    return slab
  }
}
