/** Options of consumers, checked before anything is sent, and with their defaults. */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Crypto from "node:crypto"
import type * as AmqpError from "../../model/error.ts"
import type {
  BatchOptions,
  ConsumeOptions,
  DecodeOptions,
  Delivery,
  StreamOptions,
  SubscribeOptions
} from "../../model/consumer.ts"
import type * as Schema from "effect/Schema"
import type { StreamPolicy } from "../../model/streamPolicies.ts"
import { checkQueue, consumeRules, consumerStartOf, longestTtl } from "../wire/declarations.ts"
import { refused } from "../wire/fieldTable.ts"
import {
  boolean,
  choice,
  integer,
  isRefused,
  omit,
  or,
  readerOf,
  required,
  type Rule,
  rule,
  shown,
  type Table,
  toMillis,
  type Values
} from "../wire/optionTable.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import { delayQueueName } from "../topology/delayQueues.ts"
import { deadLetter, type FinalPolicy, type Policy, redeliver, type RetryOptions } from "../../model/policies.ts"
import type { Secrets } from "./attempts.ts"
import { argument } from "./consumerTimeout.ts"
import type { Resubscribe } from "./recovery.ts"
import {
  hasStreamTag,
  notForStreams,
  type Policies,
  readingOf,
  refuseStreamPolicies,
  type StreamHandling,
  streamHandlingOf,
  type StreamReading,
  streamRules
} from "./streamOptions.ts"
import type { Start } from "./start.ts"

const operation = "basic.consume"

// RabbitMQ's advice is 100 to 300 (https://www.rabbitmq.com/docs/confirms#channel-qos-prefetch-throughput).
const defaultPrefetch = 250
const longestTimer = 2 ** 31 - 1

// --- Rules -----------------------------------------------------------------------------------------------------------

const duration = (least: number, most = longestTimer): Rule<Duration.Input, number, undefined> =>
  rule(`a duration from ${least} ms to ${Duration.format(Duration.millis(most))}`, (value) => {
    const millis = toMillis(value)
    return millis !== undefined && millis >= least && millis <= most ? millis : undefined
  })

const callback = <F>(): Rule<F, F, undefined> =>
  rule("a function", (value) => (typeof value === "function" ? (value as F) : undefined))

export const isPolicy = (value: unknown): value is Policy =>
  Predicate.hasProperty(value, "_tag") &&
  ["Redeliver", "Requeue", "DeadLetter", "Drop", "Retry"].includes(value._tag as string)

// Those of streams are checked with their options.
const policy = rule<Policy | StreamPolicy | ((error: never, delivery: Delivery) => Policy | StreamPolicy)>(
  "redeliver, requeue, deadLetter, drop or retry, or a function that chooses; of a stream stop, skip or publishTo",
  (value) =>
    isPolicy(value) || hasStreamTag(value) || typeof value === "function"
      ? (value as Policy | (() => Policy))
      : undefined
)

const isFinal = (value: unknown): value is FinalPolicy =>
  isPolicy(value) && (value._tag === "DeadLetter" || value._tag === "Drop")

const finalPolicy = rule<FinalPolicy>("deadLetter or drop", (value) => (isFinal(value) ? value : undefined))

// RFC 2104: a key shorter than the hash weakens it. What people choose is shorter still.
const shortestSecret = 16

const isSecret = (value: unknown): value is Redacted.Redacted<string> => {
  if (!Redacted.isRedacted(value)) return false
  const secret: unknown = Redacted.value(value)
  return typeof secret === "string" && secret.isWellFormed() && Buffer.byteLength(secret) >= shortestSecret
}

const secrets = rule<Secrets[number] | Secrets, Secrets>(
  `a Redacted string of at least ${shortestSecret} bytes, or an array of at least one of them`,
  (value) => {
    const several: ReadonlyArray<unknown> = Array.isArray(value) ? value : [value]
    return several.length > 0 && several.every(isSecret) ? [...several] : undefined
  }
)

// --- Tables ----------------------------------------------------------------------------------------------------------

/** What every consumer takes. */
const subscribing = {
  name: rule<string>("a text that is not empty", (value) =>
    typeof value === "string" && value !== "" ? value : undefined
  ),
  essential: or(boolean, true),
  prefetch: integer(1, 65_535),
  ...omit(consumeRules, "noAck"),
  consumerTimeout: rule<Duration.Input, number>(
    // The broker takes whole milliseconds.
    `a duration from 1 ms to ${Duration.format(Duration.millis(longestTimer))}, in whole milliseconds`,
    (value, operation) => {
      const millis = duration(1).read(value, operation)
      return Number.isInteger(millis) ? millis : undefined
    }
  ),
  declare: callback<NonNullable<SubscribeOptions["declare"]>>(),
  resubscribe: choice(["never", "lost", "always"]),
  onEnd: callback<NonNullable<SubscribeOptions["onEnd"]>>(),
  ...streamRules
}

/** What is refused of a stream, which delivers nothing again: an option stands here, or streams heed it. */
const subscribingToQueues = {
  retrySecret: or(secrets, [])
}

const subscribeRules = { ...subscribing, ...subscribingToQueues } satisfies Table<SubscribeOptions>

const streamingRules = { ...subscribeRules, inactivityTimeout: duration(1) } satisfies Table<StreamOptions>

/** What every handler takes. */
const handling = {
  concurrency: or(integer(1, 65_535), 1),
  onFailure: policy,
  onDefect: policy,
  onDecodeFailure: policy,
  shutdownTimeout: duration(0),
  schema: rule<Schema.Constraint>("a Schema", (value) =>
    (typeof value === "object" || typeof value === "function") && value !== null && "ast" in value
      ? (value as Schema.Constraint)
      : undefined
  )
}

/** What is refused of a stream, which counts nothing: an option stands here, or `StreamSettling` heeds it. */
const handlingOfQueues = {
  maxDeliveries: or(integer(1, Number.MAX_SAFE_INTEGER), Infinity),
  sharedCount: or(boolean, true),
  onPoison: or(finalPolicy, deadLetter),
  deliveryLimit: integer(-1, Number.MAX_SAFE_INTEGER)
}

export const handleRules = { ...subscribeRules, ...handling, ...handlingOfQueues } satisfies Table<
  ConsumeOptions & DecodeOptions<Schema.Constraint>
>

const batchRules = {
  ...handleRules,
  size: required(integer(1, 65_535)),
  within: required(duration(1))
} satisfies Table<ConsumeOptions & DecodeOptions<Schema.Constraint> & BatchOptions>

const onlyOfQueues = Object.keys({ ...subscribingToQueues, ...handlingOfQueues }) as ReadonlyArray<string>

// --- Settings --------------------------------------------------------------------------------------------------------

type Subscribed = Values<typeof subscribeRules>

/** What is read into `start` and `reading`. */
type StartingWith = keyof typeof consumeRules | keyof typeof streamRules | "prefetch" | "consumerTimeout"

/** How to subscribe. */
export interface Subscribing extends Omit<Subscribed, StartingWith | "name" | "resubscribe"> {
  /** What health checks call it. */
  readonly name: string
  readonly resubscribe: Resubscribe
  readonly start: Start
  /** How a stream is read; `undefined` for other queues. */
  readonly reading: StreamReading | undefined
}

export interface Streaming extends Subscribing, Pick<Values<typeof streamingRules>, "inactivityTimeout"> {}

/** A policy, or how to choose one. */
export type Choice = Policy | ((error: never, delivery: Delivery) => Policy)

export interface Handling extends Subscribing, Omit<Values<typeof handleRules>, keyof Subscribed | keyof Policies> {
  readonly onFailure: Choice
  readonly onDefect: Choice
  readonly onDecodeFailure: Choice
  /** The policies of a stream, in the place of those above. */
  readonly ofStream: StreamHandling | undefined
  /** The smallest prefetch: as many deliveries as are handled at a time. */
  readonly leastPrefetch: number
}

export interface Batching extends Handling, Pick<Values<typeof batchRules>, "size" | "within"> {}

// --- Reading ---------------------------------------------------------------------------------------------------------

const streamingOf = readerOf(streamingRules)
const handleOf = readerOf(handleRules)
const batchOf = readerOf(batchRules)

/** What a consumer is called that nobody has named. A tag that was not given is another one each time. */
const nameOf = (queue: string, consumerTag: string) => (consumerTag === "" ? queue : `${queue} (${consumerTag})`)

const subscribingOf = <Options extends Subscribed>(
  queue: string,
  options: SubscribeOptions | undefined,
  values: Options,
  resubscribe: Resubscribe,
  atLeast: number,
  queues: KnownQueues | undefined
): (Omit<Options, StartingWith> & Subscribing) | AmqpError.InvalidArgument => {
  const consume = checkQueue(operation, queue) ?? consumerStartOf(operation, queue, { ...values, noAck: false })
  if (isRefused(consume)) return consume
  const reading = readingOf(queue, values, options?.arguments, queues)
  if (isRefused(reading)) return reading
  const { consumerTimeout, prefetch, queueType } = values
  if (consumerTimeout !== undefined && consume.arguments[argument] !== undefined) {
    return refused(operation, "consumerTimeout", `this option or ${argument} among the arguments`, "both")
  }
  if (prefetch !== undefined && prefetch < atLeast) {
    const wants = `at least ${atLeast}, as many deliveries as are handled at a time`
    return refused(operation, "prefetch", wants, shown(prefetch))
  }
  const unheeded =
    reading === undefined
      ? undefined
      : onlyOfQueues.find((name) => Predicate.hasProperty(options, name) && options[name] !== undefined)
  if (unheeded !== undefined) {
    return notForStreams(unheeded, "nothing: a stream does not deliver again what failed")
  }
  return {
    ...values,
    start: {
      ...consume,
      consumerTag:
        consume.consumerTag === "" ? `consumer-${Crypto.randomBytes(9).toString("base64url")}` : consume.consumerTag,
      prefetch: prefetch ?? Math.max(defaultPrefetch, atLeast),
      consumerTimeout,
      queueType
    },
    name: values.name ?? nameOf(queue, consume.consumerTag),
    resubscribe: values.resubscribe ?? resubscribe,
    reading
  }
}

/** What health checks know of a consumer whose options are refused. */
export const presenceOf = (queue: unknown, options: unknown): Pick<Subscribing, "name" | "essential"> => {
  const { consumerTag, essential, name } = (options ?? {}) as Partial<Record<keyof SubscribeOptions, unknown>>
  return {
    name:
      typeof name === "string" && name !== ""
        ? name
        : nameOf(String(queue), typeof consumerTag === "string" ? consumerTag : ""),
    essential: essential !== false
  }
}

export const readStream = (
  queue: string,
  options: StreamOptions | undefined,
  queues: KnownQueues | undefined
): Streaming | AmqpError.InvalidArgument => {
  const values = streamingOf(operation, options)
  return isRefused(values) ? values : subscribingOf(queue, options, values, "never", 1, queues)
}

// Without this check each delivery would die of it, and come back forever.
const noHandler = (value: unknown) => refused(operation, "handler", "a function", shown(value))

const handlingOf = <Options extends Values<typeof handleRules>>(
  queue: string,
  options: ConsumeOptions<never> | undefined,
  values: Options,
  atLeast: number,
  queues: KnownQueues | undefined
) => {
  const subscribing = subscribingOf(queue, options, values, "lost", atLeast, queues)
  if (isRefused(subscribing)) return subscribing
  const ofStream = subscribing.reading === undefined ? refuseStreamPolicies(values) : streamHandlingOf(values)
  if (isRefused(ofStream)) return ofStream
  for (const name of ["onFailure", "onDefect", "onDecodeFailure"] as const) {
    const given = values[name]
    if (!isPolicy(given) || given._tag !== "Retry") continue
    const plan = planOf(queue, given.options, name)
    if (isRefused(plan)) return plan
  }
  return {
    ...subscribing,
    onFailure: (values.onFailure as Choice | undefined) ?? redeliver,
    onDefect: (values.onDefect as Choice | undefined) ?? redeliver,
    onDecodeFailure: (values.onDecodeFailure as Choice | undefined) ?? redeliver,
    ofStream,
    leastPrefetch: atLeast
  }
}

export const readHandling = (
  queue: string,
  options: ConsumeOptions<never> | undefined,
  handler: unknown,
  queues: KnownQueues | undefined
): Handling | AmqpError.InvalidArgument => {
  const values = handleOf(operation, options)
  if (isRefused(values)) return values
  if (typeof handler !== "function") return noHandler(handler)
  return handlingOf(queue, options, values, values.concurrency, queues)
}

export const readBatching = (
  queue: string,
  options: ConsumeOptions<never> & BatchOptions,
  handler: unknown,
  queues: KnownQueues | undefined
): Batching | AmqpError.InvalidArgument => {
  const values = batchOf(operation, options)
  if (isRefused(values)) return values
  if (typeof handler !== "function") return noHandler(handler)
  const atLeast = values.size * values.concurrency
  if (atLeast > 65_535) {
    return refused(
      operation,
      "size",
      "size times concurrency to be at most 65535, the largest prefetch",
      shown(atLeast)
    )
  }
  return handlingOf(queue, options, values, atLeast, queues)
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
