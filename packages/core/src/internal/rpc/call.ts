/** One request, from its creation until its outcome is known: the waiting fiber, and what it waits for. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { UnconfirmedPublish } from "../channel/confirms.ts"
import type { BacklogItem } from "../waiting/backlog.ts"
import type { DeadlineEntry } from "../waiting/deadlines.ts"
import type { WaitQueue } from "../waiting/waitQueue.ts"
import { fail } from "../../model/failures.ts"
import type { Outgoing } from "../wire/properties.ts"
import type { Measured } from "../channel/sizeLimit.ts"
import { numberOf } from "./correlation.ts"
import type { Numbered } from "./pendingCalls.ts"
import type { Reply } from "./reply.ts"

const format = (milliseconds: number) => Duration.format(Duration.millis(milliseconds))

export type CallOutcome = "replied" | "failed" | "timedOut" | "givenUp"

/** The owner of the calls. */
export interface CallOwner {
  /** Removes a call from everything that holds it. Called once per call, before its outcome is reported. */
  readonly callEnded: (call: Call, how: CallOutcome) => void
  /** Why the calls in the backlog are not sent yet. */
  readonly waitReason: () => string
  /** Called when a call's publish has been confirmed. */
  readonly confirmed: () => void
}

/** The RPC channel that a call was sent on. */
export interface CallChannel {
  /** The call waits for neither a confirm nor a reply. */
  readonly released: (call: Call) => void
  /** The call has ended. */
  readonly forget: (call: Call) => void
}

export class Call implements DeadlineEntry, UnconfirmedPublish, Measured, Numbered<Call>, BacklogItem<Call> {
  sooner: DeadlineEntry | undefined = undefined
  later: DeadlineEntry | undefined = undefined
  // Its neighbors, while it is in the backlog's wait queue.
  waitQueue: WaitQueue<Call> | undefined = undefined
  previous: Call | undefined = undefined
  next: Call | undefined = undefined
  readonly name: string
  readonly message: Message
  readonly outgoing: Outgoing
  readonly correlationId: string
  readonly number: number
  nextInChain: Call | undefined = undefined
  readonly frameMax: number | undefined
  readonly timeout: number
  /** Not rounded, for measuring how long the reply took. */
  readonly startedAt: number
  readonly dueAt: number
  /** Whether the call fails instead of waiting while publishers are blocked. */
  readonly failsWhenBlocked: boolean
  /** Whether the broker drops the request when the call has timed out. */
  readonly expires: boolean
  readonly mandatory = true
  /** The RPC channel that the request was sent on; `undefined` while it is in the backlog. */
  channel: CallChannel | undefined = undefined
  isConfirmed = false
  #done = false
  #isSettled = false

  readonly #owner: CallOwner
  readonly #resume: (effect: Effect.Effect<Reply, AmqpError.AmqpError>) => void

  constructor(
    request: {
      readonly name: string
      readonly message: Message
      readonly outgoing: Outgoing
      readonly correlationId: string
      readonly frameMax: number | undefined
      readonly timeout: number
      readonly startedAt: number
      readonly dueAt: number
      readonly failsWhenBlocked: boolean
      readonly expires: boolean
    },
    owner: CallOwner,
    resume: (effect: Effect.Effect<Reply, AmqpError.AmqpError>) => void
  ) {
    this.name = request.name
    this.message = request.message
    this.outgoing = request.outgoing
    this.correlationId = request.correlationId
    this.number = numberOf(request.correlationId)
    this.frameMax = request.frameMax
    this.timeout = request.timeout
    this.startedAt = request.startedAt
    this.dueAt = request.dueAt
    this.failsWhenBlocked = request.failsWhenBlocked
    this.expires = request.expires
    this.#owner = owner
    this.#resume = resume
  }

  get size(): number {
    return this.outgoing.content.length
  }

  #leave(how: CallOutcome): boolean {
    if (this.#done) return false
    this.#done = true
    if (this.#isSettled) this.channel?.released(this)
    this.#owner.callEnded(this, how)
    return true
  }

  succeed(reply: Reply): void {
    if (this.#leave("replied")) this.#resume(Effect.succeed(reply))
  }

  fail(reason: AmqpError.AmqpErrorReason, how: CallOutcome = "failed"): void {
    if (this.#leave(how)) this.#resume(fail(reason))
  }

  /** Ends the call of an interrupted fiber: its reply will be dropped. */
  giveUp(): void {
    this.#leave("givenUp")
  }

  /** The outcome of the publish: a confirm, or a failure. */
  settle(failure: AmqpError.AmqpErrorReason | undefined): void {
    this.#isSettled = true
    // A call that has not ended yet is released when it does.
    if (this.#done) this.channel?.released(this)
    if (failure !== undefined) this.fail(failure)
    else if (!this.#done) this.isConfirmed = true
    this.#owner.confirmed()
  }

  expire(): void {
    this.fail(this.channel === undefined ? this.#notSent() : this.#noReply(), "timedOut")
  }

  #notSent() {
    return new AmqpError.PublishTimeout({
      message: `${this.name}: nothing was sent within ${format(this.timeout)}: ${this.#owner.waitReason()}.`,
      operation: this.name,
      sent: false
    })
  }

  #noReply() {
    return new AmqpError.RequestTimeout({
      message:
        `${this.name}: no reply arrived within ${format(this.timeout)}. ` +
        (this.isConfirmed
          ? "The broker had queued the request: a server may have handled it, may still be handling it, or may not have received it."
          : "The broker had not confirmed the request: it may or may not have been handled."),
      operation: this.name
    })
  }

  /**
   * The server has replied, but the reply cannot be decoded. The error is not `MessageTooLarge`, which means that
   * nothing was sent.
   */
  replyUnread(because: AmqpError.MessageTooLarge | AmqpError.DecodeFailed): void {
    const { name } = this
    this.fail(
      new AmqpError.DecodeFailed({
        message: `${name}: the request was handled, but its reply cannot be decoded: ${because.message}`,
        operation: name,
        cause: because
      })
    )
  }

  /** The channel on which the reply would have arrived has ended. */
  replyLost(because: AmqpError.AmqpErrorReason): void {
    const { name } = this
    if (!this.isConfirmed) {
      this.fail(
        new AmqpError.PublishUnknown({
          message: `${name}: the channel ended before the broker had confirmed the request, which may or may not have been handled: ${because.message}`,
          operation: name,
          cause: because
        })
      )
      return
    }
    const message = `${name}: the channel ended before the reply arrived. The broker had queued the request, and a server may handle it: ${because.message}`
    const fields = { message, operation: name, cause: because }
    this.fail(
      because.severity === "connection" ? new AmqpError.ConnectionClosed(fields) : new AmqpError.ChannelClosed(fields)
    )
  }
}
