/**
 * Writes a broker's bytes to one socket, in order: at once, or in pieces that the client reads separately, and cut off
 * after a number of bytes if a test asks for that.
 */
import type { Socket } from "node:net"

/** Resets a connection. A socket that is ending cannot be reset: Node would forget its handle and never close it. */
export const reset = (socket: Socket): void => {
  if (socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}

/** Changes bytes on their way. */
export interface Corruption {
  readonly pass: (bytes: Uint8Array) => Uint8Array
  /** Whether the socket is to be ended after the bytes that have passed. */
  readonly ends: boolean
}

export interface SocketOutputOptions {
  /** Size of the pieces; 0 writes everything as it comes. */
  readonly chop: number
  readonly cutAfter: { readonly bytes: number; readonly by: "rst" | "fin" } | undefined
  readonly corruption?: Corruption | undefined
}

export class SocketOutput {
  private readonly socket: Socket
  private readonly options: SocketOutputOptions
  private readonly waiting: Array<Uint8Array> = []
  private budget: number
  private pumping = false
  private ended = false

  constructor(socket: Socket, options: SocketOutputOptions) {
    this.socket = socket
    this.options = options
    this.budget = options.cutAfter?.bytes ?? Number.POSITIVE_INFINITY
  }

  write(bytes: Uint8Array): void {
    if (this.ended || !this.socket.writable) return
    const { corruption } = this.options
    if (corruption !== undefined) {
      this.socket.write(corruption.pass(bytes))
      if (corruption.ends) this.end()
      return
    }
    if (this.options.chop === 0 && this.options.cutAfter === undefined) {
      this.socket.write(bytes)
      return
    }
    this.waiting.push(bytes)
    this.pump()
  }

  end(): void {
    this.ended = true
    if (!this.pumping) this.socket.end()
  }

  private pump(): void {
    if (this.pumping) return
    const next = this.waiting.shift()
    if (next === undefined) {
      if (this.ended) this.socket.end()
      return
    }
    const size = Math.min(next.length, this.budget, this.options.chop > 0 ? this.options.chop : next.length)
    if (size < next.length) this.waiting.unshift(next.subarray(size))
    this.budget -= size
    this.pumping = true
    // The callback runs when the kernel has the piece. A turn of the event loop then lets a client in this process read
    // it.
    this.socket.write(next.subarray(0, size), () => setImmediate(() => this.written()))
  }

  private written(): void {
    this.pumping = false
    if (this.budget > 0) return this.pump()
    this.waiting.length = 0
    if (this.options.cutAfter?.by === "fin") this.socket.end()
    else reset(this.socket)
  }
}
