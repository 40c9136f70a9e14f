/** Policies, as options give them: which there are, and what a policy of trying again means for a queue. */
import type * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import type { Delivery } from "../../model/consumer.ts"
import type * as AmqpError from "../../model/error.ts"
import { deadLetter, type FinalPolicy, type Policy, type RetryOptions } from "../../model/policies.ts"
import type { StreamPolicy } from "../../model/streamPolicies.ts"
import { delayQueueName } from "../topology/delayQueues.ts"
import { longestTtl } from "../wire/declarations.ts"
import { refused } from "../wire/fieldTable.ts"
import {
  choice,
  duration,
  integer,
  isRefused,
  or,
  readerOf,
  rule,
  shown,
  type Table,
  toMillis
} from "../wire/optionTable.ts"
import { hasStreamTag } from "./streamOptions.ts"

const operation = "basic.consume"

/** A policy, or how to choose one. */
export type Choice = Policy | ((error: never, delivery: Delivery) => Policy)

export const isPolicy = (value: unknown): value is Policy =>
  Predicate.hasProperty(value, "_tag") &&
  ["Redeliver", "Requeue", "DeadLetter", "Drop", "Retry"].includes(value._tag as string)

// Those of streams are checked with their options.
export const policy = rule<Policy | StreamPolicy | ((error: never, delivery: Delivery) => Policy | StreamPolicy)>(
  "redeliver, requeue, deadLetter, drop or retry, or a function that chooses; of a stream stop, skip or publishTo",
  (value) =>
    isPolicy(value) || hasStreamTag(value) || typeof value === "function"
      ? (value as Policy | (() => Policy))
      : undefined
)

const isFinal = (value: unknown): value is FinalPolicy =>
  isPolicy(value) && (value._tag === "DeadLetter" || value._tag === "Drop")

export const finalPolicy = rule<FinalPolicy>("deadLetter or drop", (value) => (isFinal(value) ? value : undefined))

/** A delay of a retry, and the queue in which messages wait for so long. */
export interface Delay {
  /** The delay queue's name. */
  readonly queue: string
  readonly millis: number
  /** The type that was asked for. */
  readonly queueType: RetryOptions["queueType"]
}

/** A policy of trying again, checked. */
export interface Plan {
  readonly delays: ReadonlyArray<Delay>
  readonly times: number
  readonly then: FinalPolicy
}

const retryRules = {
  delay: duration(1, longestTtl),
  delays: rule<ReadonlyArray<Duration.Input>>("an array of durations", (value) =>
    Array.isArray(value) ? value : undefined
  ),
  times: integer(1, 1_000_000),
  then: or(finalPolicy, deadLetter),
  queueType: choice(["classic", "quorum"])
} satisfies Table<RetryOptions>

const retryOf = readerOf(retryRules)

/** Reads what `retry` was given for this queue. */
export const planOf = (queue: string, options: unknown, name: string): Plan | AmqpError.InvalidArgument => {
  if (options === undefined) return refused(operation, name, "delay and times, or delays", "nothing")
  const values = retryOf(`${operation}: ${name}`, options)
  if (isRefused(values)) return values
  const { delay, delays: several, queueType, then, times } = values
  if ((delay === undefined) === (several === undefined)) {
    return refused(operation, `${name}.delays`, "delay or delays", delay === undefined ? "neither" : "both")
  }
  if (delay !== undefined && times === undefined) {
    return refused(operation, `${name}.times`, retryRules.times.wants, "undefined")
  }
  const given: ReadonlyArray<unknown> = several ?? [delay]
  if (given.length === 0) return refused(operation, `${name}.delays`, "at least one", "none")
  const delays: Array<Delay> = []
  for (const each of given) {
    const millis = toMillis(each)
    const { wants } = retryRules.delay
    if (millis === undefined || !Number.isInteger(millis) || millis < 1 || millis > longestTtl) {
      return refused(operation, `${name}.delays`, `${wants}, in whole milliseconds`, shown(each))
    }
    delays.push({ queue: delayQueueName(queue, millis), millis, queueType })
  }
  return { delays, times: times ?? delays.length, then }
}
