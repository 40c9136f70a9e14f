/**
 * Names and options of AMQP's methods, checked before anything is sent.
 *
 * Every function here returns either what is to be sent, or the `InvalidArgument` that names the option, what it got and
 * what it wants.
 */
import * as Duration from "effect/Duration"
import type {
  BindOptions,
  ConsumeOptions,
  ExchangeDeclareOptions,
  PublishOptions,
  QueueDeclareOptions
} from "../../model/channel.ts"
import { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable, FieldValue } from "../../model/message.ts"
import type { ConsumerStart } from "../../model/channel.ts"
import { isDirect, isMalformed, malformedAddress, wantsAddress } from "./directReply.ts"
import { isName, kindOfName, refused, toTable, wantsName } from "./fieldTable.ts"
import { overhead } from "./protocol.ts"
import { sizeOfTable } from "./tableBytes.ts"
import { checkOffset } from "./streams.ts"

/** How an option is checked, and what it becomes on the wire. */
export interface Option {
  readonly wants: string
  /** What is sent for it; undefined: refused. */
  readonly read: (value: unknown) => unknown
  /** Its name in the table of arguments; undefined: a field of the method. */
  readonly argument?: string
}

export const shown = (value: unknown): string => {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "an array" : "an object"
  return typeof value === "bigint" ? `${value}n` : String(value)
}

export const boolean: Option = {
  wants: "true or false",
  read: (value) => (typeof value === "boolean" ? value : undefined)
}

export const integer = (least: number, most: number, argument?: string): Option => ({
  wants: most === Number.MAX_SAFE_INTEGER ? `a whole number from ${least}` : `a whole number from ${least} to ${most}`,
  read: (value) => (Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most ? value : undefined),
  ...(argument === undefined ? undefined : { argument })
})

export const choice = (values: ReadonlyArray<string>, argument?: string): Option => ({
  wants: values.map((value) => JSON.stringify(value)).join(" or "),
  read: (value) => (values.includes(value as string) ? value : undefined),
  ...(argument === undefined ? undefined : { argument })
})

/** For what is handed on to an operation that checks it itself. */
export const passedOn: Option = { wants: "", read: (value) => value }

const name = (argument?: string): Option => ({
  wants: wantsName,
  read: (value) => (isName(value) ? value : undefined),
  ...(argument === undefined ? undefined : { argument })
})

/** 3650 days. RabbitMQ refuses longer ones, of messages and of queues (measured on 3.10: `value_too_large`). */
export const longestTtl = 315_360_000_000

/** A duration in milliseconds. `Duration` itself takes a negative number and NaN for zero. */
export const toMillis = (value: unknown): number | undefined => {
  if (typeof value === "number") return value >= 0 && value < Infinity ? value : undefined
  try {
    const duration = Duration.fromInputUnsafe(value as Duration.Input)
    return Duration.isFinite(duration) ? Duration.toMillis(duration) : undefined
  } catch {
    return undefined
  }
}

const milliseconds = (least: number, argument: string): Option => ({
  wants: `a duration of ${least} to ${longestTtl} whole milliseconds`,
  read: (value) => {
    const millis = toMillis(value)
    return Number.isInteger(millis) && Number(millis) >= least && Number(millis) <= longestTtl ? millis : undefined
  },
  argument
})

const any = Number.MAX_SAFE_INTEGER

const exchangeDeclareOptions: Record<Exclude<keyof ExchangeDeclareOptions, "arguments">, Option> = {
  durable: boolean,
  autoDelete: boolean,
  internal: boolean,
  alternateExchange: name("alternate-exchange")
}

const queueDeclareOptions: Record<Exclude<keyof QueueDeclareOptions, "arguments">, Option> = {
  durable: boolean,
  exclusive: boolean,
  autoDelete: boolean,
  queueType: choice(["classic", "quorum", "stream"], "x-queue-type"),
  queueMode: choice(["default", "lazy"], "x-queue-mode"),
  singleActiveConsumer: { ...boolean, argument: "x-single-active-consumer" },
  deliveryLimit: {
    wants: 'a whole number from 0, or "default"',
    read: (value) => (value === "default" ? value : integer(0, any).read(value)),
    argument: "x-delivery-limit"
  },
  maxLength: integer(0, any, "x-max-length"),
  maxLengthBytes: integer(0, any, "x-max-length-bytes"),
  overflow: choice(["drop-head", "reject-publish", "reject-publish-dlx"], "x-overflow"),
  deadLetterExchange: name("x-dead-letter-exchange"),
  deadLetterRoutingKey: name("x-dead-letter-routing-key"),
  deadLetterStrategy: choice(["at-most-once", "at-least-once"], "x-dead-letter-strategy"),
  messageTtl: milliseconds(0, "x-message-ttl"),
  expires: milliseconds(1, "x-expires"),
  consumerTimeout: milliseconds(1, "x-consumer-timeout"),
  maxPriority: integer(1, 255, "x-max-priority"),
  maxAge: {
    wants: "a duration of whole seconds, from 1 s",
    read: (value) => {
      const millis = toMillis(value)
      return millis !== undefined && millis >= 1000 && millis % 1000 === 0 ? `${millis / 1000}s` : undefined
    },
    argument: "x-max-age"
  },
  streamMaxSegmentSizeBytes: integer(1, any, "x-stream-max-segment-size-bytes"),
  quorumInitialGroupSize: integer(1, any, "x-quorum-initial-group-size"),
  queueLeaderLocator: choice(["client-local", "balanced"], "x-queue-leader-locator"),
  delayedRetryType: choice(["all", "failed", "returned"], "x-delayed-retry-type"),
  delayedRetryMin: milliseconds(1, "x-delayed-retry-min"),
  delayedRetryMax: milliseconds(1, "x-delayed-retry-max"),
  consumerDisconnectedTimeout: milliseconds(0, "x-consumer-disconnected-timeout")
}

const consumeOptions: Record<Exclude<keyof ConsumeOptions, "arguments">, Option> = {
  consumerTag: name(),
  noAck: boolean,
  exclusive: boolean,
  priority: { ...integer(-(2 ** 31), 2 ** 31 - 1), argument: "x-priority" }
}

/** The fields of a method, and its table of arguments. */
interface Read {
  readonly fields: Record<string, unknown>
  readonly arguments: FieldTable
}

const noFields: Record<string, unknown> = Object.freeze({})
const noArguments: FieldTable = Object.freeze(Object.create(null))
const nothing: Read = { fields: noFields, arguments: noArguments }

export const isRefused = (value: unknown): value is InvalidArgument => value instanceof InvalidArgument

export const read = (
  operation: string,
  options: unknown,
  known: { readonly [name: string]: Option },
  withArguments: boolean
): Read | InvalidArgument => {
  if (options === undefined) return nothing
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    return refused(operation, "options", "an object", shown(options))
  }
  const fields: Record<string, unknown> = {}
  const table: Record<string, FieldValue> = Object.create(null)
  let given: unknown
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined) continue
    if (key === "arguments" && withArguments) {
      given = value
      continue
    }
    const option = Object.hasOwn(known, key) ? known[key] : undefined
    if (option === undefined) {
      const names = [...Object.keys(known), ...(withArguments ? ["arguments"] : [])].join(", ")
      return refused(operation, key, `one of the options ${names}`, "an option of this name")
    }
    const sent = option.read(value)
    if (sent === undefined) return refused(operation, key, option.wants, shown(value))
    if (option.argument === undefined) fields[key] = sent
    else table[option.argument] = sent as FieldValue
  }
  if (given !== undefined) {
    const checked = toTable(given, "arguments", operation)
    if (isRefused(checked)) return checked
    for (const [key, option] of Object.entries(known)) {
      const { argument } = option
      if (argument !== undefined && Object.hasOwn(table, argument) && Object.hasOwn(given as object, argument)) {
        return refused(operation, key, `this option or ${argument} among the arguments`, "both")
      }
    }
    return { fields, arguments: Object.keys(table).length === 0 ? checked : merged(checked, table) }
  }
  return { fields, arguments: table }
}

// amqplib reads inherited keys too, and `checked` may hide its own in its prototype: `in` sees them all.
const merged = (checked: FieldTable, table: FieldTable): FieldTable => {
  const all: Record<string, FieldValue | undefined> = Object.create(null)
  for (const key in checked) all[key] = checked[key]
  for (const key of Object.keys(table)) all[key] = table[key]
  return all
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
  const option = integer(0, 65_535)
  return option.read(value) === undefined ? refused(operation, "prefetchCount", option.wants, shown(value)) : undefined
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

/** Options that are all true or false, with their defaults filled in. */
export const readFlags = <A extends Readonly<Record<string, boolean>>>(
  operation: string,
  options: unknown,
  defaults: A
): { readonly [K in keyof A]: boolean } | InvalidArgument => {
  if (options === undefined) return defaults
  const known = Object.fromEntries(Object.keys(defaults).map((key) => [key, boolean]))
  const checked = read(operation, options, known, false)
  return isRefused(checked) ? checked : ({ ...defaults, ...checked.fields } as { readonly [K in keyof A]: boolean })
}

export const readExchangeDeclare = (options: unknown, operation = "exchange.declare") => {
  const checked = read(operation, options, exchangeDeclareOptions, true)
  if (isRefused(checked)) return checked
  return { durable: true, autoDelete: false, internal: false, ...checked.fields, arguments: checked.arguments }
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
  const checked = read(operation, options, queueDeclareOptions, true)
  if (isRefused(checked)) return checked
  const { ["x-dead-letter-exchange"]: exchange, ["x-dead-letter-routing-key"]: key } = checked.arguments
  if (exchange === "" && typeof key === "string" && isMalformed(key)) {
    return refused(operation, "deadLetterRoutingKey", wantsAddress, malformedAddress)
  }
  const unpaced = checkDelayedRetry(operation, checked.arguments)
  if (unpaced !== undefined) return unpaced
  const { deliveryLimit } = (options ?? {}) as QueueDeclareOptions
  const table = deliveryLimit === "default" ? without(checked.arguments, "x-delivery-limit") : checked.arguments
  return { durable: true, exclusive: false, autoDelete: false, ...checked.fields, arguments: table }
}

/** The table of arguments of a binding. */
export const readBind = (operation: string, options: BindOptions | undefined): FieldTable | InvalidArgument => {
  const checked = read(operation, options, {}, true)
  return isRefused(checked) ? checked : checked.arguments
}

export const readConsume = (queue: string, options: unknown): ConsumerStart | InvalidArgument => {
  const operation = "basic.consume"
  const refused = checkQueue(operation, queue)
  if (refused !== undefined) return refused
  const checked = read(operation, options, consumeOptions, true)
  if (isRefused(checked)) return checked
  const unreadable = checkOffset(operation, (options as ConsumeOptions | undefined)?.arguments)
  if (unreadable !== undefined) return unreadable
  const defaults = { consumerTag: "", noAck: false, exclusive: false }
  return { queue, ...defaults, ...checked.fields, arguments: checked.arguments }
}

/** The options of a publish, with durations in milliseconds. */
export interface PublishSettings {
  readonly wait: boolean
  readonly mandatory: boolean
  readonly timeout: number | undefined
}

export const publishOptions: Record<keyof PublishOptions, Option> = {
  onBlocked: choice(["wait", "fail"]),
  mandatory: boolean,
  timeout: {
    wants: "a duration from 1 ms to 24.8 days",
    read: (value) => {
      const millis = toMillis(value)
      return millis !== undefined && millis >= 1 && millis < 2 ** 31 ? millis : undefined
    }
  }
}

const asConfigured: PublishSettings = { wait: true, mandatory: false, timeout: undefined }

export const readPublish = (options: PublishOptions | undefined): PublishSettings | InvalidArgument => {
  if (options === undefined) return asConfigured
  const checked = read("basic.publish", options, publishOptions, false)
  if (isRefused(checked)) return checked
  const { mandatory, onBlocked, timeout } = checked.fields
  return { wait: onBlocked !== "fail", mandatory: mandatory === true, timeout: timeout as number | undefined }
}
