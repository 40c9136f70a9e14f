/** Wakes the relays of this process after a commit, and others that want to know of it. */
import type { SqlClient } from "effect/sql/SqlClient"

type Wake = () => void

class Listeners {
  /** The relays of this process. */
  readonly relays = new Set<Wake>()
  /** What passes commits of this process on to other processes. */
  readonly notifiers = new Set<Wake>()
}

// By the key of the client's transactions, which copies of the client share (`safe`, `withoutTransforms`).
const all = new WeakMap<object, Map<string, Listeners>>()

const listenersOf = (sql: SqlClient, table: string): Listeners => {
  const byTable = all.get(sql.transactionService) ?? new Map<string, Listeners>()
  all.set(sql.transactionService, byTable)
  const listeners = byTable.get(table) ?? new Listeners()
  byTable.set(table, listeners)
  return listeners
}

const add = (wakes: Set<Wake>, wake: Wake) => {
  wakes.add(wake)
  return () => {
    wakes.delete(wake)
  }
}

/** Calls `wake` when this client has committed messages to `table`, or `wakeRelays` is called. Returns the end of it. */
export const addRelay = (sql: SqlClient, table: string, wake: Wake): (() => void) =>
  add(listenersOf(sql, table).relays, wake)

/** Calls `wake` when this client has committed messages to `table`. Returns the end of it. */
export const addNotifier = (sql: SqlClient, table: string, wake: Wake): (() => void) =>
  add(listenersOf(sql, table).notifiers, wake)

/** Another process has committed messages. */
export const wakeRelays = (sql: SqlClient, table: string): void => {
  for (const wake of listenersOf(sql, table).relays) wake()
}

/** This process has committed messages. `undefined` if nothing is to be called. */
export const committed = (sql: SqlClient, table: string): (() => void) | undefined => {
  const listeners = all.get(sql.transactionService)?.get(table)
  return listeners === undefined || listeners.relays.size + listeners.notifiers.size === 0
    ? undefined
    : () => {
        for (const wake of listeners.relays) wake()
        for (const wake of listeners.notifiers) wake()
      }
}
