/** One of a publisher's channels: opened at first need, and again after it has died. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { Link } from "../connection/link.ts"
import type * as Channel from "../channel/channel.ts"
import { openChannel } from "../channel/opening.ts"
import type { Deadlines, Due } from "../waiting/deadlines.ts"
import type { Links } from "../connection/links.ts"
import { type InLine, Line } from "../waiting/line.ts"
import { obstacle } from "../channel/publishing.ts"

/** What a lane tells its publisher. */
export interface LaneEvents {
  /** A channel is there. */
  readonly opened: (channel: Channel.Channel) => void
  /** What decides about waiting has changed. */
  readonly changed: () => void
  /** Its channel has died. */
  readonly lost: (channel: Channel.Channel) => void
}

/** How long the broker may take. */
export interface Timeouts {
  readonly open: Duration.Duration
  readonly close: Duration.Duration
}

// A channel that the broker closes before anything was sent on it would be opened again and again, at the speed of the
// network.
const pauseAfterUseless = "100 millis"

// How old a channel must be, in milliseconds, to be replaced because the broker refuses messages on it: doubled each time
// that its successor is refused too, up to the most. A channel that has taken messages for that long without a refusal
// was well.
const refusedFirst = 100
const refusedMost = 30_000

const replaced = new AmqpError.ChannelClosed({
  message: "it was replaced, because the broker refused messages on it, and it had no answer for others in their time"
})

/** @typeParam Entry what waits in its line */
export class Lane<Entry extends InLine<Entry>> {
  channel: Channel.Channel | undefined = undefined
  /** The channel before this one, while messages on it have neither an answer nor reached their deadline. */
  retiring: Channel.Channel | undefined = undefined
  /** Whether opening one is under way. */
  opening = false
  /** When, in milliseconds of the clock, a lane that could not be opened may be tried again for the sake of speed. */
  retryAt = 0
  /** Messages written to the present channel, or the last one. */
  sent = 0
  /** Sequences of messages that must stay in order wait here. */
  readonly line = new Line<Entry>()

  readonly #links: Links
  readonly #deadlines: Deadlines
  readonly #timeouts: Timeouts
  #useless = false
  #openedAt = 0
  #refusedAfter = refusedFirst

  constructor(links: Links, timeouts: Timeouts, deadlines: Deadlines) {
    this.#links = links
    this.#deadlines = deadlines
    this.#timeouts = timeouts
  }

  get isOpen(): boolean {
    return this.channel?.isOpen === true
  }

  /** Whether a message would be written now. */
  get isReady(): boolean {
    const channel = this.channel
    return channel !== undefined && this.isOpen && channel.unfit === undefined && obstacle(channel) === undefined
  }

  /** Whether a message of a sequence would be written now: none overtakes those on the channel before. */
  get isReadyInOrder(): boolean {
    return this.retiring === undefined && this.isReady
  }

  /** All channels that are not closed. */
  get channels(): ReadonlyArray<Channel.Channel> {
    return [this.channel, this.retiring].filter(
      (channel): channel is Channel.Channel => channel !== undefined && channel.closedBy === undefined
    )
  }

  /** Messages on their way, of all that nobody has confirmed. */
  get load(): number {
    return this.channel?.confirms?.size ?? 0
  }

  /**
   * Opens a channel: waits for a connection as long as there will be one, and for one that the broker has blocked, since
   * it answers nothing then. Interrupted, it leaves no channel behind.
   */
  open(events: LaneEvents): Effect.Effect<void, AmqpError.AmqpError> {
    const own = (channel: Channel.Channel) => {
      this.#useless = true
      this.channel = channel
      this.sent = 0
      this.#openedAt = this.#deadlines.now
      const stop = channel.watch(events.changed)
      const lost = () => {
        stop()
        this.channel = undefined
        this.#useless = this.sent === 0
        events.lost(channel)
      }
      // Opened and closed in one read from the socket: the close is over.
      if (channel.closedBy !== undefined) return lost()
      channel.onClosed = lost
      channel.confirms!.onRefused = () => this.#refused(channel, lost, events.changed)
      return events.opened(channel)
    }
    const open: Effect.Effect<void, AmqpError.AmqpError> = Effect.flatMap(this.#links.next, (link) =>
      Effect.andThen(
        Effect.andThen(unblocked(link), this.#links.preparations.wait(this.#timeouts.open)),
        Effect.catchIf(
          openChannel(link, "confirm", this.#timeouts.open, own, { patience: Duration.infinity }),
          () => link.closedBy !== undefined || link.blockedBy !== undefined,
          () => open
        )
      )
    )
    return this.#useless ? Effect.andThen(Effect.sleep(pauseAfterUseless), open) : open
  }

  /**
   * The broker has refused a message. Mostly a queue is full, and another channel would fare no better. But RabbitMQ
   * before 3.12 keeps, for each channel, where it thinks the leader of a quorum queue is: a channel that was opened
   * between the loss of that node and the election of the next leader refuses all messages until the node is back, and
   * takes seconds for each if the node is silent. Only another channel helps. It is opened when the messages on this one
   * have their answers, or have had none for `closeTimeout`. In that case this channel is kept beside its successor until
   * each of them has an answer or has reached its deadline: a slow queue must not make an outcome unknown.
   */
  #refused(channel: Channel.Channel, lost: () => void, changed: () => void): void {
    if (channel.unfit !== undefined || channel !== this.channel || this.retiring !== undefined) return
    const { now } = this.#deadlines
    const age = now - this.#openedAt
    if (age < this.#refusedAfter) return
    this.#refusedAfter = age < refusedMost * 2 ? Math.min(this.#refusedAfter * 2, refusedMost) : refusedFirst
    channel.unfit = "refused"
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

  /** Keeps a channel until its confirms are in or due. */
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
    // Behind the last deadline itself, whose outcome is a timeout.
    const cancel = this.#after(confirms.lastDueAt + 1, end)
  }

  #after(dueAt: number, expire: () => void): () => void {
    const due: Due = { sooner: undefined, later: undefined, dueAt, expire }
    this.#deadlines.add(due)
    return () => void this.#deadlines.delete(due)
  }
}

/** Until the broker answers on this link again, or never will. */
const unblocked = (link: Link): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (link.blockedBy === undefined) return resume(Effect.void)
    const look = () => {
      if (link.blockedBy !== undefined) return
      link.watchers.delete(look)
      resume(Effect.void)
    }
    link.watchers.add(look)
    return Effect.sync(() => link.watchers.delete(look))
  })
