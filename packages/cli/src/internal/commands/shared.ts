/**
 * The flags of every command, and how a command runs.
 *
 * The modules of this folder describe commands and nothing else: what a command does is imported when it runs, so that
 * `--help` and completions load neither the library nor its driver.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import { make, Output } from "../output/Output.ts"

export const root = Command.make("effect-amqp").pipe(
  Command.withDescription(
    "Diagnoses, dead letters, tailing, publishing and topologies on RabbitMQ. The broker is named as in the library: by AMQP_URL, or AMQP_HOST, AMQP_PORT, AMQP_VHOST, AMQP_USERNAME, AMQP_PASSWORD and AMQP_TLS. Every command has examples in its --help. All of it: https://github.com/effect-amqp/effect-amqp/blob/main/docs/cli.md"
  ),
  Command.withSharedFlags({
    url: Flag.String("url").pipe(
      Flag.withMetavar("URL"),
      Flag.withDescription(
        "The broker, amqp[s]://user@host:port/vhost, instead of AMQP_URL and AMQP_HOST. Without a password: that comes from AMQP_PASSWORD or a prompt"
      ),
      Flag.optional
    ),
    // Not --env-file: Node reads a flag of that name itself, wherever it stands, and ends if the file is missing.
    env: Flag.Path("env").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("A file with AMQP_ variables, NAME=value per line. Variables of the environment win"),
      Flag.optional
    ),
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("Print JSON for scripts: one value, or one per line for streams"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    )
  })
)

/** The values of the shared flags, for what a command runs. */
export interface Context {
  readonly url: string | undefined
  readonly envFile: string | undefined
}

/**
 * Runs what a command has imported, with its shared flags and its output. The program reports every error, so the
 * commands do not list theirs.
 */
export const running = (
  run: (context: Context) => Effect.Effect<void, unknown, Output | Command.Environment>
): Effect.Effect<void, unknown, Command.CommandContext<"effect-amqp"> | Command.Environment> =>
  Effect.gen(function* () {
    const { env, json, url } = yield* root
    const { canColor, canPrompt } = yield* TerminalCapabilities.TerminalCapabilities
    return yield* run({ url: Option.getOrUndefined(url), envFile: Option.getOrUndefined(env) }).pipe(
      Effect.provideService(Output, make({ isJson: json, canColor, canPrompt }))
    )
  })

/** Imports what a command runs. */
export const lazy = <A>(load: () => Promise<A>): Effect.Effect<A> => Effect.promise(load)

/** An integer with bounds, as a flag. */
export const integer = (name: string, { max, min }: { readonly min: number; readonly max: number }) =>
  Flag.Int(name).pipe(
    Flag.filter(
      (value) => value >= min && value <= max,
      (value) => `an integer from ${min} to ${max}, got ${value}`
    )
  )

export const options = <A>(flag: Flag.Flag<A>): Flag.Flag<ReadonlyArray<A>> => Flag.atLeast(flag, 0)
