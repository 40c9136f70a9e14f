/**
 * The checked configuration of a connection.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Redacted from "effect/Redacted"
import type * as Schedule from "effect/Schedule"
import type { AmqpErrorReason } from "./error.ts"

/**
 * The address of a broker.
 *
 * **When to use**
 *
 * Use to read `hosts` of a configuration, for instance in a log line.
 *
 * @category models
 * @since 0.1.0
 */
export interface Host {
  /** A host name or an IP address. An IPv6 address has no brackets. */
  readonly host: string
  /** The TCP port, 1 to 65535. */
  readonly port: number
}

/**
 * How the client logs in.
 *
 * **When to use**
 *
 * Use to read `credentials` of a configuration.
 *
 * **Details**
 *
 * `Plain` logs in by PLAIN, with a user name and a password. `External` logs in by EXTERNAL: the broker takes the user
 * from the client's certificate (https://www.rabbitmq.com/docs/access-control#mechanisms).
 *
 * @category models
 * @since 0.1.0
 */
export type Credentials =
  | { readonly _tag: "Plain"; readonly username: string; readonly password: Redacted.Redacted<string> }
  | { readonly _tag: "External" }

/**
 * A file that a TLS setting names.
 *
 * **When to use**
 *
 * Use to read `tls.files` of a configuration.
 *
 * @category models
 * @since 0.1.0
 */
export interface TlsFile {
  /** The setting as it was written: `tls.caFile`, `AMQP_TLS_CA_FILE`. */
  readonly setting: string
  /** The path as it was written. */
  readonly path: string
}

/**
 * The files that the TLS settings name.
 *
 * **When to use**
 *
 * Use to see which certificates are read again.
 *
 * **Details**
 *
 * Each connect reads the files again, so the next connect uses a certificate that was renewed on disk.
 *
 * @category models
 * @since 0.1.0
 */
export interface TlsFiles {
  /** Files of trusted authorities. */
  readonly ca: ReadonlyArray<TlsFile>
  /** Authorities that were given as PEM. They are trusted in addition to those in `ca`. */
  readonly inlineCa: ReadonlyArray<string>
  /** Files of the client's certificate. */
  readonly cert: ReadonlyArray<TlsFile>
  /** Files of the private key. */
  readonly key: ReadonlyArray<TlsFile>
}

/**
 * The TLS settings, read and checked.
 *
 * **When to use**
 *
 * Use to read `tls` of a configuration.
 *
 * **Details**
 *
 * The certificate, its key and the passphrase fit together. The contents of files are those at the time when the
 * configuration was made.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tls {
  /** Trusted authorities, as PEM; `undefined` means Node's own. */
  readonly ca: ReadonlyArray<string> | undefined
  /** The client's certificate and the intermediate certificates, as PEM. */
  readonly cert: string | undefined
  /** The private key of `cert`, as PEM. */
  readonly key: Redacted.Redacted<string> | undefined
  /** The passphrase of an encrypted private key. */
  readonly passphrase: Redacted.Redacted<string> | undefined
  /** The name that the broker's certificate must have, and that is sent as SNI; `undefined` means the host's name. */
  readonly servername: string | undefined
  /** Whether the broker's certificate is checked. */
  readonly verify: boolean
  /** The lowest protocol version that is accepted. */
  readonly minVersion: "TLSv1.2" | "TLSv1.3"
  /** Cipher suites in OpenSSL's notation; `undefined` means Node's own. */
  readonly ciphers: string | undefined
  /** The files that the settings name; `undefined` means that there are none. */
  readonly files?: TlsFiles | undefined
}

/**
 * Options of the TCP socket, checked.
 *
 * **When to use**
 *
 * Use to read `tcp` of a configuration.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tcp {
  /** Whether small frames are sent immediately, without Nagle's algorithm. */
  readonly noDelay: boolean
  /** Whether TCP keep-alive is on. */
  readonly keepAlive: boolean
  /** Duration of silence before the first keep-alive probe. */
  readonly keepAliveDelay: Duration.Duration
}

/**
 * How a lost connection is re-established, checked.
 *
 * **When to use**
 *
 * Use to read `reconnect` of a configuration. `AmqpConfig.ReconnectOptions` describes each setting.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReconnectConfig {
  /** Upper bound of the first random delay. */
  readonly minDelay: Duration.Duration
  /** Upper bound of all delays. */
  readonly maxDelay: Duration.Duration
  /** How long a connection must be open before the delays start over. */
  readonly healthyAfter: Duration.Duration
  /** The delays as a schedule; `undefined` means the delays of `minDelay` and `maxDelay`. */
  readonly schedule: Schedule.Schedule<unknown, AmqpErrorReason> | undefined
  /** What happens when a broker refuses that was reached before. */
  readonly onRefused: "retry" | "close"
}

/**
 * The settings of a pool of channels, checked.
 *
 * **When to use**
 *
 * Use to read `pool` of a configuration. `AmqpConfig.PoolOptions` describes each setting.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolConfig {
  /** Minimum number of open channels. */
  readonly min: number
  /** Maximum number of channels of each kind. */
  readonly max: number
  /** Age at which a channel is replaced; `undefined` means never. */
  readonly recycle: Duration.Duration | undefined
  /** Idle time after which a channel is closed; `undefined` means never. */
  readonly idleTimeout: Duration.Duration | undefined
  /** Longest wait of a borrower. */
  readonly acquireTimeout: Duration.Duration
  /** Maximum number of waiting borrowers. */
  readonly maxWaiting: number
  /** Duration of a borrow after which a warning is logged; `undefined` means no warning. */
  readonly longBorrow: Duration.Duration | undefined
}

/**
 * A checked configuration with every default filled in.
 *
 * **When to use**
 *
 * Use as the argument of `AmqpConnection.layer` and `Amqp.fromConfig`. Make one with `AmqpConfig.make`,
 * `AmqpConfig.fromUrl` or `AmqpConfig.config`.
 *
 * **Details**
 *
 * `AmqpConfig.Options` describes each setting. A configuration can be printed and logged: the password, the private key
 * and its passphrase are `Redacted`.
 *
 * @category models
 * @since 0.1.0
 */
export interface AmqpConfig {
  /** The brokers, in the order in which they are tried. */
  readonly hosts: readonly [Host, ...Array<Host>]
  /** The virtual host, without escapes: `/`, not `%2F`. */
  readonly vhost: string
  /** How the client logs in. */
  readonly credentials: Credentials
  /** The TLS settings; `undefined` means a connection without TLS. */
  readonly tls: Tls | undefined
  /** The proposed heartbeat interval. Zero: no heartbeats. */
  readonly heartbeat: Duration.Duration
  /** Maximum number of channels that is proposed to the broker. */
  readonly channelMax: number
  /** Maximum size of a frame that is proposed to the broker, in bytes. */
  readonly frameMax: number
  /** The locale of AMQP's handshake. */
  readonly locale: string
  /** The connection's name in the broker's management pages. */
  readonly connectionName: string | undefined
  /** The client's properties, without `connection_name`, which is `connectionName`. */
  readonly clientProperties: Readonly<Record<string, unknown>>
  /** Whether an application starts without waiting for its first connection. */
  readonly lazyConnect: boolean
  /** Number of rounds through all hosts at the first connect. */
  readonly connectionAttempts: number
  /** Delay between these rounds. */
  readonly retryDelay: Duration.Duration
  /** How a lost connection is re-established. */
  readonly reconnect: ReconnectConfig
  /** Longest silence of the socket while connecting. */
  readonly socketTimeout: Duration.Duration
  /** Longest duration of one attempt on one host. */
  readonly connectTimeout: Duration.Duration
  /** Longest duration of the close of one channel, or of the connection. */
  readonly closeTimeout: Duration.Duration
  /** Longest wait for the broker's reply to a method. */
  readonly continuationTimeout: Duration.Duration
  /** Longest wait of a publish. */
  readonly publishTimeout: Duration.Duration
  /** Bytes that may wait in a channel's write buffer before its publishers wait. */
  readonly writeBufferSize: number
  /** Maximum body size of an incoming message, in bytes. */
  readonly maxInboundMessageBodySize: number
  /** How long a connection may stay blocked; `undefined` means without a limit. */
  readonly blockedConnectionTimeout: Duration.Duration | undefined
  /** Options of the TCP socket. */
  readonly tcp: Tcp
  /** How long a shutdown waits for work in progress. */
  readonly shutdownTimeout: Duration.Duration
  /** The settings of the pool; `false` means no pool. */
  readonly pool: false | PoolConfig
}
