/** The settings of a publisher, checked. */
import * as Stream from "effect/Stream"
import type { Options, PublishAllOptions } from "../../model/publisher.ts"
import { InvalidArgument } from "../../model/errorReason.ts"
import { type PublishSettings, publishRules, publishSettingsOf } from "../wire/declarations.ts"
import { describeType, invalidArgument } from "../wire/fieldTable.ts"
import {
  choice,
  integer,
  isInvalidArgument,
  withDefault,
  readerOf,
  type Table,
  type Values
} from "../wire/optionTable.ts"
import { boundRules } from "./bounds.ts"

const rules = {
  channels: withDefault(integer(1, 2047), 2),
  maxInFlight: withDefault(integer(1, 1_000_000), 1000),
  ...boundRules
} satisfies Table<Options>

export type Settings = Values<typeof rules>

const operation = "basic.publish"

const optionsOf = readerOf(rules)

/** Reads and checks the options of a publisher. */
export const readOptions = (options: Options | undefined): Settings | InvalidArgument =>
  optionsOf("AmqpPublisher.make", options)

const publishAllRules = {
  ...publishRules,
  failures: withDefault(choice(["end", "values"]), "end")
} satisfies Table<PublishAllOptions>

const publishAllOf = readerOf(publishAllRules)

/** Checks the messages of `publishAll`. A string is iterable too, but not an iterable of messages. */
export const checkMessages = (messages: unknown): InvalidArgument | undefined => {
  const isIterable = typeof messages === "object" && messages !== null && Symbol.iterator in messages
  if (isIterable || Stream.isStream(messages)) return undefined
  return invalidArgument(operation, "messages", "a Stream or an iterable of messages", describeType(messages))
}

/** Reads the options of `publishAll`: those of each publish, and what a failure does. */
export const readPublishAll = (
  options: PublishAllOptions | undefined
): (PublishSettings & { readonly failures: "end" | "values" }) | InvalidArgument => {
  const values = publishAllOf(operation, options)
  return isInvalidArgument(values) ? values : { ...publishSettingsOf(values), failures: values.failures }
}

/**
 * The refusal of a message whose `replyTo` is the direct reply-to queue: the broker would close the channel (406),
 * because a publisher's channel does not consume replies.
 */
export const noReplies = (replyTo: string | undefined): InvalidArgument =>
  new InvalidArgument({
    message: `${operation}: replyTo: expected a queue, got ${replyTo}. Direct replies need a channel that consumes them: use a borrowed channel (AmqpChannel), or AmqpRpc. Nothing was sent.`,
    operation,
    argument: "replyTo"
  })
