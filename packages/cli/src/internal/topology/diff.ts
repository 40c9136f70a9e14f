/** `topology diff`. */
import type { AmqpError } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import type * as Terminal from "effect/Terminal"
import type * as Prompt from "effect/cli/Prompt"
import { connected } from "../broker/connecting.ts"
import type { Shared } from "../broker/Settings.ts"
import { Answered, type Failure } from "../failure.ts"
import * as Output from "../output/Output.ts"
import { table } from "../output/table.ts"
import { compare, type Compared, isEqual } from "./compare.ts"
import { load, type TopologySource } from "./load.ts"

/** The differing property with both values; otherwise why nothing is known. */
export const detailOf = ({ declared, existing, message, property, status }: Compared): string =>
  status === "missing" || status === "equal"
    ? ""
    : property !== undefined && existing !== undefined
      ? `${property}: ${declared} here, ${existing} on the broker`
      : (message ?? "")

export const rowsOf = (output: Output.Output["Service"], compared: ReadonlyArray<Compared>): Array<string> =>
  table(
    output,
    [
      { title: "KIND", keep: true },
      { title: "NAME", keep: true },
      { title: "STATUS", keep: true },
      { title: "DETAIL" }
    ],
    compared.map((each) => [each.kind, each.name, each.status, detailOf(each)])
  )

export const runDiff = Effect.fnUntraced(function* (
  options: Shared & { readonly source: TopologySource }
): Effect.fn.Return<
  void,
  AmqpError.AmqpError | Answered | Failure | Terminal.QuitError,
  Output.Output | Prompt.Environment
> {
  const topology = yield* load(options.source)
  const compared = yield* connected(options, "topology diff", compare(topology))
  const differences = compared.filter((each) => !isEqual(each))
  const output = yield* Output.Output
  yield* Output.result(
    { equal: compared.length - differences.length, differences, bindingsNotCompared: topology.bindings.length },
    () => [
      ...(differences.length === 0 ? [] : rowsOf(output, differences)),
      `${compared.length - differences.length} equal, ${differences.length} with differences. AMQP shows no bindings: ${topology.bindings.length} not compared.`
    ]
  )
  if (differences.length > 0) return yield* new Answered()
})
