import * as Effect from "effect/Effect"
import { TestBrokerError } from "../TestBrokerError.ts"
import type { Broker, Cli, Coordinates } from "./broker.ts"
import * as Command from "./command.ts"
import * as Control from "./control.ts"

const notControllable = new TestBrokerError({
  reason: "NotControllable",
  message:
    "The broker at AMQP_URL is external, and no rabbitmqctl reaches it, so its census and faults are not available. " +
    'Set AMQP_TEST_RABBITMQCTL to a command that reaches it (such as "docker exec my-rabbit rabbitmqctl"), or unset ' +
    "AMQP_URL to use a private broker."
})

const notRabbitMq = new TestBrokerError({
  reason: "NotControllable",
  message: "The memory broker is no RabbitMQ, so there is no rabbitmqctl. Use a real broker for this test."
})

const commandFailed = (message: string) => new TestBrokerError({ reason: "CommandFailed", message })

const runCli = (cli: Cli, args: ReadonlyArray<string>) =>
  Command.run(cli.command, [...cli.args, ...args], typeof cli.env === "string" ? {} : { env: { ...cli.env } }).pipe(
    Effect.flatMap(({ code, stderr, stdout }) =>
      code === 0
        ? Effect.succeed(stdout.trim())
        : Effect.fail(commandFailed(`rabbitmqctl ${args.join(" ")}: ${(stderr + stdout).trim()}`))
    )
  )

const string = (text: string) => JSON.stringify(text)

/** Runs `rabbitmqctl` on the node's machine, for a node in a container. */
const runInNode = (evaluate: Broker["evaluate"], cli: Cli, args: ReadonlyArray<string>) =>
  evaluate(`
    Port = open_port({spawn_executable, os:find_executable(${string(cli.command)})},
      [exit_status, stderr_to_stdout, binary, use_stdio, {args, [${[...cli.args, ...args]
        .map((arg) => `unicode:characters_to_binary(${string(arg)})`)
        .join(",")}]}]),
    Collect = fun Collect(Output) ->
      receive
        {Port, {data, Data}} -> Collect([Output, Data]);
        {Port, {exit_status, Status}} -> iolist_to_binary([integer_to_binary(Status), $ , Output])
      end
    end,
    Collect([]).
  `).pipe(
    Effect.flatMap((answer) => {
      const space = answer.indexOf(" ")
      const output = answer.slice(space + 1).trim()
      return answer.slice(0, space) === "0"
        ? Effect.succeed(output)
        : Effect.fail(commandFailed(`rabbitmqctl ${args.join(" ")}: ${output}`))
    })
  )

/**
 * Evaluates Erlang with `rabbitmqctl`. The value is printed between marks, because `rabbitmqctl` prints the result, and
 * sometimes warnings, around it.
 */
const evaluateByCli = (cli: Cli, erlang: string) =>
  runCli(cli, [
    "eval",
    `io:format("<<<~s>>>", [base64:encode(case begin ${erlang.trim().replace(/\.$/, "")} end of ` +
      `Text when is_binary(Text) -> Text; Term -> unicode:characters_to_binary(io_lib:format("~tp", [Term])) end)]).`
  ]).pipe(
    Effect.flatMap((output) => {
      const value = /<<<([\w+/=]*)>>>/.exec(output)?.[1]
      return value === undefined
        ? Effect.fail(commandFailed(`rabbitmqctl eval: ${output}`))
        : Effect.succeed(Buffer.from(value, "base64").toString("utf8"))
    })
  )

/** Adds the controls to the coordinates of a running broker. */
export const fromCoordinates = (coordinates: Coordinates): Broker => {
  const { cli, control } = coordinates
  const evaluate: Broker["evaluate"] =
    control !== undefined
      ? (erlang) => Control.evaluate(control, erlang)
      : cli !== undefined
        ? (erlang) => evaluateByCli(cli, erlang)
        : () => Effect.fail(notControllable)
  const ctl: Broker["ctl"] =
    cli === undefined
      ? () => Effect.fail(coordinates.origin === "memory" ? notRabbitMq : notControllable)
      : (...args) => (cli.env === "inNode" ? runInNode(evaluate, cli, args) : runCli(cli, args))
  return { ...coordinates, evaluate, ctl }
}
