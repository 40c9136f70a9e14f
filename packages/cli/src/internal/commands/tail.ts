import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { integer, lazy, options, running } from "./shared.ts"
import { topologyFlag } from "./topologyFile.ts"

export const tail = Command.make(
  "tail",
  {
    name: Argument.String("name").pipe(Argument.withDescription("An exchange, a stream, or a queue of --topology")),
    as: Flag.Literals("as", ["exchange", "queue"]).pipe(
      Flag.withDescription("What the name is, if an exchange and a queue have it"),
      Flag.optional
    ),
    keys: options(
      Flag.String("key").pipe(
        Flag.withAlias("k"),
        Flag.withDescription(
          "A binding key for an exchange. Repeatable. Default: # and every header, which a direct exchange ignores"
        )
      )
    ),
    offset: Flag.String("offset").pipe(
      Flag.withDescription("Where to begin in a stream: next, last, first, or a number. Default: next"),
      Flag.withDefault("next")
    ),
    limit: integer("limit", { min: 1, max: Number.MAX_SAFE_INTEGER }).pipe(
      Flag.withDescription("End after so many messages. Default: on Ctrl-C"),
      Flag.optional
    ),
    full: Flag.Boolean("full").pipe(
      Flag.withDescription("Show whole contents, and the headers"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    topology: topologyFlag
  },
  (flags) =>
    running((context) =>
      Effect.flatMap(
        lazy(() => import("../tail/tail.ts")),
        ({ run }) =>
          run({
            ...context,
            ...flags,
            as: Option.getOrUndefined(flags.as),
            limit: Option.getOrUndefined(flags.limit),
            topology: Option.getOrUndefined(flags.topology)
          })
      )
    )
).pipe(
  Command.withShortDescription("Show messages as they come, without taking any from consumers"),
  Command.withDescription(
    "Shows messages as they come. No consumer loses one: of an exchange it binds an exclusive queue of its own, and gets copies; a stream is read as it is. A classic or quorum queue gives each message to one consumer only, so it is not read: with --topology, copies come from the exchanges that the topology binds to it. What waits in a queue is shown by peek."
  ),
  Command.withExamples([
    { command: "effect-amqp tail shop --key 'order.#'", description: "Copies of what an exchange routes" },
    { command: "effect-amqp tail events --offset first --limit 10", description: "The first messages of a stream" },
    { command: "effect-amqp tail orders --topology src/topology.ts", description: "Copies of what a queue gets" },
    { command: "effect-amqp tail shop --json | jq .routingKey" }
  ])
)
