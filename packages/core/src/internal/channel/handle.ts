/**
 * What every holder of a channel does with it: a method and its reply, a wait for the channel to take more, a failure
 * told in the right words.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import { Sent } from "../connection/blame.ts"
import type { Channel } from "./channel.ts"
import { classify } from "../connection/classify.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import { ChannelEnded, type DriverChannel } from "../driver/driver.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import { fail } from "../../model/failures.ts"

/** On which terms a channel is held. */
export interface Terms {
  readonly continuationTimeout: Duration.Duration
  /** In milliseconds. */
  readonly publishTimeout: number
  readonly deadlines: Deadlines
  /** Where declarations are noted. */
  readonly queues: KnownQueues
}

export class Handle {
  protected readonly terms: Terms
  protected held: Channel | undefined = undefined
  /** Why there is no channel, when there is none. */
  protected endedBy: AmqpError.AmqpErrorReason

  constructor(terms: Terms, endedBy: AmqpError.AmqpErrorReason) {
    this.terms = terms
    this.endedBy = endedBy
  }

  /** The channel, while this handle holds one. */
  get channel(): Channel | undefined {
    return this.held
  }

  /** The channel, or why there is none to work with. */
  protected usable(): Channel | AmqpError.AmqpErrorReason {
    const channel = this.held
    if (channel === undefined) return this.endedBy
    if (channel.isOpen) return channel
    channel.told = true
    return diedOf(channel.closedBy ?? channel.link.loss)
  }

  /**
   * A method and its reply. `send` runs in the tick in which the method is written; an `InvalidArgument` that it throws,
   * before it sends, is the failure. `names` are those that the broker quotes when it refuses the method.
   */
  protected request<A>(
    operation: string,
    send: (driver: DriverChannel, channel: Channel) => Promise<A>,
    names: ReadonlyArray<string> = []
  ): Effect.Effect<A, AmqpError.AmqpError> {
    const timeout = this.terms.continuationTimeout
    return Effect.timeoutOrElse(
      Effect.callback<A, AmqpError.AmqpError>((resume) => {
        const channel = this.usable()
        if ("_tag" in channel) return resume(fail(channel))
        let waiting = true
        let reply: Promise<A>
        try {
          reply = send(channel.driver, channel)
        } catch (cause) {
          return resume(fail(this.refused(operation, channel, cause)))
        }
        const sent = new Sent(operation, names)
        const answered = channel.sending(sent)
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
            if (waiting) answer(fail(this.failed(operation, channel, cause, sent)))
          }
        )
        // The reply would be taken for the next borrower's: this channel is nobody else's any more.
        return Effect.sync(() => {
          if (waiting) channel.unfit ??= "interrupted"
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
  }

  // It throws before it sends when it cannot encode, and when the channel is closing.
  protected refused(operation: string, channel: Channel, cause: unknown): AmqpError.AmqpErrorReason {
    const usable = this.usable()
    if ("_tag" in usable) return usable
    if (cause instanceof AmqpError.InvalidArgument) return cause
    if (cause instanceof TypeError || cause instanceof RangeError) {
      return new AmqpError.InvalidArgument({
        message: `${operation}: an argument cannot be encoded, nothing was sent: ${cause.message}`,
        operation,
        argument: operation,
        cause
      })
    }
    channel.unfit ??= "defect"
    return classify(cause, { operation, peer: channel.link.peer })
  }

  protected failed(operation: string, channel: Channel, cause: unknown, sent: Sent): AmqpError.AmqpErrorReason {
    if (this.held !== channel) return this.endedBy
    // What is not the channel's failure.
    if (AmqpError.isAmqpError(cause)) return cause.reason
    channel.told = true
    const own = ownFailure(channel, sent)
    if (own !== undefined) return own
    // What ended the channel says more.
    if (cause instanceof ChannelEnded && channel.closedBy !== undefined) {
      return channel.refused ?? diedOf(channel.closedBy)
    }
    const reason = classify(cause, { operation, peer: channel.link.peer })
    if (reason._tag === "MessageTooLarge" && channel.refused !== undefined) return channel.refused
    // The reply was none: where the right one is, nobody knows.
    if (reason._tag === "ProtocolError" || reason._tag === "UnknownError") channel.unfit ??= "defect"
    return reason
  }

  /** Waits until `done` says so, or the channel cannot be used any more; at most `timeout` milliseconds. */
  protected until(
    done: (channel: Channel) => boolean,
    timeout: number,
    timedOut: () => AmqpError.AmqpErrorReason
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.timeoutOrElse(
      Effect.callback<void, AmqpError.AmqpError>((resume) => {
        const look = (): boolean => {
          const channel = this.usable()
          if ("_tag" in channel) resume(fail(channel))
          else if (done(channel)) resume(Effect.void)
          else return false
          return true
        }
        const channel = this.held
        if (look() || channel === undefined) return undefined
        const stop = channel.watch(() => {
          if (look()) stop()
        })
        return Effect.sync(stop)
      }),
      { duration: Duration.millis(Math.max(0, timeout)), orElse: () => fail(timedOut()) }
    )
  }
}

/** What the connection was closed for, if it was for this method. */
const ownFailure = ({ link }: Channel, { blame, operation }: Sent): AmqpError.AmqpErrorReason | undefined =>
  blame === "certain" ? link.endedByMethod(operation) : undefined

/** What ended the channel, as the failure of a later operation. */
export const diedOf = (reason: AmqpError.AmqpErrorReason): AmqpError.AmqpErrorReason =>
  reason.severity === "connection"
    ? reason
    : new AmqpError.ChannelClosed({
        message: `the channel was closed before: ${reason.message}`,
        cause: reason,
        replyCode: "replyCode" in reason ? reason.replyCode : undefined
      })
