/** Dead letters as JSON, and which of them a request chooses. */
import type { AmqpConsumer, AmqpDeadLetters, AmqpError } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import { contentAsJson, tableAsJson } from "../gateway/messages.ts"
import type { Choice, Letter, Page } from "./contract.ts"

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> }

/** Without the properties that are `undefined`, which JSON does not have. */
const defined = <T extends object>(value: T): Defined<T> =>
  Object.fromEntries(Object.entries(value).filter(([, it]) => it !== undefined)) as Defined<T>

/** The content of a page is cut after some bytes, perhaps inside of a character. */
const previewOf = ({ content, size }: AmqpDeadLetters.DeadLetter) => {
  if (content.length === size) return contentAsJson(content)
  try {
    // With `stream`, the beginning of a character at the end is no mistake.
    return { content: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content, { stream: true }) }
  } catch {
    return contentAsJson(content)
  }
}

const letterOf = (letter: AmqpDeadLetters.DeadLetter): typeof Letter.Type => {
  const { exchange, id, origin, queue, reason, redelivered, redriven, routingKey, size } = letter
  const { headers, ...properties } = letter.properties
  return {
    id,
    queue,
    exchange,
    routingKey,
    ...(origin === undefined ? undefined : { origin: defined(origin) }),
    reason: defined(reason),
    redriven,
    redelivered,
    size,
    properties: { ...defined(properties), headers: tableAsJson(headers) },
    ...previewOf(letter)
  } as typeof Letter.Type
}

/** Maximum number of bytes that the contents of a page have together. As JSON each of them may take six. */
const maxContents = 32 * 1024 * 1024

/** Reads one page of several queues, one after another. Contents for which it has no room are empty. */
export const peekAll = (
  letters: ReadonlyArray<AmqpDeadLetters.DeadLetters>,
  options: { readonly limit: number; readonly maxContent: number; readonly where: AmqpDeadLetters.Where }
): Effect.Effect<typeof Page.Type, AmqpError.AmqpError, AmqpConsumer.AmqpConsumer> =>
  Effect.gen(function* () {
    const pages: Array<AmqpDeadLetters.Page> = []
    let left = options.limit
    let room = maxContents
    for (const queue of letters) {
      // A queue without room in the page is still counted.
      const page = yield* queue.peek({ ...options, limit: Math.max(1, left) })
      left -= page.scanned
      const shown = page.letters.map((letter) => {
        if (letter.content.length > room) room = 0
        const content = room === 0 ? letter.content.slice(0, 0) : letter.content
        room -= content.length
        return { ...letter, content }
      })
      pages.push({ ...page, letters: shown })
    }
    const sum = (count: (page: AmqpDeadLetters.Page) => number) => pages.reduce((total, page) => total + count(page), 0)
    return {
      total: sum(({ total }) => total),
      queues: pages.flatMap(({ queues }) => queues),
      scanned: sum(({ scanned }) => scanned),
      unreadable: sum(({ unreadable }) => unreadable),
      letters: pages.flatMap((page) => page.letters.map(letterOf)),
      groups: pages
        .flatMap(({ groups }) => groups.map(defined))
        .toSorted((a, b) => b.count - a.count) as (typeof Page.Type)["groups"]
    }
  })

/** The predicate of what a request chooses, except for the ids. */
export const whereOf =
  ({ before, error, kind, origin, since }: Omit<Choice, "ids">): AmqpDeadLetters.Where =>
  (letter) => {
    const { lastAt } = letter.reason
    return (
      (error === undefined || letter.reason.error === error) &&
      (kind === undefined || letter.reason.kind === kind) &&
      (origin === undefined || letter.origin?.queue === origin) &&
      (before === undefined || (lastAt !== undefined && lastAt < before)) &&
      (since === undefined || (lastAt !== undefined && lastAt >= since))
    )
  }

/** Whether a request chooses anything. */
export const isChoice = (choice: Choice): boolean =>
  (["before", "error", "ids", "kind", "origin", "since"] as const).some((name) => choice[name] !== undefined)
