/** The settings in force, and where each came from. Secrets are never shown. */
import { AmqpConfig } from "@effect-amqp/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { Settings, Shared } from "../broker/Settings.ts"
import { unreadEnvFile } from "../broker/Settings.ts"
import { type Check, ok, warning } from "./Check.ts"

/** The variable of a setting, as docs/configuration.md has it. */
const variableOf = (path: string): string =>
  path === "pool.max"
    ? "AMQP_POOL_SIZE"
    : `AMQP_${path
        .replaceAll(".", "_")
        .replaceAll(/([a-z])([A-Z])/g, "$1_$2")
        .toUpperCase()}`

const sourceOf = ({ sources }: Settings, ...variables: ReadonlyArray<string>): string => {
  for (const variable of variables) {
    const source = sources.get(variable)
    if (source !== undefined) return source === "--url" || source === "prompt" ? source : `${variable}, ${source}`
  }
  return "default"
}

export const isLocal = ({ host }: AmqpConfig.Host): boolean => /^(?:localhost|127\..*|::1)$/.test(host)

export const addressOf = ({ host, port }: AmqpConfig.Host): string =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`

/** A setting that holds a secret, or the text of a certificate or key. */
const isSecret = (path: string): boolean => /^tls\.(?:ca|cert|key|passphrase|files)$/.test(path)

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  !Duration.isDuration(value) &&
  !Redacted.isRedacted(value)

const shown = (value: unknown): string =>
  Duration.isDuration(value)
    ? Duration.format(value)
    : value === undefined
      ? "none"
      : typeof value === "string"
        ? value
        : JSON.stringify(value)

/** The settings that differ from the library's defaults, by the paths of their options. */
function* changed(actual: object, defaults: object | undefined, prefix = ""): Generator<readonly [string, string]> {
  for (const [key, value] of Object.entries(actual)) {
    const path = `${prefix}${key}`
    if (/^(?:hosts|vhost|credentials|clientProperties|lazyConnect)$/.test(path)) continue
    const standard: unknown = (defaults as Record<string, unknown> | undefined)?.[key]
    if (isSecret(path)) {
      if (value !== undefined) yield [path, "set, not shown"]
    } else if (isRecord(value)) {
      yield* changed(value, isRecord(standard) ? standard : undefined, `${path}.`)
    } else if (value !== undefined && shown(value) !== shown(standard)) {
      yield [path, shown(value)]
    }
  }
}

/** The findings of a configuration that is valid. */
export const configuration = Effect.fnUntraced(function* (settings: Settings, shared: Shared) {
  const { config } = settings
  const found: Array<Check> = []
  const add = (subject: string, value: string, source: string) =>
    found.push(ok("configuration", subject, `${value} (${source})`))
  add(
    "address",
    config.hosts.map(addressOf).join(", "),
    sourceOf(settings, "AMQP_URL", "AMQP_HOSTS", "AMQP_HOST", "AMQP_PORT")
  )
  add("vhost", config.vhost, sourceOf(settings, "AMQP_URL", "AMQP_VHOST"))
  const { credentials } = config
  if (credentials._tag === "Plain") {
    add("user", credentials.username, sourceOf(settings, "AMQP_USERNAME", "AMQP_URL"))
    add("password", "set, not shown", sourceOf(settings, "AMQP_PASSWORD", "AMQP_URL"))
  } else {
    add("login", "EXTERNAL, by the client's certificate", sourceOf(settings, "AMQP_AUTH_MECHANISM", "AMQP_URL"))
  }
  const remote = config.hosts.find((host) => !isLocal(host))
  if (config.tls === undefined) {
    if (remote === undefined) add("TLS", "off, on this machine", sourceOf(settings, "AMQP_TLS", "AMQP_URL"))
    else {
      found.push(
        warning(
          "configuration",
          "TLS",
          `off: the password and all messages to ${addressOf(remote)} are sent in clear text`,
          "Use amqps:// or AMQP_TLS=true, if the network is not trusted."
        )
      )
    }
  } else if (config.tls.verify) {
    add("TLS", "on, the broker's certificate is verified", sourceOf(settings, "AMQP_TLS", "AMQP_URL"))
  } else {
    found.push(
      warning(
        "configuration",
        "TLS",
        "on, but any certificate is accepted: any server that answers gets the password",
        "Remove AMQP_TLS_VERIFY=false, and name the authority in AMQP_TLS_CA_FILE."
      )
    )
  }
  const defaults = yield* Effect.orDie(AmqpConfig.make())
  for (const [path, value] of changed(config, defaults)) {
    if (path === "tls.verify") continue
    add(
      path,
      value,
      sourceOf(settings, variableOf(path), path.startsWith("tls.") ? `${variableOf(path)}_FILE` : "", "AMQP_URL")
    )
  }
  if (unreadEnvFile(shared)) {
    found.push(
      warning(
        "configuration",
        ".env",
        "this folder has a file .env with AMQP_ variables, and neither the library nor this command reads it",
        "Add --env .env here. Start applications with node --env-file=.env."
      )
    )
  }
  return found
})
