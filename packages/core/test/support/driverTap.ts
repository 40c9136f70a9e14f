/**
 * A tap whose socket is the test: what "arrives" is passed as Node does it, in memory that is reused, and what amqplib
 * would read is kept.
 */
import type { Socket } from "node:net"
import { Duplex } from "node:stream"
import type { HeaderFrame } from "../../src/internal/wire/contentHeader.ts"
import type { BrokerClose } from "../../src/internal/driver/errors.ts"
import { type ChannelFrames, type Proposal, Tap, type TapOwner } from "../../src/internal/driver/tap.ts"
import { encodeMessage } from "./frames.ts"
import type { Args } from "../../src/testing/internal/memory/codec/methods.ts"

export const proposal: Proposal = {
  mechanism: "PLAIN",
  channelMax: 2047,
  frameMax: 131_072,
  heartbeat: 0,
  initialFrameMax: 131_072
}

/** A socket that is only a stream: it is not connected. */
class Quiet extends Duplex {
  readonly remoteAddress = "192.0.2.1"
  /** The error with which it was destroyed. */
  destroyedWith: Error | undefined = undefined

  override _read(): void {}

  override _write(_chunk: unknown, _encoding: unknown, done: () => void): void {
    done()
  }

  override _destroy(cause: Error | null, done: () => void): void {
    this.destroyedWith = cause ?? undefined
    done()
  }
}

/** What a channel, or the owner of the connection, received. A body counts once, in however many parts it arrived. */
export type Heard =
  | { readonly of: "method"; readonly channel: number; readonly bytes: Buffer }
  | { readonly of: "header"; readonly channel: number; readonly header: HeaderFrame }
  | { readonly of: "body"; readonly channel: number; content: Buffer }
  | { readonly of: "closed"; readonly close: BrokerClose }
  | { readonly of: "blocked"; readonly reason: string }
  | { readonly of: "unblocked" | "secretTaken" }
  | { readonly of: "failed"; readonly cause: unknown }

export class Tapped {
  readonly tap: Tap
  readonly heard: Array<Heard> = []
  /** How many `channel.open` have no answer. */
  opening = 0
  /** Whether amqplib gets what arrives for a channel. */
  isForAmqplib = false
  readonly #socket = new Quiet()
  readonly #pushed: Array<Buffer> = []

  constructor(given: Partial<Proposal> = {}) {
    this.tap = new Tap({ ...proposal, ...given })
    const socket = this.#socket
    const push = socket.push.bind(socket)
    socket.push = (chunk: Buffer) => {
      this.#pushed.push(chunk)
      return push(chunk)
    }
  }

  /** What amqplib received since the last call, frame by frame. */
  get pushed(): ReadonlyArray<Buffer> {
    return this.#pushed.splice(0)
  }

  /** The error with which the socket was destroyed. */
  get end(): Error | undefined {
    return this.#socket.destroyedWith
  }

  /** Node calls this with the bytes that it has read. */
  receive(...pieces: ReadonlyArray<Uint8Array>): void {
    const { buffer, callback } = this.tap.onread
    for (const piece of pieces) {
      for (let at = 0; at < piece.length; at += buffer.length) {
        const part = piece.subarray(at, at + buffer.length)
        buffer.set(part)
        callback.call(this.#socket as unknown as Socket, part.length, buffer)
        buffer.fill(0xee, 0, part.length)
      }
    }
  }

  listen(): void {
    const { heard } = this
    const opening = () => this.opening
    const owner: TapOwner = {
      get pendingOpens() {
        return opening()
      },
      closed: (close, answer) => {
        heard.push({ of: "closed", close })
        answer()
      },
      blocked: (reason) => void heard.push({ of: "blocked", reason }),
      unblocked: () => void heard.push({ of: "unblocked" }),
      secretUpdated: () => void heard.push({ of: "secretTaken" }),
      failed: (cause) => void heard.push({ of: "failed", cause })
    }
    this.tap.listen(owner)
  }

  /** amqplib asks for a channel. */
  open(): void {
    this.opening++
  }

  /** amqplib returns the channel to its caller. */
  attach(channel: number): void {
    const { heard } = this
    const frames: ChannelFrames = {
      method: (_id, bytes, start, end) => {
        heard.push({ of: "method", channel, bytes: Buffer.from(bytes.subarray(start, end)) })
        return this.isForAmqplib
      },
      header: (header) => void heard.push({ of: "header", channel, header }),
      body: (bytes, start, end) => {
        const content = bytes.subarray(start, end)
        const last = heard.at(-1)
        if (last?.of === "body" && last.channel === channel) last.content = Buffer.concat([last.content, content])
        else heard.push({ of: "body", channel, content: Buffer.from(content) })
      }
    }
    this.opening--
    this.tap.attach(channel, frames)
  }
}

/** What a broker sends until a connection is open, frame by frame. */
export const handshake = (
  tune: Partial<Args<"connection.tune">> = { channelMax: 2047, frameMax: 131_072, heartbeat: 0 }
): ReadonlyArray<Buffer> => [
  encodeMessage(0, "connection.start", {
    versionMajor: 0,
    versionMinor: 9,
    serverProperties: { product: "RabbitMQ" },
    mechanisms: "AMQPLAIN PLAIN",
    locales: "en_US"
  }),
  encodeMessage(0, "connection.tune", tune),
  encodeMessage(0, "connection.open-ok")
]

/** A connection that is open, and has these channels. */
export const tapped = (
  channels: ReadonlyArray<number> = [],
  given: Partial<Proposal> = {},
  tune?: Partial<Args<"connection.tune">>
): Tapped => {
  const tapped = new Tapped(given)
  tapped.receive(...handshake(tune))
  tapped.listen()
  for (const channel of channels) {
    tapped.open()
    tapped.receive(encodeMessage(channel, "channel.open-ok"))
    tapped.attach(channel)
  }
  void tapped.pushed
  return tapped
}
