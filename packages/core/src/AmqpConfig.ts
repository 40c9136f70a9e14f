/**
 * The settings of a connection and its pool: from a plain object, from a URL, or from the environment.
 *
 * A configuration is checked as a whole before anything is connected, whatever its source. One error names every
 * mistake: the setting as it was written, what it got, and what was expected. Unknown names are mistakes too, so a
 * misspelled `verify` or `AMQP_POOL_SIZE` never silently leaves a default in force. No error shows a secret.
 *
 * Without any setting the broker is on this machine: `localhost:5672`, virtual host `/`, and the user `guest` with the
 * password `guest`, which are RabbitMQ's own defaults. A user is assumed for this machine only, since RabbitMQ accepts
 * `guest` from nowhere else. A host elsewhere without a login, a user name alone and a password alone are refused, and
 * so is a URL without a host.
 *
 * **Example** (A URL and options)
 *
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

/**
 * PEM text (RFC 7468), not the path of a file.
 *
 * **When to use**
 *
 * Use for certificates and keys that the application has in memory. Name files with `caFile`, `certFile` and `keyFile`.
 *
 * @category models
 * @since 0.1.0
 */
export type Pem = string | Uint8Array

/**
 * Options of TLS. An object enables TLS, even an empty one.
 *
 * **When to use**
 *
 * Use as `tls` of `Options` to trust authorities of your own, or to give the client a certificate.
 *
 * **Details**
 *
 * The files of `caFile`, `certFile` and `keyFile` are read when the configuration is made, and again at each connect. A
 * file that cannot be used then fails that attempt with `ConnectFailed`, which is retryable.
 *
 * **Example** (A company's authority and a client certificate)
 *
 * ```ts
 * import { AmqpConfig } from "@effect-amqp/core"
 *
 * const tls: AmqpConfig.TlsOptions = {
 *   caFile: "/etc/ssl/company.pem",
 *   certFile: "/etc/ssl/orders.pem",
 *   keyFile: "/etc/ssl/orders.key"
 * }
 * ```
 *
 * @category options
 * @since 0.1.0
 */
export interface TlsOptions {
  /** Trusted authorities, which replace Node's own. */
  readonly ca?: Pem | ReadonlyArray<Pem> | undefined
  /** Files of trusted authorities, in addition to `ca`. */
  readonly caFile?: string | ReadonlyArray<string> | undefined
  /** The client's certificate with the intermediate certificates, for brokers that require one. */
  readonly cert?: Pem | undefined
  /** A file with the client's certificate, and optionally its private key. */
  readonly certFile?: string | undefined
  /** The private key of the client's certificate. A `certFile` can contain it too. */
  readonly key?: Pem | Redacted.Redacted<string> | undefined
  /** A file with the private key of the client's certificate. */
  readonly keyFile?: string | undefined
  /** The passphrase of the private key, if it is encrypted. */
  readonly passphrase?: string | Redacted.Redacted<string> | undefined
  /** The name that the broker's certificate must have. Default: the host's name, for each host its own. */
  readonly servername?: string | undefined
  /**
   * Whether the broker's certificate is checked. Default: true.
   *
   * `false` is dangerous: the connection is encrypted, but any server that answers gets the password. Nothing else
   * disables the check, whether in an object, a URL (`tls_verify=false`) or the environment (`AMQP_TLS_VERIFY=false`).
   * To trust a certificate of your own, name its authority in `ca`.
   */
  readonly verify?: boolean | undefined
  /** The lowest protocol version that is accepted. Versions before TLSv1.2 are not supported. Default: TLSv1.2. */
  readonly minVersion?: "TLSv1.2" | "TLSv1.3" | undefined
  /** Cipher suites in OpenSSL's notation. Default: Node's own. */
  readonly ciphers?: string | undefined
}

/**
 * Options of the TCP socket.
 *
 * **When to use**
 *
 * Use as `tcp` of `Options`, when a network device closes idle connections earlier than usual.
 *
 * @category options
 * @since 0.1.0
 */
export interface TcpOptions {
  /**
   * Whether small frames are sent immediately, without Nagle's algorithm. Default: true. Without it, a request and its
   * reply wait for delayed acknowledgements (about 40 ms).
   */
  readonly noDelay?: boolean | undefined
  /** TCP keep-alive, which detects a dead peer even when heartbeats are off. Default: true. */
  readonly keepAlive?: boolean | undefined
  /**
   * Duration of silence before the first keep-alive probe: whole seconds, 1 to 32767. Default: 30 s, well below the
   * idle timeouts of load balancers and NAT gateways (from 4 minutes). Pika: `TCP_KEEPIDLE`.
   */
  readonly keepAliveDelay?: Duration.Input | undefined
}

/**
 * Options of reconnecting: the delays between the loss of an open connection and each attempt to re-establish it.
 *
 * **When to use**
 *
 * Use as `reconnect` of `Options`. The first connect uses `connectionAttempts` and `retryDelay` instead.
 *
 * **Details**
 *
 * Each delay is a random time from 0 up to a bound ("full jitter", so that the clients of a restarted broker do not all
 * return at once). The bound begins with `minDelay`, doubles with each attempt and ends at `maxDelay`. Attempts
 * continue until one succeeds, unless `schedule` ends or `onRefused` is `"close"`.
 *
 * @category options
 * @since 0.1.0
 */
export interface ReconnectOptions {
  /** Upper bound of the first random delay; the bound doubles with each attempt. At least 1 ms. Default: 100 ms. */
  readonly minDelay?: Duration.Input | undefined
  /** Upper bound of all delays. At least `minDelay`. Default: 30 s, or `minDelay` if that is longer. */
  readonly maxDelay?: Duration.Input | undefined
  /**
   * How long a connection must have been open for the delays to start over when it is lost. May be 0. Default: 1 s: a
   * connection that is lost occasionally is back immediately, and one that is lost as soon as it is open is attempted
   * less and less often.
   */
  readonly healthyAfter?: Duration.Input | undefined
  /**
   * The delays, instead of those of `minDelay` and `maxDelay`. Its input is the reason of the loss, then the reason of
   * each failed attempt, and it starts over after `healthyAfter`. When it ends, the connection is closed for good with
   * the last of these reasons. Consumers, which subscribe again with the delays of `minDelay` and `maxDelay`, do not
   * use it.
   */
  readonly schedule?: Schedule.Schedule<unknown, AmqpErrorReason> | undefined
  /**
   * What happens when a broker that was reached before refuses: the login, the virtual host, TLS, or AMQP itself (a
   * proxy that answers by HTTP). Default: `"retry"`, since a refusal can be temporary: the authentication backend is
   * down, a user or a virtual host is being imported again, a certificate is being renewed.
   *
   * `"retry"` tries again after at least 0.5 to 1 s, doubled with each refusal up to 15 to 30 s (up to `maxDelay` if
   * that is longer), also with a `schedule`, because a broker may count failed logins. A new secret (`updateSecret`) is
   * tried immediately. `"close"` closes the connection for good, with the reason of the refusal. For a refused login or
   * virtual host this lasts until the next `updateSecret`.
   *
   * Before an application has reached its broker for the first time every refusal is final, whatever this option says.
   */
  readonly onRefused?: "retry" | "close" | undefined
}

/**
 * Options of the pool of channels.
 *
 * **When to use**
 *
 * Use as `pool` of `Options`, when the application borrows more channels than the default allows.
 *
 * @category options
 * @since 0.1.0
 */
export interface PoolOptions {
  /** Number of channels that stay open, however long they are idle: 0 to `max`. Default: 0. */
  readonly min?: number | undefined
  /**
   * Maximum number of open channels of each kind: 1 to `channelMax`. Default: 16, or `channelMax` if that is less.
   * Flask-Pika: `pool_size`.
   */
  readonly max?: number | undefined
  /**
   * Age at which a channel is replaced, when it is not borrowed. `"Infinity"` means never. Default: 10 minutes.
   * Flask-Pika: `pool_recycle`.
   */
  readonly recycle?: Duration.Input | undefined
  /**
   * How long a channel above `min` may be idle before it is closed. `"Infinity"` means without a limit. Default: 5
   * minutes.
   */
  readonly idleTimeout?: Duration.Input | undefined
  /** How long a borrower waits for a channel. Default: 5 s. */
  readonly acquireTimeout?: Duration.Input | undefined
  /**
   * Maximum number of waiting borrowers; further ones fail immediately. 0 means that no borrower waits. Default:
   * 10,000.
   */
  readonly maxWaiting?: number | undefined
  /**
   * How long a channel may be borrowed before one warning is logged, which says where it was borrowed. It has no other
   * effect. The warning is late by up to a quarter of this time, 5 s at most. `"Infinity"` means no warning. Default:
   * 30 s.
   */
  readonly longBorrow?: Duration.Input | undefined
}

/**
 * Settings as a plain object. All are optional, and `undefined` means not given.
 *
 * **When to use**
 *
 * Use with `AmqpConfig.make` and `Amqp.layer`, and, without `url`, as overrides of a URL in `AmqpConfig.fromUrl`.
 *
 * **Details**
 *
 * Durations are Effect's `Duration.Input`: a number is milliseconds, and a string is a duration such as `"10 seconds"`.
 * (In URLs and environment variables a number is seconds, as in Pika.) No duration may exceed Node's longest timer,
 * 24.8 days, and timeouts are at least a millisecond.
 *
 * **Example** (Hosts, a login and a pool)
 *
 * ```ts
 * import { AmqpConfig } from "@effect-amqp/core"
 *
 * const options: AmqpConfig.Options = {
 *   hosts: ["a.example.org", "b.example.org:5673"],
 *   username: "orders",
 *   password: "s3cret",
 *   pool: { max: 32, acquireTimeout: "2 seconds" }
 * }
 * ```
 *
 * @see {@link make} for checking them
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The broker as a URL, `amqp[s]://user:password@host:port/vhost?parameters`, as `fromUrl` reads it. The other options
   * override it. `undefined`, such as a variable that is not set, is refused: leave `url` out for a broker on this
   * machine.
   */
  readonly url?: string | Redacted.Redacted<string>
  /** A host name or IP address. Default: `localhost`. */
  readonly host?: string | undefined
  /** The port of every host that names none: 1 to 65535. Default: 5672, with TLS 5671. */
  readonly port?: number | undefined
  /** Several hosts, at most 100, instead of `host`, tried in this order: `"a:5672"`, `"[::1]"` or `{ host, port }`. */
  readonly hosts?: ReadonlyArray<string | { readonly host: string; readonly port?: number | undefined }> | undefined
  /** The virtual host, without escapes: 1 to 255 bytes. Default: `/`. Pika: `virtual_host`. */
  readonly vhost?: string | undefined
  /**
   * The user name for a login by PLAIN, together with `password`: 1 to 255 bytes. Default: `guest`, for a broker on
   * this machine only.
   */
  readonly username?: string | undefined
  /**
   * The password for a login by PLAIN, together with `username`. Default: `guest`, for a broker on this machine only.
   */
  readonly password?: string | Redacted.Redacted<string> | undefined
  /**
   * How the client logs in, instead of `username` and `password`. `External` needs a client certificate: `tls.cert` and
   * `tls.key`.
   */
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
   * The heartbeat interval that is proposed to the broker: whole seconds, 0 (off) to 65535. Default: 10 s. RabbitMQ
   * recommends 5 to 20 s (https://www.rabbitmq.com/docs/heartbeats).
   */
  readonly heartbeat?: Duration.Input | undefined
  /**
   * Maximum number of channels of a connection, before the broker's own limit: 1 to 65535. Default: 2047, RabbitMQ's.
   */
  readonly channelMax?: number | undefined
  /**
   * Maximum size of a frame, in bytes, before the broker's own limit: 4096 to 2^32 - 1. Default: 131072, RabbitMQ's.
   * From 4.1 on RabbitMQ requires 8192 or more: otherwise the connection fails with `ProtocolError`.
   */
  readonly frameMax?: number | undefined
  /** The locale of AMQP's handshake. Default: `en_US`, the only one that RabbitMQ has. */
  readonly locale?: string | undefined
  /** The connection's name in the broker's management pages: 1 to 255 bytes. */
  readonly connectionName?: string | undefined
  /**
   * Properties of the client that are sent to the broker, in addition to the driver's own: strings, finite numbers,
   * booleans, null, arrays and objects, at most 2048 bytes as JSON. `capabilities` is reserved for the library.
   */
  readonly clientProperties?: Readonly<Record<string, unknown>> | undefined
  /**
   * Whether an application starts without waiting for its first connection. Default: false: building the layer
   * completes when the connection is open, or fails. `true`: the layer is built immediately. The connection is made in
   * the background, with the delays of `reconnect` and for as long as it takes, and operations that need it wait as if
   * it had been lost. `AmqpTopology.layer` declares its topology when the connection opens.
   */
  readonly lazyConnect?: boolean | undefined
  /** Number of rounds through all hosts before the first connect fails. At least 1. Default: 1, Pika's. */
  readonly connectionAttempts?: number | undefined
  /** Delay between these rounds. May be 0. Default: 2 s, Pika's. */
  readonly retryDelay?: Duration.Input | undefined
  /** How a lost connection is re-established. */
  readonly reconnect?: ReconnectOptions | undefined
  /** Longest silence of the socket while connecting. Default: 10 s, Pika's. */
  readonly socketTimeout?: Duration.Input | undefined
  /**
   * Longest duration of one attempt on one host: TCP, TLS and AMQP's handshake together. Default: 10 s. Pika:
   * `stack_timeout` (15 s).
   */
  readonly connectTimeout?: Duration.Input | undefined
  /**
   * Longest duration of the close of one channel, or of the connection. A whole shutdown takes up to two of these: see
   * `shutdownTimeout`. Default: 3 s.
   */
  readonly closeTimeout?: Duration.Input | undefined
  /** Longest wait for the broker's reply to a method. Default: 20 s (the name and value of RabbitMQ's .NET client). */
  readonly continuationTimeout?: Duration.Input | undefined
  /** Longest wait of a publish for back-pressure or a blocked connection. Default: 10 s. */
  readonly publishTimeout?: Duration.Input | undefined
  /**
   * Number of bytes that may wait in a channel's write buffer before publishers on that channel wait: 4096 to 2^30.
   * Default: 262,144. A message is always written as a whole, so a larger one fills the buffer alone. It resembles
   * Pika's back-pressure multiplier.
   */
  readonly writeBufferSize?: number | undefined
  /**
   * Maximum body size of an incoming message, in bytes: 1 to 2^32. Default: 134,217,728 (128 MiB), which is RabbitMQ
   * 3's default for what may be published (`max_message_size`; RabbitMQ 4: 16 MiB). The name is that of RabbitMQ's Java
   * client.
   *
   * The check happens when a message is announced, before its body arrives. A larger message closes the channel on
   * which it arrives (311), and no other: `get` fails with `MessageTooLarge`, a consumer ends with it, and the message
   * stays in its queue. A reply that is too large fails only its call (`DecodeFailed`). A publisher needs no content of
   * a message that the broker returns.
   *
   * It bounds one body, and so the memory of each channel while a body arrives. The messages that prefetch lets in are
   * held in addition: `prefetch` messages per consumer.
   */
  readonly maxInboundMessageBodySize?: number | undefined
  /**
   * How long the broker may block a connection before it is given up. Default: `"Infinity"`, without a limit (Pika's
   * None). See https://www.rabbitmq.com/docs/connection-blocked.
   */
  readonly blockedConnectionTimeout?: Duration.Input | undefined
  /** Options of the TCP socket. */
  readonly tcp?: TcpOptions | undefined
  /**
   * How long a shutdown waits for work in progress: handlers, borrowed channels, confirms, replies. May be 0. Default:
   * 10 s.
   *
   * All parts share this time. It counts from the moment at which the first of them begins to stop, and the wait ends
   * when they are done, usually long before. Then the channels and connections are closed. So a shutdown takes at most
   * this time and twice `closeTimeout`, 16 s by default, whatever the broker, the network and the application's own
   * fibers do; Kubernetes kills after 30 s. A consumer with a longer `shutdownTimeout` of its own extends it by the
   * difference.
   */
  readonly shutdownTimeout?: Duration.Input | undefined
  /** Options of the pool. `false`: no pool; each borrower gets a channel of its own. */
  readonly pool?: false | PoolOptions | undefined
}

/**
 * Flask-Pika's `FLASK_PIKA_PARAMS`: its own five fields, and the others of Pika's `ConnectionParameters`.
 *
 * **When to use**
 *
 * Use with `fromFlaskPika`, for a configuration that is written for Flask-Pika.
 *
 * **Details**
 *
 * `null` (Python's None) means not given. Numbers for durations are seconds. `Options` describes each setting.
 *
 * @see {@link fromFlaskPika} for checking them
 *
 * @category options
 * @since 0.1.0
 */
export interface FlaskPikaParameters {
  /** A host name or IP address. */
  readonly host?: string | null | undefined
  /** The port, as a number or a string, as in Pika. */
  readonly port?: number | string | null | undefined
  /** The virtual host. */
  readonly virtual_host?: string | null | undefined
  /** The user name. */
  readonly username: string
  /** The password. */
  readonly password: string | Redacted.Redacted<string>
  /** Maximum number of channels of a connection. */
  readonly channel_max?: number | null | undefined
  /** Maximum size of a frame, in bytes. */
  readonly frame_max?: number | null | undefined
  /** The heartbeat interval, in seconds; null means this library's default. */
  readonly heartbeat?: number | null | undefined
  /** Number of rounds through all hosts at the first connect. */
  readonly connection_attempts?: number | null | undefined
  /** Delay between these rounds, in seconds. */
  readonly retry_delay?: number | null | undefined
  /** Longest silence of the socket while connecting, in seconds. */
  readonly socket_timeout?: number | null | undefined
  /** Longest duration of one attempt, in seconds: TCP, TLS and AMQP's handshake together. */
  readonly stack_timeout?: number | null | undefined
  /** The locale of AMQP's handshake. */
  readonly locale?: string | null | undefined
  /** How long a connection may stay blocked, in seconds. */
  readonly blocked_connection_timeout?: number | null | undefined
  /** Properties of the client that are sent to the broker. */
  readonly client_properties?: Readonly<Record<string, unknown>> | null | undefined
  /** The dict of a URL's `ssl_options`; it enables TLS. */
  readonly ssl_options?: Readonly<Record<string, unknown>> | null | undefined
  /** Options of the TCP socket, under Pika's names. */
  readonly tcp_options?: Readonly<Record<string, unknown>> | null | undefined
}

/**
 * Flask-Pika's `FLASK_PIKA_POOL_PARAMS`.
 *
 * **When to use**
 *
 * Use with `fromFlaskPika`, for a pool that is configured for Flask-Pika.
 *
 * @see {@link fromFlaskPika} for checking it
 *
 * @category options
 * @since 0.1.0
 */
export interface FlaskPikaPool {
  /** Maximum number of open channels. */
  readonly pool_size: number
  /** Age at which a channel is replaced, in seconds; -1 means never. */
  readonly pool_recycle: number
}

const optionName = (key: Key): string => key

const urlPart = (key: Key): string =>
  key === "username" ? "url user name" : key === "password" ? "url password" : optionName(key)

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
 * **Example** (TLS and a pool)
 *
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
 *
 * @see {@link fromUrl} for a URL
 * @see {@link config} for the environment
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<AmqpConfig, AmqpError> =>
  Effect.suspend(() => {
    if (typeof options === "object" && options !== null && Object.hasOwn(options, "url")) {
      const { url, ...overrides } = options
      // An undefined one is refused, as an empty AMQP_URL is: it would mean a broker on this machine.
      return fromUrl(url as string, overrides)
    }
    const draft = new Draft((key) =>
      draft.get("authMechanism") !== undefined && (key === "username" || key === "password")
        ? `credentials.${key}`
        : optionName(key)
    )
    readOptions(draft, options)
    return assemble(draft)
  })

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
 * - User name, password and virtual host are percent-encoded: a `/` in them is `%2F`, an `@` is `%40`. No path, or `/`
 *   alone, is the virtual host `/`, as in Pika and amqplib.
 * - `amqps` means TLS, with the broker's certificate checked. Options of TLS require `amqps`.
 * - The parameters are those of Pika's URLParameters (`heartbeat`, `stack_timeout`, `ssl_options`, ...), those of
 *   amqplib (`frameMax`, ...), and every environment variable without `AMQP_`, in lower case (`pool_size`) or
 *   camelCase. Numbers for durations are seconds; Effect's strings (`10 minutes`) work too. Unknown and repeated
 *   parameters are refused.
 * - An option in `overrides` replaces the URL's value. Options for the address and the login complete a URL that lacks
 *   them: the password may come from elsewhere than the URL.
 *
 * Fails with the reason `InvalidConfig`, which lists every mistake and shows no part of the URL that may be a password.
 * A URL has at most 262,144 characters and 200 parameters. URLs: https://www.rabbitmq.com/docs/uri-spec.
 *
 * **Example** (A password from elsewhere)
 *
 * ```ts
 * import { Redacted } from "effect"
 * import { AmqpConfig } from "@effect-amqp/core"
 *
 * declare const password: Redacted.Redacted<string>
 *
 * const config = AmqpConfig.fromUrl("amqps://orders@rabbit.example.org/shop?heartbeat=5", { password })
 * ```
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
  Effect.suspend(() => {
    const draft = new Draft(urlPart)
    readUrl(draft, "url", url)
    const options = new Draft(optionName, draft.report)
    readOptions(options, overrides)
    overrideUrl(draft, options)
    return assemble(draft)
  })

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
 * `AMQP_POOL_RECYCLE`. Durations are seconds (`600`) or Effect's strings (`10 minutes`). `AMQP_POOL=false` disables the
 * pool.
 *
 * Together with `AMQP_URL`, a variable for host, port, virtual host or TLS is refused, and so is any variable for a
 * setting that the URL has; `AMQP_USERNAME` and `AMQP_PASSWORD` may complete a URL that lacks them.
 *
 * Unknown variables are refused if they begin with `AMQP_POOL_`, `AMQP_TLS_` or `AMQP_TCP_`, or are a misspelling of a
 * known one; other names with `AMQP_` may belong to the application.
 *
 * Fails with one `ConfigError` whose message lists every mistake, without secrets.
 *
 * **Gotchas**
 *
 * A variable for the address or the login that is set and empty is refused, because it would mean localhost.
 *
 * **Example** (Two brokers)
 *
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
 *
 * @see {@link fromUrl} for the parameters of a URL
 *
 * @category configuration
 * @since 0.1.0
 */
export const config: Config.Config<AmqpConfig> = environment

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
 * import { AmqpConfig } from "@effect-amqp/core"
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
): Effect.Effect<AmqpConfig, AmqpError> =>
  Effect.suspend(() => {
    const draft = new Draft((key) => settingOf(key).pika ?? key)
    readFlaskPika(draft, parameters, pool)
    return assemble(draft)
  })
