/**
 * The boundary between amqplib and us: the bytes that a socket receives.
 *
 * Node hands them to `onread`, a documented option of sockets, in memory that is used again. Frames of messages, confirms,
 * `channel.flow` and what answers our own methods are ours. All others go on to amqplib as they came (`socket.push`): it
 * sees a broker that never sends a message. Before it sees a frame, the tap has read it: amqplib gets nothing that it does
 * not expect, and why a connection or a channel ends is known here first, with its code and text.
 *
 * Hazards of amqplib 2.3 and Node that this module answers:
 * - What is thrown in `onread` is an uncaught exception: it destroys the socket instead.
 * - amqplib's heartbeat timer must see traffic: it gets a heartbeat when bytes have come and none of them was for it. It
 *   refuses heartbeats while it opens, so those are dropped.
 * - It hands a connection, and a channel, out in a later turn than it has read the answer: what stands behind the answer
 *   waits until somebody listens.
 * - An answer that it did not ask for ends the connection, and so does a frame of a channel that it has let go of.
 */
import type { Socket } from "node:net"
import { Duplex } from "node:stream"
import { type HeaderFrame, readContentHeader, unread, fixedPart } from "../wire/contentHeader.ts"
import {
  bodyFrame,
  channelClose,
  channelOpenOk,
  classBasic,
  connectionBlocked,
  connectionClose,
  connectionCloseOk,
  connectionOpenOk,
  connectionSecure,
  connectionStart,
  connectionTune,
  connectionUnblocked,
  connectionUpdateSecretOk,
  headerFrame,
  heartbeatFrame,
  methodFrame,
  nameOf,
  prefix
} from "../wire/protocol.ts"
import type { FieldTable } from "../../model/message.ts"
import { isFrom } from "../wire/versions.ts"
import { type BrokerClose, frameError, MechanismRefused, ProtocolViolation } from "./ends.ts"
import { firstBytes } from "./foreignPeer.ts"
import { Framing, type FrameSink, uint32 } from "./framing.ts"
import { frameOf, readClose, readStart, readText, readTune } from "./methods.ts"

/**
 * How much is read at a time, in bytes. Node reads 64 KiB without `onread`: with that, a body of 1 MiB takes a fifth more CPU.
 * Small messages do not notice. What is never read into is no memory yet.
 */
const readSize = 262_144

const heartbeat = Buffer.from([heartbeatFrame, 0, 0, 0, 0, 0, 0, 0xce])

/** Takes the frames of one channel. */
export interface ChannelFrames {
  /** Whether amqplib is to have it, too. */
  readonly method: (id: number, bytes: Buffer, start: number, end: number) => boolean
  readonly header: (header: HeaderFrame) => void
  readonly body: (bytes: Buffer, start: number, end: number) => void
}

/** Who owns the connection, once it is open. None of these may throw. */
export interface TapOwner {
  /** How many `channel.open` have no answer. */
  readonly opening: number
  /** The broker's `connection.close`, behind which nothing is read. `answer` lets amqplib answer it. */
  readonly closed: (close: BrokerClose, answer: () => void) => void
  readonly blocked: (reason: string) => void
  readonly unblocked: () => void
  readonly secretTaken: () => void
  /** Nothing more is read: the peer broke the protocol, or reading a frame failed. */
  readonly failed: (cause: unknown) => void
}

/** What is proposed to the broker; 0: no limit, no heartbeat. */
export interface Proposal {
  readonly mechanism: string
  readonly channelMax: number
  readonly frameMax: number
  /** In seconds. */
  readonly heartbeat: number
  /** The largest frame that is taken before its size is agreed on, in bytes. */
  readonly mostOfFrame: number
}

/** What was agreed on. */
export interface Agreement {
  /** What the broker says of itself: "RabbitMQ 4.3.6". */
  readonly product: string
  readonly channelMax: number
  readonly frameMax: number
  /** In seconds; 0: none. */
  readonly heartbeat: number
}

/** A limit that either side may lower; 0: no limit (AMQP 0-9-1, method connection.tune-ok). */
const lower = (server: number, client: number): number =>
  server === 0 || client === 0 ? Math.max(server, client) : Math.min(server, client)

/** AMQP 0-9-1, section 4.2.3: frames of this size must be taken. */
const leastFrameMax = 4096
/** RabbitMQ from 4.1 on (release notes of 4.1.0): it closes the socket over less, without a word. */
const leastOfRabbitMq = 8192
const largestChannel = 0xffff
const largestFrame = 0xffffffff

const productOf = (properties: FieldTable): string => {
  const text = (name: string, other: string) => {
    const value = properties[name]
    return typeof value === "string" ? value : other
  }
  return `${text("product", "unknown")} ${text("version", "")}`.trim()
}

/** What no publisher can write, the broker's own part of a header, is a frame against the protocol when it is wrong. */
const readHeader = (bytes: Buffer, channel: number, start: number, end: number): HeaderFrame => {
  try {
    return readContentHeader(bytes, channel, start, end)
  } catch (cause) {
    throw new ProtocolViolation(cause instanceof Error ? cause.message : String(cause), frameError)
  }
}

const contentTooEarly = () => new ProtocolViolation("Unexpected frame: content on a connection that is not open")

/** A part of the stream that waits for a channel to be attached: a frame, or a part of a body. */
interface Waiting {
  readonly type: number
  readonly channel: number
  readonly bytes: Buffer
}

export const unusableRuntime = () =>
  new Error("this runtime does not hand over what its sockets read (the option onread of node:net): use Node.js")

export class Tap implements FrameSink {
  /** The socket, once something has come. */
  socket: Socket | undefined = undefined
  /** The peer's address, once something has come. */
  address: string | undefined = undefined
  /** The first bytes that have come. */
  first: Buffer = Buffer.alloc(0)
  /** When something was read last, in milliseconds of `performance.now()`, while it opens. */
  readAt = performance.now()
  /** Why the connection could not be opened, as the broker's frames say. */
  failure: Error | undefined = undefined
  agreed: Agreement | undefined = undefined
  /** By their numbers: from the answer to their `channel.open` until their close. */
  readonly channels: Array<ChannelFrames | undefined> = []

  readonly #proposal: Proposal
  readonly #framing: Framing
  #owner: TapOwner | undefined = undefined
  #expected: number = connectionStart
  #serverProperties: FieldTable | undefined = undefined
  /** What came behind the handshake while nobody listens: frames, and behind them what was read later. */
  #behind: { readonly frames: Array<Waiting>; readonly bytes: Array<Buffer> } | undefined = undefined
  /** What came for channels that are open and that amqplib has not handed out. */
  readonly #arrived = new Map<number, Array<Waiting>>()
  /** Nothing is looked at any more. */
  #isOver = false
  /** In milliseconds: amqplib is to see something as often. Infinity: it does not look. */
  #interval = Infinity
  #pushedAt = 0
  #hasPushed = false
  /**
   * Bun 1.4 stops reading after each call of `onread.callback` while the stream is not flowing, which it never is: amqplib
   * listens to `readable`. It goes on when amqplib reads, so amqplib gets something each time.
   */
  #stopsReading = false

  /**
   * For Bun 1.4, which calls `onread.callback` without the socket: it hands the options of a socket on to its stream, which
   * calls this one as a method (https://nodejs.org/api/stream.html#new-streamduplexoptions).
   */
  readonly construct: (this: unknown, done: () => void) => void
  /** The socket's option of this name (https://nodejs.org/api/net.html#new-netsocketoptions). */
  readonly onread: {
    readonly buffer: Uint8Array
    readonly callback: (this: unknown, bytesRead: number, buffer: Uint8Array) => boolean
  }

  /** @param giveUp ends the attempt to connect, where there is no socket to destroy */
  constructor(proposal: Proposal, giveUp: () => void = () => {}) {
    this.#proposal = proposal
    this.#framing = new Framing(this, proposal.mostOfFrame)
    const receive = (socket: Socket, bytes: Buffer, isBun: boolean) => {
      if (this.socket === undefined) {
        this.socket = socket
        this.#stopsReading = isBun
        this.address = socket.remoteAddress
      }
      this.#receive(bytes)
    }
    let constructed: Socket | undefined
    this.construct = function (done) {
      if (this instanceof Duplex) constructed = this as Socket
      done()
    }
    const refuse = () => {
      if (this.#isOver) return
      this.#fail(unusableRuntime())
      giveUp()
    }
    this.onread = {
      // Empty, and nobody else's: memory that others have given back holds what they had in it.
      buffer: Buffer.alloc(readSize),
      // Node calls it as a method of the socket, without which nothing can be pushed on. Not all runtimes do.
      callback(bytesRead, buffer) {
        const socket = this instanceof Duplex ? (this as Socket) : constructed
        if (socket === undefined) refuse()
        else receive(socket, (buffer as Buffer).subarray(0, bytesRead), this !== socket)
        return true
      }
    }
  }

  #receive(bytes: Buffer): void {
    if (this.#isOver) return
    if (this.#owner === undefined) {
      this.readAt = performance.now()
      if (this.first.length < firstBytes) this.first = Buffer.concat([this.first, bytes]).subarray(0, firstBytes)
      if (this.#behind !== undefined) {
        this.#behind.bytes.push(Buffer.from(bytes))
        return
      }
    }
    this.#hasPushed = false
    this.#read(bytes)
    if (this.#stopsReading) {
      if (!this.#hasPushed && !this.#isOver && this.#owner !== undefined) this.#push(heartbeat)
      return
    }
    if (this.#interval === Infinity || this.#isOver) return
    const now = performance.now()
    if (now - this.#pushedAt < this.#interval) return
    this.#push(heartbeat)
  }

  #read(bytes: Buffer): void {
    try {
      this.#framing.receive(bytes)
    } catch (cause) {
      this.#fail(cause)
    }
  }

  /** Reads what has waited. */
  #readAgain(waiting: ReadonlyArray<Waiting>): void {
    try {
      for (const { bytes, channel, type } of waiting) {
        if (type === bodyFrame) this.body(channel, bytes, 0, bytes.length)
        else this.frame(type, channel, bytes, prefix, bytes.length - 1)
      }
    } catch (cause) {
      this.#fail(cause)
    }
  }

  #fail(cause: unknown): void {
    this.end()
    if (this.#owner === undefined) this.failure ??= cause instanceof Error ? cause : new Error(String(cause))
    this.socket?.destroy(cause instanceof Error ? cause : new Error(String(cause)))
    this.#owner?.failed(cause)
  }

  /** Nothing is looked at any more. */
  end(): void {
    this.#isOver = true
    this.#behind = undefined
    this.#arrived.clear()
  }

  /** Somebody listens: what came behind the handshake is read now. */
  listen(owner: TapOwner): void {
    this.#owner = owner
    const seconds = this.agreed?.heartbeat ?? 0
    if (seconds > 0) this.#interval = seconds * 500
    this.#pushedAt = performance.now()
    if (this.#stopsReading) this.#push(heartbeat)
    const behind = this.#behind
    this.#behind = undefined
    if (behind === undefined) return
    this.#readAgain(behind.frames)
    for (const bytes of behind.bytes) if (!this.#isOver) this.#read(bytes)
  }

  /** Gives amqplib a copy: the memory is used again. */
  #push(frame: Buffer): void {
    this.#pushedAt = performance.now()
    this.#hasPushed = true
    this.socket?.push(Buffer.from(frame))
  }

  // --- Frames ----------------------------------------------------------------------------------------------------------

  frame(type: number, channel: number, bytes: Buffer, start: number, end: number): void {
    if (this.#isOver) return
    if (this.#behind !== undefined) {
      this.#behind.frames.push({ type, channel, bytes: Buffer.from(bytes.subarray(start - prefix, end + 1)) })
      return
    }
    if (type === methodFrame) {
      if (end - start < 4) throw new ProtocolViolation("Invalid frame: a method without a number")
      const id = uint32(bytes, start)
      if (channel === 0) return this.#onConnection(id, bytes, start, end)
      const of = this.channels[channel]
      if (of === undefined) return this.#onUnattached(id, channel, bytes, start, end)
      if (of.method(id, bytes, start, end)) this.#push(bytes.subarray(start - prefix, end + 1))
    } else if (type === headerFrame) {
      const of = this.channels[channel]
      if (of !== undefined) of.header(readHeader(bytes, channel, start, end))
      else this.#later(type, channel, bytes, start - prefix, end + 1)
    } else if (type === heartbeatFrame) {
      if (this.#owner !== undefined) this.#push(heartbeat)
    }
  }

  body(channel: number, bytes: Buffer, start: number, end: number): void {
    // On a connection that is not open it is nobody's.
    if (this.#isOver || this.#behind !== undefined) return
    const of = this.channels[channel]
    if (of !== undefined) of.body(bytes, start, end)
    else this.#later(bodyFrame, channel, bytes, start, end)
  }

  largeHeader(channel: number, bytes: Buffer, start: number, size: number, most: number): void {
    if (this.#isOver || this.#behind !== undefined) return
    if (this.#owner === undefined) throw contentTooEarly()
    const header = readHeader(bytes, channel, start, start + fixedPart)
    this.channels[channel]?.header(unread(header, `it has ${size} bytes, at most ${most} are read`))
  }

  /** Of a channel that is not attached: it waits if it will be. What else comes is of a channel that has ended. */
  #later(type: number, channel: number, bytes: Buffer, start: number, end: number): void {
    if (this.#owner === undefined) throw contentTooEarly()
    this.#arrived.get(channel)?.push({ type, channel, bytes: Buffer.from(bytes.subarray(start, end)) })
  }

  // --- Channels --------------------------------------------------------------------------------------------------------

  #onUnattached(id: number, channel: number, bytes: Buffer, start: number, end: number): void {
    const owner = this.#owner
    if (owner === undefined) {
      throw new ProtocolViolation(
        `Unexpected frame: ${nameOf(id)} on channel ${channel} of a connection that is not open`
      )
    }
    const frame = bytes.subarray(start - prefix, end + 1)
    const arrived = this.#arrived.get(channel)
    if (arrived !== undefined) {
      arrived.push({ type: methodFrame, channel, bytes: Buffer.from(frame) })
      return
    }
    if (this.#arrived.size < owner.opening) {
      if (id === channelOpenOk) {
        this.#arrived.set(channel, [])
        return this.#push(frame)
      }
      if (id === channelClose) {
        // In place of its answer. amqplib would report it before it has handed the channel out, when nobody can listen.
        this.#arrived.set(channel, [{ type: methodFrame, channel, bytes: Buffer.from(frame) }])
        return this.#push(frameOf(channel, channelOpenOk, [0, 0, 0, 0]))
      }
    }
    // RabbitMQ may deliver on a channel that it has closed until it has read our `close-ok` (seen under load).
    if (id >>> 16 === classBasic) return
    throw new ProtocolViolation(`Unexpected frame: ${nameOf(id)} on channel ${channel}, which is not open`)
  }

  /** amqplib has handed out the channel of this number. */
  attach(number: number, channel: ChannelFrames): void {
    const waiting = this.#arrived.get(number)
    if (waiting === undefined || this.channels[number] !== undefined) {
      throw new Error(`effect-amqp: amqplib has handed out channel ${number}, which the broker has not opened`)
    }
    this.#arrived.delete(number)
    this.channels[number] = channel
    this.#readAgain(waiting)
  }

  /** The channel has ended: what comes for it is dropped, until another one has its number. */
  detach(number: number): void {
    this.channels[number] = undefined
  }

  // --- The connection --------------------------------------------------------------------------------------------------

  #onConnection(id: number, bytes: Buffer, start: number, end: number): void {
    const owner = this.#owner
    if (owner === undefined) this.#onHandshake(id, bytes, start, end)
    else {
      switch (id) {
        case connectionClose: {
          const close = readClose(id, bytes, start, end)
          const frame = Buffer.from(bytes.subarray(start - prefix, end + 1))
          this.end()
          return owner.closed(close, () => this.#push(frame))
        }
        case connectionBlocked:
          owner.blocked(readText(id, bytes, start, end))
          break
        case connectionUnblocked:
          owner.unblocked()
          break
        case connectionUpdateSecretOk:
          owner.secretTaken()
          break
        case connectionCloseOk:
          break
        default:
          throw new ProtocolViolation(`Unexpected frame: ${nameOf(id)} on channel 0`)
      }
    }
    this.#push(bytes.subarray(start - prefix, end + 1))
    if (id === connectionClose || id === connectionCloseOk) this.end()
  }

  #onHandshake(id: number, bytes: Buffer, start: number, end: number): void {
    if (id === connectionClose) {
      this.failure = readClose(id, bytes, start, end)
      return
    }
    if (id === connectionSecure) {
      const { mechanism } = this.#proposal
      throw new ProtocolViolation(`the broker asks for another step of the SASL mechanism ${mechanism}, which has none`)
    }
    if (id !== this.#expected) {
      throw new ProtocolViolation(`Expected ${nameOf(this.#expected)}; got ${nameOf(id)}`)
    }
    if (id === connectionStart) {
      const { mechanisms, properties } = readStart(id, bytes, start, end)
      const { mechanism } = this.#proposal
      if (!mechanisms.includes(mechanism)) {
        throw new MechanismRefused(
          `SASL mechanism ${mechanism} is not offered by the broker, which offers ${mechanisms.join(", ")}`
        )
      }
      this.#serverProperties = properties
      this.#expected = connectionTune
    } else if (id === connectionTune) {
      this.#agree(readTune(id, bytes, start, end))
      this.#expected = connectionOpenOk
    } else this.#behind = { frames: [], bytes: [] }
  }

  #agree(server: { readonly channelMax: number; readonly frameMax: number; readonly heartbeat: number }): void {
    if (server.frameMax !== 0 && server.frameMax < leastFrameMax) {
      throw new ProtocolViolation(`the broker's frame-max is ${server.frameMax}, and AMQP's least is ${leastFrameMax}`)
    }
    const { channelMax, frameMax, heartbeat } = this.#proposal
    const product = productOf(this.#serverProperties!)
    const agreed = lower(server.frameMax, frameMax)
    if (agreed !== 0 && agreed < leastOfRabbitMq && isFrom(product, 4, 1)) {
      throw new ProtocolViolation(
        `${product} wants a frame-max from ${leastOfRabbitMq} on, got ${agreed} (its own is ${server.frameMax}, frameMax is ${frameMax}): set frameMax to ${leastOfRabbitMq} or more`
      )
    }
    this.agreed = {
      product,
      channelMax: lower(server.channelMax, channelMax) || largestChannel,
      frameMax: agreed || largestFrame,
      // Ours can switch it off, the broker's 0 leaves it to us.
      heartbeat: heartbeat === 0 ? 0 : lower(server.heartbeat, heartbeat)
    }
    this.#framing.mostOfFrame = this.agreed.frameMax
  }
}
