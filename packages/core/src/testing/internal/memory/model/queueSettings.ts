/** The arguments of a queue, checked as RabbitMQ checks them. */
import { Failure, internalError, leftOut, preconditionFailed, queueIn } from "../failure.ts"
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
  /** How long a delivery may stay unsettled, in milliseconds. `undefined`: as long as the broker's default says. */
  readonly consumerTimeout: number | undefined
}

/** 3650 days: RabbitMQ refuses longer times. */
const maxMillis = 315_360_000_000

type Check = (value: Table.Value, args: ReadonlyArray<Table.Entry>) => string | undefined

const unacceptable = (value: Table.Value): string => `{unacceptable_type,${Table.typeName(value)}}`

const integer: Check = (value) =>
  Table.isInteger(value) ? undefined : `"expected integer, got ${Table.typeName(value)}"`
const natural: Check = (value, args) =>
  integer(value, args) ?? (Table.integer(value)! < 0 ? `{value_negative,${Table.integer(value)}}` : undefined)
const positive: Check = (value, args) =>
  natural(value, args) ?? (Table.integer(value) === 0 ? "{value_zero,0}" : undefined)
const millis: Check = (value, args) =>
  natural(value, args) ?? (Table.integer(value)! > maxMillis ? `{value_too_large,${Table.integer(value)}}` : undefined)
const string: Check = (value) => (value.tag === "S" ? undefined : unacceptable(value))
const boolean: Check = (value) => (value.tag === "t" ? undefined : unacceptable(value))
const oneOf =
  (allowed: ReadonlyArray<string>, problem: (given: string) => string): Check =>
  (value, args) =>
    string(value, args) ?? (allowed.includes(Table.text(value)!) ? undefined : problem(Table.text(value)!))
const version =
  (allowed: ReadonlyArray<number>): Check =>
  (value, args) =>
    natural(value, args) ??
    (allowed.includes(Table.integer(value)!) ? undefined : `"unsupported queue version '${Table.integer(value)}'"`)

/** In the order in which RabbitMQ checks them. */
const commonChecks: Readonly<Record<string, Check>> = {
  "x-expires": (value, args) =>
    integer(value, args) ?? (Table.integer(value) === 0 ? "{value_zero,0}" : millis(value, args)),
  "x-message-ttl": millis,
  "x-dead-letter-routing-key": (value, args) =>
    string(value, args) ??
    (Table.find(args, "x-dead-letter-exchange") === undefined ? "routing_key_but_no_dlx_defined" : undefined),
  "x-dead-letter-strategy": oneOf(["at-most-once", "at-least-once"], () => "invalid_dlx_strategy"),
  "x-max-length": natural,
  "x-max-length-bytes": natural,
  "x-max-in-memory-length": natural,
  "x-max-in-memory-bytes": natural,
  "x-max-priority": (value, args) =>
    natural(value, args) ?? (Table.integer(value)! > 255 ? `{max_value_exceeded,${Table.integer(value)}}` : undefined),
  "x-overflow": oneOf(["drop-head", "reject-publish", "reject-publish-dlx"], () => "invalid_overflow")
}

const locator = oneOf(["client-local", "balanced", "random", "least-leaders"], () => "invalid_queue_locator_arg")

const laterChecks: Readonly<Record<string, Check>> = {
  "x-queue-type": string,
  "x-quorum-initial-group-size": positive
}

/** What a version of RabbitMQ knows of the arguments of queues and consumers. */
interface Known {
  readonly checks: Readonly<Record<string, Check>>
  /** In the order in which RabbitMQ compares them. */
  readonly ofClassic: ReadonlyArray<string>
  readonly ofQuorum: ReadonlyArray<string>
  readonly ofStreams: ReadonlyArray<string>
  readonly consumerChecks: Readonly<Record<string, Check>>
  readonly ofClassicConsumers: ReadonlyArray<string>
  readonly ofQuorumConsumers: ReadonlyArray<string>
  readonly ofStreamConsumers: ReadonlyArray<string>
}

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
  "x-queue-master-locator"
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
const ofStreams = ["x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size", "x-queue-leader-locator"]

const before: Known = {
  checks: {
    ...commonChecks,
    "x-queue-mode": oneOf(["default", "lazy"], (given) => `"unsupported queue mode '${given}'"`),
    "x-queue-version": version([1, 2]),
    "x-single-active-consumer": boolean,
    ...laterChecks,
    "x-queue-leader-locator": locator
  },
  ofClassic,
  ofQuorum,
  ofStreams,
  consumerChecks: { "x-priority": integer, "x-cancel-on-ha-failover": boolean },
  ofClassicConsumers: ["x-cancel-on-ha-failover", "x-priority", "x-credit"],
  ofQuorumConsumers: ["x-priority", "x-credit"],
  ofStreamConsumers: ["x-stream-offset", "x-credit"]
}

const since: Known = {
  checks: {
    ...commonChecks,
    "x-queue-version": version([2]),
    "x-single-active-consumer": boolean,
    "x-consumer-timeout": natural,
    "x-consumer-disconnected-timeout": natural,
    ...laterChecks,
    "x-queue-leader-locator": locator
  },
  ofClassic: [...ofClassic, "x-queue-leader-locator"],
  ofQuorum: [
    ...ofQuorum,
    "x-consumer-disconnected-timeout",
    "x-consumer-timeout",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max"
  ],
  ofStreams: [...ofStreams, "x-stream-filter-size-bytes"],
  consumerChecks: { "x-priority": integer, "x-consumer-timeout": natural },
  ofClassicConsumers: ["x-priority"],
  ofQuorumConsumers: ["x-priority", "x-consumer-timeout"],
  ofStreamConsumers: ["x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"]
}

const knownTo = ({ hasDeathRecords }: Behavior): Known => (hasDeathRecords ? since : before)

/** Arguments that RabbitMQ knows, and for which the memory broker does nothing. */
const leftOutOfQueues: Readonly<Record<string, string>> = {
  "x-max-priority": "priority queues",
  "x-delayed-retry-type": "delayed retries ('x-delayed-retry-type')",
  "x-delayed-retry-min": "delayed retries ('x-delayed-retry-min')",
  "x-delayed-retry-max": "delayed retries ('x-delayed-retry-max')",
  "x-consumer-disconnected-timeout": "clusters ('x-consumer-disconnected-timeout')"
}

/** The arguments that a later declaration must repeat. */
export const comparedArguments = (behavior: Behavior, isQuorum: boolean): ReadonlyArray<string> =>
  isQuorum ? knownTo(behavior).ofQuorum : knownTo(behavior).ofClassic

const checkArguments = (
  resource: string,
  isQuorum: boolean,
  args: ReadonlyArray<Table.Entry>,
  checks: Readonly<Record<string, Check>>,
  supported: ReadonlyArray<string>,
  all: ReadonlyArray<string>
): void => {
  for (const [key, check] of Object.entries(checks)) {
    const value = supported.includes(key) ? Table.find(args, key) : undefined
    const problem = value === undefined ? undefined : check(value, args)
    if (problem !== undefined) throw preconditionFailed(`invalid arg '${key}' for ${resource}: ${problem}`)
  }
  for (const { key } of args) {
    if (!all.includes(key) || supported.includes(key)) continue
    const type = isQuorum ? "rabbit_quorum_queue" : "rabbit_classic_queue"
    throw preconditionFailed(`invalid arg '${key}' for ${resource} of queue type ${type}`)
  }
}

/** Checks a consumer's arguments. Throws a `Failure`. */
export const readConsumerSettings = (
  behavior: Behavior,
  resource: string,
  isQuorum: boolean,
  args: ReadonlyArray<Table.Entry>
): { readonly priority: number | undefined; readonly timeout: number | undefined } => {
  const { consumerChecks, ofClassicConsumers, ofQuorumConsumers, ofStreamConsumers } = knownTo(behavior)
  const supported = isQuorum ? ofQuorumConsumers : ofClassicConsumers
  const all = [...ofClassicConsumers, ...ofQuorumConsumers, ...ofStreamConsumers]
  checkArguments(resource, isQuorum, args, consumerChecks, supported, all)
  if (all.includes("x-credit") && Table.find(args, "x-credit") !== undefined) throw leftOut("credit ('x-credit')")
  const { timeoutEnds } = behavior
  return {
    priority: Table.integer(Table.find(args, "x-priority")),
    timeout: timeoutEnds === "consumer" ? Table.integer(Table.find(args, "x-consumer-timeout")) : undefined
  }
}

export interface QueueFlags {
  readonly durable: boolean
  readonly exclusive: boolean
  readonly autoDelete: boolean
}

/** As RabbitMQ sends it, cut to the length of a short string. */
const masterLocatorDeprecated =
  "Feature `queue_master_locator` is deprecated.\nBy default, this feature is not permitted anymore.\nThe feature will be removed from a future major RabbitMQ version, regardless of the configuration; actual version to be determined.\nTo con..."

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
  const deadLetterExchange = Table.find(args, "x-dead-letter-exchange")
  if (deadLetterExchange !== undefined && deadLetterExchange.tag !== "S") {
    throw preconditionFailed(
      `invalid type '${Table.typeName(deadLetterExchange)}' for arg 'x-dead-letter-exchange' in ${resource}`
    )
  }
  const isQuorum = queueType(resource, args) === "quorum"
  const known = knownTo(behavior)
  const supported = isQuorum ? known.ofQuorum : known.ofClassic
  const all = [...known.ofClassic, ...known.ofQuorum, ...known.ofStreams]
  // RabbitMQ 4 adds the type to a declaration without one, which sorts its arguments.
  const isSorted = behavior.hasDeathRecords && Table.find(args, "x-queue-type") === undefined
  const inOrder = isSorted ? args.toSorted((a, b) => (a.key < b.key ? -1 : 1)) : args
  checkArguments(resource, isQuorum, inOrder, known.checks, supported, all)
  const given = (key: string) => Table.find(args, key)
  for (const [key, what] of Object.entries(leftOutOfQueues)) {
    // Versions ignore what they do not know.
    if (given(key) !== undefined && all.includes(key)) throw leftOut(what)
  }
  const masterLocator = Table.text(given("x-queue-master-locator"))
  if (masterLocator !== undefined && behavior.hasDeathRecords) {
    throw internalError(masterLocatorDeprecated)
  }
  if (masterLocator !== undefined && !["client-local", "min-masters", "random"].includes(masterLocator)) {
    // The queue's process ends, without a reason that a client gets.
    throw new Failure("connection", 541, "INTERNAL_ERROR")
  }
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
    isSingleActiveConsumer: Table.find(args, "x-single-active-consumer")?.bytes[0] === 1,
    consumerTimeout: behavior.timeoutEnds === "consumer" ? Table.integer(given("x-consumer-timeout")) : undefined
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
