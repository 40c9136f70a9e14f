/**
 * The configuration of a command: read by the library itself, from the environment, a file for `--env`, and
 * `--url`.
 */
import { AmqpConfig } from "@effect-amqp/core"
import type * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Prompt from "effect/cli/Prompt"
import { existsSync, readFileSync } from "node:fs"
import { parseEnv } from "node:util"
import { exitCodes, Failure, type Mistake, usage } from "../failure.ts"
import { Output } from "../output/Output.ts"

export interface Shared {
  readonly url: string | undefined
  readonly envFile: string | undefined
}

/** Where a variable came from, as an operator would write it. */
export type Source = "environment" | "--url" | "prompt" | `file ${string}`

export interface Settings {
  readonly config: AmqpConfig.AmqpConfig
  /** The variables that begin with `AMQP_`, and where each came from. */
  readonly sources: ReadonlyMap<string, Source>
}

/** What `--url` replaces: a URL and these variables would contradict each other. */
const replacedByUrl = ["AMQP_URL", "AMQP_HOST", "AMQP_HOSTS", "AMQP_PORT", "AMQP_VHOST", "AMQP_TLS"]

const fileVariables = (
  path: string | undefined
): Effect.Effect<Readonly<Record<string, string | undefined>>, Failure> =>
  path === undefined
    ? Effect.succeed({})
    : Effect.try({
        try: () => parseEnv(readFileSync(path, "utf8")),
        catch: (error) =>
          usage(
            `--env: expected a readable file with lines NAME=value, got ${path} (${error instanceof Error ? error.message : "unknown error"})`
          )
      })

/** The user of a URL, without its escapes left or its password; `undefined` if there is none. */
const loginOf = (url: string): { readonly hasUser: boolean; readonly hasPassword: boolean } => {
  const authority = url.slice(url.indexOf("://") + 3)
  const end = authority.lastIndexOf("@")
  const login = end === -1 ? "" : authority.slice(0, end)
  return { hasUser: login !== "", hasPassword: login.includes(":") }
}

const lacksPassword = (variables: Readonly<Record<string, string | undefined>>): boolean => {
  if (variables["AMQP_PASSWORD"] !== undefined || /^external$/i.test(variables["AMQP_AUTH_MECHANISM"] ?? ""))
    return false
  const url = variables["AMQP_URL"]
  if (url === undefined) return variables["AMQP_USERNAME"] !== undefined
  if (/[?&]auth_?mechanism=external/i.test(url)) return false
  const { hasPassword, hasUser } = loginOf(url)
  return !hasPassword && (hasUser || variables["AMQP_USERNAME"] !== undefined)
}

/** A file `.env` that nothing reads, although it has variables of the library. */
export const unreadEnvFile = ({ envFile }: Shared): boolean => {
  try {
    return envFile === undefined && existsSync(".env") && /^\s*(?:export\s+)?AMQP_/m.test(readFileSync(".env", "utf8"))
  } catch {
    return false
  }
}

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/** One per variable, with the place where it came from. */
const mistakesOf = ({ cause }: Config.ConfigError, sources: ReadonlyMap<string, Source>): ReadonlyArray<Mistake> => {
  if (cause._tag !== "SchemaError") return [{ subject: "settings", message: cause.message }]
  return issuesOf(cause.issue).issues.map(({ message, path = [] }) => {
    const name = path.map(String).join("_")
    const source = sources.get(name)
    return { subject: source === undefined ? name : `${name} (${source})`, message }
  })
}

/** Reads the configuration, and asks for a password that is missing if a terminal is there to ask in. */
export const read = Effect.fnUntraced(function* (shared: Shared) {
  const file = yield* fileVariables(shared.envFile)
  const variables: Record<string, string | undefined> = { ...file, ...process.env }
  const sources = new Map<string, Source>()
  for (const name of Object.keys(file)) if (name.startsWith("AMQP_")) sources.set(name, `file ${shared.envFile}`)
  for (const name of Object.keys(process.env)) if (name.startsWith("AMQP_")) sources.set(name, "environment")
  const replace = (name: string, value: string | undefined, source: Source) => {
    if (value === undefined) {
      delete variables[name]
      sources.delete(name)
    } else {
      variables[name] = value
      sources.set(name, source)
    }
  }
  if (shared.url !== undefined) {
    for (const name of replacedByUrl) replace(name, undefined, "--url")
    if (loginOf(shared.url).hasUser) replace("AMQP_USERNAME", undefined, "--url")
    replace("AMQP_URL", shared.url, "--url")
  }
  if (lacksPassword(variables) && (yield* Output).canPrompt) {
    const password = yield* Prompt.run(Prompt.Hidden({ message: "Password of the broker's user" }))
    replace("AMQP_PASSWORD", Redacted.value(password), "prompt")
  }
  const config = yield* AmqpConfig.config.pipe(
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env: defined(variables) })),
    Effect.mapError((error) => {
      const mistakes = mistakesOf(error, sources)
      return new Failure({
        tag: "InvalidConfig",
        message: `The configuration has mistakes:\n${mistakes.map((mistake) => `- ${mistake.subject}: ${mistake.message}`).join("\n")}`,
        cure: "Every variable: https://github.com/effect-amqp/effect-amqp/blob/main/docs/configuration.md",
        mistakes,
        exitCode: exitCodes.usage
      })
    })
  )
  const settings: Settings = { config, sources }
  return settings
})

const defined = (variables: Readonly<Record<string, string | undefined>>): Record<string, string> =>
  Object.fromEntries(Object.entries(variables).filter((entry): entry is [string, string] => entry[1] !== undefined))
