/** Helpers that the tests of `AmqpConfig` share. */
import { AmqpConfig, type AmqpError } from "@effect-amqp/core"
import { type Config, ConfigProvider, Duration, Effect, Redacted, type Scope } from "effect"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** A self-signed certificate of CN=orders, valid until 2126, and its key. They protect nothing. */
export const certificate = `-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUQzx7PUrze5RVdW2T+myg8qsf9bYwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGb3JkZXJzMCAXDTI2MTEyMDIyMzgwMloYDzIxMjYxMDI3MjIz
ODAyWjARMQ8wDQYDVQQDDAZvcmRlcnMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARVwGHhcxNX6curbpaYzsY4p8Jyjbj+27v8xcT1nvs61UP/RpTl5hT1XmcQR8GJ
N9/hG3+MkpiEHL/ooBT7yZ1Ho1MwUTAdBgNVHQ4EFgQUK6OYYQB9h7O2r6sxqx7p
aCuF/WMwHwYDVR0jBBgwFoAUK6OYYQB9h7O2r6sxqx7paCuF/WMwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBAu2CJYxaNWyB8C3COjCgn/g/azxKY
ZyI6CS947J0tGgIhANc2MVV62L7j2kmpQp/nmW/2P2sCkkMreaoL8AmLGECh
-----END CERTIFICATE-----
`

export const key = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgM3oei2ROYjrHBT7B
LfuEDpnC8TczmgOcNz52kZxRPzuhRANCAARVwGHhcxNX6curbpaYzsY4p8Jyjbj+
27v8xcT1nvs61UP/RpTl5hT1XmcQR8GJN9/hG3+MkpiEHL/ooBT7yZ1H
-----END PRIVATE KEY-----
`

/** A key that belongs to no certificate here. */
export const otherKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg7MQzSWabSKqjAX7i
baojaYjpi3/6F8VkuZ1xSExiVeahRANCAAT3wd+/kUPmHkMotAJhBFKglfgxWrbk
OHfVgqws3KIwPOrhC9OM7PXRWNlp6waB19AHI9BG53A6sL+NCFLOpxMA
-----END PRIVATE KEY-----
`

/** `key`, encrypted with `passphrase`. */
export const encryptedKey = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAiHUNQZnycnOAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEOFVJkidK4xf/BuDXDZxFfIEgZD3
YAMEI3xV+/IWM9OBXVs+iNfXEsgihhV95uxUpZeKLt93ypSxvQTYylwf8hR/43qN
z8p+ufa4AigKQz9b5x0SK8ubP5ePQzz6Nth+kMvaOpSzWnE6FiZkYUarcm45Wq5i
6Oj6r7c7G5lJN4O0AODFUk664ySVqqTgSbHYgzREUIpR9hZqYl6l/KVw2sBjT9Q=
-----END ENCRYPTED PRIVATE KEY-----
`

export const passphrase = "open-sesame"

type Issues = AmqpError.InvalidConfig["issues"]

/** The mistakes for which a configuration is refused. */
export const issuesOf = (
  effect: Effect.Effect<AmqpConfig.AmqpConfig, AmqpError.AmqpError>
): Effect.Effect<Issues, unknown> =>
  Effect.flatMap(Effect.flip(effect), ({ reason }) =>
    reason._tag === "InvalidConfig" ? Effect.succeed(reason.issues) : Effect.fail(reason)
  )

/** The refused settings, in order. */
export const refused = (
  effect: Effect.Effect<AmqpConfig.AmqpConfig, AmqpError.AmqpError>
): Effect.Effect<ReadonlyArray<string>, unknown> =>
  Effect.map(issuesOf(effect), (issues) => issues.map((issue) => issue.setting))

/** Options as JavaScript can pass them, without the types. */
export const untyped = (options: unknown): AmqpConfig.Options => options as AmqpConfig.Options

/** The configuration that an environment describes. */
export const fromEnvironment = (
  env: Record<string, string>,
  config: Config.Config<AmqpConfig.AmqpConfig> = AmqpConfig.config
): Effect.Effect<AmqpConfig.AmqpConfig, Config.ConfigError> =>
  Effect.provideService(
    Effect.gen(function* () {
      return yield* config
    }),
    ConfigProvider.ConfigProvider,
    ConfigProvider.fromEnv({ env })
  )

/**
 * The text with which an environment is refused: per mistake a line with expected and got, and a line that names the
 * variable.
 */
export const refusedEnvironment = (
  env: Record<string, string>,
  config?: Config.Config<AmqpConfig.AmqpConfig>
): Effect.Effect<string, AmqpConfig.AmqpConfig> => Effect.map(Effect.flip(fromEnvironment(env, config)), String)

/** The refused variables, in order. */
export const refusedVariables = (
  env: Record<string, string>,
  config?: Config.Config<AmqpConfig.AmqpConfig>
): Effect.Effect<ReadonlyArray<string>, AmqpConfig.AmqpConfig> =>
  Effect.map(refusedEnvironment(env, config), (text) =>
    [...text.matchAll(/at \["([^"]*)"\]/g)].map(([, name]) => name ?? "")
  )

/** A file with this content, which is removed at the end of the test. */
export const pemFile = (content: string): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "effect-amqp-config-"))),
    (folder) => Effect.promise(() => rm(folder, { recursive: true }))
  ).pipe(
    Effect.map((folder) => join(folder, "file.pem")),
    Effect.tap((path) => Effect.promise(() => writeFile(path, content)))
  )

export const millis = (duration: Duration.Duration | undefined) =>
  duration === undefined ? undefined : Duration.toMillis(duration)

/** The user and the password. */
export const login = (config: AmqpConfig.AmqpConfig) =>
  config.credentials._tag === "Plain"
    ? [config.credentials.username, Redacted.value(config.credentials.password)]
    : ["External"]
