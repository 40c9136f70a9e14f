/**
 * One open connection of amqplib's, watched and ended.
 *
 * Hazards of amqplib 2.3 that this module answers:
 * - `close()` never settles when the peer is gone or silent: it is bounded, and the socket destroyed afterwards; with an
 *   error, since without one pending confirms would stay pending.
 * - A connection that amqplib gives up (heartbeat) leaves its socket open: destroyed here too.
 * - An `error` event without a listener takes the process down: one stays attached for as long as the object can emit.
 * - A channel's write buffer is 1,024 frames, whatever their size: it is replaced by one that counts bytes.
 * - It takes frames of up to 64 MiB, whatever was agreed on: none larger than that is taken.
 * - What comes on a channel that has just been closed ends the connection: `stragglers`.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { Socket } from "node:net"
import type { ChannelBudget } from "./channelBudget.ts"
import type { AmqpConfig } from "../AmqpConfig.ts"
import * as AmqpError from "../AmqpError.ts"
import { assign, type Close, type Party } from "./blame.ts"
import { type Channel, type ChannelInternals, type Internals, internals, type Model } from "./amqplib.ts"
import { ChannelWriter } from "./channelWriter.ts"
import { classify } from "./classify.ts"
import { readFrames } from "./frameReader.ts"
import { connectionClose } from "./protocol.ts"
import { bytesOf } from "./secretBytes.ts"
import { Slabs } from "./slab.ts"
import type { SocketInput } from "./socketInput.ts"
import { SocketOutput } from "./socketOutput.ts"
import { dropStragglers, reuseNumbersLast } from "./stragglers.ts"
import { WriteBuffer } from "./writeBuffer.ts"

// In bytes instead of frames.
const boundWriteBuffer = (connection: Internals, number: number, driver: Channel, size: number, slabs: Slabs) => {
  const record = connection.channels?.[number]
  const muxer = connection.muxer
  if (record === undefined || record === null || muxer === undefined) return undefined
  muxer.unpipeFrom(record.buffer)
  const buffer = new WriteBuffer(size, slabs)
  record.buffer = buffer
  buffer.on("drain", () => (driver as unknown as ChannelInternals).onBufferDrain())
  muxer.pipeFrom(buffer)
  return buffer
}

// amqplib hands the socket piece by piece.
const coalesceWrites = ({ muxer, stream }: Internals) => {
  const readIncoming = muxer?._readIncoming
  if (muxer?.out === undefined || muxer.out !== stream || readIncoming === undefined) return
  const output = new SocketOutput(stream)
  muxer.out = output
  muxer._readIncoming = () => output.during(() => readIncoming.call(muxer))
}

// They may be anything: a table whose `toString` is a text throws where it is put into one.
const productOf = (properties: object | undefined): string => {
  const text = (name: string, other: string) => {
    const value = properties !== undefined && Object.hasOwn(properties, name) ? Reflect.get(properties, name) : other
    return typeof value === "string" ? value : other
  }
  return `${text("product", "unknown")} ${text("version", "")}`.trim()
}

/** What a link tells its owner. Called from amqplib's own event handlers: must not throw. */
export interface LinkEvents {
  /** How many channels may be opened on it. */
  readonly budget: () => ChannelBudget
  readonly onBlocked: (reason: string) => void
  readonly onUnblocked: () => void
  /** The broker has closed one of its channels for this reason. */
  readonly onChannelClosed: (reason: AmqpError.AmqpErrorReason) => void
  /** The broker has given back a message that reached no queue. */
  readonly onReturned: (exchange: string, routingKey: string) => void
  /** The header of a message could not be read. `about`: which message, for the log. */
  readonly onUndecodable: (reason: AmqpError.DecodeFailed, about: Readonly<Record<string, unknown>>) => void
  /** Once, when the link has ended, whoever ended it. */
  readonly onClosed: (reason: AmqpError.AmqpErrorReason) => void
}

/**
 * What became of a new secret: the broker has taken it, or the link ended before it said so, or it ended for that, as
 * RabbitMQ does it (530).
 */
export type SecretOutcome = "taken" | "lost" | (AmqpError.AmqpErrorReason & { readonly replyCode?: number | undefined })

const isRefusal = (reason: AmqpError.AmqpErrorReason): reason is AmqpError.ProtocolError | AmqpError.AccessRefused =>
  (reason._tag === "ProtocolError" && reason.replyCode === 530) || reason._tag === "AccessRefused"

/** How long a connection that has failed may take to end in order, in milliseconds. */
const lastWords = 1000

type Bounds = Pick<AmqpConfig, "connectionName" | "maxInboundMessageBodySize" | "writeBufferSize">

/** One open connection. It never comes back to life: the next one is another link. */
export class Link {
  readonly peer: string
  /** Of the connection, as the application calls it. */
  readonly name: string | undefined
  /** Which of the connection's links it is; 0 before it is announced. */
  generation = 0
  readonly channelMax: number
  readonly frameMax: number
  readonly heartbeat: number
  readonly product: string
  /** Of the body of one message, in bytes. */
  readonly maxInboundMessageBodySize: number
  /** Why the link has ended; undefined while it is open. */
  closedBy: AmqpError.AmqpErrorReason | undefined = undefined
  /** Set when its channels have been told that it ends, a moment before it tells so itself. */
  isEnding = false
  /** The broker's reason while it reads nothing from us (`connection.blocked`). */
  blockedBy: string | undefined = undefined
  /** Called on every change of `blockedBy` and `closedBy`. Owned by the channels, which remove themselves. */
  readonly watchers = new Set<() => void>()
  /** Its channels, from before their `channel.open` until nothing of them is left. They remove themselves. */
  readonly parties = new Set<Party>()

  readonly #model: Model
  readonly events: LinkEvents
  #opening: Channel | undefined = undefined
  #lastError: unknown = undefined
  #loss: AmqpError.AmqpErrorReason | undefined = undefined
  #closing = false
  #doomed: NodeJS.Timeout | undefined = undefined
  /** How much had been read when an end went unanswered. */
  #readWhenUnanswered: number | undefined = undefined
  readonly #writers = new WeakMap<Channel, ChannelWriter>()
  // In the order in which they were sent, which is that of the answers.
  readonly #secrets: Array<(outcome: SecretOutcome) => void> = []

  constructor(model: Model, peer: string, events: LinkEvents, config: Bounds, input: SocketInput) {
    this.#model = model
    this.events = events
    this.peer = peer
    this.name = config.connectionName
    this.maxInboundMessageBodySize = config.maxInboundMessageBodySize
    const connection = internals(model)
    this.channelMax = connection.channelMax ?? 0
    this.frameMax = connection.frameMax ?? 0
    this.heartbeat = connection.heartbeat ?? 0
    // What the broker says agreed: what it sends has to keep to that.
    if (this.frameMax > 0) connection.maxFrameSize = this.frameMax
    this.product = productOf(model.connection.serverProperties)
    coalesceWrites(connection)
    // The channel object exists before its `channel.open` is answered, but amqplib hands it out only afterwards. It is
    // wanted at once, for its listeners and to be able to give it up.
    const slabs = new Slabs(connection.stream)
    const fresh = connection.freshChannel
    if (fresh !== undefined) {
      connection.freshChannel = (channel, options) => {
        this.#opening = channel
        const number = fresh.call(connection, channel, options)
        const buffer = boundWriteBuffer(connection, number, channel, config.writeBufferSize, slabs)
        if (buffer !== undefined) this.#writers.set(channel, new ChannelWriter(connection, channel, number, buffer))
        return number
      }
    }
    readFrames(connection, input)
    dropStragglers(connection)
    reuseNumbersLast(connection)
    this.#readClose(connection)
    model.on("error", this.#onError)
    model.on("close", this.#onClose)
    model.on("blocked", this.#onBlocked)
    model.on("unblocked", this.#onUnblocked)
    model.on("update-secret-ok", this.#onSecretTaken)
  }

  // amqplib keeps code and text of a `connection.close`, but not which method it is for.
  #readClose(connection: Internals): void {
    const { accept } = connection
    if (accept === undefined) return
    connection.accept = (frame) => {
      if (frame.id === connectionClose && frame.channel === 0 && !this.#closing) {
        assign(frame.fields as unknown as Close, this.parties)
      }
      accept.call(connection, frame)
    }
  }

  readonly #onSecretTaken = () => this.#secrets.shift()?.("taken")

  // After an error of its own amqplib sends `connection.close`, and waits for the reply for as long as it takes.
  readonly #onError = (error: unknown) => {
    this.#lastError ??= error
    if (this.closedBy === undefined) this.#doomed ??= setTimeout(this.#onClose, lastWords)
  }

  readonly #onClose = (error?: unknown) => {
    this.#lastError ??= error
    this.#end(this.endedBy)
  }

  /** Why it has ended or, as far as is known yet, is about to. */
  get endedBy(): AmqpError.AmqpErrorReason {
    if (this.closedBy !== undefined) return this.closedBy
    if (this.#closing) return closedByUs(this.peer)
    const error = this.#lastError ?? new Error("Connection closed")
    return classify(error, { operation: "connection", peer: this.peer })
  }

  /** The same for the party whose method the broker has closed it for. */
  endedByMethod(operation: string): AmqpError.AmqpErrorReason {
    if (this.#closing || this.#lastError === undefined) return this.endedBy
    return classify(this.#lastError, { operation, peer: this.peer })
  }

  /**
   * The same for those who did not cause it: a lost connection, which comes back. Whatever the broker, or this client, has
   * closed it for is in the message and the cause.
   */
  get loss(): AmqpError.AmqpErrorReason {
    const reason = this.endedBy
    if (reason._tag === "ConnectionClosed") return reason
    if (this.#loss?.cause === reason) return this.#loss
    return (this.#loss = new AmqpError.ConnectionClosed({
      message: `the connection to ${this.peer} was lost, and no method of this channel is known to be the cause: ${reason.message}`,
      cause: reason,
      replyCode: "replyCode" in reason ? reason.replyCode : undefined
    }))
  }

  readonly #onBlocked = (reason: string) => {
    this.blockedBy = reason
    this.#changed()
    this.events.onBlocked(reason)
  }

  /** To be called when the header of a message could not be read. */
  undecodable(reason: AmqpError.DecodeFailed, about: Readonly<Record<string, unknown>>): void {
    this.events.onUndecodable(reason, about)
  }

  readonly #onUnblocked = () => {
    this.blockedBy = undefined
    this.#changed()
    this.events.onUnblocked()
  }

  #changed() {
    for (const watcher of Array.from(this.watchers)) watcher()
  }

  #end(reason: AmqpError.AmqpErrorReason) {
    if (this.closedBy !== undefined) return
    clearTimeout(this.#doomed)
    this.closedBy = reason
    this.blockedBy = undefined
    const model = this.#model
    model.removeListener("close", this.#onClose)
    model.removeListener("blocked", this.#onBlocked)
    model.removeListener("unblocked", this.#onUnblocked)
    model.removeListener("update-secret-ok", this.#onSecretTaken)
    // A destroyed socket can still report: `error` keeps its listener, which now only takes it in.
    internals(model).stream?.destroy(new Error(reason.message))
    // The broker answers in order: what it refused is the first that it has not answered.
    for (const [i, told] of this.#secrets.splice(0).entries()) told(i === 0 && isRefusal(reason) ? reason : "lost")
    this.#changed()
    this.watchers.clear()
    this.parties.clear()
    this.events.onClosed(reason)
  }

  /**
   * Sends `channel.open`. `onChannel` gets the channel object at once where amqplib lets us have it, else with the
   * promise's own result.
   */
  openChannel(onChannel: (channel: Channel) => void): Promise<Channel> {
    this.#opening = undefined
    const opened = this.#model.createChannel()
    const early = this.#opening as Channel | undefined
    this.#opening = undefined
    if (early !== undefined) {
      onChannel(early)
      return opened
    }
    return opened.then((channel) => {
      onChannel(channel)
      return channel
    })
  }

  get budget(): ChannelBudget {
    return this.events.budget()
  }

  /** What writes to one of its channels without amqplib; undefined where only amqplib can. */
  writerOf(channel: Channel): ChannelWriter | undefined {
    return this.#writers.get(channel)
  }

  get #read(): number | undefined {
    return (internals(this.#model).stream as Partial<Socket> | undefined)?.bytesRead
  }

  /** To be called when the broker has not answered a close or a cancel within its time. */
  unanswered(): void {
    this.#readWhenUnanswered = this.#read
  }

  /** Whether not a byte has come since then: who wants to end need not wait for another answer. */
  get isSilent(): boolean {
    return this.#readWhenUnanswered !== undefined && this.#readWhenUnanswered === this.#read
  }

  /** Sends `connection.update-secret`. `told` is called once, from amqplib's own event handlers: it must not throw. */
  updateSecret(secret: Redacted.Redacted<string>, reason: string, told: (outcome: SecretOutcome) => void): void {
    if (this.closedBy !== undefined) return told("lost")
    this.#secrets.push(told)
    // The promise says nothing that the event does not, and stays pending when the link ends. It is rejected when the
    // connection is ending already, of which `#end` tells.
    this.#model.updateSecret(bytesOf(Redacted.value(secret)), reason).catch(() => {})
  }

  /** Ends the link at once, without a word to the broker. */
  destroy(reason: AmqpError.AmqpErrorReason): void {
    this.#end(reason)
  }

  /** `connection.close`, bounded by `timeout`; the socket is destroyed in every case. */
  close(timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.closedBy !== undefined) return resume(Effect.void)
      this.#closing = true
      const ended = () => {
        if (this.closedBy !== undefined) resume(Effect.void)
      }
      this.watchers.add(ended)
      // The promise tells nothing that the `close` event does not, and stays pending when the peer dies before its reply.
      // The call itself throws when amqplib has given the connection up a moment ago.
      try {
        this.#model.close().catch(() => {})
      } catch {
        resume(Effect.void)
      }
      return Effect.sync(() => this.watchers.delete(ended))
    }).pipe(
      Effect.timeoutOption(timeout),
      Effect.ensuring(Effect.sync(() => this.#end(closedByUs(this.peer)))),
      Effect.asVoid
    )
  }
}

export const closedByUs = (peer: string) =>
  new AmqpError.ConnectionClosed({ message: `the connection to ${peer} was closed by this application` })
