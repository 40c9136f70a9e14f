/**
 * What one channel has written and its connection has not taken yet.
 *
 * It counts bytes, and puts frames together: what a channel writes in one turn of the event loop reaches the socket in few
 * pieces. A piece has whole frames, since those of other channels come between two pieces.
 */
import type { ConnectionOutput } from "./connectionOutput.ts"
import type { Slab, Slabs } from "./slab.ts"

/** A larger frame is not copied. */
const smallFrame = 4096

/** Those of an output that holds nothing, as most do for most of the time. */
const none: Array<undefined> = []

const drained = (output: ChannelOutput) => output.drained()

/** What a channel is told of its output. */
export interface OutputEvents {
  /** There is room again, after it was full. */
  readonly outputDrained: () => void
  /** All that `isTaken` was asked for is taken. */
  readonly outputTaken: () => void
}

export class ChannelOutput {
  readonly #size: number
  readonly #connection: ConnectionOutput
  readonly #slabs: Slabs
  readonly #events: OutputEvents
  /** In order, before the open one. */
  #pieces: Array<Buffer | undefined> = none
  /** Which slab each is in; undefined: in none. */
  #slabOf: Array<Slab | undefined> = none
  #next = 0
  /** The piece that still grows, of this slab. */
  #open: Slab
  #from = 0
  #to = 0
  #bytes = 0
  #isFull = false
  /** Whether the connection knows that there is something to be taken. */
  #isAnnounced = false
  #hasEnded = false
  /** Nothing behind this position is taken. */
  #fence = Infinity
  /** Whether `outputTaken` is to be called. */
  #isAwaited = false
  /** Bytes that were ever written: where the next will be. */
  position = 0

  /** @param size in bytes: it is full when it holds as many */
  constructor(size: number, connection: ConnectionOutput, events: OutputEvents) {
    this.#size = size
    this.#connection = connection
    this.#slabs = connection.slabs
    this.#events = events
    this.#open = this.#slabs.current
  }

  /** Whether it holds as much as it is meant to, and `outputDrained` is to come. */
  get isFull(): boolean {
    return this.#isFull && !this.#hasEnded
  }

  /** Where `reserve` has made room. */
  get room(): Buffer {
    return this.#open.room
  }

  /** Takes whole frames, in any case. */
  write(frame: Buffer): void {
    if (this.#hasEnded) return
    if (frame.length <= smallFrame) {
      const at = this.reserve(frame.length)
      this.room.set(frame, at)
      this.commit(frame.length)
    } else {
      this.#finish()
      this.#push(frame, undefined)
      this.#written(frame.length)
    }
  }

  /**
   * Makes room for so many bytes, no more than the largest slab has: from where on in `room` they may be written. They
   * count when `commit` says how many they were, in the same tick.
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
    if (this.#hasEnded) return
    const slab = this.#open
    slab.used = this.#to += bytes
    slab.unread += bytes
    this.#written(bytes)
  }

  /** Whether what ends at this position is the last that was written, and is not taken: it may still be changed. */
  isLast(position: number): boolean {
    return position === this.position && this.#from < this.#to
  }

  /** Takes so many bytes back that end at this position. Whether it could: they are not taken, nor is anything behind. */
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
    if (!this.#isAnnounced) this.#announce()
    if (this.#bytes >= this.#size) this.#isFull = true
  }

  #announce(): void {
    this.#isAnnounced = true
    this.#connection.announce(this)
  }

  /** Nothing more is put to the open piece. */
  #finish(): void {
    if (this.#from === this.#to) return
    this.#push(this.room.subarray(this.#from, this.#to), this.#open)
    this.#from = this.#to
  }

  #push(piece: Buffer, slab: Slab | undefined): void {
    if (this.#pieces === none) this.#dropTaken([], [])
    this.#pieces.push(piece)
    this.#slabOf.push(slab)
  }

  /** Where a fence may be put later: what is written from now on is in other pieces. */
  mark(): number {
    this.#finish()
    return this.position
  }

  /** Nothing behind this mark is taken until there is another fence, or none: Infinity. */
  fenceAt(mark: number): void {
    this.#fence = mark
    if (this.#bytes > 0 && !this.#isAnnounced) this.#announce()
  }

  /** Whether all up to the fence is taken. If not, `outputTaken` follows when it is. */
  get isTaken(): boolean {
    if (this.#isTakenNow) return true
    this.#connection.flush()
    if (this.#isTakenNow) return true
    this.#isAwaited = true
    return false
  }

  get #isTakenNow(): boolean {
    return this.#bytes === 0 || this.position - this.#bytes >= this.#fence
  }

  /** The next piece; undefined when there is none now. */
  take(): Buffer | undefined {
    if (this.position - this.#bytes >= this.#fence) return this.#pause()
    if (this.#next === this.#pieces.length) this.#finish()
    const piece = this.#pieces[this.#next]
    if (piece === undefined) return this.#pause()
    const { length } = piece
    this.#slabs.gave(length, this.#slabOf[this.#next])
    this.#pieces[this.#next++] = undefined
    this.#bytes -= length
    if (this.#next === this.#pieces.length) this.#dropTaken(none, none)
    // Somebody writes as fast as we read: what was taken must not pile up.
    else if (this.#next > 1000 && this.#next * 2 > this.#pieces.length) {
      this.#dropTaken(this.#pieces.slice(this.#next), this.#slabOf.slice(this.#next))
    }
    // Not here and now: the connection is in the midst of its work.
    if (this.#isFull && this.#bytes === 0) process.nextTick(drained, this)
    return piece
  }

  #pause(): undefined {
    this.#isAnnounced = false
    if (!this.#isAwaited || !this.#isTakenNow) return
    this.#isAwaited = false
    this.#events.outputTaken()
  }

  #dropTaken(pieces: Array<Buffer | undefined>, slabOf: Array<Slab | undefined>): void {
    this.#pieces = pieces
    this.#slabOf = slabOf
    this.#next = 0
  }

  /** Tells that there is room, if there is. */
  drained(): void {
    if (!this.#isFull || this.#bytes > 0) return
    this.#isFull = false
    if (!this.#hasEnded) this.#events.outputDrained()
  }

  /** Drops what is not taken. Nothing more is written. */
  end(): void {
    if (this.#hasEnded) return
    this.#finish()
    for (let i = this.#next; i < this.#pieces.length; i++) this.#slabs.dropped(this.#pieces[i]!.length, this.#slabOf[i])
    this.#dropTaken(none, none)
    this.#bytes = 0
    this.#isAwaited = false
    this.#hasEnded = true
  }
}
