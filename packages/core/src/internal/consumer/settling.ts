/** How a handler's end settles its delivery. Nothing here fails: whatever goes wrong, a delivery is settled or requeued. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { AmqpError } from "../../AmqpError.ts"
import { type Failure, failureOf, retriesOf } from "./attempts.ts"
import { acknowledgeAll, type ConsumerDelivery } from "./delivery.ts"
import { type Choice, type Handling, isPolicy, type Plan, planOf } from "./options.ts"
import { pauseAfter, type Pauses } from "./pauses.ts"
import { drop, type FinalPolicy, type Policy, redeliver, type RetryOptions } from "./policies.ts"
import * as Logging from "../logging.ts"
import type { Retrying } from "./retrying.ts"

/** Makes interruptible what may be, in an uninterruptible region. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

export class Settling {
  /** Whether handlers are being interrupted by the consumer's end. */
  stopping = false
  readonly #queue: string
  readonly #settings: Handling
  readonly #retrying: Retrying
  readonly #pauses: Pauses
  readonly #plans = new WeakMap<RetryOptions, Plan>()

  constructor(queue: string, settings: Handling, retrying: Retrying, pauses: Pauses) {
    this.#queue = queue
    this.#settings = settings
    this.#retrying = retrying
    this.#pauses = pauses
  }

  /** Whether this delivery goes back later, without the help of a worker. */
  isPaused(delivery: ConsumerDelivery): boolean {
    return this.#pauses.has(delivery)
  }

  /** Declares the delay queues of the policies that are known beforehand. */
  readonly prepare: Effect.Effect<void, AmqpError> = Effect.suspend(() => {
    const { onDecodeFailure, onDefect, onFailure } = this.#settings
    const delays = [onFailure, onDefect, onDecodeFailure].flatMap((choice) =>
      typeof choice === "object" && choice._tag === "Retry" ? this.#planOf(choice.options).delays : []
    )
    return Effect.forEach(delays, (delay) => this.#retrying.declare(delay), { discard: true })
  })

  // Throws for what `retry` was given by a function: the others were checked before.
  #planOf(options: RetryOptions): Plan {
    const known = this.#plans.get(options)
    if (known !== undefined) return known
    const plan = planOf(this.#queue, options, "retry")
    if ("argument" in plan) throw plan
    this.#plans.set(options, plan)
    return plan
  }

  /** A handler has succeeded, or has settled the delivery itself. */
  succeeded(delivery: ConsumerDelivery): Effect.Effect<void> {
    if (!delivery.isSettled) delivery.settle("ack")
    return delivery.isLost ? this.#tooLate([delivery]) : Effect.void
  }

  allSucceeded(batch: ReadonlyArray<ConsumerDelivery>): Effect.Effect<void> {
    acknowledgeAll(batch)
    const lost = batch.filter((delivery) => delivery.isLost)
    return lost.length > 0 ? this.#tooLate(lost) : Effect.void
  }

  /** A handler has failed, died or been interrupted. */
  failed(delivery: ConsumerDelivery, cause: Cause.Cause<unknown>, restore: Restore): Effect.Effect<void> {
    return this.#notHandled(delivery, cause, this.#settings.onFailure, "AMQP delivery failed", restore)
  }

  /** Its content is not what the schema wants. */
  undecodable(delivery: ConsumerDelivery, cause: Cause.Cause<unknown>, restore: Restore): Effect.Effect<void> {
    return this.#notHandled(
      delivery,
      cause,
      this.#settings.onDecodeFailure,
      "AMQP delivery could not be decoded",
      restore
    )
  }

  /** Whether it has been delivered too often to be handled once more. */
  isPoison(delivery: ConsumerDelivery): boolean {
    const { maxDeliveries } = this.#settings
    return maxDeliveries !== Infinity && delivery.attempt > maxDeliveries
  }

  poison(delivery: ConsumerDelivery): Effect.Effect<void> {
    const { onPoison } = this.#settings
    this.#finish(delivery, onPoison)
    const log = Effect.logWarning("AMQP delivery given up, delivered too often")
    return this.#annotate(log, delivery, onPoison)
  }

  #notHandled(
    delivery: ConsumerDelivery,
    cause: Cause.Cause<unknown>,
    onFailure: Choice,
    title: string,
    restore: Restore
  ): Effect.Effect<void> {
    if (this.stopping && Cause.hasInterrupts(cause)) {
      delivery.settle("requeue")
      return Effect.void
    }
    const error = Cause.findError(cause)
    const defect = Cause.findDefect(cause)
    if (Result.isFailure(error) && Result.isFailure(defect)) {
      // It has interrupted itself, or joined a fiber that was interrupted.
      this.#redeliver(delivery)
      return this.#annotate(Effect.logWarning("AMQP handler interrupted, delivery requeued"), delivery, redeliver)
    }
    const isExpected = Result.isSuccess(error)
    const value = isExpected ? error.success : (defect as Result.Success<unknown, never>).success
    const log = (isExpected ? Effect.logWarning : Effect.logError)(title, cause)
    // The handler has settled it, or its channel has ended: there is nothing to choose.
    if (delivery.isSettled) {
      if (delivery.isLost) delivery.countLost()
      return this.#annotate(log, delivery, undefined)
    }
    const policy = this.#choose(isExpected ? onFailure : this.#settings.onDefect, value, delivery)
    return Effect.andThen(
      this.#annotate(log, delivery, policy),
      this.#apply(delivery, policy, failureOf(value), restore)
    )
  }

  #choose(choice: Choice, value: unknown, delivery: ConsumerDelivery): Policy | Misfit {
    if (typeof choice !== "function") return choice
    try {
      const policy: unknown = choice(value as never, delivery)
      if (!isPolicy(policy)) throw new TypeError("a policy must be redeliver, requeue, deadLetter, drop or retry")
      if (policy._tag === "Retry") this.#planOf(policy.options)
      return policy
    } catch (cause) {
      return { _tag: "Misfit", cause }
    }
  }

  #apply(delivery: ConsumerDelivery, policy: Policy | Misfit, failure: Failure, restore: Restore): Effect.Effect<void> {
    switch (policy._tag) {
      case "Redeliver":
        this.#redeliver(delivery)
        return Effect.void
      case "Requeue":
        delivery.settle("requeue")
        return Effect.void
      case "DeadLetter":
      case "Drop":
        this.#finish(delivery, policy)
        return Effect.void
      case "Misfit":
        this.#redeliver(delivery)
        return this.#annotate(
          Effect.logError("AMQP consumer has no policy for a failure: choosing it failed", Cause.die(policy.cause)),
          delivery,
          redeliver
        )
      case "Retry":
        return this.#retry(delivery, this.#planOf(policy.options), failure, restore)
    }
  }

  #finish(delivery: ConsumerDelivery, policy: FinalPolicy): void {
    delivery.settle(policy._tag === drop._tag ? "drop" : "discard")
  }

  #retry(delivery: ConsumerDelivery, plan: Plan, failure: Failure, restore: Restore): Effect.Effect<void> {
    const retries = retriesOf(this.#queue, delivery.properties.headers)
    if (retries >= plan.times) {
      this.#finish(delivery, plan.then)
      return this.#annotate(Effect.logWarning("AMQP delivery given up, all retries failed"), delivery, plan.then)
    }
    const delay = plan.delays[Math.min(retries, plan.delays.length - 1)]!
    return Effect.matchCauseEffect(restore(this.#retrying.publish(delivery, delay, failure)), {
      onSuccess: () => {
        // If its channel has ended meanwhile, the broker delivers it again, beside the retry.
        delivery.settle("retry")
        return Effect.void
      },
      onFailure: (cause) => {
        if (this.stopping && Cause.hasInterrupts(cause)) {
          delivery.settle("requeue")
          return Effect.void
        }
        this.#redeliver(delivery)
        return this.#annotate(
          Effect.logError("AMQP retry not confirmed, delivery requeued", cause),
          delivery,
          redeliver
        )
      }
    })
  }

  #redeliver(delivery: ConsumerDelivery): void {
    this.#pauses.add(delivery, pauseAfter(delivery.attempt))
  }

  #tooLate(lost: ReadonlyArray<ConsumerDelivery>): Effect.Effect<void> {
    for (const delivery of lost) delivery.countLost()
    return Effect.annotateLogs(
      Effect.logDebug("AMQP deliveries handled after their channel had ended: they will be delivered again"),
      { queue: this.#queue, deliveries: lost.length, ...Logging.ofChannel(lost[0]!.channel) }
    )
  }

  #annotate(
    log: Effect.Effect<void>,
    { attempt, channel, exchange, properties, routingKey }: ConsumerDelivery,
    policy: Policy | Misfit | undefined
  ): Effect.Effect<void> {
    return Effect.annotateLogs(log, {
      queue: this.#queue,
      exchange,
      routingKey,
      messageId: properties.messageId,
      attempt,
      policy: policy?._tag,
      ...Logging.ofChannel(channel)
    })
  }
}

/** A function that was to choose a policy threw, or returned something else. */
interface Misfit {
  readonly _tag: "Misfit"
  readonly cause: unknown
}
