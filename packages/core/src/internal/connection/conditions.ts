/**
 * Conditions that need an operator's attention, by a key: what health checks, the dashboard and metrics report beside the
 * state of the connection. Whoever reports a condition clears it, with the same key, when it has passed.
 */
import type { Condition } from "../../model/connection.ts"

/** The conditions of one application. */
export class Conditions {
  readonly #conditions = new Map<string, Condition>()
  /** Every kind that has been reported, whether it lasts or not, and those that an alert should find at zero. */
  readonly #kinds = new Set<string>(["ConsumerEnded", "ConsumerNotStarted", "ConsumerInterrupted"])
  readonly #watchers = new Set<(kind: string) => void>()

  /** Reports a condition. One with the same key is replaced, and keeps its beginning if its kind is the same. */
  report(key: string, condition: Omit<Condition, "since">, now: number): void {
    const before = this.#conditions.get(key)
    this.#conditions.set(key, { ...condition, since: before?.kind === condition.kind ? before.since : now })
    if (this.#kinds.has(condition.kind)) return
    this.#kinds.add(condition.kind)
    for (const watcher of this.#watchers) watcher(condition.kind)
  }

  clear(key: string): void {
    this.#conditions.delete(key)
  }

  /** Calls for each kind, of others than these as soon as it is reported for the first time. Returns how to end that. */
  watchKinds(watcher: (kind: string) => void): () => void {
    for (const kind of this.#kinds) watcher(kind)
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }

  countOf(kind: string): number {
    let count = 0
    for (const condition of this.#conditions.values()) if (condition.kind === kind) count++
    return count
  }

  get all(): ReadonlyMap<string, Condition> {
    return this.#conditions
  }
}
