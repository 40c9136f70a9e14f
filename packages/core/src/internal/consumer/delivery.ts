/** A delivery of a consumer: it knows its channel, so that it is settled at most once, and nowhere else. */
import * as Effect from "effect/Effect"
import type { Delivery } from "../../AmqpConsumer.ts"
import * as AmqpError from "../../AmqpError.ts"
import type { DeliveredProperties } from "../../AmqpMessage.ts"
import type * as Amqplib from "../amqplib.ts"
import type { Channel } from "../channel.ts"
import { readFlags, isRefused } from "../declarations.ts"
import { fail } from "../handle.ts"
import { fromAmqplib } from "../properties.ts"
import type { ConsumerMeasures, Settled } from "../metrics/measures.ts"
import { attemptOf, originOf } from "./attempts.ts"

/** The ways to settle. A delivery that is dropped or tried again later is acknowledged. */
export type Settlement = "ack" | "drop" | "retry" | "requeue" | "discard"

const operations = {
  ack: "basic.ack",
  drop: "basic.ack",
  retry: "basic.ack",
  requeue: "basic.nack",
  discard: "basic.nack"
} as const

const counted: Record<Settlement, Settled> = {
  ack: "acked",
  drop: "dropped",
  retry: "retried",
  requeue: "requeued",
  discard: "dead_lettered"
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
  readonly #queue: string
  readonly #tag: number
  readonly #measures: ConsumerMeasures
  #settled = false
  /** How often it was handled again without having gone back to its queue. */
  #handledAgain = 0

  constructor(
    channel: Channel,
    queue: string,
    message: Amqplib.ConsumeMessage,
    arrivedAt: number,
    measures: ConsumerMeasures
  ) {
    const { fields } = message
    this.content = message.content
    this.properties = fromAmqplib(message.properties)
    const origin = originOf(queue, this.properties.headers)
    this.exchange = origin === undefined ? fields.exchange : origin.exchange
    this.routingKey = origin === undefined ? fields.routingKey : origin.routingKey
    this.redelivered = fields.redelivered
    this.arrivedAt = arrivedAt
    this.#channel = channel
    this.#queue = queue
    this.#tag = fields.deliveryTag
    this.#measures = measures
  }

  get attempt(): number {
    return attemptOf(this.#queue, this.properties.headers, this.redelivered) + this.#handledAgain
  }

  /** It is about to be handled again, from memory. */
  countAgain(): void {
    this.#handledAgain++
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
    return this.#queue
  }

  /** Settles at once; what it returns is why it could not. */
  settle(how: Settlement, operation: string = operations[how]): AmqpError.AmqpErrorReason | undefined {
    const channel = this.#channel
    if (this.isSettled) return this.#late(operation)
    try {
      if (how === "requeue" && channel.collectsReturns) channel.returning.add(this.tag)
      else if (how === "requeue" || how === "discard") {
        channel.nack(this.tag, false, how === "requeue")
        channel.unsettled.delete(this.tag)
      } else channel.acknowledge(this.tag)
    } catch {
      // amqplib is closing the channel, and sends nothing on it any more.
      return this.#late(operation)
    }
    this.#settled = true
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
    return this.#refuse("basic.nack", options)
  }

  reject(options?: { readonly requeue?: boolean | undefined }): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#refuse("basic.reject", options)
  }

  #refuse(
    operation: string,
    options: { readonly requeue?: boolean | undefined } | undefined
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const flags = readFlags(operation, options, { requeue: true })
    if (isRefused(flags)) return fail(flags)
    return this.#settling(flags.requeue ? "requeue" : "discard", operation)
  }
}

/**
 * Acknowledges what of a batch is not settled yet, with `multiple` as far as that covers nothing else. They are all of one
 * channel, in the order in which they came.
 */
export const acknowledgeAll = (batch: ReadonlyArray<ConsumerDelivery>): void => {
  const left = batch.filter((delivery) => !delivery.isSettled)
  if (left.length === 0) return
  // The channel knows its unsettled deliveries in the order of their tags, as the batch is.
  let covered = 0
  for (const tag of left[0]!.channel.unsettled) {
    if (tag !== left[covered]?.tag) break
    covered++
  }
  if (covered > 1) left[covered - 1]!.settleUpTo(left.slice(0, covered))
  else covered = 0
  for (const delivery of left.slice(covered)) delivery.settle("ack")
}
