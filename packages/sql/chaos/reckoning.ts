/** What the database says at the end. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"

export interface Balance {
  readonly orders: number
  /** Orders with exactly one effect. */
  readonly handled: number
  /** Orders without an effect: must be 0. */
  readonly lost: number
  /** Orders with more than one effect: must be 0. */
  readonly twice: number
  /** Effects of orders that do not exist, because their transactions have rolled back: must be 0. */
  readonly phantoms: number
}

export interface Order {
  /** Effects of a customer's order after those of a later one: must be 0. */
  readonly overtaken: number
  /** Whether each customer's numbers are complete, as the shop gave them. */
  readonly isComplete: boolean
}

export interface Rest {
  readonly outbox: number
  readonly setAside: number
}

const balanceOf = (effects: string, orders: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [balance] = yield* sql.unsafe<Balance>(`
      WITH counted AS (
        SELECT o.id, (SELECT count(*) FROM ${effects} AS e WHERE e.order_id = o.id) AS effects FROM orders AS o WHERE ${orders}
      )
      SELECT count(*)::integer AS orders,
        (count(*) FILTER (WHERE effects = 1))::integer AS handled,
        (count(*) FILTER (WHERE effects = 0))::integer AS lost,
        (count(*) FILTER (WHERE effects > 1))::integer AS twice,
        (SELECT count(*) FROM ${effects} AS e WHERE NOT EXISTS (SELECT FROM orders AS o WHERE o.id = e.order_id))::integer AS phantoms
      FROM counted`)
    return balance!
  })

export const reckoning = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  for (const table of ["effects", "ordered_effects"]) yield* sql.unsafe(`CREATE INDEX ON ${table} (order_id)`)
  const [order] = yield* sql<Order>`
    SELECT
      (SELECT count(*) FROM (
        SELECT number, max(number) OVER (
          PARTITION BY customer ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before FROM ordered_effects
      ) AS effects WHERE number < before)::integer AS overtaken,
      NOT EXISTS (
        SELECT FROM customers AS c WHERE c.orders <> (
          SELECT count(DISTINCT o.number) FROM orders AS o WHERE o.customer = c.name AND o.number BETWEEN 1 AND c.orders
        )
      ) AS "isComplete"`
  return {
    all: yield* balanceOf("effects", "true"),
    ordered: yield* balanceOf("ordered_effects", "o.customer IS NOT NULL"),
    order: order!
  }
})

export const rest = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [counts] = yield* sql<Rest>`
    SELECT (SELECT count(*) FROM amqp_outbox)::integer AS outbox,
      (SELECT count(*) FROM amqp_outbox_set_aside)::integer AS "setAside"`
  return counts!
})

/** What programs leave in the database while they run: none of it must be there at the end. */
export const leftovers = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const [counts] = yield* sql<{ connections: number; locks: number; leases: number }>`
    SELECT
      (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chaos program')::integer AS connections,
      (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')::integer AS locks,
      (SELECT count(*) FROM amqp_outbox_shard WHERE owner IS NOT NULL AND leased_until > clock_timestamp())::integer AS leases`
  return counts!
})
