/** Publishes rows, and settles each by the outcome: it is to be removed, read again, postponed, or set aside. */
import { AmqpError, AmqpMessage, type AmqpPublisher } from "@effect-amqp/core"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { explainMissingTable } from "../database/errors.ts"
import { inTransaction } from "../database/transaction.ts"
import { failureKind, failureText } from "./failures.ts"
import { countRelayed } from "./metrics.ts"
import { Postponements } from "./postponements.ts"
import type { RepeatedLogs } from "./repeatedLogs.ts"
import type { Rest } from "./rest.ts"
import type { ShardLeases } from "./shardLeases.ts"
import { arrayParameter, type OutboxStatements } from "./statements.ts"
import type { Row, WorkSet } from "./workSet.ts"

/** A row that is to be published. */
export interface OutboxRow extends Row {
  readonly messageId: string
  readonly mandatory: boolean
  /** Number of attempts that were refused. */
  readonly attempts: number
  /** Whether an attempt was refused, also if it does not count. */
  readonly wasPostponed: boolean
  /** Whether the broker has closed a channel over the row. */
  readonly hasClosedChannel: boolean
  readonly encoded: AmqpMessage.Encoded
}

export interface RowPublisherSettings {
  readonly publishMillis: number
  readonly maxAttempts: number
  readonly whenExhausted: "setAside" | "hold"
  readonly retryMillis: number
}

export interface RowPublisherParts {
  readonly settings: RowPublisherSettings
  readonly sql: SqlClient
  readonly statements: OutboxStatements
  readonly publisher: AmqpPublisher.AmqpPublisher["Service"]
  /**
   * Publishes messages over which the broker may close the channel, one at a time on a channel of their own: what is in
   * flight on a channel that closes is published again.
   */
  readonly cautious: AmqpPublisher.AmqpPublisher["Service"]
  /**
   * Publishes one message on a channel that is closed afterwards: a message that is never confirmed takes its place among
   * those in flight until its channel closes.
   */
  readonly publishAlone: AmqpPublisher.AmqpPublisher["Service"]["publish"]
  readonly work: WorkSet<OutboxRow>
  readonly leases: ShardLeases
  readonly rest: Rest
  readonly logs: RepeatedLogs
  readonly now: () => number
  readonly fork: (effect: Effect.Effect<void>) => { interruptUnsafe(): void; addObserver(observer: () => void): void }
  /** Called when a row may be removed from the table. */
  readonly onConfirmed: (row: OutboxRow) => void
  /** Called when there may be room or something to read. */
  readonly onChange: () => void
}

const longestDelay = 60_000
/** A queue that refuses messages because it is full takes some time to be consumed. Such attempts do not count. */
const laterFactor = 4
/** A queue that confirms nothing comes back when its nodes do. Such attempts do not count. */
const unconfirmedFactor = 30
/** Maximum number of destinations to which a message is published alone at the same time. */
const maxAlone = 20
/** Maximum number of rows that wait for the cautious publisher: more would take the room of others. */
const maxCautious = 20
/** Time that the cautious publisher is expected to take per row. Rows beyond `maxCautious` are due at this pace. */
const cautiousMillis = 10
/** Time between two reads for rows that are due one after another. */
const paceMillis = 200
/** Number of confirms without a closed channel after which an exchange is trusted. */
const confirmsForTrust = 20
/** Number of channels that may close over other rows before a row is published with caution. */
const closedForCaution = 2
/** Maximum number of rows that are remembered because a channel closed over other ones. */
const maxBystanders = 20_000
/** Maximum number of exchanges that are not trusted. */
const maxDistrusted = 1000
/** Time between two logs that rows cannot be postponed or set aside. */
const logMillis = 60_000

const destinationOf = ({ encoded: { exchange, routingKey } }: OutboxRow): string => `${exchange}\0${routingKey}`

/** Whether the broker closes the channel with this failure. */
const closesChannel = (reason: AmqpError.AmqpErrorReason): boolean =>
  reason._tag === "NotFound" ||
  reason._tag === "AccessRefused" ||
  reason._tag === "PreconditionFailed" ||
  reason._tag === "ResourceLocked" ||
  // Without a code of the broker the message was not sent.
  (reason._tag === "MessageTooLarge" && reason.replyCode !== undefined)

/** Whether the outcome is unknown because the broker has closed the channel over another message. */
const isBystander = (reason: AmqpError.AmqpErrorReason): boolean =>
  reason._tag === "PublishUnknown" && AmqpError.isAmqpErrorReason(reason.cause) && closesChannel(reason.cause)

export class RowPublisher {
  readonly #parts: RowPublisherParts
  readonly #postponements: Postponements
  readonly #running = new Set<{ interruptUnsafe(): void }>()
  readonly #idle = Latch.makeUnsafe(true)
  #isStopping = false
  /** Destinations to which a row is being published alone. */
  readonly #alone = new Set<string>()
  /** Destinations that have not confirmed a message in time, and none since. */
  readonly #unconfirmed = new Set<string>()
  /** Exchanges over which the broker has closed a channel, and the number of confirms until they are trusted. */
  readonly #distrusted = new Map<string, number>()
  /** Number of channels that have closed over other rows while a row was in flight on them, by its position. */
  readonly #bystanders = new Map<number, number>()
  /** Number of rows that wait for the cautious publisher, or are published by it. */
  #cautious = 0
  /** Until when the cautious publisher has work, with the rows that were postponed for it. */
  #cautiousUntil = -Infinity
  #loggedAt = -Infinity
  /** When the rows that this relay has postponed are due. */
  #due: Array<number> = []
  #dueAt = Infinity

  constructor(parts: RowPublisherParts) {
    this.#parts = parts
    const { sql, statements } = parts
    this.#postponements = new Postponements({ sql, statements, fork: (effect) => this.#run(effect, () => {}) })
  }

  /** When the first of the rows that this relay has postponed is due, by its monotonic clock. */
  get dueAt(): number {
    return this.#dueAt
  }

  /** Everything that is due at a time is read now. */
  clearDue(time: number): void {
    this.#due = this.#due.filter((due) => due > time)
    this.#dueAt = this.#due.reduce((first, due) => Math.min(first, due), Infinity)
  }

  /** Starts to publish a row. */
  start(row: OutboxRow): void {
    const destination = destinationOf(row)
    const isAlone = this.#unconfirmed.has(destination)
    const isCautious = !isAlone && this.#needsCaution(row)
    if (isAlone) this.#alone.add(destination)
    if (isCautious) this.#cautious++
    this.#run(this.#publish(row, isAlone ? "alone" : isCautious ? "cautious" : "usual"), () => {
      if (isAlone) this.#alone.delete(destination)
      if (isCautious) this.#cautious--
      this.#parts.onChange()
    })
  }

  #run(effect: Effect.Effect<void>, onEnd: () => void): void {
    const fiber = this.#parts.fork(effect)
    this.#running.add(fiber)
    this.#idle.closeUnsafe()
    fiber.addObserver(() => {
      this.#running.delete(fiber)
      if (this.#running.size === 0) this.#idle.openUnsafe()
      onEnd()
    })
  }

  /**
   * Whether a row is under way to a destination that confirms nothing, or enough rows with the cautious publisher: more
   * would take the room of others.
   */
  isHeldUp(row: OutboxRow): boolean {
    return this.#isUnconfirmed(row) || (this.#cautious >= maxCautious && this.#needsCaution(row))
  }

  /** Postpones rows that are held up. They are not in hand. */
  postponeHeldUp(rows: ReadonlyArray<OutboxRow>): Effect.Effect<void, SqlError> {
    return Effect.suspend(() => {
      const { now, settings } = this.#parts
      const unconfirmed = rows.filter((row) => this.#isUnconfirmed(row))
      const others = rows.filter((row) => !this.#isUnconfirmed(row))
      const time = now()
      const begin = Math.min(Math.max(time + settings.retryMillis, this.#cautiousUntil), time + longestDelay)
      const end = Math.min(begin + others.length * cautiousMillis, time + longestDelay)
      this.#cautiousUntil = end
      return Effect.andThen(
        this.#postponeAll(
          unconfirmed,
          Math.min(longestDelay, settings.retryMillis * unconfirmedFactor),
          0,
          "PublishTimeout: the broker confirms no message with this exchange and routing key"
        ),
        this.#postponeAll(others, begin - time, end - begin, null)
      )
    })
  }

  #postponeAll(rows: ReadonlyArray<OutboxRow>, delay: number, spread: number, failure: string | null) {
    const { sql, statements } = this.#parts
    const array = (values: ReadonlyArray<number>) => arrayParameter(statements, values)
    const parameters = [
      array(rows.map(({ shard }) => shard)),
      array(rows.map(({ position }) => position)),
      delay,
      spread,
      failure
    ]
    return rows.length === 0
      ? Effect.void
      : Effect.map(sql.unsafe(statements.postponeAll, parameters), () => {
          for (let after = delay; after < delay + spread; after += paceMillis) this.#dueIn(after)
          this.#dueIn(delay + spread)
        })
  }

  #isUnconfirmed(row: OutboxRow): boolean {
    if (this.#unconfirmed.size === 0) return false
    const destination = destinationOf(row)
    return this.#unconfirmed.has(destination) && (this.#alone.has(destination) || this.#alone.size >= maxAlone)
  }

  /** Whether the broker may close the channel over a row. */
  #needsCaution({ encoded, hasClosedChannel, position }: OutboxRow): boolean {
    return (
      hasClosedChannel ||
      this.#distrusted.has(encoded.exchange) ||
      (this.#bystanders.get(position) ?? 0) >= closedForCaution
    )
  }

  /** A channel has closed over another row. This one may be the next over which one closes. */
  #stoodBy({ position }: OutboxRow): void {
    const closed = (this.#bystanders.get(position) ?? 0) + 1
    if (this.#bystanders.size >= maxBystanders) this.#bystanders.clear()
    this.#bystanders.set(position, closed)
  }

  #distrust({ encoded: { exchange } }: OutboxRow): void {
    this.#distrusted.delete(exchange)
    this.#distrusted.set(exchange, confirmsForTrust)
    const [oldest = exchange] = this.#distrusted.keys()
    if (this.#distrusted.size > maxDistrusted) this.#distrusted.delete(oldest)
  }

  #confirmedCautiously({ encoded: { exchange } }: OutboxRow): void {
    const left = this.#distrusted.get(exchange)
    if (left === undefined) return
    if (left === 1) this.#distrusted.delete(exchange)
    else this.#distrusted.set(exchange, left - 1)
  }

  /** Publishes nothing more, and completes when the publishes under way have ended or are interrupted. */
  stop(withinMillis: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#isStopping = true
      return Effect.timeoutOption(this.#idle.await, withinMillis)
    }).pipe(
      Effect.andThen(
        Effect.sync(() => {
          for (const fiber of this.#running) fiber.interruptUnsafe()
        })
      ),
      Effect.andThen(this.#idle.await)
    )
  }

  #publish(row: OutboxRow, way: "usual" | "cautious" | "alone"): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { cautious, leases, publishAlone, publisher, settings } = this.#parts
      if (this.#isStopping || !leases.isValid(row.shard)) {
        this.#parts.work.putBack(row)
        return Effect.void
      }
      const publish = way === "alone" ? publishAlone : way === "cautious" ? cautious.publish : publisher.publish
      return AmqpMessage.fromEncoded(row.encoded).pipe(
        Effect.flatMap((message) => {
          const sent = publish(message, { mandatory: row.mandatory, timeout: settings.publishMillis })
          const context = AmqpMessage.traceContext({ properties: message })
          return context === undefined ? sent : Effect.withParentSpan(sent, context)
        }),
        Effect.matchCauseEffect({
          onSuccess: () =>
            Effect.sync(() => {
              if (way === "cautious") this.#confirmedCautiously(row)
              this.#published(row)
            }),
          onFailure: (cause) => this.#failed(row, cause)
        })
      )
    })
  }

  #published(row: OutboxRow): void {
    const { onConfirmed, rest, work } = this.#parts
    rest.end()
    this.#bystanders.delete(row.position)
    if (this.#unconfirmed.size > 0) this.#unconfirmed.delete(destinationOf(row))
    onConfirmed(row)
    const next = work.next(row)
    if (next !== undefined) this.start(next)
  }

  #failed(row: OutboxRow, cause: Cause.Cause<AmqpError.AmqpError>): Effect.Effect<void> {
    const error = cause.reasons.find(Cause.isFailReason)?.error
    if (error === undefined) {
      this.#pause(row)
      return Cause.hasInterruptsOnly(cause)
        ? Effect.void
        : Effect.logError("AMQP outbox relay: a publish died, and is tried again", cause)
    }
    const kind = failureKind(error)
    if (kind === "relay") {
      if (isBystander(error.reason)) this.#stoodBy(row)
      this.#pause(row)
      return countRelayed("failed")
    }
    if (kind === "unconfirmed") this.#unconfirmed.add(destinationOf(row))
    if (closesChannel(error.reason)) this.#distrust(row)
    this.#bystanders.delete(row.position)
    const { maxAttempts, retryMillis, whenExhausted } = this.#parts.settings
    const isExhausted = kind === "never" || (kind === "message" && row.attempts + 1 >= maxAttempts)
    const settled =
      isExhausted && whenExhausted === "setAside"
        ? this.#setAside(row, error)
        : kind === "later" || kind === "unconfirmed"
          ? this.#postpone(
              row,
              error,
              Math.min(longestDelay, retryMillis * (kind === "later" ? laterFactor : unconfirmedFactor)),
              false
            )
          : this.#postpone(
              row,
              error,
              isExhausted ? longestDelay : Math.min(longestDelay, retryMillis * 2 ** Math.min(row.attempts, 16)),
              true
            )
    // The row stays as it is, so it is published again.
    return Effect.catchCause(settled, (failure) =>
      Effect.suspend(() => {
        this.#pause(row)
        if (Cause.hasInterruptsOnly(failure)) return Effect.void
        const { now, statements } = this.#parts
        if (now() - this.#loggedAt < logMillis) return Effect.void
        this.#loggedAt = now()
        // The other parts of the relay may still work, such as without the permission to update.
        return Effect.logError(
          `AMQP outbox relay cannot ${isExhausted ? "set aside" : "postpone"} a message that was not published (${error.message}), and publishes it again`,
          Cause.map(failure, explainMissingTable(statements.table))
        )
      })
    )
  }

  #pause(row: OutboxRow): void {
    this.#parts.work.putBack(row)
    this.#parts.rest.begin()
  }

  #dueIn(delay: number): void {
    const dueAt = this.#parts.now() + delay
    this.#due.push(dueAt)
    this.#dueAt = Math.min(this.#dueAt, dueAt)
  }

  #postpone(row: OutboxRow, error: AmqpError.AmqpError, delay: number, counts: boolean) {
    const { work } = this.#parts
    return Effect.gen({ self: this }, function* () {
      const { position, shard } = row
      yield* this.#postponements.write({ shard, position, delay, failure: failureText(error), counts })
      this.#dueIn(delay)
      work.putBack(row)
      yield* countRelayed("postponed")
      yield* this.#parts.logs.write(
        `AMQP outbox message was not published, and is tried again (${error.reason._tag})`,
        Effect.annotateLogs(
          Effect.logWarning(
            `AMQP outbox message was not published, and is tried again in ${Math.ceil(delay / 1000)}s: ${error.message}`
          ),
          { messageId: row.messageId, attempt: row.attempts + 1 }
        )
      )
    })
  }

  #setAside(row: OutboxRow, error: AmqpError.AmqpError) {
    const { sql, statements, work } = this.#parts
    return Effect.gen({ self: this }, function* () {
      const isRecorded = yield* inTransaction(
        sql,
        Effect.gen(function* () {
          const parameters = [row.shard, row.position, failureText(error)]
          const recorded = yield* sql.unsafe(statements.setAside, parameters).withoutTransform
          if (recorded.length === 0) return false
          yield* sql.unsafe(statements.remove, [
            arrayParameter(statements, [row.shard]),
            arrayParameter(statements, [row.position])
          ])
          return true
        })
      )
      // Another relay has set it aside, or does so now.
      if (!isRecorded) return work.putBack(row)
      work.remove(row)
      const next = work.next(row)
      if (next !== undefined) this.start(next)
      // While it was postponed, later rows of its key were left out.
      else if (row.wasPostponed) work.rewind(row.shard)
      yield* countRelayed("set_aside")
      yield* this.#parts.logs.write(
        `AMQP outbox message was set aside (${error.reason._tag})`,
        Effect.annotateLogs(
          Effect.logError(
            `AMQP outbox message was set aside: ${error.message} See AmqpOutbox.listSetAside, restore and discard.`
          ),
          { messageId: row.messageId, attempts: row.attempts + 1 }
        )
      )
    })
  }
}
