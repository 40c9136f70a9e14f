/**
 * A channel that carries requests and their replies, until it dies.
 *
 * Requests and replies must share one channel: the broker writes the channel's own address into `replyTo`. A reply is
 * matched by its correlation id, so replies may arrive in any order, and before the confirm of their request.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { Returned } from "../../model/channel.ts"
import type { DeliveredProperties, Properties } from "../../model/message.ts"
import { type Bounds, Load } from "../waiting/backlog.ts"
import { counted, isOrAre } from "../waiting/phrases.ts"
import type { Link } from "../connection/link.ts"
import type * as Channel from "../channel/channel.ts"
import { openChannel } from "../channel/openChannel.ts"
import { type ConsumerStart } from "../../model/channel.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import { publishReturned } from "../channel/confirms.ts"
import { ChannelHandle, type ChannelTimeouts } from "../channel/channelHandle.ts"
import { obstacle } from "../channel/publishing.ts"
import type { Call } from "./call.ts"
import { numberOf } from "./correlation.ts"
import { PendingCalls } from "./pendingCalls.ts"
import { directReplyTo } from "../wire/directReply.ts"

/** The owner of an RPC channel. Its functions must not throw: they are called while bytes are read from the socket. */
export interface RpcChannelOwner {
  /** Called for a reply that matches no waiting request. */
  readonly unclaimed: () => void
  /** Called when more or fewer requests may be sent than before. */
  readonly changed: () => void
  readonly closed: (rpcChannel: RpcChannel) => void
}

const released = new AmqpError.ChannelReleased({ message: "the channel of this client was closed" })

const start: ConsumerStart = {
  queue: directReplyTo,
  consumerTag: "replies",
  noAck: true,
  exclusive: false,
  arguments: {}
}

export class RpcChannel extends ChannelHandle implements Channel.ConsumerSink {
  readonly #channel: Channel.Channel
  readonly #owner: RpcChannelOwner
  readonly #waiting = new PendingCalls<Call>()
  readonly #stopWatching: () => void
  readonly #maxInFlight: number
  /** Requests whose content is in memory: until they are confirmed and their call has ended. */
  readonly #retained: Load

  constructor(channel: Channel.Channel, timeouts: ChannelTimeouts, owner: RpcChannelOwner, bounds: Bounds) {
    super(timeouts, released)
    this.#maxInFlight = bounds.maxCount
    this.#retained = new Load({ maxCount: Infinity, maxBytes: bounds.maxBytes })
    this.held = channel
    this.#channel = channel
    this.#owner = owner
    channel.onReturned = this.#returned
    this.#stopWatching = channel.watch(owner.changed)
  }

  /** Opens a channel and starts its consumer. If this is interrupted or fails, the channel is closed. */
  static open(
    link: Link,
    timeouts: ChannelTimeouts,
    owner: RpcChannelOwner,
    bounds: Bounds,
    opened: (rpcChannel: RpcChannel) => void
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      let rpcChannel: RpcChannel | undefined
      let isOwned = false
      return openChannel(link, "confirm", timeouts.continuationTimeout, (channel) => {
        rpcChannel = new RpcChannel(channel, timeouts, owner, bounds)
      }).pipe(
        Effect.andThen(Effect.suspend(() => rpcChannel!.#start)),
        Effect.andThen(
          Effect.sync(() => {
            isOwned = true
            opened(rpcChannel!)
          })
        ),
        Effect.onError(() =>
          Effect.sync(() => {
            if (!isOwned) rpcChannel?.abandon()
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

  /** Why nothing can be sent now; `undefined` if something can. */
  get forbiddenReason(): string | undefined {
    return this.#channel.forbiddenReason
  }

  get obstacle(): string | undefined {
    return obstacle(this.#channel)
  }

  /** The number of requests that wait for a reply. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** Whether a request of this size can be sent now, in addition to those in flight. */
  takes(size: number): boolean {
    return (
      this.isOpen &&
      this.obstacle === undefined &&
      this.#waiting.size < this.#maxInFlight &&
      // Unconfirmed requests include those of interrupted calls. Without this bound, a broker that confirms nothing
      // would be sent an unlimited number of requests.
      this.#channel.confirms!.size < this.#maxInFlight &&
      this.#retained.hasRoomFor(size)
    )
  }

  /** Why a request cannot be sent now, after `takes` has returned `false`. */
  get fullReason(): string {
    const { obstacle } = this
    if (obstacle !== undefined) return obstacle
    const waiting = this.#waiting.size
    if (waiting >= this.#maxInFlight)
      return `${counted(waiting, "request")} ${isOrAre(waiting)} in flight (maxInFlight)`
    const unconfirmed = this.#channel.confirms!.size
    if (unconfirmed >= this.#maxInFlight)
      return `${counted(unconfirmed, "request")} ${isOrAre(unconfirmed)} not confirmed yet (maxInFlight)`
    const { bytes, count, maxBytes } = this.#retained
    return `${counted(count, "request")} with ${counted(bytes, "byte")} ${isOrAre(count)} in flight (maxInFlightBytes ${maxBytes})`
  }

  /** The content of this call is no longer retained. */
  released(call: Call): void {
    this.#retained.remove(call.size)
  }

  /** Returns whether the call was sent or has failed. If not, this channel has ended. */
  send(call: Call): boolean {
    const channel = this.#channel
    if (call.expires) {
      call.outgoing.expiration = String(Math.max(1, Math.ceil(call.dueAt - this.timeouts.deadlines.now)))
    }
    try {
      channel.publish(call.outgoing)
    } catch (cause) {
      const reason = this.sendFailure("basic.publish", channel, cause)
      if (reason._tag === "InvalidArgument") {
        call.fail(reason)
        return true
      }
      // The channel is closing.
      this.abandon()
      this.#lost(reason)
      return false
    }
    call.channel = this
    this.#retained.add(call.size)
    this.#waiting.add(call)
    channel.confirms!.published(call)
    return true
  }

  /** The call has ended and no longer waits for a reply. */
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

  // Replies are not acknowledged, so the broker does not redeliver this one: only the call that waits for it fails.
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

  // The return arrives before the confirm. It is not matched by all its properties, as other returns are: the broker
  // has replaced `replyTo` by then.
  readonly #returned = (returned: Returned) => {
    this.#waitingFor(returned.properties)?.fail(publishReturned(returned))
  }

  /** The broker has cancelled the consumer: no further reply will arrive. */
  cancelled(): void {
    this.abandon()
    this.#lost(
      new AmqpError.ChannelClosed({ message: `the broker cancelled the consumer of replies (${directReplyTo})` })
    )
  }

  closed(reason: AmqpError.AmqpErrorReason): void {
    this.#lost(reason)
  }

  #lost(reason: AmqpError.AmqpErrorReason): void {
    this.#stopWatching()
    // First, because a caller whose call fails below may call again at once.
    this.#owner.closed(this)
    for (const call of Array.from(this.#waiting)) call.replyLost(reason)
  }

  abandon(): void {
    this.#stopWatching()
    this.#channel.abandon()
  }

  /** Fails every waiting call, and closes the channel. */
  close(reason: AmqpError.AmqpErrorReason, timeout: Duration.Duration): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#lost(reason)
      return this.#channel.close(timeout)
    })
  }
}
