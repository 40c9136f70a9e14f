/** Publishes rows, and settles each by the outcome: it is to be removed, read again, postponed, or set aside. */
import { type AmqpError, AmqpMessage, type AmqpPublisher } from "@effect-amqp/core"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { explainMissingTable } from "../database/errors.ts"
import { inTransaction } from "../database/transaction.ts"
import { failureKind, failureText } from "./failures.ts"
import { countRelayed } from "./metrics.ts"
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
   * Publishes messages that were refused before, one at a time on a channel of their own: the broker closes a channel over
   * some messages, and what is in flight on it is published again.
   */
  readonly cautious: AmqpPublisher.AmqpPublisher["Service"]
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
/** Maximum number of rows under way to a destination that has not confirmed a message in time. */
const maxUnconfirmed = 20
/** Time between two logs that rows cannot be postponed or set aside. */
const logMillis = 60_000

const destinationOf = ({ encoded: { exchange, routingKey } }: OutboxRow): string => `${exchange}\0${routingKey}`

export class RowPublisher {
  readonly #parts: RowPublisherParts
  readonly #running = new Set<{ interruptUnsafe(): void }>()
  readonly #idle = Latch.makeUnsafe(true)
  #isStopping = false
  /** Number of rows under way to a destination. */
  readonly #underWay = new Map<string, number>()
  /** Destinations that have not confirmed a message in time, and none since. */
  readonly #unconfirmed = new Set<string>()
  #loggedAt = -Infinity
  /** When the rows that this relay has postponed are due. */
  #due: Array<number> = []
  #dueAt = Infinity

  constructor(parts: RowPublisherParts) {
    this.#parts = parts
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
    this.#underWay.set(destination, (this.#underWay.get(destination) ?? 0) + 1)
    const fiber = this.#parts.fork(this.#publish(row))
    this.#running.add(fiber)
    this.#idle.closeUnsafe()
    fiber.addObserver(() => {
      this.#running.delete(fiber)
      const left = (this.#underWay.get(destination) ?? 1) - 1
      if (left > 0) this.#underWay.set(destination, left)
      else this.#underWay.delete(destination)
      if (this.#running.size === 0) this.#idle.openUnsafe()
      this.#parts.onChange()
    })
  }

  /** Whether enough rows are under way to a destination that confirms nothing: more would take the room of others. */
  isHeldUp(row: OutboxRow): boolean {
    if (this.#unconfirmed.size === 0) return false
    const destination = destinationOf(row)
    return this.#unconfirmed.has(destination) && (this.#underWay.get(destination) ?? 0) >= maxUnconfirmed
  }

  /** Postpones rows that are held up. They are not in hand. */
  postponeHeldUp(rows: ReadonlyArray<OutboxRow>): Effect.Effect<void, SqlError> {
    const { settings, sql, statements } = this.#parts
    return Effect.suspend(() => {
      const delay = Math.min(longestDelay, settings.retryMillis * unconfirmedFactor)
      const array = (values: ReadonlyArray<number>) => arrayParameter(statements, values)
      return Effect.map(
        sql.unsafe(statements.postponeAll, [
          array(rows.map(({ shard }) => shard)),
          array(rows.map(({ position }) => position)),
          delay,
          "PublishTimeout: the broker confirms no message with this exchange and routing key"
        ]),
        () => this.#dueIn(delay)
      )
    })
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

  #publish(row: OutboxRow): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { cautious, leases, publisher, settings } = this.#parts
      if (this.#isStopping || !leases.isValid(row.shard)) {
        this.#parts.work.putBack(row)
        return Effect.void
      }
      const sender = row.attempts === 0 ? publisher : cautious
      return AmqpMessage.fromEncoded(row.encoded).pipe(
        Effect.flatMap((message) => {
          const sent = sender.publish(message, { mandatory: row.mandatory, timeout: settings.publishMillis })
          const context = AmqpMessage.traceContext({ properties: message })
          return context === undefined ? sent : Effect.withParentSpan(sent, context)
        }),
        Effect.matchCauseEffect({
          onSuccess: () => Effect.sync(() => this.#published(row)),
          onFailure: (cause) => this.#failed(row, cause)
        })
      )
    })
  }

  #published(row: OutboxRow): void {
    const { onConfirmed, rest, work } = this.#parts
    rest.end()
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
      this.#pause(row)
      return countRelayed("failed")
    }
    if (kind === "unconfirmed") this.#unconfirmed.add(destinationOf(row))
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
    const { sql, statements, work } = this.#parts
    return Effect.gen({ self: this }, function* () {
      yield* sql.unsafe(statements.postpone, [row.shard, row.position, delay, failureText(error), Number(counts)])
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
