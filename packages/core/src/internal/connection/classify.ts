/**
 * The one classifier of failures: what frames, Node and amqplib report becomes an `AmqpErrorReason`.
 *
 * What the broker says is an object of the driver, with its code and text. Node's codes arrive as a string in `code`. What
 * only amqplib knows, its three ways to find a connection gone, can be told by the message alone: those of amqplib 2.3,
 * and a test pins each of them.
 */
import * as Predicate from "effect/Predicate"
import { channelLimitIn } from "./channelLimit.ts"
import {
  BrokerClose,
  ChannelEnded,
  MechanismRefused,
  NoChannelLeft,
  OpeningTimedOut,
  ProtocolViolation
} from "../driver/driver.ts"
import * as Reason from "../../model/errorReason.ts"

/** Where the failure happened, for the message and for codes that mean different things in different places. */
export interface Context {
  readonly operation: string
  /** The peer, as `host:port`. */
  readonly peer?: string | undefined
  readonly vhost?: string | undefined
  /** Whether the connection was not open yet: a 403 then means the login. */
  readonly handshake?: boolean | undefined
}

const codeOf = (cause: unknown): string | number | undefined => {
  if (!Predicate.hasProperty(cause, "code")) return undefined
  const code = cause.code
  return Predicate.isNumber(code) || Predicate.isString(code) ? code : undefined
}

const messageOf = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  // Both of "localhost"'s addresses were refused: the message of the aggregate is empty, its parts say which.
  if (cause instanceof AggregateError && cause.message === "") {
    return cause.errors.map((error) => messageOf(error)).join(", ")
  }
  return cause.message
}

// What OpenSSL and Node call the ways in which a certificate or a TLS handshake can fail.
const tlsCode =
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

const tlsFailed = (code: string, text: string, { operation, peer = "the broker" }: Context, cause: unknown) => {
  const advice = tlsAdvice.find(([pattern]) => pattern.test(code))?.[1] ?? "Check ca, cert, key and servername."
  const message = `${operation}: TLS with ${peer} failed: ${tlsText(code, text, cause)}. ${advice}`
  return new Reason.TlsFailed({ message, operation, cause, code })
}

const byReplyCode = (
  replyCode: number,
  text: string,
  context: Context,
  cause: unknown
): Reason.AmqpErrorReason | undefined => {
  const { operation } = context
  const fields = { message: `${operation}: ${text}`, operation, replyCode, cause }
  switch (replyCode) {
    case 311:
      return new Reason.MessageTooLarge(fields)
    case 320:
      return new Reason.ConnectionClosed({
        ...fields,
        message: `${operation}: the broker closed the connection: ${text}`
      })
    case 402:
    case 530:
      // `vhost connection limit (10) is reached`, `user connection limit ...`, `node connection limit ...`.
      if (context.handshake === true && /connection limit .*is reached/.test(text))
        return new Reason.BrokerError(fields)
      // One channel too many for this user or node, which may pass, and which `channelBudget` learns from.
      if (channelLimitIn(text) !== undefined) return new Reason.BrokerError(fields)
      return context.handshake === true
        ? new Reason.VirtualHostRefused({ ...fields, message: vhostRefused(context, text) })
        : new Reason.ProtocolError(fields)
    case 403:
      return context.handshake === true
        ? new Reason.AuthenticationFailed({
            ...fields,
            message: `${operation}: ${context.peer ?? "the broker"} refused the login (${text}). Check the user name, the password and the SASL mechanism.`
          })
        : new Reason.AccessRefused(fields)
    case 404:
      return new Reason.NotFound(fields)
    case 405:
      return new Reason.ResourceLocked(fields)
    case 406:
      // RabbitMQ says 406, not 311, for a message above its own limit.
      return /message size \d+ is larger than/.test(text)
        ? new Reason.MessageTooLarge(fields)
        : new Reason.PreconditionFailed({ ...fields, ...differenceIn(text, operation) })
    case 501:
    case 502:
    case 503:
    case 504:
    case 505:
    case 540:
      return new Reason.ProtocolError(fields)
    case 506:
    case 541:
      return new Reason.BrokerError(fields)
    default:
      return undefined
  }
}

// What RabbitMQ says of a declaration that it refuses: `inequivalent arg 'durable' for queue 'q' in vhost '/': received
// 'false' but current is 'true'`, or `none`, or `the value '10' of type 'byte'`; `invalid arg 'x-max-priority' for queue 'q'`.
// A reply text has at most 255 bytes: it ends in "..." where it was cut off, so every later part may be missing.
const refusedArgument = /\b(inequivalent|invalid) (?:arg|property) '([^']*)' for ((?:queue|exchange) '.*)$/s
const bothValues = /^(.*) in vhost '.*': received (.*) but current is (.*)$/s
const printedValue = [/^the value '(.*)' of type '\w+'$/s, /^'(.*)'$/s]

// These may be set by a policy, which changes them on a queue or exchange that exists (https://www.rabbitmq.com/docs/policies).
const isPolicy =
  /^(?:x-(?:message-ttl|expires|max-length|max-length-bytes|overflow|dead-letter-exchange|dead-letter-routing-key|dead-letter-strategy|delivery-limit|queue-mode|max-age)|alternate-exchange)$/

/** Which argument of a declaration differs from what exists, with both values, and what to do about it. */
const differenceIn = (text: string, operation: string) => {
  const [, verdict, argument, rest = ""] = refusedArgument.exec(text) ?? []
  if (argument === undefined) return undefined
  if (verdict === "invalid") return { argument }
  const [, subject, ...values] = bothValues.exec(rest) ?? []
  const [received, current] = values.map((value) => {
    for (const form of printedValue) {
      const inside = form.exec(value)?.[1]
      if (inside !== undefined) return inside
    }
    return value
  })
  if (subject === undefined || received === undefined || current === undefined) return { argument }
  const policy =
    isPolicy.test(argument) && current === "none" ? `, or leave ${argument} out and set it by a policy` : ""
  return {
    argument,
    received,
    current,
    message:
      `${operation}: ${subject} exists with another ${argument}: ${current}, where this declaration has ${received}. ` +
      `Declare it as it is, or delete it first, with the messages in it${policy}. The broker said: ${text}`
  }
}

const vhostRefused = (context: Context, text: string) =>
  `${context.operation}: the broker refused the virtual host ${JSON.stringify(context.vhost ?? "")} (${text}). ` +
  "It does not exist, or this user has no permission for it."

const bySystemCode = (code: string, text: string, context: Context, cause: unknown) => {
  const { operation } = context
  const peer = context.peer ?? "the broker"
  if (tlsCode.test(code)) return tlsFailed(code, text, context, cause)
  switch (code) {
    case "ECONNREFUSED":
    case "ENOTFOUND":
    case "EAI_AGAIN":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "EADDRNOTAVAIL":
    case "EACCES":
      return new Reason.ConnectFailed({
        message: `${operation}: cannot reach ${peer}: ${text}. Is the broker running there?`,
        operation,
        cause,
        code
      })
    case "ETIMEDOUT":
      return context.handshake === true
        ? new Reason.ConnectTimeout({ message: `${operation}: ${peer} did not answer: ${text}`, operation, cause })
        : new Reason.ConnectionClosed({ message: `${operation}: the connection was lost: ${text}`, operation, cause })
    case "ECONNRESET":
    case "ECONNABORTED":
    case "EPIPE":
      return new Reason.ConnectionClosed({
        message: `${operation}: the connection to ${peer} was lost: ${text}`,
        operation,
        cause
      })
    case "ERR_BUFFER_OUT_OF_BOUNDS":
    case "ERR_OUT_OF_RANGE":
      return new Reason.ProtocolError({
        message: `${operation}: ${peer} sent a frame that ends before its fields do: ${text}`,
        operation,
        cause
      })
    default:
      return undefined
  }
}

const byKind = (cause: unknown, text: string, context: Context): Reason.AmqpErrorReason | undefined => {
  const { operation } = context
  const peer = context.peer ?? "the broker"
  if (cause instanceof BrokerClose || cause instanceof ProtocolViolation) {
    const known = byReplyCode(cause.code, text, context, cause)
    if (known !== undefined || cause instanceof ProtocolViolation) return known
    const Closed = cause.of === "channel" ? Reason.ChannelClosed : Reason.ConnectionClosed
    return new Closed({
      message: `${operation}: the broker closed the ${cause.of}, with a code that AMQP does not have (${cause.code}): ${text}`,
      operation,
      cause,
      replyCode: cause.code
    })
  }
  if (cause instanceof OpeningTimedOut) {
    const message = `${operation}: ${peer} accepted the connection or the address, but went silent: ${text}`
    return new Reason.ConnectTimeout({ message, operation, cause })
  }
  if (cause instanceof NoChannelLeft) {
    const message = `${operation}: ${text}: raise channelMax, or lower the pool's max`
    return new Reason.ChannelMaxReached({ message, operation, cause, channelMax: 0 })
  }
  if (cause instanceof MechanismRefused) {
    return new Reason.AuthenticationFailed({ message: `${operation}: ${text} (${peer})`, operation, cause })
  }
  if (cause instanceof ChannelEnded) {
    return new Reason.ChannelClosed({ message: `${operation}: ${text}`, operation, cause })
  }
  return undefined
}

// The heartbeat's, that of a socket that ended, and the same while it opens.
const isGone = (text: string): boolean =>
  text.startsWith("Heartbeat timeout") ||
  text.startsWith("Unexpected close") ||
  text.startsWith("Socket closed abruptly")

/** Tells what a failure of amqplib, of the system or of the broker means. */
export const classify = (cause: unknown, context: Context): Reason.AmqpErrorReason => {
  const { operation } = context
  const text = messageOf(cause)
  const kind = byKind(cause, text, context)
  if (kind !== undefined) return kind
  const code = codeOf(cause)
  if (Predicate.isString(code)) {
    const known = bySystemCode(code, text, context, cause)
    if (known !== undefined) return known
  }
  if (isGone(text)) {
    const message = `${operation}: the connection to ${context.peer ?? "the broker"} is gone: ${text}`
    return new Reason.ConnectionClosed({ message, operation, cause })
  }
  return new Reason.UnknownError({
    message: `${operation}: ${text}`,
    operation,
    cause,
    replyCode: Predicate.isNumber(code) ? code : undefined
  })
}
