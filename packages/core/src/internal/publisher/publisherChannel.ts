/** One of a publisher's channels: opened when it is needed, and again after it has closed. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { Link } from "../connection/link.ts"
import type * as Channel from "../channel/channel.ts"
import { openChannel } from "../channel/openChannel.ts"
import type { Deadlines, DeadlineEntry } from "../waiting/deadlines.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import { type QueueNode, WaitQueue } from "../waiting/waitQueue.ts"
import { obstacle } from "../channel/publishing.ts"

/** The events of a publisher channel. */
export interface PublisherChannelEvents {
  /** A channel is open. */
  readonly opened: (channel: Channel.Channel) => void
  /** Something has changed that can end a wait. */
  readonly changed: () => void
  /** The channel has closed. */
  readonly lost: (channel: Channel.Channel) => void
}

/** How long the broker may take to open and to close a channel. */
export interface Timeouts {
  readonly open: Duration.Duration
  readonly close: Duration.Duration
}

// A pause before the next opening, after the broker closed a channel on which nothing was sent. Without it, such a
// channel would be reopened endlessly at the speed of the network.
const pauseAfterUseless = "100 millis"

// How old a channel must be, in milliseconds, to be replaced because the broker refuses messages on it. The age doubles
// each time that the broker refuses a message on the successor too, up to the maximum. It starts again at the minimum
// when the refused channel is older than twice the maximum.
const minRefusedAgeMillis = 100
const maxRefusedAgeMillis = 30_000

const replaced = new AmqpError.ChannelClosed({
  message:
    "it was replaced, because the broker refused messages on it and did not answer for others before their deadlines"
})

/** @typeParam Entry the entries of its wait queue */
export class PublisherChannel<Entry extends QueueNode<Entry>> {
  channel: Channel.Channel | undefined = undefined
  /** The channel before this one, while messages on it are neither answered nor past their deadlines. */
  retiring: Channel.Channel | undefined = undefined
  /** Whether a channel is being opened. */
  opening = false
  /**
   * When a channel that could not be opened may be opened again for more throughput, in milliseconds of the monotonic
   * clock.
   */
  retryAt = 0
  /** The number of messages written to the current channel, or to the last one. */
  sent = 0
  /** Messages of sequences wait here, so that they stay in order. */
  readonly waitQueue = new WaitQueue<Entry>()

  readonly #internals: ConnectionInternals
  readonly #deadlines: Deadlines
  readonly #timeouts: Timeouts
  #closedUnused = false
  #openedAt = 0
  #refusedAfter = minRefusedAgeMillis

  constructor(internals: ConnectionInternals, timeouts: Timeouts, deadlines: Deadlines) {
    this.#internals = internals
    this.#deadlines = deadlines
    this.#timeouts = timeouts
  }

  get isOpen(): boolean {
    return this.channel?.isOpen === true
  }

  /** Whether a message can be written now. */
  get isReady(): boolean {
    const channel = this.channel
    return (
      channel !== undefined && this.isOpen && channel.discardReason === undefined && obstacle(channel) === undefined
    )
  }

  /** Whether a message of a sequence can be written now. It must not overtake messages on the retiring channel. */
  get isReadyInOrder(): boolean {
    return this.retiring === undefined && this.isReady
  }

  /** The current and the retiring channel, unless they are closed. */
  get channels(): ReadonlyArray<Channel.Channel> {
    return [this.channel, this.retiring].filter(
      (channel): channel is Channel.Channel => channel !== undefined && channel.closedBy === undefined
    )
  }

  /** The number of unconfirmed messages on the current channel. */
  get load(): number {
    return this.channel?.confirms?.size ?? 0
  }

  /**
   * Opens a channel. It waits for a connection unless the connection is closed for good. It also waits while the broker
   * blocks the connection, since a blocked connection gets no answers. An interruption leaves no channel behind.
   */
  open(events: PublisherChannelEvents): Effect.Effect<void, AmqpError.AmqpError> {
    const own = (channel: Channel.Channel) => {
      this.#closedUnused = true
      this.channel = channel
      this.sent = 0
      this.#openedAt = this.#deadlines.now
      const stop = channel.watch(events.changed)
      const lost = () => {
        stop()
        this.channel = undefined
        this.#closedUnused = this.sent === 0
        events.lost(channel)
      }
      // The channel was opened and closed in one read from the socket, so `onClosed` would not be called any more.
      if (channel.closedBy !== undefined) return lost()
      channel.onClosed = lost
      channel.confirms!.onNacked = () => this.#onNacked(channel, lost, events.changed)
      return events.opened(channel)
    }
    const open: Effect.Effect<void, AmqpError.AmqpError> = Effect.flatMap(this.#internals.nextLink, (link) =>
      Effect.andThen(
        Effect.andThen(unblocked(link), this.#internals.preparations.wait(this.#timeouts.open)),
        Effect.catchIf(
          openChannel(link, "confirm", this.#timeouts.open, own, { budgetTimeout: Duration.infinity }),
          () => link.closedBy !== undefined || link.blockedBy !== undefined,
          () => open
        )
      )
    )
    return this.#closedUnused ? Effect.andThen(Effect.sleep(pauseAfterUseless), open) : open
  }

  /**
   * Replaces a channel on which the broker has refused a message.
   *
   * Usually a queue is full, and another channel does not help. But RabbitMQ before 3.12 stores per channel which node
   * it takes for the leader of a quorum queue. A channel that was opened between the loss of that node and the election
   * of the next leader refuses all messages until the node is back, and takes seconds for each one if the node is
   * silent. Only another channel helps.
   *
   * The new channel is opened when all messages on this one are answered, or after `closeTimeout`. In the second case
   * this channel is kept next to its successor until every message on it is answered or past its deadline, because a
   * slow queue must not make an outcome unknown.
   */
  #onNacked(channel: Channel.Channel, lost: () => void, changed: () => void): void {
    if (channel.discardReason !== undefined || channel !== this.channel || this.retiring !== undefined) return
    const { now } = this.#deadlines
    const age = now - this.#openedAt
    if (age < this.#refusedAfter) return
    this.#refusedAfter =
      age < maxRefusedAgeMillis * 2 ? Math.min(this.#refusedAfter * 2, maxRefusedAgeMillis) : minRefusedAgeMillis
    channel.discardReason = "refused"
    const confirms = channel.confirms!
    const leave = () => {
      channel.onClosed = undefined
      channel.abandon()
      confirms.closed(replaced, false)
    }
    const replace = () => {
      cancel()
      if (channel !== this.channel) return
      if (confirms.size === 0) leave()
      else this.#retire(channel, leave, changed)
      lost()
    }
    const cancel = this.#after(now + Duration.toMillis(this.#timeouts.close), replace)
    confirms.onEmpty = replace
  }

  /** Keeps a channel until its messages are confirmed or past their deadlines. */
  #retire(channel: Channel.Channel, leave: () => void, changed: () => void): void {
    const confirms = channel.confirms!
    const ended = () => {
      cancel()
      this.retiring = undefined
      changed()
    }
    const end = () => {
      leave()
      ended()
    }
    this.retiring = channel
    channel.onClosed = ended
    confirms.onEmpty = end
    // One millisecond after the last deadline, so that the message of that deadline ends with a timeout.
    const cancel = this.#after(confirms.lastDueAt + 1, end)
  }

  #after(dueAt: number, expire: () => void): () => void {
    const due: DeadlineEntry = { sooner: undefined, later: undefined, dueAt, expire }
    this.#deadlines.add(due)
    return () => void this.#deadlines.delete(due)
  }
}

/** Waits until the broker no longer blocks this link, or the link has ended. */
const unblocked = (link: Link): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (link.blockedBy === undefined) return resume(Effect.void)
    const check = () => {
      if (link.blockedBy !== undefined) return
      link.watchers.delete(check)
      resume(Effect.void)
    }
    link.watchers.add(check)
    return Effect.sync(() => link.watchers.delete(check))
  })
