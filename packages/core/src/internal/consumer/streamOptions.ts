/**
 * Reads the options of consumers of streams: whether a queue is a stream, and what is refused for streams and for other
 * queues.
 */
import type * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import type * as AmqpError from "../../model/error.ts"
import type { Delivery, SavedOffsets, StreamOffset, SubscribeOptions } from "../../model/consumer.ts"
import type { OffsetStore } from "../../model/offsetStore.ts"
import type { FieldValue, Headers } from "../../model/message.ts"
import { checkNameOrEmpty } from "../wire/declarations.ts"
import { invalidArgument } from "../wire/fieldTable.ts"
import {
  choice,
  integer,
  withDefault,
  readerOf,
  required,
  rule,
  formatValue,
  type Table,
  toMillis,
  type Values
} from "../wire/optionTable.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import { isStream } from "../connection/knownQueues.ts"
import { offsetName, readOffset } from "../wire/streams.ts"
import { type PublishTo, type StreamPolicy, stop } from "../../model/streamPolicies.ts"

const operation = "basic.consume"

const maxSaveWithin = 3_600_000

/** Whether the value is intended as a policy of a stream. The arguments of `publishTo` may still be invalid. */
export const hasStreamTag = (value: unknown): boolean =>
  Predicate.hasProperty(value, "_tag") && ["Stop", "Skip", "PublishTo"].includes(value._tag as string)

export const isStreamPolicy = (value: unknown): value is StreamPolicy =>
  hasStreamTag(value) && ((value as StreamPolicy)._tag !== "PublishTo" || checkTarget(value as PublishTo) === undefined)

const checkTarget = ({ exchange, routingKey }: { readonly exchange: unknown; readonly routingKey: unknown }) =>
  checkNameOrEmpty(operation, "publishTo.exchange", exchange) ??
  checkNameOrEmpty(operation, "publishTo.routingKey", routingKey)

const isStore = (value: unknown): value is OffsetStore =>
  Predicate.hasProperty(value, "load") &&
  typeof value.load === "function" &&
  Predicate.hasProperty(value, "save") &&
  typeof value.save === "function"

const savedOffsetsRules = {
  store: required(
    rule<OffsetStore>("an OffsetStore, with load and save", (value) => (isStore(value) ? value : undefined))
  ),
  name: required(
    rule<string>("a string of 1 to 255 characters, the same at each start", (value) =>
      typeof value === "string" && value.length >= 1 && value.length <= 255 ? value : undefined
    )
  ),
  saveEvery: withDefault(integer(1, 1_000_000), 1000),
  saveWithin: withDefault(
    rule<Duration.Input, number>("a duration from 10 ms to 1 hour", (value) => {
      const millis = toMillis(value)
      return millis !== undefined && millis >= 10 && millis <= maxSaveWithin ? millis : undefined
    }),
    1000
  )
} satisfies Table<SavedOffsets>

/** How positions are saved: after `saveEvery` messages, or within `saveWithin` milliseconds. */
export type OffsetSaving = Values<typeof savedOffsetsRules>

const savedOffsetsOf = readerOf(savedOffsetsRules)

/** The options of streams. */
export const streamRules = {
  queueType: choice(["classic", "quorum", "stream"]),
  offset: rule<StreamOffset, FieldValue>(
    '"first", "last", "next", an offset from 0, a Date or DateTime from 1970 on, or { ago } with a duration from 1 s to 50 years',
    readOffset
  ),
  offsets: rule<SavedOffsets, OffsetSaving>("an object with store and name", (value, operation) =>
    typeof value === "object" && value !== null ? savedOffsetsOf(`${operation}: offsets`, value) : undefined
  )
} satisfies Table<Pick<SubscribeOptions, "queueType" | "offset" | "offsets">>

/** How a stream is read. */
export interface StreamReading {
  /** Where reading begins if no position is saved. */
  readonly offset: FieldValue
  readonly saving: OffsetSaving | undefined
}

/** A policy of a stream, or a function that chooses one. */
export type StreamPolicyChoice = StreamPolicy | ((error: never, delivery: Delivery) => StreamPolicy)

/** The policies for messages of a stream that are not handled. */
export interface StreamHandling {
  readonly onFailure: StreamPolicyChoice
  readonly onDefect: StreamPolicyChoice
  readonly onDecodeFailure: StreamPolicyChoice
}

/** How the queue is read as a stream; `undefined` if it is not a stream, as far as is known. */
export const readingOf = (
  queue: string,
  { offset, offsets, priority, queueType }: Values<typeof streamRules> & { readonly priority: number | undefined },
  table: Headers | undefined,
  queues: KnownQueues | undefined
): StreamReading | undefined | AmqpError.InvalidArgument => {
  const argument = table?.[offsetName]
  const says = offset !== undefined || offsets !== undefined || argument !== undefined
  if (queueType !== undefined && queueType !== "stream") {
    if (!says) return undefined
    return invalidArgument(operation, "queueType", '"stream" where offset or offsets is given', formatValue(queueType))
  }
  if (queueType === undefined && !says && !isStream(queues, queue)) return undefined
  if (offset !== undefined && argument !== undefined) {
    return invalidArgument(operation, "offset", `this option or ${offsetName} among the arguments`, "both")
  }
  if (priority !== undefined) return notForStreams("priority", "no value: streams have no priorities")
  return { offset: offset ?? argument ?? "next", saving: offsets }
}

export const notForStreams = (name: string, expected: string) =>
  invalidArgument(operation, name, `${expected}, since the queue is a stream`, "this option")

/** The options that take a policy: one for queues, or one for streams. */
export const policyNames = ["onFailure", "onDefect", "onDecodeFailure"] as const

/** The given values of these options. */
export type Policies = { readonly [Name in (typeof policyNames)[number]]: unknown }

/** Reads the policies of a stream's consumer. */
export const streamHandlingOf = (policies: Policies): StreamHandling | AmqpError.InvalidArgument => {
  for (const name of policyNames) {
    const given = policies[name]
    if (given === undefined || typeof given === "function" || isStreamPolicy(given)) continue
    const target = hasStreamTag(given) ? checkTarget(given as PublishTo) : undefined
    if (target !== undefined) return target
    const expected =
      "stop, skip, publishTo or a function that chooses one of them, since the queue is a stream: messages stay in it"
    return invalidArgument(operation, name, expected, policyName(given))
  }
  return {
    onFailure: (policies.onFailure as StreamPolicyChoice | undefined) ?? stop,
    onDefect: (policies.onDefect as StreamPolicyChoice | undefined) ?? stop,
    onDecodeFailure: (policies.onDecodeFailure as StreamPolicyChoice | undefined) ?? stop
  }
}

/** The reason why these policies do not fit a queue that is not known to be a stream. */
export const refuseStreamPolicies = (policies: Policies): AmqpError.InvalidArgument | undefined => {
  for (const name of policyNames) {
    const given = policies[name]
    if (!hasStreamTag(given)) continue
    const expected =
      'a policy for queues, or queueType: "stream" where the queue is one that this application has not declared'
    return invalidArgument(operation, name, expected, policyName(given))
  }
  return undefined
}

const policyName = (policy: unknown): string =>
  Predicate.hasProperty(policy, "_tag") ? `the policy ${String(policy._tag)}` : formatValue(policy)
