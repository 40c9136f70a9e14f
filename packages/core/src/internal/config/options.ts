/** Flattens a plain object of options into settings, and refuses unknown names. */
import type { Draft } from "./draft.ts"
import { type Form } from "./decoder.ts"
import { reportUnknownName } from "./unknownNames.ts"
import { isKey, type Key, keys } from "./settings.ts"
import { describeType } from "./formatValue.ts"

const groups = ["tls", "tcp", "reconnect", "pool"] as const
type Group = (typeof groups)[number]

const isGroup = (name: string): name is Group => groups.some((group) => group === name)

const notOptions: ReadonlySet<string> = new Set(["authMechanism"])

const topLevel: ReadonlyArray<string> = [
  ...keys.filter((key) => !key.includes(".") && !notOptions.has(key)),
  "url",
  "credentials",
  "tcp",
  "reconnect"
]

const fieldsOf = (group: Group): ReadonlyArray<string> =>
  keys.filter((key) => key.startsWith(`${group}.`)).map((key) => key.slice(group.length + 1))

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const readGroup = (draft: Draft, group: Group, value: unknown): void => {
  if ((value === false && (group === "tls" || group === "pool")) || (value === true && group === "tls")) {
    return draft.set(group, { setting: group, value, form: "plain" })
  }
  if (!isObject(value)) {
    const words = {
      tls: "true, false or an object",
      pool: "false or an object",
      tcp: "an object",
      reconnect: "an object"
    }[group]
    return draft.report.add(group, describeType(value), `${words} with the fields ${fieldsOf(group).join(", ")}`)
  }
  // An object switches TLS or the pool on, whatever it contains.
  if (group === "tls" || group === "pool") draft.set(group, { setting: group, value: true, form: "plain" })
  for (const [name, field] of Object.entries(value)) {
    const key = `${group}.${name}`
    if (!isKey(key))
      reportUnknownName(draft, { noun: "option", known: fieldsOf(group), prefix: `${group}.` }, name, field)
    else if (field !== undefined) draft.set(key, { setting: key, value: field, form: "plain" })
  }
}

const readCredentials = (draft: Draft, value: unknown): void => {
  const expected = '{ _tag: "Plain", username, password } or { _tag: "External" }'
  if (!isObject(value)) return draft.report.add("credentials", describeType(value), expected)
  const { _tag: tag, ...fields } = value
  if (tag !== "Plain" && tag !== "External") draft.report.add("credentials._tag", describeType(tag), expected)
  draft.set("authMechanism", {
    setting: "credentials",
    value: tag === "External" ? "external" : "plain",
    form: "plain"
  })
  for (const [name, field] of Object.entries(fields)) {
    if (name !== "username" && name !== "password") {
      reportUnknownName(draft, { noun: "option", known: ["username", "password"], prefix: "credentials." }, name, field)
    }
  }
  for (const name of ["username", "password"] as const) {
    // The field counts as given even if it is missing, because no default may fill it in.
    if (tag !== "External" || fields[name] !== undefined) {
      draft.set(name, { setting: `credentials.${name}`, value: fields[name], form: "plain" })
    }
  }
}

/** Reads `Options`. */
export const readOptions = (draft: Draft, options: unknown): void => {
  if (options === undefined) return
  if (!isObject(options)) {
    return draft.report.add("options", describeType(options), "an object of options (for a URL: { url })")
  }
  for (const [name, value] of Object.entries(options)) {
    if (!topLevel.includes(name)) reportUnknownName(draft, { noun: "option", known: topLevel }, name, value)
    else if (value === undefined) continue
    // `make` takes it out, so this one comes with another URL.
    else if (name === "url") draft.report.add("url", "both", "either the argument url or the option url")
    else if (isGroup(name)) readGroup(draft, name, value)
    else if (name === "credentials") readCredentials(draft, value)
    else if (isKey(name)) draft.set(name, { setting: name, value, form: "plain" })
  }
}

/** Sets the fields of a record as the settings that `known` maps them to. Python's None means "not given". */
export const readFields = (
  draft: Draft,
  record: Readonly<Record<string, unknown>>,
  known: ReadonlyMap<string, Key>,
  form: Form,
  prefix = ""
): void => {
  for (const [name, value] of Object.entries(record)) {
    const key = known.get(name)
    if (key === undefined) reportUnknownName(draft, { noun: "field", known: known.keys(), prefix }, name, value)
    else if (value !== undefined && value !== null) draft.set(key, { setting: `${prefix}${name}`, value, form })
  }
}
