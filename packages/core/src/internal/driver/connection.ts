/**
 * One connection to a broker: amqplib's conversation, and the messages that pass it by.
 *
 * Hazards of amqplib 2.3 that this module answers:
 * - `close()` sends `connection.close` at once, before what its channels have written, and never settles when the peer is
 *   gone or silent: it is called when all is written, and whoever closes bounds it.
 * - A connection that amqplib gives up (heartbeat) leaves its socket open: it is destroyed here; with an error, since
 *   without one amqplib would not notice, and its heartbeat would go on.
 * - A write after it has ended the socket destroys it, perhaps before its `close-ok` has left: nothing of ours is written
 *   when a `connection.close` has been read or sent. What its own channels have asked for it writes when it has answered
 *   and ended the socket, too: it gets the broker's close when that is written.
 * - An `error` event without a listener takes the process down: one stays attached for as long as the object can emit.
 */
import type { Socket } from "node:net"
import { type Channel as Amqplib, type Model, numberOf } from "./amqplib.ts"
import { Channel, type ChannelHost } from "./channel.ts"
import { ConnectionOutput } from "./connectionOutput.ts"
import type { ChannelEvents, ConnectionEvents, DriverChannel, DriverConnection } from "./contract.ts"
import { type BrokerClose, NoChannelLeft } from "./ends.ts"
import { DeliverReader } from "./methods.ts"
import type { Agreement, Tap, TapOwner } from "./tap.ts"

/** How long amqplib may take to answer the broker's close, in milliseconds. */
const lastWords = 1000

/** What is held at most. */
export interface Bounds {
  /** Of the body of one message that is taken in, in bytes. */
  readonly maxInboundMessageBodySize: number
  /** Of what one channel has written and the socket has not taken, in bytes. */
  readonly writeBufferSize: number
}

// They may be anything: a table whose `toString` is a text throws where it is put into one.
const ignore = () => {}

export class Connection implements DriverConnection, TapOwner, ChannelHost {
  readonly product: string
  readonly channelMax: number
  readonly frameMax: number
  readonly heartbeat: number
  readonly maxInboundMessageBodySize: number
  readonly writeBufferSize: number
  readonly tap: Tap
  readonly output: ConnectionOutput
  readonly deliverReader = new DeliverReader()
  readonly #model: Model
  readonly #socket: Socket
  #events: ConnectionEvents | undefined = undefined
  /** Those that amqplib has not handed out. */
  readonly #opening = new Set<Channel>()
  /** The others by their numbers, until nothing of them is left. */
  readonly #channels: Array<Channel | undefined> = []
  opening = 0
  /** Whether `close` was called: amqplib is asked for nothing more, since its `connection.close` would overtake that. */
  isClosing = false
  #hasEnded = false

  constructor(model: Model, tap: Tap, socket: Socket, agreed: Agreement, bounds: Bounds) {
    this.#model = model
    this.#socket = socket
    this.tap = tap
    this.product = agreed.product
    this.channelMax = agreed.channelMax
    this.frameMax = agreed.frameMax
    this.heartbeat = agreed.heartbeat
    this.maxInboundMessageBodySize = bounds.maxInboundMessageBodySize
    this.writeBufferSize = bounds.writeBufferSize
    this.output = new ConnectionOutput(socket)
    // What amqplib reports itself: a silent peer, a socket that failed or ended. Frames are read before it reads them.
    const channels = this.#channels
    this.onChannelClose = function () {
      channels[numberOf(this)]?.gone()
    }
    model.on("error", (cause) => this.#end(cause))
    model.on("close", (cause) => {
      this.#end(cause)
      this.#destroy(cause ?? new Error("Connection closed"))
    })
  }

  watch(events: ConnectionEvents): void {
    this.#events = events
    this.tap.listen(this)
  }

  get bytesRead(): number {
    return this.#socket.bytesRead
  }

  // --- Channels --------------------------------------------------------------------------------------------------------

  openChannel(events: ChannelEvents): DriverChannel {
    const channel = new Channel(this, events)
    if (this.#hasEnded || this.isClosing) {
      queueMicrotask(() => channel.connectionEnded())
      return channel
    }
    this.#opening.add(channel)
    this.opening++
    this.#model.createChannel().then(
      (opened) => {
        this.opening--
        if (this.#hasEnded) return
        try {
          channel.attach(opened)
        } catch (cause) {
          this.#break(cause)
        }
      },
      () => {
        this.opening--
        // A connection that ended has told its channels.
        if (!this.#opening.delete(channel)) return
        events.notOpened(new NoChannelLeft(`all ${this.channelMax} channels of the connection are in use`))
      }
    )
    return channel
  }

  /** amqplib has handed the channel out, so it has its number. */
  attached(channel: Channel): void {
    this.#opening.delete(channel)
    this.#channels[channel.number] = channel
  }

  /** Nothing is left of the channel. */
  left(channel: Channel): void {
    this.#opening.delete(channel)
    if (this.#channels[channel.number] === channel) this.#channels[channel.number] = undefined
  }

  /** The listener of all of amqplib's channels: a closure for each would be a tenth of what a channel takes. */
  readonly onChannelClose: (this: Amqplib) => void

  // --- What the tap has read -------------------------------------------------------------------------------------------

  blocked(reason: string): void {
    this.#events?.blocked(reason)
  }

  unblocked(): void {
    this.#events?.unblocked()
  }

  secretTaken(): void {
    this.#events?.secretTaken()
  }

  closed(close: BrokerClose, answer: () => void): void {
    const doomed = setTimeout(() => this.#destroy(close), lastWords)
    this.#socket.once("close", () => clearTimeout(doomed))
    this.#end(this.isClosing ? undefined : close)
    this.output.whenAmqplibHasWritten(answer)
  }

  failed(cause: unknown): void {
    this.#end(cause)
  }

  // --- Its end ---------------------------------------------------------------------------------------------------------

  updateSecret(secret: Buffer, reason: string): void {
    // The promise says nothing that `secretTaken` does not, and stays pending when the connection ends.
    this.#model.updateSecret(secret, reason).catch(ignore)
  }

  close(): void {
    if (this.#hasEnded || this.isClosing) return
    this.isClosing = true
    this.output.whenEmpty(() => {
      this.output.stop()
      if (!this.#hasEnded) this.#model.close().catch(ignore)
    })
  }

  destroy(cause: Error): void {
    this.#events = undefined
    this.#break(cause)
  }

  /** Something that must not happen has happened. */
  #break(cause: unknown): void {
    this.#end(cause)
    this.#destroy(cause)
  }

  #destroy(cause: unknown): void {
    this.tap.end()
    this.#socket.destroy(cause instanceof Error ? cause : new Error(String(cause)))
  }

  /** Tells it to all. */
  #end(cause: unknown): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.output.stop()
    this.#events?.ended(this.isClosing ? undefined : cause)
    for (const channel of [...this.#opening, ...this.#channels]) channel?.connectionEnded()
  }
}
