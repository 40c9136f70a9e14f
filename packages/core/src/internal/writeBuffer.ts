/**
 * What one channel has written and the connection has not taken yet: in the place of amqplib's own buffer, a stream of
 * frames, which is full after 1,024 frames whatever their size.
 *
 * This one counts bytes, and puts small frames together: what a channel writes in one turn of the event loop reaches the
 * socket in few pieces. It has no more of a stream than amqplib uses: `write`, `end`, `read`, and the events `readable`,
 * `drain` and `end`.
 */
import { EventEmitter } from "node:events"
import type { Slab } from "./slab.ts"

/** A frame of more bytes is not copied. */
const smallFrame = 4096

export class WriteBuffer extends EventEmitter {
  readonly #size: number
  readonly #slab: Slab
  /** In order, before the open one. */
  #pieces: Array<Buffer | undefined> = []
  #next = 0
  /** The piece that still grows: a part of this, which is a part of the slab. */
  #open: Buffer
  #from = 0
  #to = 0
  #bytes = 0
  #isFull = false
  /** Whether the reader knows that there is something to read. */
  #announced = false
  #ended = false

  /** @param size in bytes: the buffer is full when it holds as many */
  constructor(size: number, slab: Slab) {
    super()
    this.#size = size
    this.#slab = slab
    this.#open = slab.room
  }

  /** Whether it has taken as much as it is meant to hold, and `drain` is to come. */
  get isFull(): boolean {
    return this.#isFull
  }

  /** Where `reserve` has made room. */
  get room(): Buffer {
    return this.#open
  }

  /** Takes the frame in any case; whether there is room for more. If not, `drain` follows. */
  write(frame: Buffer): boolean {
    if (frame.length <= smallFrame) {
      const at = this.reserve(frame.length)
      this.#open.set(frame, at)
      return this.commit(frame.length)
    }
    return this.append(frame)
  }

  /** As `write`, of one or more frames that are not changed any more, without a copy. */
  append(frames: Buffer): boolean {
    if (this.#ended) return true
    this.#finish()
    this.#pieces.push(frames)
    return this.#written(frames.length)
  }

  /**
   * Makes room for so many bytes, no more than a slab has: from where on in `room` they may be written. They count when
   * `commit` says how many they were, in the same tick.
   */
  reserve(bytes: number): number {
    const slab = this.#slab
    slab.ensure(bytes)
    if (slab.room !== this.#open || slab.used !== this.#to) {
      this.#finish()
      this.#open = slab.room
      this.#from = this.#to = slab.used
    }
    return this.#to
  }

  commit(bytes: number): boolean {
    // A channel that was closed under its writer's hands: the frames are nobody's.
    if (this.#ended) return true
    this.#slab.used = this.#to += bytes
    return this.#written(bytes)
  }

  /** Whether what ends here is the last that was written, and nobody has read it yet: then it may still be changed. */
  isLast(room: Buffer, end: number): boolean {
    return room === this.#open && end === this.#to && this.#from < end
  }

  #written(bytes: number): boolean {
    this.#bytes += bytes
    if (!this.#announced) {
      this.#announced = true
      this.emit("readable")
    }
    if (this.#bytes >= this.#size) this.#isFull = true
    return !this.#isFull
  }

  /** Nothing more is put to the open piece. */
  #finish(): void {
    if (this.#from === this.#to) return
    this.#pieces.push(this.#open.subarray(this.#from, this.#to))
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
    this.#pieces[this.#next++] = undefined
    this.#bytes -= piece.length
    if (this.#next === this.#pieces.length) {
      this.#pieces = []
      this.#next = 0
    } else if (this.#next > 1000 && this.#next * 2 > this.#pieces.length) {
      // Somebody writes as fast as we read: what was read must not pile up.
      this.#pieces = this.#pieces.slice(this.#next)
      this.#next = 0
    }
    // Not here and now: the reader is in the midst of its work.
    if (this.#isFull && this.#bytes === 0) process.nextTick(this.#drained)
    return piece
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
