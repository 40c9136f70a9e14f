import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { usage } from "../failure.ts"
import { lazy, running } from "./shared.ts"

const file = Argument.Path("file").pipe(
  Argument.withDescription("A JSON file, or a module whose default export is an AmqpTopology"),
  Argument.optional
)

const module = Flag.Path("module").pipe(
  Flag.withMetavar("FILE"),
  Flag.withDescription("A module whose default export is an AmqpTopology, whatever its file is called"),
  Flag.optional
)

const sourceOf = (flags: { readonly file: Option.Option<string>; readonly module: Option.Option<string> }) => {
  const path = Option.getOrUndefined(flags.file)
  const modulePath = Option.getOrUndefined(flags.module)
  return (path === undefined) === (modulePath === undefined)
    ? Effect.fail(usage("topology: expected either FILE or --module FILE"))
    : Effect.succeed({ path: path ?? modulePath!, isModule: path === undefined })
}

const diff = Command.make("diff", { file, module }, (flags) =>
  running((context) =>
    Effect.gen(function* () {
      const source = yield* sourceOf(flags)
      const { runDiff } = yield* lazy(() => import("../topology/diff.ts"))
      yield* runDiff({ ...context, source })
    })
  )
).pipe(
  Command.withShortDescription("Compare a topology with the broker"),
  Command.withDescription(
    "Compares the exchanges and queues of a topology with the broker. Nothing is changed: each name is first looked up, and then declared with the topology's properties only if it exists, which a broker answers by saying whether they are equal. AMQP shows no bindings, and no names that the topology lacks: bindings that are missing on the broker, or exist there only, are not reported, and neither are policies (rabbitmqctl list_bindings, list_policies). Exit code 1 if there are differences."
  ),
  Command.withExamples([
    { command: "effect-amqp topology diff topology.json" },
    { command: "effect-amqp topology diff src/topology.ts --json | jq '.differences[]'" }
  ])
)

const apply = Command.make(
  "apply",
  {
    file,
    module,
    recreate: Flag.Boolean("recreate").pipe(
      Flag.withDescription("Delete exchanges and queues whose properties differ, and declare them again"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    deleteMessages: Flag.Boolean("delete-messages").pipe(
      Flag.withDescription("With --recreate: also queues that have messages or consumers. Their messages are lost"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    yes: Flag.Boolean("yes").pipe(
      Flag.withAlias("y"),
      Flag.withDescription("Confirm what is destructive, for scripts"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    dryRun: Flag.Boolean("dry-run").pipe(
      Flag.withDescription("Say what would be done, and do nothing"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    )
  },
  (flags) =>
    running((context) =>
      Effect.gen(function* () {
        const source = yield* sourceOf(flags)
        const { runApply } = yield* lazy(() => import("../topology/apply.ts"))
        yield* runApply({ ...context, ...flags, source })
      })
    )
).pipe(
  Command.withShortDescription("Declare a topology on the broker"),
  Command.withDescription(
    "Declares what is missing, and all bindings. Nothing is deleted, and bindings that exist on the broker only stay. A broker does not change what exists: an exchange or queue with other properties stays as it is, and the exit code is 1. Then declare it as it is, or set a policy for limits, expiry and dead-lettering, or use a queue with a new name and drain the old one, or --recreate. With --recreate it is deleted and declared again, after a confirmation: bindings that the topology does not have are lost, and a queue must be empty and without consumers, unless --delete-messages is given."
  ),
  Command.withExamples([
    { command: "effect-amqp topology apply topology.json --dry-run", description: "What would it do?" },
    { command: "effect-amqp topology apply src/topology.ts" },
    { command: "effect-amqp topology apply topology.json --recreate --yes", description: "In a script" }
  ])
)

export const topology = Command.make("topology").pipe(
  Command.withDescription("Compare exchanges, queues and bindings with the broker, or declare them"),
  Command.withSubcommands([diff, apply])
)
