/**
 * The operations that every holder of a channel needs: sending a method and waiting for its reply, waiting until the
 * channel takes more, and turning failures into accurate errors.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import { SentMethod } from "../connection/attribution.ts"
import type { Channel } from "./channel.ts"
import { classify } from "../connection/classify.ts"
import { onClock } from "../waiting/onClock.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import { ChannelEnded, type DriverChannel } from "../driver/driver.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import { fail } from "../../model/failures.ts"
import { withoutPeriod } from "../waiting/phrases.ts"

/** Timeouts that apply while a channel is held, and the services that its operations use. */
export interface ChannelTimeouts {
  /** How long the broker may take to answer a method. */
  readonly continuationTimeout: Duration.Duration
  /** How long a publish may take, in milliseconds, unless its options say otherwise. */
  readonly publishTimeout: number
  readonly deadlines: Deadlines
  /** Records what this application declares. */
  readonly queues: KnownQueues
}

export class ChannelHandle {
  protected readonly timeouts: ChannelTimeouts
  protected held: Channel | undefined = undefined
  /** Why this handle has no channel, when `held` is undefined. */
  protected endedBy: AmqpError.AmqpErrorReason

  constructor(timeouts: ChannelTimeouts, endedBy: AmqpError.AmqpErrorReason) {
    this.timeouts = timeouts
    this.endedBy = endedBy
  }

  /** The channel, while this handle holds one. */
  get channel(): Channel | undefined {
    return this.held
  }

  /** The open channel, or the reason why it cannot be used. */
  protected usableChannel(): Channel | AmqpError.AmqpErrorReason {
    const channel = this.held
    if (channel === undefined) return this.endedBy
    if (channel.isOpen) return channel
    channel.isReported = true
    return asChannelClosed(channel.closedBy ?? channel.link.loss)
  }

  /**
   * Sends a method and waits for its reply, at most for `continuationTimeout`. `send` runs in the tick in which the
   * method is written. If `send` throws an `InvalidArgument` before it sends, the effect fails with it. `names` are the
   * names that the broker quotes when it refuses the method.
   */
  protected request<A>(
    operation: string,
    send: (driver: DriverChannel, channel: Channel) => Promise<A>,
    names: ReadonlyArray<string> = []
  ): Effect.Effect<A, AmqpError.AmqpError> {
    const timeout = this.timeouts.continuationTimeout
    const request = Effect.timeoutOrElse(
      Effect.callback<A, AmqpError.AmqpError>((resume) => {
        const channel = this.usableChannel()
        if ("_tag" in channel) return resume(fail(channel))
        let waiting = true
        let reply: Promise<A>
        try {
          reply = send(channel.driver, channel)
        } catch (cause) {
          return resume(fail(this.sendFailure(operation, channel, cause)))
        }
        const sent = new SentMethod(operation, names)
        const answered = channel.trackRequest(sent)
        const answer = (outcome: Effect.Effect<A, AmqpError.AmqpError>) => {
          if (!waiting) return
          waiting = false
          resume(outcome)
        }
        reply.then(
          (value) => {
            answered()
            answer(Effect.succeed(value))
          },
          (cause) => {
            answered()
            if (waiting) answer(fail(this.replyFailure(operation, channel, cause, sent)))
          }
        )
        // The next borrower would get the outstanding reply as its own, so the channel must not be leased again.
        return Effect.sync(() => {
          if (waiting) channel.discardReason ??= "interrupted"
          waiting = false
        })
      }),
      {
        duration: timeout,
        orElse: () =>
          fail(
            new AmqpError.ReplyTimeout({
              message: `${operation}: the broker did not answer within ${Duration.format(timeout)} (continuationTimeout)`,
              operation
            })
          )
      }
    )
    return onClock(this.timeouts.deadlines.clock, request)
  }

  // A method throws before anything is sent if an argument cannot be encoded or the channel is closing.
  protected sendFailure(operation: string, channel: Channel, cause: unknown): AmqpError.AmqpErrorReason {
    const usableChannel = this.usableChannel()
    if ("_tag" in usableChannel) return usableChannel
    if (cause instanceof AmqpError.InvalidArgument) return cause
    if (cause instanceof TypeError || cause instanceof RangeError) {
      return new AmqpError.InvalidArgument({
        message: `${operation}: an argument cannot be encoded: ${withoutPeriod(cause.message)}. Nothing was sent.`,
        operation,
        argument: operation,
        cause
      })
    }
    channel.discardReason ??= "defect"
    return classify(cause, { operation, peer: channel.link.peer })
  }

  protected replyFailure(
    operation: string,
    channel: Channel,
    cause: unknown,
    sent: SentMethod
  ): AmqpError.AmqpErrorReason {
    if (this.held !== channel) return this.endedBy
    // This method failed, and not the channel.
    if (AmqpError.isAmqpError(cause)) return cause.reason
    channel.isReported = true
    const own = ownFailure(channel, sent)
    if (own !== undefined) return own
    // The reason why the channel ended is more specific.
    if (cause instanceof ChannelEnded && channel.closedBy !== undefined) {
      return channel.tooLarge ?? asChannelClosed(channel.closedBy)
    }
    const reason = classify(cause, { operation, peer: channel.link.peer })
    if (reason._tag === "MessageTooLarge" && channel.tooLarge !== undefined) return channel.tooLarge
    // The answer was not the expected reply, so later replies cannot be assigned to their methods reliably.
    if (reason._tag === "ProtocolError" || reason._tag === "UnknownError") channel.discardReason ??= "defect"
    return reason
  }

  /** Waits until `done` returns true. Fails when the channel becomes unusable, or after `timeout` milliseconds. */
  protected waitUntil(
    done: (channel: Channel) => boolean,
    timeout: number,
    timedOut: () => AmqpError.AmqpErrorReason
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const waited = Effect.timeoutOrElse(
      Effect.callback<void, AmqpError.AmqpError>((resume) => {
        const check = (): boolean => {
          const channel = this.usableChannel()
          if ("_tag" in channel) resume(fail(channel))
          else if (done(channel)) resume(Effect.void)
          else return false
          return true
        }
        const channel = this.held
        if (check() || channel === undefined) return undefined
        const stop = channel.watch(() => {
          if (check()) stop()
        })
        return Effect.sync(stop)
      }),
      { duration: Duration.millis(Math.max(0, timeout)), orElse: () => fail(timedOut()) }
    )
    return onClock(this.timeouts.deadlines.clock, waited)
  }
}

/** Why the connection was closed, if this method was the cause. */
const ownFailure = ({ link }: Channel, { attribution, operation }: SentMethod): AmqpError.AmqpErrorReason | undefined =>
  attribution === "certain" ? link.endReasonFor(operation) : undefined

/** Turns the reason why a channel ended into the failure of a later operation. */
export const asChannelClosed = (reason: AmqpError.AmqpErrorReason): AmqpError.AmqpErrorReason =>
  reason.severity === "connection"
    ? reason
    : new AmqpError.ChannelClosed({
        message: `the channel is already closed: ${reason.message}`,
        cause: reason,
        replyCode: "replyCode" in reason ? reason.replyCode : undefined
      })
