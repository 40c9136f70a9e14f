/** Where a command writes: results to standard output, everything else to standard error. */
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Text from "./text.ts"

type Color = "red" | "green" | "yellow" | "cyan" | "dim" | "bold"

const codes: Readonly<Record<Color, number>> = { red: 31, green: 32, yellow: 33, cyan: 36, dim: 2, bold: 1 }

export class Output extends Context.Service<
  Output,
  {
    /** Whether results are JSON. */
    readonly isJson: boolean
    /** The columns of the terminal; `undefined` if standard output is not one, and nothing is cut. */
    readonly columns: number | undefined
    /** Whether standard error is a terminal, where a progress bar can be redrawn. */
    readonly canRedraw: boolean
    /** Whether a question can be asked and answered. */
    readonly canPrompt: boolean
    readonly color: (color: Color, text: string) => string
  }
>()("@effect-amqp/cli/Output") {}

/** The output of this process. `canColor` and `canPrompt` are what `effect/cli` has detected. */
export const make = (options: {
  readonly isJson: boolean
  readonly canColor: boolean
  readonly canPrompt: boolean
}): Output["Service"] => ({
  isJson: options.isJson,
  canPrompt: options.canPrompt,
  columns: process.stdout.isTTY ? process.stdout.columns || 80 : undefined,
  canRedraw: process.stderr.isTTY && process.env["TERM"] !== "dumb",
  color: (color, text) => (options.canColor ? `\u001b[${codes[color]}m${text}\u001b[0m` : text)
})

/** A line of the result. The caller has escaped what comes from the broker. */
export const print = (text: string): Effect.Effect<void> => Console.log(text)

/** A value of the result, as a line of JSON. */
export const printJson = (value: unknown): Effect.Effect<void> => Console.log(Text.json(value))

/** A line for people who watch: never part of the result. */
export const note = (text: string): Effect.Effect<void> => Console.error(Text.lines(text))

/** Prints the JSON value or the lines for people. */
export const result = (value: unknown, forPeople: () => Iterable<string>): Effect.Effect<void, never, Output> =>
  Effect.flatMap(Output, ({ isJson }) =>
    isJson ? printJson(value) : Effect.forEach(forPeople(), print, { discard: true })
  )
