/**
 * Opens a connection.
 * Hazards of amqplib 2.3 that this module handles:
 * - `connect` cannot be cancelled: an `AbortSignal` in the socket options destroys the socket instead.
 * - amqplib reports its own timeout of an opening connection by an error message only, so this module detects silence
 *   itself.
 * - amqplib percent-decodes `vhost` again, so it is encoded first.
 * - amqplib keeps its credentials in options that a TLS socket retains, so ours are built only when they are sent.
 */
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"
import type { AmqpConfig, Host } from "../../model/config.ts"
import { secretBytes } from "../wire/secretBytes.ts"
import * as Amqplib from "./amqplib.ts"
import { Connection } from "./connection.ts"
import type { DriverConnection } from "./contract.ts"
import { HandshakeTimedOut } from "./errors.ts"
import { Tap, unusableRuntime } from "./tap.ts"

/** Largest frame accepted before a size is negotiated, in bytes. Some brokers send large server properties. */
const maxHandshakeFrame = 131_072

const isBun = "bun" in process.versions

export interface Endpoint {
  readonly config: AmqpConfig
  readonly host: Host
  /** Options of Node's socket: the TLS options and the addresses. */
  readonly socketOptions: Record<string, unknown>
}

/** A connection that is being opened. */
export interface ConnectAttempt {
  /** The first bytes that the peer sent. */
  readonly first: Buffer
  /** The peer's address, once it has sent something. */
  readonly address: string | undefined
  /** Cancels the attempt and releases its socket. `failed` may still be called. */
  readonly abort: () => void
}

const credentialsOf = ({ credentials }: AmqpConfig, mechanism: string) => ({
  mechanism,
  response: () =>
    credentials._tag === "External"
      ? Buffer.alloc(0)
      : secretBytes(`\0${credentials.username}\0${Redacted.value(credentials.password)}`)
})

/**
 * Opens a connection. Exactly one of `opened` and `failed` is called, once. After `opened`, no frame is processed until
 * `watch` is called.
 */
export const open = (
  { config, host, socketOptions }: Endpoint,
  opened: (connection: DriverConnection) => void,
  failed: (cause: unknown) => void
): ConnectAttempt => {
  const aborting = new AbortController()
  const mechanism = config.credentials._tag === "External" ? "EXTERNAL" : "PLAIN"
  const heartbeat = Duration.toSeconds(config.heartbeat)
  const initialFrameMax = Math.max(config.frameMax, maxHandshakeFrame)
  const { channelMax, frameMax } = config
  const tap = new Tap({ mechanism, channelMax, frameMax, heartbeat, initialFrameMax }, () => aborting.abort())
  const silence = watchSilence(tap, Duration.toMillis(config.socketTimeout), () => aborting.abort())
  const fail = (cause: unknown) => {
    silence.stop()
    failed(silence.error ?? tap.failure ?? cause)
  }
  const connected = (model: Amqplib.Model) => {
    silence.stop()
    const { negotiated: agreed, socket } = tap
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
      maxFrameSize: initialFrameMax
    }
    Amqplib.open(url, options).then(connected, fail)
  } catch (cause) {
    fail(cause)
  }
  return {
    get first() {
      return tap.firstReceived
    },
    get address() {
      return tap.address
    },
    abort: () => aborting.abort()
  }
}

/** Longest delay of a Node timer, in milliseconds. */
const maxTimerMillis = 2 ** 31 - 1

/** Calls `onTimeout` when no bytes have arrived for `timeout` milliseconds. */
const watchSilence = (tap: Tap, timeout: number, onTimeout: () => void) => {
  const silence = {
    error: undefined as Error | undefined,
    stop: () => clearTimeout(timer)
  }
  const check = () => {
    const left = tap.readAt + timeout - performance.now()
    if (left > 0) timer = setTimeout(check, Math.min(left, maxTimerMillis))
    else {
      silence.error = new HandshakeTimedOut(`no bytes received for ${timeout} ms (socketTimeout)`)
      onTimeout()
    }
  }
  let timer = setTimeout(check, Math.min(timeout, maxTimerMillis))
  return silence
}
