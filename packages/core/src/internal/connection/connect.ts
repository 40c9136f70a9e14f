/** Opens a link to a host, at one of its addresses. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { LookupAddress } from "node:dns"
import { createSecureContext } from "node:tls"
import type { AmqpConfig, Host, Tls } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import { addressesOf, lookupOf, shareOf } from "./addresses.ts"
import { classify } from "./classify.ts"
import { isOfLogin } from "./refusals.ts"
import { codeOf, readAgain } from "../config/tlsFiles.ts"
import { elapsed } from "../waiting/elapsed.ts"
import * as Driver from "../driver/driver.ts"
import { fail } from "../../model/failures.ts"
import { closedByUs, Link, type LinkEvents } from "./link.ts"

// The key and its passphrase go into the context, not among the options: a TLS socket keeps those.
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
 * Opens a link to one host, within `connectTimeout`, and hands it to `own` in the tick in which it arrives. Given up, by
 * interruption or time, it leaves no socket behind.
 *
 * Of several addresses the next one is tried when one refuses, or has said nothing for its share of the time.
 */
export const connect = (
  config: AmqpConfig,
  host: Host,
  events: LinkEvents,
  own: (link: Link) => void
): Effect.Effect<void, AmqpError.AmqpError> => {
  const name = `${host.host.includes(":") ? `[${host.host}]` : host.host}:${host.port}`
  let attempt: Driver.Attempt | undefined
  let addresses: ReadonlyArray<LookupAddress> = []

  /** The peer, for messages: with the address that has accepted the connection, or those that are left. */
  const peerNow = () => {
    const tried = attempt?.address ?? addresses.map(({ address }) => address).join(", ")
    return tried === "" || tried === host.host ? name : `${name} (${tried})`
  }

  const notAmqp = () => {
    const message = attempt === undefined ? undefined : Driver.foreignPeer(attempt.first, peerNow())
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

  const tooLate = (limit: Duration.Duration, whose: string) =>
    notAmqp() ??
    new AmqpError.ConnectTimeout({
      message: `${operation}: ${peerNow()} did not finish TCP, TLS and the AMQP handshake within ${Duration.format(limit)} (${whose})`,
      operation
    })

  const open = (tls: Record<string, unknown>): Effect.Effect<void, AmqpError.AmqpErrorReason> =>
    Effect.callback<void, AmqpError.AmqpErrorReason>((resume) => {
      let givenUp = false
      attempt = Driver.open(
        {
          config,
          host,
          socketOptions: { ...(addresses.length === 0 ? undefined : { lookup: lookupOf(addresses) }), ...tls }
        },
        (connection) => {
          const link = new Link(connection, name, events, config)
          if (givenUp) return link.destroy(closedByUs(name))
          own(link)
          link.begin()
          // What the broker ends in the same breath in which it opens it was never open: that is a failed attempt.
          return resume(link.closedBy === undefined ? Effect.void : Effect.fail(failed(link.cause)))
        },
        // What an attempt fails with that was given up is not what the present one fails with.
        (cause) => (givenUp ? undefined : resume(Effect.fail(failed(cause))))
      )
      const { abort } = attempt
      return Effect.sync(() => {
        givenUp = true
        abort()
      })
    })

  const all = Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const begun = elapsed(clock)
    const tls = yield* secure(config.tls, failed)
    addresses = yield* Effect.mapError(addressesOf(host.host), failed)
    let passing: AmqpError.AmqpErrorReason | undefined
    while (true) {
      const left = Duration.toMillis(config.connectTimeout) - (elapsed(clock) - begun)
      const share = Duration.millis(shareOf(left, addresses.length))
      const silent = Effect.andThen(
        Effect.sleep(share),
        Effect.suspend(() =>
          attempt?.first.length === 0 ? Effect.fail(tooLate(share, "its share of connectTimeout")) : Effect.never
        )
      )
      const attempted = addresses.length > 1 ? Effect.raceFirst(open(tls), silent) : open(tls)
      const reason = yield* Effect.match(attempted, { onFailure: (reason) => reason, onSuccess: () => undefined })
      if (reason === undefined) return
      if (reason.isRetryable) passing = reason
      const rest = reason._tag === "ConnectFailed" || isOfLogin(reason) ? [] : after(addresses, attempt?.address)
      if (rest.length === 0) return yield* Effect.fail(isOfLogin(reason) ? reason : (passing ?? reason))
      yield* Effect.annotateLogs(Effect.logDebug("AMQP address not usable, trying the next"), {
        peer: peerNow(),
        reason: reason.message
      })
      addresses = rest
    }
  })
  return all.pipe(
    Effect.catch(fail),
    Effect.timeoutOrElse({
      duration: config.connectTimeout,
      orElse: () => fail(tooLate(config.connectTimeout, "connectTimeout"))
    })
  )
}

/** What is left of some addresses without that one; it is the first unless Node has passed over others, which come last. */
const after = (addresses: ReadonlyArray<LookupAddress>, address: string | undefined): ReadonlyArray<LookupAddress> => {
  const i = Math.max(
    0,
    addresses.findIndex((one) => one.address === address)
  )
  return [...addresses.slice(i + 1), ...addresses.slice(0, i)]
}

/** The socket's options of TLS, by what the files hold now. */
const secure = Effect.fnUntraced(function* (
  tls: Tls | undefined,
  failed: (cause: unknown) => AmqpError.AmqpErrorReason
): Effect.fn.Return<Record<string, unknown>, AmqpError.AmqpErrorReason> {
  if (tls === undefined) return {}
  const unusable = (setting: string, why: string) =>
    new AmqpError.ConnectFailed({
      message: `${operation}: ${setting}: ${why}. Files of TLS are read again at each connect.`,
      operation
    })
  const now = yield* Effect.mapError(readAgain(tls), ({ path, remark, setting }) =>
    unusable(setting, `${JSON.stringify(path)} cannot be used (${remark})`)
  )
  try {
    return tlsOptionsOf(now)
  } catch (cause) {
    const { files } = tls
    if (files === undefined) return yield* Effect.fail(failed(cause))
    // A certificate and its key may be two files, of which one has been renewed a moment before the other.
    const settings = new Set([...files.cert, ...files.key, ...files.ca].map(({ setting }) => setting))
    return yield* Effect.fail(
      unusable([...settings].join(", "), `what they hold cannot be used together (${codeOf(cause)})`)
    )
  }
})
