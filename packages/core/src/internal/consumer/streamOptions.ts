/** Options of consumers of streams: whether a queue is one, and what is refused for it, and for others. */
import type * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import type * as AmqpError from "../../model/error.ts"
import type { Delivery, SavedOffsets, StreamOffset, SubscribeOptions } from "../../model/consumer.ts"
import type { OffsetStore } from "../../model/offsetStore.ts"
import type { FieldValue, Headers } from "../../model/message.ts"
import { checkText } from "../wire/declarations.ts"
import { refused } from "../wire/fieldTable.ts"
import {
  choice,
  integer,
  or,
  readerOf,
  required,
  rule,
  shown,
  type Table,
  toMillis,
  type Values
} from "../wire/optionTable.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import { isStream } from "../connection/knownQueues.ts"
import { offsetName, readOffset } from "../wire/streams.ts"
import { type PublishTo, type StreamPolicy, stop } from "../../model/streamPolicies.ts"

const operation = "basic.consume"

const longestWithin = 3_600_000

/** Whether it is meant as a policy of a stream: `publishTo` may have got what is no name. */
export const hasStreamTag = (value: unknown): boolean =>
  Predicate.hasProperty(value, "_tag") && ["Stop", "Skip", "PublishTo"].includes(value._tag as string)

export const isStreamPolicy = (value: unknown): value is StreamPolicy =>
  hasStreamTag(value) && ((value as StreamPolicy)._tag !== "PublishTo" || checkTarget(value as PublishTo) === undefined)

const checkTarget = ({ exchange, routingKey }: { readonly exchange: unknown; readonly routingKey: unknown }) =>
  checkText(operation, "publishTo.exchange", exchange) ?? checkText(operation, "publishTo.routingKey", routingKey)

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
    rule<string>("a text of 1 to 255 characters, the same at each start", (value) =>
      typeof value === "string" && value.length >= 1 && value.length <= 255 ? value : undefined
    )
  ),
  every: or(integer(1, 1_000_000), 1000),
  within: or(
    rule<Duration.Input, number>("a duration from 10 ms to 1 hour", (value) => {
      const millis = toMillis(value)
      return millis !== undefined && millis >= 10 && millis <= longestWithin ? millis : undefined
    }),
    1000
  )
} satisfies Table<SavedOffsets>

/** How positions are saved: after so many messages (`every`), or so many milliseconds (`within`). */
export type Saving = Values<typeof savedOffsetsRules>

const savedOffsetsOf = readerOf(savedOffsetsRules)

/** The options that are read here. */
export const streamRules = {
  queueType: choice(["classic", "quorum", "stream"]),
  offset: rule<StreamOffset, FieldValue>(
    '"first", "last", "next", an offset from 0, a Date or DateTime from 1970 on, or { ago } with a duration from 1 s to 50 years',
    readOffset
  ),
  offsets: rule<SavedOffsets, Saving>("an object with store and name", (value, operation) =>
    typeof value === "object" && value !== null ? savedOffsetsOf(`${operation}: offsets`, value) : undefined
  )
} satisfies Table<Pick<SubscribeOptions, "queueType" | "offset" | "offsets">>

/** How a stream is read. */
export interface StreamReading {
  /** Where to begin when no position is saved. */
  readonly offset: FieldValue
  readonly saving: Saving | undefined
}

/** A policy of a stream, or how to choose one. */
export type StreamChoice = StreamPolicy | ((error: never, delivery: Delivery) => StreamPolicy)

/** What becomes of messages of a stream that are not handled. */
export interface StreamHandling {
  readonly onFailure: StreamChoice
  readonly onDefect: StreamChoice
  readonly onDecodeFailure: StreamChoice
}

/** How to read the queue as a stream; `undefined`: it is none, as far as is known. */
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
    return refused(operation, "queueType", '"stream" where offset or offsets is given', shown(queueType))
  }
  if (queueType === undefined && !says && !isStream(queues, queue)) return undefined
  if (offset !== undefined && argument !== undefined) {
    return refused(operation, "offset", `this option or ${offsetName} among the arguments`, "both")
  }
  if (priority !== undefined) return notForStreams("priority", "nothing: streams have no priorities")
  return { offset: offset ?? argument ?? "next", saving: offsets }
}

export const notForStreams = (name: string, wants: string) =>
  refused(operation, name, `${wants}, since the queue is a stream`, "this option")

/** The options that are policies: one for queues, or one for streams. */
export const policyNames = ["onFailure", "onDefect", "onDecodeFailure"] as const

/** What was given for them. */
export type Policies = { readonly [Name in (typeof policyNames)[number]]: unknown }

/** The policies of a stream's consumer. */
export const streamHandlingOf = (policies: Policies): StreamHandling | AmqpError.InvalidArgument => {
  for (const name of policyNames) {
    const given = policies[name]
    if (given === undefined || typeof given === "function" || isStreamPolicy(given)) continue
    const target = hasStreamTag(given) ? checkTarget(given as PublishTo) : undefined
    if (target !== undefined) return target
    const wants =
      "stop, skip, publishTo or a function that chooses one of them, since the queue is a stream: messages stay in it"
    return refused(operation, name, wants, policyName(given))
  }
  return {
    onFailure: (policies.onFailure as StreamChoice | undefined) ?? stop,
    onDefect: (policies.onDefect as StreamChoice | undefined) ?? stop,
    onDecodeFailure: (policies.onDecodeFailure as StreamChoice | undefined) ?? stop
  }
}

/** Why these are not the policies of a queue that is no stream, as far as is known. */
export const refuseStreamPolicies = (policies: Policies): AmqpError.InvalidArgument | undefined => {
  for (const name of policyNames) {
    const given = policies[name]
    if (!hasStreamTag(given)) continue
    const wants =
      'a policy for queues, or queueType: "stream" where the queue is one that this application has not declared'
    return refused(operation, name, wants, policyName(given))
  }
  return undefined
}

const policyName = (policy: unknown): string =>
  Predicate.hasProperty(policy, "_tag") ? `the policy ${String(policy._tag)}` : shown(policy)
