/**
 * What a broker writes to one socket, in order: at once, or in pieces that the client reads one by one, and cut off
 * after so many bytes where a test asks for that.
 */
import type { Socket } from "node:net"

/** Resets a connection. A socket that is ending cannot: Node would forget its handle, and never close it. */
export const reset = (socket: Socket): void => {
  if (socket.writableEnded) socket.destroy()
  else socket.resetAndDestroy()
}

/** What changes bytes on their way. */
export interface Spoiling {
  readonly pass: (bytes: Uint8Array) => Uint8Array
  /** Whether the socket is to be ended behind what has passed. */
  readonly ends: boolean
}

export interface SocketOutputOptions {
  /** Size of the pieces; 0 writes everything as it comes. */
  readonly chop: number
  readonly cutAfter: { readonly bytes: number; readonly by: "rst" | "fin" } | undefined
  readonly spoiling?: Spoiling | undefined
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
    const { spoiling } = this.options
    if (spoiling !== undefined) {
      this.socket.write(spoiling.pass(bytes))
      if (spoiling.ends) this.end()
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
    // The callback comes when the kernel has the piece; a turn of the event loop then lets a client in this process read it.
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
