/**
 * What one channel has written and the connection has not taken yet: in the place of amqplib's own buffer, a stream of
 * frames, which is full after 1,024 frames whatever their size.
 *
 * This one counts bytes, and costs less than a stream. It has no more of one than amqplib uses: `write`, `end`, `read`,
 * and the events `readable`, `drain` and `end`.
 */
import { EventEmitter } from "node:events"

export class WriteBuffer extends EventEmitter {
  readonly #size: number
  #frames: Array<Buffer | undefined> = []
  #next = 0
  #bytes = 0
  #isFull = false
  /** Whether the reader knows that there is something to read. */
  #announced = false
  #ended = false

  /** @param size in bytes: the buffer is full when it holds as many */
  constructor(size: number) {
    super()
    this.#size = size
  }

  /** Takes the frame in any case; whether there is room for more. If not, `drain` follows. */
  write(frame: Buffer): boolean {
    // A channel that was closed under its writer's hands: the frame is nobody's.
    if (this.#ended) return true
    this.#frames.push(frame)
    this.#bytes += frame.length
    if (!this.#announced) {
      this.#announced = true
      this.emit("readable")
    }
    if (this.#bytes >= this.#size) this.#isFull = true
    return !this.#isFull
  }

  /** The next frame; null when there is none now. */
  read(): Buffer | null {
    const frame = this.#frames[this.#next]
    if (frame === undefined) {
      this.#announced = false
      if (this.#ended) this.emit("end")
      return null
    }
    this.#frames[this.#next++] = undefined
    this.#bytes -= frame.length
    if (this.#next === this.#frames.length) {
      this.#frames = []
      this.#next = 0
    } else if (this.#next > 1000 && this.#next * 2 > this.#frames.length) {
      // Somebody writes as fast as we read: what was read must not pile up.
      this.#frames = this.#frames.slice(this.#next)
      this.#next = 0
    }
    // Not here and now: the reader is in the midst of its work.
    if (this.#isFull && this.#bytes === 0) process.nextTick(this.#drained)
    return frame
  }

  readonly #drained = () => {
    if (!this.#isFull || this.#bytes > 0) return
    this.#isFull = false
    if (!this.#ended) this.emit("drain")
  }

  /** Nothing more is written; what was written is still to be read. */
  end(): void {
    this.#ended = true
    if (this.#frames.length === 0) this.emit("end")
  }
}
