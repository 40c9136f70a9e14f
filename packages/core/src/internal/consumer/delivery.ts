/** A delivery of a consumer: it knows its channel, so that it is settled at most once, and nowhere else. */
import * as Effect from "effect/Effect"
import type { Delivery, Origin } from "../../model/consumer.ts"
import * as AmqpError from "../../model/error.ts"
import type { DeliveredProperties, Headers } from "../../model/message.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import type { Channel } from "../channel/channel.ts"
import { isRefused, readFlags } from "../wire/optionTable.ts"
import { fail } from "../../model/failures.ts"
import type { ConsumerMeasures, Settled } from "../metrics/measures.ts"
import { type Failure } from "../message/failure.ts"
import { type History, retryHeaders } from "./attempts.ts"
import { messageKey } from "./messageKey.ts"
import type { AttemptTracking } from "./attemptTracking.ts"

/**
 * The ways to settle. A delivery that is dropped or tried again later is acknowledged. One that is requeued or redelivered
 * has failed, which this library counts; one that is given back was not handled, or not to its end.
 *
 * Since RabbitMQ 4.3 what `basic.reject` requeues counts towards the delivery limit of a quorum queue, and what `basic.nack`
 * requeues does not; before, both do.
 */
export type Settlement = "ack" | "drop" | "retry" | "requeue" | "redeliver" | "giveBack" | "discard"

/** How a delivery that has failed goes back to its queue. */
export type Return = Extract<Settlement, "requeue" | "redeliver">

const operations = {
  ack: "basic.ack",
  drop: "basic.ack",
  retry: "basic.ack",
  requeue: "basic.reject",
  redeliver: "basic.nack",
  giveBack: "basic.nack",
  discard: "basic.nack"
} as const

const counted: Record<Settlement, Settled> = {
  ack: "acked",
  drop: "dropped",
  retry: "retried",
  requeue: "requeued",
  redeliver: "requeued",
  giveBack: "requeued",
  discard: "dead_lettered"
}

/** A count of attempts that other processes see, of a message that is being handled. */
export interface SharedCount {
  /** The message does not come back. */
  readonly end: () => void
  /** The message goes back, and this attempt counts. */
  readonly keep: () => void
  /** The message goes back and this attempt does not count. */
  readonly undo: () => void
}

export class ConsumerDelivery implements Delivery {
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
  readonly exchange: string
  readonly routingKey: string
  readonly redelivered: boolean
  readonly offset: number | undefined = undefined
  /** In milliseconds, as `now` of the deadlines. */
  readonly arrivedAt: number
  readonly #channel: Channel
  readonly #tracking: AttemptTracking
  readonly #tag: number
  readonly #measures: ConsumerMeasures
  #settled = false
  /** How often it was handled again without having gone back to its queue. */
  #handledAgain = 0
  #history: History | undefined = undefined
  #key: string | undefined = undefined
  /** How often handlers have failed at the message before; undefined until it is asked for. */
  #failures: number | undefined = undefined
  /** Those of them that this process has in mind, and nothing else. */
  #remembered = 0
  #shared: SharedCount | undefined = undefined
  /** What other processes have recorded of it. */
  #elsewhere = 0
  /** Whether all of its failures, and this attempt, are recorded there. */
  #isRecorded = false
  /** Whether its failures were noted, or are of no interest any more. */
  #closed = false

  constructor(
    channel: Channel,
    tracking: AttemptTracking,
    message: DeliveredMessage,
    arrivedAt: number,
    measures: ConsumerMeasures
  ) {
    this.content = message.content
    this.properties = message.properties
    this.exchange = message.exchange
    this.routingKey = message.routingKey
    this.redelivered = message.redelivered
    this.arrivedAt = arrivedAt
    this.#channel = channel
    this.#tracking = tracking
    this.#tag = message.deliveryTag
    this.#measures = measures
  }

  get #past(): History {
    return (this.#history ??= this.#tracking.historyOf(this))
  }

  get origin(): Origin | undefined {
    return this.#past.origin
  }

  /** How often it was tried again in this queue. */
  get retries(): number {
    return this.#past.retries
  }

  /** The headers of the message that is published for the next try. */
  headersOfRetry(failure: Failure | undefined, withOrigin: boolean): Headers {
    return retryHeaders(this, this.#tracking.secrets, failure, withOrigin)
  }

  get attempt(): number {
    return 1 + this.failures + this.#handledAgain
  }

  /** It has failed, and is about to be handled again, from memory. */
  countAgain(): void {
    this.#handledAgain++
  }

  /** How often handlers had failed at the message when it was delivered, as far as is known. */
  get failures(): number {
    if (this.#failures !== undefined) return this.#failures
    const { memory } = this.#tracking
    // What is delivered for the first time is none of those that went back.
    if (this.redelivered && memory.size > 0) this.#remembered = memory.take(this.key)
    return (this.#failures = this.#tracking.failuresOf(this, this.#past) + this.#remembered)
  }

  /** Those of its failures that this process has in mind, and no header says. */
  get remembered(): number {
    return this.failures === 0 ? 0 : this.#remembered
  }

  /** What identifies the message when it is delivered again. */
  get key(): string {
    return (this.#key ??= messageKey(this.#tracking.queue, this))
  }

  /** Whether it is counted for other processes, too. */
  get isShared(): boolean {
    return this.#shared !== undefined
  }

  /** Other processes have recorded `more` failures; `isRecorded`: what this process knows, this attempt included, is too. */
  share(more: number, isRecorded: boolean, count: SharedCount): void {
    this.#failures = this.failures + more
    this.#elsewhere = more
    this.#shared = count
    this.#isRecorded = isRecorded
  }

  /** Notes that it has failed, if its message comes back by itself or as `settle` says. Once. */
  remember(): void {
    this.#comesBack(1)
  }

  #comesBack(by: 0 | 1): void {
    if (this.#closed) return
    this.#closed = true
    const { memory } = this.#tracking
    const shared = this.#shared
    const known = this.remembered + by
    if (shared === undefined) return this.#note(known + this.#handledAgain)
    if (memory.isAmbiguous(this.key)) {
      // Another message would take the record for its own.
      shared.end()
      return this.#note(this.#elsewhere + known + this.#handledAgain)
    }
    if (by === 1) shared.keep()
    else shared.undo()
    this.#note(this.#handledAgain + (this.#isRecorded ? 0 : known))
  }

  #note(failures: number): void {
    if (failures > 0) this.#tracking.memory.add(this.key, failures, this.#shared !== undefined)
  }

  /** Its message is done with, and nothing has to be known about it any more. */
  forget(): void {
    if (this.#closed) return
    this.#closed = true
    const { memory } = this.#tracking
    if (this.redelivered && this.#failures === undefined && memory.size > 0) memory.take(this.key)
    this.#shared?.end()
  }

  get isSettled(): boolean {
    return this.#settled || !this.#channel.isOpen || !this.#channel.unsettled.has(this.tag)
  }

  /** Whether its channel has ended before anybody settled it. */
  get isLost(): boolean {
    return !this.#settled && this.isSettled
  }

  get tag(): number {
    return this.#tag
  }

  get channel(): Channel {
    return this.#channel
  }

  get queue(): string {
    return this.#tracking.queue
  }

  /** Settles at once; what it returns is why it could not. */
  settle(how: Settlement, operation: string = operations[how]): AmqpError.AmqpErrorReason | undefined {
    const channel = this.#channel
    if (this.isSettled) {
      if (this.isLost) {
        if (how === "ack") this.forget()
        else this.#comesBack(how === "giveBack" ? 0 : 1)
      }
      return this.#late(operation)
    }
    try {
      const isBack = how === "requeue" || how === "redeliver" || how === "giveBack"
      if (operation === "basic.reject") {
        channel.reject(this.tag, isBack)
        channel.unsettled.delete(this.tag)
      } else if (isBack && channel.collectsReturns) channel.returning.add(this.tag)
      else if (isBack || how === "discard") {
        channel.nack(this.tag, false, isBack)
        channel.unsettled.delete(this.tag)
      } else channel.acknowledge(this.tag)
    } catch {
      // The channel is closing, and sends nothing any more.
      return this.#late(operation)
    }
    this.#settled = true
    if (how === "requeue" || how === "redeliver") this.#comesBack(1)
    else if (how === "giveBack") this.#comesBack(0)
    else if (this.redelivered) this.forget()
    const { settled } = this.#measures
    if (how === "ack") settled.acked++
    else settled[counted[how]]++
    return undefined
  }

  /** Acknowledges this one and all earlier ones of its channel, which are all of `settled`. */
  settleUpTo(settled: ReadonlyArray<ConsumerDelivery>): void {
    try {
      this.#channel.ack(this.tag, true)
    } catch {
      return
    }
    this.#measures.settled.acked += settled.length
    for (const each of settled) {
      each.#settled = true
      if (each.redelivered) each.forget()
      this.#channel.unsettled.delete(each.tag)
    }
  }

  /** It was handled, and cannot be settled any more. */
  countLost(): void {
    this.#measures.settled.lost++
  }

  #late(operation: string): AmqpError.AmqpErrorReason {
    return new AmqpError.DeliverySettled({
      message: this.#settled
        ? `${operation}: this delivery was settled before. Nothing was sent.`
        : this.#channel.isOpen
          ? `${operation}: the broker has taken this delivery back, since it was not settled within the consumer timeout: it will be delivered again. Nothing was sent.`
          : `${operation}: the channel of this delivery has ended, and the broker has requeued it: it will be delivered again. Nothing was sent.`,
      operation
    })
  }

  #settling(how: Settlement, operation: string): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const failure = this.settle(how, operation)
      return failure === undefined ? Effect.void : fail(failure)
    })
  }

  get ack(): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#settling("ack", "basic.ack")
  }

  nack(options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#refuse("basic.nack", "redeliver", options)
  }

  reject(options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#refuse("basic.reject", "requeue", options)
  }

  #refuse(
    operation: string,
    back: Return,
    options: { readonly requeue?: boolean | undefined } | undefined
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const flags = readFlags(operation, options, { requeue: true })
    if (isRefused(flags)) return fail(flags)
    return this.#settling(flags.requeue ? back : "discard", operation)
  }
}

/**
 * Acknowledges what of a batch is not settled yet, with `multiple` as far as that covers nothing else. They are all of one
 * channel, in the order in which they came.
 */
export const acknowledgeAll = (batch: ReadonlyArray<ConsumerDelivery>): void => {
  const left = batch.filter((delivery) => !delivery.isSettled)
  if (left.length === 0) return
  const { hasReleased, unsettled } = left[0]!.channel
  // The channel knows its unsettled deliveries in the order of their tags, as the batch is.
  let covered = 0
  if (!hasReleased) {
    for (const tag of unsettled) {
      if (tag !== left[covered]?.tag) break
      covered++
    }
  }
  if (covered > 1) left[covered - 1]!.settleUpTo(left.slice(0, covered))
  else covered = 0
  for (const delivery of left.slice(covered)) delivery.settle("ack")
}
