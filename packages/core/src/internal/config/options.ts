/** A plain object of options, flattened into settings; names that are none are refused. */
import type { Draft } from "./draft.ts"
import { type Form } from "./decoder.ts"
import { refuseName } from "./names.ts"
import { isKey, type Key, keys } from "./settings.ts"
import { kind } from "./shown.ts"

const groups = ["tls", "tcp", "reconnect", "pool"] as const
type Group = (typeof groups)[number]

const isGroup = (name: string): name is Group => groups.some((group) => group === name)

const notOptions: ReadonlySet<string> = new Set(["authMechanism"])

const topLevel: ReadonlyArray<string> = [
  ...keys.filter((key) => !key.includes(".") && !notOptions.has(key)),
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
    return draft.give(group, { setting: group, value, form: "plain" })
  }
  if (!isObject(value)) {
    const words = {
      tls: "true, false or an object",
      pool: "false or an object",
      tcp: "an object",
      reconnect: "an object"
    }[group]
    return draft.report.add(group, kind(value), `${words} of ${fieldsOf(group).join(", ")}`)
  }
  // An object says that there is TLS, or a pool, whatever it holds.
  if (group === "tls" || group === "pool") draft.give(group, { setting: group, value: true, form: "plain" })
  for (const [name, field] of Object.entries(value)) {
    const key = `${group}.${name}`
    if (!isKey(key)) refuseName(draft, { noun: "option", known: fieldsOf(group), prefix: `${group}.` }, name, field)
    else if (field !== undefined) draft.give(key, { setting: key, value: field, form: "plain" })
  }
}

const readCredentials = (draft: Draft, value: unknown): void => {
  const wants = '{ _tag: "Plain", username, password } or { _tag: "External" }'
  if (!isObject(value)) return draft.report.add("credentials", kind(value), wants)
  const { _tag: tag, ...fields } = value
  if (tag !== "Plain" && tag !== "External") draft.report.add("credentials._tag", kind(tag), wants)
  draft.give("authMechanism", {
    setting: "credentials",
    value: tag === "External" ? "external" : "plain",
    form: "plain"
  })
  for (const [name, field] of Object.entries(fields)) {
    if (name !== "username" && name !== "password") {
      refuseName(draft, { noun: "option", known: ["username", "password"], prefix: "credentials." }, name, field)
    }
  }
  for (const name of ["username", "password"] as const) {
    // Given even if it is not there: what is missing here is not for the defaults to fill in.
    if (tag !== "External" || fields[name] !== undefined) {
      draft.give(name, { setting: `credentials.${name}`, value: fields[name], form: "plain" })
    }
  }
}

/** Reads `Options`. */
export const readOptions = (draft: Draft, options: unknown): void => {
  if (options === undefined) return
  if (!isObject(options)) {
    return draft.report.add("options", kind(options), "an object of options; a URL goes to fromUrl")
  }
  for (const [name, value] of Object.entries(options)) {
    if (!topLevel.includes(name)) refuseName(draft, { noun: "option", known: topLevel }, name, value)
    else if (value === undefined) continue
    else if (isGroup(name)) readGroup(draft, name, value)
    else if (name === "credentials") readCredentials(draft, value)
    else if (isKey(name)) draft.give(name, { setting: name, value, form: "plain" })
  }
}

/** Gives the fields of a record under the settings that `known` maps them to. Python's None is "not given". */
export const readFields = (
  draft: Draft,
  record: Readonly<Record<string, unknown>>,
  known: ReadonlyMap<string, Key>,
  form: Form,
  prefix = ""
): void => {
  for (const [name, value] of Object.entries(record)) {
    const key = known.get(name)
    if (key === undefined) refuseName(draft, { noun: "field", known: known.keys(), prefix }, name, value)
    else if (value !== undefined && value !== null) draft.give(key, { setting: `${prefix}${name}`, value, form })
  }
}
