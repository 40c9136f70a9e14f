/**
 * What a client sends on a WebSocket, by the headers of its frames alone (RFC 6455, section 5.2).
 *
 * `ws` collects a message in memory until its last byte has come, up to 100 MiB unless the application has said otherwise to
 * its HTTP server. Here a message is refused by the length that it announces.
 */

/** What a client has to say is short: bytes of one message. */
export const longestMessage = 1024

/** An empty fragment costs memory as well. */
const mostFragments = 16

const opcodes = { continuation: 0, firstOfControl: 8 } as const

/** What of a message is not taken. */
export type Excess = "tooLong" | "tooManyFragments"

/** What its client is told. */
export const details: Record<Excess, string> = {
  tooLong: `A message of a client has at most ${longestMessage} bytes.`,
  tooManyFragments: `A message of a client has at most ${mostFragments} fragments.`
}

export class FrameHeaders {
  /** The header that is being read: two bytes, and a length of up to eight. */
  readonly #header = new DataView(new ArrayBuffer(10))
  #have = 0
  #need = 2
  /** Bytes of mask and payload that are still to come. */
  #skip = 0
  /** Bytes and fragments of the message that is being read. */
  #length = 0
  #fragments = 0

  /** Reads on, until there is an excess. What follows one is not read. */
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
    // They may come between the fragments of a message.
    if (opcode >= opcodes.firstOfControl) return length > longestMessage ? "tooLong" : undefined
    if (opcode !== opcodes.continuation) this.#length = this.#fragments = 0
    this.#length += length
    this.#fragments++
    if (this.#length > longestMessage) return "tooLong"
    return this.#fragments > mostFragments ? "tooManyFragments" : undefined
  }
}
