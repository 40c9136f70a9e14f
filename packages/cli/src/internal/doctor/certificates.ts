/**
 * When the broker's certificate and the client's own expire.
 *
 * The broker's is read on a TLS connection of its own, which accepts any certificate, sends nothing and is closed: the
 * library's connection shows no certificate, and there is none if the certificate has expired.
 */
import type { AmqpConfig } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { X509Certificate } from "node:crypto"
import { isIP } from "node:net"
import * as Tls from "node:tls"
import { type Check, error, ok, warning } from "./Check.ts"
import { addressOf } from "./configuration.ts"

const day = 86_400_000

/** Days before the end from which on it is a warning. Authorities that renew automatically do so at 30 days. */
const soon = 30

/** A silent address is waited for once more, by the library. */
const patience = Duration.seconds(5)

/** More certificates than a chain has. */
const longest = 10

const plural = (count: number) => `${count} day${count === 1 ? "" : "s"}`

/** The finding of a chain, whose first certificate is the peer's own: of the one that expires first. */
const checkOf = (subject: string, chain: ReadonlyArray<X509Certificate>, now: number, renew: string): Check => {
  const endOf = (certificate: X509Certificate) => Date.parse(certificate.validTo)
  const first = chain.reduce((a, b) => (endOf(b) < endOf(a) ? b : a))
  const whose = first === chain[0] ? "" : `the issuer ${JSON.stringify(first.subject.replaceAll("\n", ", "))} `
  const [from, to] = [Date.parse(first.validFrom), endOf(first)]
  const on = `on ${new Date(to).toISOString().slice(0, 10)}`
  const days = Math.floor(Math.abs(to - now) / day)
  // A chain may have an issuer that nothing depends on any more: whether it is trusted, the connection shows.
  const expired = first === chain[0] ? error : warning
  if (now > to) return expired("certificate", subject, `${whose}expired ${plural(days)} ago, ${on}`, renew)
  if (now < from) {
    const message = `${whose}is not valid before ${new Date(from).toISOString()}`
    return error("certificate", subject, message, "Correct this machine's clock, or use a certificate that is valid.")
  }
  const message = `${whose}expires in ${plural(days)}, ${on}`
  return days < soon ? warning("certificate", subject, message, renew) : ok("certificate", subject, message)
}

/** The chain that the peer has shown, as far as the authorities are known; none if it has shown none. */
const chainOf = (socket: Tls.TLSSocket): ReadonlyArray<X509Certificate> => {
  const found: Array<X509Certificate> = []
  let next: Tls.DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (next?.raw !== undefined && found.length < longest) {
    found.push(new X509Certificate(next.raw))
    // The certificate of an authority is its own issuer.
    next = next.issuerCertificate === next ? undefined : next.issuerCertificate
  }
  return found
}

const shownBy = ({ host, port }: AmqpConfig.Host, tls: AmqpConfig.Tls) =>
  Effect.callback<ReadonlyArray<X509Certificate>>((resume) => {
    const servername = tls.servername ?? (isIP(host) === 0 ? host : undefined)
    const socket = Tls.connect({
      host,
      port,
      rejectUnauthorized: false,
      minVersion: tls.minVersion,
      ...(servername === undefined ? {} : { servername }),
      ...(tls.ca === undefined ? {} : { ca: [...tls.ca] }),
      ...(tls.cert === undefined ? {} : { cert: tls.cert }),
      ...(tls.key === undefined ? {} : { key: Redacted.value(tls.key) }),
      ...(tls.passphrase === undefined ? {} : { passphrase: Redacted.value(tls.passphrase) }),
      ...(tls.ciphers === undefined ? {} : { ciphers: tls.ciphers })
    })
    const end = () => {
      const chain = chainOf(socket)
      resume(Effect.succeed(chain))
      socket.destroy()
    }
    socket.once("secureConnect", end)
    // A broker that refuses the client has shown its own certificate before.
    socket.on("error", end)
    socket.once("close", end)
    return Effect.sync(() => socket.destroy())
  })

const pem = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g

/** The finding of the broker's certificate. None without TLS, or if it is not reached: that is another finding. */
export const broker = Effect.fnUntraced(function* (
  { connectTimeout, tls }: AmqpConfig.AmqpConfig,
  host: AmqpConfig.Host
) {
  if (tls === undefined) return []
  const chain = yield* shownBy(host, tls).pipe(
    Effect.timeoutOrElse({ duration: Duration.min(connectTimeout, patience), orElse: () => Effect.succeed([]) })
  )
  const now = yield* Clock.currentTimeMillis
  if (chain.length === 0) return []
  return [
    checkOf(addressOf(host), chain, now, "Renew the broker's certificate: clients refuse it once it has expired.")
  ]
})

/** The finding of the client's certificate. None if there is none. */
export const client = Effect.fnUntraced(function* ({ tls }: AmqpConfig.AmqpConfig) {
  const chain = (tls?.cert?.match(pem) ?? []).map((text) => new X509Certificate(text))
  const now = yield* Clock.currentTimeMillis
  if (chain.length === 0) return []
  const renew = "Renew it (AMQP_TLS_CERT_FILE): the broker refuses it once it has expired."
  return [checkOf("of the client", chain, now, renew)]
})
