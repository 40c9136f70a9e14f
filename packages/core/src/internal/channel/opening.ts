/** Opening a channel: once the application may have another one, in time, and so that none is lost. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Kind } from "../../model/channel.ts"
import * as AmqpError from "../../model/error.ts"
import { ChannelTicket } from "../connection/channelBudget.ts"
import { classify } from "../connection/classify.ts"
import type { Link } from "../connection/link.ts"
import { NoChannelLeft } from "../driver/driver.ts"
import { Channel } from "./channel.ts"

/**
 * Opens a channel on a link and hands it to `own`, in the same tick in which it arrives: an effect's result can be lost
 * to an interruption, a channel must not be.
 *
 * Given up, by interruption or after `timeout`, it is closed when `channel.open` has been answered. Until that close is
 * answered the broker may hold the channel: `left` gets it, to count it until it has `ended`.
 *
 * When the application may open no more channels, it waits until one of them has closed: see `channelBudget`.
 */
export const openChannel = (
  link: Link,
  kind: Kind,
  timeout: Duration.Duration,
  own: (channel: Channel) => void,
  options: OpenOptions = {}
): Effect.Effect<void, AmqpError.AmqpError> =>
  Effect.suspend(() => {
    const { budget } = link
    const ticket = new ChannelTicket(budget, link)
    const { left, patience = timeout, waiting } = options
    const opening = () => openAdmitted(link, kind, timeout, own, left, ticket)
    const admitted = budget.grants(ticket)
      ? opening()
      : Effect.suspend(() => {
          waiting?.(true)
          return Effect.flatMap(
            Effect.ensuring(
              budget.wait(ticket, patience),
              Effect.sync(() => waiting?.(false))
            ),
            opening
          )
        })
    return Effect.ensuring(
      admitted,
      Effect.sync(() => ticket.openingEnded())
    )
  })

/** How to open a channel. */
export interface OpenOptions {
  /** Gets a channel that was given up while it opened: the broker may hold it until it has `ended`. */
  readonly left?: ((channel: Channel) => void) | undefined
  /** How long to wait while no more channels may be opened. Default: as long as for the answer. */
  readonly patience?: Duration.Duration | undefined
  /** Called when that wait begins, and when it ends. */
  readonly waiting?: ((isWaiting: boolean) => void) | undefined
}

const openAdmitted = (
  link: Link,
  kind: Kind,
  timeout: Duration.Duration,
  own: (channel: Channel) => void,
  left: ((channel: Channel) => void) | undefined,
  ticket: ChannelTicket
): Effect.Effect<void, AmqpError.AmqpError> =>
  Effect.callback<void, AmqpError.AmqpError>((resume) => {
    let givenUp = false
    const leave = () => {
      channel.abandon()
      if (!channel.hasEnded) left?.(channel)
    }
    const failed = (cause: unknown) => {
      if (givenUp) return
      leave()
      const closedBy =
        channel.blame === "certain" ? link.endedByMethod("channel.open") : (channel.closedBy ?? lossOf(link))
      const reason = cause instanceof NoChannelLeft || closedBy === undefined ? openFailed(cause, link) : closedBy
      resume(Effect.fail(AmqpError.fromReason(reason)))
    }
    const ready = () => {
      if (givenUp) return
      own(channel)
      resume(Effect.void)
    }
    const channel = new Channel(link, kind, ticket, (failure) => {
      if (failure !== undefined) return failed(failure)
      if (givenUp) return undefined
      if (kind === "regular") return ready()
      return channel.driver.select(kind).then(ready, failed)
    })
    return Effect.sync(() => {
      givenUp = true
      leave()
    })
  }).pipe(
    Effect.timeoutOrElse({
      duration: timeout,
      orElse: () =>
        Effect.fail(
          AmqpError.fromReason(
            new AmqpError.ReplyTimeout({
              message:
                `channel.open: ${link.peer} did not answer within ${Duration.format(timeout)} (continuationTimeout)` +
                (link.blockedBy === undefined ? "" : `; the broker has blocked this connection: ${link.blockedBy}`),
              operation: "channel.open"
            })
          )
        )
    })
  )

const lossOf = (link: Link) => (link.closedBy === undefined ? undefined : link.loss)

const openFailed = (cause: unknown, link: Link): AmqpError.AmqpErrorReason => {
  const reason = classify(cause, { operation: "channel.open", peer: link.peer })
  if (reason._tag !== "ChannelMaxReached") return reason
  return new AmqpError.ChannelMaxReached({
    message: `channel.open: all ${link.channelMax} channels of this connection are in use: lower the pool's max, or raise channelMax`,
    operation: "channel.open",
    channelMax: link.channelMax
  })
}
