/**
 * The only module that imports amqplib: its types, what it has without declaring it, and what it lacks.
 *
 * Hazards of amqplib 2.3 that this module answers (`link` and `connect` answer others):
 * - A `connection.close` in place of `connection.open-ok` is told without its code and text: they are read on the way.
 * - It reads on behind `connection.open-ok` before it hands the connection out, when nobody can listen yet: its
 *   `Connection` tells us when it begins.
 */
import amqplib from "amqplib"
import type { EventEmitter } from "node:events"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import type { Duplex } from "node:stream"
import { channelFlow, channelFlowOk, connectionClose, method } from "./protocol.ts"
import type { WriteBuffer } from "./writeBuffer.ts"

export type Model = amqplib.ChannelModel
export type Channel = amqplib.Channel
export type PublishOptions = amqplib.Options.Publish
export type GetMessage = amqplib.GetMessage
export type ConsumeMessage = amqplib.ConsumeMessage
export type ReturnMessage = amqplib.Message

/** One frame, as amqplib reads it: of a method, of a content header, or with a piece of a body. */
export interface Frame {
  readonly channel: number
  readonly id?: number
  readonly fields: Record<string, unknown>
  readonly size?: number
  readonly content?: Buffer
  readonly undecodable?: Error | undefined
}

// What amqplib does not declare, and what of it may be missing in another version.
export interface Internals {
  readonly stream?: Duplex
  readonly channelMax?: number
  readonly frameMax?: number
  sentSinceLastCheck?: boolean
  readonly sendMessage?: unknown
  maxFrameSize?: number
  readonly heartbeat?: number
  /** Those that are set are taken. */
  readonly freeChannels?: { nextClearBit: (from: number) => number }
  readonly channels?: Array<{ buffer: unknown } | null>
  readonly muxer?: {
    readonly pipeFrom: (stream: WriteBuffer) => void
    readonly unpipeFrom: (stream: unknown) => void
    /** What it writes to. */
    out?: { readonly write: (piece: Buffer) => boolean }
    _readIncoming?: () => void
  }
  freshChannel?: (channel: Channel, options: unknown) => number
  accept?: (frame: Frame) => void
}

export interface ChannelInternals {
  readonly rpc: (method: number, fields: Record<string, unknown>, reply: number) => Promise<Record<string, unknown>>
  readonly onBufferDrain: () => void
  readonly sendMessage?: unknown
}

/** Methods that amqplib has no function for: their numbers, and those of their replies. */
export const methods = {
  "channel.flow": [channelFlow, channelFlowOk],
  "confirm.select": [method(85, 10), method(85, 11)],
  "tx.select": [method(90, 10), method(90, 11)],
  "tx.commit": [method(90, 20), method(90, 21)],
  "tx.rollback": [method(90, 30), method(90, 31)]
} as const

/** Sends a method that amqplib has no function for, and waits for its reply. */
export const request = (
  driver: Channel,
  name: keyof typeof methods,
  fields: Record<string, unknown> = {}
): Promise<Record<string, unknown>> => {
  const [sent, reply] = methods[name]
  return (driver as unknown as ChannelInternals).rpc(sent, fields, reply)
}

/** A channel's number on its connection. */
export const channelNumber = (channel: Channel): number | undefined => (channel as { readonly ch?: number }).ch

/** What is behind a model. */
export const internals = (model: Model) => model.connection as unknown as Internals

/** amqplib's connection while it opens. */
interface Opening extends EventEmitter {
  readonly stream?: { readonly remoteAddress?: string | undefined }
  step?: (next: (error: unknown, frame: { readonly id?: number; readonly fields?: CloseFields } | null) => void) => void
}

interface CloseFields {
  readonly replyCode?: number
  readonly replyText?: string
}

/** What a connection tells before there is a `Link` to listen. */
export class Beginning {
  /** Why it cannot be used any more. */
  endedBy: unknown = undefined
  /** The broker's `connection.close` instead of its next step. */
  refusedBy: Error | undefined = undefined
  blockedBy: string | undefined = undefined
  /** The address of the peer, once it has accepted the connection. */
  address: string | undefined = undefined
  #connection: EventEmitter | undefined = undefined

  readonly listen = (connection: Opening): void => {
    this.#connection = connection
    this.address = connection.stream?.remoteAddress
    const step = connection.step
    if (step !== undefined) {
      connection.step = (next) =>
        step.call(connection, (error, frame) => {
          if (frame?.id === connectionClose) this.#onRefused(frame.fields ?? {})
          next(error, frame)
        })
    }
    connection.on("error", this.#onError)
    connection.on("close", this.#onClose)
    connection.on("blocked", this.#onBlocked)
    connection.on("unblocked", this.#onUnblocked)
  }

  readonly #onError = (error: unknown) => {
    this.endedBy ??= error
  }

  readonly #onClose = (error: unknown) => {
    this.endedBy ??= error ?? new Error("Connection closed")
  }

  readonly #onBlocked = (reason: string) => {
    this.blockedBy = reason
  }

  readonly #onUnblocked = () => {
    this.blockedBy = undefined
  }

  readonly #onRefused = ({ replyCode, replyText = "" }: CloseFields) => {
    this.refusedBy = Object.assign(new Error(replyText), { code: replyCode })
  }

  /** A `Link` listens now. */
  end(): void {
    this.#connection?.removeListener("error", this.#onError)
    this.#connection?.removeListener("close", this.#onClose)
    this.#connection?.removeListener("blocked", this.#onBlocked)
    this.#connection?.removeListener("unblocked", this.#onUnblocked)
  }
}

/** Those of our connections, by the credentials that they send: amqplib passes nothing else of ours on as it is. */
export const beginnings = new WeakMap<object, Beginning>()

interface ConnectionClass {
  readonly prototype: { open: (this: Opening, fields: { readonly response: object }, opened: unknown) => void }
}

// By its path, since amqplib does not export it. In a bundle it is not found: then what a broker sends right behind its
// `open-ok`, which RabbitMQ does not, is heard by nobody.
const listenFromTheBeginning = () => {
  const require = createRequire(import.meta.url)
  const { Connection } = require(join(dirname(require.resolve("amqplib")), "lib/connection.js")) as {
    readonly Connection: ConnectionClass
  }
  const { open } = Connection.prototype
  Connection.prototype.open = function (fields, opened) {
    beginnings.get(fields.response)?.listen(this)
    return open.call(this, fields, opened)
  }
}

try {
  listenFromTheBeginning()
} catch {
  // See above.
}

/** amqplib's own, without any of the care that `connect` takes. */
export const open: (url: amqplib.Options.Connect, socketOptions: object) => Promise<Model> = (url, socketOptions) =>
  amqplib.connect(url, socketOptions)
