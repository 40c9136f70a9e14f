/**
 * Which shards this relay may publish.
 *
 * A relay leases its share of the shards for some seconds, by the clock of the database, and renews the leases in time. It
 * publishes no row of a shard after its lease has ended by its own monotonic clock, which started before the database
 * granted the lease: clocks of two machines need not agree. What is under way at that moment may be published twice.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { inTransaction } from "../database/transaction.ts"
import { shardCount } from "./orderKey.ts"
import { arrayParameter, type OutboxStatements } from "./statements.ts"

interface ShardRow {
  readonly shard: number
}

export interface ShardLeasesOptions {
  readonly sql: SqlClient
  readonly statements: OutboxStatements
  /** The name of the relay, which no other one has. */
  readonly relay: string
  /** Duration of a lease, in milliseconds. */
  readonly leaseMillis: number
  /** A monotonic clock, in milliseconds. */
  readonly now: () => number
  /** Whether rows of a shard are in hand: its lease is kept until they are done. */
  readonly isBusy: (shard: number) => boolean
}

export class ShardLeases {
  readonly #options: ShardLeasesOptions
  #owned = new Set<number>()
  /** Shards that go to another relay when nothing of them is in hand. */
  readonly #leaving = new Set<number>()
  #validUntil = -Infinity
  /** Open while no renewal is under way. */
  readonly #settled = Latch.makeUnsafe(true)

  constructor(options: ShardLeasesOptions) {
    this.#options = options
  }

  /** The shards to read. */
  get readable(): Array<number> {
    if (this.#options.now() >= this.#validUntil) return []
    return [...this.#owned].filter((shard) => !this.#leaving.has(shard))
  }

  get ownedCount(): number {
    return this.#owned.size
  }

  /** Whether a row of a shard may be published now. */
  isValid(shard: number): boolean {
    return this.#owned.has(shard) && this.#options.now() < this.#validUntil
  }

  /** Renews the leases, claims free shards up to this relay's share, and gives up what is above it. */
  get renew(): Effect.Effect<ReadonlyArray<number>, SqlError> {
    const { leaseMillis, now, relay, sql, statements } = this.#options
    const run = <Row extends object>(text: string, parameters: ReadonlyArray<unknown>) =>
      sql.unsafe<Row>(text, parameters).withoutTransform
    return Effect.suspend(() => {
      const startedAt = now()
      this.#settled.closeUnsafe()
      // A shard that is claimed had another owner in between, also if this relay has not noticed.
      const claimed = new Set<number>()
      return inTransaction(
        sql,
        Effect.gen({ self: this }, function* () {
          yield* run(statements.reportAlive, [relay, leaseMillis])
          yield* run(statements.forgetDead, [])
          const [alive] = yield* run<{ readonly count: number; readonly shards: number }>(statements.countAlive, [])
          if (Number(alive?.shards) < shardCount) {
            // A schema that was loaded without its rows, or tables that were truncated.
            yield* run(statements.addShards, [leaseMillis])
            yield* Effect.logWarning(
              `AMQP outbox: expected ${shardCount} rows in the table ${statements.table}_shard, got ${alive?.shards}. The missing ones are added, and their messages are published after ${Math.ceil(leaseMillis / 1000)}s`
            )
          }
          const share = Math.ceil(shardCount / Math.max(1, Number(alive?.count ?? 1)))
          const owned = new Set((yield* run<ShardRow>(statements.renew, [relay, leaseMillis])).map(shardIn))
          const surplus = owned.size - share
          const released: Array<number> = []
          this.#leaving.clear()
          if (surplus > 0) {
            // Shards without rows in hand first: they can go at once.
            const candidates = [...owned].sort(
              (a, b) => Number(this.#options.isBusy(a)) - Number(this.#options.isBusy(b))
            )
            for (const shard of candidates.slice(0, surplus)) {
              if (this.#options.isBusy(shard)) this.#leaving.add(shard)
              else released.push(shard)
            }
            // Before the other relay can claim them: a read that is under way may still bring rows of these shards.
            for (const shard of released) this.#owned.delete(shard)
            if (released.length > 0) yield* run(statements.release, [relay, arrayParameter(statements, released)])
            for (const shard of released) owned.delete(shard)
          } else if (surplus < 0) {
            for (const row of yield* run<ShardRow>(statements.claim, [relay, leaseMillis, -surplus])) {
              owned.add(shardIn(row))
              claimed.add(shardIn(row))
            }
          }
          return owned
        })
      ).pipe(
        Effect.map((owned) => {
          const gained = [...owned].filter((shard) => claimed.has(shard) || !this.#owned.has(shard))
          this.#owned = owned
          this.#validUntil = startedAt + leaseMillis
          return gained
        })
      )
    }).pipe(Effect.ensuring(Effect.sync(() => this.#settled.openUnsafe())))
  }

  /** Gives up every lease, for a relay that stops in order. */
  get releaseAll(): Effect.Effect<void, SqlError> {
    const { relay, sql, statements } = this.#options
    return Effect.suspend(() => {
      this.#owned = new Set()
      // A renewal that was interrupted may still run in the database, and would claim shards after this.
      return Effect.andThen(
        this.#settled.await,
        // Whatever the table says: a renewal may have committed and been interrupted before this relay saw its result.
        inTransaction(
          sql,
          Effect.andThen(sql.unsafe(statements.releaseAll, [relay]), sql.unsafe(statements.leave, [relay]))
        )
      )
    }).pipe(Effect.asVoid)
  }
}

const shardIn = ({ shard }: ShardRow): number => Number(shard)
