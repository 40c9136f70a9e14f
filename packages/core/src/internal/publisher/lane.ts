/** One of a publisher's channels: opened at first need, and again after it has died. */
import type { Duration } from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as AmqpError from "../../AmqpError.ts"
import type * as Amqplib from "../amqplib.ts"
import * as Channel from "../channel.ts"
import type { Links } from "../links.ts"
import { Line } from "./line.ts"
import { obstacle } from "../publishing.ts"

/** What a lane tells its publisher. */
export interface LaneEvents {
  /** A channel is there. */
  readonly opened: (channel: Channel.Channel) => void
  /** What decides about waiting has changed. */
  readonly changed: () => void
  /** Its channel has died. */
  readonly lost: (channel: Channel.Channel) => void
}

// A channel that the broker closes before anything was sent on it would be opened again and again, at the speed of the
// network.
const pauseAfterUseless = "100 millis"

export class Lane {
  channel: Channel.Channel | undefined = undefined
  /** Whether opening one is under way. */
  opening = false
  /** When, in milliseconds of the clock, a lane that could not be opened may be tried again for the sake of speed. */
  retryAt = 0
  /** Messages written to the present channel, or the last one. */
  sent = 0
  /** Sequences of messages that must stay in order wait here. */
  readonly line = new Line()

  readonly #links: Links
  readonly #timeout: Duration
  #useless = false

  constructor(links: Links, timeout: Duration) {
    this.#links = links
    this.#timeout = timeout
  }

  /** Not if its connection is ending: amqplib tells one channel after the other, and takes messages for the rest. */
  get isOpen(): boolean {
    return this.channel !== undefined && this.channel.isOpen && !this.channel.link.isEnding
  }

  /** Whether a message would be written now. */
  get isReady(): boolean {
    const channel = this.channel
    return channel !== undefined && this.isOpen && channel.unfit === undefined && obstacle(channel) === undefined
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
      return events.opened(channel)
    }
    const open: Effect.Effect<void, AmqpError.AmqpError> = Effect.flatMap(this.#links.next, (link) =>
      Effect.andThen(
        Effect.andThen(unblocked(link), this.#links.preparations.wait(this.#timeout)),
        Effect.catchIf(
          Channel.open(link, "confirm", this.#timeout, own),
          () => link.closedBy !== undefined || link.blockedBy !== undefined,
          () => open
        )
      )
    )
    return this.#useless ? Effect.andThen(Effect.sleep(pauseAfterUseless), open) : open
  }
}

/** Until the broker answers on this link again, or never will. */
const unblocked = (link: Amqplib.Link): Effect.Effect<void> =>
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
