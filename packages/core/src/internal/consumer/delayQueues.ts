/** The delay queues of one consumer: declared, kept while they are needed, and the former ones removed. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { AmqpConfig } from "../../model/config.ts"
import type * as AmqpError from "../../model/error.ts"
import { isRefused, readQueueDeclare } from "../wire/declarations.ts"
import { fail } from "../../model/failures.ts"
import { type Terms } from "../channel/handle.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import type { Links } from "../connection/links.ts"
import * as Logging from "../telemetry/logging.ts"
import { type DelayQueueKind, delayQueueOptions, formerDelayQueueName, renewal } from "../topology/delayQueues.ts"
import { warnUnlessAtLeastOnce } from "./atLeastOnce.ts"
import { Declaring } from "./declaring.ts"
import type { Delay } from "./policyOptions.ts"

/** How often a former queue has to be found empty, one look after the other, before it is removed. */
const looks = 10

/** When there is no former queue, it is looked for once more after so many milliseconds: an older version may declare it. */
const laterLook = 600_000

/** What is looked after by a consumer of the application: another consumer of the same queue need not. */
const lookedAfter = new WeakMap<KnownQueues, Set<string>>()

export class DelayQueues {
  readonly #queue: string
  readonly #terms: Terms
  readonly #config: AmqpConfig
  readonly #scope: Scope.Scope
  readonly #declaring: Declaring
  readonly #declared = new Set<string>()
  /** What has been started for a delay queue once, and goes on until the scope closes. */
  readonly #kept = new Set<string>()
  // Deliveries that fail together want the same queue, and each declaration has a channel of its own.
  readonly #oneAtATime = Semaphore.makeUnsafe(1)
  /** Whether the last declaration has ended with its connection, perhaps because of it. */
  #mayEndConnection = false

  constructor(options: {
    readonly queue: string
    readonly links: Links
    readonly terms: Terms
    readonly config: AmqpConfig
    readonly scope: Scope.Scope
  }) {
    this.#queue = options.queue
    this.#terms = options.terms
    this.#config = options.config
    this.#scope = options.scope
    this.#declaring = new Declaring(options.terms, options.links, options.config)
  }

  /** The delay queue was found missing. */
  forget(delay: Delay): void {
    this.#declared.delete(delay.queue)
  }

  /**
   * Makes sure of a delay queue. One that is there with other properties stays as it is, and is used: it may have been
   * declared by an operator, and its name says what matters. A warning tells the difference.
   */
  declare(delay: Delay): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() =>
      this.#declared.has(delay.queue) ? Effect.void : this.#oneAtATime.withPermits(1)(this.#declareNow(delay))
    )
  }

  /** The exceptions are queues that go with their consumers: a delay queue must not outlive them. */
  #kindOf({ queueType }: Delay): DelayQueueKind {
    const known = this.#terms.queues.get(this.#queue)
    if (queueType === "quorum") return queueType
    if (known?.exclusive === true) return "exclusive"
    // Names that begin so are given by the broker.
    if (known?.autoDelete === true || this.#queue.startsWith("amq.")) return "expiring"
    return queueType ?? "quorum"
  }

  #declareNow(delay: Delay): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      if (this.#declared.has(delay.queue)) return Effect.void
      const kind = this.#kindOf(delay)
      const declaration = readQueueDeclare(delayQueueOptions(this.#queue, delay.millis, kind))
      if (isRefused(declaration)) return fail(declaration)
      const declare = (declaring: Declaring) => declaring.declare(delay.queue, declaration)
      // A quorum queue without a majority of its nodes is refused by 541, which ends the connection of all consumers.
      const declared =
        this.#mayEndConnection && kind === "quorum" ? this.#declaring.aside(declare) : declare(this.#declaring)
      return declared.pipe(
        Effect.tapError(({ reason }) =>
          Effect.sync(() => {
            this.#mayEndConnection = reason.severity === "connection"
          })
        ),
        Effect.catchReason("AmqpError", "PreconditionFailed", (reason) =>
          Effect.annotateLogs(
            Effect.logWarning(
              "AMQP delay queue exists with other properties, and is used as it is: retries may be lost if it is not a quorum queue that dead-letters at least once"
            ),
            { queue: this.#queue, delayQueue: delay.queue, reason: reason.message }
          )
        ),
        // Who may not declare may still use what others have declared.
        Effect.catchReason("AmqpError", "AccessRefused", (reason) =>
          this.#declaring.look(delay.queue).pipe(Effect.catch(() => fail(reason)))
        ),
        Effect.andThen(
          Effect.suspend(() => {
            this.#declared.add(delay.queue)
            this.#mayEndConnection = false
            return this.#keep(delay, kind)
          })
        )
      )
    })
  }

  #keep(delay: Delay, kind: DelayQueueKind): Effect.Effect<void> {
    if (this.#kept.has(delay.queue)) return Effect.void
    this.#kept.add(delay.queue)
    const flag = kind === "quorum" ? warnUnlessAtLeastOnce(this.#declaring, this.#config) : Effect.void
    const renew = kind === "expiring" ? this.#renew(delay) : Effect.void
    return Effect.asVoid(
      Effect.forkIn(Effect.all([flag, renew, this.#removeFormer(delay)], { concurrency: "unbounded" }), this.#scope)
    )
  }

  /** A look counts as a use. If the connection is away for longer than the queue lives, its deliveries come again anyway. */
  #renew({ queue }: Delay): Effect.Effect<never> {
    return Effect.forever(Effect.andThen(Effect.sleep(renewal), Effect.ignore(this.#declaring.look(queue))))
  }

  /**
   * Removes the delay queue that older versions have used, once it is empty.
   *
   * An older version may still be running: it publishes there with `mandatory`, and declares the queue again when the
   * message is returned, so nothing is lost by the removal. What is lost is a message that is on its way within the broker
   * at that very moment. So the queue has to be found empty again and again first: that says that nobody uses it.
   */
  #removeFormer(delay: Delay): Effect.Effect<void> {
    const former = formerDelayQueueName(this.#queue, delay.millis)
    const mine = this.#terms.queues
    return Effect.suspend(() => {
      const busy = lookedAfter.get(mine) ?? new Set()
      lookedAfter.set(mine, busy)
      if (busy.has(former)) return Effect.void
      busy.add(former)
      return Effect.ensuring(
        Effect.gen({ self: this }, function* () {
          if (!(yield* this.#removeWhenUnused(former, delay.millis))) return
          yield* Effect.sleep(laterLook)
          yield* this.#removeWhenUnused(former, delay.millis)
        }),
        Effect.sync(() => busy.delete(former))
      )
    })
  }

  /** Whether there is none now. */
  readonly #removeWhenUnused = Effect.fnUntraced(
    { self: this },
    function* (this: DelayQueues, former: string, millis: number) {
      // A message stays for the delay, so that looks which are as far apart miss none.
      const between = Math.min(Math.max(millis, 100), 1000)
      let found = 0
      while (true) {
        const seen = yield* Effect.result(this.#declaring.look(former))
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
        if (found <= looks) {
          yield* Effect.sleep(between)
          continue
        }
        const removed = yield* Effect.result(this.#declaring.aside((own) => own.deleteUnused(former)))
        if (removed._tag === "Success") {
          yield* this.#log(Effect.logInfo("AMQP former delay queue removed: it was empty"), former)
          return true
        }
        const { reason } = removed.failure
        // A message has come in between.
        if (reason._tag === "PreconditionFailed") {
          found = 0
          continue
        }
        if (reason._tag === "AccessRefused" || reason.message.includes("NOT_IMPLEMENTED")) {
          yield* this.#log(
            Effect.logInfo(
              "AMQP former delay queue stays: delete it by hand when it is empty (it is a quorum queue, or this user may not delete it)"
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
      ...Logging.ofConnection(this.#config)
    })
  }
}
