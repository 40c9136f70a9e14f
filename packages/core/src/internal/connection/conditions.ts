/**
 * Conditions that need an operator's attention, by key. Health checks, the dashboard and metrics report them together
 * with the state of the connection. The code that reports a condition clears it, with the same key, when it has passed.
 */
import type { Condition } from "../../model/connection.ts"

/** The conditions of one application. */
export class Conditions {
  readonly #conditions = new Map<string, Condition>()
  /** Every kind that was ever reported, and the kinds for which an alert must find a zero from the start. */
  readonly #kinds = new Set<string>(["ConsumerEnded", "ConsumerNotStarted", "ConsumerInterrupted"])
  readonly #watchers = new Set<(kind: string) => void>()

  /** Reports a condition. It replaces one with the same key, and keeps its `since` if the kind is the same. */
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

  /**
   * Calls `watcher` with each kind: with the known ones at once, with others when they are first reported. Returns a
   * function that removes the watcher.
   */
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
