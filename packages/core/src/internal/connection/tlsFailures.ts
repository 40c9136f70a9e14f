/** How TLS fails: by a code of OpenSSL's or Node's, which says what an operator has to change. */
import * as Predicate from "effect/Predicate"
import { TlsFailed } from "../../model/errorReason.ts"

/** What OpenSSL and Node call the ways in which a certificate or a TLS handshake can fail. */
export const tlsCode =
  /^(CERT_|ERR_TLS_|ERR_SSL_|ERR_OSSL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_|EPROTO)/

// OpenSSL's message is a line of its source; what Node makes of it is beside it.
const tlsText = (code: string, text: string, cause: unknown): string =>
  code.startsWith("ERR_SSL_") && Predicate.hasProperty(cause, "reason") && Predicate.isString(cause.reason)
    ? cause.reason
    : text

const tlsAdvice: ReadonlyArray<readonly [code: RegExp, advice: string]> = [
  [/CERTIFICATE_REQUIRED$/, "The broker asks for a client certificate: give cert and key."],
  [
    /ALERT_HANDSHAKE_FAILURE$/,
    "Either the broker asks for a client certificate (give cert and key), or no cipher suite is common to both."
  ],
  [
    /ALERT_(?:UNKNOWN_CA|\w*CERTIFICATE\w*)$/,
    "The broker refuses the client's certificate (cert): who signed it, or when it expires."
  ],
  [/PROTOCOL_VERSION$|UNSUPPORTED_PROTOCOL$/, "There is no TLS version, from minVersion up, that both speak."],
  [
    /WRONG_VERSION_NUMBER$|HTTP_REQUEST$|PACKET_LENGTH_TOO_LONG$/,
    "The peer answered without TLS. Is this the port of plain AMQP, or of HTTP? RabbitMQ's port with TLS is 5671, and 5672 the one without."
  ],
  [/ALTNAME_INVALID$/, "Is this the broker's name? If its certificate has another one, say so by servername."],
  [/CERT_HAS_EXPIRED|CERT_NOT_YET_VALID/, "Renew the broker's certificate, or set this machine's clock."],
  [/^(?:UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_)/, "If you trust the broker's authority, name its certificate in ca."]
]

/** What such a failure is told as, with what to do about it. */
export const tlsFailed = (
  code: string,
  text: string,
  { operation, peer = "the broker" }: { readonly operation: string; readonly peer?: string | undefined },
  cause: unknown
): TlsFailed => {
  const advice = tlsAdvice.find(([pattern]) => pattern.test(code))?.[1] ?? "Check ca, cert, key and servername."
  const message = `${operation}: TLS with ${peer} failed: ${tlsText(code, text, cause)}. ${advice}`
  return new TlsFailed({ message, operation, cause, code })
}
