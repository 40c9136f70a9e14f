/** Options of clients, calls and servers, checked. */
import type { CallOptions, Options, ServeOptions } from "../../model/rpc.ts"
import type { InvalidArgument } from "../../model/errorReason.ts"
import type { FieldTable } from "../../model/message.ts"
import { boolean, integer, isRefused, type Option, passedOn, publishOptions, read } from "../wire/declarations.ts"
import { defaultMaxInFlightBytes, defaultMaxWaitingBytes } from "../publisher/backlog.ts"

/** The options of a call, with the timeout in milliseconds. */
export interface CallSettings {
  readonly timeout: number
  readonly onBlocked: "wait" | "fail"
  readonly expires: boolean
  readonly priority: number | undefined
  readonly headers: FieldTable | undefined
}

const callOptions: Record<keyof CallOptions, Option> = {
  timeout: publishOptions.timeout,
  onBlocked: publishOptions.onBlocked,
  expires: boolean,
  priority: integer(0, 255),
  // What is in it is checked when the message is made.
  headers: { wants: "an object", read: (value) => (typeof value === "object" && value !== null ? value : undefined) }
}

const defaults: CallSettings = {
  timeout: 30_000,
  onBlocked: "wait",
  expires: true,
  priority: undefined,
  headers: undefined
}

export const readCallOptions = (options: CallOptions | undefined): CallSettings | InvalidArgument => {
  if (options === undefined) return defaults
  const checked = read("AmqpRpc.client", options, callOptions, false)
  return isRefused(checked) ? checked : { ...defaults, ...checked.fields }
}

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

export interface Settings {
  readonly maxInFlight: number
  readonly maxWaiting: number
  readonly maxInFlightBytes: number
  readonly maxWaitingBytes: number
  /** Undefined: as the broker's product and version say. */
  readonly maxMessageSize: number | undefined
}

const most = Number.MAX_SAFE_INTEGER

const defaultSettings: Settings = {
  maxInFlight: 10_000,
  maxWaiting: 10_000,
  maxInFlightBytes: defaultMaxInFlightBytes,
  maxWaitingBytes: defaultMaxWaitingBytes,
  maxMessageSize: undefined
}

const layerOptions: Record<keyof Options, Option> = {
  maxInFlight: integer(1, most),
  maxWaiting: integer(0, most),
  maxInFlightBytes: integer(1, most),
  maxWaitingBytes: integer(1, most),
  maxMessageSize: integer(1, most)
}

export const readOptions = (options: Options | undefined): Settings | InvalidArgument => {
  const checked = read("AmqpRpc.makeClient", options, layerOptions, false)
  return isRefused(checked) ? checked : { ...defaultSettings, ...checked.fields }
}

/** Whether a server replies to a queue; to an address of direct reply-to it does in any case. */
export type RepliesTo = (queue: string) => boolean

// What `AmqpConsumer.consume` is given is checked there.
const serveOptions: Record<keyof ServeOptions, Option> = {
  concurrency: integer(1, 65_535),
  replyTo: {
    wants: '"direct", "any" or a function of a queue\'s name',
    read: (value) => (value === "direct" || value === "any" || typeof value === "function" ? value : undefined)
  },
  prefetch: passedOn,
  name: passedOn,
  essential: passedOn,
  consumerTag: passedOn,
  declare: passedOn,
  exclusive: passedOn,
  priority: passedOn,
  arguments: passedOn,
  resubscribe: passedOn,
  onEnd: passedOn,
  consumerTimeout: passedOn,
  maxDeliveries: passedOn,
  sharedCount: passedOn,
  onPoison: passedOn,
  deliveryLimit: passedOn,
  shutdownTimeout: passedOn
}

/** The options of a server: those of the consumer that serves, and which addresses it replies to. */
export const readServeOptions = (
  options: ServeOptions | undefined
): { readonly consuming: Omit<ServeOptions, "replyTo">; readonly repliesTo: RepliesTo } | InvalidArgument => {
  const checked = read("AmqpRpc.serve", options, serveOptions, false)
  if (isRefused(checked)) return checked
  const concurrency = (checked.fields["concurrency"] as number | undefined) ?? 16
  // No more than are handled: a request that waited here would be handled even when its time is up.
  const { replyTo = "direct", ...fields } = checked.fields as Pick<ServeOptions, "replyTo">
  return {
    consuming: { prefetch: concurrency, ...fields, concurrency },
    repliesTo: typeof replyTo === "function" ? replyTo : () => replyTo === "any"
  }
}
