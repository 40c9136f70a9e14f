/** `peek`. */
import type { AmqpDeadLetters, AmqpError } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Terminal from "effect/Terminal"
import type * as Prompt from "effect/cli/Prompt"
import { connected } from "../broker/connecting.ts"
import type { Shared } from "../broker/Settings.ts"
import type { Failure } from "../failure.ts"
import { toJson, toLines } from "../output/message.ts"
import * as Output from "../output/Output.ts"
import { table } from "../output/table.ts"
import { type Choice, deadLettersOf, errorOf, matches } from "./choice.ts"

interface Options extends Shared, Choice {
  readonly limit: number
  readonly full: boolean
}

const largest = 1024 * 1024

const unknown = "-"

/** How long ago, in the largest unit that fits. */
const age = (at: Date | undefined, now: number): string => {
  if (at === undefined) return unknown
  const seconds = Math.max(0, Math.round((now - at.getTime()) / 1000))
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} d`
}

const groupsOf = (output: Output.Output["Service"], { groups }: AmqpDeadLetters.Page, now: number) =>
  table(
    output,
    [
      { title: "COUNT", align: "right", keep: true },
      { title: "ERROR", keep: true },
      { title: "REASON" },
      { title: "ORIGIN", keep: true },
      { title: "FIRST" },
      { title: "LAST" }
    ],
    groups.map(({ count, error, firstAt, kind, lastAt, origin }) => [
      String(count),
      error ?? unknown,
      kind,
      origin ?? unknown,
      age(firstAt, now),
      age(lastAt, now)
    ])
  )

const lettersOf = (output: Output.Output["Service"], { letters }: AmqpDeadLetters.Page, now: number) =>
  table(
    output,
    [
      { title: "ID", keep: true },
      { title: "ERROR", keep: true },
      { title: "ATTEMPT", align: "right" },
      { title: "AGE" },
      { title: "SIZE", align: "right" },
      { title: "MESSAGE" }
    ],
    letters.map((letter) => [
      letter.id,
      errorOf(letter),
      letter.reason.attempt === undefined ? unknown : String(letter.reason.attempt),
      age(letter.reason.lastAt, now),
      `${letter.size} B`,
      letter.reason.message ?? ""
    ])
  )

/** One letter in full: its reason, its headers and its content. */
const fullOf = (output: Output.Output["Service"], letter: AmqpDeadLetters.DeadLetter): ReadonlyArray<string> =>
  toLines(output, letter, true, `${letter.id}  ${errorOf(letter)}: ${letter.reason.message ?? unknown}  `)

const linesOf = (output: Output.Output["Service"], page: AmqpDeadLetters.Page, options: Options, now: number) => {
  const isUnverified = page.letters.some(({ reason }) => reason.kind === "failed" && !reason.verified)
  return [
    ...(page.letters.length === 0
      ? []
      : [
          ...groupsOf(output, page, now),
          "",
          ...(options.full ? page.letters.flatMap((letter) => fullOf(output, letter)) : lettersOf(output, page, now)),
          ""
        ]),
    `${page.letters.length} shown of ${page.scanned} read, ${page.total} in the queue${page.unreadable > 0 ? `, ${page.unreadable} cannot be read` : ""}.`,
    ...(isUnverified
      ? [
          "Reasons are headers that every client which may publish here can write. EFFECT_AMQP_RETRY_SECRET verifies them."
        ]
      : [])
  ]
}

export const runPeek = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<void, AmqpError.AmqpError | Failure | Terminal.QuitError, Output.Output | Prompt.Environment> {
  const now = yield* Clock.currentTimeMillis
  const output = yield* Output.Output
  const deadLetters = yield* deadLettersOf(options)
  const page = yield* connected(
    options,
    "peek",
    deadLetters.peek({
      limit: options.limit,
      where: matches(options, now),
      ...(options.full ? { maxContent: largest } : {})
    })
  )
  const { letters, ...rest } = page
  const json = {
    ...rest,
    letters: letters.map((letter) => {
      // One by one: they are getters.
      const { id, origin, queue, reason, redelivered, redriven, size } = letter
      return Object.assign({ id, queue, origin, reason, redriven, redelivered, size }, toJson(letter))
    })
  }
  yield* Output.result(json, () => linesOf(output, page, options, now))
})
