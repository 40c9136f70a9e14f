/** A pending publish: from the call until its outcome is reported and its capacity among those in flight is free. */
import type * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { UnconfirmedPublish } from "../channel/confirms.ts"
import type { PublishSettings } from "../wire/declarations.ts"
import type { DeadlineEntry } from "../waiting/deadlines.ts"
import { type Outgoing, toBuffer } from "../wire/properties.ts"
import type { PublisherChannel } from "./publisherChannel.ts"
import type { BacklogItem } from "../waiting/backlog.ts"
import type { WaitQueue } from "../waiting/waitQueue.ts"
import type { Measured } from "../channel/sizeLimit.ts"

/** The owner of pending publishes. */
export interface PublishOwner {
  /** The broker has confirmed or refused the message, or its channel has closed: its capacity in flight is free. */
  readonly settled: (pending: PendingPublish, failure: AmqpError.AmqpErrorReason | undefined) => void
  /** Its deadline has passed. */
  readonly expired: (pending: PendingPublish) => void
}

/** Called once: with undefined when the message is confirmed, otherwise with the failure. Must not throw. */
export type Outcome = (failure: AmqpError.AmqpErrorReason | undefined) => void

const nothing = Buffer.alloc(0)

/**
 * A message that a publisher has accepted.
 *
 * A sent message counts as in flight until the broker has answered for it or its channel has closed, even if its
 * outcome was already reported (state `settled`) or its caller gave up. Otherwise the number in flight would not be
 * bounded.
 */
export class PendingPublish implements UnconfirmedPublish, DeadlineEntry, BacklogItem<PendingPublish>, Measured {
  sooner: DeadlineEntry | undefined = undefined
  later: DeadlineEntry | undefined = undefined
  readonly message: Message
  readonly mandatory: boolean
  /** Whether it waits while the broker forbids publishing. */
  readonly waitsWhenBlocked: boolean
  /** The timeout of the publish, in milliseconds. */
  readonly timeout: number
  /** When it was accepted, in milliseconds with fractions, to measure its duration. */
  readonly startedAt: number
  readonly dueAt: number
  /** Size of the content, in bytes. */
  readonly size: number
  /** The only publisher channel that may send it, if it is part of a sequence. */
  readonly publisherChannel: PublisherChannel<PendingPublish> | undefined
  /** The order of acceptance: the publish with the lower number was accepted first. */
  readonly submissionNumber: number
  /** The `frameMax` that its headers were checked against; undefined if there was no connection. */
  readonly frameMax: number | undefined
  readonly outcome: Outcome
  state: "waiting" | "sent" | "settled" = "waiting"
  /** Called when the message is sent, if it had to wait. */
  onSent: (() => void) | undefined = undefined

  // Its wait queue and its neighbors in it.
  waitQueue: WaitQueue<PendingPublish> | undefined = undefined
  previous: PendingPublish | undefined = undefined
  next: PendingPublish | undefined = undefined

  readonly #owner: PublishOwner
  #outgoing: Outgoing | undefined
  /** Whether the content is text that is encoded when it is sent. */
  #isText: boolean

  /**
   * @param size the size of a content that is still text, and that `outgoing` lacks; undefined if it has the content
   */
  constructor(
    owner: PublishOwner,
    message: Message,
    outgoing: Outgoing,
    size: number | undefined,
    settings: PublishSettings,
    times: {
      readonly submissionNumber: number
      readonly startedAt: number
      readonly dueAt: number
      readonly timeout: number
      readonly frameMax: number | undefined
    },
    publisherChannel: PublisherChannel<PendingPublish> | undefined,
    outcome: Outcome
  ) {
    this.#owner = owner
    this.message = message
    this.#outgoing = outgoing
    this.#isText = size !== undefined
    this.mandatory = settings.mandatory
    this.waitsWhenBlocked = settings.wait
    this.submissionNumber = times.submissionNumber
    this.startedAt = times.startedAt
    this.dueAt = times.dueAt
    this.timeout = times.timeout
    this.frameMax = times.frameMax
    this.size = size ?? outgoing.content.byteLength
    this.publisherChannel = publisherChannel
    this.outcome = outcome
  }

  /** What is written. It is dropped after that. */
  get outgoing(): Outgoing {
    const outgoing = this.#outgoing!
    return this.#isText ? outgoing.withContent(toBuffer(this.message.content)) : outgoing
  }

  /** Must be called before it waits. It drops the encoded copy of a text, so that waiting messages need less memory. */
  dropEncodedText(): void {
    if (this.#isText || typeof this.message.content !== "string") return
    this.#isText = true
    this.#outgoing = this.#outgoing!.withContent(nothing)
  }

  /** Must be called when the message has been written. */
  sent(): void {
    this.state = "sent"
    this.#outgoing = undefined
  }

  settle(failure: AmqpError.AmqpErrorReason | undefined): void {
    this.#owner.settled(this, failure)
  }

  expire(): void {
    this.#owner.expired(this)
  }
}
