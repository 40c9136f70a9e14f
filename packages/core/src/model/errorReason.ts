/**
 * The reasons why an AMQP operation fails, as data: one class per reason.
 *
 * Every reason has a `message` that says what happened, what was expected and what to do. It also says whether the same
 * call may succeed later (`isRetryable`) and how far the damage reaches (`severity`):
 *
 * - `"operation"`: only this call failed; its channel, if it had one, continues to work.
 * - `"channel"`: the channel is closed or unfit; its connection and the other channels continue to work.
 * - `"connection"`: the connection is gone or could not be made.
 *
 * Reply codes are those of AMQP 0-9-1, section 1.3, as RabbitMQ uses them
 * (https://www.rabbitmq.com/docs/channels#error-handling).
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The property that marks the reason of an `AmqpError`.
 *
 * **When to use**
 *
 * Use `isAmqpErrorReason` to recognize a reason; it looks for this property.
 *
 * @category type ids
 * @since 0.1.0
 */
export const ReasonTypeId = "~@effect-amqp/core/AmqpError/Reason" as const

/**
 * How far the damage of a failure reaches.
 *
 * **When to use**
 *
 * Use to decide what has to be acquired again before the next attempt: nothing, a channel or a connection.
 *
 * **Details**
 *
 * - `"operation"`: only this call failed; its channel, if it had one, continues to work.
 * - `"channel"`: the channel is closed or unfit; its connection and the other channels continue to work.
 * - `"connection"`: the connection is gone or could not be made.
 *
 * @category models
 * @since 0.1.0
 */
export type Severity = "operation" | "channel" | "connection"

const id = (tag: string) => `@effect-amqp/core/AmqpError/${tag}`

const Fields = {
  message: Schema.String,
  /** The operation that failed, in AMQP's words: `queue.declare`, `channel.open`, `connection.open`. */
  operation: Schema.optional(Schema.String),
  /** The error of the driver or the system, or the reason behind this one. It never holds a secret. */
  cause: Schema.optional(Schema.Defect())
}

const ReplyFields = {
  ...Fields,
  /** The code of the broker's `channel.close` or `connection.close`. */
  replyCode: Schema.optional(Schema.Int)
}

/**
 * A configuration has mistakes; nothing was connected.
 *
 * **When to use**
 *
 * Use to report all mistakes of a configuration at once. Correct every setting that `issues` lists; the same
 * configuration fails again.
 *
 * **Details**
 *
 * Each issue has the setting as it was written, what it got and what was expected. Secrets are not shown.
 * `AmqpConfig.make`, `AmqpConfig.fromUrl`, `AmqpConfig.fromFlaskPika` and `Amqp.layer` fail with it.
 * `AmqpConfig.config` reports the same mistakes in a `ConfigError`. The severity is `"operation"`; not retryable.
 *
 * **Example** (Listing every mistake)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpConfig } from "@effect-amqp/core"
 *
 * const program = AmqpConfig.make({ port: 70_000, pool: { max: 0 } }).pipe(
 *   Effect.catchReason("AmqpError", "InvalidConfig", ({ issues }) =>
 *     Effect.forEach(issues, ({ setting, got, expected }) =>
 *       Effect.logError(`${setting}: expected ${expected}, got ${got}`)
 *     )
 *   )
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidConfig extends Schema.TaggedError<InvalidConfig>(id("InvalidConfig"))("InvalidConfig", {
  ...Fields,
  issues: Schema.Array(Schema.Struct({ setting: Schema.String, got: Schema.String, expected: Schema.String }))
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * An argument was refused before anything was sent.
 *
 * **When to use**
 *
 * Use to find mistakes in the calling code. Correct the argument that `argument` names; the message says what was
 * expected.
 *
 * **Details**
 *
 * It occurs for unknown options, values out of bounds, messages that cannot be encoded, and methods or options that the
 * queue's type or the broker's version does not have. The severity is `"operation"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidArgument extends Schema.TaggedError<InvalidArgument>(id("InvalidArgument"))("InvalidArgument", {
  ...Fields,
  argument: Schema.String
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * The broker could not be reached.
 *
 * **When to use**
 *
 * Use to detect that nothing listens at the address, or that the host cannot be reached or resolved. Check the host,
 * the port and the network. The broker may also be starting.
 *
 * **Details**
 *
 * It occurs while connecting. It also occurs when the files of TLS, which are read again at each connect, cannot be
 * used at that moment. The severity is `"connection"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectFailed extends Schema.TaggedError<ConnectFailed>(id("ConnectFailed"))("ConnectFailed", {
  ...Fields,
  /** The system's code: `ECONNREFUSED`, `ENOTFOUND`, `EHOSTUNREACH`. */
  code: Schema.optional(Schema.String)
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = true
}

/**
 * The peer accepted the connection too slowly or never finished the handshake.
 *
 * **When to use**
 *
 * Use to detect a peer that is silent while connecting. Check the network and the load of the broker, or raise
 * `connectTimeout` or `socketTimeout`.
 *
 * **Details**
 *
 * `connectTimeout` bounds one attempt on one host: TCP, TLS and AMQP's handshake together. `socketTimeout` bounds the
 * silence of the socket during it. The severity is `"connection"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectTimeout extends Schema.TaggedError<ConnectTimeout>(id("ConnectTimeout"))("ConnectTimeout", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = true
}

/**
 * TLS failed: the client or the peer refused a certificate, or there is no common protocol version.
 *
 * **When to use**
 *
 * Use to detect a problem with certificates or TLS versions. Check the authorities (`tls.ca`, `tls.caFile`), the
 * client's certificate, `tls.servername` and `tls.minVersion`.
 *
 * **Details**
 *
 * It occurs while connecting. The severity is `"connection"`; not retryable. A connection that has been open before
 * nevertheless tries again, unless `reconnect.onRefused` is `"close"`.
 *
 * @category errors
 * @since 0.1.0
 */
export class TlsFailed extends Schema.TaggedError<TlsFailed>(id("TlsFailed"))("TlsFailed", {
  ...Fields,
  /** Node's or OpenSSL's code, such as `CERT_HAS_EXPIRED`. */
  code: Schema.optional(Schema.String)
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = false
}

/**
 * The broker refused the login: wrong user name, password, certificate or SASL mechanism (403 in the handshake).
 *
 * **When to use**
 *
 * Use to detect wrong or expired credentials. Check the user name, the password and the SASL mechanism, or give a
 * connection that exists a new secret with `updateSecret`.
 *
 * **Details**
 *
 * It occurs while connecting, and when the broker refuses the secret of `updateSecret`. The severity is `"connection"`;
 * not retryable. A connection that has been open before nevertheless tries again, unless `reconnect.onRefused` is
 * `"close"`.
 *
 * @category errors
 * @since 0.1.0
 */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed>(id("AuthenticationFailed"))(
  "AuthenticationFailed",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = false
}

/**
 * The virtual host does not exist, or this user has no permission for it (530 in the handshake).
 *
 * **When to use**
 *
 * Use to detect a wrong `vhost`. Check its spelling (in a URL, `/` is `%2F`), create it, or grant the user access.
 *
 * **Details**
 *
 * It occurs while connecting. The severity is `"connection"`; not retryable. A connection that has been open before
 * nevertheless tries again, unless `reconnect.onRefused` is `"close"`.
 *
 * @category errors
 * @since 0.1.0
 */
export class VirtualHostRefused extends Schema.TaggedError<VirtualHostRefused>(id("VirtualHostRefused"))(
  "VirtualHostRefused",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = false
}

/**
 * There is no connection: it was lost, closed by the broker, closed by this application, or is not made yet.
 *
 * **When to use**
 *
 * Use to detect an operation that a lost connection has ended. Try again: the library reconnects automatically, and an
 * operation that needs a channel waits for the new connection.
 *
 * **Details**
 *
 * It also occurs if the broker closed the connection for another party's method (501 to 541): that close is the
 * `cause`, and the message quotes it. A call of `AmqpRpc` fails with it if the connection is lost after the broker has
 * queued the request; the request may be handled. The severity is `"connection"`; retryable.
 *
 * @category errors
 * @since 0.1.0
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
 * Publishing is not possible at the moment, and the caller chose not to wait. Nothing was sent.
 *
 * **When to use**
 *
 * Use to shed load or to answer "try later" while the broker accepts no messages. Try again later, or wait with
 * `onBlocked: "wait"`.
 *
 * **Details**
 *
 * It occurs with `onBlocked: "fail"` only: there is no connection, the broker has blocked it (`connection.blocked`,
 * short of memory or disk), or has stopped the channel (`channel.flow`). The severity is `"operation"`; retryable.
 *
 * @category errors
 * @since 0.1.0
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
 * The broker closed the connection for this operation, or a peer broke the protocol.
 *
 * **When to use**
 *
 * Use to detect a method that the broker does not know or allow (501 to 505, 530, 540), and a peer that does not speak
 * AMQP. Change the operation; the message quotes the broker. While connecting, check the host, the port and `frameMax`.
 *
 * **Details**
 *
 * It occurs for the operation whose method the broker names in its `connection.close`, and when one side breaks the
 * protocol while the connection opens. For all other users of the connection, the connection is lost ({@link
 * ConnectionClosed}). The severity is `"connection"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
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
 * The broker failed on its side, or a limit of connections or channels is reached.
 *
 * **When to use**
 *
 * Use to detect a problem that the broker's operators have to solve. Try again later; if it persists, look at the
 * broker's log and at its limits.
 *
 * **Details**
 *
 * It occurs for an internal error (541), for a lack of resources (506), and for as many connections as the broker
 * allows (530 in the handshake): of this virtual host, of this user, or in total. It also occurs for one channel more
 * than the user or the node may have. The severity is `"connection"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class BrokerError extends Schema.TaggedError<BrokerError>(id("BrokerError"))("BrokerError", ReplyFields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "connection"
  readonly isRetryable = true
}

/**
 * The user lacks the permission for this operation on that queue or exchange (403).
 *
 * **When to use**
 *
 * Use to detect missing permissions. Grant the user the permission (configure, write or read), or use other names.
 * Services that may not declare can use `AmqpTopology.verify`.
 *
 * **Details**
 *
 * The broker closes the channel. The severity is `"channel"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class AccessRefused extends Schema.TaggedError<AccessRefused>(id("AccessRefused"))(
  "AccessRefused",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/**
 * The queue or exchange does not exist (404).
 *
 * **When to use**
 *
 * Use to detect a missing declaration or a misspelled name. Declare the queue or exchange first, for instance with
 * `AmqpTopology.layer`.
 *
 * **Details**
 *
 * The broker closes the channel. `AmqpTopology.verify` fails with it too; its message lists everything that is missing.
 * The severity is `"channel"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotFound extends Schema.TaggedError<NotFound>(id("NotFound"))("NotFound", ReplyFields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/**
 * The queue is an exclusive queue of another connection (405).
 *
 * **When to use**
 *
 * Use to detect that another connection owns the queue. Try again, since the queue is freed when that connection ends,
 * or choose another name.
 *
 * **Details**
 *
 * The broker closes the channel. The severity is `"channel"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class ResourceLocked extends Schema.TaggedError<ResourceLocked>(id("ResourceLocked"))(
  "ResourceLocked",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = true
}

/**
 * A condition of the operation is not met (406).
 *
 * **When to use**
 *
 * Use to detect a declaration that differs from what exists. Declare with the existing properties, or delete the queue
 * or exchange and declare it again.
 *
 * **Details**
 *
 * It occurs when a queue or exchange exists with other properties (`argument`, `received` and `current` say which),
 * when a delivery tag is unknown, and when the condition `ifEmpty` or `ifUnused` is not met. The broker closes the
 * channel. The severity is `"channel"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class PreconditionFailed extends Schema.TaggedError<PreconditionFailed>(id("PreconditionFailed"))(
  "PreconditionFailed",
  {
    ...ReplyFields,
    /** The property that differs, for a declaration: `durable`, `x-message-ttl`, `type`. */
    argument: Schema.optional(Schema.String),
    /** The declaration's value, as the broker prints it. */
    received: Schema.optional(Schema.String),
    /** The existing value, as the broker prints it. */
    current: Schema.optional(Schema.String)
  }
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/**
 * A message is larger than the limit of the broker or of this application.
 *
 * **When to use**
 *
 * Use to detect messages that cannot be sent or received as they are. Send less content, or raise the limit:
 * `maxMessageSize` and the broker's `max_message_size` for outgoing messages, `maxInboundMessageBodySize` for incoming
 * ones.
 *
 * **Details**
 *
 * An outgoing message is larger than `maxMessageSize` of its publisher and was not sent, or is larger than the broker
 * takes (311, or 406 on RabbitMQ), which closes the channel. An incoming message is larger than
 * `maxInboundMessageBodySize`; its body was not accepted. The severity is `"channel"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class MessageTooLarge extends Schema.TaggedError<MessageTooLarge>(id("MessageTooLarge"))(
  "MessageTooLarge",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/**
 * The channel was closed before this operation, by the failure of an earlier one or with its connection.
 *
 * **When to use**
 *
 * Use to detect a channel that cannot be used any more. Borrow another channel and try again.
 *
 * **Details**
 *
 * The `cause` says what closed the channel, where it is known. A call of `AmqpRpc` fails with it if its channel is lost
 * after the broker has queued the request; the request may be handled. The severity is `"channel"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChannelClosed extends Schema.TaggedError<ChannelClosed>(id("ChannelClosed"))(
  "ChannelClosed",
  ReplyFields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = true
}

/**
 * No further channel can be opened.
 *
 * **When to use**
 *
 * Use to detect that too many channels are in use. Lower `max` of the pool, or raise `channelMax`, the user's
 * `max-channels` or the node's `channel_max_per_node`; the message says which.
 *
 * **Details**
 *
 * It occurs when all channel numbers of the connection are in use (its negotiated channel-max), or all channels that
 * the broker allows this application. The severity is `"operation"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChannelMaxReached extends Schema.TaggedError<ChannelMaxReached>(id("ChannelMaxReached"))(
  "ChannelMaxReached",
  { ...Fields, channelMax: Schema.Int }
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * The broker did not answer a method in time.
 *
 * **When to use**
 *
 * Use to detect a broker that is overloaded, silent or has blocked the connection. Try again, or raise
 * `continuationTimeout`.
 *
 * **Details**
 *
 * The channel is discarded, since the reply may still arrive. The method may have been executed. The severity is
 * `"channel"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class ReplyTimeout extends Schema.TaggedError<ReplyTimeout>(id("ReplyTimeout"))("ReplyTimeout", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = true
}

/**
 * A publish did not end in time.
 *
 * **When to use**
 *
 * Use to detect that the broker or the network is slow. If `sent` is `false`, publish again without risk. If it is
 * `true`, publish again only if consumers tolerate duplicates.
 *
 * **Details**
 *
 * `sent: false`: nothing was sent, because there was no connection, the broker had blocked publishers, or too much was
 * in flight. `sent: true`: the message was written, and may or may not have arrived. The limit is `timeout` of the
 * publish, by default `publishTimeout`. The severity is `"operation"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishTimeout extends Schema.TaggedError<PublishTimeout>(id("PublishTimeout"))("PublishTimeout", {
  ...Fields,
  sent: Schema.Boolean
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * The broker refused responsibility for the message (`basic.nack`): it is not stored.
 *
 * **When to use**
 *
 * Use to detect a full queue that rejects publishes (`overflow: "reject-publish"`), or an internal error of a queue.
 * Publish again after a pause.
 *
 * **Details**
 *
 * The severity is `"operation"`; retryable.
 *
 * **Gotchas**
 *
 * If the message was routed to several queues, those that did not refuse it have it, and publishing it again makes a
 * duplicate there (https://www.rabbitmq.com/docs/maxlength#overflow-behaviour).
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishNacked extends Schema.TaggedError<PublishNacked>(id("PublishNacked"))("PublishNacked", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * A mandatory message reached no queue, and the broker returned it (`basic.return`).
 *
 * **When to use**
 *
 * Use to detect a missing queue or binding, or a misspelled routing key. Declare and bind the queue before publishing
 * again.
 *
 * **Details**
 *
 * It occurs with `mandatory: true` only; otherwise the broker drops and confirms such a message. The severity is
 * `"operation"`; not retryable.
 *
 * **Example** (Reporting an unroutable message)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpPublisher } from "@effect-amqp/core"
 *
 * const program = AmqpPublisher.publish({ routingKey: "orders", content: "one order" }, { mandatory: true }).pipe(
 *   Effect.catchReason("AmqpError", "PublishReturned", ({ replyText, routingKey }) =>
 *     Effect.logError("no queue took the message", { replyText, routingKey })
 *   )
 * )
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
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
 * The channel or its connection ended before the broker confirmed the message. The message may be stored or lost.
 *
 * **When to use**
 *
 * Use to decide between at-most-once and at-least-once. Publishing again gives at-least-once delivery, with a duplicate
 * if the message was stored; consumers can recognize it by its `messageId`.
 *
 * **Details**
 *
 * The `cause` says what ended the channel. The severity is `"channel"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishUnknown extends Schema.TaggedError<PublishUnknown>(id("PublishUnknown"))("PublishUnknown", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = true
}

/**
 * The broker ended the consumer (`basic.cancel`).
 *
 * **When to use**
 *
 * Use to detect that a queue was deleted, that the queue's node is gone, or that a delivery was not settled within the
 * consumer timeout (RabbitMQ 4.3). Declare the queue again or wait for its node, settle sooner, or raise
 * `consumerTimeout`; then consume again.
 *
 * **Details**
 *
 * The message says which of the causes are possible. The severity is `"operation"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConsumerCancelled extends Schema.TaggedError<ConsumerCancelled>(id("ConsumerCancelled"))(
  "ConsumerCancelled",
  { ...Fields, queue: Schema.String, consumerTag: Schema.String }
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * A message of a stream was not handled, and its consumer has ended at that message.
 *
 * **When to use**
 *
 * Use to detect a message that blocks a stream. Remove the reason and consume again from `offset`, or choose the policy
 * `skip` or `publishTo` for such messages.
 *
 * **Details**
 *
 * Either its handler failed (`cause`) and the policy is `stop`, or the message could not be published where `publishTo`
 * said (`cause`). No message was skipped: a consumer that starts again at this offset receives the message again. The
 * severity is `"operation"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class StreamStopped extends Schema.TaggedError<StreamStopped>(id("StreamStopped"))("StreamStopped", {
  ...Fields,
  queue: Schema.String,
  /** The message's position in the stream. */
  offset: Schema.Int
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * No delivery came within a consumer's inactivity timeout.
 *
 * **When to use**
 *
 * Use to end a stream of deliveries when its queue has been empty for a while, or to detect that publishers have
 * stopped.
 *
 * **Details**
 *
 * It occurs only where `inactivityTimeout` is given. The severity is `"operation"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class InactivityTimeout extends Schema.TaggedError<InactivityTimeout>(id("InactivityTimeout"))(
  "InactivityTimeout",
  { ...Fields, queue: Schema.String }
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * A message cannot be read.
 *
 * **When to use**
 *
 * Use to detect messages of another version or another program. Correct the publisher or the schema, and reject or
 * dead-letter the message; decoding it again fails again.
 *
 * **Details**
 *
 * Its content does not match its schema, content type or content encoding, or its properties cannot be read. Unreadable
 * properties occur with `basic.get`, which rejects the message without requeue, and with a call whose reply has such
 * properties; then the request was handled. A reply larger than `maxInboundMessageBodySize` fails its call with this
 * reason too. The severity is `"operation"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class DecodeFailed extends Schema.TaggedError<DecodeFailed>(id("DecodeFailed"))("DecodeFailed", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * No reply to a request came in time.
 *
 * **When to use**
 *
 * Use to detect a missing, busy or slow RPC server. Call again only if the request is idempotent, since the server may
 * have handled it.
 *
 * **Details**
 *
 * The message says whether the broker had queued the request. The severity is `"operation"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class RequestTimeout extends Schema.TaggedError<RequestTimeout>(id("RequestTimeout"))("RequestTimeout", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * The server of a request failed in a way that its error schema does not describe.
 *
 * **When to use**
 *
 * Use to detect a defect of an RPC server. Look into the server's log, which has the details.
 *
 * **Details**
 *
 * The severity is `"operation"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class RemoteFailure extends Schema.TaggedError<RemoteFailure>(id("RemoteFailure"))("RemoteFailure", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * A topology has mistakes; nothing was declared.
 *
 * **When to use**
 *
 * Use to report all mistakes of a topology at once. Correct what `issues` lists.
 *
 * **Details**
 *
 * It is found before anything is sent to the broker, by the rules of `AmqpTopology.check`. The severity is
 * `"operation"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidTopology extends Schema.TaggedError<InvalidTopology>(id("InvalidTopology"))("InvalidTopology", {
  ...Fields,
  issues: Schema.Array(Schema.String)
}) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * No channel could be borrowed within the acquire timeout.
 *
 * **When to use**
 *
 * Use to detect that all channels are in use or that there is no connection. Raise `max` of the pool, hold channels for
 * a shorter time, or try again later.
 *
 * **Details**
 *
 * The message has the pool's counts. Without a connection, `cause` is the reason for that. The limit is
 * `acquireTimeout` of the pool, 5 s by default. The severity is `"operation"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class AcquireTimeout extends Schema.TaggedError<AcquireTimeout>(id("AcquireTimeout"))("AcquireTimeout", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * The wait queue of a pool, a publisher or an RPC client is full, so this borrow, message or request failed at once.
 *
 * **When to use**
 *
 * Use to shed load. Try again after a pause, or raise the limit that the message names: `maxWaiting` of the pool,
 * `maxWaitingBytes` of the publisher, `maxWaiting` or `maxWaitingBytes` of the RPC client.
 *
 * **Details**
 *
 * Nothing was sent. The severity is `"operation"`; retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolExhausted extends Schema.TaggedError<PoolExhausted>(id("PoolExhausted"))("PoolExhausted", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = true
}

/**
 * The pool, the publisher or the RPC client is closing or closed.
 *
 * **When to use**
 *
 * Use to detect work that continues after its layer or scope has ended. Keep the work inside that scope.
 *
 * **Details**
 *
 * Nothing was sent. The severity is `"operation"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolClosed extends Schema.TaggedError<PoolClosed>(id("PoolClosed"))("PoolClosed", Fields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * A channel was used after its scope had returned it.
 *
 * **When to use**
 *
 * Use to find a mistake in the calling code: use a channel only inside the scope that borrowed it.
 *
 * **Details**
 *
 * It also occurs when a shutdown revokes a channel that is still borrowed. The severity is `"operation"`; not
 * retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChannelReleased extends Schema.TaggedError<ChannelReleased>(id("ChannelReleased"))(
  "ChannelReleased",
  Fields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * The delivery cannot be settled any more.
 *
 * **When to use**
 *
 * Use to find deliveries that are settled twice or too late. Settle each delivery once, before its channel ends.
 *
 * **Details**
 *
 * The delivery was settled before or needs no settling, or the channel that delivered it has ended, or the broker has
 * taken it back after the consumer timeout. In the last two cases the broker has requeued it. The severity is
 * `"operation"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class DeliverySettled extends Schema.TaggedError<DeliverySettled>(id("DeliverySettled"))(
  "DeliverySettled",
  Fields
) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "operation"
  readonly isRetryable = false
}

/**
 * A failure that the library does not recognize.
 *
 * **When to use**
 *
 * Use to report a bug: please file one with the message and the `cause`.
 *
 * **Details**
 *
 * The severity is `"channel"`; not retryable.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownError extends Schema.TaggedError<UnknownError>(id("UnknownError"))("UnknownError", ReplyFields) {
  readonly [ReasonTypeId] = ReasonTypeId
  readonly severity = "channel"
  readonly isRetryable = false
}

/**
 * The schema of every reason.
 *
 * **When to use**
 *
 * Use to send a failure to another part of the same system.
 *
 * **Gotchas**
 *
 * The messages name hosts and queues. To answer the clients of an HTTP API, use `AmqpProblem` of `@effect-amqp/http`.
 *
 * @category schemas
 * @since 0.1.0
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

/**
 * Any reason of an `AmqpError`.
 *
 * **When to use**
 *
 * Use as the type of a reason in code that handles several of them. Tell them apart by `_tag`.
 *
 * @see {@link Severity} for how far the damage of a reason reaches
 *
 * @category errors
 * @since 0.1.0
 */
export type AmqpErrorReason = typeof AmqpErrorReason.Type
