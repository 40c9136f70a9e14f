/**
 * Settles a delivery according to the exit of its handler. Settling never fails: if an operation fails, the delivery is
 * settled in another way, or returned to its queue.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { AmqpError } from "../../model/error.ts"
import { type Failure, failureOf } from "../message/failure.ts"
import { acknowledgeAll, type ConsumerDelivery, type ReturnSettlement } from "./delivery.ts"
import type { HandlerSettings } from "./options.ts"
import { formatValue } from "../wire/optionTable.ts"
import { type PolicyChoice, isPolicy, type RetryPlan, retryPlanOf } from "./policyOptions.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import { requeuesLeft } from "../channel/deliveryLimits.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import { consumerTimeoutOf } from "./consumerTimeout.ts"
import type { Republisher } from "./republisher.ts"
import type { DeadLetterPublisher, RejectedBecause } from "./deadLetterPublisher.ts"
import type { RetainedDeliveries } from "./retainedDeliveries.ts"
import { pauseAfter, type PausedDeliveries } from "./pausedDeliveries.ts"
import { drop, type FinalPolicy, type Policy, redeliver, type RetryOptions } from "../../model/policies.ts"
import * as Logging from "../telemetry/logging.ts"
import { isRefusal } from "./forwardingPublisher.ts"
import type { LogLimiter } from "../telemetry/logLimiter.ts"
import type { RetryPublisher } from "./retryPublisher.ts"

/** Makes a part of an uninterruptible region interruptible. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * The fraction of the consumer timeout for which a paused or retained delivery may be held. The rest of the time is
 * left for the deliveries that wait behind it.
 */
const maxHeldFraction = 3 / 4

/** Longest message of a failure in a line of the log, in characters. */
const longestReason = 1000

export class Settling {
  /** Whether handlers are being interrupted because the consumer ends. */
  stopping = false
  readonly #queue: string
  readonly #settings: HandlerSettings
  readonly #retryPublisher: RetryPublisher
  readonly #pauses: PausedDeliveries
  readonly #retained: RetainedDeliveries
  readonly #republisher: Republisher
  readonly #deadLetters: DeadLetterPublisher
  /** Why dead letters were rejected instead of published, as far as the log says so. */
  readonly #said = new Set<RejectedBecause>()
  readonly #deadlines: Deadlines
  readonly #internals: ConnectionInternals
  readonly #logLimiter: LogLimiter
  readonly #oldestPrefetchedAt: () => number
  readonly #onRetained: () => void
  readonly #onDeadLetter: (tag: string) => void
  readonly #plans = new WeakMap<RetryOptions, RetryPlan>()

  constructor(options: {
    readonly settings: HandlerSettings
    readonly retryPublisher: RetryPublisher
    readonly pauses: PausedDeliveries
    readonly retained: RetainedDeliveries
    readonly republisher: Republisher
    readonly deadLetters: DeadLetterPublisher
    readonly deadlines: Deadlines
    readonly internals: ConnectionInternals
    readonly logLimiter: LogLimiter
    /** Arrival time of the oldest delivery that waits to be handled; `Infinity` if none waits. */
    readonly oldestPrefetchedAt: () => number
    /** Called when the first delivery is retained. */
    readonly onRetained: () => void
    /** Called with the tag of the failure when a delivery is dead-lettered. */
    readonly onDeadLetter: (tag: string) => void
  }) {
    this.#queue = options.settings.start.queue
    this.#settings = options.settings
    this.#retryPublisher = options.retryPublisher
    this.#pauses = options.pauses
    this.#retained = options.retained
    this.#republisher = options.republisher
    this.#deadLetters = options.deadLetters
    this.#deadlines = options.deadlines
    this.#internals = options.internals
    this.#logLimiter = options.logLimiter
    this.#oldestPrefetchedAt = options.oldestPrefetchedAt
    this.#onRetained = options.onRetained
    this.#onDeadLetter = options.onDeadLetter
  }

  /** Whether this delivery is paused or retained: it is settled later, and not by the worker that has handled it. */
  isHeld(delivery: ConsumerDelivery): boolean {
    return this.#pauses.has(delivery) || this.#retained.has(delivery)
  }

  /** Declares the delay queues of the policies that are known in advance. */
  readonly prepare: Effect.Effect<void, AmqpError> = Effect.suspend(() => {
    const { onDecodeFailure, onDefect, onFailure } = this.#settings
    const delays = [onFailure, onDefect, onDecodeFailure].flatMap((choice) =>
      typeof choice === "object" && choice._tag === "Retry" ? this.#planOf(choice.options).delays : []
    )
    return Effect.forEach(delays, (delay) => this.#retryPublisher.declare(delay), { discard: true })
  })

  // Throws if the `retry` options are invalid. That is possible only for a policy that a function returned: the other
  // policies are checked when the consumer starts.
  #planOf(options: RetryOptions): RetryPlan {
    const known = this.#plans.get(options)
    if (known !== undefined) return known
    const plan = retryPlanOf(this.#queue, options, "retry")
    if ("argument" in plan) throw plan
    this.#plans.set(options, plan)
    return plan
  }

  /** Settles a delivery whose handler has succeeded, unless the handler has settled it. */
  succeeded(delivery: ConsumerDelivery): Effect.Effect<void> {
    if (!delivery.isSettled) delivery.settle("ack")
    return delivery.isLost ? this.#countLost([delivery]) : Effect.void
  }

  allSucceeded(batch: ReadonlyArray<ConsumerDelivery>): Effect.Effect<void> {
    acknowledgeAll(batch)
    const lost = batch.filter((delivery) => delivery.isLost)
    return lost.length > 0 ? this.#countLost(lost) : Effect.void
  }

  /** Settles a delivery whose handler has failed, died or been interrupted. */
  failed(delivery: ConsumerDelivery, cause: Cause.Cause<unknown>, restore: Restore): Effect.Effect<void> {
    return this.#notHandled(delivery, cause, this.#settings.onFailure, "AMQP delivery failed", restore)
  }

  /** Settles a delivery whose content does not match the schema. */
  undecodable(delivery: ConsumerDelivery, cause: Cause.Cause<unknown>, restore: Restore): Effect.Effect<void> {
    return this.#notHandled(
      delivery,
      cause,
      this.#settings.onDecodeFailure,
      "AMQP delivery could not be decoded",
      restore
    )
  }

  /** Whether the delivery has been handled too often to be handled again. */
  isPoison(delivery: ConsumerDelivery): boolean {
    const { maxDeliveries } = this.#settings
    return maxDeliveries !== Infinity && delivery.attempt > maxDeliveries
  }

  giveUpPoison(delivery: ConsumerDelivery, restore: Restore): Effect.Effect<void> {
    const { maxDeliveries, onPoison } = this.#settings
    const message = `${maxDeliveries} attempts to handle the message have begun without success (maxDeliveries)`
    return Effect.andThen(
      this.#log("AMQP delivery given up: maxDeliveries is reached", delivery, this.#outcomeOf(onPoison, delivery)),
      this.#finish(delivery, onPoison, { tag: "MaxDeliveries", message }, restore)
    )
  }

  #notHandled(
    delivery: ConsumerDelivery,
    cause: Cause.Cause<unknown>,
    onFailure: PolicyChoice,
    title: string,
    restore: Restore
  ): Effect.Effect<void> {
    if (this.stopping && Cause.hasInterrupts(cause)) {
      this.giveBack(delivery)
      return Effect.void
    }
    const error = Cause.findError(cause)
    const defect = Cause.findDefect(cause)
    if (Result.isFailure(error) && Result.isFailure(defect)) {
      // The handler has interrupted its own fiber, or joined a fiber that was interrupted.
      return Effect.andThen(
        this.#log(
          "AMQP handler was interrupted before it finished, although its consumer is not stopping",
          delivery,
          this.#outcomeOf(redeliver, delivery)
        ),
        this.#redeliver(delivery, restore)
      )
    }
    const isExpected = Result.isSuccess(error)
    const value = isExpected ? error.success : (defect as Result.Success<unknown, never>).success
    const failure = failureOf(value)
    const log = (outcome: string) =>
      // A planned retry is part of normal operation: the handler's failure matters when it has failed for the last time.
      outcome === "retried" && isExpected
        ? this.#log(title, delivery, outcome, { isPlanned: true, failure })
        : this.#log(title, delivery, outcome, { cause, isError: !isExpected, error: failure.tag })
    // The handler has settled the delivery, or its channel has ended: no policy applies.
    if (delivery.isSettled) {
      if (delivery.isLost) {
        delivery.countLost()
        delivery.remember()
        return log("requeued by the broker")
      }
      return log("settled by the handler")
    }
    const policy = this.#choose(isExpected ? onFailure : this.#settings.onDefect, value, delivery)
    const outcome = this.#outcomeOf(policy._tag === "InvalidPolicy" ? redeliver : policy, delivery)
    return Effect.andThen(log(outcome), this.#apply(delivery, policy, failure, restore))
  }

  #choose(choice: PolicyChoice, value: unknown, delivery: ConsumerDelivery): Policy | InvalidPolicy {
    if (typeof choice !== "function") return choice
    try {
      const policy: unknown = choice(value as never, delivery)
      if (!isPolicy(policy)) {
        throw new TypeError(
          `policy: expected redeliver, requeue, deadLetter, drop or retry, got ${formatValue(policy)}`
        )
      }
      if (policy._tag === "Retry") this.#planOf(policy.options)
      return policy
    } catch (cause) {
      return { _tag: "InvalidPolicy", cause }
    }
  }

  #apply(
    delivery: ConsumerDelivery,
    policy: Policy | InvalidPolicy,
    failure: Failure,
    restore: Restore
  ): Effect.Effect<void> {
    switch (policy._tag) {
      case "Redeliver":
        return this.#redeliver(delivery, restore)
      case "Requeue":
        return this.#pause(delivery, "requeue")
      case "DeadLetter":
      case "Drop":
        return this.#finish(delivery, policy, failure, restore)
      case "InvalidPolicy":
        return Effect.andThen(
          this.#log(
            "AMQP consumer uses the policy redeliver: the function that chooses a policy threw, or returned no policy. Correct the function",
            delivery,
            this.#outcomeOf(redeliver, delivery),
            { cause: Cause.die(policy.cause), isError: true, error: failureOf(policy.cause).tag }
          ),
          this.#redeliver(delivery, restore)
        )
      case "Retry":
        return this.#retry(delivery, this.#planOf(policy.options), failure, restore)
    }
  }

  #finish(delivery: ConsumerDelivery, policy: FinalPolicy, failure: Failure, restore: Restore): Effect.Effect<void> {
    if (policy._tag === drop._tag) {
      delivery.settle("drop")
      return Effect.void
    }
    if (!delivery.isSettled) {
      this.#onDeadLetter(failure.tag)
      return this.#deadLetter(delivery, failure, restore)
    }
    // Its channel has ended: the failure is recorded for the next delivery.
    delivery.settle("discard")
    return Effect.void
  }

  /**
   * Publishes a dead letter with its reason, and acknowledges the delivery when that is confirmed. If it cannot be
   * published, rejects the delivery: the broker then makes a dead letter without a reason.
   *
   * The same is done if the outcome is unknown, or if this is interrupted, because a further attempt to handle the
   * message is what the policy has excluded. The dead letter may then exist twice.
   */
  #deadLetter(delivery: ConsumerDelivery, failure: Failure, restore: Restore): Effect.Effect<void> {
    const { target } = this.#deadLetters
    if (typeof target === "string") {
      delivery.settle("discard")
      return this.#sayRejected(target)
    }
    return Effect.matchCauseEffect(restore(this.#deadLetters.publish(delivery, target, failure)), {
      onSuccess: () => {
        // If the channel has ended in the meantime, the broker delivers the original again, in addition to the copy.
        delivery.settle("deadLetter")
        return Effect.void
      },
      onFailure: (cause) => {
        delivery.settle("discard")
        const error = Cause.findError(cause)
        const tag = Result.isSuccess(error) ? error.success.reason._tag : undefined
        return this.#log(
          "AMQP dead letter has no reason: it could not be published to the dead-letter exchange, and was rejected",
          delivery,
          this.#rejected,
          {
            cause,
            isError: tag !== "PublishForbidden" && !Cause.hasInterrupts(cause),
            ...(tag !== undefined && { error: tag })
          }
        )
      }
    })
  }

  /** Says once why dead letters of this queue have no reason. */
  #sayRejected(because: RejectedBecause): Effect.Effect<void> {
    if (because !== "unknownQueue" || this.#said.has(because)) return Effect.void
    this.#said.add(because)
    return Effect.annotateLogs(
      Effect.logInfo(
        'AMQP dead letters of this queue have no reason: its dead-letter exchange is not known, because this application has not declared the queue. Declare it with AmqpTopology, or set deadLettering to the exchange, or to "reject"'
      ),
      { queue: this.#queue, consumerTag: this.#settings.start.consumerTag }
    )
  }

  #retry(delivery: ConsumerDelivery, plan: RetryPlan, failure: Failure, restore: Restore): Effect.Effect<void> {
    const { retries } = delivery
    if (retries >= plan.times) {
      return Effect.andThen(
        this.#log("AMQP delivery given up: all retries failed", delivery, this.#outcomeOf(plan.onExhausted, delivery), {
          failure
        }),
        this.#finish(delivery, plan.onExhausted, failure, restore)
      )
    }
    const delay = plan.delays[Math.min(retries, plan.delays.length - 1)]!
    return Effect.matchCauseEffect(restore(this.#retryPublisher.publish(delivery, delay, failure)), {
      onSuccess: () => {
        // If the channel has ended in the meantime, the broker delivers the original again, in addition to the retry.
        delivery.settle("retry")
        return Effect.void
      },
      onFailure: (cause) => {
        if (this.stopping && Cause.hasInterrupts(cause)) {
          this.giveBack(delivery)
          return Effect.void
        }
        const error = Cause.findError(cause)
        if (Result.isSuccess(error) && isRefusal(error.success.reason)) {
          const { message, reason } = error.success
          return Effect.andThen(
            Effect.annotateLogs(
              this.#log(
                "AMQP delivery given up: its retry was refused",
                delivery,
                this.#outcomeOf(plan.onExhausted, delivery),
                { cause, isError: true, error: reason._tag }
              ),
              { reason: message }
            ),
            this.#finish(delivery, plan.onExhausted, failure, restore)
          )
        }
        return Effect.andThen(
          this.#log("AMQP retry was not confirmed", delivery, this.#outcomeOf(redeliver, delivery), {
            cause,
            isError: true
          }),
          this.#redeliver(delivery, restore)
        )
      }
    })
  }

  /** How long a delivery may be held, in milliseconds from its arrival. */
  get #longestHeld(): number {
    return maxHeldFraction * consumerTimeoutOf(this.#internals.queues, this.#settings.start)
  }

  // Returns the delivery to its queue after a pause. This does not check the delivery limit, so the broker may remove
  // the message then.
  #pause(delivery: ConsumerDelivery, how: ReturnSettlement): Effect.Effect<void> {
    if (delivery.isSettled) return Effect.void
    const dueAt = this.#deadlines.now + pauseAfter(delivery.attempt)
    // The failure is recorded now, because the channel may end before the pause ends.
    delivery.remember()
    this.#pauses.add(delivery, Math.min(dueAt, delivery.arrivedAt + this.#longestHeld), how)
    // The delivery may be a retained one. It must not stay in that list, because the consumer handles nothing else
    // while a delivery is retained.
    this.#retained.release(delivery)
    return Effect.void
  }

  #redeliver(delivery: ConsumerDelivery, restore: Restore): Effect.Effect<void> {
    if (delivery.isSettled) return Effect.void
    if (this.#returnsLeft(delivery) > 1) return this.#pause(delivery, "redeliver")
    const dueAt = this.#deadlines.now + pauseAfter(delivery.attempt)
    if (this.#isHeldTooLong(delivery, dueAt)) {
      return this.#giveBackOrRepublish(delivery, "redeliver", restore(this.#republisher.publish(delivery)), (cause) => {
        this.#retained.retain(delivery, dueAt)
        return this.#log(
          "AMQP delivery is handled again from memory: it could not be published again, and a return would exceed the delivery limit of its queue",
          delivery,
          "retained",
          { cause, isError: true }
        )
      })
    }
    const isFirst = this.#retained.isEmpty
    delivery.countInMemoryRetry()
    this.#retained.retain(delivery, dueAt)
    if (!isFirst) return Effect.void
    this.#onRetained()
    return this.#log(
      "AMQP consumer paused: the delivery limit of its queue is reached, and the broker would remove the delivery on a further return. It is handled again from memory until that succeeds. Correct the handler, choose another policy, or give the queue a dead-letter exchange",
      delivery,
      "retained"
    )
  }

  /**
   * Whether retaining a delivery until `dueAt` would exceed the consumer timeout. If so, it must leave this process
   * now. The prefetched deliveries count too: if one of them exceeds the timeout, the broker closes the channel, which
   * returns the retained delivery too.
   */
  #isHeldTooLong(delivery: ConsumerDelivery, dueAt: number): boolean {
    return !this.stopping && dueAt >= Math.min(delivery.arrivedAt, this.#oldestPrefetchedAt()) + this.#longestHeld
  }

  /** What a policy does with this delivery now, in the words of the log. */
  #outcomeOf(policy: Policy, delivery: ConsumerDelivery): string {
    switch (policy._tag) {
      case "Redeliver": {
        const left = this.#returnsLeft(delivery)
        if (left > 1) return "redelivered"
        if (!this.#isHeldTooLong(delivery, this.#deadlines.now + pauseAfter(delivery.attempt))) return "retained"
        return left > 0 ? "redelivered" : "published again"
      }
      case "Requeue":
        return "requeued"
      case "DeadLetter":
        return this.#rejected
      case "Drop":
        return "dropped"
      case "Retry": {
        const { onExhausted, times } = this.#planOf(policy.options)
        return delivery.retries >= times ? this.#outcomeOf(onExhausted, delivery) : "retried"
      }
    }
  }

  /** How often the delivery can still be returned to its queue. */
  #returnsLeft({ channel, properties }: ConsumerDelivery): number {
    const queue = this.#internals.queues.get(this.#queue)
    return requeuesLeft(channel.link.product, queue, properties.headers, this.#settings.deliveryLimit)
  }

  /**
   * Returns a delivery without a pause, because its handler was interrupted by the end of the consumer. If the broker
   * would remove the message at this return, the delivery is retained, and `giveBackRetained` returns it.
   */
  giveBack(delivery: ConsumerDelivery): void {
    if (delivery.isSettled) return
    if (this.#returnsLeft(delivery) > 0) delivery.settle("giveBack")
    else this.#retained.retain(delivery, Infinity)
  }

  /** Returns the retained deliveries when the consumer ends. `timeout` is in milliseconds. */
  giveBackRetained(timeout: number): Effect.Effect<void> {
    return Effect.suspend(() =>
      Effect.forEach(
        this.#retained.remaining,
        (delivery) =>
          this.#giveBackOrRepublish(
            delivery,
            "giveBack",
            Effect.timeout(this.#republisher.publish(delivery), timeout),
            (cause) => {
              delivery.settle("giveBack")
              return this.#log(
                "AMQP delivery returned beyond the delivery limit of its queue, because it could not be published again: it is lost unless the queue has a dead-letter exchange",
                delivery,
                "redelivered",
                { cause, isError: true }
              )
            }
          ),
        { concurrency: "unbounded", discard: true }
      )
    )
  }

  // Returns the delivery. If the broker would remove the message at this return, publishes a copy to the end of the
  // queue instead.
  #giveBackOrRepublish(
    delivery: ConsumerDelivery,
    how: "redeliver" | "giveBack",
    copy: Effect.Effect<void, unknown>,
    failed: (cause: Cause.Cause<unknown>) => Effect.Effect<void>
  ): Effect.Effect<void> {
    if (this.#returnsLeft(delivery) > 0) {
      delivery.settle(how)
      return Effect.void
    }
    return Effect.matchCauseEffect(copy, {
      onSuccess: () => {
        delivery.settle("retry")
        return this.#log(
          "AMQP delivery published again at the end of its queue: a return would exceed the delivery limit of the queue",
          delivery,
          "published again"
        )
      },
      onFailure: failed
    })
  }

  #countLost(lost: ReadonlyArray<ConsumerDelivery>): Effect.Effect<void> {
    for (const delivery of lost) {
      delivery.countLost()
      delivery.forget()
    }
    return Effect.annotateLogs(
      Effect.logDebug("AMQP deliveries were handled after their channel had closed: they will be delivered again"),
      { queue: this.#queue, deliveries: lost.length, ...Logging.channelAnnotations(lost[0]!.channel) }
    )
  }

  /** What the broker does with a rejected message, as far as this application knows the queue. */
  get #rejected(): string {
    if (typeof this.#deadLetters.target === "object") return "dead-lettered"
    const queue = this.#internals.queues.get(this.#queue)
    if (queue === undefined) return "rejected (dead-lettered only if the queue has a dead-letter exchange)"
    return queue.arguments["x-dead-letter-exchange"] === undefined
      ? "rejected (dropped unless a policy gives the queue a dead-letter exchange)"
      : "dead-lettered"
  }

  /** Writes a log line about a delivery, unless the limiter has counted too many lines of the same kind. */
  #log(
    title: string,
    delivery: ConsumerDelivery,
    outcome: string,
    about: {
      readonly cause?: Cause.Cause<unknown>
      readonly isError?: boolean
      /** Whether this is part of normal operation. */
      readonly isPlanned?: boolean
      /** Why the handler has failed, for a line without a cause. */
      readonly failure?: Failure
      /** The tag of the error. */
      readonly error?: string
    } = {}
  ): Effect.Effect<void> {
    const { cause, failure, isError = false, isPlanned = false } = about
    const { error = failure?.tag } = about
    return this.#logLimiter.write(
      { title, isError, error, policy: outcome },
      Effect.suspend(() => {
        const { attempt, channel, exchange, properties, routingKey } = delivery
        const log = isError ? Effect.logError : isPlanned ? Effect.logInfo : Effect.logWarning
        return Effect.annotateLogs(cause === undefined ? log(title) : log(title, cause), {
          queue: this.#queue,
          consumerTag: this.#settings.start.consumerTag,
          exchange,
          routingKey,
          messageId: properties.messageId,
          attempt,
          policy: outcome,
          ...(failure !== undefined && { error, reason: failure.message.slice(0, longestReason) }),
          ...Logging.channelAnnotations(channel)
        })
      })
    )
  }
}

/** The result of a policy function that threw, or that returned something other than a policy. */
interface InvalidPolicy {
  readonly _tag: "InvalidPolicy"
  readonly cause: unknown
}
