/**
 * Names and options of AMQP's methods, checked before anything is sent.
 *
 * Every function here returns either what is sent, or the `InvalidArgument` that names the option, what was expected
 * and what was given.
 */
import type * as Duration from "effect/Duration"
import type {
  BindOptions,
  ConsumeOptions,
  ConsumerStart,
  ExchangeDeclareOptions,
  PublishOptions,
  QueueDeclareOptions
} from "../../model/channel.ts"
import type { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable, FieldValue, Headers } from "../../model/message.ts"
import { isDirectReplyTo, isMalformedAddress, malformedAddress, expectedAddress } from "./directReply.ts"
import { isName, describeName, invalidArgument, toTable, expectedName } from "./fieldTable.ts"
import {
  boolean,
  choice,
  integer,
  isInvalidArgument,
  withDefault,
  readerOf,
  type Rule,
  rule,
  type Rules,
  formatValue,
  type Table,
  toMillis,
  type Values
} from "./optionTable.ts"
import { frameOverhead } from "./protocol.ts"
import { sizeOfTable } from "./tableBytes.ts"
import { checkOffset } from "./streams.ts"

export { isInvalidArgument, readFlags } from "./optionTable.ts"

const name: Rule<string, string, undefined> = rule(expectedName, (value) => (isName(value) ? value : undefined))

/** 3650 days. RabbitMQ refuses longer times, for messages and for queues (measured on 3.10: `value_too_large`). */
export const maxTtlMillis = 315_360_000_000

const milliseconds = (least: number): Rule<Duration.Input, number, undefined> =>
  rule(`a duration of ${least} to ${maxTtlMillis} whole milliseconds`, (value) => {
    const millis = toMillis(value)
    return Number.isInteger(millis) && Number(millis) >= least && Number(millis) <= maxTtlMillis ? millis : undefined
  })

const unbounded = Number.MAX_SAFE_INTEGER

// --- Tables ----------------------------------------------------------------------------------------------------------

/** An option that is sent in the table of arguments under this name. */
const asArgument = <In, Out, const Name extends string>(
  argument: Name,
  given: Rule<In, Out, undefined>
): Rule<In, Out, undefined> & { readonly argument: Name } => ({ ...given, argument })

/** The table of arguments that is given in addition to the options. `methodOf` finds conflicts between the two. */
const argumentTable: Rule<Headers, FieldTable, undefined> = rule("a plain object", (value, operation) =>
  toTable(value, "arguments", operation)
)

const exchangeDeclareRules = {
  durable: withDefault(boolean, true),
  autoDelete: withDefault(boolean, false),
  internal: withDefault(boolean, false),
  alternateExchange: asArgument("alternate-exchange", name),
  arguments: argumentTable
} satisfies Table<ExchangeDeclareOptions>

const queueDeclareRules = {
  durable: withDefault(boolean, true),
  exclusive: withDefault(boolean, false),
  autoDelete: withDefault(boolean, false),
  queueType: asArgument("x-queue-type", choice(["classic", "quorum", "stream"])),
  queueMode: asArgument("x-queue-mode", choice(["default", "lazy"])),
  singleActiveConsumer: asArgument("x-single-active-consumer", boolean),
  deliveryLimit: asArgument(
    "x-delivery-limit",
    rule<number | "default">('an integer from 0, or "default"', (value, operation) =>
      value === "default" ? value : integer(0, unbounded).read(value, operation)
    )
  ),
  maxLength: asArgument("x-max-length", integer(0, unbounded)),
  maxLengthBytes: asArgument("x-max-length-bytes", integer(0, unbounded)),
  overflow: asArgument("x-overflow", choice(["drop-head", "reject-publish", "reject-publish-dlx"])),
  deadLetterExchange: asArgument("x-dead-letter-exchange", name),
  deadLetterRoutingKey: asArgument("x-dead-letter-routing-key", name),
  deadLetterStrategy: asArgument("x-dead-letter-strategy", choice(["at-most-once", "at-least-once"])),
  messageTtl: asArgument("x-message-ttl", milliseconds(0)),
  expires: asArgument("x-expires", milliseconds(1)),
  consumerTimeout: asArgument("x-consumer-timeout", milliseconds(1)),
  maxPriority: asArgument("x-max-priority", integer(1, 255)),
  maxAge: asArgument(
    "x-max-age",
    rule<Duration.Input, string>("a duration of whole seconds, from 1 s", (value) => {
      const millis = toMillis(value)
      return millis !== undefined && millis >= 1000 && millis % 1000 === 0 ? `${millis / 1000}s` : undefined
    })
  ),
  streamMaxSegmentSizeBytes: asArgument("x-stream-max-segment-size-bytes", integer(1, unbounded)),
  quorumInitialGroupSize: asArgument("x-quorum-initial-group-size", integer(1, unbounded)),
  queueLeaderLocator: asArgument("x-queue-leader-locator", choice(["client-local", "balanced"])),
  delayedRetryType: asArgument("x-delayed-retry-type", choice(["all", "failed", "returned"])),
  delayedRetryMin: asArgument("x-delayed-retry-min", milliseconds(1)),
  delayedRetryMax: asArgument("x-delayed-retry-max", milliseconds(1)),
  consumerDisconnectedTimeout: asArgument("x-consumer-disconnected-timeout", milliseconds(0)),
  arguments: argumentTable
} satisfies Table<QueueDeclareOptions>

const bindRules = { arguments: argumentTable } satisfies Table<BindOptions>

/** The options of `basic.consume`, for `AmqpChannel` and for `AmqpConsumer`. */
export const consumeRules = {
  consumerTag: withDefault(name, ""),
  noAck: withDefault(boolean, false),
  exclusive: withDefault(boolean, false),
  priority: asArgument("x-priority", integer(-(2 ** 31), 2 ** 31 - 1)),
  arguments: rule<Headers, FieldTable>("a plain object", (value, operation) => {
    const table = toTable(value, "arguments", operation)
    return isInvalidArgument(table) ? table : (checkOffset(operation, value) ?? table)
  })
} satisfies Table<ConsumeOptions>

// --- Methods ---------------------------------------------------------------------------------------------------------

/** What is sent for options that were read: the fields of a method, and its table of arguments. */
type Method<Known> = {
  readonly [
    Name in keyof Known as Known[Name] extends { readonly argument: string } ? never : Name
  ]: Name extends "arguments" ? FieldTable : Values<Known>[Name]
}

const noArguments: FieldTable = Object.freeze(Object.create(null))

/** Adds the options that are arguments to the given table of arguments. No argument may be given both ways. */
const methodOf = <Known extends Rules & { readonly arguments: Rule<never> }>(
  operation: string,
  rules: Known,
  values: { readonly [Name in keyof Known]: unknown }
): Method<Known> | InvalidArgument => {
  const given = values.arguments as FieldTable | undefined
  const fields: Record<string, unknown> = {}
  let table: Record<string, FieldValue | undefined> | undefined
  for (const name of Object.keys(rules)) {
    if (name === "arguments") continue
    const { argument } = rules[name]!
    const value = values[name]
    if (argument === undefined) fields[name] = value
    else if (value !== undefined) {
      if (given !== undefined && Object.hasOwn(given, argument)) {
        return invalidArgument(operation, name, `either this option or ${argument} among the arguments`, "both")
      }
      ;(table ??= copyOf(given))[argument] = value as FieldValue
    }
  }
  fields["arguments"] = table ?? given ?? noArguments
  return fields as Method<Known>
}

// amqplib reads inherited keys too, and a checked table may hide its own keys in its prototype: `for ... in` sees them
// all.
const copyOf = (table: FieldTable | undefined): Record<string, FieldValue | undefined> => {
  const copy: Record<string, FieldValue | undefined> = Object.create(null)
  for (const key in table) copy[key] = table[key]
  return copy
}

const without = (table: FieldTable, name: string): FieldTable => {
  const rest: Record<string, FieldValue | undefined> = Object.create(null)
  for (const key in table) if (key !== name) rest[key] = table[key]
  return rest
}

/** Checks a name that must be given. */
export const checkName = (operation: string, argument: string, value: unknown): InvalidArgument | undefined => {
  if (!isName(value)) return invalidArgument(operation, argument, expectedName, describeName(value))
  if (value !== "") return undefined
  return invalidArgument(
    operation,
    argument,
    "a non-empty name",
    "an empty one, which AMQP reads as the last name on the channel"
  )
}

/** Checks a name that may be empty. */
export const checkNameOrEmpty = (operation: string, argument: string, value: unknown): InvalidArgument | undefined =>
  isName(value) ? undefined : invalidArgument(operation, argument, expectedName, describeName(value))

const checkAddress = (operation: string, argument: string, value: string): InvalidArgument | undefined =>
  isMalformedAddress(value) ? invalidArgument(operation, argument, expectedAddress, malformedAddress) : undefined

/** Checks the name of a queue, which must be given. */
export const checkQueue = (operation: string, queue: unknown): InvalidArgument | undefined =>
  checkName(operation, "queue", queue) ?? checkAddress(operation, "queue", queue as string)

/** Checks the name of a queue, or an empty name, for which the broker chooses one. */
export const checkQueueOrEmpty = (operation: string, queue: unknown): InvalidArgument | undefined =>
  checkNameOrEmpty(operation, "queue", queue) ?? checkAddress(operation, "queue", queue as string)

/**
 * Checks the name of a queue to get a message from. RabbitMQ 4.3 closes the connection (540) for an address of direct
 * reply-to.
 */
export const checkGet = (operation: string, queue: unknown): InvalidArgument | undefined =>
  checkQueue(operation, queue) ??
  (isDirectReplyTo(queue as string)
    ? invalidArgument(
        operation,
        "queue",
        "the name of a queue",
        "an address of direct reply-to, which holds no messages"
      )
    : undefined)

/** Checks `prefetchCount` of `basic.qos`. */
export const checkPrefetch = (operation: string, value: unknown): InvalidArgument | undefined => {
  const { read, expected } = integer(0, 65_535)
  return read(value, operation) === undefined
    ? invalidArgument(operation, "prefetchCount", expected, formatValue(value))
    : undefined
}

/**
 * Returns why a method with these names and this table is not sent: it would be larger than a frame, and the broker
 * would close the connection (501).
 */
export const checkSize = (
  operation: string,
  names: ReadonlyArray<string>,
  table: FieldTable,
  frameMax: number
): InvalidArgument | undefined => {
  if (frameMax === 0) return undefined
  // Class, method, a reserved short, and the byte with the boolean fields.
  let size = frameOverhead + 4 + 2 + (operation === "queue.unbind" ? 0 : 1) + sizeOfTable(table)
  for (const name of names) size += 1 + Buffer.byteLength(name)
  if (size <= frameMax) return undefined
  return invalidArgument(
    operation,
    "arguments",
    `a table that fits, together with the names, into a frame of ${frameMax} bytes (frameMax)`,
    `a frame of ${size} bytes`
  )
}

/** The same check in a function that sends. It throws the error, and the request fails with it. */
export const assertFits = (...args: Parameters<typeof checkSize>): void => {
  const refused = checkSize(...args)
  if (refused !== undefined) throw refused
}

const exchangeDeclareOf = readerOf(exchangeDeclareRules)
const queueDeclareOf = readerOf(queueDeclareRules)
const bindOf = readerOf(bindRules)
const consumeOf = readerOf(consumeRules)

export const readExchangeDeclare = (options: unknown, operation = "exchange.declare") => {
  const values = exchangeDeclareOf(operation, options)
  return isInvalidArgument(values) ? values : methodOf(operation, exchangeDeclareRules, values)
}

/** Refuses options that RabbitMQ accepts, but for which it makes no pause or a shorter one. */
const checkDelayedRetry = (operation: string, table: FieldTable): InvalidArgument | undefined => {
  const { ["x-delayed-retry-type"]: type, ["x-delayed-retry-min"]: least, ["x-delayed-retry-max"]: most } = table
  const isOn = type !== undefined && type !== "disabled"
  if (isOn && least === undefined) {
    return invalidArgument(
      operation,
      "delayedRetryMin",
      "the shortest pause, which delayedRetryType requires",
      "nothing"
    )
  }
  if (type === undefined && (least !== undefined || most !== undefined)) {
    return invalidArgument(
      operation,
      "delayedRetryType",
      '"all", "failed" or "returned", which a delay requires',
      "nothing"
    )
  }
  if (typeof least === "number" && typeof most === "number" && most < least) {
    return invalidArgument(operation, "delayedRetryMax", `at least ${least} ms (delayedRetryMin)`, `${most} ms`)
  }
  return undefined
}

export const readQueueDeclare = (options: unknown, operation = "queue.declare") => {
  const values = queueDeclareOf(operation, options)
  if (isInvalidArgument(values)) return values
  const declared = methodOf(operation, queueDeclareRules, values)
  if (isInvalidArgument(declared)) return declared
  const { ["x-dead-letter-exchange"]: exchange, ["x-dead-letter-routing-key"]: key } = declared.arguments
  if (exchange === "" && typeof key === "string" && isMalformedAddress(key)) {
    return invalidArgument(operation, "deadLetterRoutingKey", expectedAddress, malformedAddress)
  }
  const refused = checkDelayedRetry(operation, declared.arguments)
  if (refused !== undefined) return refused
  return values.deliveryLimit === "default"
    ? { ...declared, arguments: without(declared.arguments, "x-delivery-limit") }
    : declared
}

/** Reads the table of arguments of a binding. */
export const readBind = (operation: string, options: BindOptions | undefined): FieldTable | InvalidArgument => {
  const values = bindOf(operation, options)
  return isInvalidArgument(values) ? values : (values.arguments ?? noArguments)
}

/** Returns how a consumer starts. Its options were read by a table that contains these rules. */
export const consumerStartOf = (
  operation: string,
  queue: string,
  values: Values<typeof consumeRules>
): ConsumerStart | InvalidArgument => {
  const fields = methodOf(operation, consumeRules, values)
  return isInvalidArgument(fields) ? fields : { queue, ...fields }
}

export const readConsume = (queue: string, options: unknown): ConsumerStart | InvalidArgument => {
  const operation = "basic.consume"
  const refused = checkQueue(operation, queue)
  if (refused !== undefined) return refused
  const values = consumeOf(operation, options)
  return isInvalidArgument(values) ? values : consumerStartOf(operation, queue, values)
}

// --- Publishing ------------------------------------------------------------------------------------------------------

/** The options of a publish, with durations in milliseconds. */
export interface PublishSettings {
  readonly wait: boolean
  readonly mandatory: boolean
  readonly timeout: number | undefined
}

export const publishRules = {
  onBlocked: withDefault(choice(["wait", "fail"]), "wait"),
  mandatory: withDefault(boolean, false),
  timeout: rule<Duration.Input, number>("a duration from 1 ms to 24.8 days", (value) => {
    const millis = toMillis(value)
    return millis !== undefined && millis >= 1 && millis < 2 ** 31 ? millis : undefined
  })
} satisfies Table<PublishOptions>

const publishOf = readerOf(publishRules)

const asConfigured: PublishSettings = { wait: true, mandatory: false, timeout: undefined }

/** Returns the settings of a publish. Its options were read by a table that contains these rules. */
export const publishSettingsOf = ({ mandatory, onBlocked, timeout }: Values<typeof publishRules>): PublishSettings => ({
  wait: onBlocked !== "fail",
  mandatory,
  timeout
})

export const readPublish = (options: PublishOptions | undefined): PublishSettings | InvalidArgument => {
  if (options === undefined) return asConfigured
  const values = publishOf("basic.publish", options)
  return isInvalidArgument(values) ? values : publishSettingsOf(values)
}
