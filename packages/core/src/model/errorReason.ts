/**
 * Why an AMQP operation failed, as data: one class a reason.
 *
 * Every reason says what happened, what was expected and what to do in its `message`, whether trying again may help
 * (`isRetryable`), and how far the damage reaches (`severity`):
 *
 * - `"operation"`: this call alone failed; its channel, if it had one, goes on working.
 * - `"channel"`: the channel is closed or unfit; its connection and its siblings go on working.
 * - `"connection"`: the connection is gone or could not be made.
 *
 * Reply codes are those of AMQP 0-9-1, section 1.3, as RabbitMQ uses them (https://www.rabbitmq.com/docs/channels#error-handling).
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

export const ReasonTypeId = "~@effect-amqp/core/AmqpError/Reason" as const

/** How far the damage of a failure reaches. */
export type Severity = "operation" | "channel" | "connection"

const id = (tag: string) => `@effect-amqp/core/AmqpError/${tag}`

const Fields = {
  message: Schema.String,
  /** The operation that failed, in AMQP's words: `queue.declare`, `channel.open`, `connection.open`. */
  operation: Schema.optional(Schema.String),
  /** What the driver or the system reported. Never holds a secret. */
  cause: Schema.optional(Schema.Defect())
}

const ReplyFields = {
  ...Fields,
  /** The code of the broker's `channel.close` or `connection.close`. */
  replyCode: Schema.optional(Schema.Int)
}

/** Every mistake in a configuration at once, each with the setting, what it got, and what it wants. */
export class InvalidConfig extends Schema.TaggedError<InvalidConfig>(id("InvalidConfig"))("InvalidConfig", {
  ...Fields,
  issues: Schema.Array(Schema.Struct({ setting: Schema.String, got: Schema.String, wants: Schema.String }))
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/** An argument that was refused before anything was sent. */
export class InvalidArgument extends Schema.TaggedError<InvalidArgument>(id("InvalidArgument"))("InvalidArgument", {
  ...Fields,
  argument: Schema.String
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/** Nothing listens there, or the host cannot be reached or resolved. The broker may be starting: retryable. */
export class ConnectFailed extends Schema.TaggedError<ConnectFailed>(id("ConnectFailed"))("ConnectFailed", {
  ...Fields,
  /** The system's code: `ECONNREFUSED`, `ENOTFOUND`, `EHOSTUNREACH`. */
  code: Schema.optional(Schema.String)
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = true
}

/** The peer accepted too slowly or never finished the handshake. */
export class ConnectTimeout extends Schema.TaggedError<ConnectTimeout>(id("ConnectTimeout"))("ConnectTimeout", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = true
}

/** TLS failed: a certificate was refused, by us or by the peer, or there is no common protocol version. */
export class TlsFailed extends Schema.TaggedError<TlsFailed>(id("TlsFailed"))("TlsFailed", {
  ...Fields,
  /** Node's or OpenSSL's code, such as `CERT_HAS_EXPIRED`. */
  code: Schema.optional(Schema.String)
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = false
}

/** The broker refused the login: wrong user name, password, certificate or SASL mechanism (403 in the handshake). */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed>(id("AuthenticationFailed"))(
  "AuthenticationFailed",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = false
}

/** The virtual host does not exist, or this user may not enter it (530 in the handshake). */
export class VirtualHostRefused extends Schema.TaggedError<VirtualHostRefused>(id("VirtualHostRefused"))(
  "VirtualHostRefused",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = false
}

/**
 * The connection is not there: lost, closed by the broker, closed by us, or not made yet. Also if the broker has closed it
 * for a method of another party (501 to 541): that close is the `cause`, and in the message.
 */
export class ConnectionClosed extends Schema.TaggedError<ConnectionClosed>(id("ConnectionClosed"))(
  "ConnectionClosed",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = true
}

/**
 * Publishing is not possible at the moment, and the publisher was told not to wait: there is no connection, or the broker
 * has blocked it (`connection.blocked`, short of memory or disk) or stopped the channel (`channel.flow`). Nothing was sent.
 */
export class PublishForbidden extends Schema.TaggedError<PublishForbidden>(id("PublishForbidden"))(
  "PublishForbidden",
  Fields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * The broker has closed the connection for this operation, which it does not know or allow (501 to 505, 530, 540); or one
 * side broke the protocol while the connection opened. Only the party whose method the broker names gets it: for all others
 * the connection is lost (`ConnectionClosed`).
 */
export class ProtocolError extends Schema.TaggedError<ProtocolError>(id("ProtocolError"))(
  "ProtocolError",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = false
}

/**
 * The broker failed on its side (541, or 506 for want of resources), or has as many connections as it may have (530 in
 * the handshake): of this virtual host, of this user, or of all.
 */
export class BrokerError extends Schema.TaggedError<BrokerError>(id("BrokerError"))("BrokerError", ReplyFields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = true
}

/** This user may not do this to that queue or exchange (403). */
export class AccessRefused extends Schema.TaggedError<AccessRefused>(id("AccessRefused"))(
  "AccessRefused",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/** No such queue or exchange (404). */
export class NotFound extends Schema.TaggedError<NotFound>(id("NotFound"))("NotFound", ReplyFields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/** An exclusive queue of another connection (405). It may be freed: retryable. */
export class ResourceLocked extends Schema.TaggedError<ResourceLocked>(id("ResourceLocked"))(
  "ResourceLocked",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = true
}

/** It exists with other properties, or a delivery tag is unknown, or a condition (`ifEmpty`, `ifUnused`) is not met (406). */
export class PreconditionFailed extends Schema.TaggedError<PreconditionFailed>(id("PreconditionFailed"))(
  "PreconditionFailed",
  {
    ...ReplyFields,
    /** Which property differs, for a declaration: `durable`, `x-message-ttl`, `type`. */
    argument: Schema.optional(Schema.String),
    /** What the declaration asked for, as the broker prints it. */
    received: Schema.optional(Schema.String),
    /** What it exists with, as the broker prints it. */
    current: Schema.optional(Schema.String)
  }
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/**
 * The message is larger than the broker takes (311, or 406 on RabbitMQ). Or, of one that comes in, larger than
 * `maxInboundMessageBodySize`: then it was not taken in.
 */
export class MessageTooLarge extends Schema.TaggedError<MessageTooLarge>(id("MessageTooLarge"))(
  "MessageTooLarge",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/** The channel had died before this operation, of an earlier one or with its connection. Borrow another: retryable. */
export class ChannelClosed extends Schema.TaggedError<ChannelClosed>(id("ChannelClosed"))(
  "ChannelClosed",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = true
}

/** The connection has no channel number left (its negotiated channel-max). */
export class ChannelMaxReached extends Schema.TaggedError<ChannelMaxReached>(id("ChannelMaxReached"))(
  "ChannelMaxReached",
  { ...Fields, channelMax: Schema.Int }
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/** The broker did not answer a method in time. The channel is discarded, since the reply may still come. */
export class ReplyTimeout extends Schema.TaggedError<ReplyTimeout>(id("ReplyTimeout"))("ReplyTimeout", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = true
}

/**
 * A publish did not end in time. `sent` says what is known: `false`, nothing was sent (the broker had blocked publishers,
 * or too much was in flight); `true`, it was written, and may or may not have arrived.
 */
export class PublishTimeout extends Schema.TaggedError<PublishTimeout>(id("PublishTimeout"))("PublishTimeout", {
  ...Fields,
  sent: Schema.Boolean
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/** The broker refused responsibility for the message (`basic.nack`): it is not stored. Trying again may help. */
export class PublishNacked extends Schema.TaggedError<PublishNacked>(id("PublishNacked"))("PublishNacked", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/** A mandatory message reached no queue: the broker gave it back (`basic.return`). */
export class PublishReturned extends Schema.TaggedError<PublishReturned>(id("PublishReturned"))("PublishReturned", {
  ...Fields,
  /** The broker's code: 312 (no route) on RabbitMQ. */
  replyCode: Schema.Int,
  /** The broker's text: `NO_ROUTE`. */
  replyText: Schema.String,
  exchange: Schema.String,
  routingKey: Schema.String
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * The channel or its connection died before the broker confirmed the message: it may have been stored, or lost.
 * Publishing it again gives at-least-once delivery, with a duplicate if it had been stored.
 */
export class PublishUnknown extends Schema.TaggedError<PublishUnknown>(id("PublishUnknown"))("PublishUnknown", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = true
}

/** The broker ended the consumer (`basic.cancel`): its queue was deleted, or the queue's node is gone. */
export class ConsumerCancelled extends Schema.TaggedError<ConsumerCancelled>(id("ConsumerCancelled"))(
  "ConsumerCancelled",
  { ...Fields, queue: Schema.String, consumerTag: Schema.String }
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * A message of a stream was not handled, and its consumer has ended there: its handler failed (`cause`) and the policy is
 * `stop`, or it could not be published where `publishTo` said (`cause`). Nothing was passed over: who consumes again from
 * this offset meets the message again.
 */
export class StreamStopped extends Schema.TaggedError<StreamStopped>(id("StreamStopped"))("StreamStopped", {
  ...Fields,
  queue: Schema.String,
  /** Where the message stands in the stream. */
  offset: Schema.Int
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/** No delivery came within a consumer's inactivity timeout. */
export class InactivityTimeout extends Schema.TaggedError<InactivityTimeout>(id("InactivityTimeout"))(
  "InactivityTimeout",
  { ...Fields, queue: Schema.String }
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * The content of a message is not what its schema, content type or content encoding wants; or its properties cannot be read
 * (`basic.get`, and a call whose reply has such properties): the message has been rejected without requeue then.
 */
export class DecodeFailed extends Schema.TaggedError<DecodeFailed>(id("DecodeFailed"))("DecodeFailed", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/** No reply to a request came in time. The request may have been handled. */
export class RequestTimeout extends Schema.TaggedError<RequestTimeout>(id("RequestTimeout"))("RequestTimeout", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/** The server of a request failed in a way that its error schema does not know. Its details stay in its own log. */
export class RemoteFailure extends Schema.TaggedError<RemoteFailure>(id("RemoteFailure"))("RemoteFailure", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/** Every mistake in a topology at once, found before the broker is asked. */
export class InvalidTopology extends Schema.TaggedError<InvalidTopology>(id("InvalidTopology"))("InvalidTopology", {
  ...Fields,
  issues: Schema.Array(Schema.String)
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/** No channel could be lent within the acquire timeout. `cause`, if there was no connection: the reason for that. */
export class AcquireTimeout extends Schema.TaggedError<AcquireTimeout>(id("AcquireTimeout"))("AcquireTimeout", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/** As many borrowers, requests or messages wait as their limit allows: this one was turned away at once. */
export class PoolExhausted extends Schema.TaggedError<PoolExhausted>(id("PoolExhausted"))("PoolExhausted", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/** The pool is shutting down or shut. */
export class PoolClosed extends Schema.TaggedError<PoolClosed>(id("PoolClosed"))("PoolClosed", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/** A handle was used after its scope had given the channel back. A mistake in the calling code. */
export class ChannelReleased extends Schema.TaggedError<ChannelReleased>(id("ChannelReleased"))(
  "ChannelReleased",
  Fields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/** The delivery was settled before, or by the end of the channel that delivered it. The broker has requeued it then. */
export class DeliverySettled extends Schema.TaggedError<DeliverySettled>(id("DeliverySettled"))(
  "DeliverySettled",
  Fields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/** What no rule of the classifier knows. Worth a bug report. */
export class UnknownError extends Schema.TaggedError<UnknownError>(id("UnknownError"))("UnknownError", ReplyFields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/**
 * Every reason, as a schema: to send a failure to another part of the same system. Its messages name hosts and queues: what
 * an HTTP API may tell its clients is `AmqpProblem` of `@effect-amqp/http`.
 */
export const AmqpErrorReason = Schema.Union([
  InvalidConfig,
  InvalidArgument,
  ConnectFailed,
  ConnectTimeout,
  TlsFailed,
  AuthenticationFailed,
  VirtualHostRefused,
  ConnectionClosed,
  PublishForbidden,
  ProtocolError,
  BrokerError,
  AccessRefused,
  NotFound,
  ResourceLocked,
  PreconditionFailed,
  MessageTooLarge,
  ChannelClosed,
  ChannelMaxReached,
  ReplyTimeout,
  PublishTimeout,
  PublishNacked,
  PublishReturned,
  PublishUnknown,
  ConsumerCancelled,
  StreamStopped,
  InactivityTimeout,
  DecodeFailed,
  RequestTimeout,
  RemoteFailure,
  InvalidTopology,
  AcquireTimeout,
  PoolExhausted,
  PoolClosed,
  ChannelReleased,
  DeliverySettled,
  UnknownError
])

/** Every reason, as a type. */
export type AmqpErrorReason = typeof AmqpErrorReason.Type
