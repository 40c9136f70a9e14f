/**
 * The boundary between amqplib and the driver: the bytes that a socket receives. Node passes the bytes to `onread`, a
 * documented socket option, in a buffer that it reuses. The driver handles the frames of messages, confirms and
 * `channel.flow`, and the replies to its own methods. All other frames go to amqplib unchanged (`socket.push`), so
 * amqplib sees a broker that sends no messages. The tap reads every frame before amqplib does. Therefore amqplib gets
 * only frames that it expects, and the driver knows the code and the text of a close before amqplib reports that a
 * connection or a channel has ended.
 *
 * Hazards of amqplib 2.3 and Node that this module handles:
 * - An error that is thrown in `onread` becomes an uncaught exception. So the tap catches it, and destroys the socket.
 * - amqplib's heartbeat timer must see traffic. The tap pushes a heartbeat when bytes have arrived and none of them was
 *   for amqplib. amqplib rejects heartbeats during the handshake, so the tap drops those of the broker until then.
 * - amqplib reads the reply to an opening in one turn of the event loop, and hands out the connection or channel in a
 *   later one. The tap holds the frames that follow the reply until a listener is attached.
 * - amqplib ends the connection when it gets a reply that it did not request, or a frame of a channel that it has
 *   released.
 */
import type { Socket } from "node:net"
import { Duplex } from "node:stream"
import { type HeaderFrame, readContentHeader, undecodedHeader, fixedHeaderSize } from "../wire/contentHeader.ts"
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
  methodName,
  frameHeaderSize
} from "../wire/protocol.ts"
import type { FieldTable } from "../../model/message.ts"
import { isAtLeast } from "../wire/versions.ts"
import { type BrokerClose, frameError, MechanismRefused, ProtocolViolation } from "./errors.ts"
import { firstBytes } from "./foreignPeer.ts"
import { Framing, type FrameSink, uint32 } from "./framing.ts"
import { frameOf, readClose, readStart, readText, readTune } from "./methods.ts"

/**
 * Size of the read buffer, in bytes. Without `onread`, Node reads 64 KiB at a time. With a buffer of that size a body
 * of 1 MiB takes a fifth more CPU, and small messages take the same. The parts of the buffer that are never written to
 * take no memory.
 */
const readSize = 262_144

const heartbeat = Buffer.from([heartbeatFrame, 0, 0, 0, 0, 0, 0, 0xce])

/** Receives the frames of one channel. */
export interface ChannelFrames {
  /** Handles a method. Returns whether amqplib gets the frame too. */
  readonly method: (id: number, bytes: Buffer, start: number, end: number) => boolean
  readonly header: (header: HeaderFrame) => void
  readonly body: (bytes: Buffer, start: number, end: number) => void
}

/** The owner of an open connection. None of its members may throw. */
export interface TapOwner {
  /** Number of `channel.open` requests that are not answered yet. */
  readonly pendingOpens: number
  /**
   * The broker sent `connection.close`, after which nothing is read. `answer` passes the frame to amqplib, which
   * answers it.
   */
  readonly closed: (close: BrokerClose, answer: () => void) => void
  readonly blocked: (reason: string) => void
  readonly unblocked: () => void
  readonly secretUpdated: () => void
  /** Nothing more is read: the peer violated the protocol, or reading a frame failed. */
  readonly failed: (cause: unknown) => void
}

/** The values that are proposed to the broker; 0: no limit, no heartbeat. */
export interface Proposal {
  readonly mechanism: string
  readonly channelMax: number
  readonly frameMax: number
  /** Heartbeat interval, in seconds. */
  readonly heartbeat: number
  /** Largest frame accepted before a size is negotiated, in bytes. */
  readonly initialFrameMax: number
}

/** The negotiated values. */
export interface Negotiated {
  /** The broker's product name and version, such as "RabbitMQ 4.3.6". */
  readonly product: string
  readonly channelMax: number
  readonly frameMax: number
  /** Heartbeat interval, in seconds; 0: no heartbeats. */
  readonly heartbeat: number
}

/** Negotiates a limit that either side may lower; 0: no limit (AMQP 0-9-1, method connection.tune-ok). */
const negotiateLimit = (server: number, client: number): number =>
  server === 0 || client === 0 ? Math.max(server, client) : Math.min(server, client)

/** AMQP 0-9-1, section 4.2.3: every peer must accept frames of this size, in bytes. */
const minFrameMax = 4096
/** RabbitMQ from 4.1 on (release notes of 4.1.0): with a smaller frame-max it closes the socket without an error. */
const minFrameMaxOfRabbitMq = 8192
const maxChannelNumber = 0xffff
const maxFrameSize = 0xffffffff

const productOf = (properties: FieldTable): string => {
  const text = (name: string, other: string) => {
    const value = properties[name]
    return typeof value === "string" ? value : other
  }
  return `${text("product", "unknown")} ${text("version", "")}`.trim()
}

/**
 * Reads a content header. Its fixed part is written by the broker, not by a publisher, so a mistake there is a protocol
 * violation.
 */
const readHeader = (bytes: Buffer, channel: number, start: number, end: number): HeaderFrame => {
  try {
    return readContentHeader(bytes, channel, start, end)
  } catch (cause) {
    throw new ProtocolViolation(cause instanceof Error ? cause.message : String(cause), frameError)
  }
}

const contentTooEarly = () => new ProtocolViolation("Unexpected frame: got content on a connection that is not open")

/** A frame, or a part of a body, that is held until a listener or its channel is attached. */
interface HeldFrame {
  readonly type: number
  readonly channel: number
  readonly bytes: Buffer
}

export const unusableRuntime = () =>
  new Error("this runtime does not support the socket option onread of node:net: use Node.js")

export class Tap implements FrameSink {
  /** The socket, once bytes have arrived. */
  socket: Socket | undefined = undefined
  /** The peer's address, once bytes have arrived. */
  address: string | undefined = undefined
  /** The first bytes that have arrived. */
  firstReceived: Buffer = Buffer.alloc(0)
  /** Time of the last read, in milliseconds of `performance.now()`. Updated while the connection opens. */
  readAt = performance.now()
  /** Why the connection could not be opened, as the broker's frames state it. */
  failure: Error | undefined = undefined
  negotiated: Negotiated | undefined = undefined
  /** Attached channels by number, from the reply to `channel.open` until their close. */
  readonly channels: Array<ChannelFrames | undefined> = []

  readonly #proposal: Proposal
  readonly #framing: Framing
  #owner: TapOwner | undefined = undefined
  #expected: number = connectionStart
  #serverProperties: FieldTable | undefined = undefined
  /**
   * Frames that arrived after the handshake and before a listener was attached, followed by bytes that were read later.
   */
  #afterHandshake: { readonly frames: Array<HeldFrame>; readonly bytes: Array<Buffer> } | undefined = undefined
  /** Frames for channels that are open and that amqplib has not handed out yet. */
  readonly #unattachedFrames = new Map<number, Array<HeldFrame>>()
  /** Whether reading has ended: all further bytes are ignored. */
  #hasEnded = false
  /** Interval in which amqplib must see traffic, in milliseconds. Infinity: amqplib does not check. */
  #interval = Infinity
  #pushedAt = 0
  #hasPushed = false
  /**
   * Whether the runtime stops reading after each `onread.callback`. Bun 1.4 does so while the stream is not flowing,
   * which it never is, because amqplib listens to `readable`. Bun continues when amqplib reads, so amqplib gets a frame
   * each time.
   */
  #stopsReading = false

  /**
   * A stream option that yields the socket on Bun 1.4, which calls `onread.callback` without the socket. A socket
   * passes its options to its stream, and the stream calls this one as its method
   * (https://nodejs.org/api/stream.html#new-streamduplexoptions).
   */
  readonly construct: (this: unknown, done: () => void) => void
  /** The socket option of this name (https://nodejs.org/api/net.html#new-netsocketoptions). */
  readonly onread: {
    readonly buffer: Uint8Array
    readonly callback: (this: unknown, bytesRead: number, buffer: Uint8Array) => boolean
  }

  /** @param abort ends the attempt to connect, when there is no socket to destroy */
  constructor(proposal: Proposal, abort: () => void = () => {}) {
    this.#proposal = proposal
    this.#framing = new Framing(this, proposal.initialFrameMax)
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
    const failUnusableRuntime = () => {
      if (this.#hasEnded) return
      this.#fail(unusableRuntime())
      abort()
    }
    this.onread = {
      // The buffer is zeroed and not shared, because memory that other code has released still holds its data.
      buffer: Buffer.alloc(readSize),
      // Node calls this function as a method of the socket, which is needed to push frames to amqplib. Not all runtimes
      // do that.
      callback(bytesRead, buffer) {
        const socket = this instanceof Duplex ? (this as Socket) : constructed
        if (socket === undefined) failUnusableRuntime()
        else receive(socket, (buffer as Buffer).subarray(0, bytesRead), this !== socket)
        return true
      }
    }
  }

  #receive(bytes: Buffer): void {
    if (this.#hasEnded) return
    if (this.#owner === undefined) {
      this.readAt = performance.now()
      if (this.firstReceived.length < firstBytes)
        this.firstReceived = Buffer.concat([this.firstReceived, bytes]).subarray(0, firstBytes)
      if (this.#afterHandshake !== undefined) {
        this.#afterHandshake.bytes.push(Buffer.from(bytes))
        return
      }
    }
    this.#hasPushed = false
    this.#read(bytes)
    if (this.#stopsReading) {
      if (!this.#hasPushed && !this.#hasEnded && this.#owner !== undefined) this.#push(heartbeat)
      return
    }
    if (this.#interval === Infinity || this.#hasEnded) return
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

  /** Reads frames that were held. */
  #replay(waiting: ReadonlyArray<HeldFrame>): void {
    try {
      for (const { bytes, channel, type } of waiting) {
        if (type === bodyFrame) this.body(channel, bytes, 0, bytes.length)
        else this.frame(type, channel, bytes, frameHeaderSize, bytes.length - 1)
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

  /** Ends reading: all further bytes are ignored. */
  end(): void {
    this.#hasEnded = true
    this.#afterHandshake = undefined
    this.#unattachedFrames.clear()
  }

  /** Attaches the owner, and reads everything that arrived after the handshake. */
  listen(owner: TapOwner): void {
    this.#owner = owner
    const seconds = this.negotiated?.heartbeat ?? 0
    if (seconds > 0) this.#interval = seconds * 500
    this.#pushedAt = performance.now()
    if (this.#stopsReading) this.#push(heartbeat)
    const held = this.#afterHandshake
    this.#afterHandshake = undefined
    if (held === undefined) return
    this.#replay(held.frames)
    for (const bytes of held.bytes) if (!this.#hasEnded) this.#read(bytes)
  }

  /** Passes amqplib a copy, because the memory is reused. */
  #push(frame: Buffer): void {
    this.#pushedAt = performance.now()
    this.#hasPushed = true
    this.socket?.push(Buffer.from(frame))
  }

  // --- Frames ----------------------------------------------------------------------------------------------------------

  frame(type: number, channel: number, bytes: Buffer, start: number, end: number): void {
    if (this.#hasEnded) return
    if (this.#afterHandshake !== undefined) {
      this.#afterHandshake.frames.push({
        type,
        channel,
        bytes: Buffer.from(bytes.subarray(start - frameHeaderSize, end + 1))
      })
      return
    }
    if (type === methodFrame) {
      if (end - start < 4) throw new ProtocolViolation("Invalid frame: expected a method number, got a shorter payload")
      const id = uint32(bytes, start)
      if (channel === 0) return this.#onConnection(id, bytes, start, end)
      const receiver = this.channels[channel]
      if (receiver === undefined) return this.#onUnattached(id, channel, bytes, start, end)
      if (receiver.method(id, bytes, start, end)) this.#push(bytes.subarray(start - frameHeaderSize, end + 1))
    } else if (type === headerFrame) {
      const receiver = this.channels[channel]
      if (receiver !== undefined) receiver.header(readHeader(bytes, channel, start, end))
      else this.#holdForChannel(type, channel, bytes, start - frameHeaderSize, end + 1)
    } else if (type === heartbeatFrame) {
      if (this.#owner !== undefined) this.#push(heartbeat)
    }
  }

  body(channel: number, bytes: Buffer, start: number, end: number): void {
    // No channel can receive a body before a listener is attached.
    if (this.#hasEnded || this.#afterHandshake !== undefined) return
    const receiver = this.channels[channel]
    if (receiver !== undefined) receiver.body(bytes, start, end)
    else this.#holdForChannel(bodyFrame, channel, bytes, start, end)
  }

  oversizedHeader(channel: number, bytes: Buffer, start: number, size: number, most: number): void {
    if (this.#hasEnded || this.#afterHandshake !== undefined) return
    if (this.#owner === undefined) throw contentTooEarly()
    const header = readHeader(bytes, channel, start, start + fixedHeaderSize)
    this.channels[channel]?.header(undecodedHeader(header, `it has ${size} bytes, at most ${most} are read`))
  }

  /** Holds a frame for a channel that is open and not attached yet. A frame for a channel that has ended is dropped. */
  #holdForChannel(type: number, channel: number, bytes: Buffer, start: number, end: number): void {
    if (this.#owner === undefined) throw contentTooEarly()
    this.#unattachedFrames.get(channel)?.push({ type, channel, bytes: Buffer.from(bytes.subarray(start, end)) })
  }

  // --- Channels --------------------------------------------------------------------------------------------------------

  #onUnattached(id: number, channel: number, bytes: Buffer, start: number, end: number): void {
    const owner = this.#owner
    if (owner === undefined) {
      throw new ProtocolViolation(
        `Unexpected frame: got ${methodName(id)} on channel ${channel} of a connection that is not open`
      )
    }
    const frame = bytes.subarray(start - frameHeaderSize, end + 1)
    const arrived = this.#unattachedFrames.get(channel)
    if (arrived !== undefined) {
      arrived.push({ type: methodFrame, channel, bytes: Buffer.from(frame) })
      return
    }
    if (this.#unattachedFrames.size < owner.pendingOpens) {
      if (id === channelOpenOk) {
        this.#unattachedFrames.set(channel, [])
        return this.#push(frame)
      }
      if (id === channelClose) {
        // The broker closes the channel instead of opening it. amqplib would report this close before it hands out the
        // channel, when no listener can be attached yet. So amqplib gets an `open-ok`, and the close is held.
        this.#unattachedFrames.set(channel, [{ type: methodFrame, channel, bytes: Buffer.from(frame) }])
        return this.#push(frameOf(channel, channelOpenOk, [0, 0, 0, 0]))
      }
    }
    // RabbitMQ may deliver on a channel that it has closed until it has read our `close-ok` (observed under load).
    if (id >>> 16 === classBasic) return
    throw new ProtocolViolation(`Unexpected frame: got ${methodName(id)} on channel ${channel}, which is not open`)
  }

  /** Attaches a channel that amqplib has handed out, and reads its held frames. */
  attach(number: number, channel: ChannelFrames): void {
    const held = this.#unattachedFrames.get(number)
    if (held === undefined || this.channels[number] !== undefined) {
      throw new Error(`amqplib: expected a channel that the broker has opened, got channel ${number}`)
    }
    this.#unattachedFrames.delete(number)
    this.channels[number] = channel
    this.#replay(held)
  }

  /** Detaches a channel that has ended. Further frames for it are dropped until another channel gets its number. */
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
          const frame = Buffer.from(bytes.subarray(start - frameHeaderSize, end + 1))
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
          owner.secretUpdated()
          break
        case connectionCloseOk:
          break
        default:
          throw new ProtocolViolation(`Unexpected frame: got ${methodName(id)} on channel 0`)
      }
    }
    this.#push(bytes.subarray(start - frameHeaderSize, end + 1))
    if (id === connectionClose || id === connectionCloseOk) this.end()
  }

  #onHandshake(id: number, bytes: Buffer, start: number, end: number): void {
    if (id === connectionClose) {
      this.failure = readClose(id, bytes, start, end)
      return
    }
    if (id === connectionSecure) {
      const { mechanism } = this.#proposal
      throw new ProtocolViolation(
        `SASL mechanism ${mechanism}: expected no challenge, got connection.secure from the broker`
      )
    }
    if (id !== this.#expected) {
      throw new ProtocolViolation(`Unexpected frame: expected ${methodName(this.#expected)}, got ${methodName(id)}`)
    }
    if (id === connectionStart) {
      const { mechanisms, properties } = readStart(id, bytes, start, end)
      const { mechanism } = this.#proposal
      if (!mechanisms.includes(mechanism)) {
        throw new MechanismRefused(
          `SASL mechanism: expected the broker to offer ${mechanism}, got ${mechanisms.join(", ")}`
        )
      }
      this.#serverProperties = properties
      this.#expected = connectionTune
    } else if (id === connectionTune) {
      this.#negotiate(readTune(id, bytes, start, end))
      this.#expected = connectionOpenOk
    } else this.#afterHandshake = { frames: [], bytes: [] }
  }

  #negotiate(server: { readonly channelMax: number; readonly frameMax: number; readonly heartbeat: number }): void {
    if (server.frameMax !== 0 && server.frameMax < minFrameMax) {
      throw new ProtocolViolation(
        `frame-max: expected at least ${minFrameMax} from the broker (AMQP's minimum), got ${server.frameMax}`
      )
    }
    const { channelMax, frameMax, heartbeat } = this.#proposal
    const product = productOf(this.#serverProperties!)
    const negotiated = negotiateLimit(server.frameMax, frameMax)
    if (negotiated !== 0 && negotiated < minFrameMaxOfRabbitMq && isAtLeast(product, 4, 1)) {
      throw new ProtocolViolation(
        `frameMax: expected at least ${minFrameMaxOfRabbitMq} for ${product}, got ${negotiated} (the broker proposed ${server.frameMax}, frameMax is ${frameMax}): set frameMax to ${minFrameMaxOfRabbitMq} or more`
      )
    }
    this.negotiated = {
      product,
      channelMax: negotiateLimit(server.channelMax, channelMax) || maxChannelNumber,
      frameMax: negotiated || maxFrameSize,
      // Our 0 disables heartbeats. With the broker's 0, our interval applies.
      heartbeat: heartbeat === 0 ? 0 : negotiateLimit(server.heartbeat, heartbeat)
    }
    this.#framing.maxPayloadSize = this.negotiated.frameMax
  }
}
