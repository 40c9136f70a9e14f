/**
 * Whether a process is alive and ready, as far as its broker is concerned.
 *
 * @since 0.1.0
 */
import { AmqpConnection as Core } from "@effect-amqp/core"
import * as Context4 from "@effect-amqp/effect4/Context"
import * as Effect from "effect/Effect"
import { AmqpConnection, conditions as currentConditions } from "./AmqpConnection.ts"
import { insideOf } from "./internal/inside.ts"
import type { Condition, Flow, State } from "./model/connection.ts"
import { AmqpPool } from "./model/pool.ts"
import type { ConditionReport, Reason } from "./model/health.ts"

export * from "./model/health.ts"

/**
 * What a health check reports.
 *
 * **When to use**
 *
 * Use to answer probes, or to show the state of a service.
 *
 * @see {@link check} for making one
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  /** Whether the process can recover without a restart. */
  readonly live: boolean
  /** Whether the service can take requests. */
  readonly ready: boolean
  /** All reasons why the service is not ready; empty if it is ready. */
  readonly reasons: ReadonlyArray<Reason>
  /** The connection of pool and publisher. */
  readonly connection: {
    /** The tag of the connection's state. */
    readonly state: State["_tag"]
    /** Why the connection is not open: the tag of an `AmqpErrorReason`. */
    readonly reason?: string
  }
  /** The conditions that need attention, by kind; empty if there are none. */
  readonly conditions: ReadonlyArray<ConditionReport>
  /** Whether the broker accepts messages. */
  readonly flow: Flow["_tag"]
  /** The pool of regular channels. */
  readonly pool: {
    /** Number of channels that are open and not borrowed. */
    readonly idle: number
    /** Number of channels that are borrowed. */
    readonly used: number
    /** Number of borrowers in the wait queue. */
    readonly pending: number
    /** Maximum number of channels; `null` without pooling. */
    readonly max: number | null
  }
}

const byKind = (conditions: ReadonlyArray<Condition>): ReadonlyArray<ConditionReport> => {
  const reports = new Map<string, ConditionReport>()
  for (const { kind, notReady, since } of conditions) {
    const before = reports.get(kind) ?? { kind, count: 0, notReady: false, since }
    reports.set(kind, {
      kind,
      count: before.count + 1,
      notReady: before.notReady || notReady,
      since: Math.min(before.since, since)
    })
  }
  return Array.from(reports.values())
}

/**
 * The present health of a service.
 *
 * **When to use**
 *
 * Use in a route of your own. `AmqpHttp.live` and `AmqpHttp.ready` are handlers for probes.
 *
 * **Details**
 *
 * The service is not ready without a connection (`NotConnected`), while the broker blocks publishers (`Blocked`, unless
 * `blocked` is `"ready"`), while the pool and its wait queue are full (`PoolFull`), and when a consumer has ended that
 * should run (`ConsumerEnded`).
 *
 * @category health
 * @since 0.1.0
 */
export const check = (
  options: { readonly blocked?: "ready" | "notReady" | undefined } = {}
): Effect.Effect<Report, never, AmqpConnection | AmqpPool> =>
  Effect.gen(function* () {
    const connection = yield* AmqpConnection
    const inside = insideOf("AmqpHealth.check", connection)
    const { config } = Context4.get(inside.context, Core.AmqpConnection)
    const state = yield* connection.state.get
    const flow = yield* connection.flow.get
    const { idle, max, pending, used } = yield* (yield* AmqpPool).stats
    const conditions = byKind(yield* currentConditions)
    const isFull = config.pool !== false && used >= config.pool.max && pending >= Math.max(1, config.pool.maxWaiting)
    const reasons: Array<Reason> = []
    if (state._tag !== "Open") reasons.push("NotConnected")
    if (flow._tag === "Blocked" && options.blocked !== "ready") reasons.push("Blocked")
    if (isFull) reasons.push("PoolFull")
    for (const { kind, notReady } of conditions) if (notReady) reasons.push(kind)
    const reason = "reason" in state ? state.reason?._tag : undefined
    return {
      live: state._tag !== "Closed",
      ready: reasons.length === 0,
      reasons,
      connection: { state: state._tag, ...(reason === undefined ? undefined : { reason }) },
      conditions,
      flow: flow._tag,
      pool: { idle, used, pending, max: Number.isFinite(max) ? max : null }
    }
  })
