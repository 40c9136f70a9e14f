/** The program: its commands, its errors and its exit code. */
import * as NodeFileSystem from "@effect/platform-node-shared/NodeFileSystem"
import * as NodePath from "@effect/platform-node-shared/NodePath"
import * as NodeRuntime from "@effect/platform-node-shared/NodeRuntime"
import * as NodeStdio from "@effect/platform-node-shared/NodeStdio"
import * as NodeTerminal from "@effect/platform-node-shared/NodeTerminal"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as CliConfig from "effect/cli/CliConfig"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import { readFileSync } from "node:fs"
import { secretIn } from "./internal/broker/secretArguments.ts"
import { discard, peek, redrive } from "./internal/commands/deadLetters.ts"
import { doctor } from "./internal/commands/doctor.ts"
import { publish } from "./internal/commands/publish.ts"
import { root } from "./internal/commands/shared.ts"
import { tail } from "./internal/commands/tail.ts"
import { topology } from "./internal/commands/topology.ts"
import { Answered, exitCodes, Failure, usage } from "./internal/failure.ts"
import * as Output from "./internal/output/Output.ts"
import * as Text from "./internal/output/text.ts"

const command = root.pipe(Command.withSubcommands([doctor, peek, redrive, discard, tail, publish, topology]))

const version = (): string => JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")).version

/** Says what is wrong, and what to do, on standard error. */
const explain = ({ cure, exitCode, message, tag }: Failure): Effect.Effect<void> =>
  process.argv.includes("--json")
    ? Effect.sync(() => void process.stderr.write(`${Text.json({ error: { tag, message, cure, exitCode } })}\n`))
    : Effect.andThen(
        Effect.forEach(message.split("\n"), (line, i) => Output.note(i === 0 ? `effect-amqp: ${line}` : line), {
          discard: true
        }),
        cure === undefined ? Effect.void : Output.note(cure)
      )

/** Help that was asked for is the result. After a mistake, standard output stays empty for scripts. */
const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? explain(
          usage(event.errors.map(({ message }) => message).join("\n"), `Run ${event.commandPath.join(" ")} --help.`)
        )
      : CliOutput.defaultPresenter.present(event)
}

/** Standard output is the result's: what the library logs goes to standard error, without escape sequences. */
const logger = Logger.make(({ cause, logLevel, message }) => {
  const text = (Array.isArray(message) ? message : [message])
    .map((part) => (typeof part === "string" ? part : Text.json(part)))
    .join(" ")
  const reason =
    cause.reasons.length === 0
      ? ""
      : `: ${Cause.squash(cause) instanceof Error ? (Cause.squash(cause) as Error).message : ""}`
  process.stderr.write(`${logLevel.toLowerCase()}: ${Text.line(text + reason)}\n`)
})

const services = Layer.mergeAll(
  NodeFileSystem.layer,
  NodePath.layer,
  NodeStdio.layer,
  NodeTerminal.layer,
  // No command starts a process.
  Layer.succeed(
    ChildProcessSpawner.ChildProcessSpawner,
    ChildProcessSpawner.make(() => Effect.die("not used"))
  ),
  CliConfig.layer({
    builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel]
  }),
  CliOutput.layerPresenter(presenter),
  Logger.layer([logger]),
  Layer.succeed(References.MinimumLogLevel, "Warn" as const)
)

const failureOf = Effect.fnUntraced(function* (cause: Cause.Cause<unknown>) {
  const error = Cause.squash(cause)
  if (error instanceof Failure) return error
  // Loaded already if it is an error of the library.
  const { AmqpError } = yield* Effect.promise(() => import("@effect-amqp/core"))
  if (AmqpError.isAmqpError(error)) {
    const { failureOf } = yield* Effect.promise(() => import("./internal/broker/failures.ts"))
    return failureOf(error)
  }
  return new Failure({
    tag: "Unexpected",
    message: `Unexpected error: ${error instanceof Error ? error.message : String(error)}`,
    cure: "This is a mistake in effect-amqp: please report it, with the command.",
    exitCode: exitCodes.broker
  })
})

const report = Effect.fnUntraced(function* (cause: Cause.Cause<unknown>) {
  if (Cause.hasInterruptsOnly(cause)) return exitCodes.interrupted
  const error = Cause.squash(cause)
  if (error instanceof Answered) return exitCodes.no
  // The presenter has said what is wrong.
  if (typeof error === "object" && error !== null && "_tag" in error && error._tag === "ShowHelp") {
    return "errors" in error && Array.isArray(error.errors) && error.errors.length > 0 ? exitCodes.usage : 0
  }
  const failure = yield* failureOf(cause)
  yield* explain(failure)
  return failure.exitCode
})

/**
 * How long after the first signal a second one ends the process, and a note offers that, in milliseconds. One Ctrl-C may
 * arrive twice: from the terminal, and from npx, which passes it on.
 */
const secondSignalAfter = 500
const offerSecondAfter = 1000

/** Ends the process at a second signal: the command may wait for a broker that does not answer. Returns the end of that. */
const listenForSecondSignal = (): (() => void) => {
  let firstAt: number | undefined
  let offer: NodeJS.Timeout | undefined
  const listener = () => {
    const now = performance.now()
    if (firstAt === undefined) {
      firstAt = now
      offer = setTimeout(() => {
        process.stderr.write(
          "Waiting for the broker. Interrupt again to end at once: what is not settled stays in its queue.\n"
        )
      }, offerSecondAfter)
    } else if (now - firstAt >= secondSignalAfter) {
      process.exit(exitCodes.interrupted)
    }
  }
  process.on("SIGINT", listener)
  process.on("SIGTERM", listener)
  return () => {
    clearTimeout(offer)
    process.removeListener("SIGINT", listener)
    process.removeListener("SIGTERM", listener)
  }
}

/** Runs the command of this process, and ends the process with its exit code. */
export const run = (): void => {
  const args = process.argv.slice(2)
  // A reader such as `head` that has seen enough is no error.
  let isClosed = false
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error
    if (isClosed) return
    isClosed = true
    process.emit("SIGINT", "SIGINT")
  })
  // Notes that are not read do not end work half done, such as a redrive.
  process.stderr.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error
  })
  const main = Effect.suspend(() => {
    const refused = secretIn(args)
    return refused === undefined ? Command.runWith(command, { version: version() })(args) : Effect.fail(refused)
  }).pipe(
    Effect.provide(TerminalCapabilities.layer),
    Effect.provide(services),
    Effect.exit,
    Effect.flatMap((exit) => (Exit.isSuccess(exit) ? Effect.succeed(0) : report(exit.cause)))
  )
  const ended = listenForSecondSignal()
  NodeRuntime.runMain(main, {
    disableErrorReporting: true,
    teardown: (exit, onExit) => {
      ended()
      const code = Exit.isSuccess(exit) ? Number(exit.value) : exitCodes.interrupted
      onExit(isClosed && code === exitCodes.interrupted ? 0 : code)
    }
  })
}
