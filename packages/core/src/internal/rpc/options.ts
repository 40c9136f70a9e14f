/** Options of clients, calls and servers, checked. */
import type { CallOptions, Options, ServeOptions } from "../../model/rpc.ts"
import type { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable } from "../../model/message.ts"
import { handleRules } from "../consumer/options.ts"
import { publishRules } from "../wire/declarations.ts"
import {
  boolean,
  integer,
  isRefused,
  omit,
  or,
  passedOn,
  readerOf,
  rule,
  type Table,
  type Values
} from "../wire/optionTable.ts"
import { boundRules } from "../publisher/bounds.ts"

const callRules = {
  timeout: or(publishRules.timeout, 30_000),
  onBlocked: publishRules.onBlocked,
  expires: or(boolean, true),
  priority: integer(0, 255),
  // What is in it is checked when the message is made.
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

/** The options of one call, on top of those for all calls. What is no object is left to be refused. */
export const mergeCallOptions = (
  all: CallOptions | undefined,
  one: CallOptions | undefined
): CallOptions | undefined => {
  if (one === undefined || (all !== undefined && !isObject(all))) return all
  if (all === undefined || !isObject(one)) return one
  // Undefined says nothing, as everywhere.
  return { ...all, ...Object.fromEntries(Object.entries(one).filter(([, value]) => value !== undefined)) }
}

const rules = {
  maxInFlight: or(integer(1, Number.MAX_SAFE_INTEGER), 10_000),
  maxWaiting: or(integer(0, Number.MAX_SAFE_INTEGER), 10_000),
  ...boundRules
} satisfies Table<Options>

export type Settings = Values<typeof rules>

const optionsOf = readerOf(rules)

export const readOptions = (options: Options | undefined): Settings | InvalidArgument =>
  optionsOf("AmqpRpc.makeClient", options)

/** Whether a server replies to a queue; to an address of direct reply-to it does in any case. */
export type RepliesTo = (queue: string) => boolean

const serveRules = {
  concurrency: or(integer(1, 65_535), 16),
  replyTo: or(
    rule<"direct" | "any" | RepliesTo>('"direct", "any" or a function of a queue\'s name', (value) =>
      value === "direct" || value === "any" || typeof value === "function" ? (value as RepliesTo) : undefined
    ),
    "direct"
  ),
  // What `AmqpConsumer.consume` is given is read there.
  ...passedOn(
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

/** The options of a server: those of the consumer that serves, and which addresses it replies to. */
export const readServeOptions = (
  options: ServeOptions | undefined
): { readonly consuming: object; readonly repliesTo: RepliesTo } | InvalidArgument => {
  const values = serveOptionsOf("AmqpRpc.serve", options)
  if (isRefused(values)) return values
  const { replyTo, ...consuming } = values
  return {
    // No more than are handled: a request that waited here would be handled even when its time is up.
    consuming: { ...consuming, prefetch: consuming.prefetch ?? consuming.concurrency },
    repliesTo: typeof replyTo === "function" ? replyTo : () => replyTo === "any"
  }
}
