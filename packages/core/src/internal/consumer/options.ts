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
  StreamOptions,
  SubscribeOptions
} from "../../model/consumer.ts"
import type * as Schema from "effect/Schema"
import { checkQueue, consumeRules, consumerStartOf } from "../wire/declarations.ts"
import { refused } from "../wire/fieldTable.ts"
import {
  boolean,
  choice,
  duration,
  integer,
  longestTimer,
  isRefused,
  omit,
  or,
  readerOf,
  required,
  type Rule,
  rule,
  shown,
  type Table,
  type Values
} from "../wire/optionTable.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import { deadLetter, redeliver } from "../../model/policies.ts"
import type { Secrets } from "./attempts.ts"
import { argument } from "./consumerTimeout.ts"
import { type Choice, finalPolicy, isPolicy, planOf, policy } from "./policyOptions.ts"
import type { Resubscribe } from "./recovery.ts"
import {
  notForStreams,
  type Policies,
  policyNames,
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

// --- Rules -----------------------------------------------------------------------------------------------------------

const callback = <F>(): Rule<F, F, undefined> =>
  rule("a function", (value) => (typeof value === "function" ? (value as F) : undefined))

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
  for (const name of policyNames) {
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
