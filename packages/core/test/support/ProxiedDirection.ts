/** One direction of a proxied link: takes bytes from one socket and writes them to another, subject to faults. */
import type { Socket } from "node:net"

export type Direction = "up" | "down"

/** How both sides notice a cut: by a reset, or by an orderly end. */
export type CutBy = "rst" | "fin"

/** Faults of one direction. They belong to the proxy, so they apply to new links too. */
export interface Faults {
  stalled: boolean
  dropping: boolean
  delayMs: number
  /** Bytes per second; 0 means no limit. */
  rate: number
  /** Size of the written pieces; 0 leaves them as they arrive. */
  chop: number
  /** Flips a bit of every nth byte; 0 changes nothing. */
  corruptEvery: number
  /** Cuts the link once this many further bytes have passed. */
  cutAfter: number | undefined
  cutBy: CutBy
}

export const noFaults = (): Faults => ({
  stalled: false,
  dropping: false,
  delayMs: 0,
  rate: 0,
  chop: 0,
  corruptEvery: 0,
  cutAfter: undefined,
  cutBy: "rst"
})

export interface Passed {
  bytes: number
  /** Bytes that are read but not written yet, of all links. */
  held: number
  dropped: number
  corrupted: number
}

interface Piece {
  readonly due: number
  readonly bytes: Buffer | "fin"
}

const sizeOf = (bytes: Piece["bytes"]): number => (bytes === "fin" ? 0 : bytes.length)

/** The number of bytes that a direction holds before it stops reading. */
const HIGH_WATER = 1024 * 1024

export class ProxiedDirection {
  private readonly source: Socket
  private readonly sink: Socket
  private readonly faults: Faults
  private readonly passed: Passed
  private readonly onReset: () => void
  private readonly onCut: (by: CutBy) => void
  private readonly onChanged: () => void
  private readonly pieces: Array<Piece> = []
  private queued = 0
  private lastDue = 0
  private busy = false
  private sourceReset = false
  private dead = false

  constructor(
    source: Socket,
    sink: Socket,
    faults: Faults,
    passed: Passed,
    on: { readonly reset: () => void; readonly cut: (by: CutBy) => void; readonly changed: () => void }
  ) {
    this.source = source
    this.sink = sink
    this.faults = faults
    this.passed = passed
    this.onReset = on.reset
    this.onCut = on.cut
    this.onChanged = on.changed
    source.on("data", (bytes: Buffer) => this.take(bytes))
    source.on("end", () => this.push("fin", 0))
    source.on("close", (hadError) => {
      this.sourceReset = hadError
      this.kick()
    })
    this.kick()
  }

  /** Applies the faults again after they changed. */
  kick(): void {
    if (this.dead) return
    // A stall also hides the far side's end and reset, as a dead link would.
    if (this.faults.stalled) {
      this.source.pause()
      return
    }
    if (this.sourceReset) return this.onReset()
    if (this.queued < HIGH_WATER) this.source.resume()
    this.forward()
  }

  stop(): void {
    this.dead = true
    this.pieces.length = 0
    this.hold(-this.queued)
  }

  private take(bytes: Buffer): void {
    if (this.faults.dropping) {
      this.passed.dropped += bytes.length
      this.onChanged()
      return
    }
    const { chop, rate } = this.faults
    // A slow link trickles: at most a twentieth of a second's worth of bytes at a time.
    const trickle = rate > 0 ? Math.max(1, Math.floor(rate / 20)) : bytes.length
    const size = Math.min(bytes.length, chop > 0 ? chop : bytes.length, trickle)
    for (let at = 0; at < bytes.length; at += size) {
      const piece = bytes.subarray(at, at + size)
      this.push(piece, rate > 0 ? (piece.length / rate) * 1000 : 0)
    }
    this.onChanged()
  }

  private push(bytes: Buffer | "fin", transferMs: number): void {
    if (this.dead) return
    this.lastDue = Math.max(Date.now() + this.faults.delayMs, this.lastDue) + transferMs
    this.pieces.push({ due: this.lastDue, bytes })
    this.hold(sizeOf(bytes))
    if (this.queued >= HIGH_WATER) this.source.pause()
    this.forward()
  }

  private hold(bytes: number): void {
    this.queued += bytes
    this.passed.held += bytes
  }

  private forward(): void {
    const piece = this.pieces[0]
    if (this.busy || this.dead || this.faults.stalled || piece === undefined) return
    const early = piece.due - Date.now()
    if (early > 0) {
      this.busy = true
      setTimeout(() => this.next(), early)
      return
    }
    this.pieces.shift()
    this.hold(-sizeOf(piece.bytes))
    if (piece.bytes === "fin") {
      this.sink.end()
      return
    }
    this.write(this.corrupt(piece.bytes))
  }

  private next(): void {
    this.busy = false
    this.kick()
  }

  private write(bytes: Buffer): void {
    if (!this.sink.writable) {
      // All at once: there can be more small pieces than stack frames.
      this.passed.dropped += bytes.length + this.queued
      this.pieces.length = 0
      this.hold(-this.queued)
      this.onChanged()
      return this.kick()
    }
    const cutAfter = this.faults.cutAfter ?? Number.POSITIVE_INFINITY
    const cut = cutAfter <= bytes.length
    const sent = cut ? bytes.subarray(0, cutAfter) : bytes
    if (this.faults.cutAfter !== undefined) this.faults.cutAfter = cut ? undefined : cutAfter - bytes.length
    this.passed.bytes += sent.length
    this.busy = true
    this.sink.write(sent, () => {
      this.onChanged()
      if (cut) setImmediate(() => this.onCut(this.faults.cutBy))
      // Each piece gets a turn of the event loop, so that a receiver in this process reads it separately.
      else if (this.faults.chop > 0) setImmediate(() => this.next())
      else this.next()
    })
  }

  private corrupt(bytes: Buffer): Buffer {
    const every = this.faults.corruptEvery
    if (every === 0) return bytes
    const copy = Buffer.from(bytes)
    for (let at = 0; at < copy.length; at++) {
      const position = this.passed.bytes + at + 1
      if (position % every !== 0) continue
      copy.writeUInt8(copy.readUInt8(at) ^ (1 << (position % 8)), at)
      this.passed.corrupted++
    }
    return copy
  }
}
