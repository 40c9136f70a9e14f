/**
 * Conditions that need an operator's attention, by a key: what health checks, the dashboard and metrics report beside the
 * state of the connection. Whoever reports a condition clears it, with the same key, when it has passed.
 */

/** One condition. */
export interface Condition {
  /** A stable word for programs, such as `ConsumerEnded` or `DeclarationSetAside`. It must contain no name or address. */
  readonly kind: string
  /** The full text, for logs and operators. It may name queues and exchanges, but contains no secret. */
  readonly message: string
  /** Whether the application should get no requests while the condition lasts. */
  readonly notReady: boolean
  /** When the condition began, in milliseconds since the epoch. */
  readonly since: number
}

/** The conditions of one application. */
export class Conditions {
  readonly #conditions = new Map<string, Condition>()

  /** Reports a condition. One with the same key is replaced, and keeps its beginning if its kind is the same. */
  report(key: string, condition: Omit<Condition, "since">, now: number): void {
    const before = this.#conditions.get(key)
    this.#conditions.set(key, { ...condition, since: before?.kind === condition.kind ? before.since : now })
  }

  clear(key: string): void {
    this.#conditions.delete(key)
  }

  get all(): ReadonlyMap<string, Condition> {
    return this.#conditions
  }
}
