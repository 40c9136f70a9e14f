/** One publish of a publisher: from the moment it is asked for until its outcome is told, and its place is free again. */
import type * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { Unconfirmed } from "../channel/confirms.ts"
import type { PublishSettings } from "../wire/declarations.ts"
import type { Due } from "../waiting/deadlines.ts"
import { type Outgoing, toBuffer } from "../wire/properties.ts"
import type { Lane } from "./lane.ts"
import type { InBacklog } from "../waiting/backlog.ts"
import type { Line } from "../waiting/line.ts"
import type { Measured } from "../channel/sizeLimit.ts"

/** Whoever looks after attempts. */
export interface Owner {
  /** The broker has said what became of it, or its channel has died: its place among those in flight is free. */
  readonly landed: (attempt: Attempt, failure: AmqpError.AmqpErrorReason | undefined) => void
  /** Its time is up. */
  readonly expired: (attempt: Attempt) => void
}

/** Called once: with nothing, confirmed; else with why not. Must not throw. */
export type Outcome = (failure: AmqpError.AmqpErrorReason | undefined) => void

const nothing = Buffer.alloc(0)

/**
 * `told` does not end it: a message that was sent keeps its place until the broker has answered for it, whoever has
 * stopped listening. Else the bound on what is in flight would be none.
 */
export class Attempt implements Unconfirmed, Due, InBacklog<Attempt>, Measured {
  sooner: Due | undefined = undefined
  later: Due | undefined = undefined
  readonly message: Message
  readonly mandatory: boolean
  /** Whether it waits while the broker takes nothing. */
  readonly waits: boolean
  /** In milliseconds, as asked for. */
  readonly timeout: number
  /** Exactly, for the time it takes to be measured. */
  readonly startedAt: number
  readonly dueAt: number
  /** Bytes of content. */
  readonly size: number
  /** The only lane it may take, if it is part of a sequence. */
  readonly lane: Lane<Attempt> | undefined
  /** Counts attempts: the lower of two came first. */
  readonly turn: number
  /** The connection's, that its headers were measured against; undefined if there was none. */
  readonly frameMax: number | undefined
  readonly outcome: Outcome
  state: "waiting" | "sent" | "told" = "waiting"
  /** Called when it has been sent, if it had to wait for that. */
  onSent: (() => void) | undefined = undefined

  // Its neighbours, while it is in line.
  line: Line<Attempt> | undefined = undefined
  before: Attempt | undefined = undefined
  after: Attempt | undefined = undefined

  readonly #owner: Owner
  #outgoing: Outgoing | undefined
  /** Whether the content is still to be made into bytes. */
  #isText: boolean

  /** `size`: of content that is still a text, which `outgoing` has not. */
  constructor(
    owner: Owner,
    message: Message,
    outgoing: Outgoing,
    size: number | undefined,
    settings: PublishSettings,
    times: {
      readonly turn: number
      readonly startedAt: number
      readonly dueAt: number
      readonly timeout: number
      readonly frameMax: number | undefined
    },
    lane: Lane<Attempt> | undefined,
    outcome: Outcome
  ) {
    this.#owner = owner
    this.message = message
    this.#outgoing = outgoing
    this.#isText = size !== undefined
    this.mandatory = settings.mandatory
    this.waits = settings.wait
    this.turn = times.turn
    this.startedAt = times.startedAt
    this.dueAt = times.dueAt
    this.timeout = times.timeout
    this.frameMax = times.frameMax
    this.size = size ?? outgoing.content.byteLength
    this.lane = lane
    this.outcome = outcome
  }

  /** What is to be written; after that it is not kept. */
  get outgoing(): Outgoing {
    const outgoing = this.#outgoing!
    return this.#isText ? outgoing.withContent(toBuffer(this.message.content)) : outgoing
  }

  /** To be called before it waits. Text was copied into bytes: many that wait would hold many copies. */
  settleDown(): void {
    if (this.#isText || typeof this.message.content !== "string") return
    this.#isText = true
    this.#outgoing = this.#outgoing!.withContent(nothing)
  }

  /** To be called when it has been written. */
  sent(): void {
    this.state = "sent"
    this.#outgoing = undefined
  }

  settle(failure: AmqpError.AmqpErrorReason | undefined): void {
    this.#owner.landed(this, failure)
  }

  expire(): void {
    this.#owner.expired(this)
  }
}
