/** The environment, through Effect's `Config`: one variable for every setting. */
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import type { AmqpConfig } from "../../model/config.ts"
import { assemble } from "./assemble.ts"
import { Draft } from "./draft.ts"
import { exposed } from "./decoder.ts"
import { refuseName } from "./names.ts"
import { type Key, settingOf, variables } from "./settings.ts"
import { suggestion } from "./suggestion.ts"
import { readUrl } from "./url.ts"

const url = "AMQP_URL"
const allVariables: ReadonlyArray<string> = [url, ...variables.keys()]

// Spellings of other clients and images: ignored, they would leave the default in force without a word.
const foreign: ReadonlyMap<string, string> = new Map([
  ["AMQP_USER", "AMQP_USERNAME"],
  ["AMQP_LOGIN", "AMQP_USERNAME"],
  ["AMQP_PASS", "AMQP_PASSWORD"],
  ["AMQP_PASSWD", "AMQP_PASSWORD"],
  ["AMQP_URI", url],
  ["AMQP_HOSTNAME", "AMQP_HOST"],
  ["AMQP_VIRTUAL_HOST", "AMQP_VHOST"],
  ["AMQP_SSL", "AMQP_TLS"],
  ["AMQP_POOL_MAX", "AMQP_POOL_SIZE"],
  ["AMQP_STACK_TIMEOUT", "AMQP_CONNECT_TIMEOUT"]
])

// Everything below these is this library's; other names with AMQP_ may be the application's own.
const families = ["AMQP_POOL_", "AMQP_TLS_", "AMQP_TCP_"]

interface Names {
  readonly [segment: string]: Names | Redacted.Redacted<string> | undefined
}

// Values are read as secrets: nothing but names is wanted, and whatever is set may be one.
const Names: Schema.Codec<Names, unknown> = Schema.Record(
  Schema.String,
  Schema.Union([
    Schema.suspend((): Schema.Codec<Names, unknown> => Names),
    Schema.Redacted(Schema.String),
    Schema.Undefined
  ])
)

const namesUnder = (prefix: string, names: Names): ReadonlyArray<string> =>
  Object.entries(names).flatMap(([segment, under]) => {
    const name = `${prefix}_${segment}`
    return under === undefined || Redacted.isRedacted(under) ? [name] : [name].concat(namesUnder(name, under))
  })

/**
 * Names that begin with `AMQP_`. The provider of the environment splits names at `_`, and so knows an `AMQP` with
 * segments below it; that of an object knows them whole.
 */
const presentNames: Config.Config<ReadonlyArray<string>> = Config.all([
  Config.schema(Names, "AMQP").pipe(Config.withDefault({} as Names)),
  Config.schema(
    Schema.Record(Schema.TemplateLiteral(["AMQP_", Schema.String]), Schema.UndefinedOr(Schema.Redacted(Schema.String)))
  ).pipe(Config.withDefault({}))
]).pipe(Config.map(([tree, flat]) => [...namesUnder("AMQP", tree), ...Object.keys(flat)]))

// A `Config` is not told the prefix that `Config.nested` gave it, but its errors are: this one always fails.
const prefix: Config.Config<ReadonlyArray<string>> = Config.schema(Schema.Never, url).pipe(
  Config.orElse(({ cause }) =>
    Config.succeed(
      cause._tag === "SchemaError" && cause.issue._tag === "Pointer" ? cause.issue.path.slice(0, -1).map(String) : []
    )
  )
)

const values: Config.Config<{ readonly [name: string]: Option.Option<Redacted.Redacted<string>> }> = Config.all(
  Object.fromEntries(allVariables.map((name) => [name, Config.option(Config.Redacted(name))]))
)

// What says where and as whom: left empty, as by a template without its value, it would fall back to localhost and guest.
const neverEmpty = ["URL", "HOST", "HOSTS", "PORT", "VHOST", "USERNAME", "PASSWORD", "TLS"]

/**
 * Variables that are set, and empty. Effect's providers read them as missing, and only name them among the keys, which
 * no schema sees: so this asks the provider of the running program.
 */
const emptyNames = Effect.fnUntraced(function* (at: ReadonlyArray<string>) {
  const provider = yield* ConfigProvider.ConfigProvider
  const load = (...path: ReadonlyArray<string>) =>
    Effect.orElseSucceed(provider.load([...at, ...path]), () => undefined)
  // Named by its parent, and yet not there: neither as a value nor as the beginning of longer names.
  const isEmpty = Effect.fnUntraced(function* (...path: [...Array<string>, string]) {
    const parent = yield* load(...path.slice(0, -1))
    return parent?._tag === "Record" && parent.keys.has(path.at(-1)!) && (yield* load(...path)) === undefined
  })
  const empty: Array<string> = []
  for (const name of neverEmpty) {
    if ((yield* isEmpty(`AMQP_${name}`)) || (yield* isEmpty("AMQP", name))) empty.push(`AMQP_${name}`)
  }
  return empty
})

/** What longer names begin with: `A_B_C` with `A` and `A_B`. */
const beginningsOf = (name: string): Array<string> => {
  const found: Array<string> = []
  // No name of ours is as long.
  if (name.length > 255) return found
  for (let at = name.indexOf("_"); at >= 0; at = name.indexOf("_", at + 1)) found.push(name.slice(0, at))
  return found
}

const refuseUnknown = (draft: Draft, names: ReadonlyArray<string>, label: (name: string) => string): void => {
  const beginnings = new Set(names.flatMap(beginningsOf))
  for (const name of names) {
    if (draft.report.isFull) break
    if (allVariables.includes(name) || beginnings.has(name)) continue
    const meant = foreign.get(name)
    if (meant !== undefined) {
      draft.report.add(label(name), "an unknown variable", `${label(meant)}, or not to be set`)
      continue
    }
    const family = families.find((family) => name.startsWith(family))
    const known = allVariables.filter((variable) => family === undefined || variable.startsWith(family))
    if (family === undefined && suggestion(name, known) === undefined) continue
    refuseName(draft, { noun: "variable", known: known.map(label) }, label(name))
  }
}

/** What the URL says, and so no variable beside it may. */
const saidByUrl: ReadonlySet<Key> = new Set(["host", "hosts", "port", "vhost", "tls"])

const readValues = (
  draft: Draft,
  read: { readonly [name: string]: Option.Option<Redacted.Redacted<string>> },
  label: (name: string) => string
): void => {
  const whole = Option.getOrUndefined(read[url] ?? Option.none())
  if (whole !== undefined) readUrl(draft, label(url), whole)
  for (const [name, key] of variables) {
    const value = Option.getOrUndefined(read[name] ?? Option.none())
    if (value === undefined) continue
    if (whole !== undefined && saidByUrl.has(key)) {
      draft.report.add(label(name), `a variable beside ${label(url)}`, `one of the two: ${label(url)} says it`)
      continue
    }
    const isSecret = settingOf(key).decoder.secret
    draft.give(key, { setting: label(name), value: isSecret ? value : exposed(value), form: "text" })
  }
}

const toConfigError = (draft: Draft): Config.ConfigError => {
  const [first, ...others] = draft.report
    .issues()
    .map(
      ({ got, setting, wants }) =>
        new SchemaIssue.Pointer([setting], new SchemaIssue.InvalidValue({ message: `got ${got}, wants ${wants}` }))
    )
  if (first === undefined) return new Config.ConfigError(new Schema.SchemaError(new SchemaIssue.InvalidValue()))
  return new Config.ConfigError(
    new Schema.SchemaError(new SchemaIssue.Composite(Schema.Unknown.ast, [first, ...others]))
  )
}

/** The configuration, from the variables that the current `ConfigProvider` knows. */
export const environment: Config.Config<AmqpConfig> = Config.all({ at: prefix, names: presentNames, values }).pipe(
  Config.mapEffect(
    Effect.fnUntraced(function* ({ at, names, values }) {
      const label = (name: string) => [...at, name].join("_")
      const draft = new Draft((key) => label(`AMQP_${settingOf(key).env ?? key}`))
      readValues(draft, values, label)
      refuseUnknown(draft, names, label)
      for (const name of yield* emptyNames(at)) {
        if (Option.isNone(values[name] ?? Option.none())) {
          draft.report.add(label(name), "an empty text", "a value, or not to be set")
        }
      }
      return yield* Effect.mapError(assemble(draft), () => toConfigError(draft))
    })
  )
)
