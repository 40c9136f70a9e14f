/**
 * How a handler's end settles a delivery of a stream. A stream takes nothing back and dead-letters nothing, so a message that
 * is not handled ends the consumer, is passed over, or is published elsewhere.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { AmqpConfig } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import { fromDelivery } from "../message/forward.ts"
import { type Message } from "../../model/message.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import * as Logging from "../telemetry/logging.ts"
import { type Failure, failureOf } from "../message/failure.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import { failedHeaders } from "./failedHeaders.ts"
import { isStreamPolicy, type StreamChoice, type StreamHandling } from "./streamOptions.ts"
import { StreamDelivery } from "./streamDelivery.ts"
import type { PublishTo, StreamPolicy } from "../../model/streamPolicies.ts"
import { stop } from "../../model/streamPolicies.ts"
import type { Repeats } from "./repeats.ts"
import type { StreamPosition } from "./streamPosition.ts"
import type { Restore, Settling } from "./settling.ts"

/** In milliseconds. */
const shortestPause = 1000
const longestPause = 30_000

export class StreamSettling implements Pick<Settling, keyof Settling> {
  stopping = false
  /** Streams need nothing declared. */
  readonly prepare: Effect.Effect<void> = Effect.void
  readonly #position: StreamPosition
  readonly #handling: StreamHandling
  readonly #publisher: AmqpPublisher["Service"]
  readonly #config: AmqpConfig
  readonly #repeats: Repeats

  constructor(
    position: StreamPosition,
    handling: StreamHandling,
    publisher: AmqpPublisher["Service"],
    config: AmqpConfig,
    repeats: Repeats
  ) {
    this.#position = position
    this.#handling = handling
    this.#publisher = publisher
    this.#config = config
    this.#repeats = repeats
  }

  succeeded(delivery: ConsumerDelivery): Effect.Effect<void> {
    if (!delivery.isSettled) delivery.settle("ack")
    return Effect.void
  }

  allSucceeded(batch: ReadonlyArray<ConsumerDelivery>): Effect.Effect<void> {
    for (const delivery of batch) if (!delivery.isSettled) delivery.settle("ack")
    return Effect.void
  }

  failed(delivery: ConsumerDelivery, cause: Cause.Cause<unknown>, restore: Restore): Effect.Effect<void> {
    const { onDefect, onFailure } = this.#handling
    // A handler that has interrupted itself has not failed as its type says.
    const choice = Cause.hasFails(cause) ? onFailure : onDefect
    return this.#notHandled(delivery, cause, choice, "AMQP delivery failed", restore)
  }

  undecodable(delivery: ConsumerDelivery, cause: Cause.Cause<unknown>, restore: Restore): Effect.Effect<void> {
    const title = "AMQP delivery could not be decoded"
    const { onDecodeFailure, onDefect } = this.#handling
    return this.#notHandled(delivery, cause, Cause.hasFails(cause) ? onDecodeFailure : onDefect, title, restore)
  }

  /** A stream takes nothing back, now or later. */
  isHeld(): boolean {
    return false
  }

  giveBack(delivery: ConsumerDelivery): void {
    if (!delivery.isSettled) delivery.settle("giveBack")
  }

  leave(): Effect.Effect<void> {
    return Effect.void
  }

  /** A stream counts no deliveries. */
  isPoison(): boolean {
    return false
  }

  poison(): Effect.Effect<void> {
    return Effect.void
  }

  #notHandled(
    delivery: ConsumerDelivery,
    cause: Cause.Cause<unknown>,
    choice: StreamChoice,
    title: string,
    restore: Restore
  ): Effect.Effect<void> {
    // It stays where it is, and the next consumer begins with it.
    if (this.stopping && Cause.hasInterrupts(cause)) return Effect.void
    const value = Cause.squash(cause)
    const isError = !Cause.hasFails(cause)
    const log = (policy: StreamPolicy | undefined) => this.#log(title, delivery, policy, cause, isError, value)
    if (!(delivery instanceof StreamDelivery) || delivery.isSettled) return log(undefined)
    const policy = this.#choose(choice, value, delivery)
    if (policy._tag === "Misfit") {
      return Effect.andThen(
        log(stop),
        Effect.suspend(() => {
          this.#stop(delivery, value)
          const title = "AMQP consumer has no policy for a failure: choosing it failed"
          return this.#log(title, delivery, stop, Cause.die(policy.cause), true, policy.cause)
        })
      )
    }
    return Effect.andThen(log(policy), this.#apply(delivery, policy, value, restore))
  }

  #choose(choice: StreamChoice, value: unknown, delivery: StreamDelivery): StreamPolicy | Misfit {
    if (typeof choice !== "function") return choice
    try {
      const policy: unknown = choice(value as never, delivery)
      if (!isStreamPolicy(policy)) throw new TypeError("the policy of a stream must be stop, skip or publishTo")
      return policy
    } catch (cause) {
      return { _tag: "Misfit", cause }
    }
  }

  #apply(delivery: StreamDelivery, policy: StreamPolicy, value: unknown, restore: Restore): Effect.Effect<void> {
    switch (policy._tag) {
      case "Stop":
        this.#stop(delivery, value)
        return Effect.void
      case "Skip":
        delivery.settle("skip")
        return Effect.void
      case "PublishTo":
        return this.#publish(delivery, policy, failureOf(value), shortestPause, restore)
    }
  }

  #stop(delivery: StreamDelivery, cause: unknown, why = `its handler failed (${failureOf(cause).tag})`): void {
    const { offset, queue } = delivery
    this.#position.end(
      new AmqpError.StreamStopped({
        message:
          `basic.consume: the consumer of the stream ${JSON.stringify(queue)} has stopped at offset ${offset}: ${why}. ` +
          "Nothing was passed over. Consume again when the reason is removed, or choose skip or publishTo for such messages.",
        operation: "basic.consume",
        queue,
        offset,
        cause
      })
    )
  }

  #publish(
    delivery: StreamDelivery,
    policy: PublishTo,
    failure: Failure,
    pause: number,
    restore: Restore
  ): Effect.Effect<void> {
    const publish = (failure: Failure | undefined) =>
      this.#publisher.publish(this.#message(delivery, policy, failure), { mandatory: true })
    const publishing = publish(failure).pipe(
      // The headers were nearly as large as may be already: it has to do without the error.
      Effect.catchReason("AmqpError", "InvalidArgument", () => publish(undefined))
    )
    return Effect.matchCauseEffect(restore(publishing), {
      onSuccess: () => {
        delivery.settle("publish")
        return Effect.void
      },
      onFailure: (cause) => {
        // It was not passed over: the next consumer begins with it.
        if (Cause.hasInterrupts(cause)) return Effect.void
        const error = Cause.squash(cause)
        const log = (policy: StreamPolicy) =>
          this.#log("AMQP delivery of a stream was not published elsewhere", delivery, policy, cause, true, error)
        if (!AmqpError.isAmqpError(error) || !error.reason.isRetryable) {
          this.#stop(delivery, error, `it could not be published to ${targetOf(policy)} (${tagOf(error)})`)
          return log(stop)
        }
        return Effect.andThen(
          log(policy),
          Effect.matchCauseEffect(restore(Effect.sleep(pause)), {
            onSuccess: () => this.#publish(delivery, policy, failure, Math.min(longestPause, 2 * pause), restore),
            onFailure: () => Effect.void
          })
        )
      }
    })
  }

  #message(delivery: StreamDelivery, policy: PublishTo, failure: Failure | undefined): Message {
    const { userId } = delivery.properties
    const { credentials } = this.#config
    return fromDelivery(delivery, {
      exchange: policy.exchange,
      routingKey: policy.routingKey,
      headers: failedHeaders(delivery, failure),
      expiration: undefined,
      userId: credentials._tag === "Plain" && credentials.username === userId ? userId : undefined
    })
  }

  /** One line about a delivery, unless there were enough like it. */
  #log(
    title: string,
    delivery: ConsumerDelivery,
    policy: StreamPolicy | undefined,
    cause: Cause.Cause<unknown>,
    isError: boolean,
    error: unknown
  ): Effect.Effect<void> {
    return this.#repeats.write(
      { title, isError, error: failureOf(error).tag, policy: policy?._tag },
      Effect.suspend(() => {
        const { channel, exchange, offset, properties, queue, routingKey } = delivery
        return Effect.annotateLogs((isError ? Effect.logError : Effect.logWarning)(title, cause), {
          queue,
          offset,
          exchange,
          routingKey,
          messageId: properties.messageId,
          policy: policy?._tag,
          ...Logging.ofChannel(channel)
        })
      })
    )
  }
}

/** A function that was to choose a policy threw, or returned something else. */
interface Misfit {
  readonly _tag: "Misfit"
  readonly cause: unknown
}

const targetOf = ({ exchange, routingKey }: PublishTo): string =>
  exchange === ""
    ? `the queue ${JSON.stringify(routingKey)}`
    : `the exchange ${JSON.stringify(exchange)} by ${JSON.stringify(routingKey)}`

const tagOf = (error: unknown): string =>
  AmqpError.isAmqpError(error) ? error.reason._tag : Predicate.isError(error) ? error.name : typeof error
