/** The arguments of a queue, checked as RabbitMQ checks them. */
import { type Failure, internalError, leftOut, preconditionFailed, queueIn } from "../failure.ts"
import type { Behavior } from "../version.ts"
import * as Table from "./table.ts"

export type Overflow = "drop-head" | "reject-publish" | "reject-publish-dlx"

export interface QueueSettings {
  readonly isQuorum: boolean
  readonly messageTtl: number | undefined
  readonly expires: number | undefined
  readonly maxLength: number | undefined
  readonly maxLengthBytes: number | undefined
  readonly overflow: Overflow
  readonly deadLetterExchange: string | undefined
  readonly deadLetterRoutingKey: string | undefined
  /** Whether a dead letter stays until a queue has taken it. */
  readonly deadLettersAtLeastOnce: boolean
  readonly deliveryLimit: number | undefined
  readonly isSingleActiveConsumer: boolean
}

/** 3650 days: RabbitMQ refuses longer times. */
const maxMillis = 315_360_000_000

type Check = (value: Table.Value, args: ReadonlyArray<Table.Entry>) => string | undefined

const unacceptable = (value: Table.Value): string => `{unacceptable_type,${Table.typeName(value)}}`

const checks = (): Readonly<Record<string, Check>> => {
  const integer: Check = (value) =>
    Table.isInteger(value) ? undefined : `"expected integer, got ${Table.typeName(value)}"`
  const natural: Check = (value, args) =>
    integer(value, args) ?? (Table.integer(value)! < 0 ? `{value_negative,${Table.integer(value)}}` : undefined)
  const millis: Check = (value, args) =>
    natural(value, args) ??
    (Table.integer(value)! > maxMillis ? `{value_too_large,${Table.integer(value)}}` : undefined)
  const string: Check = (value) => (value.tag === "S" ? undefined : unacceptable(value))
  const oneOf =
    (allowed: ReadonlyArray<string>, problem: string): Check =>
    (value, args) =>
      string(value, args) ?? (allowed.includes(Table.text(value)!) ? undefined : problem)
  return {
    "x-expires": (value, args) =>
      integer(value, args) ?? (Table.integer(value) === 0 ? "{value_zero,0}" : millis(value, args)),
    "x-message-ttl": millis,
    "x-dead-letter-exchange": string,
    "x-dead-letter-routing-key": (value, args) =>
      string(value, args) ??
      (Table.find(args, "x-dead-letter-exchange") === undefined ? "routing_key_but_no_dlx_defined" : undefined),
    "x-dead-letter-strategy": oneOf(["at-most-once", "at-least-once"], "invalid_dlx_strategy"),
    "x-max-length": natural,
    "x-max-length-bytes": natural,
    "x-max-in-memory-length": natural,
    "x-max-in-memory-bytes": natural,
    "x-max-priority": natural,
    "x-overflow": oneOf(["drop-head", "reject-publish", "reject-publish-dlx"], "invalid_overflow"),
    "x-queue-mode": oneOf(["default", "lazy"], "invalid_queue_mode"),
    "x-queue-version": natural,
    "x-single-active-consumer": (value) => (value.tag === "t" ? undefined : unacceptable(value)),
    "x-queue-type": string,
    "x-quorum-initial-group-size": (value, args) =>
      natural(value, args) ?? (Table.integer(value) === 0 ? "{value_zero,0}" : undefined)
  }
}

const argumentChecks = checks()

// In the order in which RabbitMQ compares them.
const ofClassic = [
  "x-expires",
  "x-message-ttl",
  "x-dead-letter-exchange",
  "x-dead-letter-routing-key",
  "x-max-length",
  "x-max-length-bytes",
  "x-max-priority",
  "x-overflow",
  "x-queue-mode",
  "x-queue-version",
  "x-single-active-consumer",
  "x-queue-type",
  "x-queue-master-locator",
  "x-queue-leader-locator"
]
const ofQuorum = [
  "x-dead-letter-exchange",
  "x-dead-letter-routing-key",
  "x-dead-letter-strategy",
  "x-expires",
  "x-max-length",
  "x-max-length-bytes",
  "x-max-in-memory-length",
  "x-max-in-memory-bytes",
  "x-overflow",
  "x-single-active-consumer",
  "x-queue-type",
  "x-quorum-initial-group-size",
  "x-delivery-limit",
  "x-message-ttl",
  "x-queue-leader-locator"
]
/** Arguments of RabbitMQ 4, for which the memory broker does nothing. */
const laterArguments = [
  "x-consumer-timeout",
  "x-consumer-disconnected-timeout",
  "x-delayed-retry-type",
  "x-delayed-retry-min",
  "x-delayed-retry-max"
]
const ofStreams = ["x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size"]
const all = new Set([...ofClassic, ...ofQuorum, ...ofStreams])

/** The arguments that a later declaration must repeat. */
export const comparedArguments = (isQuorum: boolean): ReadonlyArray<string> => (isQuorum ? ofQuorum : ofClassic)

export interface QueueFlags {
  readonly durable: boolean
  readonly exclusive: boolean
  readonly autoDelete: boolean
}

const flagProblem = ({ autoDelete, durable, exclusive }: QueueFlags): string | undefined => {
  if (autoDelete) return "auto-delete"
  if (exclusive) return "exclusive-owner"
  return durable ? undefined : "non-durable"
}

/** Reads the type of a queue. Throws a `Failure` if there is no such type. */
export const queueType = (resource: string, args: ReadonlyArray<Table.Entry>): string => {
  const value = Table.find(args, "x-queue-type")
  if (value === undefined) return "classic"
  const name = Table.text(value)
  if (name === undefined) throw preconditionFailed(`invalid arg 'x-queue-type' for ${resource}: ${unacceptable(value)}`)
  if (name === "stream") throw leftOut("streams")
  if (name !== "classic" && name !== "quorum") {
    throw preconditionFailed(`invalid arg 'x-queue-type' for ${resource}: "unsupported queue type '${name}'"`)
  }
  return name
}

/** Checks a new queue's arguments. Throws a `Failure`. */
export const readSettings = (
  behavior: Behavior,
  vhost: string,
  name: string,
  flags: QueueFlags,
  args: ReadonlyArray<Table.Entry>
): QueueSettings => {
  const resource = queueIn(vhost, name)
  const isQuorum = queueType(resource, args) === "quorum"
  const supported = isQuorum ? ofQuorum : ofClassic
  for (const [key, check] of Object.entries(argumentChecks)) {
    const value = Table.find(args, key)
    if (value === undefined || (behavior.hasDeathRecords && !supported.includes(key))) continue
    const problem = check(value, args)
    if (problem !== undefined) throw preconditionFailed(`invalid arg '${key}' for ${resource}: ${problem}`)
  }
  for (const { key } of args) {
    if (all.has(key) && !supported.includes(key)) {
      throw preconditionFailed(
        `invalid arg '${key}' for ${resource} of queue type ${isQuorum ? "rabbit_quorum_queue" : "rabbit_classic_queue"}`
      )
    }
  }
  const given = (key: string) => Table.find(args, key)
  for (const key of laterArguments) {
    // Earlier versions ignore what they do not know.
    if (given(key) !== undefined && behavior.hasDeathRecords) throw leftOut(`'${key}'`)
  }
  if (given("x-queue-master-locator") !== undefined && behavior.hasDeathRecords) {
    throw internalError("Feature `queue_master_locator` is deprecated.")
  }
  if (given("x-max-priority") !== undefined) throw leftOut("priority queues")
  const problem = isQuorum ? flagProblem(flags) : undefined
  if (problem !== undefined) throw preconditionFailed(`invalid property '${problem}' for ${resource}`)
  return {
    isQuorum,
    messageTtl: Table.integer(given("x-message-ttl")),
    expires: Table.integer(given("x-expires")),
    maxLength: Table.integer(given("x-max-length")),
    maxLengthBytes: Table.integer(given("x-max-length-bytes")),
    overflow: overflowOf(isQuorum, Table.text(given("x-overflow"))),
    deadLetterExchange: Table.text(given("x-dead-letter-exchange")),
    deadLetterRoutingKey: Table.text(given("x-dead-letter-routing-key")),
    deadLettersAtLeastOnce:
      isQuorum &&
      Table.text(given("x-dead-letter-strategy")) === "at-least-once" &&
      Table.text(given("x-overflow")) === "reject-publish" &&
      given("x-dead-letter-exchange") !== undefined,
    deliveryLimit: isQuorum ? deliveryLimitOf(behavior, Table.integer(given("x-delivery-limit"))) : undefined,
    isSingleActiveConsumer: Table.find(args, "x-single-active-consumer")?.bytes[0] === 1
  }
}

const deliveryLimitOf = (behavior: Behavior, given: number | undefined): number | undefined => {
  if (given === undefined) return behavior.deliveryLimit
  return given < 0 && behavior.hasUnlimitedDeliveries ? undefined : Math.max(0, given)
}

/** A quorum queue does not know `reject-publish-dlx`, and reads it as its default. */
const overflowOf = (isQuorum: boolean, given: string | undefined): Overflow => {
  if (given === "reject-publish") return given
  return given === "reject-publish-dlx" && !isQuorum ? given : "drop-head"
}

const valueText = (value: Table.Value | undefined): string => {
  if (value === undefined) return "none"
  return `the value '${String(Table.plain(value))}' of type '${Table.typeName(value)}'`
}

/** Compares the arguments of a declaration with those of what exists. */
export const argumentMismatch = (
  resource: string,
  keys: ReadonlyArray<string>,
  current: ReadonlyArray<Table.Entry>,
  received: ReadonlyArray<Table.Entry>
): Failure | undefined => {
  for (const key of keys) {
    const before = Table.find(current, key)
    const now = Table.find(received, key)
    if (before === undefined && now === undefined) continue
    const inequivalent = (got: string, has: string) =>
      preconditionFailed(`inequivalent arg '${key}' for ${resource}: received ${got} but current is ${has}`)
    if (before === undefined || now === undefined) return inequivalent(valueText(now), valueText(before))
    if (Table.sameValue(before, now)) continue
    return inequivalent(`'${String(Table.plain(now))}'`, `'${String(Table.plain(before))}'`)
  }
  return undefined
}

export const flagMismatch = (
  resource: string,
  name: string,
  current: unknown,
  received: unknown
): Failure | undefined =>
  current === received
    ? undefined
    : preconditionFailed(
        `inequivalent arg '${name}' for ${resource}: received '${String(received)}' but current is '${String(current)}'`
      )
