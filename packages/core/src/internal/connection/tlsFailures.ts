/** Describes TLS failures. A code of OpenSSL or Node identifies what an operator must change. */
import * as Predicate from "effect/Predicate"
import { TlsFailed } from "../../model/errorReason.ts"

/** The codes with which OpenSSL and Node report a failed certificate or TLS handshake. */
export const tlsCodePattern =
  /^(CERT_|ERR_TLS_|ERR_SSL_|ERR_OSSL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_|EPROTO)/

// OpenSSL's message is a line of its source code. Node puts a readable text into `reason`.
const tlsText = (code: string, text: string, cause: unknown): string =>
  code.startsWith("ERR_SSL_") && Predicate.hasProperty(cause, "reason") && Predicate.isString(cause.reason)
    ? cause.reason
    : text

const tlsAdvice: ReadonlyArray<readonly [code: RegExp, advice: string]> = [
  [/CERTIFICATE_REQUIRED$/, "The broker requires a client certificate: give cert and key."],
  [
    /ALERT_HANDSHAKE_FAILURE$/,
    "Either the broker requires a client certificate (give cert and key), or client and broker share no cipher suite."
  ],
  [
    /ALERT_(?:UNKNOWN_CA|\w*CERTIFICATE\w*)$/,
    "The broker refuses the client's certificate (cert): check its issuer and its expiry date."
  ],
  [/PROTOCOL_VERSION$|UNSUPPORTED_PROTOCOL$/, "Client and broker share no TLS version from minVersion up."],
  [
    /WRONG_VERSION_NUMBER$|HTTP_REQUEST$|PACKET_LENGTH_TOO_LONG$/,
    "The peer answered without TLS. Check that this is not the port of plain AMQP or HTTP: RabbitMQ listens on port 5671 with TLS, and on port 5672 without."
  ],
  [/ALTNAME_INVALID$/, "Check the host name. If the broker's certificate has another name, set servername to it."],
  [/CERT_HAS_EXPIRED|CERT_NOT_YET_VALID/, "Renew the broker's certificate, or correct this machine's clock."],
  [
    /^(?:UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_)/,
    "If you trust the authority that signed the broker's certificate, give the authority's certificate in ca."
  ]
]

/** Returns the error for a TLS failure, with advice. */
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
