/** Opens channels within the channel budget and a timeout, and without leaking one. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Kind } from "../../model/channel.ts"
import * as AmqpError from "../../model/error.ts"
import { allChannelsInUse, ChannelPermit } from "../connection/channelBudget.ts"
import { classify } from "../connection/classify.ts"
import type { Link } from "../connection/link.ts"
import { ChannelNumbersExhausted } from "../driver/driver.ts"
import { Channel } from "./channel.ts"

/**
 * Opens a channel on a link and passes it to `onOpened` in the tick in which it opens. An interruption can drop an
 * effect's result, so returning the channel could leak it.
 *
 * If the opening is given up, by interruption or after `timeout`, the channel is closed once `channel.open` is
 * answered. The broker may hold the channel until that close is answered: `onAbandoned` gets it, to count it until
 * `ended` completes.
 *
 * If the application may not open another channel, this waits until one of its channels has closed: see
 * `channelBudget`.
 */
export const openChannel = (
  link: Link,
  kind: Kind,
  timeout: Duration.Duration,
  onOpened: (channel: Channel) => void,
  options: OpenOptions = {}
): Effect.Effect<void, AmqpError.AmqpError> =>
  Effect.suspend(() => {
    const { budget } = link
    const permit = new ChannelPermit(budget, link)
    const { budgetTimeout = timeout, onAbandoned, onBudgetWait } = options
    const opening = () => openAdmitted(link, kind, timeout, onOpened, onAbandoned, permit)
    const admitted = budget.tryAcquire(permit)
      ? opening()
      : Effect.suspend(() => {
          onBudgetWait?.(true)
          return Effect.flatMap(
            Effect.ensuring(
              budget.acquire(permit, budgetTimeout),
              Effect.sync(() => onBudgetWait?.(false))
            ),
            opening
          )
        })
    return Effect.ensuring(
      admitted,
      Effect.sync(() => permit.openingEnded())
    )
  })

/** Options for opening a channel. */
export interface OpenOptions {
  /** Gets a channel that was given up while it opened. The broker may hold it until `ended` completes. */
  readonly onAbandoned?: ((channel: Channel) => void) | undefined
  /** How long to wait for a channel permit. Default: `timeout`, which also bounds the answer to `channel.open`. */
  readonly budgetTimeout?: Duration.Duration | undefined
  /** Called when the wait for a channel permit begins (`true`) and ends (`false`). */
  readonly onBudgetWait?: ((isWaiting: boolean) => void) | undefined
}

const openAdmitted = (
  link: Link,
  kind: Kind,
  timeout: Duration.Duration,
  onOpened: (channel: Channel) => void,
  onAbandoned: ((channel: Channel) => void) | undefined,
  permit: ChannelPermit
): Effect.Effect<void, AmqpError.AmqpError> =>
  Effect.callback<void, AmqpError.AmqpError>((resume) => {
    let givenUp = false
    const abandon = () => {
      channel.abandon()
      if (!channel.hasEnded) onAbandoned?.(channel)
    }
    const failed = (cause: unknown) => {
      if (givenUp) return
      abandon()
      const closedBy =
        channel.attribution === "certain" ? link.endReasonFor("channel.open") : (channel.closedBy ?? lossOf(link))
      const reason =
        cause instanceof ChannelNumbersExhausted || closedBy === undefined ? openFailed(cause, link) : closedBy
      resume(Effect.fail(AmqpError.fromReason(reason)))
    }
    const ready = () => {
      if (givenUp) return
      onOpened(channel)
      resume(Effect.void)
    }
    const channel = new Channel(link, kind, permit, (failure) => {
      if (failure !== undefined) return failed(failure)
      if (givenUp) return undefined
      if (kind === "regular") return ready()
      return channel.driver.select(kind).then(ready, failed)
    })
    return Effect.sync(() => {
      givenUp = true
      abandon()
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
                (link.blockedBy === undefined ? "" : `. The broker has blocked this connection: ${link.blockedBy}`),
              operation: "channel.open"
            })
          )
        )
    })
  )

const lossOf = (link: Link) => (link.closedBy === undefined ? undefined : link.loss)

const openFailed = (cause: unknown, link: Link): AmqpError.AmqpErrorReason => {
  const reason = classify(cause, { operation: "channel.open", peer: link.peer })
  return reason._tag === "ChannelMaxReached" ? allChannelsInUse(link.channelMax) : reason
}
