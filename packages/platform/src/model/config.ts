/**
 * The settings of a connection and its pool.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Redacted from "effect/Redacted"
import type * as Schedule from "effect/Schedule"
import type { AmqpErrorReason } from "./errorReason.ts"

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
  readonly keepAliveDelay?: Duration.DurationInput | undefined
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
  readonly minDelay?: Duration.DurationInput | undefined
  /** Upper bound of all delays. At least `minDelay`. Default: 30 s, or `minDelay` if that is longer. */
  readonly maxDelay?: Duration.DurationInput | undefined
  /**
   * How long a connection must have been open for the delays to start over when it is lost. May be 0. Default: 1 s: a
   * connection that is lost occasionally is back immediately, and one that is lost as soon as it is open is attempted
   * less and less often.
   */
  readonly healthyAfter?: Duration.DurationInput | undefined
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
   * Age at which a channel is replaced, when it is not borrowed. `Duration.infinity` means never. Default: 10 minutes.
   * Flask-Pika: `pool_recycle`.
   */
  readonly recycle?: Duration.DurationInput | undefined
  /**
   * How long a channel above `min` may be idle before it is closed. `Duration.infinity` means without a limit. Default:
   * 5 minutes.
   */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** How long a borrower waits for a channel. Default: 5 s. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
  /**
   * Maximum number of waiting borrowers; further ones fail immediately. 0 means that no borrower waits. Default:
   * 10,000.
   */
  readonly maxWaiting?: number | undefined
  /**
   * How long a channel may be borrowed before one warning is logged, which says where it was borrowed. It has no other
   * effect. The warning is late by up to a quarter of this time, 5 s at most. `Duration.infinity` means no warning.
   * Default: 30 s.
   */
  readonly longBorrow?: Duration.DurationInput | undefined
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
 * Durations are Effect's `Duration.DurationInput`: a number is milliseconds, and a string is a duration such as `"10 seconds"`.
 * (In URLs and environment variables a number is seconds, as in Pika.) No duration may exceed Node's longest timer,
 * 24.8 days, and timeouts are at least a millisecond.
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
  readonly heartbeat?: Duration.DurationInput | undefined
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
  readonly retryDelay?: Duration.DurationInput | undefined
  /** How a lost connection is re-established. */
  readonly reconnect?: ReconnectOptions | undefined
  /** Longest silence of the socket while connecting. Default: 10 s, Pika's. */
  readonly socketTimeout?: Duration.DurationInput | undefined
  /**
   * Longest duration of one attempt on one host: TCP, TLS and AMQP's handshake together. Default: 10 s. Pika:
   * `stack_timeout` (15 s).
   */
  readonly connectTimeout?: Duration.DurationInput | undefined
  /**
   * Longest duration of the close of one channel, or of the connection. A whole shutdown takes up to two of these: see
   * `shutdownTimeout`. Default: 3 s.
   */
  readonly closeTimeout?: Duration.DurationInput | undefined
  /** Longest wait for the broker's reply to a method. Default: 20 s (the name and value of RabbitMQ's .NET client). */
  readonly continuationTimeout?: Duration.DurationInput | undefined
  /** Longest wait of a publish for back-pressure or a blocked connection. Default: 10 s. */
  readonly publishTimeout?: Duration.DurationInput | undefined
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
   * How long the broker may block a connection before it is given up. Default: `Duration.infinity`, without a limit
   * (Pika's None). See https://www.rabbitmq.com/docs/connection-blocked.
   */
  readonly blockedConnectionTimeout?: Duration.DurationInput | undefined
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
  readonly shutdownTimeout?: Duration.DurationInput | undefined
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
