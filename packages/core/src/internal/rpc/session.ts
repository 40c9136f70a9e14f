/**
 * The channel that requests go out on and replies come in on, until it dies.
 *
 * Both must be one channel: the broker writes the channel's own address into `replyTo`. A reply is found by its
 * correlation id, so replies may come in any order, and before the confirm of their request.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { Returned } from "../../model/channel.ts"
import type { DeliveredProperties, Properties } from "../../model/message.ts"
import { type Bounds, Load } from "../waiting/backlog.ts"
import type { Link } from "../connection/link.ts"
import type * as Channel from "../channel/channel.ts"
import { openChannel } from "../channel/opening.ts"
import { type ConsumerStart } from "../../model/channel.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import { returnedBecause } from "../channel/confirms.ts"
import { Handle, type Terms } from "../channel/handle.ts"
import { obstacle } from "../channel/publishing.ts"
import type { Call } from "./call.ts"
import { numberOf } from "./correlation.ts"
import { Pending } from "./pending.ts"
import { directReplyTo } from "../wire/directReply.ts"

/** Who holds the session. None of these may throw: they are called while bytes are read from the socket. */
export interface SessionOwner {
  /** A reply that nobody waits for. */
  readonly unclaimed: () => void
  /** More may be sent now, or less. */
  readonly changed: () => void
  readonly closed: (session: Session) => void
}

const released = new AmqpError.ChannelReleased({ message: "the channel of this client was closed" })

const start: ConsumerStart = {
  queue: directReplyTo,
  consumerTag: "replies",
  noAck: true,
  exclusive: false,
  arguments: {}
}

export class Session extends Handle implements Channel.ConsumerSink {
  readonly #channel: Channel.Channel
  readonly #owner: SessionOwner
  readonly #waiting = new Pending<Call>()
  readonly #stopWatching: () => void
  readonly #maxInFlight: number
  /** Requests whose content is kept: until they are confirmed, and answered or given up. */
  readonly #kept: Load

  constructor(channel: Channel.Channel, terms: Terms, owner: SessionOwner, bounds: Bounds) {
    super(terms, released)
    this.#maxInFlight = bounds.maxCount
    this.#kept = new Load({ maxCount: Infinity, maxBytes: bounds.maxBytes })
    this.held = channel
    this.#channel = channel
    this.#owner = owner
    channel.onReturned = this.#returned
    this.#stopWatching = channel.watch(owner.changed)
  }

  /** Opens one and starts its consumer. Given up or failed, its channel is closed. */
  static open(
    link: Link,
    terms: Terms,
    owner: SessionOwner,
    bounds: Bounds,
    opened: (session: Session) => void
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      let session: Session | undefined
      let isOwned = false
      return openChannel(link, "confirm", terms.continuationTimeout, (channel) => {
        session = new Session(channel, terms, owner, bounds)
      }).pipe(
        Effect.andThen(Effect.suspend(() => session!.#start)),
        Effect.andThen(
          Effect.sync(() => {
            isOwned = true
            opened(session!)
          })
        ),
        Effect.onError(() =>
          Effect.sync(() => {
            if (!isOwned) session?.abandon()
          })
        )
      )
    })
  }

  get #start(): Effect.Effect<string, AmqpError.AmqpError> {
    return this.request("basic.consume", (_driver, channel) => channel.consume(start, this))
  }

  get link(): Link {
    return this.#channel.link
  }

  get isOpen(): boolean {
    return this.#channel.isOpen
  }

  /** Why nothing can be sent now, if so. */
  get forbids(): string | undefined {
    return this.#channel.forbids
  }

  get obstacle(): string | undefined {
    return obstacle(this.#channel)
  }

  /** Requests that wait for a reply. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** Whether a request of this size can be sent now, beside those that were. */
  takes(size: number): boolean {
    return (
      this.isOpen &&
      this.obstacle === undefined &&
      this.#waiting.size < this.#maxInFlight &&
      // Those that were given up are among them: else a broker that confirms nothing would be sent more and more.
      this.#channel.confirms!.size < this.#maxInFlight &&
      this.#kept.takes(size)
    )
  }

  /** Why a request cannot be sent now, if `takes` says so. */
  get full(): string {
    const { obstacle } = this
    if (obstacle !== undefined) return obstacle
    const waiting = this.#waiting.size
    if (waiting >= this.#maxInFlight) return `${waiting} requests are in flight (maxInFlight)`
    const unconfirmed = this.#channel.confirms!.size
    if (unconfirmed >= this.#maxInFlight) return `${unconfirmed} requests wait for their confirms (maxInFlight)`
    const { bytes, count, maxBytes } = this.#kept
    return `${count} requests with ${bytes} bytes are in flight (maxInFlightBytes ${maxBytes})`
  }

  /** The content of this call is kept no more. */
  released(call: Call): void {
    this.#kept.remove(call.size)
  }

  /** Whether the call was dealt with: sent, or told that it cannot be. If not, this session has ended. */
  send(call: Call): boolean {
    const channel = this.#channel
    if (call.expires) {
      call.outgoing.expiration = String(Math.max(1, Math.ceil(call.dueAt - this.terms.deadlines.now)))
    }
    try {
      channel.publish(call.outgoing)
    } catch (cause) {
      const reason = this.refused("basic.publish", channel, cause)
      if (reason._tag === "InvalidArgument") {
        call.fail(reason)
        return true
      }
      // The channel is closing.
      this.abandon()
      this.#lost(reason)
      return false
    }
    call.session = this
    this.#kept.add(call.size)
    this.#waiting.add(call)
    channel.confirms!.published(call)
    return true
  }

  /** Nobody waits for this call's reply any more. */
  forget(call: Call): void {
    this.#waiting.delete(call)
  }

  #waitingFor({ correlationId }: Properties): Call | undefined {
    return correlationId === undefined ? undefined : this.#waiting.find(correlationId, numberOf(correlationId))
  }

  deliver(message: DeliveredMessage): void {
    const { properties } = message
    const call = this.#waitingFor(properties)
    if (call === undefined) return this.#owner.unclaimed()
    return call.succeed({ content: message.content, properties })
  }

  // Replies are not acknowledged, so none comes again: the call that waits for this one fails, and no other.
  oversized(properties: DeliveredProperties, reason: AmqpError.MessageTooLarge): boolean {
    const call = this.#waitingFor(properties)
    if (call === undefined) this.#owner.unclaimed()
    else call.replyUnread(reason)
    return true
  }

  undecodable(properties: DeliveredProperties, reason: AmqpError.DecodeFailed): void {
    const call = this.#waitingFor(properties)
    if (call === undefined) this.#owner.unclaimed()
    else call.replyUnread(reason)
  }

  // The return comes before the confirm. It is not matched by its properties, as others are: the broker has replaced
  // `replyTo` by then.
  readonly #returned = (returned: Returned) => {
    this.#waitingFor(returned.properties)?.fail(returnedBecause(returned))
  }

  /** The broker has ended the consumer: no reply will come any more. */
  cancelled(): void {
    this.abandon()
    this.#lost(new AmqpError.ChannelClosed({ message: `the broker ended the consumer of replies (${directReplyTo})` }))
  }

  closed(reason: AmqpError.AmqpErrorReason): void {
    this.#lost(reason)
  }

  #lost(reason: AmqpError.AmqpErrorReason): void {
    this.#stopWatching()
    // First of all: who is told below may begin anew at once.
    this.#owner.closed(this)
    for (const call of Array.from(this.#waiting)) call.replyLost(reason)
  }

  abandon(): void {
    this.#stopWatching()
    this.#channel.abandon()
  }

  /** Tells everybody that no reply will come, and closes the channel. */
  close(reason: AmqpError.AmqpErrorReason, timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#lost(reason)
      return this.#channel.close(timeout)
    })
  }
}
