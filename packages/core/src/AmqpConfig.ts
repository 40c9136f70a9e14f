/**
 * Every setting of a connection and of its pool.
 *
 * @since 0.1.0
 */
import type * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type { AmqpError } from "./AmqpError.ts"

export interface Host {
  readonly host: string
  readonly port: number
}
export type Credentials =
  | { readonly _tag: "Plain"; readonly username: string; readonly password: Redacted.Redacted<string> }
  | { readonly _tag: "External" }
export interface Tls {
  readonly ca: ReadonlyArray<string | Uint8Array> | undefined
  readonly cert: string | Uint8Array | undefined
  readonly key: Redacted.Redacted<string> | undefined
  readonly passphrase: Redacted.Redacted<string> | undefined
  readonly servername: string | undefined
  readonly verify: boolean
  readonly minVersion: "TLSv1.2" | "TLSv1.3"
}
export interface Tcp {
  readonly noDelay: boolean
  readonly keepAlive: boolean
  readonly keepAliveDelay: Duration.Duration
}
export interface PoolConfig {
  readonly min: number
  readonly max: number
  readonly recycle: Duration.Duration | undefined
  readonly idleTimeout: Duration.Duration | undefined
  readonly acquireTimeout: Duration.Duration
  readonly maxWaiting: number
}
export interface AmqpConfig {
  readonly hosts: readonly [Host, ...Array<Host>]
  readonly vhost: string
  readonly credentials: Credentials
  readonly tls: Tls | undefined
  readonly heartbeat: Duration.Duration
  readonly channelMax: number
  readonly frameMax: number
  readonly locale: string
  readonly connectionName: string | undefined
  readonly clientProperties: Readonly<Record<string, unknown>>
  readonly connectionAttempts: number
  readonly retryDelay: Duration.Duration
  readonly socketTimeout: Duration.Duration
  readonly connectTimeout: Duration.Duration
  readonly closeTimeout: Duration.Duration
  readonly continuationTimeout: Duration.Duration
  readonly publishTimeout: Duration.Duration
  readonly blockedConnectionTimeout: Duration.Duration | undefined
  readonly tcp: Tcp
  readonly shutdownTimeout: Duration.Duration
  readonly pool: false | PoolConfig
}
export interface TlsOptions {
  readonly verify?: boolean | undefined
}
export interface PoolOptions {
  readonly min?: number | undefined
  readonly max?: number | undefined
  readonly recycle?: Duration.Input | undefined
  readonly idleTimeout?: Duration.Input | undefined
  readonly acquireTimeout?: Duration.Input | undefined
  readonly maxWaiting?: number | undefined
}
export interface Options {
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly hosts?: ReadonlyArray<string | { readonly host: string; readonly port?: number | undefined }> | undefined
  readonly vhost?: string | undefined
  readonly username?: string | undefined
  readonly password?: string | Redacted.Redacted<string> | undefined
  readonly credentials?: Credentials | undefined
  readonly tls?: boolean | TlsOptions | undefined
  readonly heartbeat?: Duration.Input | undefined
  readonly pool?: false | PoolOptions | undefined
}
export declare const make: (options?: Options) => Effect.Effect<AmqpConfig, AmqpError>
export declare const config: Config.Config<AmqpConfig>
export declare const fromUrl: (
  url: string | Redacted.Redacted<string>,
  overrides?: Options
) => Effect.Effect<AmqpConfig, AmqpError>
