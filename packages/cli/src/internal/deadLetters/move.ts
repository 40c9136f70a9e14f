/** `redrive` and `discard`. */
import { type AmqpDeadLetters, type AmqpError, AmqpPool } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Terminal from "effect/Terminal"
import type * as Prompt from "effect/cli/Prompt"
import { connected } from "../broker/connecting.ts"
import type { Shared } from "../broker/Settings.ts"
import { Answered, type Failure, usage } from "../failure.ts"
import { confirm } from "../output/confirm.ts"
import * as Output from "../output/Output.ts"
import { withProgress } from "../output/progress.ts"
import { table } from "../output/table.ts"
import { type Choice, deadLettersOf, describe, isFiltered, matches } from "./choice.ts"

interface Options extends Shared, Choice {
  readonly how: "redrive" | "discard"
  readonly to: string | undefined
  /** Whether a discard may choose all without a filter. */
  readonly all: boolean
  readonly limit: number | undefined
  readonly rate: number | undefined
  readonly dryRun: boolean
  readonly yes: boolean
}

const doneBy = ({ how }: Options, counts: { readonly redriven: number; readonly discarded: number }): number =>
  how === "redrive" ? counts.redriven : counts.discarded

const verbs = { redrive: "redriven", discard: "discarded" } as const

const countsOf = (options: Options, counts: AmqpDeadLetters.Progress | AmqpDeadLetters.Report): string => {
  const { duplicates, failed, left } = counts
  const done = `${doneBy(options, counts)} ${options.dryRun ? "would be " : ""}${verbs[options.how]}`
  return options.how === "discard"
    ? `${done}, ${left} stay`
    : `${done}, ${left} stay, ${failed} of them failed, ${duplicates} possible ${duplicates === 1 ? "duplicate" : "duplicates"}`
}

const question = (options: Options, total: number): string => {
  const limit = options.limit === undefined ? "" : `at most ${options.limit} of `
  const those = isFiltered(options) ? "those of " : ""
  const which = `${limit}${those}the ${total} messages in ${JSON.stringify(options.queue)}${describe(options)}`
  return options.how === "redrive"
    ? `Redrive ${which}${options.to === undefined ? "" : ` to ${JSON.stringify(options.to)}`}?`
    : `Discard ${which}? They are gone then.`
}

const moving = (options: Options, letters: AmqpDeadLetters.DeadLetters, now: number) =>
  Effect.gen(function* () {
    const pool = yield* AmqpPool.AmqpPool
    const { to } = options
    // Otherwise each message would fail, and a dry run would count what cannot be done.
    if (to !== undefined) {
      yield* Effect.catchReason(
        pool.use((channel) => channel.queueDeclarePassive(to)),
        "AmqpError",
        "ResourceLocked",
        // It exists, and takes messages: only its own connection may ask about it.
        () => Effect.void
      )
    }
    if (!options.dryRun) {
      const { messageCount } = yield* pool.use((channel) => channel.queueDeclarePassive(options.queue))
      yield* confirm(question(options, messageCount), options.yes)
    }
    let last: AmqpDeadLetters.Progress | undefined
    const report = yield* withProgress("Looked at", (progress) => {
      const choice: AmqpDeadLetters.ChoiceOptions = {
        where: isFiltered(options) ? matches(options, now) : undefined,
        limit: options.limit,
        rate: options.rate,
        dryRun: options.dryRun,
        onProgress: (counts) => {
          last = counts
          const suffix = `: ${countsOf(options, counts)}`
          return progress.report(counts.scanned, counts.total, suffix)
        }
      }
      return options.how === "redrive"
        ? letters.redrive({ ...choice, to: options.to })
        : letters.discard({ ...choice, all: options.all && !isFiltered(options) })
    }).pipe(
      // Also when it is interrupted: what was done is not undone.
      Effect.onExit((exit) =>
        exit._tag === "Failure" && last !== undefined
          ? Output.note(
              `Until then: ${countsOf(options, last)}. What was not looked at is in its queue${options.how === "discard" ? ", and so may be the last that were discarded if the broker did not answer" : ""}.`
            )
          : Effect.void
      )
    )
    return report
  })

const linesOf = (output: Output.Output["Service"], options: Options, report: AmqpDeadLetters.Report) => [
  ...(report.failures.length === 0
    ? []
    : table(
        output,
        [{ title: "ID", keep: true }, { title: "WHY IT STAYS" }],
        report.failures.map(({ id, message }) => [id, message])
      )),
  `Looked at ${report.scanned} of ${report.total}: ${countsOf(options, report)}${report.unreadable > 0 ? `, ${report.unreadable} cannot be read` : ""}.`
]

export const runMove = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<
  void,
  AmqpError.AmqpError | Answered | Failure | Terminal.QuitError,
  Output.Output | Prompt.Environment
> {
  if (options.how === "discard" && options.all === isFiltered(options)) {
    return yield* usage(
      options.all
        ? "discard: expected either --all or filters, got both"
        : "discard: expected a filter (--error, --origin, --id, --older-than) or --all, got none"
    )
  }
  const now = yield* Clock.currentTimeMillis
  const output = yield* Output.Output
  const letters = yield* deadLettersOf(options)
  const report = yield* connected(options, options.how, moving(options, letters, now))
  yield* Output.result(report, () => linesOf(output, options, report))
  if (report.failed > 0 && options.to === undefined) {
    yield* Output.note("Where the queue is gone or not known, choose one: --to QUEUE.")
  }
  if (report.failed > 0) return yield* new Answered()
})
