/**
 * Opens a connection.
 *
 * Hazards of amqplib 2.3 that this module answers:
 * - `connect` has no way to be given up: an `AbortSignal` among the socket options destroys the socket.
 * - Its own timeout ends a connection that is opening by a text alone, so silence is watched here.
 * - `vhost` is percent-decoded again, so it is encoded first.
 * - Its credentials lie in the options that a TLS socket keeps: ours are made when they are sent.
 */
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"
import type { AmqpConfig, Host } from "../../model/config.ts"
import { bytesOf } from "../wire/secretBytes.ts"
import * as Amqplib from "./amqplib.ts"
import { Connection } from "./connection.ts"
import type { DriverConnection } from "./contract.ts"
import { OpeningTimedOut } from "./ends.ts"
import { Tap, unusableRuntime } from "./tap.ts"

/** The largest frame that is taken before a size has been agreed on, in bytes: some brokers have much to say of themselves. */
const largestGreeting = 131_072

const isBun = "bun" in process.versions

/** Where to connect to. */
export interface Endpoint {
  readonly config: AmqpConfig
  readonly host: Host
  /** Options of Node's socket: those of TLS, and the addresses. */
  readonly socketOptions: Record<string, unknown>
}

/** A connection that opens. */
export interface Attempt {
  /** The first bytes that the peer has sent. */
  readonly first: Buffer
  /** The peer's address, once it has sent something. */
  readonly address: string | undefined
  /** Gives it up: nothing of it is left, and `failed` may be called. */
  readonly abort: () => void
}

const credentialsOf = ({ credentials }: AmqpConfig, mechanism: string) => ({
  mechanism,
  response: () =>
    credentials._tag === "External"
      ? Buffer.alloc(0)
      : bytesOf(`\0${credentials.username}\0${Redacted.value(credentials.password)}`)
})

/** Opens a connection: one of the two is called, once. Behind `opened` nothing is read until somebody watches. */
export const open = (
  { config, host, socketOptions }: Endpoint,
  opened: (connection: DriverConnection) => void,
  failed: (cause: unknown) => void
): Attempt => {
  const aborting = new AbortController()
  const mechanism = config.credentials._tag === "External" ? "EXTERNAL" : "PLAIN"
  const heartbeat = Duration.toSeconds(config.heartbeat)
  const mostOfFrame = Math.max(config.frameMax, largestGreeting)
  const { channelMax, frameMax } = config
  const tap = new Tap({ mechanism, channelMax, frameMax, heartbeat, mostOfFrame }, () => aborting.abort())
  const silence = watchSilence(tap, Duration.toMillis(config.socketTimeout), () => aborting.abort())
  const fail = (cause: unknown) => {
    silence.stop()
    failed(silence.error ?? tap.failure ?? cause)
  }
  const connected = (model: Amqplib.Model) => {
    silence.stop()
    const { agreed, socket } = tap
    if (agreed === undefined || socket === undefined) {
      model.on("error", () => {})
      model.close().catch(() => {})
      return failed(unusableRuntime())
    }
    return opened(new Connection(model, tap, socket, agreed, config))
  }
  try {
    const options = {
      credentials: credentialsOf(config, mechanism),
      clientProperties: {
        product: "effect-amqp",
        ...config.clientProperties,
        ...(config.connectionName === undefined ? undefined : { connection_name: config.connectionName })
      },
      noDelay: config.tcp.noDelay,
      keepAlive: config.tcp.keepAlive,
      keepAliveDelay: Duration.toMillis(config.tcp.keepAliveDelay),
      signal: aborting.signal,
      onread: tap.onread,
      ...(isBun ? { construct: tap.construct } : undefined),
      ...socketOptions
    }
    const url = {
      protocol: config.tls === undefined ? "amqp" : "amqps",
      hostname: host.host,
      port: host.port,
      vhost: encodeURIComponent(config.vhost),
      locale: config.locale,
      frameMax,
      channelMax,
      heartbeat,
      maxFrameSize: mostOfFrame
    }
    Amqplib.open(url, options).then(connected, fail)
  } catch (cause) {
    fail(cause)
  }
  return {
    get first() {
      return tap.first
    },
    get address() {
      return tap.address
    },
    abort: () => aborting.abort()
  }
}

/** Node's timers do not wait longer, in milliseconds. */
const longestTimer = 2 ** 31 - 1

/** Calls back when nothing has been read for so many milliseconds. */
const watchSilence = (tap: Tap, timeout: number, elapsed: () => void) => {
  const silence = {
    error: undefined as Error | undefined,
    stop: () => clearTimeout(timer)
  }
  const look = () => {
    const left = tap.readAt + timeout - performance.now()
    if (left > 0) timer = setTimeout(look, Math.min(left, longestTimer))
    else {
      silence.error = new OpeningTimedOut(`nothing came for ${timeout} ms`)
      elapsed()
    }
  }
  let timer = setTimeout(look, Math.min(timeout, longestTimer))
  return silence
}
