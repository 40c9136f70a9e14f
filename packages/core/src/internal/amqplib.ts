/**
 * The only module that knows amqplib: one open connection, made, watched and ended.
 *
 * Hazards of amqplib 2.3 that this module answers:
 * - `connect` has no way to be given up: an `AbortSignal` among the socket options destroys the socket.
 * - `vhost` is percent-decoded again by amqplib, so it is encoded first.
 * - `close()` never settles when the peer is gone or silent: it is bounded, and the socket destroyed afterwards; with an
 *   error, since without one pending confirms would stay pending.
 * - A connection that amqplib gives up (heartbeat) leaves its socket open: destroyed here too.
 * - An `error` event without a listener takes the process down: one stays attached for as long as the object can emit.
 * - A channel's write buffer is 1,024 frames, whatever their size: it is replaced by one that counts bytes.
 * - A `connection.close` in place of `connection.open-ok` is told without its code and text: they are read on the way.
 * - It reads on behind `connection.open-ok` before it hands the connection out, when nobody can listen yet: its
 *   `Connection` tells us when it begins.
 * - It takes frames of up to 64 MiB, whatever was agreed on: none larger than that is taken.
 */
import amqplib from "amqplib"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { EventEmitter } from "node:events"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import type { Socket } from "node:net"
import type { Duplex } from "node:stream"
import { createSecureContext } from "node:tls"
import type { AmqpConfig, Host } from "../AmqpConfig.ts"
import * as AmqpError from "../AmqpError.ts"
import { classify } from "./classify.ts"
import { WriteBuffer } from "./writeBuffer.ts"
import { readContentHeaders } from "./contentHeader.ts"

export type Model = amqplib.ChannelModel
export type Channel = amqplib.Channel
export type PublishOptions = amqplib.Options.Publish
export type GetMessage = amqplib.GetMessage
export type ConsumeMessage = amqplib.ConsumeMessage
export type ReturnMessage = amqplib.Message

// What amqplib does not declare, and what of it may be missing in another version.
interface Internals {
  readonly stream?: Duplex
  readonly channelMax?: number
  readonly frameMax?: number
  maxFrameSize?: number
  readonly heartbeat?: number
  readonly channels?: Array<{ buffer: unknown } | null>
  readonly muxer?: {
    readonly pipeFrom: (stream: WriteBuffer) => void
    readonly unpipeFrom: (stream: unknown) => void
    _readIncoming?: () => void
  }
  freshChannel?: (channel: Channel, options: unknown) => number
}

interface ChannelInternals {
  readonly rpc: (method: number, fields: Record<string, unknown>, reply: number) => Promise<Record<string, unknown>>
  readonly onBufferDrain: () => void
}

// Class and method, as the protocol numbers them (AMQP 0-9-1, section 1.4; https://www.rabbitmq.com/amqp-0-9-1-reference).
const method = (classId: number, methodId: number) => (classId << 16) | methodId
const connectionClose = method(10, 50)

/** Methods that amqplib has no function for: their numbers, and those of their replies. */
export const methods = {
  "channel.flow": [method(20, 20), method(20, 21)],
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

// In bytes instead of frames.
const boundWriteBuffer = (connection: Internals, number: number, driver: Channel, size: number) => {
  const record = connection.channels?.[number]
  const muxer = connection.muxer
  if (record === undefined || record === null || muxer === undefined) return
  muxer.unpipeFrom(record.buffer)
  const buffer = new WriteBuffer(size)
  record.buffer = buffer
  buffer.on("drain", () => (driver as unknown as ChannelInternals).onBufferDrain())
  muxer.pipeFrom(buffer)
}

// amqplib hands the socket frame by frame: corked, it gets many of them with one system call.
const coalesceWrites = ({ muxer, stream }: Internals) => {
  const readIncoming = muxer?._readIncoming
  if (muxer === undefined || readIncoming === undefined || stream === undefined) return
  muxer._readIncoming = () => {
    stream.cork()
    try {
      readIncoming.call(muxer)
    } finally {
      stream.uncork()
    }
  }
}

// They may be anything: a table whose `toString` is a text throws where it is put into one.
const productOf = (properties: object | undefined): string => {
  const text = (name: string, other: string) => {
    const value = properties !== undefined && Object.hasOwn(properties, name) ? Reflect.get(properties, name) : other
    return typeof value === "string" ? value : other
  }
  return `${text("product", "unknown")} ${text("version", "")}`.trim()
}

const internals = (model: Model) => model.connection as unknown as Internals

/** amqplib's connection while it opens. */
interface Opening extends EventEmitter {
  step?: (next: (error: unknown, frame: { readonly id?: number; readonly fields?: CloseFields } | null) => void) => void
}

interface CloseFields {
  readonly replyCode?: number
  readonly replyText?: string
}

/** What a connection tells before there is a `Link` to listen. */
class Beginning {
  /** Why it cannot be used any more. */
  endedBy: unknown = undefined
  /** The broker's `connection.close` instead of its next step. */
  refusedBy: Error | undefined = undefined
  blockedBy: string | undefined = undefined
  #connection: EventEmitter | undefined = undefined

  readonly listen = (connection: Opening): void => {
    this.#connection = connection
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
const beginnings = new WeakMap<object, Beginning>()

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

/** What a link tells its owner. Called from amqplib's own event handlers: must not throw. */
export interface LinkEvents {
  readonly onBlocked: (reason: string) => void
  readonly onUnblocked: () => void
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

/** The largest frame that is taken before a size has been agreed on, in bytes. */
const largestGreeting = 131_072

/** How long a connection that has failed may take to end in order, in milliseconds. */
const lastWords = 1000

type Bounds = Pick<AmqpConfig, "maxInboundMessageBodySize" | "writeBufferSize">

/** One open connection. It never comes back to life: the next one is another link. */
export class Link {
  readonly peer: string
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

  readonly #model: Model
  readonly #events: LinkEvents
  #opening: Channel | undefined = undefined
  #lastError: unknown = undefined
  #closing = false
  #doomed: NodeJS.Timeout | undefined = undefined
  /** How much had been read when an end went unanswered. */
  #readWhenUnanswered: number | undefined = undefined
  // In the order in which they were sent, which is that of the answers.
  readonly #secrets: Array<(outcome: SecretOutcome) => void> = []

  constructor(model: Model, peer: string, events: LinkEvents, config: Bounds) {
    this.#model = model
    this.#events = events
    this.peer = peer
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
    const fresh = connection.freshChannel
    if (fresh !== undefined) {
      connection.freshChannel = (channel, options) => {
        this.#opening = channel
        const number = fresh.call(connection, channel, options)
        boundWriteBuffer(connection, number, channel, config.writeBufferSize)
        return number
      }
    }
    readContentHeaders(connection)
    model.on("error", this.#onError)
    model.on("close", this.#onClose)
    model.on("blocked", this.#onBlocked)
    model.on("unblocked", this.#onUnblocked)
    model.on("update-secret-ok", this.#onSecretTaken)
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

  readonly #onBlocked = (reason: string) => {
    this.blockedBy = reason
    this.#changed()
    this.#events.onBlocked(reason)
  }

  readonly #onUnblocked = () => {
    this.blockedBy = undefined
    this.#changed()
    this.#events.onUnblocked()
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
    this.#events.onClosed(reason)
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

const closedByUs = (peer: string) =>
  new AmqpError.ConnectionClosed({ message: `the connection to ${peer} was closed by this application` })

// Not from Buffer's pool, which whoever prints the memory behind one of his own small buffers prints too.
const bytesOf = (secret: string): Buffer => {
  const bytes = Buffer.alloc(Buffer.byteLength(secret))
  bytes.write(secret)
  return bytes
}

// What amqplib's own credentials hold beside these, user name and password, lands in the options that a TLS socket keeps.
const credentialsOf = ({ credentials }: AmqpConfig, beginning: Beginning) => ({
  mechanism: credentials._tag === "External" ? "EXTERNAL" : "PLAIN",
  response: () => {
    const bytes =
      credentials._tag === "External"
        ? Buffer.alloc(0)
        : bytesOf(`\0${credentials.username}\0${Redacted.value(credentials.password)}`)
    beginnings.set(bytes, beginning)
    return bytes
  }
})

// The key and its passphrase go into the context, not among the options: a TLS socket keeps those.
const tlsOptionsOf = ({ tls }: AmqpConfig): Record<string, unknown> => {
  if (tls === undefined) return {}
  return {
    rejectUnauthorized: tls.verify,
    ...(tls.servername === undefined ? undefined : { servername: tls.servername }),
    secureContext: createSecureContext({
      minVersion: tls.minVersion,
      ...(tls.ca === undefined ? undefined : { ca: [...tls.ca] }),
      ...(tls.cert === undefined ? undefined : { cert: tls.cert }),
      ...(tls.key === undefined ? undefined : { key: Redacted.value(tls.key) }),
      ...(tls.passphrase === undefined ? undefined : { passphrase: Redacted.value(tls.passphrase) }),
      ...(tls.ciphers === undefined ? undefined : { ciphers: tls.ciphers })
    })
  }
}

/**
 * Opens a link to one host, within `connectTimeout`, and hands it to `own` in the tick in which it arrives. Given up, by
 * interruption or time, it leaves no socket behind.
 */
export const connect = (
  config: AmqpConfig,
  host: Host,
  events: LinkEvents,
  own: (link: Link) => void
): Effect.Effect<void, AmqpError.AmqpError> => {
  const peer = `${host.host.includes(":") ? `[${host.host}]` : host.host}:${host.port}`
  const operation = "connection.open"
  return Effect.callback<void, AmqpError.AmqpError>((resume) => {
    const aborting = new AbortController()
    const beginning = new Beginning()
    let givenUp = false
    const failed = (cause: unknown) =>
      resume(
        Effect.fail(
          AmqpError.fromReason(
            classify(beginning.refusedBy ?? cause, { operation, peer, vhost: config.vhost, handshake: true })
          )
        )
      )
    let connecting: Promise<Model>
    try {
      // Not a literal at the call: Node takes a `signal` among a socket's options, amqplib's types do not know it.
      const socketOptions = {
        credentials: credentialsOf(config, beginning),
        clientProperties: {
          product: "effect-amqp",
          ...config.clientProperties,
          ...(config.connectionName === undefined ? undefined : { connection_name: config.connectionName })
        },
        noDelay: config.tcp.noDelay,
        keepAlive: config.tcp.keepAlive,
        keepAliveDelay: Duration.toMillis(config.tcp.keepAliveDelay),
        timeout: Duration.toMillis(config.socketTimeout),
        signal: aborting.signal,
        ...tlsOptionsOf(config)
      }
      const url = {
        protocol: config.tls === undefined ? "amqp" : "amqps",
        hostname: host.host,
        port: host.port,
        vhost: encodeURIComponent(config.vhost),
        locale: config.locale,
        frameMax: config.frameMax,
        channelMax: config.channelMax,
        heartbeat: Duration.toSeconds(config.heartbeat),
        // Nothing is agreed on while it opens, and some brokers have much to say of themselves.
        maxFrameSize: Math.max(config.frameMax, largestGreeting)
      }
      connecting = amqplib.connect(url, socketOptions)
    } catch (cause) {
      return failed(cause)
    }
    connecting.then((model) => {
      if (beginning.endedBy !== undefined) {
        // With an error, which the model passes on: else amqplib's heartbeat would go on.
        model.on("error", () => {})
        internals(model).stream?.destroy(new Error("Connection closed"))
        return failed(beginning.endedBy)
      }
      const link = new Link(model, peer, events, config)
      beginning.end()
      if (givenUp) return link.destroy(closedByUs(peer))
      own(link)
      if (beginning.blockedBy !== undefined) model.emit("blocked", beginning.blockedBy)
      return resume(Effect.void)
    }, failed)
    return Effect.sync(() => {
      givenUp = true
      aborting.abort()
    })
  }).pipe(
    Effect.timeoutOrElse({
      duration: config.connectTimeout,
      orElse: () =>
        Effect.fail(
          AmqpError.fromReason(
            new AmqpError.ConnectTimeout({
              message: `${operation}: ${peer} did not finish TCP, TLS and the AMQP handshake within ${Duration.format(config.connectTimeout)} (connectTimeout)`,
              operation
            })
          )
        )
    })
  )
}
