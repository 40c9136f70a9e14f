/** The channels of a publisher: selects one for each message, and opens as many as are useful. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as AmqpError from "../../model/error.ts"
import type { Channel } from "../channel/channel.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import type { PendingPublish } from "./pendingPublish.ts"
import { PublisherChannel, type Timeouts } from "./publisherChannel.ts"
import * as Logging from "../telemetry/logging.ts"
import type { Fork } from "../waiting/fork.ts"

/** The events of a publisher's channels. */
export interface PublisherChannelsEvents {
  /** Something has changed that can end a wait. */
  readonly changed: () => void
  /** A channel has closed. */
  readonly lost: (publisherChannel: PublisherChannel<PendingPublish>) => void
  /**
   * A channel could not be opened. It is not opened again until a message needs it. `isOnlyChannel`: no other channel
   * is open or being opened.
   */
  readonly failed: (
    publisherChannel: PublisherChannel<PendingPublish>,
    reason: AmqpError.AmqpErrorReason,
    isOnlyChannel: boolean
  ) => void
}

// The pause before an additional channel that could not be opened is opened again, in milliseconds. Without it, every
// message would try.
const retryAfterMillis = 1000

export class PublisherChannels {
  readonly all: ReadonlyArray<PublisherChannel<PendingPublish>>
  readonly #internals: ConnectionInternals
  readonly #deadlines: Deadlines
  readonly #fork: Fork
  readonly #events: PublisherChannelsEvents
  #closed = false

  constructor(options: {
    readonly count: number
    readonly internals: ConnectionInternals
    readonly timeouts: Timeouts
    readonly deadlines: Deadlines
    readonly fork: Fork
    readonly events: PublisherChannelsEvents
  }) {
    this.all = Array.from(
      { length: options.count },
      () => new PublisherChannel<PendingPublish>(options.internals, options.timeouts, options.deadlines)
    )
    this.#internals = options.internals
    this.#deadlines = options.deadlines
    this.#fork = options.fork
    this.#events = options.events
  }

  /** The number of open channels. */
  get open(): number {
    return this.all.reduce(
      (n, publisherChannel) => n + publisherChannel.channels.filter((channel) => channel.isOpen).length,
      0
    )
  }

  /** The publisher channel that can take a message now: `only`, or the one with the fewest unconfirmed messages. */
  findReady(only: PublisherChannel<PendingPublish> | undefined): PublisherChannel<PendingPublish> | undefined {
    if (only !== undefined) return only.isReadyInOrder ? only : undefined
    let found: PublisherChannel<PendingPublish> | undefined
    for (const publisherChannel of this.all) {
      if (publisherChannel.isReady && (found === undefined || publisherChannel.load < found.load))
        found = publisherChannel
    }
    return found
  }

  /** A publisher channel for messages that must stay in order; preferably a ready one, then an open one. */
  choose(): PublisherChannel<PendingPublish> {
    const best = this.findReady(undefined)
    if (best?.isReadyInOrder === true) return best
    return (
      this.all.find((publisherChannel) => publisherChannel.isReadyInOrder) ??
      this.all.find((publisherChannel) => publisherChannel.isOpen) ??
      this.all[0]!
    )
  }

  /** Opens a channel unless a waiting message already has one to wait for. */
  ensure(only: PublisherChannel<PendingPublish> | undefined): void {
    if (only !== undefined) return this.reopen(only)
    if (!this.all.some((publisherChannel) => publisherChannel.isOpen || publisherChannel.opening))
      this.reopen(this.all[0]!)
  }

  /** Opens an additional channel for more throughput, if the connection and the channel budget allow it. */
  openAnother(): void {
    const link = this.#internals.currentLink()
    if (link === undefined || this.#internals.budget.isFull(link)) return
    for (const publisherChannel of this.all) {
      if (
        publisherChannel.channel !== undefined ||
        publisherChannel.opening ||
        publisherChannel.retryAt > this.#deadlines.now
      )
        continue
      return this.reopen(publisherChannel)
    }
  }

  /** Opens the channel of a publisher channel that has none. */
  reopen(publisherChannel: PublisherChannel<PendingPublish>): void {
    if (this.#closed || publisherChannel.channel !== undefined || publisherChannel.opening) return
    publisherChannel.opening = true
    const opening = publisherChannel.open({
      opened: this.#events.changed,
      changed: this.#events.changed,
      lost: (channel) => {
        this.#report(channel)
        this.#events.lost(publisherChannel)
      }
    })
    this.#fork(Effect.map(Effect.exit(opening), (exit) => this.#opened(publisherChannel, exit)))
  }

  #opened(publisherChannel: PublisherChannel<PendingPublish>, exit: Exit.Exit<void, AmqpError.AmqpError>): void {
    publisherChannel.opening = false
    if (Exit.isSuccess(exit)) {
      // The channel closed before `opening` was reset, so the reopening that followed its loss had no effect.
      if (publisherChannel.channel === undefined) this.#events.lost(publisherChannel)
      return
    }
    publisherChannel.retryAt = this.#deadlines.now + retryAfterMillis
    const error = Exit.findErrorOption(exit)
    if (error._tag === "None") return
    const isOnlyChannel = !this.all.some((other) => other.isOpen || other.opening)
    this.#events.failed(publisherChannel, error.value.reason, isOnlyChannel)
  }

  /** Logs why the broker closed a channel, unless a publish has already failed with that reason. */
  #report(channel: Channel): void {
    const reason = channel.closedBy
    if (this.#closed || channel.isReported || reason === undefined || reason.severity === "connection") return
    if (reason._tag === "ChannelClosed") return
    this.#fork(
      Effect.logWarning("AMQP publisher channel closed by the broker").pipe(
        Effect.annotateLogs({ reason: reason.message, ...Logging.channelAnnotations(channel) })
      )
    )
  }

  /** Prevents further openings. */
  stop(): void {
    this.#closed = true
  }
}
