/**
 * The bytes that one channel has written and its connection has not taken yet.
 * It counts bytes and merges frames, so that everything a channel writes in one turn of the event loop reaches the
 * socket in few pieces. A piece holds whole frames, because frames of other channels may come between two pieces.
 */
import type { ConnectionOutput } from "./connectionOutput.ts"
import type { Slab, SlabPool } from "./slabPool.ts"

/** Largest frame that is copied, in bytes. A larger one becomes a piece of its own. */
const maxCopiedFrame = 4096

/** The pieces of an empty output, shared because most outputs are empty most of the time. */
const none: Array<undefined> = []

const drained = (output: ChannelOutput) => output.drained()

/** The events of an output, for its channel. */
export interface OutputEvents {
  /** The output was full and has room again. */
  readonly outputDrained: () => void
  /** Everything up to the fence is taken, after `isTaken` returned `false`. */
  readonly outputTaken: () => void
}

export class ChannelOutput {
  readonly #size: number
  readonly #connection: ConnectionOutput
  readonly #slabs: SlabPool
  readonly #events: OutputEvents
  /** Complete pieces, in order, before the open one. */
  #pieces: Array<Buffer | undefined> = none
  /** The slab of each piece; `undefined`: the piece is in no slab. */
  #slabOf: Array<Slab | undefined> = none
  #next = 0
  /** The slab of the piece that still grows. */
  #open: Slab
  #from = 0
  #to = 0
  #bytes = 0
  #isFull = false
  /** Whether the output is announced to the connection. */
  #isAnnounced = false
  #hasEnded = false
  /** Bytes after this position are not taken. */
  #fence = Infinity
  /** Whether `outputTaken` is due. */
  #isAwaited = false
  /** Number of bytes written so far, which is the position of the next byte. */
  position = 0

  /** @param size capacity in bytes; the output is full when it holds that many */
  constructor(size: number, connection: ConnectionOutput, events: OutputEvents) {
    this.#size = size
    this.#connection = connection
    this.#slabs = connection.slabs
    this.#events = events
    this.#open = this.#slabs.current
  }

  /** Whether the output has reached its capacity. `outputDrained` follows. */
  get isFull(): boolean {
    return this.#isFull && !this.#hasEnded
  }

  /** The memory in which `reserve` has made room. */
  get buffer(): Buffer {
    return this.#open.buffer
  }

  /** Takes whole frames, even when the output is full. */
  write(frame: Buffer): void {
    if (this.#hasEnded) return
    if (frame.length <= maxCopiedFrame) {
      const at = this.reserve(frame.length)
      this.buffer.set(frame, at)
      this.commit(frame.length)
    } else {
      this.#finish()
      this.#push(frame, undefined)
      this.#written(frame.length)
    }
  }

  /**
   * Makes room for `bytes` bytes, at most the size of the largest slab. Returns the index in `room` where they may be
   * written. They count once `commit` states how many were written, which must happen in the same tick.
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
    // The channel was closed while its frames were being written: they are dropped.
    if (this.#hasEnded) return
    const slab = this.#open
    slab.used = this.#to += bytes
    slab.unread += bytes
    this.#written(bytes)
  }

  /**
   * Whether the bytes that end at this position were written last and are not taken. Then they may still be changed.
   */
  isLast(position: number): boolean {
    return position === this.position && this.#from < this.#to
  }

  /**
   * Removes `bytes` bytes that end at this position. Returns whether it could: neither they nor anything after them may
   * have been taken.
   */
  tryRetract(position: number, bytes: number): boolean {
    const slab = this.#open
    const start = this.#to - (this.position - position) - bytes
    if (start < this.#from || slab.used !== this.#to) return false
    slab.buffer.copyWithin(start, start + bytes, this.#to)
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

  /** Completes the open piece. */
  #finish(): void {
    if (this.#from === this.#to) return
    this.#push(this.buffer.subarray(this.#from, this.#to), this.#open)
    this.#from = this.#to
  }

  #push(piece: Buffer, slab: Slab | undefined): void {
    if (this.#pieces === none) this.#dropTaken([], [])
    this.#pieces.push(piece)
    this.#slabOf.push(slab)
  }

  /** Returns a position for a later fence: bytes written from now on go into other pieces. */
  mark(): number {
    this.#finish()
    return this.position
  }

  /** Holds back bytes after this mark until another call moves the fence; `Infinity` removes it. */
  fenceAt(mark: number): void {
    this.#fence = mark
    if (this.#bytes > 0 && !this.#isAnnounced) this.#announce()
  }

  /** Whether everything up to the fence is taken. If not, `outputTaken` follows when it is. */
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

  /** Returns the next piece; `undefined`: there is none now. */
  take(): Buffer | undefined {
    if (this.position - this.#bytes >= this.#fence) return this.#pause()
    if (this.#next === this.#pieces.length) this.#finish()
    const piece = this.#pieces[this.#next]
    if (piece === undefined) return this.#pause()
    const { length } = piece
    this.#slabs.consumed(length, this.#slabOf[this.#next])
    this.#pieces[this.#next++] = undefined
    this.#bytes -= length
    if (this.#next === this.#pieces.length) this.#dropTaken(none, none)
    // The writer keeps up with the reader, so the output is never empty: taken pieces must not accumulate.
    else if (this.#next > 1000 && this.#next * 2 > this.#pieces.length) {
      this.#dropTaken(this.#pieces.slice(this.#next), this.#slabOf.slice(this.#next))
    }
    // Deferred, because the connection is in the middle of a flush.
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

  /** Reports that there is room, if there is. */
  drained(): void {
    if (!this.#isFull || this.#bytes > 0) return
    this.#isFull = false
    if (!this.#hasEnded) this.#events.outputDrained()
  }

  /** Drops everything that is not taken. Later writes are ignored. */
  end(): void {
    if (this.#hasEnded) return
    this.#finish()
    for (let i = this.#next; i < this.#pieces.length; i++)
      this.#slabs.discarded(this.#pieces[i]!.length, this.#slabOf[i])
    this.#dropTaken(none, none)
    this.#bytes = 0
    this.#isAwaited = false
    this.#hasEnded = true
  }
}
