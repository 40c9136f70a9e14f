import * as Schema from "effect/Schema"

/**
 * Everything that can go wrong with a {@link TestBroker}, told apart by `reason`:
 *
 * - `NoBroker`: no way of getting a broker works on this machine; the message lists each way, why it did not work, and
 *   the commands that would make it work.
 * - `StartFailed`: a way that is there did not come up; the message ends with what the broker or the engine printed.
 * - `Unreachable`: nothing answers at `AMQP_URL`.
 * - `NotControllable`: the broker is not ours (`AMQP_URL`) and no `rabbitmqctl` reaches it, so it cannot be asked for
 *   a census or made to misbehave.
 * - `CommandFailed`: the broker refused a command, or an expectation about its census did not come true in time.
 */
export class TestBrokerError extends Schema.TaggedError<TestBrokerError>()("TestBrokerError", {
  reason: Schema.Literals(["NoBroker", "StartFailed", "Unreachable", "NotControllable", "CommandFailed"]),
  message: Schema.String
}) {}
