/**
 * One connection to a broker: amqplib's side of the protocol, and the messages that bypass amqplib.
 * Hazards of amqplib 2.3 that this module handles:
 * - `close()` sends `connection.close` at once, ahead of everything its channels have written, and never settles when
 *   the peer is gone or silent. It is called after everything is written, and the caller of `close` bounds it.
 * - amqplib leaves the socket open when it gives up a connection (heartbeat). This module destroys the socket, with an
 *   error: without one amqplib would not notice, and would continue to send heartbeats.
 * - A write after amqplib has ended the socket destroys the socket, perhaps before amqplib's `close-ok` has been sent.
 *   So nothing of ours is written once a `connection.close` was read or sent. amqplib also writes the pending requests
 *   of its own channels after it has answered and ended the socket, so it gets the broker's close only when those are
 *   written.
 * - An `error` event without a listener ends the process: one listener stays attached for as long as the object can
 *   emit.
 */
import type { Socket } from "node:net"
import { type Channel as Amqplib, type Model, numberOf } from "./amqplib.ts"
import { Channel, type ChannelHost } from "./channel.ts"
import { ConnectionOutput } from "./connectionOutput.ts"
import type { ChannelEvents, ConnectionEvents, DriverChannel, DriverConnection } from "./contract.ts"
import { type BrokerClose, ChannelNumbersExhausted } from "./errors.ts"
import { DeliverReader } from "./methods.ts"
import type { Negotiated, Tap, TapOwner } from "./tap.ts"

/** Longest time in which amqplib may answer the broker's close, in milliseconds. */
const closeGraceMillis = 1000

export interface ConnectionLimits {
  /** Maximum size of an incoming message body, in bytes. */
  readonly maxInboundMessageBodySize: number
  /** Capacity of each channel's output, in bytes. */
  readonly writeBufferSize: number
}

// Rejection values may be anything: a table whose `toString` is a string throws when it is converted to text.
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
  /** Channels that amqplib has not handed out yet. */
  readonly #openingChannels = new Set<Channel>()
  /** The other channels by number, until they are released. */
  readonly #channels: Array<Channel | undefined> = []
  pendingOpens = 0
  /**
   * Whether `close` was called. Channels accept nothing more: `connection.close` would overtake requests of amqplib, and
   * waits for everything else that is written.
   */
  isClosing = false
  #hasEnded = false

  constructor(model: Model, tap: Tap, socket: Socket, agreed: Negotiated, bounds: ConnectionLimits) {
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
    // These listeners get what amqplib reports itself: a silent peer, or a socket that failed or ended. The tap reads
    // all frames before amqplib does.
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
    this.#openingChannels.add(channel)
    this.pendingOpens++
    this.#model.createChannel().then(
      (opened) => {
        this.pendingOpens--
        if (this.#hasEnded) return
        try {
          channel.attach(opened)
        } catch (cause) {
          this.#abort(cause)
        }
      },
      () => {
        this.pendingOpens--
        // The end of the connection was already reported to its channels.
        if (!this.#openingChannels.delete(channel)) return
        events.notOpened(
          new ChannelNumbersExhausted(`all channels of this connection are in use (channelMax ${this.channelMax})`)
        )
      }
    )
    return channel
  }

  channelAttached(channel: Channel): void {
    this.#openingChannels.delete(channel)
    this.#channels[channel.number] = channel
  }

  channelGone(channel: Channel): void {
    this.#openingChannels.delete(channel)
    if (this.#channels[channel.number] === channel) this.#channels[channel.number] = undefined
  }

  /**
   * The `close` listener that all amqplib channels share. A closure per channel would take a tenth of a channel's
   * memory.
   */
  readonly onChannelClose: (this: Amqplib) => void

  // --- Events of the tap -----------------------------------------------------------------------------------------------

  blocked(reason: string): void {
    this.#events?.blocked(reason)
  }

  unblocked(): void {
    this.#events?.unblocked()
  }

  secretUpdated(): void {
    this.#events?.secretUpdated()
  }

  closed(close: BrokerClose, answer: () => void): void {
    const destroyTimer = setTimeout(() => this.#destroy(close), closeGraceMillis)
    this.#socket.once("close", () => clearTimeout(destroyTimer))
    this.#end(this.isClosing ? undefined : close)
    this.output.whenAmqplibHasWritten(answer)
  }

  failed(cause: unknown): void {
    this.#end(cause)
  }

  // --- Closing ---------------------------------------------------------------------------------------------------------

  updateSecret(secret: Buffer, reason: string): void {
    // The promise states nothing that `secretUpdated` does not, and stays pending when the connection ends.
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
    this.#abort(cause)
  }

  /** Ends the connection and destroys its socket. */
  #abort(cause: unknown): void {
    this.#end(cause)
    this.#destroy(cause)
  }

  #destroy(cause: unknown): void {
    this.tap.end()
    this.#socket.destroy(cause instanceof Error ? cause : new Error(String(cause)))
  }

  /** Reports the end to the owner and to all channels. */
  #end(cause: unknown): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.output.stop()
    this.#events?.ended(this.isClosing ? undefined : cause)
    for (const channel of [...this.#openingChannels, ...this.#channels]) channel?.connectionEnded()
  }
}
