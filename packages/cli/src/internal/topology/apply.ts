/** `topology apply`. */
import { type AmqpError, AmqpPool, AmqpTopology } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import type * as Terminal from "effect/Terminal"
import type * as Prompt from "effect/cli/Prompt"
import { connected } from "../broker/connecting.ts"
import type { Shared } from "../broker/Settings.ts"
import { Answered, exitCodes, Failure, usage } from "../failure.ts"
import { confirm } from "../output/confirm.ts"
import * as Output from "../output/Output.ts"
import { table } from "../output/table.ts"
import { compare, type Compared } from "./compare.ts"
import { detailOf } from "./diff.ts"
import { load, type TopologySource } from "./load.ts"

interface Options extends Shared {
  readonly source: TopologySource
  readonly recreate: boolean
  readonly deleteMessages: boolean
  readonly yes: boolean
  readonly dryRun: boolean
}

type Action = "create" | "recreate" | "keep" | "leave"

interface Planned extends Compared {
  readonly action: Action
}

/** `leave`: it differs and stays as it is, which makes the exit code 1. */
const actionOf = ({ external, status }: Compared, recreate: boolean): Action =>
  status === "equal"
    ? "keep"
    : external
      ? "leave"
      : status === "missing"
        ? "create"
        : status === "different" && recreate
          ? "recreate"
          : "leave"

const quoted = JSON.stringify

const plural = (count: number, noun: string) => `${count} ${noun}${count === 1 ? "" : "s"}`

const inUse = (name: string, messages: number, consumers: number) =>
  new Failure({
    tag: "QueueInUse",
    message: `queue ${quoted(name)}: expected it empty and without consumers before it is deleted, got ${plural(messages, "message")} and ${plural(consumers, "consumer")}. It was not deleted.`,
    cure: "Stop its consumers and empty it, or add --delete-messages, which loses its messages.",
    exitCode: exitCodes.usage
  })

/**
 * Deletes what is declared again afterwards. The counts are read immediately before: `ifEmpty` would close the
 * connection of a quorum queue (540), and the type of a queue cannot be read.
 */
const remove = ({ kind, name }: Planned, deleteMessages: boolean) =>
  AmqpPool.AmqpPool.use((pool) =>
    pool.use((channel) =>
      Effect.gen(function* () {
        if (kind === "exchange") return yield* channel.exchangeDelete(name)
        if (!deleteMessages) {
          const { consumerCount, messageCount } = yield* channel.queueDeclarePassive(name)
          if (messageCount + consumerCount > 0) return yield* inUse(name, messageCount, consumerCount)
        }
        yield* channel.queueDelete(name)
      })
    )
  )

/** The topology without what stays as it is: bindings to it are declared nevertheless. */
const withoutLeft = (topology: AmqpTopology.AmqpTopology, planned: ReadonlyArray<Planned>) => {
  const left = (kind: Compared["kind"]) =>
    new Set(planned.filter((each) => each.kind === kind && each.action === "leave").map(({ name }) => name))
  const [exchanges, queues] = [left("exchange"), left("queue")]
  return AmqpTopology.make({
    ...topology,
    exchanges: topology.exchanges.filter(({ name }) => !exchanges.has(name)),
    queues: topology.queues.filter(({ name }) => !queues.has(name)),
    external: [
      ...topology.external,
      ...topology.exchanges
        .filter(({ name }) => exchanges.has(name))
        .map(({ name }) => AmqpTopology.externalExchange(name)),
      ...topology.queues.filter(({ name }) => queues.has(name)).map(({ name }) => AmqpTopology.externalQueue(name))
    ]
  })
}

const describeLoss = (planned: ReadonlyArray<Planned>): string => {
  const messages = planned.reduce((sum, { messages = 0 }) => sum + messages, 0)
  const names = planned.map(({ kind, name }) => `${kind} ${quoted(name)}`).join(", ")
  return `Delete and declare again ${names}? ${messages > 0 ? `${plural(messages, "message")} and all` : "All"} bindings that the topology does not have are lost.`
}

const applying = Effect.fnUntraced(function* (topology: AmqpTopology.AmqpTopology, options: Options) {
  const output = yield* Output.Output
  const planned = (yield* compare(topology)).map((each): Planned =>
    Object.assign({ action: actionOf(each, options.recreate) }, each)
  )
  const recreated = planned.filter(({ action }) => action === "recreate")
  const created = planned.filter(({ action }) => action === "create")
  const left = planned.filter(({ action }) => action === "leave")
  const missing = left.filter(({ status }) => status === "missing")
  if (missing.length > 0) {
    return yield* new Failure({
      tag: "NotFound",
      message: `External, and missing on the broker: ${missing.map(({ kind, name }) => `${kind} ${quoted(name)}`).join(", ")}. Nothing was done.`,
      cure: "Their owner declares them first.",
      exitCode: exitCodes.broker
    })
  }
  for (const { action, consumers = 0, kind, messages = 0, name } of recreated) {
    if (action === "recreate" && kind === "queue" && messages + consumers > 0 && !options.deleteMessages) {
      return yield* inUse(name, messages, consumers)
    }
  }
  const changes = [...created, ...recreated, ...left]
  if (!output.isJson && changes.length > 0) {
    const columns = [
      { title: "ACTION", keep: true },
      { title: "KIND", keep: true },
      { title: "NAME", keep: true }
    ]
    const rows = changes.map((each) => [each.action, each.kind, each.name, detailOf(each)])
    yield* Effect.forEach(table(output, [...columns, { title: "DETAIL" }], rows), Output.print, { discard: true })
  }
  if (!options.dryRun) {
    if (recreated.length > 0) yield* confirm(describeLoss(recreated), options.yes)
    // Queues first: an exchange may be the dead letter exchange of one.
    for (const each of recreated.toReversed()) yield* remove(each, options.deleteMessages)
    yield* AmqpTopology.declare(withoutLeft(topology, planned))
  }
  yield* Output.result(
    {
      dryRun: options.dryRun,
      created: created.map(({ kind, name }) => ({ kind, name })),
      recreated: recreated.map(({ kind, name }) => ({ kind, name })),
      bindings: topology.bindings.length,
      left
    },
    () => [
      `${options.dryRun ? "Would be created" : "Created"}: ${created.length}, recreated: ${recreated.length}, bindings declared: ${topology.bindings.length}, left with other properties: ${left.length}.`
    ]
  )
  if (left.length > 0) {
    if (!options.recreate && left.some(({ external, status }) => status === "different" && !external))
      yield* Output.note("Add --recreate to delete what differs and declare it again.")
    return yield* new Answered()
  }
})

export const runApply = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<
  void,
  AmqpError.AmqpError | Answered | Failure | Terminal.QuitError,
  Output.Output | Prompt.Environment
> {
  if (options.deleteMessages && !options.recreate) {
    return yield* usage("topology apply: expected --recreate with --delete-messages, got --delete-messages alone")
  }
  const topology = yield* load(options.source)
  yield* connected(options, "topology apply", applying(topology, options))
})
