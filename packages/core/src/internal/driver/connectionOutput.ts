/**
 * What the channels of a connection write to its socket: once per turn of the event loop, in few pieces, and no more than
 * the socket takes.
 *
 * Channels put what they write into the same memory, one behind the other, so what each of them has written goes out as
 * one. When the socket takes no more, the channels take turns: a large message of one does not hold up the others, nor
 * amqplib, which writes its methods and heartbeats to the socket itself.
 */
import type { Duplex } from "node:stream"
import { Slabs } from "./slab.ts"

/** So many turns after it was asked to write something, amqplib has given it to the socket, unless that is full. */
const turnsOfAmqplib = 2

/** What a channel has written. */
export interface Pieces {
  /** The next piece; undefined when there is none now. */
  readonly take: () => Buffer | undefined
}

export class ConnectionOutput {
  readonly slabs: Slabs
  readonly #socket: Duplex
  /** Those that have something to be taken, in the order of their turns. */
  #ready: Array<Pieces> = []
  #isScheduled = false
  #isFlushing = false
  #isStopped = false
  /** Not given to the socket yet: what is here, and so many bytes behind it. */
  #held: Buffer | undefined = undefined
  #length = 0
  /** Waiting until nothing is left. */
  #whenEmpty: (() => void) | undefined = undefined
  /** To be called at the next drain, before anything of ours is written. */
  readonly #whenDrained: Array<() => void> = []

  constructor(socket: Duplex) {
    this.#socket = socket
    this.slabs = new Slabs(socket)
    socket.on("drain", this.#drained)
  }

  /** There is something to be taken. */
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

  /** amqplib listens longer than this does: it has written what waited there, as much as the socket has taken. */
  readonly #drained = () => {
    for (const look of this.#whenDrained.splice(0)) look()
    this.#run()
  }

  /** Gives the socket as much as it takes, with one system call. */
  flush(): void {
    const socket = this.#socket
    if (this.#isFlushing || this.#isStopped || this.#ready.length === 0 || socket.writableNeedDrain) return
    this.#isFlushing = true
    socket.cork()
    try {
      this.#takeTurns()
      this.#give()
    } finally {
      socket.uncork()
      this.#isFlushing = false
    }
    this.#lookWhetherEmpty()
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

  /** Whether the socket will take more. */
  #write(piece: Buffer): boolean {
    const held = this.#held
    if (held?.buffer === piece.buffer && held.byteOffset + this.#length === piece.byteOffset) {
      this.#length += piece.length
    } else {
      this.#give()
      this.#held = piece
      this.#length = piece.length
    }
    const { writableHighWaterMark, writableLength } = this.#socket
    return writableLength + this.#length < writableHighWaterMark
  }

  #give(): void {
    const held = this.#held
    if (held === undefined) return
    this.#held = undefined
    const { byteOffset, buffer, length } = held
    this.#socket.write(length === this.#length ? held : Buffer.from(buffer, byteOffset, this.#length))
  }

  /** Calls back when nothing that was announced is left, and amqplib has written all that it was asked to. */
  whenEmpty(run: () => void): void {
    this.#whenEmpty = run
    this.flush()
    this.#lookWhetherEmpty()
  }

  #lookWhetherEmpty(): void {
    const run = this.#whenEmpty
    if (run === undefined || this.#ready.length > 0 || this.#isFlushing) return
    this.#whenEmpty = undefined
    this.whenAmqplibHasWritten(() => {
      if (!this.#isStopped) run()
    })
  }

  /** Calls back when amqplib has given the socket all that it was asked to write, whatever channels go on writing. */
  whenAmqplibHasWritten(run: () => void): void {
    let turns = 0
    const look = () => {
      if (turns++ < turnsOfAmqplib) setImmediate(look)
      // What is filled up behind amqplib's turn is ours.
      else if (this.#socket.writableNeedDrain) this.#whenDrained.push(look)
      else run()
    }
    look()
  }

  /** Nothing of ours is written any more. */
  stop(): void {
    this.#isStopped = true
    this.#ready = []
    this.#whenEmpty = undefined
  }
}
