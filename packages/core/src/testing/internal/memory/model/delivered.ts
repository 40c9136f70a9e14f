/** A message as a consumer gets it: the broker adds headers that say what has happened to it. */
import type { Behavior } from "../version.ts"
import { deathTable, type Message } from "./message.ts"
import type { Properties } from "./properties.ts"
import type { Queued, Queue } from "./queue.ts"
import * as Table from "./table.ts"

const deathHeaders = ({ deaths, firstDeath, lastDeath }: Message): ReadonlyArray<Table.Entry> => {
  if (firstDeath === undefined || lastDeath === undefined) return []
  const of = (which: string, { exchange, queue, reason }: typeof firstDeath) => [
    Table.entry(`x-${which}-death-exchange`, Table.longstr(exchange)),
    Table.entry(`x-${which}-death-queue`, Table.longstr(queue)),
    Table.entry(`x-${which}-death-reason`, Table.longstr(reason))
  ]
  return [
    Table.entry("x-death", Table.array(deaths.map(deathTable))),
    ...of("first", firstDeath),
    ...of("last", lastDeath)
  ]
}

const countHeaders = (
  behavior: Behavior,
  queue: Queue,
  { failures, returns }: Queued,
  isGet: boolean
): ReadonlyArray<Table.Entry> => {
  if (!queue.settings.isQuorum) return []
  const failed = Table.entry("x-delivery-count", Table.long(failures))
  // 3.10 counts for `basic.get` from the first time on.
  if (behavior.nackCounts) return isGet || failures > 0 ? [failed] : []
  // A dead letter that has failed elsewhere was acquired there as often.
  const count = returns === 0 ? failures : returns
  const acquired = count === 0 ? [] : [Table.entry("x-acquired-count", Table.long(count))]
  return failures === 0 ? acquired : [...acquired, failed]
}

export const deliveredProperties = (behavior: Behavior, queue: Queue, queued: Queued, isGet: boolean): Properties => {
  const { message } = queued
  const added = [...deathHeaders(message), ...countHeaders(behavior, queue, queued, isGet)]
  if (added.length === 0) return message.properties
  const { headers } = message.properties
  return message.properties.withHeaders(added.reduce((all, { key, ...value }) => Table.set(all, key, value), headers))
}
