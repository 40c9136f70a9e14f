/**
 * Writes the output of all channels of a connection to its socket: once per turn of the event loop, in few pieces, and
 * no more than the socket accepts.
 * Channels write into shared memory, one after the other, so that the bytes of several channels go out as one piece.
 * When the socket accepts no more, the channels take turns. A large message of one channel does not delay the others,
 * nor amqplib, which writes its methods and heartbeats to the socket itself.
 */
import type { Duplex } from "node:stream"
import { SlabPool } from "./slabPool.ts"

/**
 * Number of turns of the event loop after which amqplib has passed a requested write to the socket, unless the socket
 * is full.
 */
const amqplibTurns = 2

/** The output of one channel. */
export interface Pieces {
  /** Returns the next piece; `undefined`: there is none now. */
  readonly take: () => Buffer | undefined
}

export class ConnectionOutput {
  readonly slabs: SlabPool
  readonly #socket: Duplex
  /** Outputs with bytes to take, in the order of their turns. */
  #ready: Array<Pieces> = []
  #isScheduled = false
  #isFlushing = false
  #isStopped = false
  /** Bytes that are not given to the socket yet: they start in this buffer and are `#length` long. */
  #held: Buffer | undefined = undefined
  #length = 0
  /** Called when nothing is left to write. */
  #whenEmpty: (() => void) | undefined = undefined
  /** Called at the next `drain`, before anything of ours is written. */
  readonly #whenDrained: Array<() => void> = []

  constructor(socket: Duplex) {
    this.#socket = socket
    this.slabs = new SlabPool(socket)
    socket.on("drain", this.#drained)
  }

  /** Registers an output that has bytes to take. */
  announce(output: Pieces): void {
    if (this.#isStopped) return
    this.#ready.push(output)
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(this.#run)
  }

  readonly #run = () => {
    this.#isScheduled = false
    this.flush()
  }

  /**
   * amqplib's `drain` listener is older than this one, so amqplib has already written as much of its waiting output as
   * the socket accepted.
   */
  readonly #drained = () => {
    for (const check of this.#whenDrained.splice(0)) check()
    this.#run()
  }

  /** Gives the socket as much as it accepts, with one system call. */
  flush(): void {
    const socket = this.#socket
    if (this.#isFlushing || this.#isStopped || this.#ready.length === 0 || socket.writableNeedDrain) return
    this.#isFlushing = true
    socket.cork()
    try {
      this.#takeTurns()
      this.#writeHeld()
    } finally {
      socket.uncork()
      this.#isFlushing = false
    }
    this.#checkEmpty()
  }

  #takeTurns(): void {
    const ready = this.#ready
    for (let output = ready.shift(); output !== undefined; output = ready.shift()) {
      const piece = output.take()
      if (piece === undefined) continue
      ready.push(output)
      if (!this.#write(piece)) return
    }
  }

  /** Returns whether the socket accepts more. */
  #write(piece: Buffer): boolean {
    const held = this.#held
    if (held?.buffer === piece.buffer && held.byteOffset + this.#length === piece.byteOffset) {
      this.#length += piece.length
    } else {
      this.#writeHeld()
      this.#held = piece
      this.#length = piece.length
    }
    const { writableHighWaterMark, writableLength } = this.#socket
    return writableLength + this.#length < writableHighWaterMark
  }

  #writeHeld(): void {
    const held = this.#held
    if (held === undefined) return
    this.#held = undefined
    const { byteOffset, buffer, length } = held
    this.#socket.write(length === this.#length ? held : Buffer.from(buffer, byteOffset, this.#length))
  }

  /** Calls `run` when all announced output and all of amqplib's requested writes are with the socket. */
  whenEmpty(run: () => void): void {
    this.#whenEmpty = run
    this.flush()
    this.#checkEmpty()
  }

  #checkEmpty(): void {
    const run = this.#whenEmpty
    if (run === undefined || this.#ready.length > 0 || this.#isFlushing) return
    this.#whenEmpty = undefined
    this.whenAmqplibHasWritten(() => {
      if (!this.#isStopped) run()
    })
  }

  /** Calls `run` when amqplib has given the socket all requested writes, even while channels continue to write. */
  whenAmqplibHasWritten(run: () => void): void {
    let turns = 0
    const check = () => {
      if (turns++ < amqplibTurns) setImmediate(check)
      // The socket is full, so amqplib may still have bytes to write. The check runs again at the next `drain`, after
      // amqplib's turn and before ours, because our bytes would fill the socket again.
      else if (this.#socket.writableNeedDrain) this.#whenDrained.push(check)
      else run()
    }
    check()
  }

  /** Stops writing. Announced output is dropped. */
  stop(): void {
    this.#isStopped = true
    this.#ready = []
    this.#whenEmpty = undefined
  }
}
