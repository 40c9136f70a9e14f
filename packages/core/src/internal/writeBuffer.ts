/**
 * What one channel has written and the connection has not taken yet: in the place of amqplib's own buffer, a stream of
 * frames, which is full after 1,024 frames whatever their size.
 *
 * This one counts bytes, and puts frames together: what a channel writes in one turn of the event loop reaches the socket
 * in few pieces. A piece has whole frames, since those of other channels come between two pieces. It has no more of a stream than amqplib uses: `write`, `end`, `read`, and the events `readable`, `drain` and
 * `end`.
 */
import { EventEmitter } from "node:events"
import type { Slab, Slabs } from "./slab.ts"

/** A frame of amqplib's that is larger is not copied. */
const smallFrame = 4096

export class WriteBuffer extends EventEmitter {
  readonly #size: number
  readonly #slabs: Slabs
  /** In order, before the open one. */
  #pieces: Array<Buffer | undefined> = []
  /** Which slab each is in; undefined: in none. */
  #slabOf: Array<Slab | undefined> = []
  #next = 0
  /** The piece that still grows, of this slab. */
  #open: Slab
  #from = 0
  #to = 0
  #bytes = 0
  #isFull = false
  /** Whether the reader knows that there is something to read. */
  #announced = false
  #ended = false
  /** Bytes that were ever written: where the next will be. */
  position = 0

  /** @param size in bytes: the buffer is full when it holds as many */
  constructor(size: number, slabs: Slabs) {
    super()
    this.#size = size
    this.#slabs = slabs
    this.#open = slabs.current
  }

  /** Whether it holds as much as it is meant to, and `drain` is to come. */
  get isFull(): boolean {
    return this.#isFull && !this.#ended
  }

  /** Where `reserve` has made room. */
  get room(): Buffer {
    return this.#open.room
  }

  /** Takes the frame in any case; whether there is room for more. If not, `drain` follows. */
  write(frame: Buffer): boolean {
    if (this.#ended) return true
    if (frame.length <= smallFrame) {
      const at = this.reserve(frame.length)
      this.room.set(frame, at)
      this.commit(frame.length)
    } else {
      this.#finish()
      this.#pieces.push(frame)
      this.#slabOf.push(undefined)
      this.#written(frame.length)
    }
    return !this.isFull
  }

  /**
   * Makes room for so many bytes, no more than the largest slab has: from where on in `room` they may be written. They count when
   * `commit` says how many they were, in the same tick.
   */
  reserve(bytes: number): number {
    const slabs = this.#slabs
    slabs.ensure(bytes)
    const { current } = slabs
    if (current !== this.#open || current.used !== this.#to) {
      this.#finish()
      this.#open = current
      this.#from = this.#to = current.used
    }
    return this.#to
  }

  commit(bytes: number): void {
    // A channel that was closed under its writer's hands: the frames are nobody's.
    if (this.#ended) return
    const slab = this.#open
    slab.used = this.#to += bytes
    slab.unread += bytes
    this.#written(bytes)
  }

  /** Whether what ends at this position is the last that was written, and nobody has read it yet: it may still be changed. */
  isLast(position: number): boolean {
    return position === this.position && this.#from < this.#to
  }

  /** Takes so many bytes back that end at this position. Whether it could: nobody has read them, nor written behind. */
  takeBack(position: number, bytes: number): boolean {
    const slab = this.#open
    const start = this.#to - (this.position - position) - bytes
    if (start < this.#from || slab.used !== this.#to) return false
    slab.room.copyWithin(start, start + bytes, this.#to)
    slab.used = this.#to -= bytes
    slab.unread -= bytes
    this.position -= bytes
    this.#bytes -= bytes
    return true
  }

  #written(bytes: number): void {
    this.position += bytes
    this.#bytes += bytes
    if (!this.#announced) {
      this.#announced = true
      this.emit("readable")
    }
    if (this.#bytes >= this.#size) this.#isFull = true
  }

  /** Nothing more is put to the open piece. */
  #finish(): void {
    if (this.#from === this.#to) return
    this.#pieces.push(this.room.subarray(this.#from, this.#to))
    this.#slabOf.push(this.#open)
    this.#from = this.#to
  }

  /** The next piece; null when there is none now. */
  read(): Buffer | null {
    if (this.#next === this.#pieces.length) this.#finish()
    const piece = this.#pieces[this.#next]
    if (piece === undefined) {
      this.#announced = false
      if (this.#ended) this.emit("end")
      return null
    }
    const { length } = piece
    this.#slabs.gave(length, this.#slabOf[this.#next])
    this.#pieces[this.#next++] = undefined
    this.#bytes -= length
    if (this.#next === this.#pieces.length) this.#dropRead([], [])
    // Somebody writes as fast as we read: what was read must not pile up.
    else if (this.#next > 1000 && this.#next * 2 > this.#pieces.length) {
      this.#dropRead(this.#pieces.slice(this.#next), this.#slabOf.slice(this.#next))
    }
    // Not here and now: the reader is in the midst of its work.
    if (this.#isFull && this.#bytes === 0) process.nextTick(this.#drained)
    return piece
  }

  #dropRead(pieces: Array<Buffer | undefined>, slabOf: Array<Slab | undefined>): void {
    this.#pieces = pieces
    this.#slabOf = slabOf
    this.#next = 0
  }

  readonly #drained = () => {
    if (!this.#isFull || this.#bytes > 0) return
    this.#isFull = false
    if (!this.#ended) this.emit("drain")
  }

  /** Nothing more is written; what was written is still to be read. */
  end(): void {
    this.#ended = true
    if (this.#bytes === 0) this.emit("end")
  }
}
