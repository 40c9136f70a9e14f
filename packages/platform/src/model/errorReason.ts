/**
 * The reasons why an AMQP operation fails: one class per reason.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */
import { type Fields, makeReason, type ReplyFields } from "./reason.ts"

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
 * @category errors
 * @since 0.1.0
 */
export class InvalidConfig extends makeReason("InvalidConfig", "operation", false)<
  Fields & {
    readonly issues: ReadonlyArray<{ readonly setting: string; readonly got: string; readonly expected: string }>
  }
> {}

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
export class InvalidArgument extends makeReason("InvalidArgument", "operation", false)<
  Fields & {
    readonly argument: string
  }
> {}

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
export class ConnectFailed extends makeReason("ConnectFailed", "connection", true)<
  Fields & {
    /** The system's code: `ECONNREFUSED`, `ENOTFOUND`, `EHOSTUNREACH`. */
    readonly code?: string | undefined
  }
> {}

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
export class ConnectTimeout extends makeReason("ConnectTimeout", "connection", true)<Fields> {}

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
export class TlsFailed extends makeReason("TlsFailed", "connection", false)<
  Fields & {
    /** Node's or OpenSSL's code, such as `CERT_HAS_EXPIRED`. */
    readonly code?: string | undefined
  }
> {}

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
export class AuthenticationFailed extends makeReason("AuthenticationFailed", "connection", false)<ReplyFields> {}

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
export class VirtualHostRefused extends makeReason("VirtualHostRefused", "connection", false)<ReplyFields> {}

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
export class ConnectionClosed extends makeReason("ConnectionClosed", "connection", true)<ReplyFields> {}

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
export class PublishForbidden extends makeReason("PublishForbidden", "operation", true)<Fields> {}

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
export class ProtocolError extends makeReason("ProtocolError", "connection", false)<ReplyFields> {}

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
export class BrokerError extends makeReason("BrokerError", "connection", true)<ReplyFields> {}

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
export class AccessRefused extends makeReason("AccessRefused", "channel", false)<ReplyFields> {}

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
export class NotFound extends makeReason("NotFound", "channel", false)<ReplyFields> {}

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
export class ResourceLocked extends makeReason("ResourceLocked", "channel", true)<ReplyFields> {}

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
export class PreconditionFailed extends makeReason("PreconditionFailed", "channel", false)<
  ReplyFields & {
    /** The property that differs, for a declaration: `durable`, `x-message-ttl`, `type`. */
    readonly argument?: string | undefined
    /** The declaration's value, as the broker prints it. */
    readonly received?: string | undefined
    /** The existing value, as the broker prints it. */
    readonly current?: string | undefined
  }
> {}

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
export class MessageTooLarge extends makeReason("MessageTooLarge", "channel", false)<ReplyFields> {}

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
export class ChannelClosed extends makeReason("ChannelClosed", "channel", true)<ReplyFields> {}

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
export class ChannelMaxReached extends makeReason("ChannelMaxReached", "operation", true)<
  Fields & {
    readonly channelMax: number
  }
> {}

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
export class ReplyTimeout extends makeReason("ReplyTimeout", "channel", true)<Fields> {}

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
export class PublishTimeout extends makeReason("PublishTimeout", "operation", true)<
  Fields & {
    readonly sent: boolean
  }
> {}

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
export class PublishNacked extends makeReason("PublishNacked", "operation", true)<Fields> {}

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
 * @category errors
 * @since 0.1.0
 */
export class PublishReturned extends makeReason("PublishReturned", "operation", false)<
  Fields & {
    /** The broker's code: 312 (no route) on RabbitMQ. */
    readonly replyCode: number
    /** The broker's text: `NO_ROUTE`. */
    readonly replyText: string
    readonly exchange: string
    readonly routingKey: string
  }
> {}

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
export class PublishUnknown extends makeReason("PublishUnknown", "channel", true)<Fields> {}

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
export class ConsumerCancelled extends makeReason("ConsumerCancelled", "operation", true)<
  Fields & {
    readonly queue: string
    readonly consumerTag: string
  }
> {}

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
export class StreamStopped extends makeReason("StreamStopped", "operation", false)<
  Fields & {
    readonly queue: string
    /** The message's position in the stream. */
    readonly offset: number
  }
> {}

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
export class InactivityTimeout extends makeReason("InactivityTimeout", "operation", true)<
  Fields & {
    readonly queue: string
  }
> {}

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
export class DecodeFailed extends makeReason("DecodeFailed", "operation", false)<Fields> {}

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
export class RequestTimeout extends makeReason("RequestTimeout", "operation", true)<Fields> {}

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
export class RemoteFailure extends makeReason("RemoteFailure", "operation", false)<Fields> {}

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
export class InvalidTopology extends makeReason("InvalidTopology", "operation", false)<
  Fields & {
    readonly issues: ReadonlyArray<string>
  }
> {}

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
export class AcquireTimeout extends makeReason("AcquireTimeout", "operation", true)<Fields> {}

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
export class PoolExhausted extends makeReason("PoolExhausted", "operation", true)<Fields> {}

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
export class PoolClosed extends makeReason("PoolClosed", "operation", false)<Fields> {}

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
export class ChannelReleased extends makeReason("ChannelReleased", "operation", false)<Fields> {}

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
export class DeliverySettled extends makeReason("DeliverySettled", "operation", false)<Fields> {}

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
export class UnknownError extends makeReason("UnknownError", "channel", false)<ReplyFields> {}

/**
 * Every reason of an `AmqpError`.
 *
 * **When to use**
 *
 * Use as the type of a value that may be any reason.
 *
 * @category models
 * @since 0.1.0
 */
export type AmqpErrorReason =
  | InvalidConfig
  | InvalidArgument
  | ConnectFailed
  | ConnectTimeout
  | TlsFailed
  | AuthenticationFailed
  | VirtualHostRefused
  | ConnectionClosed
  | PublishForbidden
  | ProtocolError
  | BrokerError
  | AccessRefused
  | NotFound
  | ResourceLocked
  | PreconditionFailed
  | MessageTooLarge
  | ChannelClosed
  | ChannelMaxReached
  | ReplyTimeout
  | PublishTimeout
  | PublishNacked
  | PublishReturned
  | PublishUnknown
  | ConsumerCancelled
  | StreamStopped
  | InactivityTimeout
  | DecodeFailed
  | RequestTimeout
  | RemoteFailure
  | InvalidTopology
  | AcquireTimeout
  | PoolExhausted
  | PoolClosed
  | ChannelReleased
  | DeliverySettled
  | UnknownError

/**
 * The classes of the reasons, by their tags.
 *
 * **When to use**
 *
 * Use to make a reason whose tag is a variable.
 *
 * @category models
 * @since 0.1.0
 */
export const reasons = {
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
} as const
