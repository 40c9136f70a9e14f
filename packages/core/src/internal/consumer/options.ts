/** Reads the options of consumers: checks them before anything is sent, and fills in defaults. */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Crypto from "node:crypto"
import type * as AmqpError from "../../model/error.ts"
import type {
  BatchOptions,
  ConsumeOptions,
  DeadLettering,
  DecodeOptions,
  Inbox,
  InboxOptions,
  StreamOptions,
  SubscribeOptions
} from "../../model/consumer.ts"
import { checkQueue, consumeRules, consumerStartOf } from "../wire/declarations.ts"
import { invalidArgument } from "../wire/fieldTable.ts"
import {
  boolean,
  choice,
  duration,
  integer,
  maxTimerMillis,
  isInvalidArgument,
  omit,
  withDefault,
  readerOf,
  required,
  type Rule,
  rule,
  formatValue,
  type Table,
  type Values
} from "../wire/optionTable.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import { deadLetter, redeliver } from "../../model/policies.ts"
import type { Secrets } from "./retryHeaders.ts"
import { consumerTimeoutArgument } from "./consumerTimeout.ts"
import { type PolicyChoice, finalPolicy, isPolicy, retryPlanOf, policy } from "./policyOptions.ts"
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

// RabbitMQ recommends 100 to 300 (https://www.rabbitmq.com/docs/confirms#channel-qos-prefetch-throughput).
const defaultPrefetch = 250

// --- Rules -----------------------------------------------------------------------------------------------------------

const callback = <F>(): Rule<F, F, undefined> =>
  rule("a function", (value) => (typeof value === "function" ? (value as F) : undefined))

// RFC 2104: a key shorter than the hash weakens it. Secrets that people choose are often even shorter.
const shortestSecret = 16

const isSecret = (value: unknown): value is Redacted.Redacted<string> => {
  if (!Redacted.isRedacted(value)) return false
  const secret: unknown = Redacted.value(value)
  return typeof secret === "string" && secret.isWellFormed() && Buffer.byteLength(secret) >= shortestSecret
}

export const secrets = rule<Secrets[number] | Secrets, Secrets>(
  `a Redacted string of at least ${shortestSecret} bytes, or an array of at least one of them`,
  (value) => {
    const several: ReadonlyArray<unknown> = Array.isArray(value) ? value : [value]
    return several.length > 0 && several.every(isSecret) ? [...several] : undefined
  }
)

const deadLettering = rule<DeadLettering>(
  '"publish", "reject", or an object with exchange and routingKey of at most 255 bytes each',
  (value) => {
    if (value === "publish" || value === "reject") return value
    if (typeof value !== "object" || value === null) return undefined
    const isName = (name: unknown): name is string =>
      typeof name === "string" && name.isWellFormed() && Buffer.byteLength(name) <= 255
    const { exchange, routingKey } = value as { readonly exchange?: unknown; readonly routingKey?: unknown }
    if (!isName(exchange) || (routingKey !== undefined && !isName(routingKey))) return undefined
    return { exchange, routingKey }
  }
)

// --- Tables ----------------------------------------------------------------------------------------------------------

/** The options of every consumer. */
const subscribeRules = {
  name: rule<string>("a non-empty string", (value) => (typeof value === "string" && value !== "" ? value : undefined)),
  requiredForReadiness: withDefault(boolean, true),
  prefetch: integer(1, 65_535),
  ...omit(consumeRules, "noAck"),
  consumerTimeout: rule<Duration.Input, number>(
    // The broker accepts whole milliseconds only.
    `a duration from 1 ms to ${Duration.format(Duration.millis(maxTimerMillis))}, in whole milliseconds`,
    (value, operation) => {
      const millis = duration(1).read(value, operation)
      return Number.isInteger(millis) ? millis : undefined
    }
  ),
  declare: callback<NonNullable<SubscribeOptions["declare"]>>(),
  resubscribe: choice(["never", "lost", "always"]),
  onEnd: callback<NonNullable<SubscribeOptions["onEnd"]>>(),
  retrySecret: withDefault(secrets, []),
  ...streamRules
} satisfies Table<SubscribeOptions>

const streamingRules = { ...subscribeRules, inactivityTimeout: duration(1) } satisfies Table<StreamOptions>

/** The options of every handler. */
const handling = {
  concurrency: withDefault(integer(1, 65_535), 1),
  onFailure: policy,
  onDefect: policy,
  onDecodeFailure: policy,
  shutdownTimeout: duration(0),
  schema: rule<Schema.Constraint>("a Schema", (value) => (Schema.isSchema(value) ? value : undefined))
}

/**
 * Options that are refused for a stream, because it does not count deliveries. Every option is either listed here or
 * applied by `StreamSettling`.
 */
const handlingOfQueues = {
  maxDeliveries: withDefault(integer(1, Number.MAX_SAFE_INTEGER), Infinity),
  sharedCount: withDefault(boolean, true),
  onPoison: withDefault(finalPolicy, deadLetter),
  deadLettering: withDefault(deadLettering, "publish"),
  deliveryLimit: integer(-1, Number.MAX_SAFE_INTEGER)
}

export const handleRules = { ...subscribeRules, ...handling, ...handlingOfQueues } satisfies Table<
  ConsumeOptions & DecodeOptions<Schema.Constraint>
>

/** The options of consumers that handle each delivery individually. */
const eachRules = {
  ...handleRules,
  inbox: rule<Inbox<unknown, unknown>>("an Inbox, an object with a function make", (value) =>
    Predicate.hasProperty(value, "make") && typeof value.make === "function"
      ? (value as unknown as Inbox<unknown, unknown>)
      : undefined
  )
} satisfies Table<ConsumeOptions & DecodeOptions<Schema.Constraint> & InboxOptions<unknown, unknown>>

const batchRules = {
  ...handleRules,
  size: required(integer(1, 65_535)),
  within: required(duration(1))
} satisfies Table<ConsumeOptions & DecodeOptions<Schema.Constraint> & BatchOptions>

const onlyOfQueues = Object.keys(handlingOfQueues) as ReadonlyArray<string>

// --- Settings --------------------------------------------------------------------------------------------------------

type Subscribed = Values<typeof subscribeRules>

/** The options that are read into `start` and `reading`. */
type StartingWith = keyof typeof consumeRules | keyof typeof streamRules | "prefetch" | "consumerTimeout"

/** How a consumer subscribes. */
export interface SubscriptionSettings extends Omit<Subscribed, StartingWith | "name" | "resubscribe"> {
  /** The consumer's name in health checks. */
  readonly name: string
  readonly resubscribe: Resubscribe
  readonly start: Start
  /** How a stream is read; `undefined` for other queues. */
  readonly reading: StreamReading | undefined
}

export interface StreamSettings
  extends SubscriptionSettings, Pick<Values<typeof streamingRules>, "inactivityTimeout"> {}

export interface HandlerSettings
  extends SubscriptionSettings, Omit<Values<typeof handleRules>, keyof Subscribed | keyof Policies> {
  readonly onFailure: PolicyChoice
  readonly onDefect: PolicyChoice
  readonly onDecodeFailure: PolicyChoice
  /** The policies of a stream, which replace those above; `undefined` for other queues. */
  readonly ofStream: StreamHandling | undefined
  /** What handlers run inside of. */
  readonly inbox?: Inbox<unknown, unknown> | undefined
  /** The consumer's name for its inbox. */
  readonly inboxName: string
  /** The smallest prefetch: the number of deliveries that are handled at a time. */
  readonly leastPrefetch: number
}

export interface BatchSettings extends HandlerSettings, Pick<Values<typeof batchRules>, "size" | "within"> {}

// --- Reading ---------------------------------------------------------------------------------------------------------

const streamingOf = readerOf(streamingRules)
const eachOf = readerOf(eachRules)
const batchOf = readerOf(batchRules)

/**
 * The default name of a consumer. A generated consumer tag is not part of it, because each start generates another one.
 */
const nameOf = (queue: string, consumerTag: string) => (consumerTag === "" ? queue : `${queue} (${consumerTag})`)

const subscribingOf = <Options extends Subscribed>(
  queue: string,
  options: SubscribeOptions | undefined,
  values: Options,
  resubscribe: Resubscribe,
  atLeast: number,
  queues: KnownQueues | undefined
): (Omit<Options, StartingWith> & SubscriptionSettings) | AmqpError.InvalidArgument => {
  const consume = checkQueue(operation, queue) ?? consumerStartOf(operation, queue, { ...values, noAck: false })
  if (isInvalidArgument(consume)) return consume
  const reading = readingOf(queue, values, options?.arguments, queues)
  if (isInvalidArgument(reading)) return reading
  const { consumerTimeout, prefetch, queueType } = values
  if (consumerTimeout !== undefined && consume.arguments[consumerTimeoutArgument] !== undefined) {
    return invalidArgument(
      operation,
      "consumerTimeout",
      `this option or ${consumerTimeoutArgument} among the arguments`,
      "both"
    )
  }
  if (prefetch !== undefined && prefetch < atLeast) {
    const expected = `at least ${atLeast}, as many deliveries as are handled at a time`
    return invalidArgument(operation, "prefetch", expected, formatValue(prefetch))
  }
  const unheeded =
    reading === undefined
      ? undefined
      : onlyOfQueues.find((name) => Predicate.hasProperty(options, name) && options[name] !== undefined)
  if (unheeded !== undefined) {
    return notForStreams(unheeded, "no value: a stream does not deliver failed messages again")
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

/** The health options of a consumer whose options are refused. */
export const healthOptionsOf = (
  queue: unknown,
  options: unknown
): Pick<SubscriptionSettings, "name" | "requiredForReadiness"> => {
  const { consumerTag, requiredForReadiness, name } = (options ?? {}) as Partial<
    Record<keyof SubscribeOptions, unknown>
  >
  return {
    name:
      typeof name === "string" && name !== ""
        ? name
        : nameOf(String(queue), typeof consumerTag === "string" ? consumerTag : ""),
    requiredForReadiness: requiredForReadiness !== false
  }
}

export const readStream = (
  queue: string,
  options: StreamOptions | undefined,
  queues: KnownQueues | undefined
): StreamSettings | AmqpError.InvalidArgument => {
  const values = streamingOf(operation, options)
  return isInvalidArgument(values) ? values : subscribingOf(queue, options, values, "never", 1, queues)
}

// Without this check every delivery would fail with a defect and be redelivered forever.
const noHandler = (value: unknown) => invalidArgument(operation, "handler", "a function", formatValue(value))

const handlingOf = <Options extends Values<typeof handleRules>>(
  queue: string,
  options: ConsumeOptions<never> | undefined,
  values: Options,
  atLeast: number,
  queues: KnownQueues | undefined
) => {
  const subscribing = subscribingOf(queue, options, values, "lost", atLeast, queues)
  if (isInvalidArgument(subscribing)) return subscribing
  const ofStream = subscribing.reading === undefined ? refuseStreamPolicies(values) : streamHandlingOf(values)
  if (isInvalidArgument(ofStream)) return ofStream
  for (const name of policyNames) {
    const given = values[name]
    if (!isPolicy(given) || given._tag !== "Retry") continue
    const plan = retryPlanOf(queue, given.options, name)
    if (isInvalidArgument(plan)) return plan
  }
  return {
    ...subscribing,
    onFailure: (values.onFailure as PolicyChoice | undefined) ?? redeliver,
    onDefect: (values.onDefect as PolicyChoice | undefined) ?? redeliver,
    onDecodeFailure: (values.onDecodeFailure as PolicyChoice | undefined) ?? redeliver,
    ofStream,
    inboxName: values.name ?? queue,
    leastPrefetch: atLeast
  }
}

export const readHandling = (
  queue: string,
  options: ConsumeOptions<never> | undefined,
  handler: unknown,
  queues: KnownQueues | undefined
): HandlerSettings | AmqpError.InvalidArgument => {
  const values = eachOf(operation, options)
  if (isInvalidArgument(values)) return values
  if (typeof handler !== "function") return noHandler(handler)
  return handlingOf(queue, options, values, values.concurrency, queues)
}

export const readBatching = (
  queue: string,
  options: ConsumeOptions<never> & BatchOptions,
  handler: unknown,
  queues: KnownQueues | undefined
): BatchSettings | AmqpError.InvalidArgument => {
  const values = batchOf(operation, options)
  if (isInvalidArgument(values)) return values
  if (typeof handler !== "function") return noHandler(handler)
  const atLeast = values.size * values.concurrency
  if (atLeast > 65_535) {
    return invalidArgument(
      operation,
      "size",
      "size times concurrency to be at most 65535, the largest prefetch",
      formatValue(atLeast)
    )
  }
  return handlingOf(queue, options, values, atLeast, queues)
}
