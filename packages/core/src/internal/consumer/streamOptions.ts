/** Options of consumers of streams: whether a queue is one, and what is refused for it, and for others. */
import * as Predicate from "effect/Predicate"
import type * as AmqpError from "../../model/error.ts"
import type { Delivery } from "../../model/consumer.ts"
import type { OffsetStore } from "../../model/offsetStore.ts"
import type { FieldTable, FieldValue } from "../../model/message.ts"
import { choice, checkText, integer, isRefused, type Option, read, shown, toMillis } from "../wire/declarations.ts"
import { refused } from "../wire/fieldTable.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import { isStream } from "../connection/knownQueues.ts"
import { offsetName, readOffset } from "../wire/streams.ts"
import { type PublishTo, type StreamPolicy, stop } from "../../model/streamPolicies.ts"

const operation = "basic.consume"

const defaultEvery = 1000
const defaultWithin = 1000
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

const isObject = (value: unknown): boolean => typeof value === "object" && value !== null

/** The options that are read here. */
export const streamOptions: Record<string, Option> = {
  queueType: choice(["classic", "quorum", "stream"]),
  offset: {
    wants:
      '"first", "last", "next", an offset from 0, a Date or DateTime from 1970 on, or { ago } with a duration from 1 s to 50 years',
    read: readOffset
  },
  offsets: { wants: "an object with store and name", read: (value) => (isObject(value) ? value : undefined) }
}

const offsetsOptions: Record<string, Option> = {
  store: { wants: "an OffsetStore, with load and save", read: (value) => (isStore(value) ? value : undefined) },
  name: {
    wants: "a text of 1 to 255 characters, the same at each start",
    read: (value) => (typeof value === "string" && value.length >= 1 && value.length <= 255 ? value : undefined)
  },
  every: integer(1, 1_000_000),
  within: {
    wants: "a duration from 10 ms to 1 hour",
    read: (value) => {
      const millis = toMillis(value)
      return millis !== undefined && millis >= 10 && millis <= longestWithin ? millis : undefined
    }
  }
}

/** How positions are saved. */
export interface Saving {
  readonly store: OffsetStore
  readonly name: string
  /** After so many messages. */
  readonly every: number
  /** After so long, in milliseconds. */
  readonly within: number
}

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

type Fields = Readonly<Record<string, unknown>>

/** How to read the queue as a stream; `undefined`: it is none, as far as is known. */
export const readingOf = (
  queue: string,
  fields: Fields,
  table: FieldTable | undefined,
  queues: KnownQueues | undefined
): StreamReading | undefined | AmqpError.InvalidArgument => {
  const { offset, offsets, queueType } = fields
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
  if (fields["priority"] !== undefined) return notForStreams("priority", "nothing: streams have no priorities")
  const saving = savingOf(offsets)
  if (isRefused(saving)) return saving
  return { offset: (offset ?? argument ?? "next") as FieldValue, saving }
}

const savingOf = (offsets: unknown): Saving | undefined | AmqpError.InvalidArgument => {
  if (offsets === undefined) return undefined
  const checked = read(`${operation}: offsets`, offsets, offsetsOptions, false)
  if (isRefused(checked)) return checked
  for (const name of ["store", "name"]) {
    if (checked.fields[name] === undefined) {
      return refused(`${operation}: offsets`, name, offsetsOptions[name]!.wants, "undefined")
    }
  }
  return { every: defaultEvery, within: defaultWithin, ...checked.fields } as Saving
}

const notForStreams = (name: string, wants: string) =>
  refused(operation, name, `${wants}, since the queue is a stream`, "this option")

/** The policies of a stream's consumer. */
export const streamHandlingOf = (fields: Fields): StreamHandling | AmqpError.InvalidArgument => {
  for (const name of ["maxDeliveries", "onPoison"]) {
    if (fields[name] !== undefined) return notForStreams(name, "nothing: a stream does not deliver again what failed")
  }
  for (const name of ["onFailure", "onDefect", "onDecodeFailure"]) {
    const given = fields[name]
    if (given === undefined || typeof given === "function" || isStreamPolicy(given)) continue
    const target = hasStreamTag(given) ? checkTarget(given as PublishTo) : undefined
    if (target !== undefined) return target
    const wants =
      "stop, skip, publishTo or a function that chooses one of them, since the queue is a stream: messages stay in it"
    return refused(operation, name, wants, policyName(given))
  }
  return {
    onFailure: (fields["onFailure"] as StreamChoice | undefined) ?? stop,
    onDefect: (fields["onDefect"] as StreamChoice | undefined) ?? stop,
    onDecodeFailure: (fields["onDecodeFailure"] as StreamChoice | undefined) ?? stop
  }
}

/** Why these are not the policies of a queue that is no stream, as far as is known. */
export const refuseStreamPolicies = (fields: Fields): AmqpError.InvalidArgument | undefined => {
  for (const name of ["onFailure", "onDefect", "onDecodeFailure"]) {
    const given = fields[name]
    if (!hasStreamTag(given)) continue
    const wants =
      'a policy for queues, or queueType: "stream" where the queue is one that this application has not declared'
    return refused(operation, name, wants, policyName(given))
  }
  return undefined
}

const policyName = (policy: unknown): string =>
  Predicate.hasProperty(policy, "_tag") ? `the policy ${String(policy._tag)}` : shown(policy)
