/** Topologies from files: JSON, or modules that export one. */
import { AmqpTopology } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import { type Failure, usage } from "../failure.ts"

export interface TopologySource {
  readonly path: string
  /** Whether it is imported whatever its name is. */
  readonly isModule: boolean
}

const Options = Schema.Record(Schema.String, Schema.Unknown)

const Binding = Schema.Struct({
  exchange: Schema.String,
  queue: Schema.optionalKey(Schema.String),
  toExchange: Schema.optionalKey(Schema.String),
  routingKey: Schema.optionalKey(Schema.String),
  arguments: Schema.optionalKey(Options)
})

/** The documented JSON file. The options of exchanges and queues are those of the library, which checks them. */
const File = Schema.Struct({
  exchanges: Schema.optionalKey(
    Schema.Array(Schema.StructWithRest(Schema.Struct({ name: Schema.String, type: Schema.String }), [Options]))
  ),
  queues: Schema.optionalKey(Schema.Array(Schema.StructWithRest(Schema.Struct({ name: Schema.String }), [Options]))),
  bindings: Schema.optionalKey(Schema.Array(Binding)),
  external: Schema.optionalKey(
    Schema.Struct({
      exchanges: Schema.optionalKey(Schema.Array(Schema.String)),
      queues: Schema.optionalKey(Schema.Array(Schema.String))
    })
  )
})

const decode = Schema.decodeUnknownResult(File, { onExcessProperty: "error", errors: "all" })

const invalid = (path: string, why: string): Failure =>
  usage(
    `${path}: expected a topology, got ${why}`,
    "The file: https://github.com/effect-amqp/effect-amqp/blob/main/docs/cli.md#topology"
  )

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const partsOf = (path: string, file: typeof File.Type): Effect.Effect<ReadonlyArray<AmqpTopology.Part>, Failure> =>
  Effect.gen(function* () {
    const parts: Array<AmqpTopology.Part> = []
    for (const { name, type, ...options } of file.exchanges ?? [])
      parts.push(AmqpTopology.exchange(name, type, options))
    for (const { name, ...options } of file.queues ?? []) parts.push(AmqpTopology.queue(name, options))
    for (const [i, { exchange, queue, routingKey = "", toExchange, ...options }] of (file.bindings ?? []).entries()) {
      if ((queue === undefined) === (toExchange === undefined)) {
        return yield* invalid(path, `a binding, bindings[${i}], without exactly one of queue and toExchange`)
      }
      const given = options as AmqpTopology.Binding["options"]
      parts.push(
        queue === undefined
          ? AmqpTopology.exchangeBinding(toExchange!, exchange, routingKey, given)
          : AmqpTopology.queueBinding(queue, exchange, routingKey, given)
      )
    }
    for (const name of file.external?.exchanges ?? []) parts.push(AmqpTopology.externalExchange(name))
    for (const name of file.external?.queues ?? []) parts.push(AmqpTopology.externalQueue(name))
    return parts
  })

const fromJson = Effect.fnUntraced(function* (path: string) {
  const text = yield* Effect.try({
    try: () => readFileSync(path, "utf8"),
    catch: (error) => usage(`${path}: expected a readable file, got: ${messageOf(error)}`)
  })
  const value = yield* Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: (error) => invalid(path, `no JSON: ${messageOf(error)}`)
  })
  const decoded = decode(value)
  if (Result.isFailure(decoded)) return yield* invalid(path, `other content:\n${decoded.failure.message}`)
  return yield* partsOf(path, decoded.success)
})

const fromModule = Effect.fnUntraced(function* (path: string) {
  const exported = yield* Effect.tryPromise({
    try: () => import(pathToFileURL(resolve(path)).href) as Promise<{ readonly default?: unknown }>,
    catch: (error) => {
      const why = messageOf(error)
      return usage(
        `${path}: expected a module that can be imported, got: ${why}`,
        // Since npm 11 a new package.json says "type": "commonjs".
        /outside a module|Unexpected token 'export'/.test(why)
          ? 'Node takes it for CommonJS: end its name with .mts or .mjs, or set "type": "module" in package.json.'
          : "Run it by itself with node to see where it fails. Node runs TypeScript whose types can be erased: no enums, no parameter properties."
      )
    }
  })
  if (exported.default === undefined) return yield* invalid(path, "a module without a default export")
  // What is no part is one of the mistakes that `check` lists.
  return [exported.default as AmqpTopology.Part]
})

/** Loads a topology. Fails with every mistake that can be found without a broker. */
export const load = Effect.fnUntraced(function* ({ isModule, path }: TopologySource) {
  const parts = yield* isModule || /\.[cm]?[jt]s$/.test(path) ? fromModule(path) : fromJson(path)
  const topology = AmqpTopology.make(...parts)
  const mistakes = AmqpTopology.check(topology)
  if (mistakes.length > 0) {
    return yield* usage(`${path}: the topology has mistakes:\n- ${mistakes.join("\n- ")}`, "Nothing was sent.")
  }
  return topology
})

/** Loads a topology that a flag names by its path. */
export const loadPath = (path: string) => load({ path, isModule: false })
