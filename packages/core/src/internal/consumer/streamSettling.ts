/**
 * Settles a delivery of a stream according to the exit of its handler. A stream takes nothing back and dead-letters
 * nothing. So a message that is not handled ends the consumer, is passed over, or is published elsewhere.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { AmqpConfig } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import { ownUserId } from "../message/copies.ts"
import { fromDelivery } from "../message/forward.ts"
import { type Message } from "../../model/message.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import * as Logging from "../telemetry/logging.ts"
import { failureOf } from "../message/failure.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import {
  deadLetterHeaders,
  type Detail,
  type FailedFacts,
  publishWithDetails,
  traceIdOfFailure
} from "./deadLetterHeaders.ts"
import type { Secrets } from "./retryHeaders.ts"
import { isStreamPolicy, type StreamPolicyChoice, type StreamHandling } from "./streamOptions.ts"
import { StreamDelivery } from "./streamDelivery.ts"
import type { PublishTo, StreamPolicy } from "../../model/streamPolicies.ts"
import { formatValue } from "../wire/optionTable.ts"
import type { LogLimiter } from "../telemetry/logLimiter.ts"
import type { StreamPosition } from "./streamPosition.ts"
import type { Restore, Settling } from "./settling.ts"

/** The outcomes of the policies, for the log: one spelling per outcome. */
const outcomes = { Stop: "stopped", Skip: "skipped", PublishTo: "published" } as const

/** The shortest and the longest pause between two attempts to publish, in milliseconds. */
const shortestPause = 1000
const longestPause = 30_000

export class StreamSettling implements Pick<Settling, keyof Settling> {
  stopping = false
  /** Streams need no declarations. */
  readonly prepare: Effect.Effect<void> = Effect.void
  readonly #position: StreamPosition
  readonly #handling: StreamHandling
  readonly #publisher: AmqpPublisher["Service"]
  readonly #config: AmqpConfig
  readonly #logLimiter: LogLimiter
  readonly #consumer: string
  readonly #secrets: Secrets
  readonly #clock: Clock.Clock

  constructor(options: {
    readonly position: StreamPosition
    readonly handling: StreamHandling
    readonly publisher: AmqpPublisher["Service"]
    readonly config: AmqpConfig
    readonly logLimiter: LogLimiter
    /** The name of the consumer. */
    readonly consumer: string
    readonly secrets: Secrets
    readonly clock: Clock.Clock
  }) {
    this.#position = options.position
    this.#handling = options.handling
    this.#publisher = options.publisher
    this.#config = options.config
    this.#logLimiter = options.logLimiter
    this.#consumer = options.consumer
    this.#secrets = options.secrets
    this.#clock = options.clock
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
    // A handler that has interrupted itself has not failed with its error type.
    const choice = Cause.hasFails(cause) ? onFailure : onDefect
    return this.#notHandled(delivery, cause, choice, "AMQP delivery failed", restore)
  }

  undecodable(delivery: ConsumerDelivery, cause: Cause.Cause<unknown>, restore: Restore): Effect.Effect<void> {
    const title = "AMQP delivery could not be decoded"
    const { onDecodeFailure, onDefect } = this.#handling
    return this.#notHandled(delivery, cause, Cause.hasFails(cause) ? onDecodeFailure : onDefect, title, restore)
  }

  /** A stream takes nothing back, so no delivery is held. */
  isHeld(): boolean {
    return false
  }

  giveBack(delivery: ConsumerDelivery): void {
    if (!delivery.isSettled) delivery.settle("giveBack")
  }

  giveBackRetained(): Effect.Effect<void> {
    return Effect.void
  }

  /** A stream does not count deliveries. */
  isPoison(): boolean {
    return false
  }

  giveUpPoison(): Effect.Effect<void> {
    return Effect.void
  }

  #notHandled(
    delivery: ConsumerDelivery,
    cause: Cause.Cause<unknown>,
    choice: StreamPolicyChoice,
    title: string,
    restore: Restore
  ): Effect.Effect<void> {
    // The message stays in the stream, and the next consumer begins with it.
    if (this.stopping && Cause.hasInterrupts(cause)) return Effect.void
    const value = Cause.squash(cause)
    const isError = !Cause.hasFails(cause)
    const log = (outcome: string) => this.#log(title, delivery, outcome, cause, isError, value)
    if (!(delivery instanceof StreamDelivery) || delivery.isSettled) return log("settled by the handler")
    const policy = this.#choose(choice, value, delivery)
    if (policy._tag === "InvalidPolicy") {
      return Effect.andThen(
        log(outcomes.Stop),
        Effect.suspend(() => {
          this.#stop(delivery, value)
          const title =
            "AMQP consumer stops: the function that chooses a policy threw, or returned no policy. Correct the function"
          return this.#log(title, delivery, outcomes.Stop, Cause.die(policy.cause), true, policy.cause)
        })
      )
    }
    return Effect.andThen(log(outcomes[policy._tag]), this.#apply(delivery, policy, value, restore))
  }

  #choose(choice: StreamPolicyChoice, value: unknown, delivery: StreamDelivery): StreamPolicy | InvalidPolicy {
    if (typeof choice !== "function") return choice
    try {
      const policy: unknown = choice(value as never, delivery)
      if (!isStreamPolicy(policy)) {
        throw new TypeError(
          `policy: expected stop, skip or publishTo, since the queue is a stream, got ${formatValue(policy)}`
        )
      }
      return policy
    } catch (cause) {
      return { _tag: "InvalidPolicy", cause }
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
        return Effect.withFiber((fiber) => {
          const now = this.#clock.currentTimeMillisUnsafe()
          const facts: FailedFacts = {
            queue: delivery.queue,
            offset: delivery.offset,
            origin: delivery,
            failure: failureOf(value),
            // A stream does not count deliveries, so each failure is the first one that is known.
            attempt: delivery.attempt,
            consumer: this.#consumer,
            firstAt: now,
            lastAt: now,
            traceId: traceIdOfFailure(fiber, delivery.properties.headers)
          }
          return this.#publish(delivery, policy, facts, shortestPause, restore)
        })
    }
  }

  #stop(delivery: StreamDelivery, cause: unknown, why = `its handler failed (${failureOf(cause).tag})`): void {
    const { offset, queue } = delivery
    this.#position.end(
      new AmqpError.StreamStopped({
        message:
          `basic.consume: the consumer of the stream ${JSON.stringify(queue)} has stopped at offset ${offset}: ${why}. ` +
          "No message was passed over. Remove the cause and start the consumer again, or choose skip or publishTo for such messages.",
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
    facts: FailedFacts,
    pause: number,
    restore: Restore
  ): Effect.Effect<void> {
    const publishing = publishWithDetails((detail) =>
      this.#publisher.publish(this.#message(delivery, policy, facts, detail), { mandatory: true })
    )
    return Effect.matchCauseEffect(restore(publishing), {
      onSuccess: () => {
        delivery.settle("publish")
        return Effect.void
      },
      onFailure: (cause) => {
        // The message was not passed over: the next consumer begins with it.
        if (Cause.hasInterrupts(cause)) return Effect.void
        const error = Cause.squash(cause)
        const log = (outcome: string) =>
          this.#log(
            "AMQP delivery of a stream could not be published by publishTo",
            delivery,
            outcome,
            cause,
            true,
            error
          )
        if (!AmqpError.isAmqpError(error) || !error.reason.isRetryable) {
          this.#stop(delivery, error, `it could not be published to ${targetOf(policy)} (${tagOf(error)})`)
          return log(outcomes.Stop)
        }
        return Effect.andThen(
          log("publish retried"),
          Effect.matchCauseEffect(restore(Effect.sleep(pause)), {
            onSuccess: () => this.#publish(delivery, policy, facts, Math.min(longestPause, 2 * pause), restore),
            onFailure: () => Effect.void
          })
        )
      }
    })
  }

  #message(delivery: StreamDelivery, policy: PublishTo, facts: FailedFacts, detail: Detail): Message {
    return fromDelivery(delivery, {
      exchange: policy.exchange,
      routingKey: policy.routingKey,
      headers: deadLetterHeaders(delivery, facts, this.#secrets, detail, false),
      expiration: undefined,
      userId: ownUserId(this.#config, delivery.properties.userId)
    })
  }

  /** Writes one log line about a delivery, unless enough similar lines were written. */
  #log(
    title: string,
    delivery: ConsumerDelivery,
    outcome: string,
    cause: Cause.Cause<unknown>,
    isError: boolean,
    error: unknown
  ): Effect.Effect<void> {
    return this.#logLimiter.write(
      { title, isError, error: failureOf(error).tag, policy: outcome },
      Effect.suspend(() => {
        const { channel, exchange, offset, properties, queue, routingKey } = delivery
        return Effect.annotateLogs((isError ? Effect.logError : Effect.logWarning)(title, cause), {
          queue,
          offset,
          exchange,
          routingKey,
          messageId: properties.messageId,
          policy: outcome,
          ...Logging.channelAnnotations(channel)
        })
      })
    )
  }
}

/** The function that should choose a policy threw, or returned something else. */
interface InvalidPolicy {
  readonly _tag: "InvalidPolicy"
  readonly cause: unknown
}

const targetOf = ({ exchange, routingKey }: PublishTo): string =>
  exchange === ""
    ? `the queue ${JSON.stringify(routingKey)}`
    : `the exchange ${JSON.stringify(exchange)} by ${JSON.stringify(routingKey)}`

const tagOf = (error: unknown): string =>
  AmqpError.isAmqpError(error) ? error.reason._tag : Predicate.isError(error) ? error.name : typeof error
