/**
 * Reports consumers that should run and do not, as conditions of the application for health checks, and keeps the
 * statuses of all consumers.
 *
 * A consumer has a name, by default its queue. A consumer that ends unexpectedly leaves its condition behind, and the
 * next consumer of the same name takes the condition over. So a consumer that an application starts again and again
 * causes one condition.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Status } from "../../model/consumer.ts"
import type { AmqpErrorReason } from "../../model/errorReason.ts"
import type { Conditions } from "../connection/conditions.ts"
import { ConsumerRecord } from "./consumerRecord.ts"

/** How long a first subscription may wait for a connection before this is reported. */
const grace = "5 seconds"

/**
 * Maximum numbers of ended consumers that are remembered: of those that have failed, and of those that were asked to
 * end. Queue names may be generated for each request, so there must be a bound.
 */
const mostFailed = 100
const mostStopped = 20

/** The health and the status of one consumer. */
export class ConsumerHealth {
  readonly record: ConsumerRecord
  readonly #owner: ConsumerHealthRegistry
  readonly #key: string
  #hasSubscribed = false
  #hasEnded = false

  constructor(owner: ConsumerHealthRegistry, record: ConsumerRecord, key: string) {
    this.#owner = owner
    this.record = record
    this.#key = key
  }

  /** The consumer is subscribed: its condition is cleared. */
  subscribed(): void {
    this.#hasSubscribed = true
    this.record.enter("Running")
    this.#owner.clear(this.#key)
  }

  /** The consumer has lost its subscription, or could not subscribe yet, and subscribes again. */
  interrupted({ message, _tag }: Pick<AmqpErrorReason, "_tag" | "message">, isQueueMissing: boolean): void {
    this.record.failedWith(_tag)
    this.record.enter(isQueueMissing ? "WaitingForQueue" : this.#hasSubscribed ? "Reconnecting" : "Starting")
    this.#interrupted(message)
  }

  #interrupted(why: string): void {
    if (this.#hasSubscribed) this.#report("ConsumerInterrupted", `subscribes again: ${why}`, false)
    else this.#report("ConsumerNotStarted", `could not subscribe yet, and tries again: ${why}`, true)
  }

  /** Waits for a connection. Reports a wait longer than `grace` if the consumer has not been subscribed before. */
  waitFor<A, E>(connection: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.suspend(() =>
      this.#hasSubscribed
        ? connection
        : Effect.flatMap(Effect.timeoutOption(connection, grace), (found) => {
            if (found._tag === "Some") return Effect.succeed(found.value)
            this.#interrupted("there is no connection to the broker")
            return connection
          })
    )
  }

  /** The consumer has ended unexpectedly. Its condition stays until a consumer of the same name takes it over. */
  failed(why: string, tag: string): void {
    this.#hasEnded = true
    this.record.end("failed", tag)
    this.#report("ConsumerEnded", `has ended: ${why}`, true)
    this.#owner.leave(this.record, this.#key)
  }

  /** The consumer has ended as it was asked to. */
  stopped(tag?: string): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.record.end("stopped", tag)
    this.#owner.clear(this.#key)
    this.#owner.leave(this.record, this.#key)
  }

  /** The consumer's scope has closed. */
  close(): void {
    // After a failure the condition must stay, and a consumer of the same name may have taken it over already.
    this.stopped()
  }

  #report(kind: string, what: string, notReady: boolean): void {
    const { name, requiredForReadiness } = this.record
    if (!requiredForReadiness) return
    this.#owner.report(this.#key, { kind, message: `the consumer ${JSON.stringify(name)} ${what}`, notReady })
  }
}

/** The health of all consumers of one service. */
export class ConsumerHealthRegistry {
  readonly #conditions: Conditions
  readonly #clock: Clock.Clock
  readonly #reported = new Set<string>()
  readonly #running = new Set<ConsumerRecord>()
  /** The consumers that have ended, by key; the oldest is first. */
  readonly #ended = new Map<string, ConsumerRecord>()
  #hasEnded = false

  constructor(conditions: Conditions, clock: Clock.Clock) {
    this.#conditions = conditions
    this.#clock = clock
  }

  /** Registers a consumer that starts. */
  register(queue: string, name: string, requiredForReadiness: boolean): ConsumerHealth {
    // One that has failed comes first, because its condition must not outlive the consumers that replace it.
    const alike = Array.from(this.#ended).filter(
      ([, record]) => record.name === name && record.requiredForReadiness === requiredForReadiness
    )
    const [key, before] = alike.find(([, { hasFailed }]) => hasFailed) ?? alike[0] ?? [`consumer ${++keys}`, undefined]
    this.#ended.delete(key)
    const record = new ConsumerRecord(this.#clock, queue, name, requiredForReadiness, before)
    this.#running.add(record)
    return new ConsumerHealth(this, record, key)
  }

  /** The statuses of the consumers that run, and of those that have ended. */
  get statuses(): ReadonlyArray<Status> {
    return Array.from([...this.#running, ...this.#ended.values()], (record) => record.status)
  }

  /** The service has ended: all conditions are cleared, and nothing more is reported. */
  end(): void {
    this.#hasEnded = true
    for (const key of this.#reported) this.#conditions.clear(key)
    this.#reported.clear()
    this.#running.clear()
    this.#ended.clear()
  }

  report(
    key: string,
    condition: { readonly kind: string; readonly message: string; readonly notReady: boolean }
  ): void {
    if (this.#hasEnded) return
    this.#reported.add(key)
    this.#conditions.report(key, condition, this.#clock.currentTimeMillisUnsafe())
  }

  clear(key: string): void {
    if (this.#reported.delete(key)) this.#conditions.clear(key)
  }

  leave(record: ConsumerRecord, key: string): void {
    this.#running.delete(record)
    // Consumers that are not required come and go with something else, which knows of their ends.
    if (this.#hasEnded || !record.requiredForReadiness) return
    this.#ended.set(key, record)
    const alike = Array.from(this.#ended).filter(([, { hasFailed }]) => hasFailed === record.hasFailed)
    if (alike.length <= (record.hasFailed ? mostFailed : mostStopped)) return
    const [oldest] = alike[0]!
    this.#ended.delete(oldest)
    this.clear(oldest)
  }
}

// Unique in the process, because several services may report to the same connection.
let keys = 0
