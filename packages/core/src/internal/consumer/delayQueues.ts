/**
 * The delay queues of one consumer: declares them, keeps them while they are needed, and removes the ones of older
 * versions.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { AmqpConfig } from "../../model/config.ts"
import type * as AmqpError from "../../model/error.ts"
import { isInvalidArgument, readQueueDeclare } from "../wire/declarations.ts"
import { fail } from "../../model/failures.ts"
import { type ChannelTimeouts } from "../channel/channelHandle.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import * as Logging from "../telemetry/logging.ts"
import { type DelayQueueKind, delayQueueOptions, legacyDelayQueueName, renewal } from "../topology/delayQueues.ts"
import { warnUnlessAtLeastOnce } from "./atLeastOnce.ts"
import { QueueOperations } from "./queueOperations.ts"
import type { RetryDelay } from "./policyOptions.ts"

/** How many consecutive checks must find a legacy queue empty before it is removed. */
const requiredEmptyChecks = 10

/**
 * If there is no legacy queue, the check is repeated once after this time, in milliseconds: an older version may
 * declare it in between.
 */
const recheckAfter = 600_000

/**
 * The legacy queues that a consumer of each application already removes, so that other consumers of the same queue do
 * not.
 */
const maintainedQueues = new WeakMap<KnownQueues, Set<string>>()

export class DelayQueues {
  readonly #queue: string
  readonly #timeouts: ChannelTimeouts
  readonly #config: AmqpConfig
  readonly #scope: Scope.Scope
  readonly #operations: QueueOperations
  readonly #declared = new Set<string>()
  /** The delay queues whose maintenance was started. It runs until the scope closes. */
  readonly #maintained = new Set<string>()
  // Deliveries that fail together need the same queue, and each declaration opens a channel of its own.
  readonly #oneAtATime = Semaphore.makeUnsafe(1)
  /** Whether the last declaration ended together with its connection, and may have caused that. */
  #mayEndConnection = false

  constructor(options: {
    readonly queue: string
    readonly internals: ConnectionInternals
    readonly timeouts: ChannelTimeouts
    readonly config: AmqpConfig
    readonly scope: Scope.Scope
  }) {
    this.#queue = options.queue
    this.#timeouts = options.timeouts
    this.#config = options.config
    this.#scope = options.scope
    this.#operations = new QueueOperations(options.timeouts, options.internals, options.config)
  }

  /** The delay queue is missing: it is declared again before the next publish. */
  forget(delay: RetryDelay): void {
    this.#declared.delete(delay.queue)
  }

  /**
   * Declares a delay queue unless this consumer has done so. An existing queue with other properties stays as it is and
   * is used: an operator may have declared it, and its name gives the delay. A warning reports the difference.
   */
  declare(delay: RetryDelay): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() =>
      this.#declared.has(delay.queue) ? Effect.void : this.#oneAtATime.withPermits(1)(this.#declareNow(delay))
    )
  }

  /**
   * The type of a delay queue. Queues that end with their consumers are the exceptions: their delay queues must not
   * outlive them.
   */
  #kindOf({ queueType }: RetryDelay): DelayQueueKind {
    const known = this.#timeouts.queues.get(this.#queue)
    if (queueType === "quorum") return queueType
    if (known?.exclusive === true) return "exclusive"
    // The broker generates names that begin with `amq.`.
    if (known?.autoDelete === true || this.#queue.startsWith("amq.")) return "expiring"
    return queueType ?? "quorum"
  }

  #declareNow(delay: RetryDelay): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      if (this.#declared.has(delay.queue)) return Effect.void
      const kind = this.#kindOf(delay)
      const declaration = readQueueDeclare(delayQueueOptions(this.#queue, delay.millis, kind))
      if (isInvalidArgument(declaration)) return fail(declaration)
      const declare = (declaring: QueueOperations) => declaring.declare(delay.queue, declaration)
      // A quorum queue without a majority of its nodes is refused by 541, which ends the connection of all consumers.
      const declared =
        this.#mayEndConnection && kind === "quorum"
          ? this.#operations.onOwnConnection(declare)
          : declare(this.#operations)
      return declared.pipe(
        Effect.tapError(({ reason }) =>
          Effect.sync(() => {
            this.#mayEndConnection = reason.severity === "connection"
          })
        ),
        Effect.catchReason("AmqpError", "PreconditionFailed", (reason) =>
          Effect.annotateLogs(
            Effect.logWarning(
              "AMQP delay queue exists with other properties and is used as it is. Retries may be lost unless it is a quorum queue that dead-letters at least once. To correct it, delete the delay queue when it is empty; the consumer declares it again"
            ),
            { queue: this.#queue, delayQueue: delay.queue, reason: reason.message }
          )
        ),
        // A user without the permission to declare may still use a queue that another user has declared.
        Effect.catchReason("AmqpError", "AccessRefused", (reason) =>
          this.#operations.declarePassive(delay.queue).pipe(Effect.catch(() => fail(reason)))
        ),
        Effect.andThen(
          Effect.suspend(() => {
            this.#declared.add(delay.queue)
            this.#mayEndConnection = false
            return this.#maintain(delay, kind)
          })
        )
      )
    })
  }

  #maintain(delay: RetryDelay, kind: DelayQueueKind): Effect.Effect<void> {
    if (this.#maintained.has(delay.queue)) return Effect.void
    this.#maintained.add(delay.queue)
    const flag = kind === "quorum" ? warnUnlessAtLeastOnce(this.#operations, this.#config) : Effect.void
    const renew = kind === "expiring" ? this.#renew(delay) : Effect.void
    return Effect.asVoid(
      Effect.forkIn(Effect.all([flag, renew, this.#removeFormer(delay)], { concurrency: "unbounded" }), this.#scope)
    )
  }

  /**
   * Renews an expiring queue: a passive declaration counts as a use. If the connection is away for longer than the
   * queue's lifetime, nothing is lost: the queue outlives the delay of its messages, so they are back in their work
   * queue before it expires.
   */
  #renew({ queue }: RetryDelay): Effect.Effect<never> {
    return Effect.forever(Effect.andThen(Effect.sleep(renewal), Effect.ignore(this.#operations.declarePassive(queue))))
  }

  /**
   * Removes the delay queue that older versions have used, once it is empty.
   *
   * An older version may still be running. It publishes to the queue with `mandatory` and declares it again when a
   * message is returned, so the removal loses nothing. The exception is a message that is on its way inside the broker
   * at that very moment. So the queue has to be found empty several times in a row first, which shows that it is no
   * longer used.
   */
  #removeFormer(delay: RetryDelay): Effect.Effect<void> {
    const former = legacyDelayQueueName(this.#queue, delay.millis)
    const mine = this.#timeouts.queues
    return Effect.suspend(() => {
      const busy = maintainedQueues.get(mine) ?? new Set()
      maintainedQueues.set(mine, busy)
      if (busy.has(former)) return Effect.void
      busy.add(former)
      return Effect.ensuring(
        Effect.gen({ self: this }, function* () {
          if (!(yield* this.#removeWhenUnused(former, delay.millis))) return
          yield* Effect.sleep(recheckAfter)
          yield* this.#removeWhenUnused(former, delay.millis)
        }),
        Effect.sync(() => busy.delete(former))
      )
    })
  }

  /** Removes the legacy queue when it is unused. Returns whether it is gone. */
  readonly #removeWhenUnused = Effect.fnUntraced(
    { self: this },
    function* (this: DelayQueues, former: string, millis: number) {
      // A message stays in the queue for the delay, so checks that are no further apart than the delay miss none.
      const between = Math.min(Math.max(millis, 100), 1000)
      let found = 0
      while (true) {
        const seen = yield* Effect.result(this.#operations.declarePassive(former))
        if (seen._tag === "Failure") {
          const { reason } = seen.failure
          if (reason._tag === "NotFound") return true
          if (!reason.isRetryable) return false
          yield* Effect.sleep(60_000)
          continue
        }
        const { consumerCount, messageCount } = seen.success
        if (messageCount > 0 || consumerCount > 0) {
          found = 0
          yield* Effect.sleep(Math.min(Math.max(millis / 4, between), 60_000))
          continue
        }
        found++
        if (found <= requiredEmptyChecks) {
          yield* Effect.sleep(between)
          continue
        }
        const removed = yield* Effect.result(this.#operations.onOwnConnection((own) => own.deleteUnused(former)))
        if (removed._tag === "Success") {
          yield* this.#log(Effect.logInfo("AMQP delay queue of an older version removed: it was empty"), former)
          return true
        }
        const { reason } = removed.failure
        // A message has arrived since the last check.
        if (reason._tag === "PreconditionFailed") {
          found = 0
          continue
        }
        if (reason._tag === "AccessRefused" || reason.message.includes("NOT_IMPLEMENTED")) {
          yield* this.#log(
            Effect.logInfo(
              "AMQP delay queue of an older version could not be removed: it is a quorum queue, or this user may not delete it. Delete it manually when it is empty"
            ),
            former,
            reason.message
          )
          return false
        }
        yield* Effect.sleep(60_000)
      }
    }
  )

  #log(log: Effect.Effect<void>, former: string, reason?: string): Effect.Effect<void> {
    return Effect.annotateLogs(log, {
      queue: this.#queue,
      delayQueue: former,
      ...(reason === undefined ? undefined : { reason }),
      ...Logging.connectionAnnotations(this.#config)
    })
  }
}
