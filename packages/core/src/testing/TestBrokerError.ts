import * as Schema from "effect/Schema"

/**
 * The error of a {@link TestBroker}; `reason` says what failed.
 *
 * **When to use**
 *
 * Use to handle a broker that cannot be started or controlled, for example to skip tests on a machine without one.
 *
 * **Details**
 *
 * - `NoBroker`: no source of a broker works on this machine. The message lists each source, why it did not work, and
 *   the commands that would make it work.
 * - `StartFailed`: an available source did not start. The message ends with the output of the broker or of the
 *   container engine.
 * - `Unreachable`: there is no response at `AMQP_URL`.
 * - `NotControllable`: the broker is external (`AMQP_URL`) and no `rabbitmqctl` reaches it, so it can neither return a
 *   census nor cause faults.
 * - `CommandFailed`: the broker refused a command, or its census did not become the expected one in time.
 *
 * @category errors
 * @since 0.1.0
 */
export class TestBrokerError extends Schema.TaggedError<TestBrokerError>()("TestBrokerError", {
  reason: Schema.Literals(["NoBroker", "StartFailed", "Unreachable", "NotControllable", "CommandFailed"]),
  message: Schema.String
}) {}
