/** A delivery of a consumer. It holds its channel, so it is settled at most once, and only on that channel. */
import * as Effect from "effect/Effect"
import type { Delivery, Origin } from "../../model/consumer.ts"
import * as AmqpError from "../../model/error.ts"
import type { DeliveredProperties, Headers } from "../../model/message.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import type { Channel } from "../channel/channel.ts"
import { isInvalidArgument, readFlags } from "../wire/optionTable.ts"
import { fail } from "../../model/failures.ts"
import type { ConsumerMeasures, SettlementOutcome } from "../metrics/measures.ts"
import { type Failure } from "../message/failure.ts"
import { type History, retryHeaders } from "./retryHeaders.ts"
import { messageKey } from "./messageKey.ts"
import type { AttemptTracking } from "./attemptTracking.ts"

/**
 * The ways to settle a delivery. `drop`, `retry` and `deadLetter` acknowledge it: the latter two after a copy is confirmed. `requeue` and `redeliver` return a delivery whose
 * handler has failed, which this library counts. `giveBack` returns one that was not handled, or not to the end.
 *
 * Since RabbitMQ 4.3, a requeue by `basic.reject` counts towards the delivery limit of a quorum queue, and one by
 * `basic.nack` does not. Before 4.3 both count.
 */
export type Settlement = "ack" | "drop" | "retry" | "deadLetter" | "requeue" | "redeliver" | "giveBack" | "discard"

/** How a failed delivery is returned to its queue. */
export type ReturnSettlement = Extract<Settlement, "requeue" | "redeliver">

const operations = {
  ack: "basic.ack",
  drop: "basic.ack",
  retry: "basic.ack",
  deadLetter: "basic.ack",
  requeue: "basic.reject",
  redeliver: "basic.nack",
  giveBack: "basic.nack",
  discard: "basic.nack"
} as const

const settledMetric: Record<Settlement, SettlementOutcome> = {
  ack: "acked",
  drop: "dropped",
  retry: "retried",
  deadLetter: "dead_lettered",
  requeue: "requeued",
  redeliver: "requeued",
  giveBack: "requeued",
  discard: "dead_lettered"
}

/** A count of the attempts at a message in progress, which other processes can see. */
export interface SharedCount {
  /** The message will not be delivered again. */
  readonly end: () => void
  /** The message goes back to its queue, and this attempt counts. */
  readonly keep: () => void
  /** The message goes back to its queue, and this attempt does not count. */
  readonly undo: () => void
}

export class ConsumerDelivery implements Delivery {
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
  readonly exchange: string
  readonly routingKey: string
  readonly redelivered: boolean
  readonly offset: number | undefined = undefined
  /** Arrival time in milliseconds, on the clock of the deadlines (`now`). */
  readonly arrivedAt: number
  readonly #channel: Channel
  readonly #tracking: AttemptTracking
  readonly #tag: number
  readonly #measures: ConsumerMeasures
  #settled = false
  /** How often it was handled again from memory, without returning to its queue. */
  #inMemoryRetries = 0
  #history: History | undefined = undefined
  #key: string | undefined = undefined
  /** How often handlers have failed at the message before; computed on first use. */
  #failures: number | undefined = undefined
  /** When a handler has failed at the message for the first time, as far as is known, in milliseconds since 1970. */
  #firstFailedAt: number | undefined = undefined
  /** The part of `#failures` that is only in the memory of this process. */
  #remembered = 0
  #shared: SharedCount | undefined = undefined
  /** The number of failures that other processes have recorded. */
  #sharedFailures = 0
  /** Whether all known failures, including this attempt, are in the shared record. */
  #isRecorded = false
  /** Whether its failures were recorded, or are not needed any more. */
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

  /** The number of retries in this queue. */
  get retries(): number {
    return this.#past.retries
  }

  /** The headers of the message that is published for the next retry. */
  headersOfRetry(failure: Failure | undefined, withOrigin: boolean): Headers {
    return retryHeaders(this, this.#tracking.secrets, failure, withOrigin, this.firstFailedAt ?? this.#tracking.time)
  }

  get attempt(): number {
    return 1 + this.failures + this.#inMemoryRetries
  }

  /** Counts an attempt that has failed and is about to be repeated from memory. */
  countInMemoryRetry(): void {
    this.#inMemoryRetries++
    this.#firstFailedAt = this.firstFailedAt ?? this.#tracking.time
  }

  /** When a handler has failed at the message for the first time; `undefined` if no earlier failure is known. */
  get firstFailedAt(): number | undefined {
    // The memory is read together with the count.
    if (this.#firstFailedAt === undefined && this.failures > 0) {
      this.#firstFailedAt = this.#past.firstAt ?? this.#tracking.firstFailedAt(this)
    }
    return this.#firstFailedAt
  }

  /** How often handlers had failed at the message when it was delivered, as far as is known. */
  get failures(): number {
    if (this.#failures !== undefined) return this.#failures
    const { memory } = this.#tracking
    // A first delivery cannot be one of the messages that went back.
    if (this.redelivered && memory.size > 0) {
      this.#firstFailedAt = memory.firstAt(this.key)
      this.#remembered = memory.take(this.key)
    }
    return (this.#failures = this.#tracking.failuresOf(this, this.#past) + this.#remembered)
  }

  /** The failures that only this process remembers: no header records them. */
  get remembered(): number {
    return this.failures === 0 ? 0 : this.#remembered
  }

  /** Identifies the message when it is delivered again. */
  get key(): string {
    return (this.#key ??= messageKey(this.#tracking.queue, this))
  }

  /** Whether its attempts are also counted for other processes. */
  get isShared(): boolean {
    return this.#shared !== undefined
  }

  /**
   * Connects the delivery to its shared count. Other processes have recorded `more` failures. `isRecorded`: all that
   * this process knows, including this attempt, is recorded there too.
   */
  share(more: number, isRecorded: boolean, count: SharedCount): void {
    this.#failures = this.failures + more
    this.#sharedFailures = more
    this.#shared = count
    this.#isRecorded = isRecorded
  }

  /**
   * Records the failure of a delivery that goes back to its queue, either through `settle` or with its channel. Only
   * the first call counts.
   */
  remember(): void {
    this.#comesBack(1)
  }

  #comesBack(by: 0 | 1): void {
    if (this.#closed) return
    this.#closed = true
    const { memory } = this.#tracking
    const shared = this.#shared
    const known = this.remembered + by
    if (shared === undefined) return this.#note(known + this.#inMemoryRetries)
    if (memory.isAmbiguous(this.key)) {
      // With an ambiguous key, another message would use this record as its own.
      shared.end()
      return this.#note(this.#sharedFailures + known + this.#inMemoryRetries)
    }
    if (by === 1) shared.keep()
    else shared.undo()
    this.#note(this.#inMemoryRetries + (this.#isRecorded ? 0 : known))
  }

  #note(failures: number): void {
    if (failures === 0) return
    const { memory, time } = this.#tracking
    memory.add(this.key, failures, this.#shared !== undefined, this.firstFailedAt ?? time)
  }

  /** The message is finished: nothing about it has to be remembered. */
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

  /** Whether its channel ended, or the broker took it back, before it was settled. */
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

  /** Settles the delivery synchronously. Returns the reason if that was not possible. */
  settle(how: Settlement, operation: string = operations[how]): AmqpError.AmqpErrorReason | undefined {
    const channel = this.#channel
    if (this.isSettled) {
      if (this.isLost) {
        if (how === "ack") this.forget()
        else this.#comesBack(how === "giveBack" ? 0 : 1)
      }
      return this.#alreadySettled(operation)
    }
    try {
      const isBack = how === "requeue" || how === "redeliver" || how === "giveBack"
      if (operation === "basic.reject") {
        channel.reject(this.tag, isBack)
        channel.unsettled.delete(this.tag)
      } else if (isBack && channel.defersRequeues) channel.deferredRequeues.add(this.tag)
      else if (isBack || how === "discard") {
        channel.nack(this.tag, false, isBack)
        channel.unsettled.delete(this.tag)
      } else channel.acknowledge(this.tag)
    } catch {
      // The channel is closing and sends nothing any more.
      return this.#alreadySettled(operation)
    }
    this.#settled = true
    if (how === "requeue" || how === "redeliver") this.#comesBack(1)
    else if (how === "giveBack") this.#comesBack(0)
    else if (this.redelivered) this.forget()
    const { settled } = this.#measures
    if (how === "ack") settled.acked++
    else settled[settledMetric[how]]++
    return undefined
  }

  /** Acknowledges this delivery and all earlier ones of its channel. `settled` must contain all of them. */
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

  /** Counts a delivery that was handled and can no longer be settled. */
  countLost(): void {
    this.#measures.settled.lost++
  }

  #alreadySettled(operation: string): AmqpError.AmqpErrorReason {
    return new AmqpError.DeliverySettled({
      message: this.#settled
        ? `${operation}: expected an unsettled delivery, got one that was settled before. Nothing was sent.`
        : this.#channel.isOpen
          ? `${operation}: the broker has taken this delivery back, because it was not settled within the consumer timeout: it will be delivered again. Nothing was sent. Settle sooner, lower prefetch, or raise consumerTimeout.`
          : `${operation}: the channel of this delivery has closed, and the broker has requeued it: it will be delivered again. Nothing was sent.`,
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
    back: ReturnSettlement,
    options: { readonly requeue?: boolean | undefined } | undefined
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const flags = readFlags(operation, options, { requeue: true })
    if (isInvalidArgument(flags)) return fail(flags)
    return this.#settling(flags.requeue ? back : "discard", operation)
  }
}

/**
 * Acknowledges the deliveries of a batch that are not settled yet, with `multiple` as far as that covers no other
 * delivery. All deliveries of a batch belong to one channel and are in the order of their arrival.
 */
export const acknowledgeAll = (batch: ReadonlyArray<ConsumerDelivery>): void => {
  const left = batch.filter((delivery) => !delivery.isSettled)
  if (left.length === 0) return
  const { hasReleased, unsettled } = left[0]!.channel
  // The channel holds its unsettled deliveries in the order of their tags, like the batch.
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
