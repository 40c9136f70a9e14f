/**
 * Names and options of AMQP's methods, checked before anything is sent.
 *
 * Every function here returns either what is to be sent, or the `InvalidArgument` that names the option, what it got and
 * what it wants.
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
import { isDirect, isMalformed, malformedAddress, wantsAddress } from "./directReply.ts"
import { isName, kindOfName, refused, toTable, wantsName } from "./fieldTable.ts"
import {
  boolean,
  choice,
  integer,
  isRefused,
  or,
  readerOf,
  type Rule,
  rule,
  type Rules,
  shown,
  type Table,
  toMillis,
  type Values
} from "./optionTable.ts"
import { overhead } from "./protocol.ts"
import { sizeOfTable } from "./tableBytes.ts"
import { checkOffset } from "./streams.ts"

export { isRefused, readFlags } from "./optionTable.ts"

const name: Rule<string, string, undefined> = rule(wantsName, (value) => (isName(value) ? value : undefined))

/** 3650 days. RabbitMQ refuses longer ones, of messages and of queues (measured on 3.10: `value_too_large`). */
export const longestTtl = 315_360_000_000

const milliseconds = (least: number): Rule<Duration.Input, number, undefined> =>
  rule(`a duration of ${least} to ${longestTtl} whole milliseconds`, (value) => {
    const millis = toMillis(value)
    return Number.isInteger(millis) && Number(millis) >= least && Number(millis) <= longestTtl ? millis : undefined
  })

const any = Number.MAX_SAFE_INTEGER

// --- Tables ----------------------------------------------------------------------------------------------------------

/** An option that is sent in the table of arguments, by this name. */
const as = <In, Out, const Name extends string>(
  argument: Name,
  given: Rule<In, Out, undefined>
): Rule<In, Out, undefined> & { readonly argument: Name } => ({ ...given, argument })

/** The table of arguments that is given beside the options. Conflicts with them are found by `methodOf`. */
const argumentTable: Rule<Headers, FieldTable, undefined> = rule("a plain object", (value, operation) =>
  toTable(value, "arguments", operation)
)

const exchangeDeclareRules = {
  durable: or(boolean, true),
  autoDelete: or(boolean, false),
  internal: or(boolean, false),
  alternateExchange: as("alternate-exchange", name),
  arguments: argumentTable
} satisfies Table<ExchangeDeclareOptions>

const queueDeclareRules = {
  durable: or(boolean, true),
  exclusive: or(boolean, false),
  autoDelete: or(boolean, false),
  queueType: as("x-queue-type", choice(["classic", "quorum", "stream"])),
  queueMode: as("x-queue-mode", choice(["default", "lazy"])),
  singleActiveConsumer: as("x-single-active-consumer", boolean),
  deliveryLimit: as(
    "x-delivery-limit",
    rule<number | "default">('a whole number from 0, or "default"', (value, operation) =>
      value === "default" ? value : integer(0, any).read(value, operation)
    )
  ),
  maxLength: as("x-max-length", integer(0, any)),
  maxLengthBytes: as("x-max-length-bytes", integer(0, any)),
  overflow: as("x-overflow", choice(["drop-head", "reject-publish", "reject-publish-dlx"])),
  deadLetterExchange: as("x-dead-letter-exchange", name),
  deadLetterRoutingKey: as("x-dead-letter-routing-key", name),
  deadLetterStrategy: as("x-dead-letter-strategy", choice(["at-most-once", "at-least-once"])),
  messageTtl: as("x-message-ttl", milliseconds(0)),
  expires: as("x-expires", milliseconds(1)),
  consumerTimeout: as("x-consumer-timeout", milliseconds(1)),
  maxPriority: as("x-max-priority", integer(1, 255)),
  maxAge: as(
    "x-max-age",
    rule<Duration.Input, string>("a duration of whole seconds, from 1 s", (value) => {
      const millis = toMillis(value)
      return millis !== undefined && millis >= 1000 && millis % 1000 === 0 ? `${millis / 1000}s` : undefined
    })
  ),
  streamMaxSegmentSizeBytes: as("x-stream-max-segment-size-bytes", integer(1, any)),
  quorumInitialGroupSize: as("x-quorum-initial-group-size", integer(1, any)),
  queueLeaderLocator: as("x-queue-leader-locator", choice(["client-local", "balanced"])),
  delayedRetryType: as("x-delayed-retry-type", choice(["all", "failed", "returned"])),
  delayedRetryMin: as("x-delayed-retry-min", milliseconds(1)),
  delayedRetryMax: as("x-delayed-retry-max", milliseconds(1)),
  consumerDisconnectedTimeout: as("x-consumer-disconnected-timeout", milliseconds(0)),
  arguments: argumentTable
} satisfies Table<QueueDeclareOptions>

const bindRules = { arguments: argumentTable } satisfies Table<BindOptions>

/** What `basic.consume` takes, of `AmqpChannel` and of `AmqpConsumer`. */
export const consumeRules = {
  consumerTag: or(name, ""),
  noAck: or(boolean, false),
  exclusive: or(boolean, false),
  priority: as("x-priority", integer(-(2 ** 31), 2 ** 31 - 1)),
  arguments: rule<Headers, FieldTable>("a plain object", (value, operation) => {
    const table = toTable(value, "arguments", operation)
    return isRefused(table) ? table : (checkOffset(operation, value) ?? table)
  })
} satisfies Table<ConsumeOptions>

// --- Methods ---------------------------------------------------------------------------------------------------------

/** What is sent of options that were read: the fields of a method, and its table of arguments. */
type Method<Known> = {
  readonly [
    Name in keyof Known as Known[Name] extends { readonly argument: string } ? never : Name
  ]: Name extends "arguments" ? FieldTable : Values<Known>[Name]
}

const noArguments: FieldTable = Object.freeze(Object.create(null))

/** Puts the options that are arguments into the table of those that were given as such: none may be given both ways. */
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
        return refused(operation, name, `this option or ${argument} among the arguments`, "both")
      }
      ;(table ??= copyOf(given))[argument] = value as FieldValue
    }
  }
  fields["arguments"] = table ?? given ?? noArguments
  return fields as Method<Known>
}

// amqplib reads inherited keys too, and a checked table may hide its own in its prototype: `in` sees them all.
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

/** A name that must be given. */
export const checkName = (operation: string, argument: string, value: unknown): InvalidArgument | undefined => {
  if (!isName(value)) return refused(operation, argument, wantsName, kindOfName(value))
  if (value !== "") return undefined
  return refused(operation, argument, "a name", "an empty one, which AMQP takes for the latest on a channel")
}

/** A name that may be empty. */
export const checkText = (operation: string, argument: string, value: unknown): InvalidArgument | undefined =>
  isName(value) ? undefined : refused(operation, argument, wantsName, kindOfName(value))

const checkAddress = (operation: string, argument: string, value: string): InvalidArgument | undefined =>
  isMalformed(value) ? refused(operation, argument, wantsAddress, malformedAddress) : undefined

/** The name of a queue, which must be given. */
export const checkQueue = (operation: string, queue: unknown): InvalidArgument | undefined =>
  checkName(operation, "queue", queue) ?? checkAddress(operation, "queue", queue as string)

/** The name of a queue, or an empty one: the broker chooses it. */
export const checkNewQueue = (operation: string, queue: unknown): InvalidArgument | undefined =>
  checkText(operation, "queue", queue) ?? checkAddress(operation, "queue", queue as string)

/** The name of a queue to get a message from: RabbitMQ 4.3 closes the connection (540) for an address of direct reply-to. */
export const checkGet = (operation: string, queue: unknown): InvalidArgument | undefined =>
  checkQueue(operation, queue) ??
  (isDirect(queue as string)
    ? refused(operation, "queue", "a queue", "an address of direct reply-to, which holds no messages")
    : undefined)

/** `prefetchCount` of `basic.qos`. */
export const checkPrefetch = (operation: string, value: unknown): InvalidArgument | undefined => {
  const { read, wants } = integer(0, 65_535)
  return read(value, operation) === undefined ? refused(operation, "prefetchCount", wants, shown(value)) : undefined
}

/**
 * Why a method with these names and this table is not sent: it would be larger than a frame, over which the broker closes
 * the connection (501).
 */
export const checkSize = (
  operation: string,
  names: ReadonlyArray<string>,
  table: FieldTable,
  frameMax: number
): InvalidArgument | undefined => {
  if (frameMax === 0) return undefined
  // Class, method, a reserved short, and what is true or false.
  let size = overhead + 4 + 2 + (operation === "queue.unbind" ? 0 : 1) + sizeOfTable(table)
  for (const name of names) size += 1 + Buffer.byteLength(name)
  if (size <= frameMax) return undefined
  return refused(
    operation,
    "arguments",
    `a table that fits with the names into a frame of ${frameMax} bytes (frameMax)`,
    `one that makes it ${size}`
  )
}

/** The same, in a function that sends: throws what a request fails with then. */
export const mustFit = (...args: Parameters<typeof checkSize>): void => {
  const refused = checkSize(...args)
  if (refused !== undefined) throw refused
}

const exchangeDeclareOf = readerOf(exchangeDeclareRules)
const queueDeclareOf = readerOf(queueDeclareRules)
const bindOf = readerOf(bindRules)
const consumeOf = readerOf(consumeRules)

export const readExchangeDeclare = (options: unknown, operation = "exchange.declare") => {
  const values = exchangeDeclareOf(operation, options)
  return isRefused(values) ? values : methodOf(operation, exchangeDeclareRules, values)
}

/** What RabbitMQ takes, and makes no pause for, or a shorter one. */
const checkDelayedRetry = (operation: string, table: FieldTable): InvalidArgument | undefined => {
  const { ["x-delayed-retry-type"]: type, ["x-delayed-retry-min"]: least, ["x-delayed-retry-max"]: most } = table
  const isOn = type !== undefined && type !== "disabled"
  if (isOn && least === undefined) {
    return refused(operation, "delayedRetryMin", "the shortest pause beside a delayedRetryType", "none")
  }
  if (type === undefined && (least !== undefined || most !== undefined)) {
    return refused(operation, "delayedRetryType", 'what is delayed: "all", "failed" or "returned"', "none")
  }
  if (typeof least === "number" && typeof most === "number" && most < least) {
    return refused(operation, "delayedRetryMax", `at least delayedRetryMin, ${least} ms`, `${most} ms`)
  }
  return undefined
}

export const readQueueDeclare = (options: unknown, operation = "queue.declare") => {
  const values = queueDeclareOf(operation, options)
  if (isRefused(values)) return values
  const declared = methodOf(operation, queueDeclareRules, values)
  if (isRefused(declared)) return declared
  const { ["x-dead-letter-exchange"]: exchange, ["x-dead-letter-routing-key"]: key } = declared.arguments
  if (exchange === "" && typeof key === "string" && isMalformed(key)) {
    return refused(operation, "deadLetterRoutingKey", wantsAddress, malformedAddress)
  }
  const unpaced = checkDelayedRetry(operation, declared.arguments)
  if (unpaced !== undefined) return unpaced
  return values.deliveryLimit === "default"
    ? { ...declared, arguments: without(declared.arguments, "x-delivery-limit") }
    : declared
}

/** The table of arguments of a binding. */
export const readBind = (operation: string, options: BindOptions | undefined): FieldTable | InvalidArgument => {
  const values = bindOf(operation, options)
  return isRefused(values) ? values : (values.arguments ?? noArguments)
}

/** How a consumer starts, of options that were read by a table which has these rules. */
export const consumerStartOf = (
  operation: string,
  queue: string,
  values: Values<typeof consumeRules>
): ConsumerStart | InvalidArgument => {
  const fields = methodOf(operation, consumeRules, values)
  return isRefused(fields) ? fields : { queue, ...fields }
}

export const readConsume = (queue: string, options: unknown): ConsumerStart | InvalidArgument => {
  const operation = "basic.consume"
  const refused = checkQueue(operation, queue)
  if (refused !== undefined) return refused
  const values = consumeOf(operation, options)
  return isRefused(values) ? values : consumerStartOf(operation, queue, values)
}

// --- Publishing ------------------------------------------------------------------------------------------------------

/** The options of a publish, with durations in milliseconds. */
export interface PublishSettings {
  readonly wait: boolean
  readonly mandatory: boolean
  readonly timeout: number | undefined
}

export const publishRules = {
  onBlocked: or(choice(["wait", "fail"]), "wait"),
  mandatory: or(boolean, false),
  timeout: rule<Duration.Input, number>("a duration from 1 ms to 24.8 days", (value) => {
    const millis = toMillis(value)
    return millis !== undefined && millis >= 1 && millis < 2 ** 31 ? millis : undefined
  })
} satisfies Table<PublishOptions>

const publishOf = readerOf(publishRules)

const asConfigured: PublishSettings = { wait: true, mandatory: false, timeout: undefined }

/** Of options that were read by a table which has these rules. */
export const publishSettingsOf = ({ mandatory, onBlocked, timeout }: Values<typeof publishRules>): PublishSettings => ({
  wait: onBlocked !== "fail",
  mandatory,
  timeout
})

export const readPublish = (options: PublishOptions | undefined): PublishSettings | InvalidArgument => {
  if (options === undefined) return asConfigured
  const values = publishOf("basic.publish", options)
  return isRefused(values) ? values : publishSettingsOf(values)
}
