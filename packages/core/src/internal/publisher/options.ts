/** The settings of a publisher, checked. */
import * as Stream from "effect/Stream"
import type { Options, PublishAllOptions } from "../../model/publisher.ts"
import type { InvalidArgument } from "../../model/errorReason.ts"
import { type PublishSettings, publishRules, publishSettingsOf } from "../wire/declarations.ts"
import { kindOf, refused } from "../wire/fieldTable.ts"
import { choice, integer, isRefused, or, readerOf, type Table, type Values } from "../wire/optionTable.ts"
import { boundRules } from "./bounds.ts"

const rules = {
  channels: or(integer(1, 2047), 2),
  maxInFlight: or(integer(1, 1_000_000), 1000),
  ...boundRules
} satisfies Table<Options>

export type Settings = Values<typeof rules>

const optionsOf = readerOf(rules)

export const readOptions = (options: Options | undefined): Settings | InvalidArgument =>
  optionsOf("AmqpPublisher.make", options)

const publishAllRules = {
  ...publishRules,
  failures: or(choice(["end", "values"]), "end")
} satisfies Table<PublishAllOptions>

const publishAllOf = readerOf(publishAllRules)

/** What `publishAll` publishes: a text is iterable, too, but not one of messages. */
export const checkMessages = (messages: unknown): InvalidArgument | undefined => {
  const isIterable = typeof messages === "object" && messages !== null && Symbol.iterator in messages
  if (isIterable || Stream.isStream(messages)) return undefined
  return refused("basic.publish", "messages", "a Stream or an iterable of messages", kindOf(messages))
}

/** The options of `publishAll`: those of each publish, and what a failure does. */
export const readPublishAll = (
  options: PublishAllOptions | undefined
): (PublishSettings & { readonly failures: "end" | "values" }) | InvalidArgument => {
  const values = publishAllOf("basic.publish", options)
  return isRefused(values) ? values : { ...publishSettingsOf(values), failures: values.failures }
}
