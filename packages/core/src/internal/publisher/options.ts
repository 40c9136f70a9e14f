/** The settings of a publisher, checked; and how large a message may be. */
import * as Stream from "effect/Stream"
import type { PublishOptions } from "../../AmqpChannel.ts"
import type { Options, PublishAllOptions } from "../../AmqpPublisher.ts"
import { type InvalidArgument, MessageTooLarge } from "../../AmqpErrorReason.ts"
import {
  integer,
  isRefused,
  type Option,
  publishOptions,
  type PublishSettings,
  read,
  readPublish
} from "../declarations.ts"
import { kindOf, refused } from "../fieldTable.ts"

export interface Settings {
  readonly channels: number
  readonly maxInFlight: number
  readonly maxInFlightBytes: number
  /** Undefined: as the broker's product and version say. */
  readonly maxMessageSize: number | undefined
}

const mebibyte = 2 ** 20

const defaults: Settings = {
  channels: 2,
  maxInFlight: 1000,
  maxInFlightBytes: 64 * mebibyte,
  maxMessageSize: undefined
}

const known: Record<keyof Options, Option> = {
  channels: integer(1, 2047),
  maxInFlight: integer(1, 1_000_000),
  maxInFlightBytes: integer(1, Number.MAX_SAFE_INTEGER),
  maxMessageSize: integer(1, Number.MAX_SAFE_INTEGER)
}

export const readOptions = (options: Options | undefined): Settings | InvalidArgument => {
  const checked = read("AmqpPublisher.make", options, known, false)
  return isRefused(checked) ? checked : { ...defaults, ...checked.fields }
}

/**
 * The largest content in bytes that a broker takes unless it is configured otherwise: RabbitMQ's `max_message_size`
 * (https://www.rabbitmq.com/docs/configure#config-items). Of other products nothing is known.
 */
export const limitOf = (product: string | undefined): number => {
  const version = /^RabbitMQ (\d+)\./.exec(product ?? "")?.[1]
  if (version === undefined) return Infinity
  return Number(version) >= 4 ? 16 * mebibyte : 128 * mebibyte
}

export const tooLarge = (size: number, limit: number): MessageTooLarge =>
  new MessageTooLarge({
    message: `basic.publish: content: wants at most ${limit} bytes (maxMessageSize, or the broker's own limit), got ${size}. Nothing was sent.`,
    operation: "basic.publish"
  })

const publishAllOptions: Record<keyof PublishAllOptions, Option> = {
  ...publishOptions,
  failures: {
    wants: '"end" or "values"',
    read: (value) => (value === "end" || value === "values" ? value : undefined)
  }
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
