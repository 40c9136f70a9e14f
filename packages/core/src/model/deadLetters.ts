/** Dead letters: what they say about their failure, and what can be done with them. */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type { AmqpConsumer } from "./consumer.ts"
import type { AmqpError } from "./error.ts"
import type { DeliveredProperties } from "./message.ts"

/**
 * Where a message was when it failed.
 *
 * **When to use**
 *
 * Use to read `origin` of a dead letter.
 *
 * **Gotchas**
 *
 * It comes from the headers of the message, which every client that may publish to the dead-letter queue can write. It
 * is unverified unless `reason.verified` is `true`.
 *
 * @see {@link DeadLetter}
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetterOrigin {
  /** The queue in which it failed. */
  readonly queue: string
  /**
   * The offset that it has there, if that is a stream; otherwise `undefined`. A stream keeps what it has delivered, so
   * `redrive` does not publish such a message to it again, unless `to` says so.
   */
  readonly offset: number | undefined
  /** The exchange that had routed it there; `undefined` if the headers do not say so. */
  readonly exchange: string | undefined
  /** The routing key that it had there; `undefined` if the headers do not say so. */
  readonly routingKey: string | undefined
}

/**
 * Why a message was dead-lettered.
 *
 * **When to use**
 *
 * Use to read `reason` of a dead letter, and in the predicates of `redrive` and `discard`.
 *
 * **Details**
 *
 * With the kind `"failed"` a consumer of this library has written it into the headers `x-failed-*`. The other kinds are
 * those of the broker's header `x-death` (https://www.rabbitmq.com/docs/dlx#effects), which knows neither an error nor
 * a consumer. `"unknown"`: the message has neither of them, and was published to the queue directly.
 *
 * @see {@link DeadLetter}
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetterReason {
  /** What removed the message from its queue. */
  readonly kind: "failed" | "rejected" | "expired" | "maxlen" | "delivery_limit" | "unknown"
  /** The tag or the name of the error, at most 128 characters. */
  readonly error: string | undefined
  /** The message of the error, at most 1024 characters, without the secrets that can be recognized. */
  readonly message: string | undefined
  /** The attempt that failed last: 1 for the first. */
  readonly attempt: number | undefined
  /** The name of the consumer. */
  readonly consumer: string | undefined
  /** The host that the consumer ran on. */
  readonly host: string | undefined
  /** When the message failed for the first time. With `x-death`, when it was dead-lettered first. */
  readonly firstAt: Date | undefined
  /** When the message failed for the last time. With `x-death`, when it was dead-lettered last; whole seconds. */
  readonly lastAt: Date | undefined
  /** The trace in which it failed: 32 hexadecimal digits. */
  readonly traceId: string | undefined
  /**
   * Whether the headers `x-failed-*` are signed with a secret of `of`. Otherwise every client that may publish to the
   * dead-letter queue may have written them.
   */
  readonly verified: boolean
}

/**
 * A message in a dead-letter queue.
 *
 * **When to use**
 *
 * Use as the element of a page of `peek`, and as the argument of the predicates of `redrive` and `discard`.
 *
 * @see {@link DeadLetterReason}
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter {
  /**
   * The message id; if it is missing or empty, a digest of the message that stays the same as long as it is in the queue.
   * Messages with the same id, and equal messages without one, share it: `ids` chooses all of them.
   */
  readonly id: string
  /** The dead-letter queue. */
  readonly queue: string
  /** The exchange that has routed the message to the dead-letter queue. */
  readonly exchange: string
  /** The routing key by which it has reached the dead-letter queue. */
  readonly routingKey: string
  /** Where it failed; `undefined` if its headers do not say so. Then `redrive` needs `to`. */
  readonly origin: DeadLetterOrigin | undefined
  readonly reason: DeadLetterReason
  /** How often a redrive has published this message already. */
  readonly redriven: number
  /** Whether it was delivered from the dead-letter queue before, for instance by a `peek`. */
  readonly redelivered: boolean
  /** Size of the whole content, in bytes. */
  readonly size: number
  readonly properties: DeliveredProperties
  /** The content. In a page of `peek` it has at most `maxContent` bytes. */
  readonly content: Uint8Array
}

/**
 * Chooses dead letters.
 *
 * **When to use**
 *
 * Use as the type of a function that chooses dead letters for `peek`, `redrive` or `discard`.
 *
 * **Gotchas**
 *
 * If it throws, the operation ends with that defect. What it has done until then stays done, and the other dead letters
 * stay in their queue.
 *
 * @category models
 * @since 0.1.0
 */
export type Where = (letter: DeadLetter) => boolean

/**
 * Options of `of`.
 *
 * **When to use**
 *
 * Use with `of`, for queues with a delivery limit from a policy, and for signed reasons.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The secret that the consumers sign with (`retrySecret`), or several of them. With it, only signed headers name an
   * origin, so that a message that any client has published is not redriven to the queue that it names. What the broker
   * itself has dead-lettered (rejected, expired, over a limit) is not signed: it needs `to`. Default: none, no reason is
   * verified.
   */
  readonly secret?: Redacted.Redacted<string> | ReadonlyArray<Redacted.Redacted<string>> | undefined
  /**
   * The delivery limit of the dead-letter queue, if it is a quorum queue and a policy sets the limit. At least 0; -1
   * means none. Default: the limit that this application has declared, otherwise 20 on RabbitMQ 4 and none before.
   *
   * Before RabbitMQ 4.3 each return of a message counts, also that of a `peek`; a lost connection counts on all versions.
   * A message that has come close to the limit (a quarter of it, or 3 returns, are left) is published again at the end of
   * its queue, confirmed, so that its count starts again. If a connection is lost meanwhile, the queue may have it twice.
   */
  readonly deliveryLimit?: number | undefined
  /**
   * How long an operation waits for progress: for a connection, for a delivery, for a broker that blocks publishers.
   * Then it fails with the reason. 1 ms to 24 days. Default: 30 seconds.
   */
  readonly timeout?: Duration.Input | undefined
}

/**
 * Options of `peek`.
 *
 * **When to use**
 *
 * Use with `peek` of dead letters.
 *
 * @category options
 * @since 0.1.0
 */
export interface PeekOptions {
  /**
   * Maximum number of dead letters that are read. 1 to 10,000. The page ends before that if its headers have 32 MiB
   * together. Default: 100.
   */
  readonly limit?: number | undefined
  /** Which of the dead letters that are read are in the page. Default: all. */
  readonly where?: Where | undefined
  /**
   * Maximum number of bytes of the content of each dead letter. 0 to 1 MiB. All contents of a page together have at
   * most 64 MiB: those after that are empty. Default: 4096.
   */
  readonly maxContent?: number | undefined
}

/**
 * Dead letters with the same error from the same queue.
 *
 * **When to use**
 *
 * Use to show what failed at a glance.
 *
 * @see {@link Page}
 *
 * @category models
 * @since 0.1.0
 */
export interface Group {
  /** The kind of the reason. */
  readonly kind: DeadLetterReason["kind"]
  /** The tag or the name of the error; `undefined` if it is not known. */
  readonly error: string | undefined
  /** The queue in which they failed; `undefined` if it is not known. */
  readonly origin: string | undefined
  /** The dead-letter queue. */
  readonly queue: string
  readonly count: number
  /** The earliest first failure. */
  readonly firstAt: Date | undefined
  /** The latest failure. */
  readonly lastAt: Date | undefined
}

/**
 * A page of dead letters, in the order of their queues.
 *
 * **When to use**
 *
 * Use as the type of what `peek` returns.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  /** Number of messages in the dead-letter queues, without those that a consumer holds. */
  readonly total: number
  /** The same number for each queue. */
  readonly queues: ReadonlyArray<{ readonly queue: string; readonly total: number }>
  /** Number of dead letters that were read for this page. */
  readonly scanned: number
  /** Number of dead letters that cannot be read: see `Report.unreadable`. */
  readonly unreadable: number
  readonly letters: ReadonlyArray<DeadLetter>
  /** The letters by error and origin, the largest group first. */
  readonly groups: ReadonlyArray<Group>
}

/**
 * Counts of a redrive or a discard while it runs.
 *
 * **When to use**
 *
 * Use in `onProgress`.
 *
 * @see {@link Report} for the final counts
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress {
  /** The dead-letter queue in which the operation works now. */
  readonly queue: string
  /** Number of messages that were in all dead-letter queues at the start: at most as many are scanned. */
  readonly total: number
  /** Number of dead letters that were looked at. */
  readonly scanned: number
  /** Number of dead letters that were published, confirmed and acknowledged. In a dry run, that would be. */
  readonly redriven: number
  /**
   * Number of dead letters that were removed. In a dry run, that would be. The broker has removed all of them when the
   * operation succeeds; if it fails or is interrupted while the broker does not answer, the last of them may come back.
   */
  readonly discarded: number
  /** Number of dead letters that were looked at and stay in their queue. */
  readonly left: number
  /**
   * Number of copies that a redrive may have published in addition: because a publish without an outcome was repeated,
   * or because the broker delivered a dead letter again whose copy was confirmed already.
   */
  readonly duplicates: number
  /** Number of dead letters that were chosen, and stay in their queue because they could not be published. */
  readonly failed: number
}

/**
 * A dead letter that could not be redriven.
 *
 * **When to use**
 *
 * Use to show why a dead letter stayed in its queue.
 *
 * @see {@link Report}
 *
 * @category models
 * @since 0.1.0
 */
export interface Failed {
  readonly id: string
  readonly queue: string
  /** What happened and what to do. */
  readonly message: string
}

/**
 * The final counts of a redrive or a discard.
 *
 * **When to use**
 *
 * Use as the type of what `redrive` and `discard` return.
 *
 * @see {@link Progress} for the counts
 *
 * @category models
 * @since 0.1.0
 */
export interface Report extends Omit<Progress, "queue"> {
  /** Whether nothing was changed. */
  readonly dryRun: boolean
  /**
   * Number of dead letters that cannot be read, because they are larger than `maxInboundMessageBodySize` or because
   * their headers are malformed. They stay in their queue, and are part of `left`.
   */
  readonly unreadable: number
  /** The first 100 of those that `failed` counts. */
  readonly failures: ReadonlyArray<Failed>
}

/**
 * Which dead letters an operation chooses, and how it works.
 *
 * **When to use**
 *
 * Use with `redrive`; `discard` has the same options and requires a choice.
 *
 * @see {@link RedriveOptions}
 * @see {@link DiscardOptions}
 *
 * @category options
 * @since 0.1.0
 */
export interface ChoiceOptions {
  /** Chooses dead letters. Default: all, or those of `ids`. With `ids`, both must choose a dead letter. */
  readonly where?: Where | undefined
  /** Chooses the dead letters with these ids. 1 to 10,000 of them. */
  readonly ids?: ReadonlyArray<string> | undefined
  /** Maximum number of dead letters that are chosen. At least 1. Default: all that were there at the start. */
  readonly limit?: number | undefined
  /** Maximum number of chosen dead letters per second. More than 0, at most 1,000,000. Default: no limit. */
  readonly rate?: number | undefined
  /** Whether the operation only counts what it would do, and changes nothing. Default: `false`. */
  readonly dryRun?: boolean | undefined
  /**
   * Runs while the operation runs, about ten times per second while the counts change, and once at its end. The
   * operation waits for it. Default: nothing runs.
   */
  readonly onProgress?: ((progress: Progress) => Effect.Effect<void>) | undefined
}

/**
 * Options of `redrive`.
 *
 * **When to use**
 *
 * Use with `redrive` of dead letters.
 *
 * @category options
 * @since 0.1.0
 */
export interface RedriveOptions extends ChoiceOptions {
  /**
   * Where the messages go: the name of a queue, or an exchange with a routing key. Default: the queue in which each of
   * them failed, by the default exchange, so that other queues which are bound to the same exchange get no second copy.
   *
   * A message that failed in a stream (`origin.offset`) stays without it. The stream still has the message, and all its
   * consumers would get a copy at its end. Give the queue of a consumer that handles such messages; or the stream, if a
   * copy for every consumer is what is wanted.
   */
  readonly to?: string | { readonly exchange: string; readonly routingKey: string } | undefined
}

/**
 * Options of `discard`. One of `where`, `ids` and `all` is required.
 *
 * **When to use**
 *
 * Use with `discard` of dead letters.
 *
 * @category options
 * @since 0.1.0
 */
export interface DiscardOptions extends ChoiceOptions {
  /** Whether all dead letters are chosen. Default: `false`. */
  readonly all?: boolean | undefined
}

/**
 * The dead letters of some queues.
 *
 * **When to use**
 *
 * Use as the type of what `of` returns.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetters {
  /** The dead-letter queues, in the order in which operations visit them. */
  readonly queues: ReadonlyArray<string>
  /**
   * Reads dead letters and leaves them in their queue: a bounded page, grouped by error and origin.
   *
   * The messages keep their order, except those that have come close to the delivery limit of a quorum queue, which are
   * published again at the end. All of them count as redelivered afterwards. While a page is read, no consumer gets its
   * messages. On a quorum queue before RabbitMQ 4.3, `x-delivery-count` of each message that is read grows by 1.
   *
   * Fails with `InvalidArgument` (options, a stream), `NotFound` (a queue is gone), `AccessRefused`, `ResourceLocked`
   * (the queue is exclusive to another connection, or has an exclusive consumer), `InactivityTimeout` (the broker delivers
   * nothing), or with the reason why there is no connection.
   */
  readonly peek: (options?: PeekOptions) => Effect.Effect<Page, AmqpError, AmqpConsumer>
  /**
   * Publishes dead letters to where they failed, confirmed and mandatory, and removes each from its dead-letter queue
   * when its copy is confirmed.
   *
   * It looks at no more messages than were there at the start, and never at one that it has published itself and that
   * has failed again. The copies keep content, message id, properties and headers, except for what reports earlier
   * failures and counts (`x-failed-*`, `x-retry-*`, `x-death` and its kin, `x-delivery-count`, `x-acquired-count`), for
   * `CC`, `BCC` and `expiration`, and for a `userId` other than the connection's: attempts start again. `x-redriven` is
   * added, the number of redrives so far, and `x-redriven-run`, the id of the last one.
   *
   * If the process, the connection or the broker fails at any point, no message is lost; messages whose acknowledgement
   * did not arrive are delivered and redriven again (`duplicates`). After a lost connection it continues, until
   * `timeout` passes without progress. If it is interrupted, it takes no further messages and waits for the confirms
   * of those in flight, for `closeTimeout` at most.
   *
   * Fails as `peek` does; with `AccessRefused` or `NotFound` if the exchange of `to` cannot be published to; with
   * `PublishTimeout` if the broker blocks publishers for longer than `timeout`. `onProgress` has the counts until then.
   * A message that only itself is refused, for instance because its queue is gone, or because it failed in a stream and
   * there is no `to`, does not end it: see `failed`.
   */
  readonly redrive: (options?: RedriveOptions) => Effect.Effect<Report, AmqpError, AmqpConsumer>
  /**
   * Removes dead letters. What it removes is gone. After a lost connection it continues, and removes what comes back;
   * each message counts once.
   *
   * It looks at no more messages than were there at the start. Fails as `peek` does, and with `InvalidArgument` if
   * nothing chooses: `where`, `ids` or `all` is required.
   */
  readonly discard: (options: DiscardOptions) => Effect.Effect<Report, AmqpError, AmqpConsumer>
}
