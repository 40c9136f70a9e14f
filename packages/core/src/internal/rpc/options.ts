/** Validated options of clients, calls and servers. */
import type { CallOptions, Options, ServeOptions } from "../../model/rpc.ts"
import type { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable } from "../../model/message.ts"
import { handleRules } from "../consumer/options.ts"
import { publishRules } from "../wire/declarations.ts"
import {
  boolean,
  integer,
  isInvalidArgument,
  omit,
  withDefault,
  passThrough,
  readerOf,
  rule,
  type Table,
  type Values
} from "../wire/optionTable.ts"
import { boundRules } from "../publisher/bounds.ts"

const callRules = {
  timeout: withDefault(publishRules.timeout, 30_000),
  onBlocked: publishRules.onBlocked,
  expires: withDefault(boolean, true),
  priority: integer(0, 255),
  // Its entries are validated when the message is made.
  headers: rule<FieldTable>("an object", (value) =>
    typeof value === "object" && value !== null ? (value as FieldTable) : undefined
  )
} satisfies Table<CallOptions>

/** The options of a call, with the timeout in milliseconds. */
export type CallSettings = Values<typeof callRules>

const callOptionsOf = readerOf(callRules)

export const readCallOptions = (options: CallOptions | undefined): CallSettings | InvalidArgument =>
  callOptionsOf("AmqpRpc.client", options)

const isObject = (value: unknown) => typeof value === "object" && value !== null && !Array.isArray(value)

/**
 * Merges the options of one call into those for all calls. A value that is not an object is passed on, and refused
 * later.
 */
export const mergeCallOptions = (
  all: CallOptions | undefined,
  one: CallOptions | undefined
): CallOptions | undefined => {
  if (one === undefined || (all !== undefined && !isObject(all))) return all
  if (all === undefined || !isObject(one)) return one
  // `undefined` means that the option is not given, as everywhere.
  return { ...all, ...Object.fromEntries(Object.entries(one).filter(([, value]) => value !== undefined)) }
}

const rules = {
  maxInFlight: withDefault(integer(1, Number.MAX_SAFE_INTEGER), 10_000),
  maxWaiting: withDefault(integer(0, Number.MAX_SAFE_INTEGER), 10_000),
  ...boundRules
} satisfies Table<Options>

export type Settings = Values<typeof rules>

const optionsOf = readerOf(rules)

export const readOptions = (options: Options | undefined): Settings | InvalidArgument =>
  optionsOf("AmqpRpc.makeClient", options)

/** Whether a server replies to a queue. It always replies to an address of direct reply-to. */
export type RepliesTo = (queue: string) => boolean

const serveRules = {
  concurrency: withDefault(integer(1, 65_535), 16),
  replyTo: withDefault(
    rule<"direct" | "any" | RepliesTo>('"direct", "any" or a function of a queue\'s name', (value) =>
      value === "direct" || value === "any" || typeof value === "function" ? (value as RepliesTo) : undefined
    ),
    "direct"
  ),
  // `AmqpConsumer.consume` validates the options that it receives.
  ...passThrough(
    omit(
      handleRules,
      "concurrency",
      "onFailure",
      "onDefect",
      "onDecodeFailure",
      "schema",
      "queueType",
      "offset",
      "offsets",
      "retrySecret"
    )
  )
} satisfies Table<ServeOptions>

const serveOptionsOf = readerOf(serveRules)

/** The options of a server: those of its consumer, and the queues that it replies to. */
export const readServeOptions = (
  options: ServeOptions | undefined
): { readonly consuming: object; readonly repliesTo: RepliesTo } | InvalidArgument => {
  const values = serveOptionsOf("AmqpRpc.serve", options)
  if (isInvalidArgument(values)) return values
  const { replyTo, ...consuming } = values
  return {
    // Not more than are handled at once: a request that waits in this process is handled even after it has expired.
    consuming: { ...consuming, prefetch: consuming.prefetch ?? consuming.concurrency },
    repliesTo: typeof replyTo === "function" ? replyTo : () => replyTo === "any"
  }
}
