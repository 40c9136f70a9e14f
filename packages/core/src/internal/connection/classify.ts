/**
 * Classifies failures: everything that frames, Node and amqplib report becomes an `AmqpErrorReason`. No other module
 * does this.
 * A close by the broker is an object of the driver, with its code and text. Node's codes are a string in `code`.
 * amqplib reports a lost connection in three ways that only their messages identify. The messages are those of amqplib
 * 2.3, and a test pins each of them.
 */
import * as Predicate from "effect/Predicate"
import { channelLimitIn, differenceIn, isConnectionLimit, isMessageSize, isMissingName } from "./brokerTexts.ts"
import {
  BrokerClose,
  ChannelEnded,
  MechanismRefused,
  ports,
  ChannelNumbersExhausted,
  HandshakeTimedOut,
  ProtocolViolation
} from "../driver/driver.ts"
import * as Reason from "../../model/errorReason.ts"
import { tlsCodePattern, tlsFailed } from "./tlsFailures.ts"
import { withoutPeriod } from "../waiting/phrases.ts"

/** Where a failure happened: for the message, and for codes whose meaning depends on it. */
export interface Context {
  readonly operation: string
  /** The peer, as `host:port`. */
  readonly peer?: string | undefined
  readonly vhost?: string | undefined
  /** Whether the connection was still opening: a 403 then refers to the login. */
  readonly handshake?: boolean | undefined
}

const codeOf = (cause: unknown): string | number | undefined => {
  if (!Predicate.hasProperty(cause, "code")) return undefined
  const code = cause.code
  return Predicate.isNumber(code) || Predicate.isString(code) ? code : undefined
}

const messageOf = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause)
  // Several addresses failed, such as both addresses of "localhost": the message of the aggregate is empty, and its
  // parts have the details.
  if (cause instanceof AggregateError && cause.message === "") {
    return cause.errors.map((error) => messageOf(error)).join(", ")
  }
  return cause.message
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
      if (context.handshake === true && isConnectionLimit(text)) return new Reason.BrokerError(fields)
      // There is one channel too many for this user or node. The condition may be transient, and `channelBudget` limits
      // further openings.
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
      return new Reason.NotFound({
        ...fields,
        message: isMissingName(text)
          ? `${fields.message}. Declare it first, or check its name and the virtual host.`
          : fields.message
      })
    case 405:
      return new Reason.ResourceLocked(fields)
    case 406:
      return isMessageSize(text)
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

/** What to do about a peer that does not answer. */
export const checkAddress = "Check the host and the port, and firewalls on the way."

const vhostRefused = (context: Context, text: string) =>
  `${context.operation}: the broker refused the virtual host ${JSON.stringify(context.vhost ?? "")} (${text}). ` +
  "It does not exist, or this user has no permission for it. Check its name, in a URL the path, and the permissions of the user."

// Listeners of other protocols, such as those of TLS, PostgreSQL or Erlang, close the connection without an answer.
const lost = (text: string, { handshake, operation, peer = "the broker" }: Context) =>
  handshake === true
    ? `${operation}: ${peer} closed the connection before the AMQP handshake was finished: ${withoutPeriod(text)}. ` +
      `Check that this is the port of AMQP: ${ports} If it is, the broker's log says why.`
    : `${operation}: the connection to ${peer} was lost: ${text}`

const bySystemCode = (code: string, text: string, context: Context, cause: unknown) => {
  const { operation } = context
  const peer = context.peer ?? "the broker"
  if (tlsCodePattern.test(code)) return tlsFailed(code, text, context, cause)
  switch (code) {
    case "ECONNREFUSED":
    case "ENOTFOUND":
    case "EAI_AGAIN":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "EADDRNOTAVAIL":
    case "EACCES":
      return new Reason.ConnectFailed({
        message: `${operation}: cannot reach ${peer}: ${withoutPeriod(text)}. Check that the broker is running there.`,
        operation,
        cause,
        code
      })
    case "ETIMEDOUT":
      return context.handshake === true
        ? new Reason.ConnectTimeout({
            message: `${operation}: ${peer} did not answer: ${withoutPeriod(text)}. ${checkAddress}`,
            operation,
            cause
          })
        : new Reason.ConnectionClosed({ message: `${operation}: the connection was lost: ${text}`, operation, cause })
    case "ECONNRESET":
    case "ECONNABORTED":
    case "EPIPE":
      return new Reason.ConnectionClosed({ message: lost(text, context), operation, cause })
    case "ERR_BUFFER_OUT_OF_BOUNDS":
    case "ERR_OUT_OF_RANGE":
      return new Reason.ProtocolError({
        message: `${operation}: ${peer} sent a frame whose size does not match its fields: ${text}`,
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
      message: `${operation}: the broker closed the ${cause.of} with reply code ${cause.code}, which AMQP does not define: ${text}`,
      operation,
      cause,
      replyCode: cause.code
    })
  }
  if (cause instanceof HandshakeTimedOut) {
    const message = `${operation}: ${peer} stopped answering while the connection was opening: ${withoutPeriod(text)}. ${checkAddress}`
    return new Reason.ConnectTimeout({ message, operation, cause })
  }
  if (cause instanceof ChannelNumbersExhausted) {
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

// amqplib's messages for a missed heartbeat, for a socket that ended, and for a socket that ended while the connection
// opened.
const isGone = (text: string): boolean =>
  text.startsWith("Heartbeat timeout") ||
  text.startsWith("Unexpected close") ||
  text.startsWith("Socket closed abruptly")

/** Classifies a failure of amqplib, of the system or of the broker. */
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
    return new Reason.ConnectionClosed({ message: lost(text, context), operation, cause })
  }
  return new Reason.UnknownError({
    message: `${operation}: ${text}`,
    operation,
    cause,
    replyCode: Predicate.isNumber(code) ? code : undefined
  })
}
