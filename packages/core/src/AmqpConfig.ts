/**
 * Every setting of a connection and of its pool: from a plain object, from a URL, or from the environment.
 *
 * Whatever it comes from, a configuration is checked as a whole before anything is connected, and one error names every
 * mistake: the setting as it was written, what it got, and what it wants. Unknown names are mistakes too, so that a
 * misspelt `verify` or `AMQP_POOL_SIZE` never leaves a default in force without a word. No error shows a secret.
 *
 * Nothing given at all means a broker on this machine: `localhost:5672`, virtual host `/`, and `guest` with the password
 * `guest`, as RabbitMQ sets itself up. A user is assumed for this machine only, since RabbitMQ lets `guest` in from
 * nowhere else; a host elsewhere, a user name alone or a password alone are refused, and so is a URL without a host.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpConfig } from "@effect-amqp/core"
 *
 * const program = Effect.gen(function* () {
 *   const config = yield* AmqpConfig.fromUrl("amqps://orders:s3cret@a.example.org,b.example.org/shop?heartbeat=5", {
 *     pool: { max: 32, recycle: "10 minutes" }
 *   })
 *   yield* Effect.log(config.hosts, config.pool)
 * })
 * ```
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as Schedule from "effect/Schedule"
import type { AmqpError, AmqpErrorReason } from "./model/error.ts"
import { assemble } from "./internal/config/assemble.ts"
import { Draft } from "./internal/config/draft.ts"
import { environment } from "./internal/config/environment.ts"
import { readOptions } from "./internal/config/options.ts"
import { overrideUrl } from "./internal/config/override.ts"
import { readFlaskPika } from "./internal/config/pika.ts"
import { type Key, settingOf } from "./internal/config/settings.ts"
import { readUrl } from "./internal/config/url.ts"
import type { AmqpConfig } from "./model/config.ts"

export * from "./model/config.ts"

/** PEM text (RFC 7468), not the path of a file. */
export type Pem = string | Uint8Array

/** Options of TLS. An object switches TLS on, even an empty one. */
export interface TlsOptions {
  /** Authorities to trust, instead of those that Node brings along. */
  readonly ca?: Pem | ReadonlyArray<Pem> | undefined
  /**
   * Files of authorities to trust, in addition to `ca`. These files, `certFile` and `keyFile` are read when the
   * configuration is made, and again at each connect. One that cannot be used then fails that attempt with
   * `ConnectFailed`, which is retryable.
   */
  readonly caFile?: string | ReadonlyArray<string> | undefined
  /** The client's certificate, for brokers that ask for one, with those that lead from it to an authority. */
  readonly cert?: Pem | undefined
  readonly certFile?: string | undefined
  /** The private key of the client's certificate. A `certFile` may hold it too. */
  readonly key?: Pem | Redacted.Redacted<string> | undefined
  readonly keyFile?: string | undefined
  /** What opens the private key, if it is encrypted. */
  readonly passphrase?: string | Redacted.Redacted<string> | undefined
  /** The name that the broker's certificate must carry. Default: the host's, for each host its own. */
  readonly servername?: string | undefined
  /**
   * Whether the broker's certificate is checked. Default: true.
   *
   * `false` is dangerous: the connection is encrypted, but whoever answers gets the password. It is the only thing that
   * switches the check off, in an object, a URL (`tls_verify=false`) and the environment (`AMQP_TLS_VERIFY=false`). To
   * trust a certificate of your own, name its authority in `ca`.
   */
  readonly verify?: boolean | undefined
  /** Default: TLSv1.2. Earlier versions are not spoken. */
  readonly minVersion?: "TLSv1.2" | "TLSv1.3" | undefined
  /** Cipher suites in OpenSSL's notation. Default: Node's. */
  readonly ciphers?: string | undefined
}

/** Options of the TCP socket. */
export interface TcpOptions {
  /**
   * Sends small frames at once, without Nagle's algorithm. Default: true; without it, a request and its reply wait for
   * delayed acknowledgements (some 40 ms).
   */
  readonly noDelay?: boolean | undefined
  /** TCP keep-alive, which notices a dead peer even with heartbeats switched off. Default: true. */
  readonly keepAlive?: boolean | undefined
  /**
   * How long the connection is silent before the first probe: whole seconds, 1 to 32767. Default: 30 s, well below the
   * idle timeouts of load balancers and NAT gateways (from 4 minutes). Pika: `TCP_KEEPIDLE`.
   */
  readonly keepAliveDelay?: Duration.Input | undefined
}

/**
 * Options of reconnecting: the waits between the loss of an open connection and each attempt to make it again. For the
 * first connect there are `connectionAttempts` and `retryDelay`.
 */
export interface ReconnectOptions {
  /**
   * Each wait is a random time from 0 up to a bound ("full jitter", so that the clients of a restarted broker do not come
   * back all at once). The bound of the first wait; it doubles with each attempt. At least 1 ms. Default: 100 ms.
   */
  readonly minDelay?: Duration.Input | undefined
  /** Where that bound ends. At least `minDelay`. Default: 30 s, or `minDelay` if that is more. */
  readonly maxDelay?: Duration.Input | undefined
  /**
   * How long a connection has to have been open for the waits to begin anew when it is lost. May be 0. Default: 1 s: a
   * connection that is lost now and then is back at once, one that dies as soon as it is open is asked for less and less.
   */
  readonly healthyAfter?: Duration.Input | undefined
  /**
   * The waits themselves, instead of `minDelay` and `maxDelay`. It is given the reason of the loss, then that of each
   * attempt that failed, and begins anew after `healthyAfter`. When it ends, the connection is closed for good, with the
   * last of these reasons. Consumers, which subscribe again by `minDelay` and `maxDelay`, do not use it.
   */
  readonly schedule?: Schedule.Schedule<unknown, AmqpErrorReason> | undefined
  /**
   * What follows when a broker that has been reached before refuses: the login, the virtual host, TLS, or AMQP itself (a
   * proxy that answers by HTTP). Default: `"retry"`, since a refusal can pass: the authentication backend is away, a user
   * or a virtual host is imported again, a certificate is being renewed.
   *
   * `"retry"` tries again after at least 0.5 to 1 s, doubled with each refusal up to 15 to 30 s (up to `maxDelay` if that is
   * more), also with a `schedule`: a broker may count failed logins. A new secret (`updateSecret`) is tried at once.
   * `"close"` closes the connection for good, with the reason of the refusal. For a refused login or virtual host that
   * ends with the next `updateSecret`.
   *
   * Before an application has reached its broker for the first time, every refusal is final, whatever this says.
   */
  readonly onRefused?: "retry" | "close" | undefined
}

/** Options of the pool. */
export interface PoolOptions {
  /** Channels that are kept open, however idle. 0 to `max`. Default: 0. */
  readonly min?: number | undefined
  /**
   * Channels that may be open at once. 1 to `channelMax`. Default: 16, or `channelMax` if that is less.
   * Flask-Pika: `pool_size`.
   */
  readonly max?: number | undefined
  /**
   * The age at which a channel is replaced, when no one holds it. `"Infinity"` means never. Default: 10 minutes.
   * Flask-Pika: `pool_recycle`.
   */
  readonly recycle?: Duration.Input | undefined
  /** How long a channel above `min` may lie idle before it is closed. `"Infinity"` means for ever. Default: 5 minutes. */
  readonly idleTimeout?: Duration.Input | undefined
  /** How long a borrower waits for a channel. Default: 5 s. */
  readonly acquireTimeout?: Duration.Input | undefined
  /** How many borrowers may wait; more are turned away at once. 0 lets no one wait. Default: 10,000. */
  readonly maxWaiting?: number | undefined
  /**
   * How long a channel may be borrowed before a warning says so, once, and where it was borrowed. Nothing else follows. It
   * comes up to a quarter of this time late, 5 s at most. `"Infinity"` means no warning. Default: 30 s.
   */
  readonly longBorrow?: Duration.Input | undefined
}

/**
 * Settings as a plain object: all are optional, and `undefined` means not given.
 *
 * Durations are Effect's `Duration.Input`: a number is milliseconds, `"10 seconds"` is a text. (In URLs and environment
 * variables a number is seconds, as in Pika.) None is longer than Node's longest timer, 24.8 days, and timeouts are at
 * least a millisecond.
 */
export interface Options {
  /** A host name or IP address. Default: `localhost`. */
  readonly host?: string | undefined
  /** The port of every host that names none. 1 to 65535. Default: 5672, with TLS 5671. */
  readonly port?: number | undefined
  /** Several hosts, at most 100, instead of `host`, tried in this order: `"a:5672"`, `"[::1]"` or `{ host, port }`. */
  readonly hosts?: ReadonlyArray<string | { readonly host: string; readonly port?: number | undefined }> | undefined
  /** The virtual host, as it is, without escapes. 1 to 255 bytes. Default: `/`. Pika: `virtual_host`. */
  readonly vhost?: string | undefined
  /** With `password`: log in by PLAIN. 1 to 255 bytes. Default: `guest`, for a broker on this machine only. */
  readonly username?: string | undefined
  readonly password?: string | Redacted.Redacted<string> | undefined
  /** How to log in, instead of `username` and `password`. `External` needs a client certificate: `tls.cert` and `tls.key`. */
  readonly credentials?:
    | {
        readonly _tag: "Plain"
        readonly username: string
        readonly password: string | Redacted.Redacted<string>
      }
    | { readonly _tag: "External" }
    | undefined
  /** `true` or an object: TLS, with the broker's certificate checked. Default: without TLS. */
  readonly tls?: boolean | TlsOptions | undefined
  /**
   * The interval of heartbeats that is proposed to the broker: whole seconds, 0 (off) to 65535. Default: 10 s.
   * RabbitMQ recommends 5 to 20 s (https://www.rabbitmq.com/docs/heartbeats).
   */
  readonly heartbeat?: Duration.Input | undefined
  /** Channels of a connection, at most, before the broker's own limit. 1 to 65535. Default: 2047, RabbitMQ's. */
  readonly channelMax?: number | undefined
  /**
   * The largest frame, in bytes, before the broker's own limit. 4096 to 2^32 - 1. Default: 131072, RabbitMQ's. From
   * 4.1 on RabbitMQ wants 8192 or more: the connection fails with `ProtocolError` otherwise.
   */
  readonly frameMax?: number | undefined
  /** Default: `en_US`, the only one that RabbitMQ has. */
  readonly locale?: string | undefined
  /** What the broker's management pages call the connection. 1 to 255 bytes. */
  readonly connectionName?: string | undefined
  /**
   * What the client tells the broker of itself, beside the driver's own: texts, finite numbers, booleans, null, arrays
   * and objects, at most 2048 bytes as JSON. `capabilities` is the library's.
   */
  readonly clientProperties?: Readonly<Record<string, unknown>> | undefined
  /**
   * Whether an application starts without waiting for its first connection. Default: false: the layer is built when the
   * connection is open, or fails. `true`: the layer is built at once; the connection is made in the background, by
   * `reconnect` and for as long as it takes, and whoever needs it meanwhile waits as if it had been lost.
   */
  readonly lazyConnect?: boolean | undefined
  /** How often the first connect goes through all hosts before it fails. At least 1. Default: 1, Pika's. */
  readonly connectionAttempts?: number | undefined
  /** Between these rounds. May be 0. Default: 2 s, Pika's. */
  readonly retryDelay?: Duration.Input | undefined
  /** How a connection that was lost is made again. */
  readonly reconnect?: ReconnectOptions | undefined
  /** The longest silence of the socket while connecting. Default: 10 s, Pika's. */
  readonly socketTimeout?: Duration.Input | undefined
  /** One attempt on one host: TCP, TLS and AMQP's handshake together. Default: 10 s. Pika: `stack_timeout` (15 s). */
  readonly connectTimeout?: Duration.Input | undefined
  /** The close of one channel, or of the connection. A whole shutdown has two of these: see `shutdownTimeout`. Default: 3 s. */
  readonly closeTimeout?: Duration.Input | undefined
  /** The longest wait for the broker's reply to a method. Default: 20 s (the name and value of RabbitMQ's .NET client). */
  readonly continuationTimeout?: Duration.Input | undefined
  /** The longest wait of a publish for back-pressure or a blocked connection. Default: 10 s. */
  readonly publishTimeout?: Duration.Input | undefined
  /**
   * How many bytes may wait in a channel's write buffer before publishers on it wait: 4096 to 2^30. Default: 262,144. A
   * message is always written as a whole, so a larger one fills the buffer alone. Pika's back-pressure multiplier is the
   * nearest relative.
   */
  readonly writeBufferSize?: number | undefined
  /**
   * The largest message body that is taken in, in bytes: 1 to 2^32. Default: 134,217,728 (128 MiB), what RabbitMQ 3 lets
   * anybody publish (`max_message_size`; RabbitMQ 4: 16 MiB). The name is that of RabbitMQ's Java client.
   *
   * It is decided when a message is announced, before its body comes. A larger one closes the channel that it came on
   * (311), and no other: `get` fails with `MessageTooLarge`, a consumer ends with it, and the message stays in its queue.
   * A reply fails its call alone (`DecodeFailed`); of a message that the broker returns a publisher needs no content.
   *
   * It bounds one body, and so the memory of each channel while one is on its way. What prefetch lets in is held besides:
   * `prefetch` messages of a consumer.
   */
  readonly maxInboundMessageBodySize?: number | undefined
  /**
   * How long a connection may stay blocked by the broker before it is given up. Default: `"Infinity"`, Pika's None: for
   * ever. See https://www.rabbitmq.com/docs/connection-blocked.
   */
  readonly blockedConnectionTimeout?: Duration.Input | undefined
  readonly tcp?: TcpOptions | undefined
  /**
   * How long a shutdown waits for what is under way: handlers, borrowed channels, confirms, replies. All parts share it,
   * counted from the moment at which the first of them begins to stop; it ends when they are done, mostly long before.
   * Then come the closes. So a shutdown takes at most this and twice `closeTimeout`, 16 s by default, whatever the broker,
   * the network and the application's own fibers do; Kubernetes kills after 30 s. A consumer with a longer
   * `shutdownTimeout` of its own makes it that much longer. May be 0. Default: 10 s.
   */
  readonly shutdownTimeout?: Duration.Input | undefined
  /** `false`: no pool, each borrower gets a channel of its own. */
  readonly pool?: false | PoolOptions | undefined
}

/** Flask-Pika's `FLASK_PIKA_PARAMS`: its own five fields, and the others of Pika's `ConnectionParameters`. */
export interface FlaskPikaParameters {
  readonly host?: string | null | undefined
  /** A number, or its text, as Pika takes it. */
  readonly port?: number | string | null | undefined
  readonly virtual_host?: string | null | undefined
  readonly username: string
  readonly password: string | Redacted.Redacted<string>
  readonly channel_max?: number | null | undefined
  readonly frame_max?: number | null | undefined
  /** Seconds; null means this library's default. */
  readonly heartbeat?: number | null | undefined
  readonly connection_attempts?: number | null | undefined
  /** Seconds. */
  readonly retry_delay?: number | null | undefined
  /** Seconds. */
  readonly socket_timeout?: number | null | undefined
  /** Seconds. */
  readonly stack_timeout?: number | null | undefined
  readonly locale?: string | null | undefined
  /** Seconds. */
  readonly blocked_connection_timeout?: number | null | undefined
  readonly client_properties?: Readonly<Record<string, unknown>> | null | undefined
  /** The dict of a URL's `ssl_options`; it switches TLS on. */
  readonly ssl_options?: Readonly<Record<string, unknown>> | null | undefined
  readonly tcp_options?: Readonly<Record<string, unknown>> | null | undefined
}

/** Flask-Pika's `FLASK_PIKA_POOL_PARAMS`. */
export interface FlaskPikaPool {
  readonly pool_size: number
  /** Seconds; -1 means never. */
  readonly pool_recycle: number
}

const optionName = (key: Key): string => key

const urlPart = (key: Key): string =>
  key === "username" ? "url user name" : key === "password" ? "url password" : optionName(key)

/**
 * A configuration from a plain object.
 *
 * Fails with the reason `InvalidConfig`, which lists every mistake: unknown names, values out of bounds, settings that
 * contradict each other, and files of TLS that cannot be read.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpConfig } from "@effect-amqp/core"
 *
 * const config = AmqpConfig.make({
 *   host: "rabbit.example.org",
 *   username: "orders",
 *   password: "s3cret",
 *   tls: { caFile: "/etc/ssl/company.pem" },
 *   pool: { max: 32, recycle: "10 minutes" }
 * }).pipe(
 *   Effect.catchReason("AmqpError", "InvalidConfig", (reason) => Effect.die(reason.message))
 * )
 * ```
 */
export const make = (options?: Options): Effect.Effect<AmqpConfig, AmqpError> =>
  Effect.suspend(() => {
    const draft = new Draft((key) =>
      draft.get("authMechanism") !== undefined && (key === "username" || key === "password")
        ? `credentials.${key}`
        : optionName(key)
    )
    readOptions(draft, options)
    return assemble(draft)
  })

/**
 * A configuration from a URL, `amqp[s]://user:password@host:port,host:port/vhost?parameters`, and options laid over it.
 *
 * - User name, password and virtual host are percent-encoded: a `/` in them is `%2F`, an `@` is `%40`. No path, or `/`
 *   alone, is the virtual host `/`, as in Pika and amqplib.
 * - `amqps` means TLS, with the broker's certificate checked. Options of TLS go with `amqps` only.
 * - Parameters are all of Pika's URLParameters (`heartbeat`, `stack_timeout`, `ssl_options`, ...), amqplib's (`frameMax`,
 *   ...), and every environment variable without `AMQP_`, in lower case (`pool_size`) or camelCase. Numbers for durations
 *   are seconds; Effect's texts (`10 minutes`) work too. Unknown and repeated ones are refused.
 * - An option in `overrides` replaces what the URL says of it. Options of where and who complete a URL without them:
 *   the password may come from elsewhere than the URL.
 *
 * Fails with the reason `InvalidConfig`, which lists every mistake and shows no part of the URL that may be a password.
 * A URL has at most 262,144 characters and 200 parameters. URLs: https://www.rabbitmq.com/docs/uri-spec.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { AmqpConfig } from "@effect-amqp/core"
 *
 * declare const password: Redacted.Redacted<string>
 *
 * const config = AmqpConfig.fromUrl("amqps://orders@rabbit.example.org/shop?heartbeat=5", { password })
 * ```
 */
export const fromUrl = (
  url: string | Redacted.Redacted<string>,
  overrides?: Options
): Effect.Effect<AmqpConfig, AmqpError> =>
  Effect.suspend(() => {
    const draft = new Draft(urlPart)
    readUrl(draft, "url", url)
    const options = new Draft(optionName, draft.report)
    readOptions(options, overrides)
    overrideUrl(draft, options)
    return assemble(draft)
  })

/**
 * A configuration from the environment, or whatever the current `ConfigProvider` reads.
 *
 * Either `AMQP_URL`, or `AMQP_HOST` (or `AMQP_HOSTS`), `AMQP_PORT`, `AMQP_VHOST`, `AMQP_USERNAME` and `AMQP_PASSWORD`;
 * and a variable for every other setting, such as `AMQP_HEARTBEAT`, `AMQP_POOL_SIZE` and `AMQP_POOL_RECYCLE`. Durations
 * are seconds (`600`) or Effect's texts (`10 minutes`). `AMQP_POOL=false` works without a pool. Beside `AMQP_URL`, a
 * variable of host, port, virtual host or TLS is refused, and so is any that says what the URL says; `AMQP_USERNAME` and
 * `AMQP_PASSWORD` may complete a URL without them.
 *
 * Unknown variables are refused if they begin with `AMQP_POOL_`, `AMQP_TLS_` or `AMQP_TCP_`, or are a misspelling of one
 * that there is; other names with `AMQP_` may be the application's own. A variable of where or who that is set and empty
 * is refused too: it would mean localhost.
 *
 * Fails with one `ConfigError` whose message lists every mistake, without secrets.
 *
 * @example
 * ```ts
 * import { Config, Effect } from "effect"
 * import { AmqpConfig } from "@effect-amqp/core"
 *
 * const program = Effect.gen(function* () {
 *   const config = yield* AmqpConfig.config
 *   // A second broker, from BILLING_AMQP_URL and the like.
 *   const billing = yield* AmqpConfig.config.pipe(Config.nested("BILLING"))
 *   yield* Effect.log(config, billing)
 * })
 * ```
 */
export const config: Config.Config<AmqpConfig> = environment

/**
 * A configuration from Flask-Pika's two records, field by field.
 *
 * Numbers for durations are seconds, and null (Python's None) means not given. Without the pool's record there is no
 * pool, as in Flask-Pika: each borrower gets a channel of its own. `pool_recycle: -1` means never.
 *
 * Fails with the reason `InvalidConfig`, which lists every mistake. Flask-Pika: https://github.com/WeatherDecisionTechnologies/flask-pika.
 *
 * @example
 * ```ts
 * import { AmqpConfig } from "@effect-amqp/core"
 *
 * const config = AmqpConfig.fromFlaskPika(
 *   { host: "localhost", username: "guest", password: "guest", port: 5672, virtual_host: "vhost" },
 *   { pool_size: 8, pool_recycle: 600 }
 * )
 * ```
 */
export const fromFlaskPika = (
  parameters: FlaskPikaParameters,
  pool?: FlaskPikaPool | null
): Effect.Effect<AmqpConfig, AmqpError> =>
  Effect.suspend(() => {
    const draft = new Draft((key) => settingOf(key).pika ?? key)
    readFlaskPika(draft, parameters, pool)
    return assemble(draft)
  })
