/** The environment, read through Effect 3's `Config`, and checked by the core. */
import { AmqpConfig as Core } from "@effect-amqp/core"
import * as ConfigProvider4 from "@effect-amqp/effect4/ConfigProvider"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Result4 from "@effect-amqp/effect4/Result"
import * as SchemaIssue4 from "@effect-amqp/effect4/SchemaIssue"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type { AmqpConfig } from "../model/checkedConfig.ts"
import { variables } from "../model/variables.ts"

const values = Config.all(
  variables.map((name) => Config.map(Config.option(Config.string(name)), (value) => [name, value] as const))
)

const format = SchemaIssue4.makeFormatterStandardSchemaV1()

/** One error per variable. `Config.nested` puts its prefix before the path. */
const toError3 = ({ cause, message }: Effect4.Error<ReturnType<typeof Core.config.parse>>): ConfigError.ConfigError => {
  if (cause._tag !== "SchemaError") return ConfigError.InvalidData([], message)
  const [first, ...others] = format(cause.issue).issues.map((issue) =>
    ConfigError.InvalidData((issue.path ?? []).map(String), issue.message)
  )
  return others.reduce(ConfigError.And, first ?? ConfigError.InvalidData([], message))
}

export const environment: Config.Config<AmqpConfig> = Config.mapOrFail(values, (read) => {
  const env: Record<string, string> = {}
  for (const [name, value] of read) if (Option.isSome(value)) env[name] = value.value
  const provider = ConfigProvider4.fromEnv({ env })
  const checked = Effect4.runSync(
    Effect4.result(Effect4.provideService(Core.config.parse(provider), ConfigProvider4.ConfigProvider, provider))
  )
  return Result4.isSuccess(checked)
    ? Either.right(checked.success as never as AmqpConfig)
    : Either.left(toError3(checked.failure))
})
