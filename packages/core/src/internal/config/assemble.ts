/** Makes the whole configuration from a draft: fills in defaults, and checks the rules that span several settings. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { AmqpConfig, Credentials, Host, PoolConfig, ReconnectConfig, Tcp } from "../../model/config.ts"
import type { Draft } from "./draft.ts"
import { type HostAndPort, isLoopback } from "./hosts.ts"
import { type Key, keys } from "./settings.ts"
import { isTlsOn, readTls } from "./tls.ts"

const isNonEmpty = <A>(items: ReadonlyArray<A>): items is readonly [A, ...Array<A>] => items.length > 0

const listHosts = (draft: Draft): ReadonlyArray<HostAndPort> | undefined => {
  const one = draft.get("host")
  const several = draft.get("hosts")
  if (one === undefined && several === undefined) return [{ host: "localhost", port: undefined }]
  if (one !== undefined && several !== undefined) {
    draft.report.add(one.setting, "both", `either ${one.setting} or ${several.setting}`)
  }
  const host = draft.read("host")
  return draft.read("hosts") ?? (host === undefined ? undefined : [{ host, port: undefined }])
}

const readHosts = (draft: Draft, tls: boolean): readonly [Host, ...Array<Host>] | undefined => {
  const listed = listHosts(draft)
  const port = draft.read("port")
  const given = draft.get("port")
  if (listed === undefined) return undefined
  if (given !== undefined && listed.every((host) => host.port !== undefined)) {
    draft.report.addWithValue(given.setting, given.value, "no value, because every host has its own port")
  }
  const hosts = listed.map((host): Host => ({ host: host.host, port: host.port ?? port ?? (tls ? 5671 : 5672) }))
  return isNonEmpty(hosts) ? hosts : undefined
}

const guest: Credentials = { _tag: "Plain", username: "guest", password: Redacted.make("guest") }

const readPlain = (draft: Draft, hosts: ReadonlyArray<Host> | undefined): Credentials | undefined => {
  const { report } = draft
  const username = draft.read("username")
  const password = draft.read("password")
  const hasUsername = draft.get("username") !== undefined
  const hasPassword = draft.get("password") !== undefined
  if (hasUsername && !hasPassword) {
    report.add(draft.nameOf("password"), "nothing", "a password for the user name (there is no default)")
  }
  if (hasPassword && !hasUsername) {
    report.add(draft.nameOf("username"), "nothing", "a user name for the password (there is no default)")
  }
  if (!hasUsername && !hasPassword) {
    if (hosts === undefined || hosts.every(({ host }) => isLoopback(host))) return guest
    const expected = "a user name and a password (guest is the default only for a broker on localhost)"
    report.add(draft.nameOf("username"), "nothing", expected)
  }
  return username === undefined || password === undefined ? undefined : { _tag: "Plain", username, password }
}

const clientCertificateKeys = ["tls.cert", "tls.certFile", "tls.key", "tls.keyFile"] as const

const readCredentials = (draft: Draft, hosts: ReadonlyArray<Host> | undefined): Credentials | undefined => {
  if (draft.read("authMechanism") !== "External") return readPlain(draft, hosts)
  for (const key of ["username", "password"] as const) {
    const given = draft.get(key)
    if (given === undefined) continue
    draft.report.add(
      given.setting,
      `a ${key === "username" ? "user name" : key}`,
      "no value, because EXTERNAL takes the user from the client certificate"
    )
  }
  return { _tag: "External" }
}

const poolKeys = keys.filter((key) => key.startsWith("pool."))

// The decoder reads "never" as `Infinity`. Code that uses the setting starts no timer for `undefined`.
const finiteOrUndefined = (duration: Duration.Duration): Duration.Duration | undefined =>
  Duration.isFinite(duration) ? duration : undefined

const readPool = (draft: Draft, channelMax: number): false | PoolConfig => {
  const off = draft.read("pool") === false ? draft.get("pool") : undefined
  if (off !== undefined) {
    for (const key of poolKeys) {
      const given = draft.get(key)
      if (given !== undefined)
        draft.report.add(given.setting, "a pool setting", `no value, because ${off.setting} switches the pool off`)
    }
    return false
  }
  const size = draft.read("pool.max")
  const max = size ?? Math.min(16, channelMax)
  const min = draft.read("pool.min") ?? 0
  const given = (key: Key) => draft.get(key)?.setting ?? draft.nameOf(key)
  if (max > channelMax) {
    draft.report.addWithValue(
      given("pool.max"),
      max,
      `at most ${channelMax}, the number of channels per connection (${given("channelMax")})`
    )
  }
  if (min > max && (size !== undefined || draft.get("pool.max") === undefined)) {
    draft.report.addWithValue(given("pool.min"), min, `at most ${max}, the size of the pool (${given("pool.max")})`)
  }
  return {
    min,
    max,
    recycle: finiteOrUndefined(draft.read("pool.recycle") ?? Duration.minutes(10)),
    idleTimeout: finiteOrUndefined(draft.read("pool.idleTimeout") ?? Duration.minutes(5)),
    acquireTimeout: draft.read("pool.acquireTimeout") ?? Duration.seconds(5),
    maxWaiting: draft.read("pool.maxWaiting") ?? 10_000,
    longBorrow: finiteOrUndefined(draft.read("pool.longBorrow") ?? Duration.seconds(30))
  }
}

const readReconnect = (draft: Draft): ReconnectConfig => {
  const minDelay = draft.read("reconnect.minDelay") ?? Duration.millis(100)
  const maxDelay = draft.read("reconnect.maxDelay") ?? Duration.max(Duration.seconds(30), minDelay)
  const schedule = draft.read("reconnect.schedule")
  const given = draft.first(["reconnect.minDelay", "reconnect.maxDelay"])
  if (schedule !== undefined && given !== undefined) {
    draft.report.add(given.setting, "both", `either ${given.setting} or ${draft.nameOf("reconnect.schedule")}`)
  } else if (Duration.isGreaterThan(minDelay, maxDelay)) {
    const { setting, value } = draft.get("reconnect.maxDelay")!
    draft.report.addWithValue(
      setting,
      value,
      `at least ${Duration.format(minDelay)}, the shortest delay (${draft.get("reconnect.minDelay")?.setting ?? draft.nameOf("reconnect.minDelay")})`
    )
  }
  return {
    minDelay,
    maxDelay,
    healthyAfter: draft.read("reconnect.healthyAfter") ?? Duration.seconds(1),
    schedule,
    onRefused: draft.read("reconnect.onRefused") ?? "retry"
  }
}

const readTcp = (draft: Draft): Tcp => ({
  noDelay: draft.read("tcp.noDelay") ?? true,
  keepAlive: draft.read("tcp.keepAlive") ?? true,
  keepAliveDelay: draft.read("tcp.keepAliveDelay") ?? Duration.seconds(30)
})

/** Pika sets the connection's name as a client property. It is the same setting as `connectionName`. */
const readName = (
  draft: Draft,
  { connection_name: fromProperties, ...properties }: Readonly<Record<string, unknown>>
): Pick<AmqpConfig, "connectionName" | "clientProperties"> => {
  const clientProperties = Object.assign(Object.create(null) as Record<string, unknown>, properties)
  if (fromProperties === undefined) return { connectionName: draft.read("connectionName"), clientProperties }
  const setting = `${draft.get("clientProperties")?.setting ?? "clientProperties"}.connection_name`
  draft.set("connectionName", { setting, value: fromProperties, form: "plain" })
  return { connectionName: draft.read("connectionName"), clientProperties }
}

/** Returns the configuration, or fails with every mistake in the draft. */
export const assemble = Effect.fnUntraced(function* (draft: Draft) {
  const tlsOn = isTlsOn(draft)
  const hosts = readHosts(draft, tlsOn)
  const vhost = draft.read("vhost") ?? "/"
  const credentials = readCredentials(draft, hosts)
  const tls = yield* readTls(draft, tlsOn)
  if (credentials?._tag === "External" && draft.first(clientCertificateKeys) === undefined) {
    const expected = "a client certificate and its private key, because EXTERNAL authenticates with nothing else"
    draft.report.add(draft.nameOf("tls.cert"), "nothing", expected)
  }
  const channelMax = draft.read("channelMax") ?? 2047
  const settings = {
    vhost,
    tls,
    heartbeat: draft.read("heartbeat") ?? Duration.seconds(10),
    channelMax,
    frameMax: draft.read("frameMax") ?? 131_072,
    locale: draft.read("locale") ?? "en_US",
    ...readName(draft, draft.read("clientProperties") ?? {}),
    lazyConnect: draft.read("lazyConnect") ?? false,
    connectionAttempts: draft.read("connectionAttempts") ?? 1,
    retryDelay: draft.read("retryDelay") ?? Duration.seconds(2),
    reconnect: readReconnect(draft),
    socketTimeout: draft.read("socketTimeout") ?? Duration.seconds(10),
    connectTimeout: draft.read("connectTimeout") ?? Duration.seconds(10),
    closeTimeout: draft.read("closeTimeout") ?? Duration.seconds(3),
    continuationTimeout: draft.read("continuationTimeout") ?? Duration.seconds(20),
    publishTimeout: draft.read("publishTimeout") ?? Duration.seconds(10),
    writeBufferSize: draft.read("writeBufferSize") ?? 262_144,
    maxInboundMessageBodySize: draft.read("maxInboundMessageBodySize") ?? 134_217_728,
    blockedConnectionTimeout: finiteOrUndefined(draft.read("blockedConnectionTimeout") ?? Duration.infinity),
    tcp: readTcp(draft),
    shutdownTimeout: draft.read("shutdownTimeout") ?? Duration.seconds(10),
    pool: readPool(draft, channelMax)
  }
  if (draft.report.size > 0 || hosts === undefined || credentials === undefined) {
    return yield* draft.report.error()
  }
  const config: AmqpConfig = { hosts, credentials, ...settings }
  return config
})
