/** A message in the broker, and its deaths. */
import type { Properties } from "./properties.ts"
import * as Table from "./table.ts"

export type DeathReason = "rejected" | "expired" | "maxlen" | "delivery_limit"

/** What a message has gone through in one queue for one reason. */
export interface Death {
  readonly queue: string
  readonly reason: string
  readonly count: number
  /** When it happened first, in seconds since 1970. */
  readonly time: number
  readonly exchange: string
  readonly routingKeys: ReadonlyArray<string>
  readonly originalExpiration: string | undefined
}

export interface Message {
  readonly exchange: string
  /** The publisher's key, then those of the headers CC and BCC. */
  readonly routingKeys: ReadonlyArray<string>
  readonly properties: Properties
  readonly body: Buffer
  /** The deaths, the latest first. On 3.10 they are in the headers only. */
  readonly deaths: ReadonlyArray<Death>
  /** Where and why the message died first and last. On 3.10 they are in the headers only. */
  readonly firstDeath: Death | undefined
  readonly lastDeath: Death | undefined
  /** How often its delivery had failed when it left a quorum queue as a dead letter. */
  readonly failures: number
}

/** The keys of a header with additional ones, which are those of its items that are strings. `undefined`: it is no array. */
export const keysOf = (value: Table.Value | undefined): ReadonlyArray<string> | undefined => {
  if (value === undefined) return []
  if (value.tag !== "A") return undefined
  return Table.items(value)
    .map(Table.text)
    .filter((key) => key !== undefined)
}

/** What the death of a message adds to its header `x-death`. */
export const deathTable = (death: Death): Table.Value =>
  Table.table([
    Table.entry("count", Table.long(death.count)),
    Table.entry("reason", Table.longstr(death.reason)),
    Table.entry("queue", Table.longstr(death.queue)),
    Table.entry("time", Table.timestamp(death.time)),
    Table.entry("exchange", Table.longstr(death.exchange)),
    Table.entry("routing-keys", Table.array(death.routingKeys.map(Table.longstr))),
    ...(death.originalExpiration === undefined
      ? []
      : [Table.entry("original-expiration", Table.longstr(death.originalExpiration))])
  ])

/** Reads the header `x-death`, as 3.10 does, also if a publisher has written it. */
export const readDeaths = (value: Table.Value | undefined): ReadonlyArray<Death> =>
  Table.items(value).flatMap((item) => {
    if (item.tag !== "F") return []
    const entries = Table.readEntries(item.bytes)
    const field = (key: string) => Table.find(entries, key)
    const time = field("time")
    return [
      {
        queue: Table.text(field("queue")) ?? "",
        reason: Table.text(field("reason")) ?? "",
        count: Table.integer(field("count")) ?? 1,
        time: time?.tag === "T" ? Number(Table.plain(time)) : 0,
        exchange: Table.text(field("exchange")) ?? "",
        routingKeys: keysOf(field("routing-keys")) ?? [],
        originalExpiration: Table.text(field("original-expiration"))
      }
    ]
  })

/** Adds a death to those of a message. The latest is the first. */
export const recordDeath = (deaths: ReadonlyArray<Death>, death: Death): ReadonlyArray<Death> => {
  const isSame = (other: Death) => other.queue === death.queue && other.reason === death.reason
  const before = deaths.find(isSame)
  return [
    before === undefined ? death : { ...before, count: before.count + 1 },
    ...deaths.filter((other) => !isSame(other))
  ]
}

/** Whether a queue is in a cycle of deaths that no consumer has rejected: the message is dropped there. */
export const isCycle = (queue: string, deaths: ReadonlyArray<Death>): boolean => {
  const index = deaths.findIndex((death) => death.queue === queue)
  return index >= 0 && deaths.slice(0, index + 1).every(({ reason }) => reason !== "rejected")
}
