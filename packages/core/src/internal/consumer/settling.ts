/** How a handler's end settles its delivery. Nothing here fails: whatever goes wrong, a delivery is settled or requeued. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { AmqpError } from "../../model/error.ts"
import { type Failure, failureOf } from "../message/failure.ts"
import { acknowledgeAll, type ConsumerDelivery, type Return } from "./delivery.ts"
import type { Handling } from "./options.ts"
import { type Choice, isPolicy, type Plan, planOf } from "./policyOptions.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import { returnsLeft } from "../channel/deliveryLimits.ts"
import type { Links } from "../connection/links.ts"
import { consumerTimeoutOf } from "./consumerTimeout.ts"
import type { Copies } from "./copies.ts"
import type { Kept } from "./kept.ts"
import { pauseAfter, type Pauses } from "./pauses.ts"
import { drop, type FinalPolicy, type Policy, redeliver, type RetryOptions } from "../../model/policies.ts"
import * as Logging from "../telemetry/logging.ts"
import { isRefusal } from "./publishingAgain.ts"
import type { Repeats } from "./repeats.ts"
import type { Retrying } from "./retrying.ts"

/** Makes interruptible what may be, in an uninterruptible region. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** How much of the consumer timeout a delivery may be held by us: the rest is for those that wait behind it. */
const heldPart = 3 / 4

export class Settling {
  /** Whether handlers are being interrupted by the consumer's end. */
  stopping = false
  readonly #queue: string
  readonly #settings: Handling
  readonly #retrying: Retrying
  readonly #pauses: Pauses
  readonly #kept: Kept
  readonly #copies: Copies
  readonly #deadlines: Deadlines
  readonly #links: Links
  readonly #repeats: Repeats
  readonly #oldestAhead: () => number
  readonly #onKept: () => void
  readonly #plans = new WeakMap<RetryOptions, Plan>()

  constructor(options: {
    readonly settings: Handling
    readonly retrying: Retrying
    readonly pauses: Pauses
    readonly kept: Kept
    readonly copies: Copies
    readonly deadlines: Deadlines
    readonly links: Links
    readonly repeats: Repeats
    /** When the first of the deliveries arrived that wait to be handled; Infinity: none waits. */
    readonly oldestAhead: () => number
    /** Called when a delivery is kept. */
    readonly onKept: () => void
  }) {
    this.#queue = options.settings.start.queue
    this.#settings = options.settings
    this.#retrying = options.retrying
    this.#pauses = options.pauses
    this.#kept = options.kept
    this.#copies = options.copies
    this.#deadlines = options.deadlines
    this.#links = options.links
    this.#repeats = options.repeats
    this.#oldestAhead = options.oldestAhead
    this.#onKept = options.onKept
  }

  /** Whether this delivery is settled later, without the help of the worker that has handled it. */
  isHeld(delivery: ConsumerDelivery): boolean {
    return this.#pauses.has(delivery) || this.#kept.has(delivery)
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
    return this.#log("AMQP delivery given up, delivered too often", delivery, onPoison)
  }

  #notHandled(
    delivery: ConsumerDelivery,
    cause: Cause.Cause<unknown>,
    onFailure: Choice,
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
      // It has interrupted itself, or joined a fiber that was interrupted.
      return Effect.andThen(
        this.#log("AMQP handler interrupted, delivery requeued", delivery, redeliver),
        this.#redeliver(delivery, restore)
      )
    }
    const isExpected = Result.isSuccess(error)
    const value = isExpected ? error.success : (defect as Result.Success<unknown, never>).success
    const failure = failureOf(value)
    const log = (policy: Policy | Misfit | undefined) =>
      this.#log(title, delivery, policy, { cause, isError: !isExpected, error: failure.tag })
    // The handler has settled it, or its channel has ended: there is nothing to choose.
    if (delivery.isSettled) {
      if (delivery.isLost) {
        delivery.countLost()
        delivery.remember()
      }
      return log(undefined)
    }
    const policy = this.#choose(isExpected ? onFailure : this.#settings.onDefect, value, delivery)
    return Effect.andThen(log(policy), this.#apply(delivery, policy, failure, restore))
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
        return this.#redeliver(delivery, restore)
      case "Requeue":
        return this.#pause(delivery, "requeue")
      case "DeadLetter":
      case "Drop":
        this.#finish(delivery, policy)
        return Effect.void
      case "Misfit":
        return Effect.andThen(
          this.#log("AMQP consumer has no policy for a failure: choosing it failed", delivery, redeliver, {
            cause: Cause.die(policy.cause),
            isError: true,
            error: failureOf(policy.cause).tag
          }),
          this.#redeliver(delivery, restore)
        )
      case "Retry":
        return this.#retry(delivery, this.#planOf(policy.options), failure, restore)
    }
  }

  #finish(delivery: ConsumerDelivery, policy: FinalPolicy): void {
    delivery.settle(policy._tag === drop._tag ? "drop" : "discard")
  }

  #retry(delivery: ConsumerDelivery, plan: Plan, failure: Failure, restore: Restore): Effect.Effect<void> {
    const { retries } = delivery
    if (retries >= plan.times) {
      this.#finish(delivery, plan.then)
      return this.#log("AMQP delivery given up, all retries failed", delivery, plan.then)
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
          this.giveBack(delivery)
          return Effect.void
        }
        const error = Cause.findError(cause)
        if (Result.isSuccess(error) && isRefusal(error.success.reason)) {
          this.#finish(delivery, plan.then)
          const { message, reason } = error.success
          return Effect.annotateLogs(
            this.#log("AMQP delivery given up, its retry is refused", delivery, plan.then, {
              cause,
              isError: true,
              error: reason._tag
            }),
            { reason: message }
          )
        }
        return Effect.andThen(
          this.#log("AMQP retry not confirmed, delivery requeued", delivery, redeliver, { cause, isError: true }),
          this.#redeliver(delivery, restore)
        )
      }
    })
  }

  /** How long a delivery may be held, in milliseconds from its arrival. */
  get #longestHeld(): number {
    return heldPart * consumerTimeoutOf(this.#links.queues, this.#settings.start)
  }

  // Back to its queue after a pause, whatever the broker makes of it.
  #pause(delivery: ConsumerDelivery, how: Return): Effect.Effect<void> {
    if (delivery.isSettled) return Effect.void
    const dueAt = this.#deadlines.now + pauseAfter(delivery.attempt)
    // Now, since its channel may end before its pause does.
    delivery.remember()
    this.#pauses.add(delivery, Math.min(dueAt, delivery.arrivedAt + this.#longestHeld), how)
    // It may have been kept: while it is, the consumer takes nothing else.
    this.#kept.forget(delivery)
    return Effect.void
  }

  #redeliver(delivery: ConsumerDelivery, restore: Restore): Effect.Effect<void> {
    if (delivery.isSettled) return Effect.void
    if (this.#returnsLeft(delivery) > 1) return this.#pause(delivery, "redeliver")
    const dueAt = this.#deadlines.now + pauseAfter(delivery.attempt)
    const timeout = this.#longestHeld
    // What waits behind it must not outlive the timeout either: it would take the channel with it, and this delivery too.
    if (!this.stopping && dueAt >= Math.min(delivery.arrivedAt, this.#oldestAhead()) + timeout) {
      return this.#leave(delivery, "redeliver", restore(this.#copies.publish(delivery)), (cause) => {
        this.#kept.keep(delivery, dueAt)
        return this.#log("AMQP delivery kept, since it could not be published again", delivery, undefined, {
          cause,
          isError: true
        })
      })
    }
    const isFirst = this.#kept.isEmpty
    delivery.countAgain()
    this.#kept.keep(delivery, dueAt)
    if (!isFirst) return Effect.void
    this.#onKept()
    return this.#log(
      "AMQP consumer paused: the delivery has come back as often as its queue allows, and would be taken out. It is kept, and handled again until that succeeds",
      delivery,
      redeliver
    )
  }

  /** How often it can still go back to its queue. */
  #returnsLeft({ channel, properties }: ConsumerDelivery): number {
    const queue = this.#links.queues.get(this.#queue)
    return returnsLeft(channel.link.product, queue, properties.headers, this.#settings.deliveryLimit)
  }

  /** Gives back at once what was not handled to its end, unless the broker would take it out: then `leave` does. */
  giveBack(delivery: ConsumerDelivery): void {
    if (delivery.isSettled) return
    if (this.#returnsLeft(delivery) > 0) delivery.settle("giveBack")
    else this.#kept.keep(delivery, Infinity)
  }

  /** The consumer has ended: gives back what is kept. `timeout` is in milliseconds. */
  leave(timeout: number): Effect.Effect<void> {
    return Effect.suspend(() =>
      Effect.forEach(
        this.#kept.left,
        (delivery) =>
          this.#leave(delivery, "giveBack", Effect.timeout(this.#copies.publish(delivery), timeout), (cause) => {
            delivery.settle("giveBack")
            return this.#log(
              "AMQP delivery requeued beyond the delivery limit of its queue, since it could not be published again: lost unless the queue has a dead-letter exchange",
              delivery,
              undefined,
              { cause, isError: true }
            )
          }),
        { concurrency: "unbounded", discard: true }
      )
    )
  }

  // A copy at the end of the queue, if the broker would take this one out.
  #leave(
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
          "AMQP delivery published again at the end of its queue, which would take out what comes back once more",
          delivery,
          undefined
        )
      },
      onFailure: failed
    })
  }

  #tooLate(lost: ReadonlyArray<ConsumerDelivery>): Effect.Effect<void> {
    for (const delivery of lost) {
      delivery.countLost()
      delivery.forget()
    }
    return Effect.annotateLogs(
      Effect.logDebug("AMQP deliveries handled after their channel had ended: they will be delivered again"),
      { queue: this.#queue, deliveries: lost.length, ...Logging.ofChannel(lost[0]!.channel) }
    )
  }

  /** What becomes of a message that is rejected, as far as is known. */
  get #rejected(): string {
    const queue = this.#links.queues.get(this.#queue)
    if (queue === undefined) return "rejected (dead-lettered only if the queue has a dead-letter exchange)"
    return queue.arguments["x-dead-letter-exchange"] === undefined
      ? "rejected (dropped unless a policy gives the queue a dead-letter exchange)"
      : "dead-lettered"
  }

  /** One line about a delivery, unless there were enough like it. */
  #log(
    title: string,
    delivery: ConsumerDelivery,
    policy: Policy | Misfit | undefined,
    about: {
      readonly cause?: Cause.Cause<unknown>
      readonly isError?: boolean
      /** The tag of the error. */
      readonly error?: string
    } = {}
  ): Effect.Effect<void> {
    const { cause, error, isError = false } = about
    const becomes = policy?._tag === "DeadLetter" ? this.#rejected : policy?._tag
    return this.#repeats.write(
      { title, isError, error, policy: becomes },
      Effect.suspend(() => {
        const { attempt, channel, exchange, properties, routingKey } = delivery
        const log = isError ? Effect.logError : Effect.logWarning
        return Effect.annotateLogs(cause === undefined ? log(title) : log(title, cause), {
          queue: this.#queue,
          exchange,
          routingKey,
          messageId: properties.messageId,
          attempt,
          policy: becomes,
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
