/** One request, from the moment it is made until its outcome is known: a fiber that waits, and what it waits for. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { Unconfirmed } from "../channel/confirms.ts"
import type { InBacklog } from "../waiting/backlog.ts"
import type { Due } from "../waiting/deadlines.ts"
import type { Line } from "../waiting/line.ts"
import { fail } from "../../model/failures.ts"
import type { Outgoing } from "../wire/properties.ts"
import type { Measured } from "../channel/sizeLimit.ts"
import { numberOf } from "./correlation.ts"
import type { Numbered } from "./pending.ts"
import type { Reply } from "./wire.ts"

const format = (milliseconds: number) => Duration.format(Duration.millis(milliseconds))

export type Leaving = "replied" | "failed" | "timedOut" | "givenUp"

/** Who holds the calls. */
export interface CallOwner {
  /** Takes a call out of everything that holds it. Called once for each, before it is told its outcome. */
  readonly left: (call: Call, how: Leaving) => void
  /** Why the calls in line are not sent yet. */
  readonly waitsFor: () => string
  /** Called when a call's publish has been confirmed. */
  readonly confirmed: () => void
}

/** The session that a call was sent on. */
export interface SentOn {
  /** The call waits for nothing more. */
  readonly released: (call: Call) => void
  /** The call has ended. */
  readonly forget: (call: Call) => void
}

export class Call implements Due, Unconfirmed, Measured, Numbered<Call>, InBacklog<Call> {
  sooner: Due | undefined = undefined
  later: Due | undefined = undefined
  // Its neighbours, while it is in line.
  line: Line<Call> | undefined = undefined
  before: Call | undefined = undefined
  after: Call | undefined = undefined
  readonly name: string
  readonly message: Message
  readonly outgoing: Outgoing
  readonly correlationId: string
  readonly number: number
  sibling: Call | undefined = undefined
  readonly frameMax: number | undefined
  readonly timeout: number
  /** Exactly, for the time it takes to be measured. */
  readonly startedAt: number
  readonly dueAt: number
  /** Whether it fails instead of waiting while publishers are blocked. */
  readonly failsWhenBlocked: boolean
  /** Whether the broker drops the request when the time is up. */
  readonly expires: boolean
  readonly mandatory = true
  /** On which channel it went out; undefined while it is in line. */
  session: SentOn | undefined = undefined
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

  #leave(how: Leaving): boolean {
    if (this.#done) return false
    this.#done = true
    if (this.#isSettled) this.session?.released(this)
    this.#owner.left(this, how)
    return true
  }

  succeed(reply: Reply): void {
    if (this.#leave("replied")) this.#resume(Effect.succeed(reply))
  }

  fail(reason: AmqpError.AmqpErrorReason, how: Leaving = "failed"): void {
    if (this.#leave(how)) this.#resume(fail(reason))
  }

  /** For a fiber that was interrupted: a reply, when it comes, concerns nobody. */
  giveUp(): void {
    this.#leave("givenUp")
  }

  /** The broker's word on the publish. */
  settle(failure: AmqpError.AmqpErrorReason | undefined): void {
    this.#isSettled = true
    // Else it is released when it is answered or given up.
    if (this.#done) this.session?.released(this)
    if (failure !== undefined) this.fail(failure)
    else if (!this.#done) this.isConfirmed = true
    this.#owner.confirmed()
  }

  expire(): void {
    this.fail(this.session === undefined ? this.#notSent() : this.#noReply(), "timedOut")
  }

  #notSent() {
    return new AmqpError.PublishTimeout({
      message: `${this.name}: nothing was sent within ${format(this.timeout)}: ${this.#owner.waitsFor()}`,
      operation: this.name,
      sent: false
    })
  }

  #noReply() {
    return new AmqpError.RequestTimeout({
      message:
        `${this.name}: no reply came within ${format(this.timeout)}. ` +
        (this.isConfirmed
          ? "The broker had queued the request: no server may have taken it, or one may have, or be still at work."
          : "The broker had not confirmed the request: it may or may not have been handled."),
      operation: this.name
    })
  }

  /** The server has answered, and nobody can read what. Not `MessageTooLarge`: that says that nothing was sent. */
  replyUnread(because: AmqpError.MessageTooLarge | AmqpError.DecodeFailed): void {
    const { name } = this
    this.fail(
      new AmqpError.DecodeFailed({
        message: `${name}: the request was handled, but its reply cannot be read: ${because.message}`,
        operation: name,
        cause: because
      })
    )
  }

  /** The channel to which the reply would have come is gone. */
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
    const message = `${name}: the reply is lost with the channel it would have come on. The broker had queued the request, and it may be handled: ${because.message}`
    const fields = { message, operation: name, cause: because }
    this.fail(
      because.severity === "connection" ? new AmqpError.ConnectionClosed(fields) : new AmqpError.ChannelClosed(fields)
    )
  }
}
