/**
 * One open connection, for its channels and the supervisor: why it ends, which channel caused that, and who must be
 * informed.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { ChannelBudget } from "./channelBudget.ts"
import type { AmqpConfig } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import { attributeClose, type LinkChannel } from "./attribution.ts"
import { classify } from "./classify.ts"
import { BrokerClose, type ChannelEvents, type DriverChannel, type DriverConnection } from "../driver/driver.ts"
import { secretBytes } from "../wire/secretBytes.ts"
import { withoutPeriod } from "../waiting/phrases.ts"

/** The events of a link, for its owner. They are called while bytes are read from the socket, and must not throw. */
export interface LinkEvents {
  /** The bound of channels that may be opened on the link. */
  readonly budget: () => ChannelBudget
  readonly onBlocked: (reason: string) => void
  readonly onUnblocked: () => void
  /** The broker has closed one of the link's channels for this reason. */
  readonly onChannelClosed: (reason: AmqpError.AmqpErrorReason) => void
  /** The broker has returned a message that reached no queue. */
  readonly onReturned: (exchange: string, routingKey: string) => void
  /** The header of a message could not be decoded. `about` identifies the message, for the log. */
  readonly onUndecodable: (reason: AmqpError.DecodeFailed, about: Readonly<Record<string, unknown>>) => void
  /** The link has ended. Called once, whichever side ended it. */
  readonly onClosed: (reason: AmqpError.AmqpErrorReason) => void
}

/**
 * The outcome of a new secret: the broker has accepted it; or the link ended before the broker answered; or the broker
 * closed the link because of the secret, as RabbitMQ does (530).
 */
export type SecretOutcome = "taken" | "lost" | (AmqpError.AmqpErrorReason & { readonly replyCode?: number | undefined })

const isRefusal = (reason: AmqpError.AmqpErrorReason): reason is AmqpError.ProtocolError | AmqpError.AccessRefused =>
  (reason._tag === "ProtocolError" && reason.replyCode === 530) || reason._tag === "AccessRefused"

type LinkConfig = Pick<AmqpConfig, "connectionName" | "maxInboundMessageBodySize">

/** One open connection. A link that has ended is never reused: the next connection is another link. */
export class Link {
  readonly peer: string
  /** The connection's configured name. */
  readonly name: string | undefined
  /** The generation of the link on its connection; 0 before the link is announced. */
  generation = 0
  readonly channelMax: number
  readonly frameMax: number
  readonly heartbeat: number
  readonly product: string
  /** Maximum body size of one message, in bytes. */
  readonly maxInboundMessageBodySize: number
  /** Why the link has ended; `undefined` while it is open. */
  closedBy: AmqpError.AmqpErrorReason | undefined = undefined
  /** The broker's reason while it blocks publishing on this link (`connection.blocked`); `undefined` otherwise. */
  blockedBy: string | undefined = undefined
  /** Called on every change of `blockedBy` and `closedBy`. The code that adds a watcher removes it. */
  readonly watchers = new Set<() => void>()
  /** The link's channels, from before `channel.open` until they are released. They remove themselves. */
  readonly channels = new Set<LinkChannel>()

  readonly events: LinkEvents
  readonly #driver: DriverConnection
  #cause: unknown = undefined
  #loss: AmqpError.AmqpErrorReason | undefined = undefined
  #closing = false
  /** Number of bytes received when a close or a cancel went unanswered. */
  #readWhenUnanswered: number | undefined = undefined
  // Callers of `updateSecret`, in the order of sending, which is that of the answers.
  readonly #secrets: Array<(outcome: SecretOutcome) => void> = []

  constructor(driver: DriverConnection, peer: string, events: LinkEvents, config: LinkConfig) {
    this.#driver = driver
    this.events = events
    this.peer = peer
    this.name = config.connectionName
    this.maxInboundMessageBodySize = config.maxInboundMessageBodySize
    this.channelMax = driver.channelMax
    this.frameMax = driver.frameMax
    this.heartbeat = driver.heartbeat
    this.product = driver.product
  }

  /** Why nothing can be published on any of the link's channels now; `undefined` if publishing is possible. */
  get publishForbiddenReason(): string | undefined {
    return this.blockedBy === undefined
      ? undefined
      : `the broker has blocked publishers on this connection: ${withoutPeriod(this.blockedBy)}`
  }

  /** Starts the driver's events. Events that arrived after the handshake are reported now. */
  listen(): void {
    this.#driver.watch({
      blocked: (reason) => {
        this.blockedBy = reason
        this.#changed()
        this.events.onBlocked(reason)
      },
      unblocked: () => {
        this.blockedBy = undefined
        this.#changed()
        this.events.onUnblocked()
      },
      secretUpdated: () => this.#secrets.shift()?.("taken"),
      ended: (cause) => {
        if (cause instanceof BrokerClose) attributeClose(cause, this.channels)
        this.#cause = cause
        this.#end(this.endReason)
      }
    })
  }

  /** The cause of the end, as the driver reported it. */
  get cause(): unknown {
    return this.#cause
  }

  /** Why the link has ended or, as far as is known yet, is about to end. */
  get endReason(): AmqpError.AmqpErrorReason {
    if (this.closedBy !== undefined) return this.closedBy
    if (this.#closing) return closedByUs(this.peer)
    if (this.#cause === undefined) {
      return new AmqpError.ConnectionClosed({ message: `the connection to ${this.peer} was lost` })
    }
    return classify(this.#cause, { operation: "connection", peer: this.peer })
  }

  /** The end reason for the channel whose method caused the close. */
  endReasonFor(operation: string): AmqpError.AmqpErrorReason {
    if (this.#closing || this.#cause === undefined) return this.endReason
    return classify(this.#cause, { operation, peer: this.peer })
  }

  /**
   * The end reason for channels that did not cause the close: a lost connection, which is re-established. The message
   * and the cause have the reason for which the broker, or this client, closed the connection.
   */
  get loss(): AmqpError.AmqpErrorReason {
    const reason = this.endReason
    if (reason._tag === "ConnectionClosed") return reason
    if (this.#loss?.cause === reason) return this.#loss
    return (this.#loss = new AmqpError.ConnectionClosed({
      message: `the connection to ${this.peer} was lost, and no method of this channel is known to be the cause: ${reason.message}`,
      cause: reason,
      replyCode: "replyCode" in reason ? reason.replyCode : undefined
    }))
  }

  /** Reports a message whose header could not be decoded. */
  undecodable(reason: AmqpError.DecodeFailed, about: Readonly<Record<string, unknown>>): void {
    this.events.onUndecodable(reason, about)
  }

  #changed() {
    for (const channel of Array.from(this.channels)) channel.linkChanged()
    for (const watcher of Array.from(this.watchers)) watcher()
  }

  #end(reason: AmqpError.AmqpErrorReason) {
    if (this.closedBy !== undefined) return
    this.closedBy = reason
    this.blockedBy = undefined
    // The broker answers in order: a refusal concerns the first secret that it has not answered.
    for (const [i, onOutcome] of this.#secrets.splice(0).entries())
      onOutcome(i === 0 && isRefusal(reason) ? reason : "lost")
    this.#changed()
    this.watchers.clear()
    this.channels.clear()
    this.events.onClosed(reason)
  }

  /** Opens a channel (`channel.open`). */
  openChannel(events: ChannelEvents): DriverChannel {
    return this.#driver.openChannel(events)
  }

  get budget(): ChannelBudget {
    return this.events.budget()
  }

  /** Records that the broker has not answered a close or a cancel within its time. */
  recordUnanswered(): void {
    this.#readWhenUnanswered = this.#driver.bytesRead
  }

  /** Whether no byte has arrived since an answer was missed. A close then need not wait for another answer. */
  get isSilent(): boolean {
    return this.#readWhenUnanswered !== undefined && this.#readWhenUnanswered === this.#driver.bytesRead
  }

  /**
   * Sends `connection.update-secret`. `onOutcome` is called once, while bytes are read from the socket, and must not
   * throw.
   */
  updateSecret(secret: Redacted.Redacted<string>, reason: string, onOutcome: (outcome: SecretOutcome) => void): void {
    if (this.closedBy !== undefined) return onOutcome("lost")
    this.#secrets.push(onOutcome)
    this.#driver.updateSecret(secretBytes(Redacted.value(secret)), reason)
  }

  /** Destroys the link at once, without `connection.close`. */
  destroy(reason: AmqpError.AmqpErrorReason): void {
    this.#end(reason)
    this.#driver.destroy(new Error(reason.message))
  }

  /** Closes the link with `connection.close`, within `timeout`. The socket is destroyed in every case. */
  close(timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      if (this.closedBy !== undefined) return resume(Effect.void)
      this.#closing = true
      const ended = () => {
        if (this.closedBy !== undefined) resume(Effect.void)
      }
      this.watchers.add(ended)
      this.#driver.close()
      return Effect.sync(() => this.watchers.delete(ended))
    }).pipe(
      Effect.timeoutOption(timeout),
      Effect.ensuring(Effect.sync(() => this.destroy(closedByUs(this.peer)))),
      Effect.asVoid
    )
  }
}

export const closedByUs = (peer: string) =>
  new AmqpError.ConnectionClosed({ message: `the connection to ${peer} was closed by this application` })
