/**
 * What the channels of a connection write to its socket in one turn of the event loop, in few pieces: channels put what they
 * write into the same memory, one behind the other, so what each of them has written goes out as one.
 */
import type { Duplex } from "node:stream"

export class SocketOutput {
  readonly #stream: Duplex
  /** Not given to the socket yet: what is here, and so many bytes behind it. */
  #held: Buffer | undefined = undefined
  #length = 0

  constructor(stream: Duplex) {
    this.#stream = stream
  }

  /** Whether the socket will take more. If not, it will emit `drain`. */
  write(piece: Buffer): boolean {
    const held = this.#held
    if (held?.buffer === piece.buffer && held.byteOffset + this.#length === piece.byteOffset) {
      this.#length += piece.length
    } else {
      this.#give()
      this.#held = piece
      this.#length = piece.length
    }
    const { writableHighWaterMark, writableLength } = this.#stream
    return writableLength + this.#length < writableHighWaterMark
  }

  #give(): void {
    const held = this.#held
    if (held === undefined) return
    this.#held = undefined
    const { byteOffset, buffer, length } = held
    this.#stream.write(length === this.#length ? held : Buffer.from(buffer, byteOffset, this.#length))
  }

  /** Runs what writes, and gives the socket all of it with one system call. */
  during(writing: () => void): void {
    const stream = this.#stream
    stream.cork()
    try {
      writing()
      this.#give()
    } finally {
      stream.uncork()
    }
  }
}
