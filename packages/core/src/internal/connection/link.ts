/** One open connection, as its channels and the supervisor know it: why it ends, whose failure that is, and who waits for it. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { ChannelBudget } from "./channelBudget.ts"
import type { AmqpConfig } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import { assign, type Party } from "./blame.ts"
import { classify } from "./classify.ts"
import { BrokerClose, type ChannelEvents, type DriverChannel, type DriverConnection } from "../driver/driver.ts"
import { bytesOf } from "../wire/secretBytes.ts"

/** What a link tells its owner. Called while bytes are read from the socket: must not throw. */
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

type Named = Pick<AmqpConfig, "connectionName" | "maxInboundMessageBodySize">

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
  /** The broker's reason while it reads nothing from us (`connection.blocked`). */
  blockedBy: string | undefined = undefined
  /** Called on every change of `blockedBy` and `closedBy`. Who adds one removes it. */
  readonly watchers = new Set<() => void>()
  /** Its channels, from before their `channel.open` until nothing of them is left. They remove themselves. */
  readonly parties = new Set<Party>()

  readonly events: LinkEvents
  readonly #driver: DriverConnection
  #cause: unknown = undefined
  #loss: AmqpError.AmqpErrorReason | undefined = undefined
  #closing = false
  /** How much had been read when an end went unanswered. */
  #readWhenUnanswered: number | undefined = undefined
  // In the order in which they were sent, which is that of the answers.
  readonly #secrets: Array<(outcome: SecretOutcome) => void> = []

  constructor(driver: DriverConnection, peer: string, events: LinkEvents, config: Named) {
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

  /** Why nothing can be published on any of its channels now; undefined when it can. */
  get forbids(): string | undefined {
    return this.blockedBy === undefined
      ? undefined
      : `the broker has blocked publishers on this connection: ${this.blockedBy}`
  }

  /** Begins to hear of it: what has come behind the handshake is told now. */
  begin(): void {
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
      secretTaken: () => this.#secrets.shift()?.("taken"),
      ended: (cause) => {
        if (cause instanceof BrokerClose) assign(cause, this.parties)
        this.#cause = cause
        this.#end(this.endedBy)
      }
    })
  }

  /** What it has ended with, as the driver says. */
  get cause(): unknown {
    return this.#cause
  }

  /** Why it has ended or, as far as is known yet, is about to. */
  get endedBy(): AmqpError.AmqpErrorReason {
    if (this.closedBy !== undefined) return this.closedBy
    if (this.#closing) return closedByUs(this.peer)
    if (this.#cause === undefined) {
      return new AmqpError.ConnectionClosed({ message: `the connection to ${this.peer} is gone` })
    }
    return classify(this.#cause, { operation: "connection", peer: this.peer })
  }

  /** The same for the party whose method the broker has closed it for. */
  endedByMethod(operation: string): AmqpError.AmqpErrorReason {
    if (this.#closing || this.#cause === undefined) return this.endedBy
    return classify(this.#cause, { operation, peer: this.peer })
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

  /** To be called when the header of a message could not be read. */
  undecodable(reason: AmqpError.DecodeFailed, about: Readonly<Record<string, unknown>>): void {
    this.events.onUndecodable(reason, about)
  }

  #changed() {
    for (const party of Array.from(this.parties)) party.linkChanged()
    for (const watcher of Array.from(this.watchers)) watcher()
  }

  #end(reason: AmqpError.AmqpErrorReason) {
    if (this.closedBy !== undefined) return
    this.closedBy = reason
    this.blockedBy = undefined
    // The broker answers in order: what it refused is the first that it has not answered.
    for (const [i, told] of this.#secrets.splice(0).entries()) told(i === 0 && isRefusal(reason) ? reason : "lost")
    this.#changed()
    this.watchers.clear()
    this.parties.clear()
    this.events.onClosed(reason)
  }

  /** Sends `channel.open`. */
  openChannel(events: ChannelEvents): DriverChannel {
    return this.#driver.openChannel(events)
  }

  get budget(): ChannelBudget {
    return this.events.budget()
  }

  /** To be called when the broker has not answered a close or a cancel within its time. */
  unanswered(): void {
    this.#readWhenUnanswered = this.#driver.bytesRead
  }

  /** Whether not a byte has come since then: who wants to end need not wait for another answer. */
  get isSilent(): boolean {
    return this.#readWhenUnanswered !== undefined && this.#readWhenUnanswered === this.#driver.bytesRead
  }

  /** Sends `connection.update-secret`. `told` is called once, while bytes are read from the socket: it must not throw. */
  updateSecret(secret: Redacted.Redacted<string>, reason: string, told: (outcome: SecretOutcome) => void): void {
    if (this.closedBy !== undefined) return told("lost")
    this.#secrets.push(told)
    this.#driver.updateSecret(bytesOf(Redacted.value(secret)), reason)
  }

  /** Ends the link at once, without a word to the broker. */
  destroy(reason: AmqpError.AmqpErrorReason): void {
    this.#end(reason)
    this.#driver.destroy(new Error(reason.message))
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
