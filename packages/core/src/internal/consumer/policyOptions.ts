/** Reads policies from options: which there are, and what a retry policy means for a queue. */
import type * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import type { Delivery } from "../../model/consumer.ts"
import type * as AmqpError from "../../model/error.ts"
import { deadLetter, type FinalPolicy, type Policy, type RetryOptions } from "../../model/policies.ts"
import type { StreamPolicy } from "../../model/streamPolicies.ts"
import { delayQueueName } from "../topology/delayQueues.ts"
import { maxTtlMillis } from "../wire/declarations.ts"
import { invalidArgument } from "../wire/fieldTable.ts"
import {
  choice,
  duration,
  integer,
  isInvalidArgument,
  withDefault,
  readerOf,
  rule,
  formatValue,
  type Table,
  toMillis
} from "../wire/optionTable.ts"
import { hasStreamTag } from "./streamOptions.ts"

const operation = "basic.consume"

/** A policy, or a function that chooses one. */
export type PolicyChoice = Policy | ((error: never, delivery: Delivery) => Policy)

export const isPolicy = (value: unknown): value is Policy =>
  Predicate.hasProperty(value, "_tag") &&
  ["Redeliver", "Requeue", "DeadLetter", "Drop", "Retry"].includes(value._tag as string)

// The policies of streams are checked together with the options of streams.
export const policy = rule<Policy | StreamPolicy | ((error: never, delivery: Delivery) => Policy | StreamPolicy)>(
  "redeliver, requeue, deadLetter, drop or retry (for a stream stop, skip or publishTo), or a function that chooses one",
  (value) =>
    isPolicy(value) || hasStreamTag(value) || typeof value === "function"
      ? (value as Policy | (() => Policy))
      : undefined
)

const isFinal = (value: unknown): value is FinalPolicy =>
  isPolicy(value) && (value._tag === "DeadLetter" || value._tag === "Drop")

export const finalPolicy = rule<FinalPolicy>("deadLetter or drop", (value) => (isFinal(value) ? value : undefined))

/** The delay of a retry, and the queue in which messages wait for that time. */
export interface RetryDelay {
  /** The name of the delay queue. */
  readonly queue: string
  readonly millis: number
  /** The requested queue type. */
  readonly queueType: RetryOptions["queueType"]
}

/** A checked retry policy. */
export interface RetryPlan {
  readonly delays: ReadonlyArray<RetryDelay>
  readonly times: number
  readonly onExhausted: FinalPolicy
}

const retryRules = {
  delay: duration(1, maxTtlMillis),
  delays: rule<ReadonlyArray<Duration.Input>>("an array of durations", (value) =>
    Array.isArray(value) ? value : undefined
  ),
  times: integer(1, 1_000_000),
  onExhausted: withDefault(finalPolicy, deadLetter),
  queueType: choice(["classic", "quorum"])
} satisfies Table<RetryOptions>

const retryOf = readerOf(retryRules)

/** Reads the options of `retry` for this queue. */
export const retryPlanOf = (queue: string, options: unknown, name: string): RetryPlan | AmqpError.InvalidArgument => {
  if (options === undefined)
    return invalidArgument(operation, name, "options with delay and times, or with delays", "none")
  const values = retryOf(`${operation}: ${name}`, options)
  if (isInvalidArgument(values)) return values
  const { delay, delays: several, onExhausted, queueType, times } = values
  if ((delay === undefined) === (several === undefined)) {
    return invalidArgument(
      operation,
      `${name}.delays`,
      "either delay or delays",
      delay === undefined ? "neither" : "both"
    )
  }
  if (delay !== undefined && times === undefined) {
    return invalidArgument(operation, `${name}.times`, retryRules.times.expected, "undefined")
  }
  const given: ReadonlyArray<unknown> = several ?? [delay]
  if (given.length === 0) return invalidArgument(operation, `${name}.delays`, "at least one", "none")
  const delays: Array<RetryDelay> = []
  for (const each of given) {
    const millis = toMillis(each)
    const { expected } = retryRules.delay
    if (millis === undefined || !Number.isInteger(millis) || millis < 1 || millis > maxTtlMillis) {
      return invalidArgument(operation, `${name}.delays`, `${expected}, in whole milliseconds`, formatValue(each))
    }
    delays.push({ queue: delayQueueName(queue, millis), millis, queueType })
  }
  return { delays, times: times ?? delays.length, onExhausted }
}
