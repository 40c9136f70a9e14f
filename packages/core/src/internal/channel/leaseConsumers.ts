/** The consumers of one lease: each puts its deliveries into a queue that its borrower reads. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import type { ConsumerStart } from "../../model/channel.ts"
import * as AmqpError from "../../model/error.ts"
import { fail } from "../../model/failures.ts"
import type { Delivery } from "../../model/message.ts"
import { isStream, type KnownQueues } from "../connection/knownQueues.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import type { Channel, ConsumerSink } from "./channel.ts"
import { cancelsForTimeout, consumerCancelled } from "./consumerCancelled.ts"
import { makeDelivery } from "./deliveries.ts"
import { diedOf } from "./handle.ts"

type Deliveries = Queue.Queue<Delivery, AmqpError.AmqpError | Cause.Done>

export class LeaseConsumer implements ConsumerSink {
  readonly deliveries: Deliveries
  readonly isOfStream: boolean
  readonly #channel: Channel
  readonly #queue: string
  readonly #queues: KnownQueues
  #cancelledByBroker = false

  constructor(channel: Channel, start: ConsumerStart, deliveries: Deliveries, queues: KnownQueues) {
    this.deliveries = deliveries
    this.isOfStream = isStream(queues, start.queue, start.arguments)
    this.#channel = channel
    this.#queue = start.queue
    this.#queues = queues
  }

  /** Whether the broker knows it no more. */
  get hasEnded(): boolean {
    return this.#cancelledByBroker
  }

  deliver(message: DeliveredMessage): void {
    if (this.isOfStream) this.#channel.countOfStream(message.deliveryTag)
    Queue.offerUnsafe(this.deliveries, makeDelivery(this.#channel, message, this.isOfStream))
  }

  cancelled(consumerTag: string): void {
    this.#cancelledByBroker = true
    const mayBeTimeout = cancelsForTimeout(this.#channel.link.product, this.#queues.get(this.#queue))
    const held = { held: undefined, timeout: undefined, isTimeout: false }
    this.end(consumerCancelled(this.#queue, consumerTag, mayBeTimeout ? held : undefined))
  }

  closed(reason: AmqpError.AmqpErrorReason): void {
    this.end(this.#channel.refused ?? diedOf(reason))
  }

  end(reason: AmqpError.AmqpErrorReason): void {
    Queue.failCauseUnsafe(this.deliveries, Cause.fail(AmqpError.fromReason(reason)))
  }
}

export class LeaseConsumers {
  /** By their tags. */
  readonly #running = new Map<string, LeaseConsumer>()
  /** The tags of consumers that are being started. */
  readonly #reserved = new Set<string>()

  get(consumerTag: string): LeaseConsumer | undefined {
    return this.#running.get(consumerTag)
  }

  /** Starts one with a name: the broker closes the whole connection for a tag that is taken (530), so it is reserved first. */
  startNamed<A>(
    consumerTag: string,
    start: Effect.Effect<A, AmqpError.AmqpError>
  ): Effect.Effect<A, AmqpError.AmqpError> {
    return Effect.acquireUseRelease(
      Effect.suspend(() => {
        // The broker knows one that it has cancelled no more: its tag is free, and its entry is replaced.
        if (this.#running.get(consumerTag)?.hasEnded !== false && !this.#reserved.has(consumerTag)) {
          this.#reserved.add(consumerTag)
          return Effect.void
        }
        return fail(
          new AmqpError.InvalidArgument({
            message: `basic.consume: consumerTag: wants one that no other consumer of this channel has, got ${JSON.stringify(consumerTag)}. Nothing was sent.`,
            operation: "basic.consume",
            argument: "consumerTag"
          })
        )
      }),
      () => start,
      // Interrupted, it may have reached the broker.
      (_, exit) =>
        Effect.sync(() => {
          if (!Exit.hasInterrupts(exit)) this.#reserved.delete(consumerTag)
        })
    )
  }

  started(consumerTag: string, consumer: LeaseConsumer): void {
    this.#running.set(consumerTag, consumer)
  }

  /** It was cancelled by its borrower: what has come can still be read. */
  cancelled(consumerTag: string, consumer: LeaseConsumer): void {
    if (this.#running.get(consumerTag) === consumer) this.#running.delete(consumerTag)
    Queue.endUnsafe(consumer.deliveries)
  }

  /** The lease has ended. */
  end(reason: AmqpError.AmqpErrorReason): void {
    for (const consumer of this.#running.values()) consumer.end(reason)
    this.#running.clear()
  }
}
