/** Opens a link to one of a host's addresses. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { LookupAddress } from "node:dns"
import { createSecureContext } from "node:tls"
import type { AmqpConfig, Host, Tls } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import { addressesOf, makeLookup, addressTimeout } from "./addresses.ts"
import { checkAddress, classify } from "./classify.ts"
import { isLoginRefusal } from "./refusals.ts"
import { errorCodeOf, reloadTls } from "../config/tlsFiles.ts"
import { monotonicMillis } from "../waiting/monotonicMillis.ts"
import * as Driver from "../driver/driver.ts"
import { fail } from "../../model/failures.ts"
import { closedByUs, Link, type LinkEvents } from "./link.ts"

// The key and its passphrase go into the secure context, not into the options, because a TLS socket retains its
// options.
const tlsOptionsOf = (tls: Tls): Record<string, unknown> => {
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

const operation = "connection.open"

/**
 * Opens a link to one host within `connectTimeout`, and passes it to `own` in the tick in which it opens. Interruption
 * or a timeout leaves no socket behind.
 * When a host has several addresses, the next one is tried when one refuses, or has been silent for its share of the
 * time.
 */
export const connect = (
  config: AmqpConfig,
  host: Host,
  events: LinkEvents,
  own: (link: Link) => void
): Effect.Effect<void, AmqpError.AmqpError> => {
  const name = `${host.host.includes(":") ? `[${host.host}]` : host.host}:${host.port}`
  let attempt: Driver.ConnectAttempt | undefined
  let addresses: ReadonlyArray<LookupAddress> = []

  /** The peer, for messages: with the address that accepted the connection, or with the addresses that are left. */
  const peerNow = () => {
    const tried = attempt?.address ?? addresses.map(({ address }) => address).join(", ")
    return tried === "" || tried === host.host ? name : `${name} (${tried})`
  }

  const notAmqp = () => {
    const message = attempt === undefined ? undefined : Driver.describeForeignPeer(attempt.first, peerNow())
    return message === undefined
      ? undefined
      : new AmqpError.ProtocolError({ message: `${operation}: ${message}`, operation })
  }

  const failed = (cause: unknown): AmqpError.AmqpErrorReason =>
    notAmqp() ??
    classify(cause, {
      operation,
      peer: peerNow(),
      vhost: config.vhost,
      handshake: true
    })

  const timeoutReason = (limit: Duration.Duration, whose: string) =>
    notAmqp() ??
    new AmqpError.ConnectTimeout({
      message: `${operation}: ${peerNow()} did not finish TCP, TLS and the AMQP handshake within ${Duration.format(limit)} (${whose}). ${checkAddress}`,
      operation
    })

  const open = (
    opener: typeof Driver.open,
    tls: Record<string, unknown>
  ): Effect.Effect<void, AmqpError.AmqpErrorReason> =>
    Effect.callback<void, AmqpError.AmqpErrorReason>((resume) => {
      let isAborted = false
      attempt = opener(
        {
          config,
          host,
          socketOptions: { ...(addresses.length === 0 ? undefined : { lookup: makeLookup(addresses) }), ...tls }
        },
        (connection) => {
          const link = new Link(connection, name, events, config)
          if (isAborted) return link.destroy(closedByUs(name))
          own(link)
          link.listen()
          // A connection that the broker closes immediately after it opens counts as a failed attempt.
          return resume(link.closedBy === undefined ? Effect.void : Effect.fail(failed(link.cause)))
        },
        // The failure of an aborted attempt is not that of the current one.
        (cause) => (isAborted ? undefined : resume(Effect.fail(failed(cause))))
      )
      const { abort } = attempt
      return Effect.sync(() => {
        isAborted = true
        abort()
      })
    })

  const all = Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const opener = yield* Driver.Opener
    const begun = monotonicMillis(clock)
    const tls = yield* readTlsOptions(config.tls, failed)
    // Without a socket there is no address.
    if (opener === Driver.open) addresses = yield* Effect.mapError(addressesOf(host.host), failed)
    let passing: AmqpError.AmqpErrorReason | undefined
    while (true) {
      const left = Duration.toMillis(config.connectTimeout) - (monotonicMillis(clock) - begun)
      const share = Duration.millis(addressTimeout(left, addresses.length))
      const silent = Effect.andThen(
        Effect.sleep(share),
        Effect.suspend(() =>
          attempt?.first.length === 0 ? Effect.fail(timeoutReason(share, "its share of connectTimeout")) : Effect.never
        )
      )
      const attempted = addresses.length > 1 ? Effect.raceFirst(open(opener, tls), silent) : open(opener, tls)
      const reason = yield* Effect.match(attempted, { onFailure: (reason) => reason, onSuccess: () => undefined })
      if (reason === undefined) return
      if (reason.isRetryable) passing = reason
      const rest =
        reason._tag === "ConnectFailed" || isLoginRefusal(reason) ? [] : addressesAfter(addresses, attempt?.address)
      if (rest.length === 0) return yield* Effect.fail(isLoginRefusal(reason) ? reason : (passing ?? reason))
      yield* Effect.annotateLogs(
        Effect.logDebug("AMQP connection attempt failed at one address of the host, trying the next address"),
        {
          peer: peerNow(),
          reason: reason.message
        }
      )
      addresses = rest
    }
  })
  return all.pipe(
    Effect.catch(fail),
    Effect.timeoutOrElse({
      duration: config.connectTimeout,
      orElse: () => fail(timeoutReason(config.connectTimeout, "connectTimeout"))
    })
  )
}

/**
 * Returns the addresses without `address`. It is the first one unless Node has skipped others; the skipped ones come
 * last.
 */
const addressesAfter = (
  addresses: ReadonlyArray<LookupAddress>,
  address: string | undefined
): ReadonlyArray<LookupAddress> => {
  const i = Math.max(
    0,
    addresses.findIndex((one) => one.address === address)
  )
  return [...addresses.slice(i + 1), ...addresses.slice(0, i)]
}

/** Reads the TLS options of the socket from the current contents of the files. */
const readTlsOptions = Effect.fnUntraced(function* (
  tls: Tls | undefined,
  failed: (cause: unknown) => AmqpError.AmqpErrorReason
): Effect.fn.Return<Record<string, unknown>, AmqpError.AmqpErrorReason> {
  if (tls === undefined) return {}
  const unusable = (setting: string, why: string) =>
    new AmqpError.ConnectFailed({
      message: `${operation}: ${setting}: ${why}. TLS files are read again at each attempt to connect.`,
      operation
    })
  const now = yield* Effect.mapError(reloadTls(tls), ({ path, remark, setting }) =>
    unusable(setting, `${JSON.stringify(path)} cannot be used (${remark})`)
  )
  try {
    return tlsOptionsOf(now)
  } catch (cause) {
    const { files } = tls
    if (files === undefined) return yield* Effect.fail(failed(cause))
    // A certificate and its key may be two files, of which only one has been renewed yet.
    const settings = new Set([...files.cert, ...files.key, ...files.ca].map(({ setting }) => setting))
    return yield* Effect.fail(
      unusable([...settings].join(", "), `the files cannot be used together (${errorCodeOf(cause)})`)
    )
  }
})
