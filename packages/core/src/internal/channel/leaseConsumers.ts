/** The consumers of one lease. Each puts its deliveries into a queue that the borrower reads. */
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
import { asChannelClosed } from "./channelHandle.ts"

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

  /** Whether the broker has cancelled the consumer. */
  get hasEnded(): boolean {
    return this.#cancelledByBroker
  }

  deliver(message: DeliveredMessage): void {
    if (this.isOfStream) this.#channel.trackStreamDelivery(message.deliveryTag)
    Queue.offerUnsafe(this.deliveries, makeDelivery(this.#channel, message, this.isOfStream))
  }

  cancelled(consumerTag: string): void {
    this.#cancelledByBroker = true
    const mayBeTimeout = cancelsForTimeout(this.#channel.link.product, this.#queues.get(this.#queue))
    const held = { held: undefined, timeout: undefined, isTimeout: false }
    this.end(consumerCancelled(this.#queue, consumerTag, mayBeTimeout ? held : undefined))
  }

  closed(reason: AmqpError.AmqpErrorReason): void {
    this.end(this.#channel.tooLarge ?? asChannelClosed(reason))
  }

  end(reason: AmqpError.AmqpErrorReason): void {
    Queue.failCauseUnsafe(this.deliveries, Cause.fail(AmqpError.fromReason(reason)))
  }
}

export class LeaseConsumers {
  /** Running consumers by their tags. */
  readonly #running = new Map<string, LeaseConsumer>()
  /** The tags of consumers that are being started. */
  readonly #reserved = new Set<string>()

  get(consumerTag: string): LeaseConsumer | undefined {
    return this.#running.get(consumerTag)
  }

  /**
   * Starts a consumer with a given tag. The tag is reserved first, because the broker closes the whole connection if
   * another consumer of the channel has it (530).
   */
  startNamed<A>(
    consumerTag: string,
    start: Effect.Effect<A, AmqpError.AmqpError>
  ): Effect.Effect<A, AmqpError.AmqpError> {
    return Effect.acquireUseRelease(
      Effect.suspend(() => {
        // The tag of a consumer that the broker has cancelled is free again, and its entry is replaced.
        if (this.#running.get(consumerTag)?.hasEnded !== false && !this.#reserved.has(consumerTag)) {
          this.#reserved.add(consumerTag)
          return Effect.void
        }
        return fail(
          new AmqpError.InvalidArgument({
            message: `basic.consume: consumerTag: expected a tag that no other consumer of this channel has, got ${JSON.stringify(consumerTag)}. Nothing was sent.`,
            operation: "basic.consume",
            argument: "consumerTag"
          })
        )
      }),
      () => start,
      // An interrupted start keeps its reservation, because `basic.consume` may have reached the broker.
      (_, exit) =>
        Effect.sync(() => {
          if (!Exit.hasInterrupts(exit)) this.#reserved.delete(consumerTag)
        })
    )
  }

  started(consumerTag: string, consumer: LeaseConsumer): void {
    this.#running.set(consumerTag, consumer)
  }

  /** The borrower has cancelled the consumer. Deliveries that have arrived can still be read. */
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
