/** All settings: the key of each (the path of the option), its names in other sources, and its decoder. */
import {
  boolean,
  choice,
  type Decoder,
  duration,
  type DurationBounds,
  integer,
  secretText,
  text,
  verification
} from "./decoder.ts"
import { clientProperties } from "./clientProperties.ts"
import { host, hosts, serverName } from "./hosts.ts"
import { schedule } from "./schedule.ts"
import { certificates, paths, privateKey } from "./pem.ts"

interface Setting<out A> {
  readonly decoder: Decoder<A>
  /** The environment variable, without `AMQP_`. Absent if the setting has no variable. */
  readonly env?: string
  /**
   * Names of URL parameters, in addition to those that follow from `env`. `false` if the setting is not in the query of
   * a URL.
   */
  readonly url?: ReadonlyArray<string> | false
  /** The field of Pika's ConnectionParameters. */
  readonly pika?: string
}

const setting = <A>(decoder: Decoder<A>, names: Omit<Setting<A>, "decoder">): Setting<A> => ({ decoder, ...names })

const timeout = (bounds: Partial<DurationBounds> = {}) => duration({ min: 1, ...bounds })

export const settings = {
  host: setting(host, { env: "HOST", url: false, pika: "host" }),
  hosts: setting(hosts, { env: "HOSTS", url: false }),
  port: setting(integer(1, 65_535), { env: "PORT", url: false, pika: "port" }),
  vhost: setting(text("a virtual host"), { env: "VHOST", url: false, pika: "virtual_host" }),
  username: setting(text("a user name"), { env: "USERNAME", url: false, pika: "username" }),
  password: setting(secretText("a password"), { env: "PASSWORD", url: false, pika: "password" }),
  authMechanism: setting(
    choice(
      { plain: "Plain", PLAIN: "Plain", external: "External", EXTERNAL: "External" } as const,
      "plain or external"
    ),
    { env: "AUTH_MECHANISM" }
  ),

  tls: setting(boolean, { env: "TLS", url: false }),
  "tls.ca": setting(certificates, { env: "TLS_CA" }),
  "tls.caFile": setting(paths, { env: "TLS_CA_FILE", url: ["cacertfile"] }),
  "tls.cert": setting(certificates, { env: "TLS_CERT" }),
  "tls.certFile": setting(paths, { env: "TLS_CERT_FILE", url: ["certfile"] }),
  "tls.key": setting(privateKey, { env: "TLS_KEY" }),
  "tls.keyFile": setting(paths, { env: "TLS_KEY_FILE", url: ["keyfile"] }),
  "tls.passphrase": setting(secretText("a passphrase"), { env: "TLS_PASSPHRASE", url: ["password"] }),
  "tls.servername": setting(serverName, { env: "TLS_SERVERNAME", url: ["server_name_indication"] }),
  "tls.verify": setting(verification, { env: "TLS_VERIFY" }),
  "tls.minVersion": setting(choice({ "TLSv1.2": "TLSv1.2", "TLSv1.3": "TLSv1.3" } as const, "TLSv1.2 or TLSv1.3"), {
    env: "TLS_MIN_VERSION"
  }),
  "tls.ciphers": setting(text("cipher suites in OpenSSL's notation"), { env: "TLS_CIPHERS" }),

  heartbeat: setting(duration({ min: 0, max: "65535 seconds", wholeSeconds: true }), {
    env: "HEARTBEAT",
    url: ["heartbeat_interval"],
    pika: "heartbeat"
  }),
  channelMax: setting(integer(1, 65_535), { env: "CHANNEL_MAX", pika: "channel_max" }),
  frameMax: setting(integer(4096, 2 ** 32 - 1), { env: "FRAME_MAX", pika: "frame_max" }),
  locale: setting(text("a locale such as en_US"), { env: "LOCALE", pika: "locale" }),
  connectionName: setting(text("a connection name"), { env: "CONNECTION_NAME" }),
  clientProperties: setting(clientProperties, { env: "CLIENT_PROPERTIES", pika: "client_properties" }),
  lazyConnect: setting(boolean, { env: "LAZY_CONNECT" }),
  connectionAttempts: setting(integer(1, 2 ** 31 - 1), { env: "CONNECTION_ATTEMPTS", pika: "connection_attempts" }),
  retryDelay: setting(duration({ min: 0 }), { env: "RETRY_DELAY", pika: "retry_delay" }),
  "reconnect.minDelay": setting(timeout(), { env: "RECONNECT_MIN_DELAY" }),
  "reconnect.maxDelay": setting(timeout(), { env: "RECONNECT_MAX_DELAY" }),
  "reconnect.healthyAfter": setting(duration({ min: 0 }), { env: "RECONNECT_HEALTHY_AFTER" }),
  "reconnect.schedule": setting(schedule, {}),
  "reconnect.onRefused": setting(choice({ retry: "retry", close: "close" } as const, "retry or close"), {
    env: "RECONNECT_ON_REFUSED"
  }),
  socketTimeout: setting(timeout(), { env: "SOCKET_TIMEOUT", pika: "socket_timeout" }),
  connectTimeout: setting(timeout(), { env: "CONNECT_TIMEOUT", url: ["stack_timeout"], pika: "stack_timeout" }),
  closeTimeout: setting(timeout(), { env: "CLOSE_TIMEOUT" }),
  continuationTimeout: setting(timeout(), { env: "CONTINUATION_TIMEOUT" }),
  publishTimeout: setting(timeout(), { env: "PUBLISH_TIMEOUT" }),
  writeBufferSize: setting(integer(4096, 2 ** 30), { env: "WRITE_BUFFER_SIZE" }),
  maxInboundMessageBodySize: setting(integer(1, 2 ** 32), { env: "MAX_INBOUND_MESSAGE_BODY_SIZE" }),
  blockedConnectionTimeout: setting(timeout({ allowsNever: true }), {
    env: "BLOCKED_CONNECTION_TIMEOUT",
    pika: "blocked_connection_timeout"
  }),
  "tcp.noDelay": setting(boolean, { env: "TCP_NO_DELAY" }),
  "tcp.keepAlive": setting(boolean, { env: "TCP_KEEP_ALIVE" }),
  // TCP_KEEPIDLE takes whole seconds, and Node treats less than one second as the system's default.
  "tcp.keepAliveDelay": setting(duration({ min: "1 second", max: "32767 seconds", wholeSeconds: true }), {
    env: "TCP_KEEP_ALIVE_DELAY"
  }),
  shutdownTimeout: setting(duration({ min: 0 }), { env: "SHUTDOWN_TIMEOUT" }),

  pool: setting(boolean, { env: "POOL" }),
  "pool.max": setting(integer(1, 65_535, " (to work without a pool, set pool: false or AMQP_POOL=false)"), {
    env: "POOL_SIZE",
    url: ["pool_max", "poolMax"]
  }),
  "pool.min": setting(integer(0, 65_535), { env: "POOL_MIN" }),
  "pool.recycle": setting(timeout({ allowsNever: true, allowsMinusOne: true }), { env: "POOL_RECYCLE" }),
  "pool.idleTimeout": setting(timeout({ allowsNever: true }), { env: "POOL_IDLE_TIMEOUT" }),
  "pool.acquireTimeout": setting(timeout(), { env: "POOL_ACQUIRE_TIMEOUT" }),
  "pool.maxWaiting": setting(integer(0, Number.MAX_SAFE_INTEGER), { env: "POOL_MAX_WAITING" }),
  "pool.longBorrow": setting(timeout({ allowsNever: true }), { env: "POOL_LONG_BORROW" })
} as const

type Settings = typeof settings

export type Key = keyof Settings

export type Value<K extends Key> = Settings[K] extends Setting<infer A> ? A : never

export const keys = Object.keys(settings) as ReadonlyArray<Key>

export const isKey = (name: string): name is Key => Object.hasOwn(settings, name)

export const settingOf = (key: Key): Setting<unknown> => settings[key]

const camel = (snake: string): string => snake.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())

/**
 * URL parameters: the name of each variable without `AMQP_`, in snake_case (as in Pika) and in camelCase (as in
 * amqplib), and further names.
 */
export const urlParameters: ReadonlyMap<string, Key> = new Map(
  keys.flatMap((key) => {
    const { env, url } = settingOf(key)
    if (url === false || env === undefined) return []
    const snake = env.toLowerCase()
    return [snake, camel(snake), ...(url ?? [])].map((name) => [name, key] as const)
  })
)

/** Environment variables. */
export const variables: ReadonlyMap<string, Key> = new Map(
  keys.flatMap((key) => {
    const { env } = settingOf(key)
    return env === undefined ? [] : [[`AMQP_${env}`, key] as const]
  })
)

/** Fields of Pika's ConnectionParameters that are plain values. */
export const pikaParameters: ReadonlyMap<string, Key> = new Map(
  keys.flatMap((key) => {
    const { pika } = settingOf(key)
    return pika === undefined ? [] : [[pika, key] as const]
  })
)
