/**
 * What a relay has in hand: rows that are published and not yet removed, and how far each shard was read.
 *
 * Positions are given when a row is inserted, and rows appear when their transactions commit, so a row may appear behind
 * rows that were read. A shard is therefore read again from a position that was reached some seconds before, and now and
 * then from its beginning; rows in hand are left out.
 *
 * A transaction that is open for longer than that may commit a row behind this position, and a row of the same key beyond
 * it may be committed right after. Such transactions are remembered: when a read finds that one of them has ended, what
 * it brings is out of date, and every shard is read from its beginning.
 *
 * Rows of one key never overtake each other: the positions of a key are in the order of its commits, and everything that
 * was left out of a read, or put back, is read before what follows it.
 */

/** Time for which a position may still be overtaken: most transactions commit sooner. In milliseconds. */
const settleMillis = 5000
/** What was reached within this time is one entry. In milliseconds. */
const entryMillis = 100
/**
 * Time from which a read's snapshot shows every transaction that took a position before another one was reached: a
 * position is taken a moment before its transaction has an id. In milliseconds.
 */
const identifiedMillis = 1000

/** The transactions that a read has seen, by their ids. SQLite has none: its positions are in the order of the commits. */
export interface Snapshot {
  /** Every transaction from here on had not begun to write. */
  readonly next: bigint
  /** The transactions before `next` that had not ended. */
  readonly open: ReadonlySet<bigint>
}

export interface Row {
  readonly shard: number
  readonly position: number
  readonly orderKey: string | undefined
  /** Size in bytes. */
  readonly bytes: number
}

/** Rows of one key that wait for the one before them. */
interface KeyQueue<R extends Row> {
  readonly waiting: Array<R>
  /** Whether rows of the key were left out of a read, because enough of them waited. */
  hasMore: boolean
}

interface Reached {
  readonly since: number
  readonly at: number
  readonly position: number
  /** Transactions with smaller ids may have positions before this one. */
  next: bigint | undefined
}

class Shard {
  /** Everything up to here was read some time ago. */
  after = 0
  /** What was read since then, oldest first. */
  readonly reached: Array<Reached> = []
  /** Rows that were put back, and were not read again yet. */
  readonly putBack = new Set<number>()
  inHand = 0
}

export class WorkSet<R extends Row> {
  readonly #shards = new Map<number, Shard>()
  readonly #rows = new Map<number, R>()
  readonly #keys = new Map<string, KeyQueue<R>>()
  /** Keys of which a row was put back since the last read began: what that read brings of them is out of date. */
  readonly #outdated = new Set<string>()
  /** Shards that were rewound since the last read began: that read may have left out rows before those that it brings. */
  readonly #rewound = new Set<number>()
  /** Open transactions that may commit rows behind the positions from which shards are read. */
  readonly #open = new Set<bigint>()
  #bytes = 0

  /** Size of the rows in hand, in bytes. */
  get bytes(): number {
    return this.#bytes
  }

  /** Number of rows in hand. */
  get size(): number {
    return this.#rows.size
  }

  /** The positions in hand, for reading. */
  get positions(): Array<number> {
    return [...this.#rows.keys()]
  }

  inHandOf(shard: number): number {
    return this.#shards.get(shard)?.inHand ?? 0
  }

  /**
   * Begins a read. Returns the keys to leave out: those of which at least `most` rows are in hand, so that others have
   * room. A key that was left out once is left out until none of its rows is in hand, because later rows would overtake
   * those that were left out.
   */
  beginRead(most: number): Array<string> {
    this.#outdated.clear()
    this.#rewound.clear()
    const full: Array<string> = []
    for (const [key, queue] of this.#keys) {
      if (!queue.hasMore && queue.waiting.length + 1 < most) continue
      queue.hasMore = true
      full.push(key)
    }
    return full
  }

  /** The position after which a shard is to be read. */
  readAfter(shard: number): number {
    const state = this.#shards.get(shard)
    if (state === undefined) return 0
    let { after } = state
    for (const position of state.putBack) after = Math.min(after, position - 1)
    return after
  }

  /**
   * Settles what was reached in a shard some seconds before a read, which began at `startedAt`, and has brought every row
   * of the shard up to `position` that its snapshot shows.
   */
  settle(shard: number, position: number, startedAt: number, snapshot: Snapshot | undefined): void {
    const state = this.#shards.get(shard)
    if (state === undefined || this.#rewound.has(shard)) return
    const { reached } = state
    if (snapshot !== undefined) {
      for (const entry of reached) if (entry.at <= startedAt - identifiedMillis) entry.next ??= snapshot.next
    }
    let settled: Reached | undefined
    while (reached.length > 0 && reached[0]!.at <= startedAt - settleMillis && reached[0]!.position <= position) {
      settled = reached.shift()!
    }
    if (settled === undefined) return
    state.after = settled.position
    const { next } = settled
    if (snapshot === undefined || next === undefined) return
    for (const transaction of snapshot.open) if (transaction < next) this.#open.add(transaction)
  }

  /**
   * Whether a transaction has ended that may have committed rows behind what is read. Then nothing that the read with this
   * snapshot has brought may be taken, and everything is to be read from its beginning.
   */
  isOutdated({ next, open }: Snapshot): boolean {
    for (const transaction of this.#open) if (transaction < next && !open.has(transaction)) return true
    return false
  }

  /** Reads every shard from its beginning next time. */
  rewindAll(): void {
    for (const shard of this.#shards.keys()) this.rewind(shard)
    this.#open.clear()
  }

  /** Reads a shard from its beginning next time. */
  rewind(shard: number): void {
    this.#rewound.add(shard)
    const state = this.#shards.get(shard)
    if (state === undefined) return
    state.after = 0
    state.reached.length = 0
    state.putBack.clear()
  }

  /**
   * Takes a row that was read in hand. Returns whether it may be published now: otherwise it waits for a row of its key,
   * or is read again.
   */
  take(row: R, now: number): boolean {
    const { orderKey, position, shard } = row
    if (this.#rows.has(position)) return false
    if (orderKey !== undefined && this.#outdated.has(orderKey)) {
      this.putBack(row)
      return false
    }
    const state = this.#shardOf(shard)
    state.inHand++
    state.putBack.delete(position)
    const last = state.reached.at(-1)
    if (!this.#rewound.has(shard) && position > (last?.position ?? state.after)) {
      const since = last === undefined || now - last.since >= entryMillis ? undefined : last.since
      if (since !== undefined) state.reached.pop()
      state.reached.push({ since: since ?? now, at: now, position, next: undefined })
    }
    this.#rows.set(position, row)
    this.#bytes += row.bytes
    if (orderKey === undefined) return true
    const queue = this.#keys.get(orderKey)
    if (queue === undefined) {
      this.#keys.set(orderKey, { waiting: [], hasMore: false })
      return true
    }
    queue.waiting.push(row)
    return false
  }

  /** Ends the turn of a row in its key. Returns the next row of the key, which may be published now. */
  next({ orderKey, shard }: R): R | undefined {
    if (orderKey === undefined) return undefined
    const queue = this.#keys.get(orderKey)
    if (queue === undefined) return undefined
    const next = queue.waiting.shift()
    if (next === undefined) {
      this.#keys.delete(orderKey)
      if (queue.hasMore) this.rewind(shard)
    }
    return next
  }

  /** Forgets a row that is no longer in the table. */
  remove({ bytes, position, shard }: R): void {
    if (!this.#rows.delete(position)) return
    this.#shardOf(shard).inHand--
    this.#bytes -= bytes
  }

  /**
   * Puts a row back, to be read again. The rows of its key that wait for it are put back too. A row that was read and
   * not taken waits for nothing, and an earlier row of its key may be under way.
   */
  putBack(row: R): void {
    const isInHand = this.#rows.has(row.position)
    this.#putBackAlone(row)
    const { orderKey } = row
    if (orderKey === undefined) return
    this.#outdated.add(orderKey)
    if (!isInHand) return
    const queue = this.#keys.get(orderKey)
    if (queue === undefined) return
    this.#keys.delete(orderKey)
    for (const waiting of queue.waiting) this.#putBackAlone(waiting)
    if (queue.hasMore) this.rewind(row.shard)
  }

  #putBackAlone(row: R): void {
    this.remove(row)
    this.#shardOf(row.shard).putBack.add(row.position)
  }

  #shardOf(shard: number): Shard {
    const known = this.#shards.get(shard)
    if (known !== undefined) return known
    const made = new Shard()
    this.#shards.set(shard, made)
    return made
  }
}
