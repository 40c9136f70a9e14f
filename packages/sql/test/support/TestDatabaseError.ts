import * as Schema from "effect/Schema"

/**
 * The error of a `TestDatabase`; `reason` says what failed.
 *
 * - `NoDatabase`: no source of a database works on this machine. The message lists each source, why it did not work, and
 *   the commands that would make it work.
 * - `StartFailed`: an available source did not start. The message ends with the output of the server.
 * - `Unreachable`: there is no usable database at `DATABASE_URL`.
 * - `NotControllable`: the server is not a private process, so that it cannot be killed, stopped or paused.
 * - `CommandFailed`: the server refused a command.
 */
export class TestDatabaseError extends Schema.TaggedError<TestDatabaseError>()("TestDatabaseError", {
  reason: Schema.Literals(["NoDatabase", "StartFailed", "Unreachable", "NotControllable", "CommandFailed"]),
  message: Schema.String
}) {}
