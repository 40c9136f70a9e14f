/** Every setting of a connection, checked. */
import type * as Duration from "effect/Duration"
import type * as Redacted from "effect/Redacted"
import type * as Schedule from "effect/Schedule"
import type { AmqpErrorReason } from "./error.ts"

/** A broker's address. An IPv6 address has no brackets. */
export interface Host {
  readonly host: string
  readonly port: number
}

/**
 * How to log in: PLAIN with a user name and password, or EXTERNAL, where the broker takes the user from the client's
 * certificate (https://www.rabbitmq.com/docs/access-control#mechanisms).
 */
export type Credentials =
  | { readonly _tag: "Plain"; readonly username: string; readonly password: Redacted.Redacted<string> }
  | { readonly _tag: "External" }

/** A file that a setting of TLS names. */
export interface TlsFile {
  /** The setting as it was written: `tls.caFile`, `AMQP_TLS_CA_FILE`. */
  readonly setting: string
  readonly path: string
}

/** The files of TLS. Each connect reads them again, so a certificate that is renewed on disk is used by the next one. */
export interface TlsFiles {
  readonly ca: ReadonlyArray<TlsFile>
  /** Authorities that were given as PEM, and are trusted in addition to those in `ca`. */
  readonly caBeside: ReadonlyArray<string>
  readonly cert: ReadonlyArray<TlsFile>
  readonly key: ReadonlyArray<TlsFile>
}

/**
 * TLS, read and checked: the certificate, its key and the passphrase fit together. What files hold is what they held when
 * the configuration was made.
 */
export interface Tls {
  /** Authorities to trust, as PEM; `undefined` means those that Node brings along. */
  readonly ca: ReadonlyArray<string> | undefined
  /** The client's certificate and those that lead from it to an authority, as PEM. */
  readonly cert: string | undefined
  /** The private key of `cert`, as PEM. */
  readonly key: Redacted.Redacted<string> | undefined
  readonly passphrase: Redacted.Redacted<string> | undefined
  /** The name that the broker's certificate must carry, and that is sent as SNI; `undefined` means the host's. */
  readonly servername: string | undefined
  /** Whether the broker's certificate is checked. */
  readonly verify: boolean
  readonly minVersion: "TLSv1.2" | "TLSv1.3"
  /** Cipher suites in OpenSSL's notation; `undefined` means Node's. */
  readonly ciphers: string | undefined
  /** `undefined`: none were given. */
  readonly files?: TlsFiles | undefined
}

/** Options of the TCP socket. */
export interface Tcp {
  readonly noDelay: boolean
  readonly keepAlive: boolean
  readonly keepAliveDelay: Duration.Duration
}

/** How a connection that was lost is made again. */
export interface ReconnectConfig {
  readonly minDelay: Duration.Duration
  readonly maxDelay: Duration.Duration
  readonly healthyAfter: Duration.Duration
  /** `undefined`: by `minDelay` and `maxDelay`. */
  readonly schedule: Schedule.Schedule<unknown, AmqpErrorReason> | undefined
  readonly onRefused: "retry" | "close"
}

/** The settings of a pool of channels. */
export interface PoolConfig {
  readonly min: number
  readonly max: number
  /** `undefined`: channels are never recycled for their age. */
  readonly recycle: Duration.Duration | undefined
  /** `undefined`: channels are never closed for being idle. */
  readonly idleTimeout: Duration.Duration | undefined
  readonly acquireTimeout: Duration.Duration
  readonly maxWaiting: number
  /** `undefined`: nobody is warned about. */
  readonly longBorrow: Duration.Duration | undefined
}

/**
 * A checked configuration, with every default filled in. `Options` says what each setting means.
 *
 * It can be printed and logged: the password, the private key and its passphrase are `Redacted`.
 */
export interface AmqpConfig {
  readonly hosts: readonly [Host, ...Array<Host>]
  /** As it is, without escapes: `/`, not `%2F`. */
  readonly vhost: string
  readonly credentials: Credentials
  /** `undefined`: a connection without TLS. */
  readonly tls: Tls | undefined
  /** Zero: no heartbeats. */
  readonly heartbeat: Duration.Duration
  readonly channelMax: number
  readonly frameMax: number
  readonly locale: string
  readonly connectionName: string | undefined
  /** Without `connection_name`, which is `connectionName`. */
  readonly clientProperties: Readonly<Record<string, unknown>>
  readonly lazyConnect: boolean
  readonly connectionAttempts: number
  readonly retryDelay: Duration.Duration
  readonly reconnect: ReconnectConfig
  readonly socketTimeout: Duration.Duration
  readonly connectTimeout: Duration.Duration
  readonly closeTimeout: Duration.Duration
  readonly continuationTimeout: Duration.Duration
  readonly publishTimeout: Duration.Duration
  readonly writeBufferSize: number
  readonly maxInboundMessageBodySize: number
  /** `undefined`: a blocked connection is kept however long. */
  readonly blockedConnectionTimeout: Duration.Duration | undefined
  readonly tcp: Tcp
  readonly shutdownTimeout: Duration.Duration
  readonly pool: false | PoolConfig
}
