/**
 * The settings of a connection and its pool: from an object, a URL or the environment.
 *
 * @since 0.1.0
 */
import { AmqpConfig as Core } from "@effect-amqp/core"
import type * as Effect4 from "@effect-amqp/effect4/Effect"
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as Runtime from "effect/Runtime"
import { environment } from "./internal/environment.ts"
import { outside, run4 } from "./internal/run.ts"
import { withSchedule4 } from "./internal/schedules.ts"
import { toOptions4 } from "./internal/values.ts"
import type { AmqpConfig } from "./model/checkedConfig.ts"
import type { FlaskPikaParameters, FlaskPikaPool, Options } from "./model/config.ts"
import type { AmqpError } from "./model/error.ts"

export * from "./model/checkedConfig.ts"

export * from "./model/config.ts"

/**
 * Makes a configuration from a plain object.
 *
 * **When to use**
 *
 * Use when the application decides the settings itself.
 *
 * **Details**
 *
 * Fails with the reason `InvalidConfig`, which lists every mistake: unknown names, values out of bounds, settings that
 * contradict each other, and files of TLS that cannot be read.
 *
 * @see {@link fromUrl} for a URL
 * @see {@link config} for the environment
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<AmqpConfig, AmqpError> =>
  checked((runtime) => Core.make(toOptions4(withSchedule4(runtime, options))))

/**
 * Makes a configuration from a URL, `amqp[s]://user:password@host:port,host:port/vhost?parameters`, and from options
 * that override it.
 *
 * **When to use**
 *
 * Use when the broker is given as a URL, as hosting services do.
 *
 * **Details**
 *
 * User name, password and virtual host are percent-encoded. `amqps` means TLS. The parameters are those of Pika's
 * URLParameters and of amqplib, and every environment variable without `AMQP_`. Fails with the reason `InvalidConfig`,
 * which lists every mistake and shows no part of the URL that may be a password.
 *
 * @see {@link make} for a plain object
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromUrl = (
  url: string | Redacted.Redacted<string>,
  overrides?: Omit<Options, "url">
): Effect.Effect<AmqpConfig, AmqpError> =>
  checked((runtime) => Core.fromUrl(toOptions4(url), toOptions4(withSchedule4(runtime, overrides))))

/**
 * Makes a configuration from Flask-Pika's two records, field by field.
 *
 * **When to use**
 *
 * Use when an application moves from Flask-Pika and keeps its settings.
 *
 * **Details**
 *
 * Numbers for durations are seconds, and null (Python's None) means not given. Without the pool's record there is no
 * pool, as in Flask-Pika: each borrower gets a channel of its own. `pool_recycle: -1` means never.
 *
 * Fails with the reason `InvalidConfig`, which lists every mistake. Flask-Pika:
 * https://github.com/WeatherDecisionTechnologies/flask-pika.
 *
 * **Example** (Flask-Pika's settings)
 *
 * ```ts
 * import { AmqpConfig } from "@effect-amqp/platform"
 *
 * const config = AmqpConfig.fromFlaskPika(
 *   { host: "localhost", username: "guest", password: "guest", port: 5672, virtual_host: "vhost" },
 *   { pool_size: 8, pool_recycle: 600 }
 * )
 * ```
 *
 * @see {@link make} for a plain object
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromFlaskPika = (
  parameters: FlaskPikaParameters,
  pool?: FlaskPikaPool | null
): Effect.Effect<AmqpConfig, AmqpError> => checked(() => Core.fromFlaskPika(toOptions4(parameters), pool))

/**
 * A configuration from the environment, or from another current `ConfigProvider`.
 *
 * **When to use**
 *
 * Use when the settings come from environment variables. `AmqpLive` uses it.
 *
 * **Details**
 *
 * It reads either `AMQP_URL`, or `AMQP_HOST` (or `AMQP_HOSTS`), `AMQP_PORT`, `AMQP_VHOST`, `AMQP_USERNAME` and
 * `AMQP_PASSWORD`; and a variable for every other setting, such as `AMQP_HEARTBEAT`, `AMQP_POOL_SIZE` and
 * `AMQP_POOL_RECYCLE`. Durations are seconds (`600`) or strings (`10 minutes`). `AMQP_POOL=false` disables the pool.
 *
 * `Config.nested(AmqpConfig.config, "BILLING")` reads `BILLING_AMQP_URL` and the like. Fails with one `ConfigError`
 * whose message lists every mistake, without secrets.
 *
 * **Gotchas**
 *
 * A `Config` of Effect 3 cannot list the variables that exist, so a misspelled name is ignored and not refused.
 *
 * @see {@link fromUrl} for the parameters of a URL
 *
 * @category configuration
 * @since 0.1.0
 */
export const config: Config.Config<AmqpConfig> = environment

/** A schedule of `reconnect` runs in the runtime of the fiber that makes the configuration. */
const checked = (
  make: (runtime: Runtime.Runtime<never>) => Effect4.Effect<Core.AmqpConfig, unknown>
): Effect.Effect<AmqpConfig, AmqpError> =>
  Effect.flatMap(Effect.runtime<never>(), (runtime) =>
    run4<never, Core.AmqpConfig, AmqpError, AmqpConfig>(outside, make(runtime), (config) => config as never)
  )
