/**
 * Limits on the messages that a client sends on a WebSocket, checked by the headers of the frames (RFC 6455, section
 * 5.2).
 *
 * `ws` collects a message in memory until its last byte has arrived, up to 100 MiB unless the application has
 * configured its HTTP server differently. Here a message is refused by the length that its headers announce.
 */

/** Maximum size of one message from a client, in bytes. Settlements are short. */
export const longestMessage = 1024

/** Maximum number of fragments per message. An empty fragment uses memory too. */
const mostFragments = 16

const opcodes = { continuation: 0, firstOfControl: 8 } as const

/** The limit that a message exceeds. */
export type Excess = "tooLong" | "tooManyFragments"

/** The texts that clients get. They are also reasons of a close, which have at most 123 bytes. */
export const excessDetails: Record<Excess, string> = {
  tooLong: `The message is too long: at most ${longestMessage} bytes are accepted.`,
  tooManyFragments: `The message has too many fragments: at most ${mostFragments} are accepted.`
}

export class FrameHeaders {
  /** The header that is being read: two bytes, and up to eight bytes of length. */
  readonly #header = new DataView(new ArrayBuffer(10))
  #have = 0
  #need = 2
  /** Bytes of mask and payload that are still to come. */
  #skip = 0
  /** Bytes and fragments of the message that is being read. */
  #length = 0
  #fragments = 0

  /** Reads the next bytes. Returns the first excess; the bytes after it are not read. */
  read(chunk: Uint8Array): Excess | undefined {
    let at = 0
    while (at < chunk.length) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, chunk.length - at)
        this.#skip -= skipped
        at += skipped
        continue
      }
      this.#header.setUint8(this.#have++, chunk[at++]!)
      if (this.#have === 2) this.#need = [4, 10][(this.#header.getUint8(1) & 0x7f) - 126] ?? 2
      if (this.#have < this.#need) continue
      const excess = this.#frame()
      if (excess !== undefined) return excess
    }
    return undefined
  }

  #frame(): Excess | undefined {
    const header = this.#header
    const first = header.getUint8(0)
    const second = header.getUint8(1)
    const length =
      this.#need === 2 ? second & 0x7f : this.#need === 4 ? header.getUint16(2) : Number(header.getBigUint64(2))
    this.#have = 0
    this.#need = 2
    this.#skip = length + (second & 0x80 ? 4 : 0)
    const opcode = first & 0x0f
    // Control frames may arrive between the fragments of a message, so they do not reset its counts.
    if (opcode >= opcodes.firstOfControl) return length > longestMessage ? "tooLong" : undefined
    if (opcode !== opcodes.continuation) this.#length = this.#fragments = 0
    this.#length += length
    this.#fragments++
    if (this.#length > longestMessage) return "tooLong"
    return this.#fragments > mostFragments ? "tooManyFragments" : undefined
  }
}
