/**
 * Opens a link to a host.
 *
 * Hazards of amqplib 2.3 that this module answers:
 * - `connect` has no way to be given up: an `AbortSignal` among the socket options destroys the socket.
 * - `vhost` is percent-decoded again by amqplib, so it is encoded first.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { createSecureContext } from "node:tls"
import type { AmqpConfig, Host } from "../AmqpConfig.ts"
import * as AmqpError from "../AmqpError.ts"
import * as Amqplib from "./amqplib.ts"
import { classify } from "./classify.ts"
import { closedByUs, Link, type LinkEvents } from "./link.ts"
import { bytesOf } from "./secretBytes.ts"
import { SocketInput } from "./socketInput.ts"

/** The largest frame that is taken before a size has been agreed on, in bytes. */
const largestGreeting = 131_072

// What amqplib's own credentials hold beside these, user name and password, lands in the options that a TLS socket keeps.
const credentialsOf = ({ credentials }: AmqpConfig, beginning: Amqplib.Beginning) => ({
  mechanism: credentials._tag === "External" ? "EXTERNAL" : "PLAIN",
  response: () => {
    const bytes =
      credentials._tag === "External"
        ? Buffer.alloc(0)
        : bytesOf(`\0${credentials.username}\0${Redacted.value(credentials.password)}`)
    Amqplib.beginnings.set(bytes, beginning)
    return bytes
  }
})

// The key and its passphrase go into the context, not among the options: a TLS socket keeps those.
const tlsOptionsOf = ({ tls }: AmqpConfig): Record<string, unknown> => {
  if (tls === undefined) return {}
  return {
    rejectUnauthorized: tls.verify,
    ...(tls.servername === undefined ? undefined : { servername: tls.servername }),
    secureContext: createSecureContext({
      minVersion: tls.minVersion,
      ...(tls.ca === undefined ? undefined : { ca: [...tls.ca] }),
      ...(tls.cert === undefined ? undefined : { cert: tls.cert }),
      ...(tls.key === undefined ? undefined : { key: Redacted.value(tls.key) }),
      ...(tls.passphrase === undefined ? undefined : { passphrase: Redacted.value(tls.passphrase) }),
      ...(tls.ciphers === undefined ? undefined : { ciphers: tls.ciphers })
    })
  }
}

/**
 * Opens a link to one host, within `connectTimeout`, and hands it to `own` in the tick in which it arrives. Given up, by
 * interruption or time, it leaves no socket behind.
 */
export const connect = (
  config: AmqpConfig,
  host: Host,
  events: LinkEvents,
  own: (link: Link) => void
): Effect.Effect<void, AmqpError.AmqpError> => {
  const peer = `${host.host.includes(":") ? `[${host.host}]` : host.host}:${host.port}`
  const operation = "connection.open"
  return Effect.callback<void, AmqpError.AmqpError>((resume) => {
    const aborting = new AbortController()
    const beginning = new Amqplib.Beginning()
    const input = new SocketInput()
    let givenUp = false
    const failed = (cause: unknown) =>
      resume(
        Effect.fail(
          AmqpError.fromReason(
            classify(beginning.refusedBy ?? cause, { operation, peer, vhost: config.vhost, handshake: true })
          )
        )
      )
    let connecting: Promise<Amqplib.Model>
    try {
      // Not a literal at the call: Node takes a `signal` among a socket's options, amqplib's types do not know it.
      const socketOptions = {
        credentials: credentialsOf(config, beginning),
        clientProperties: {
          product: "effect-amqp",
          ...config.clientProperties,
          ...(config.connectionName === undefined ? undefined : { connection_name: config.connectionName })
        },
        noDelay: config.tcp.noDelay,
        keepAlive: config.tcp.keepAlive,
        keepAliveDelay: Duration.toMillis(config.tcp.keepAliveDelay),
        timeout: Duration.toMillis(config.socketTimeout),
        signal: aborting.signal,
        onread: input.onread,
        ...tlsOptionsOf(config)
      }
      const url = {
        protocol: config.tls === undefined ? "amqp" : "amqps",
        hostname: host.host,
        port: host.port,
        vhost: encodeURIComponent(config.vhost),
        locale: config.locale,
        frameMax: config.frameMax,
        channelMax: config.channelMax,
        heartbeat: Duration.toSeconds(config.heartbeat),
        // Nothing is agreed on while it opens, and some brokers have much to say of themselves.
        maxFrameSize: Math.max(config.frameMax, largestGreeting)
      }
      connecting = Amqplib.open(url, socketOptions)
    } catch (cause) {
      return failed(cause)
    }
    connecting.then((model) => {
      if (beginning.endedBy !== undefined) {
        // With an error, which the model passes on: else amqplib's heartbeat would go on.
        model.on("error", () => {})
        Amqplib.internals(model).stream?.destroy(new Error("Connection closed"))
        return failed(beginning.endedBy)
      }
      const link = new Link(model, peer, events, config, input)
      beginning.end()
      if (givenUp) return link.destroy(closedByUs(peer))
      own(link)
      if (beginning.blockedBy !== undefined) model.emit("blocked", beginning.blockedBy)
      return resume(Effect.void)
    }, failed)
    return Effect.sync(() => {
      givenUp = true
      aborting.abort()
    })
  }).pipe(
    Effect.timeoutOrElse({
      duration: config.connectTimeout,
      orElse: () =>
        Effect.fail(
          AmqpError.fromReason(
            new AmqpError.ConnectTimeout({
              message: `${operation}: ${peer} did not finish TCP, TLS and the AMQP handshake within ${Duration.format(config.connectTimeout)} (connectTimeout)`,
              operation
            })
          )
        )
    })
  )
}
