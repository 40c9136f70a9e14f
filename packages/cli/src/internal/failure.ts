/** Failures of a command: a sentence for people, what to do, and the exit code. */
import * as Data from "effect/Data"

/**
 * The exit codes, as docs/cli.md lists them.
 *
 * | code | meaning                                                                     |
 * | ---- | --------------------------------------------------------------------------- |
 * | 0    | done, and the answer is yes                                                 |
 * | 1    | done, and the answer is no: an error found, a difference, a message that was not published |
 * | 2    | nothing was done: a flag, the configuration, a file, a missing confirmation |
 * | 3    | no connection to the broker, or the login was refused                       |
 * | 4    | the broker refused the operation, or the connection was lost during it      |
 * | 130  | interrupted                                                                 |
 */
export const exitCodes = { no: 1, usage: 2, connection: 3, broker: 4, interrupted: 130 } as const

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

/** One of several mistakes: what is wrong with a setting. */
export interface Mistake {
  readonly subject: string
  readonly message: string
}

/** Ends the command with this message. */
export class Failure extends Data.TaggedError("Failure")<{
  /** What happened and what was expected. It may contain names from the broker: they are escaped when it is printed. */
  readonly message: string
  /** What to do. */
  readonly cure?: string | undefined
  /** A stable word for scripts: the tag of the library's error, or one of the command's own. */
  readonly tag: string
  /** The mistakes that the message lists. */
  readonly mistakes?: ReadonlyArray<Mistake> | undefined
  readonly exitCode: ExitCode
}> {}

/** Ends the command with exit code 1: its output has said why. */
export class Answered extends Data.TaggedError("Answered")<{}> {}

export const usage = (message: string, cure?: string): Failure =>
  new Failure({ tag: "Usage", message, cure, exitCode: exitCodes.usage })
