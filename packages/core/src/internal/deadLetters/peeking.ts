/** Reads a bounded page of dead letters, and leaves them in their queues. */
import * as Effect from "effect/Effect"
import type { DeadLetter, Group, Page } from "../../model/deadLetters.ts"
import type { AmqpError } from "../../model/error.ts"
import { copyOf, Letter } from "./letter.ts"
import type { InspectedQueue, Workbench } from "./operations.ts"
import type { PeekSettings } from "./options.ts"
import { sizeOfHeaders } from "./sizes.ts"

/** Maximum number of bytes that the contents of a page have together. */
const maxContents = 64 * 1024 * 1024

/** Maximum number of bytes that the headers of a page have together: what reaches it is the last one. */
const maxHeaders = 32 * 1024 * 1024

/** How many bytes a page has room for. */
interface Room {
  readonly contents: number
  readonly headers: number
}

interface Read {
  readonly scanned: number
  readonly unreadable: number
  readonly letters: ReadonlyArray<DeadLetter>
  readonly room: Room
}

const readQueue = (
  bench: Workbench,
  inspected: InspectedQueue,
  limit: number,
  room: Room,
  { maxContent, where }: PeekSettings
): Effect.Effect<Read, AmqpError> => {
  const { queue, total } = inspected
  const { secret, timeout } = bench.settings
  return bench.repeat(
    bench.reading(
      inspected,
      Math.min(limit, total),
      Effect.fnUntraced(function* (reader) {
        const letters: Array<DeadLetter> = []
        let scanned = 0
        let { contents, headers } = room
        while (headers > 0 && scanned + reader.unreadable < limit && (yield* reader.next(timeout))) {
          const message = reader.takeNow()!
          bench.moved()
          scanned++
          const letter = new Letter(queue, message, secret)
          if (where === undefined || where(letter)) {
            const copy = copyOf(letter, Math.min(maxContent, contents))
            contents -= copy.content.length
            headers -= sizeOfHeaders(copy.properties.headers)
            letters.push(copy)
          }
          const leaving = bench.leave(queue, reader, message)
          if (leaving !== undefined) yield* leaving
        }
        const { unreadable } = reader
        return { scanned: scanned + unreadable, unreadable, letters, room: { contents, headers } }
      })
    )
  )
}

const groupsOf = (letters: ReadonlyArray<DeadLetter>): ReadonlyArray<Group> => {
  const groups = new Map<string, { -readonly [Key in keyof Group]: Group[Key] }>()
  for (const { origin, queue, reason } of letters) {
    const { error, firstAt, kind, lastAt } = reason
    const key = JSON.stringify([queue, origin?.queue, kind, error])
    const group = groups.get(key)
    if (group === undefined) groups.set(key, { kind, error, origin: origin?.queue, queue, count: 1, firstAt, lastAt })
    else {
      group.count++
      if (firstAt !== undefined && (group.firstAt === undefined || firstAt < group.firstAt)) group.firstAt = firstAt
      if (lastAt !== undefined && (group.lastAt === undefined || lastAt > group.lastAt)) group.lastAt = lastAt
    }
  }
  return [...groups.values()].sort((a, b) => b.count - a.count)
}

export const peek = Effect.fnUntraced(function* (
  bench: Workbench,
  queues: ReadonlyArray<string>,
  settings: PeekSettings
): Effect.fn.Return<Page, AmqpError> {
  const inspected: Array<InspectedQueue> = []
  for (const queue of queues) inspected.push(yield* bench.inspect(queue))
  const letters: Array<DeadLetter> = []
  let scanned = 0
  let unreadable = 0
  let room: Room = { contents: maxContents, headers: maxHeaders }
  for (const each of inspected) {
    const left = settings.limit - scanned
    if (left <= 0 || each.total === 0 || room.headers <= 0) continue
    const read = yield* readQueue(bench, each, left, room, settings)
    room = read.room
    scanned += read.scanned
    unreadable += read.unreadable
    for (const letter of read.letters) letters.push(letter)
  }
  return {
    total: inspected.reduce((sum, { total }) => sum + total, 0),
    queues: inspected.map(({ queue, total }) => ({ queue, total })),
    scanned,
    unreadable,
    letters,
    groups: groupsOf(letters)
  }
})
