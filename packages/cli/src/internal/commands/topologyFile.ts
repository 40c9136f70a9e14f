import * as Flag from "effect/cli/Flag"

export const topologyFlag = Flag.Path("topology").pipe(
  Flag.withMetavar("FILE"),
  Flag.withDescription("A JSON file, or a module .ts, .js or .mjs whose default export is an AmqpTopology"),
  Flag.optional
)
