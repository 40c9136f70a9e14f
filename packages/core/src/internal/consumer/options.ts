/** Options of consumers, checked before anything is sent, and with their defaults. */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import type * as AmqpError from "../../model/error.ts"
import type { Delivery, End } from "../../model/consumer.ts"
import type * as Effect from "effect/Effect"
import {
  boolean,
  choice,
  integer,
  isRefused,
  longestTtl,
  type Option,
  passedOn,
  read,
  readConsume,
  shown,
  toMillis
} from "../wire/declarations.ts"
import { refused } from "../wire/fieldTable.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import type { FieldTable } from "../../model/message.ts"
import { delayQueueName } from "../topology/delayQueues.ts"
import { deadLetter, type FinalPolicy, type Policy, redeliver, type RetryOptions } from "../../model/policies.ts"
import type { Secrets } from "./attempts.ts"
import { argument } from "./consumerTimeout.ts"
import type { Resubscribe } from "./recovery.ts"
import {
  hasStreamTag,
  readingOf,
  refuseStreamPolicies,
  type StreamHandling,
  streamHandlingOf,
  streamOptions,
  type StreamReading
} from "./streamOptions.ts"
import type { Start } from "./start.ts"
import type { Declare } from "./subscription.ts"

const operation = "basic.consume"

// RabbitMQ's advice is 100 to 300 (https://www.rabbitmq.com/docs/confirms#channel-qos-prefetch-throughput).
const defaultPrefetch = 250
const longestTimer = 2 ** 31 - 1

const duration = (least: number, most = longestTimer): Option => ({
  wants: `a duration from ${least} ms to ${Duration.format(Duration.millis(most))}`,
  read: (value) => {
    const millis = toMillis(value)
    return millis !== undefined && millis >= least && millis <= most ? millis : undefined
  }
})

const callback: Option = { wants: "a function", read: (value) => (typeof value === "function" ? value : undefined) }

export const isPolicy = (value: unknown): value is Policy =>
  Predicate.hasProperty(value, "_tag") &&
  ["Redeliver", "Requeue", "DeadLetter", "Drop", "Retry"].includes(value._tag as string)

const policy: Option = {
  wants:
    "redeliver, requeue, deadLetter, drop or retry, or a function that chooses; of a stream stop, skip or publishTo",
  // Those of streams are checked with their options.
  read: (value) => (isPolicy(value) || hasStreamTag(value) || typeof value === "function" ? value : undefined)
}

const isFinal = (value: unknown): value is FinalPolicy =>
  isPolicy(value) && (value._tag === "DeadLetter" || value._tag === "Drop")

const finalPolicy: Option = {
  wants: "deadLetter or drop",
  read: (value) => (isFinal(value) ? value : undefined)
}

// RFC 2104: a key shorter than the hash weakens it. What people choose is shorter still.
const shortestSecret = 16

const isSecret = (value: unknown): value is Redacted.Redacted<string> => {
  if (!Redacted.isRedacted(value)) return false
  const secret: unknown = Redacted.value(value)
  return typeof secret === "string" && secret.isWellFormed() && Buffer.byteLength(secret) >= shortestSecret
}

const secrets: Option = {
  wants: `a Redacted string of at least ${shortestSecret} bytes, or an array of at least one of them`,
  read: (value) => {
    const several: ReadonlyArray<unknown> = Array.isArray(value) ? value : [value]
    return several.length > 0 && several.every(isSecret) ? [...several] : undefined
  }
}

/** The broker takes whole milliseconds. */
const consumerTimeout: Option = {
  wants: `a duration from 1 ms to ${Duration.format(Duration.millis(longestTimer))}, in whole milliseconds`,
  read: (value) => {
    const millis = duration(1).read(value)
    return Number.isInteger(millis) ? millis : undefined
  }
}

// What is passed on to `basic.consume` is checked there.
const subscribing: Record<string, Option> = {
  name: {
    wants: "a text that is not empty",
    read: (value) => (typeof value === "string" && value !== "" ? value : undefined)
  },
  essential: { wants: "true or false", read: (value) => (typeof value === "boolean" ? value : undefined) },
  prefetch: integer(1, 65_535),
  consumerTag: passedOn,
  exclusive: passedOn,
  priority: passedOn,
  arguments: passedOn,
  consumerTimeout,
  declare: callback,
  resubscribe: choice(["never", "lost", "always"]),
  retrySecret: secrets,
  onEnd: callback,
  ...streamOptions
}

const streaming: Record<string, Option> = { ...subscribing, inactivityTimeout: duration(1) }

const handling: Record<string, Option> = {
  ...subscribing,
  concurrency: integer(1, 65_535),
  onFailure: policy,
  onDefect: policy,
  onDecodeFailure: policy,
  maxDeliveries: integer(1, Number.MAX_SAFE_INTEGER),
  sharedCount: boolean,
  onPoison: finalPolicy,
  deliveryLimit: integer(-1, Number.MAX_SAFE_INTEGER),
  shutdownTimeout: duration(0),
  schema: {
    wants: "a Schema",
    read: (value) =>
      (typeof value === "object" || typeof value === "function") && value !== null && "ast" in value ? value : undefined
  }
}

const batching: Record<string, Option> = { ...handling, size: integer(1, 65_535), within: duration(1) }

/** How to subscribe. */
export interface Subscribing {
  /** What health checks call it. */
  readonly name: string
  readonly essential: boolean
  readonly start: Start
  readonly declare: Declare | undefined
  readonly resubscribe: Resubscribe
  readonly retrySecrets: Secrets
  readonly onEnd: ((end: End) => Effect.Effect<void>) | undefined
  /** How a stream is read; `undefined` for other queues. */
  readonly reading: StreamReading | undefined
}

export interface Streaming extends Subscribing {
  /** In milliseconds. */
  readonly inactivityTimeout: number | undefined
}

/** A policy, or how to choose one. */
export type Choice = Policy | ((error: never, delivery: Delivery) => Policy)

export interface Handling extends Subscribing {
  readonly concurrency: number
  readonly onFailure: Choice
  readonly onDefect: Choice
  readonly onDecodeFailure: Choice
  readonly maxDeliveries: number
  readonly sharedCount: boolean
  readonly onPoison: FinalPolicy
  /** The policies of a stream, in the place of those above. */
  readonly ofStream: StreamHandling | undefined
  /** The queue's, -1 if it has none; undefined: as it was declared, or the broker's. */
  readonly deliveryLimit: number | undefined
  /** The smallest prefetch: as many deliveries as are handled at a time. */
  readonly leastPrefetch: number
  /** Undefined: the configuration's. */
  readonly shutdownTimeout: Duration.Duration | undefined
}

export interface Batching extends Handling {
  readonly size: number
  /** In milliseconds. */
  readonly within: number
}

type Fields = Record<string, unknown>

const fieldsOf = (options: unknown, known: Record<string, Option>): Fields | AmqpError.InvalidArgument => {
  const checked = read(operation, options, known, false)
  return isRefused(checked) ? checked : checked.fields
}

/** What a consumer is called that nobody has named. A tag that was not given is another one each time. */
const nameOf = (queue: string, consumerTag: string) => (consumerTag === "" ? queue : `${queue} (${consumerTag})`)

const subscribingOf = (
  queue: string,
  fields: Fields,
  resubscribe: Resubscribe,
  atLeast: number,
  queues: KnownQueues | undefined
): Subscribing | AmqpError.InvalidArgument => {
  const { arguments: table, consumerTag, exclusive, priority } = fields
  const consume = readConsume(queue, { consumerTag, exclusive, priority, arguments: table })
  if (isRefused(consume)) return consume
  const reading = readingOf(queue, fields, table as FieldTable | undefined, queues)
  if (isRefused(reading)) return reading
  if (fields["consumerTimeout"] !== undefined && consume.arguments[argument] !== undefined) {
    return refused(operation, "consumerTimeout", `this option or ${argument} among the arguments`, "both")
  }
  const prefetch = fields["prefetch"] as number | undefined
  if (prefetch !== undefined && prefetch < atLeast) {
    const wants = `at least ${atLeast}, as many deliveries as are handled at a time`
    return refused(operation, "prefetch", wants, shown(prefetch))
  }
  return {
    start: {
      ...consume,
      consumerTag:
        consume.consumerTag === "" ? `consumer-${Crypto.randomBytes(9).toString("base64url")}` : consume.consumerTag,
      prefetch: prefetch ?? Math.max(defaultPrefetch, atLeast),
      consumerTimeout: fields["consumerTimeout"] as number | undefined,
      queueType: fields["queueType"] as Start["queueType"]
    },
    name: (fields["name"] as string | undefined) ?? nameOf(queue, consume.consumerTag),
    essential: (fields["essential"] as boolean | undefined) ?? true,
    declare: fields["declare"] as Declare | undefined,
    resubscribe: (fields["resubscribe"] as Resubscribe | undefined) ?? resubscribe,
    retrySecrets: (fields["retrySecret"] as Secrets | undefined) ?? [],
    onEnd: fields["onEnd"] as Subscribing["onEnd"],
    reading
  }
}

export const readStream = (
  queue: string,
  options: unknown,
  queues: KnownQueues | undefined
): Streaming | AmqpError.InvalidArgument => {
  const fields = fieldsOf(options, streaming)
  if (isRefused(fields)) return fields
  const subscribing = subscribingOf(queue, fields, "never", 1, queues)
  if (isRefused(subscribing)) return subscribing
  return { ...subscribing, inactivityTimeout: fields["inactivityTimeout"] as number | undefined }
}

// Without this check each delivery would die of it, and come back forever.
const noHandler = (value: unknown) => refused(operation, "handler", callback.wants, shown(value))

const handlingOf = (
  queue: string,
  fields: Fields,
  atLeast: number,
  queues: KnownQueues | undefined
): Handling | AmqpError.InvalidArgument => {
  const subscribing = subscribingOf(queue, fields, "lost", atLeast, queues)
  if (isRefused(subscribing)) return subscribing
  const ofStream = subscribing.reading === undefined ? refuseStreamPolicies(fields) : streamHandlingOf(fields)
  if (isRefused(ofStream)) return ofStream
  for (const name of ["onFailure", "onDefect", "onDecodeFailure"]) {
    const given = fields[name]
    if (!isPolicy(given) || given._tag !== "Retry") continue
    const plan = planOf(queue, given.options, name)
    if (isRefused(plan)) return plan
  }
  const { shutdownTimeout } = fields
  return {
    ...subscribing,
    concurrency: (fields["concurrency"] as number | undefined) ?? 1,
    onFailure: (fields["onFailure"] as Choice | undefined) ?? redeliver,
    onDefect: (fields["onDefect"] as Choice | undefined) ?? redeliver,
    onDecodeFailure: (fields["onDecodeFailure"] as Choice | undefined) ?? redeliver,
    maxDeliveries: (fields["maxDeliveries"] as number | undefined) ?? Infinity,
    sharedCount: (fields["sharedCount"] as boolean | undefined) ?? true,
    onPoison: (fields["onPoison"] as FinalPolicy | undefined) ?? deadLetter,
    ofStream,
    deliveryLimit: fields["deliveryLimit"] as number | undefined,
    leastPrefetch: atLeast,
    shutdownTimeout: shutdownTimeout === undefined ? undefined : Duration.millis(shutdownTimeout as number)
  }
}

export const readHandling = (
  queue: string,
  options: unknown,
  handler: unknown,
  queues: KnownQueues | undefined
): Handling | AmqpError.InvalidArgument => {
  const fields = fieldsOf(options, handling)
  if (isRefused(fields)) return fields
  if (typeof handler !== "function") return noHandler(handler)
  return handlingOf(queue, fields, (fields["concurrency"] as number | undefined) ?? 1, queues)
}

export const readBatching = (
  queue: string,
  options: unknown,
  handler: unknown,
  queues: KnownQueues | undefined
): Batching | AmqpError.InvalidArgument => {
  const fields = fieldsOf(options, batching)
  if (isRefused(fields)) return fields
  if (typeof handler !== "function") return noHandler(handler)
  for (const name of ["size", "within"]) {
    if (fields[name] === undefined) return refused(operation, name, batching[name]!.wants, "undefined")
  }
  const size = fields["size"] as number
  const atLeast = size * ((fields["concurrency"] as number | undefined) ?? 1)
  if (atLeast > 65_535) {
    return refused(
      operation,
      "size",
      "size times concurrency to be at most 65535, the largest prefetch",
      shown(atLeast)
    )
  }
  const handling = handlingOf(queue, fields, atLeast, queues)
  return isRefused(handling) ? handling : { ...handling, size, within: fields["within"] as number }
}

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

const retrying: Record<string, Option> = {
  delay: duration(1, longestTtl),
  delays: { wants: "an array of durations", read: (value) => (Array.isArray(value) ? value : undefined) },
  times: integer(1, 1_000_000),
  then: finalPolicy,
  queueType: choice(["classic", "quorum"])
}

/** Reads what `retry` was given for this queue. */
export const planOf = (queue: string, options: unknown, name: string): Plan | AmqpError.InvalidArgument => {
  if (options === undefined) return refused(operation, name, "delay and times, or delays", "nothing")
  const checked = read(`${operation}: ${name}`, options, retrying, false)
  if (isRefused(checked)) return checked
  const { delay, delays: several, queueType, then, times } = checked.fields
  if ((delay === undefined) === (several === undefined)) {
    return refused(operation, `${name}.delays`, "delay or delays", delay === undefined ? "neither" : "both")
  }
  if (delay !== undefined && times === undefined) {
    return refused(operation, `${name}.times`, retrying["times"]!.wants, "undefined")
  }
  const given = several === undefined ? [delay] : (several as ReadonlyArray<unknown>)
  if (given.length === 0) return refused(operation, `${name}.delays`, "at least one", "none")
  const delays: Array<Delay> = []
  for (const each of given) {
    const millis = toMillis(each)
    const { wants } = retrying["delay"]!
    if (millis === undefined || !Number.isInteger(millis) || millis < 1 || millis > longestTtl) {
      return refused(operation, `${name}.delays`, `${wants}, in whole milliseconds`, shown(each))
    }
    delays.push({ queue: delayQueueName(queue, millis), millis, queueType: queueType as RetryOptions["queueType"] })
  }
  return {
    delays,
    times: (times as number | undefined) ?? delays.length,
    then: (then as FinalPolicy | undefined) ?? deadLetter
  }
}
