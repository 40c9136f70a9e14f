/** Why a publish cannot be written, the errors of publishing, and the wait for a confirm. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Confirmed } from "../../model/channel.ts"
import * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { Channel } from "./channel.ts"
import type { UnconfirmedPublish } from "./confirms.ts"
import type { Deadlines, DeadlineEntry } from "../waiting/deadlines.ts"
import { fail } from "../../model/failures.ts"

const operation = "basic.publish"

const confirmed = Effect.succeed<Confirmed>({ _tag: "Confirmed" })

const format = (milliseconds: number) => Duration.format(Duration.millis(milliseconds))

export const publishForbidden = (because: string) =>
  new AmqpError.PublishForbidden({
    message: `${operation}: ${because}. Nothing was sent. Try again later, or wait (onBlocked: "wait").`,
    operation
  })

export const timedOutUnsent = (timeout: number, because: string) =>
  new AmqpError.PublishTimeout({
    message: `${operation}: nothing was sent within ${format(timeout)}: ${because}`,
    operation,
    sent: false
  })

export const timedOutInBuffer = (timeout: number) =>
  new AmqpError.PublishTimeout({
    message: `${operation}: the connection took no more bytes for ${format(timeout)}. The message is in the write buffer and may still be sent.`,
    operation,
    sent: true
  })

export const timedOutUnconfirmed = (timeout: number) =>
  new AmqpError.PublishTimeout({
    message: `${operation}: the broker did not confirm the message within ${format(timeout)}. It was sent, and may or may not have arrived.`,
    operation,
    sent: true
  })

/** Why a publish would have to wait now; undefined if it would be written at once. */
export const obstacle = (channel: Channel): string | undefined =>
  channel.forbiddenReason ??
  (channel.isWriteBufferFull ? "the connection takes no more bytes: its write buffer is full" : undefined)

type Resume = (effect: Effect.Effect<Confirmed, AmqpError.AmqpError>) => void

/** The wait of one fiber for a confirm. */
export class PendingConfirm implements UnconfirmedPublish, DeadlineEntry {
  sooner: DeadlineEntry | undefined = undefined
  later: DeadlineEntry | undefined = undefined
  readonly message: Message
  readonly mandatory: boolean
  readonly dueAt: number
  readonly #deadlines: Deadlines
  readonly #timeout: number
  readonly #resume: Resume

  constructor(
    message: Message,
    options: {
      readonly mandatory: boolean
      readonly dueAt: number
      readonly timeout: number
      readonly deadlines: Deadlines
    },
    resume: Resume
  ) {
    this.message = message
    this.mandatory = options.mandatory
    this.dueAt = options.dueAt
    this.#timeout = options.timeout
    this.#deadlines = options.deadlines
    this.#resume = resume
  }

  /** Starts the wait. Must be called in the tick in which the message is written to the channel. */
  begin(channel: Channel): void {
    channel.confirms!.published(this)
    this.#deadlines.add(this)
  }

  settle(failure: AmqpError.AmqpErrorReason | undefined): void {
    if (!this.#deadlines.delete(this)) return
    this.#resume(failure === undefined ? confirmed : fail(failure))
  }

  expire(): void {
    this.#resume(fail(timedOutUnconfirmed(this.#timeout)))
  }

  /** Ends the wait of an interrupted fiber. A confirm that arrives later has no effect. */
  giveUp(): void {
    this.#deadlines.delete(this)
  }
}
