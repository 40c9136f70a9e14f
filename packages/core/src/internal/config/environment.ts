/** The environment, read through Effect's `Config`: one variable per setting. */
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
import { unredact } from "./decoder.ts"
import { reportUnknownName } from "./unknownNames.ts"
import { type Key, settingOf, variables } from "./settings.ts"
import { closestName } from "./suggestion.ts"
import { readUrl } from "./url.ts"

const url = "AMQP_URL"
const allVariables: ReadonlyArray<string> = [url, ...variables.keys()]

// Spellings of other clients and images. If they were ignored, the default would silently stay in force.
const foreignVariables: ReadonlyMap<string, string> = new Map([
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

// All names with these prefixes belong to this library. Other names with AMQP_ may be the application's own.
const families = ["AMQP_POOL_", "AMQP_TLS_", "AMQP_TCP_"]

interface Names {
  readonly [segment: string]: Names | Redacted.Redacted<string> | undefined
}

// Values are read as secrets: only the names are needed, and any value may be a secret.
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
 * Names of variables that begin with `AMQP_`. The provider of the environment splits names at `_`, so it has an `AMQP`
 * with segments below it. The provider of an object has the whole names.
 */
const presentNames: Config.Config<ReadonlyArray<string>> = Config.all([
  Config.schema(Names, "AMQP").pipe(Config.withDefault({} as Names)),
  Config.schema(
    Schema.Record(Schema.TemplateLiteral(["AMQP_", Schema.String]), Schema.UndefinedOr(Schema.Redacted(Schema.String)))
  ).pipe(Config.withDefault({}))
]).pipe(Config.map(([tree, flat]) => [...namesUnder("AMQP", tree), ...Object.keys(flat)]))

// A `Config` does not receive the prefix that `Config.nested` gave it, but its errors contain it. So this one always
// fails.
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

// Variables that say where to connect and as which user. An empty one, such as from a template without its value, would
// fall back to localhost and guest.
const neverEmpty = ["URL", "HOST", "HOSTS", "PORT", "VHOST", "USERNAME", "PASSWORD", "TLS"]

/**
 * Variables that are set and empty. Effect's providers read them as missing and list them only among the keys, which no
 * schema sees. So this reads the provider of the running program.
 */
const emptyNames = Effect.fnUntraced(function* (at: ReadonlyArray<string>) {
  const provider = yield* ConfigProvider.ConfigProvider
  const load = (...path: ReadonlyArray<string>) =>
    Effect.orElseSucceed(provider.load([...at, ...path]), () => undefined)
  // The parent lists the name, and yet it exists neither as a value nor as the beginning of longer names.
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

/** Returns the prefixes of a name: `A` and `A_B` for `A_B_C`. */
const prefixesOf = (name: string): Array<string> => {
  const found: Array<string> = []
  // No variable of this library has such a long name.
  if (name.length > 255) return found
  for (let at = name.indexOf("_"); at >= 0; at = name.indexOf("_", at + 1)) found.push(name.slice(0, at))
  return found
}

const refuseUnknown = (draft: Draft, names: ReadonlyArray<string>, label: (name: string) => string): void => {
  const prefixes = new Set(names.flatMap(prefixesOf))
  for (const name of names) {
    if (draft.report.isFull) break
    if (allVariables.includes(name) || prefixes.has(name)) continue
    const meant = foreignVariables.get(name)
    if (meant !== undefined) {
      draft.report.add(label(name), "an unknown variable", `${label(meant)} (rename or unset this variable)`)
      continue
    }
    const family = families.find((family) => name.startsWith(family))
    const known = allVariables.filter((variable) => family === undefined || variable.startsWith(family))
    if (family === undefined && closestName(name, known) === undefined) continue
    reportUnknownName(draft, { noun: "variable", known: known.map(label) }, label(name))
  }
}

/** Settings that the URL contains. No variable may set them in addition. */
const urlSettings: ReadonlySet<Key> = new Set(["host", "hosts", "port", "vhost", "tls"])

/** Whether Kubernetes has set this variable: it adds `<SERVICE>_PORT=tcp://address:port` to the pods of a namespace. */
const isServiceLink = (value: Redacted.Redacted<string>): boolean => /^(tcp|udp|sctp):\/\//.test(Redacted.value(value))

const readValues = (
  draft: Draft,
  read: { readonly [name: string]: Option.Option<Redacted.Redacted<string>> },
  label: (name: string) => string
): void => {
  const urlValue = Option.getOrUndefined(read[url] ?? Option.none())
  if (urlValue !== undefined) readUrl(draft, label(url), urlValue)
  for (const [name, key] of variables) {
    const value = Option.getOrUndefined(read[name] ?? Option.none())
    if (value === undefined) continue
    // Before the check for AMQP_URL: this variable is not the user's, whether there is a URL or not.
    if (key === "port" && isServiceLink(value)) {
      const expected =
        "a port from 1 to 65535 (Kubernetes sets this variable for a Service named amqp: set enableServiceLinks: false in the pod, or rename the Service)"
      draft.report.add(label(name), "the address of a Service (tcp://...)", expected)
      continue
    }
    if (urlValue !== undefined && urlSettings.has(key)) {
      draft.report.add(label(name), "both", `either ${label(name)} or ${label(url)}, which contains this setting`)
      continue
    }
    const isSecret = settingOf(key).decoder.secret
    draft.set(key, { setting: label(name), value: isSecret ? value : unredact(value), form: "text" })
  }
}

const toConfigError = (draft: Draft): Config.ConfigError => {
  const [first, ...others] = draft.report
    .issues()
    .map(
      ({ got, setting, expected }) =>
        new SchemaIssue.Pointer(
          [setting],
          new SchemaIssue.InvalidValue({ message: `expected ${expected}, got ${got}` })
        )
    )
  if (first === undefined) return new Config.ConfigError(new Schema.SchemaError(new SchemaIssue.InvalidValue()))
  return new Config.ConfigError(
    new Schema.SchemaError(new SchemaIssue.Composite(Schema.Unknown.ast, [first, ...others]))
  )
}

/** The configuration, read from the variables of the current `ConfigProvider`. */
export const environment: Config.Config<AmqpConfig> = Config.all({ at: prefix, names: presentNames, values }).pipe(
  Config.mapEffect(
    Effect.fnUntraced(function* ({ at, names, values }) {
      const label = (name: string) => [...at, name].join("_")
      const draft = new Draft((key) => label(`AMQP_${settingOf(key).env ?? key}`))
      readValues(draft, values, label)
      refuseUnknown(draft, names, label)
      for (const name of yield* emptyNames(at)) {
        if (Option.isNone(values[name] ?? Option.none())) {
          draft.report.add(label(name), "an empty string", "a value (or unset this variable)")
        }
      }
      return yield* Effect.mapError(assemble(draft), () => toConfigError(draft))
    })
  )
)
