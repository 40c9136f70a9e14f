// npm run check: the types of @effect-amqp/platform are those of the core, written in Effect 3's types. This writes
// them to packages/platform/src/model from the core's model, docstrings included, so that both say the same; with
// --check it only compares.
import { spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { parseSync } from "oxc-parser"
import { environment, root } from "./dependencies.mjs"

/** A module of the core, or of another package by a path that begins with `packages`. */
const core = (path) => join(root, path.startsWith("packages/") ? path : join("packages/core/src", path))
const target = join(root, "packages/platform/src/model")

const nameOf = ({ declaration }) => declaration.id?.name ?? declaration.declarations[0].id.name

/** The exported declarations of a module of the core by their names: each one's text, with its docstring. */
const declarationsOf = (path) => {
  const text = readFileSync(core(path), "utf8")
  const { comments, program } = parseSync(path, text)
  const found = new Map()
  for (const node of program.body) {
    if (node.type !== "ExportNamedDeclaration" || node.declaration === null) continue
    const doc = comments.findLast(({ end }) => end <= node.start)
    found.set(nameOf(node), text.slice(doc.start, node.end))
  }
  return found
}

/** Effect 4's types in Effect 3's. */
const inEffect3 = (text) =>
  text
    // Examples are written for Effect 4: docs/effect-3.md has those of this package.
    .replaceAll(/\n( *) \* \*\*Example\*\*[^\n]*\n(?:\1 \*[^\n]*\n)*?\1 \* ```ts\n[\s\S]*?```\n\1 \*(?=\n)/g, "")
    .replaceAll("Duration.Input", "Duration.DurationInput")
    .replaceAll("Queue.Dequeue<Returned, AmqpError>", "Stream.Stream<Returned, AmqpError>")
    .replaceAll("Queue.Dequeue<Delivery, AmqpError | Cause.Done>", "Stream.Stream<Delivery, AmqpError>")
    .replaceAll("The queue is done after `cancel`. It fails", "The stream ends after `cancel`. It fails")
    .replaceAll("reach no queue. The queue fails with", "reached no queue. The stream fails with")
    .replaceAll("reached no queue. The queue fails with", "reached no queue. The stream fails with")
    .replaceAll("Result.Result<Confirmed, AmqpError>", "Either.Either<Confirmed, AmqpError>")
    .replaceAll("AmqpError.AmqpErrorReason", "AmqpErrorReason")
    .replaceAll("Schema.Constraint", "Schema.Schema.All")
    .replaceAll('S["Type"]', "Schema.Schema.Type<S>")
    .replaceAll(/[A-Za-z]+Options<NoInfer<E>>/g, (match) => match)
    .replaceAll("AmqpChannel.ConsumeOptions", "ChannelConsumeOptions")
    .replaceAll("(channel: AmqpChannel.AmqpChannel)", "(channel: AmqpChannel)")
    .replaceAll("@effect-amqp/core", "@effect-amqp/platform")

/** Effect 3 has no text for an endless duration. The paragraphs that name it are wrapped again. */
const withInfinity = (text) =>
  text.replaceAll(
    /^( *)\* (?:[^*@\n][^\n]*\n\1\* )*[^\n]*`"Infinity"`[^\n]*(?:\n\1\* [^@\n][^\n]*)*/gm,
    (paragraph, indent) => {
      const words = paragraph
        .replaceAll(/^ *\* /gm, "")
        .replaceAll('"Infinity"', "Duration.infinity")
        .split(/\s+/)
      const lines = [""]
      for (const word of words) {
        const line = lines.at(-1)
        if (line === "") lines[lines.length - 1] = word
        else if (`${indent}* ${line} ${word}`.length <= 120) lines[lines.length - 1] = `${line} ${word}`
        else lines.push(word)
      }
      return lines.map((line) => `${indent}* ${line}`).join("\n")
    }
  )

/** Metrics are read as plain data. */
const inRpc = (text) =>
  text
    .replace("AmqpConsumer.ConsumeOptions", "ConsumeOptions")
    .replace(
      "tests and metrics. `AmqpMetrics` exports the same counts.",
      "and tests. `AmqpMetrics.snapshot` has the same counts."
    )

const files = {
  "channel.ts": {
    title: "The channel that a scope borrows: its operations, their options and their results.",
    imports: [
      'import type * as Duration from "effect/Duration"',
      'import type * as Effect from "effect/Effect"',
      'import type * as Option from "effect/Option"',
      'import type * as Stream from "effect/Stream"',
      'import type { AmqpError } from "./error.ts"',
      'import type { Delivery, Headers, Message, Properties } from "./message.ts"'
    ],
    from: [
      [
        "model/channel.ts",
        "PublishOptions Confirmed Returned ExchangeType ExchangeDeclareOptions QueueDeclareOptions QueueDeclared BindOptions ConsumeOptions Consumer Operations AmqpChannel ConfirmChannel TransactionChannel Kind"
      ]
    ]
  },
  "message.ts": {
    title: "Messages, their properties and field tables, as plain data.",
    imports: [
      'import type * as BigDecimal from "effect/BigDecimal"',
      'import type * as DateTime from "effect/DateTime"',
      'import type * as Duration from "effect/Duration"'
    ],
    from: [
      ["model/message.ts", "FieldValue FieldTable Headers Properties DeliveredProperties Envelope Message Delivery"]
    ]
  },
  "connection.ts": {
    title: "The states of a connection.",
    imports: [
      'import type * as Duration from "effect/Duration"',
      'import type { AmqpErrorReason } from "./errorReason.ts"'
    ],
    from: [["model/connection.ts", "State Flow Condition"]]
  },
  "health.ts": {
    title: "The words of a health report.",
    imports: [],
    from: [["packages/http/src/AmqpHealth.ts", "Reason ConditionReport"]]
  },
  "poolStats.ts": { title: "The counts of the pool.", imports: [], from: [["model/pool.ts", "Stats"]] },
  "publisher.ts": {
    title: "The publisher: its options, outcomes and counts.",
    imports: [
      'import type * as Either from "effect/Either"',
      'import type { Confirmed, PublishOptions } from "./channel.ts"',
      'import type { AmqpError } from "./error.ts"',
      'import type { Message } from "./message.ts"'
    ],
    from: [["model/publisher.ts", "Flow Stats Outcome PublishAllOptions"]]
  },
  "policies.ts": {
    title: "Policies: what happens to a delivery that was not handled, as plain values.",
    imports: ['import type * as Duration from "effect/Duration"'],
    from: [
      [
        "model/policies.ts",
        "Redeliver Requeue DeadLetter Drop Retry Policy FinalPolicy RetryOptions redeliver requeue deadLetter drop retry"
      ]
    ]
  },
  "streamPolicies.ts": {
    title: "Policies of streams: what happens to a delivery of a stream that was not handled, as plain values.",
    imports: [],
    from: [["model/streamPolicies.ts", "Stop Skip PublishTo StreamPolicy stop skip publishTo"]]
  },
  "topology.ts": {
    title: "Exchanges, queues and bindings as values.",
    imports: [
      'import type { BindOptions, ExchangeDeclareOptions, ExchangeType, QueueDeclareOptions } from "./channel.ts"'
    ],
    from: [["model/topology.ts", "Exchange Queue Binding External AmqpTopology Part"]]
  },
  "topologyShapes.ts": {
    title: "Common shapes of topologies: their options, and the names in them.",
    imports: [
      'import type * as Duration from "effect/Duration"',
      'import type { ExchangeDeclareOptions, QueueDeclareOptions } from "./channel.ts"',
      'import type { DeadLetter, Retry } from "./policies.ts"',
      'import type { AmqpTopology } from "./topology.ts"'
    ],
    from: [
      [
        "internal/topology/shapes.ts",
        "RetryQueueOptions WorkQueueOptions WorkQueue Subscriber PublishSubscribeOptions PublishSubscribe"
      ]
    ]
  },
  "consumer.ts": {
    title: "Consumers: their deliveries and their options.",
    imports: [
      'import type * as DateTime from "effect/DateTime"',
      'import type * as Duration from "effect/Duration"',
      'import type * as Effect from "effect/Effect"',
      'import type * as Redacted from "effect/Redacted"',
      'import type * as Schema from "effect/Schema"',
      'import type { AmqpChannel, ConsumeOptions as ChannelConsumeOptions } from "./channel.ts"',
      'import type { AmqpError } from "./error.ts"',
      'import type { DeliveredProperties } from "./message.ts"',
      'import type { OffsetStore } from "./offsetStore.ts"',
      'import type { FinalPolicy, Policy } from "./policies.ts"',
      'import type { StreamPolicy } from "./streamPolicies.ts"'
    ],
    from: [
      [
        "model/consumer.ts",
        "Delivery Origin End StreamOffset SavedOffsets SubscribeOptions DeadLettering ConsumeOptions DecodeOptions HandlerInput BatchOptions StreamOptions"
      ],
      ["AmqpConsumer.ts", "LayerOptions", (text) => text.replace(": WhenFailed", ': "end" | "unready"')]
    ]
  },
  "offsetStore.ts": {
    title: "The interface of stores for positions in streams.",
    imports: ['import type * as Effect from "effect/Effect"', 'import type * as Option from "effect/Option"'],
    from: [["model/offsetStore.ts", "OffsetStore"]]
  },
  "event.ts": {
    title: "Events: a schema, an exchange and a routing key in one value.",
    imports: [
      'import type * as Schema from "effect/Schema"',
      'import type { Json } from "../AmqpMessage.ts"',
      'import type { PublishOptions } from "./channel.ts"',
      'import type { Properties } from "./message.ts"'
    ],
    from: [
      [
        "AmqpEvent.ts",
        "EventOptions Event PublishEventOptions",
        (text) => text.replace("Json<S>", "Json<Schema.Schema.Type<S>, Schema.Schema.Context<S>>")
      ]
    ]
  },
  "rpc.ts": {
    title: "Request and reply: procedures, options and counts.",
    imports: [
      'import type * as Duration from "effect/Duration"',
      'import type * as Schema from "effect/Schema"',
      'import type { ConsumeOptions } from "./consumer.ts"',
      'import type { FieldTable } from "./message.ts"'
    ],
    from: [["model/rpc.ts", "Procedure ProcedureOptions PayloadSchema CallOptions Stats Options ServeOptions", inRpc]]
  },
  "config.ts": {
    title: "The settings of a connection and its pool.",
    imports: [
      'import type * as Duration from "effect/Duration"',
      'import type * as Redacted from "effect/Redacted"',
      'import type * as Schedule from "effect/Schedule"',
      'import type { AmqpErrorReason } from "./errorReason.ts"'
    ],
    from: [
      [
        "AmqpConfig.ts",
        "Pem TlsOptions TcpOptions ReconnectOptions PoolOptions Options FlaskPikaParameters FlaskPikaPool",
        withInfinity
      ]
    ]
  }
}

const moduleOf = ({ from, imports, title }) => {
  const parts = from.flatMap(([path, names, change = (text) => text]) => {
    const declarations = declarationsOf(path)
    return names.split(" ").map((name) => {
      const text = declarations.get(name)
      if (text === undefined) throw new Error(`${path}: expected an export named ${name}, got none`)
      return change(inEffect3(text))
    })
  })
  const all = parts.join("\n\n")
  // Only what is used: the linter refuses the rest.
  const used = imports.flatMap((line) => {
    const namespace = /import type \* as (\w+)/.exec(line)?.[1]
    if (namespace !== undefined) return all.includes(`${namespace}.`) ? [line] : []
    return [line]
  })
  return `/**
 * ${title}
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
${used.join("\n")}

${all}
`
}

const fieldsOf = {
  Fields: "Fields",
  ReplyFields: "ReplyFields"
}

const typeOf = (schema) => {
  const optional = /^Schema\.optional\((.*)\)$/s.exec(schema)
  if (optional !== null) return `${typeOf(optional[1])} | undefined`
  const known = { "Schema.String": "string", "Schema.Int": "number", "Schema.Boolean": "boolean" }[schema]
  if (known !== undefined) return known
  if (schema === "Schema.Array(Schema.String)") return "ReadonlyArray<string>"
  if (schema.startsWith("Schema.Array(Schema.Struct({ setting:"))
    return "ReadonlyArray<{ readonly setting: string; readonly got: string; readonly expected: string }>"
  throw new Error(`errorReason.ts: expected a schema that this script knows, got ${schema}`)
}

const fieldType = (text, node) => {
  if (node.type === "Identifier") return fieldsOf[node.name]
  const bases = []
  const own = []
  for (const property of node.properties) {
    if (property.type === "SpreadElement") bases.push(fieldsOf[property.argument.name])
    else {
      const schema = text.slice(property.value.start, property.value.end)
      const comment = /\/\*\*[^\n]*\*\/\s*$/.exec(text.slice(0, property.start))?.[0].trim()
      const optional = schema.startsWith("Schema.optional(") ? "?" : ""
      own.push(
        `${comment === undefined ? "" : `${comment}\n`}readonly ${property.key.name}${optional}: ${typeOf(schema)}`
      )
    }
  }
  return [...bases, `{\n${own.join("\n")}\n}`].join(" & ")
}

const errorModule = () => {
  const path = "model/errorReason.ts"
  const text = readFileSync(core(path), "utf8")
  const { comments, program } = parseSync(path, text)
  const classes = []
  const names = []
  let severityType
  for (const node of program.body) {
    if (node.type !== "ExportNamedDeclaration" || node.declaration === null) continue
    const { declaration } = node
    const doc = comments.findLast(({ end }) => end <= node.start)
    if (nameOf(node) === "Severity") severityType = text.slice(doc.start, node.end)
    if (declaration.type !== "ClassDeclaration") continue
    const name = declaration.id.name
    const value = (key) => {
      const member = declaration.body.body.find((member) => member.key.name === key && !member.computed)
      return text.slice(member.value.start, member.value.end)
    }
    names.push(name)
    classes.push(
      `${inEffect3(text.slice(doc.start, doc.end))}
export class ${name} extends makeReason("${name}", ${value("severity")}, ${value("isRetryable")})<${fieldType(text, declaration.superClass.arguments[1])}> {}`
    )
  }
  return `/**
 * The reasons why an AMQP operation fails: one class per reason.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import { type Fields, makeReason, type ReplyFields } from "./reason.ts"

${severityType}

${classes.join("\n\n")}

/**
 * Every reason of an \`AmqpError\`.
 *
 * **When to use**
 *
 * Use as the type of a value that may be any reason.
 *
 * @category models
 * @since 0.1.0
 */
export type AmqpErrorReason = ${names.join(" | ")}

/**
 * The classes of the reasons, by their tags.
 *
 * **When to use**
 *
 * Use to make a reason whose tag is a variable.
 *
 * @category models
 * @since 0.1.0
 */
export const reasons = {${names.join(", ")}} as const
`
}

const variablesModule = () => {
  const names = (path, pattern) => [...readFileSync(core(path), "utf8").matchAll(pattern)].map(([, name]) => name)
  // The spellings of other clients are read too, so that the core can refuse them.
  const all = [
    "AMQP_URL",
    ...names("internal/config/settings.ts", /\benv: "(\w+)"/g).map((name) => `AMQP_${name}`),
    ...names("internal/config/environment.ts", /^ {2}\["(AMQP_\w+)", /gm)
  ]
  return `/**
 * The environment variables that the core reads or refuses.
 *
 * Written by scripts/platformModel.mjs from the core's settings. Do not edit.
 */
export const variables: ReadonlyArray<string> = ${JSON.stringify([...new Set(all)])}
`
}

/** The table of HTTP answers, without what makes responses of them. */
const answersModule = () => {
  const path = "packages/http/src/internal/answers.ts"
  const text = readFileSync(core(path), "utf8")
  const { program } = parseSync(path, text)
  const dropped = new Set(["about", "responseOf"])
  const parts = []
  let from = program.body.findLast(({ type }) => type === "ImportDeclaration").end
  for (const node of program.body) {
    if (node.type === "ImportDeclaration") continue
    const { declaration = node } = node
    const name = declaration.id?.name ?? declaration.declarations[0].id.name
    if (!dropped.has(name)) parts.push(text.slice(from, node.end))
    from = node.end
  }
  return `/**
 * The table of the answers that HTTP clients get for AMQP errors.
 *
 * Written by scripts/platformModel.mjs from @effect-amqp/http. Do not edit.
 */
import type * as AmqpError from "./error.ts"
${parts.join("")}
`
}

const contents = Object.fromEntries(Object.entries(files).map(([name, spec]) => [name, moduleOf(spec)]))
contents["errorReason.ts"] = errorModule()
contents["answers.ts"] = answersModule()
contents["variables.ts"] = variablesModule()

const check = process.argv.includes("--check")
// The formatter decides the lines, so what is compared is formatted first.
const folder = check ? mkdtempSync(join(root, "packages/platform/.model-")) : target
try {
  mkdirSync(folder, { recursive: true })
  for (const [name, content] of Object.entries(contents)) writeFileSync(join(folder, name), content)
  const { status } = spawnSync(
    "oxfmt",
    Object.keys(contents).map((name) => join(folder, name)),
    {
      cwd: root,
      env: environment(),
      stdio: ["ignore", "ignore", "inherit"],
      shell: process.platform === "win32"
    }
  )
  if (status !== 0) process.exitCode = 1
  for (const name of check ? Object.keys(contents) : []) {
    const current = join(target, name)
    if (existsSync(current) && readFileSync(current, "utf8") === readFileSync(join(folder, name), "utf8")) continue
    console.error(
      `packages/platform/src/model/${name}: differs from the core's model: run node scripts/platformModel.mjs`
    )
    process.exitCode = 1
  }
} finally {
  if (check) rmSync(folder, { recursive: true, force: true })
}
