/**
 * What a socket reads, in memory that is used again.
 *
 * Node makes 64 KiB of it for each read otherwise, and V8 looks at all that lives for every 64 MiB: bodies of 64 KiB cost
 * more to collect than to receive.
 */
import type { Readable } from "node:stream"
import { firstBytes } from "./foreignPeer.ts"

/** As much as Node reads at a time by itself. */
const size = 65_536

/** Takes what was read, in the tick in which it was: the next read overwrites it. */
type Take = (bytes: Buffer) => void

export class SocketInput {
  /** Without one, what is read goes the way of the stream, in copies. */
  take: Take | undefined = undefined
  /** The first bytes of the handshake. */
  first: Buffer = Buffer.alloc(0)

  /** The socket's option of this name (https://nodejs.org/api/net.html#new-netsocketoptions). */
  readonly onread: {
    readonly buffer: Uint8Array
    readonly callback: (bytesRead: number, buffer: Uint8Array) => boolean
  }

  constructor() {
    // Node calls it as a method of the socket.
    const read = (socket: Readable, bytes: Buffer) => {
      // What came before goes first.
      if (this.take !== undefined && socket.readableLength === 0) return this.take(bytes)
      if (this.first.length < firstBytes) this.first = Buffer.concat([this.first, bytes]).subarray(0, firstBytes)
      socket.push(Buffer.from(bytes))
      return undefined
    }
    this.onread = {
      // Empty, and nobody else's: memory that others have given back holds what they had in it.
      buffer: Buffer.alloc(size),
      callback(this: unknown, bytesRead: number, buffer: Uint8Array) {
        read(this as Readable, (buffer as Buffer).subarray(0, bytesRead))
        return true
      }
    }
  }
}
