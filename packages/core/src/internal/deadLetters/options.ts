/** Reads the options of dead letters: checks them before anything is sent, and fills in defaults. */
import type * as Effect from "effect/Effect"
import type { DiscardOptions, Options, PeekOptions, Progress, RedriveOptions, Where } from "../../model/deadLetters.ts"
import type { InvalidArgument } from "../../model/errorReason.ts"
import { checkQueue } from "../wire/declarations.ts"
import { invalidArgument } from "../wire/fieldTable.ts"
import {
  boolean,
  duration,
  integer,
  isInvalidArgument,
  readerOf,
  rule,
  type Table,
  type Values,
  withDefault
} from "../wire/optionTable.ts"
import { secrets } from "../consumer/options.ts"
import type { Target } from "./copies.ts"

const most = 10_000

const where = rule<Where>("a function", (value) => (typeof value === "function" ? (value as Where) : undefined))

const ids = rule<ReadonlyArray<string>, ReadonlySet<string>>(`an array of 1 to ${most} ids`, (value) =>
  Array.isArray(value) &&
  value.length > 0 &&
  value.length <= most &&
  value.every((id) => typeof id === "string" && id.length <= 255)
    ? new Set<string>(value)
    : undefined
)

const rate = rule<number>("a number of messages per second, more than 0 and at most 1,000,000", (value) =>
  typeof value === "number" && value > 0 && value <= 1_000_000 ? value : undefined
)

const onProgress = rule<(progress: Progress) => Effect.Effect<void>>("a function", (value) =>
  typeof value === "function" ? (value as () => Effect.Effect<void>) : undefined
)

const to = rule<NonNullable<RedriveOptions["to"]>, Target>(
  "the name of a queue, or an exchange and a routingKey of at most 255 bytes each",
  (value) => {
    if (typeof value === "string") {
      return checkQueue("AmqpDeadLetters.redrive", value) === undefined
        ? { exchange: "", routingKey: value }
        : undefined
    }
    if (typeof value !== "object" || value === null) return undefined
    const { exchange, routingKey } = value as Partial<Record<keyof Target, unknown>>
    const isName = (name: unknown): name is string =>
      typeof name === "string" && name.isWellFormed() && Buffer.byteLength(name) <= 255
    return isName(exchange) && isName(routingKey) ? { exchange, routingKey } : undefined
  }
)

const ofRules = {
  secret: withDefault(secrets, []),
  deliveryLimit: integer(-1, Number.MAX_SAFE_INTEGER),
  timeout: withDefault(duration(1), 30_000)
} satisfies Table<Options>

const peekRules = {
  limit: withDefault(integer(1, most), 100),
  where,
  maxContent: withDefault(integer(0, 1024 * 1024), 4096)
} satisfies Table<PeekOptions>

const choiceRules = {
  where,
  ids,
  limit: withDefault(integer(1, Number.MAX_SAFE_INTEGER), Infinity),
  rate,
  dryRun: withDefault(boolean, false),
  onProgress
}

const redriveRules = { ...choiceRules, to } satisfies Table<RedriveOptions>

const discardRules = { ...choiceRules, all: withDefault(boolean, false) } satisfies Table<DiscardOptions>

export type Settings = Values<typeof ofRules>
export type PeekSettings = Values<typeof peekRules>
export type ChoiceSettings = Values<typeof choiceRules>

const ofOptions = readerOf(ofRules)
const peekOptions = readerOf(peekRules)
const redriveOptions = readerOf(redriveRules)
const discardOptions = readerOf(discardRules)

export const readOptions = (options: Options | undefined) => ofOptions("AmqpDeadLetters.of", options)

export const readPeek = (options: PeekOptions | undefined) => peekOptions("AmqpDeadLetters.peek", options)

export const readRedrive = (options: RedriveOptions | undefined) => redriveOptions("AmqpDeadLetters.redrive", options)

export const readDiscard = (options: DiscardOptions): ChoiceSettings | InvalidArgument => {
  const operation = "AmqpDeadLetters.discard"
  const values = discardOptions(operation, options)
  if (isInvalidArgument(values)) return values
  const { all, ...choice } = values
  if (all && (choice.where !== undefined || choice.ids !== undefined)) {
    return invalidArgument(operation, "all", "no where and no ids beside all", "both")
  }
  if (!all && choice.where === undefined && choice.ids === undefined) {
    return invalidArgument(operation, "all", "where, ids or all: true, since what is discarded is gone", "none of them")
  }
  return choice
}
