/** The settings of a publisher, checked. */
import * as Stream from "effect/Stream"
import type { PublishOptions } from "../../model/channel.ts"
import type { Options, PublishAllOptions } from "../../model/publisher.ts"
import type { InvalidArgument } from "../../model/errorReason.ts"
import {
  choice,
  integer,
  isRefused,
  type Option,
  publishOptions,
  type PublishSettings,
  read,
  readPublish
} from "../wire/declarations.ts"
import { kindOf, refused } from "../wire/fieldTable.ts"
import { defaultMaxInFlightBytes, defaultMaxWaitingBytes } from "./backlog.ts"

export interface Settings {
  readonly channels: number
  readonly maxInFlight: number
  readonly maxInFlightBytes: number
  readonly maxWaitingBytes: number
  /** Undefined: as the broker's product and version say. */
  readonly maxMessageSize: number | undefined
}

const defaults: Settings = {
  channels: 2,
  maxInFlight: 1000,
  maxInFlightBytes: defaultMaxInFlightBytes,
  maxWaitingBytes: defaultMaxWaitingBytes,
  maxMessageSize: undefined
}

const known: Record<keyof Options, Option> = {
  channels: integer(1, 2047),
  maxInFlight: integer(1, 1_000_000),
  maxInFlightBytes: integer(1, Number.MAX_SAFE_INTEGER),
  maxWaitingBytes: integer(1, Number.MAX_SAFE_INTEGER),
  maxMessageSize: integer(1, Number.MAX_SAFE_INTEGER)
}

export const readOptions = (options: Options | undefined): Settings | InvalidArgument => {
  const checked = read("AmqpPublisher.make", options, known, false)
  return isRefused(checked) ? checked : { ...defaults, ...checked.fields }
}

const publishAllOptions: Record<keyof PublishAllOptions, Option> = {
  ...publishOptions,
  failures: choice(["end", "values"])
}

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
  const checked = read("basic.publish", options, publishAllOptions, false)
  if (isRefused(checked)) return checked
  const { failures = "end", ...each } = checked.fields as { failures?: "end" | "values" } & PublishOptions
  const settings = readPublish(each)
  return isRefused(settings) ? settings : { ...settings, failures }
}
