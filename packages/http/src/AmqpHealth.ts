/**
 * Health checks: whether the process needs a restart (liveness), and whether it can take requests (readiness).
 *
 * | state | live | ready |
 * | --- | --- | --- |
 * | the connection is open and the broker accepts messages | yes | yes |
 * | it connects for the first time, or reconnects, also after a refusal that may be temporary | yes | no |
 * | the broker has blocked publishers | yes | no, or yes with `blocked: "ready"` |
 * | the pool's wait queue is full, so that the next borrower is refused | yes | no |
 * | a consumer or RPC server has ended unexpectedly, or could not start | yes | no |
 * | a consumer has lost its subscription, and subscribes again | yes | yes |
 * | another condition lasts (`AmqpConnection.conditions`) | yes | as the condition says |
 * | the server is stopping (`AmqpHttpServer.graceful`) | yes | no |
 * | the connection is closed permanently (refused at first, or by `reconnect.onRefused: "close"`) | no | no |
 *
 * A live service that is not ready recovers automatically, so a restart gains nothing. A refused login is such a case:
 * the connection tries again, immediately after a new secret (`updateSecret`), and an orchestrator that kills the
 * process repeatedly would only add failed logins. An ended consumer does not affect liveness either, because whether a
 * restart helps depends on why it has ended. Let the application end with its consumer (`Effect.raceFirst(server,
 * consumer)`), or start the consumer again. A connection that is closed permanently reads its configuration again only
 * after a restart.
 *
 * The rules are those of the dashboard, which shows them in words: see `docs/dashboard.md`.
 *
 * The answers are JSON with the checks and the reasons as tags. They contain no host, user or text of the broker, so
 * they can be exposed publicly.
 *
 * @since 0.1.0
 */
import { type Amqp, AmqpConnection, AmqpPool } from "@effect-amqp/core"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Layer from "effect/Layer"
import * as AmqpHttpServer from "./AmqpHttpServer.ts"
import { diagnose, reasonsOf } from "./internal/health/rules.ts"
import { poolOf } from "./internal/health/situation.ts"
import { type Names, refuseUnknownNames } from "./internal/options.ts"

/**
 * A reason why a service is not ready.
 *
 * **When to use**
 *
 * Use when you react to single reasons of a {@link Report}, for example to ignore one of them.
 *
 * **Details**
 *
 * - `NotConnected`: the connection is not open.
 * - `Blocked`: the broker does not accept messages.
 * - `PoolFull`: the pool's wait queue is full.
 * - `Stopping`: the HTTP server is stopping.
 * - `ConsumerEnded`, `ConsumerNotStarted`: a consumer has ended, or could not start.
 * - Any other string is the kind of another condition (`AmqpConnection.conditions`).
 *
 * @category models
 * @since 0.1.0
 */
export type Reason =
  | "NotConnected"
  | "Blocked"
  | "PoolFull"
  | "Stopping"
  | "ConsumerEnded"
  | "ConsumerNotStarted"
  | (string & {})

/**
 * The conditions of one kind, summed up.
 *
 * **When to use**
 *
 * Use when you read the `conditions` of a {@link Report}, for example to alert on a kind that lasts.
 *
 * **Details**
 *
 * The texts of conditions may name queues, so they are not part of a report. They are in the log and on the dashboard.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConditionReport {
  /** A stable identifier, see `AmqpConnection.conditions`. */
  readonly kind: string
  /** How many conditions of this kind last. */
  readonly count: number
  /** Whether they keep the service from being ready. */
  readonly notReady: boolean
  /** When the oldest of them began, in milliseconds of Unix time. */
  readonly since: number
}

/**
 * The result of a health check.
 *
 * **When to use**
 *
 * Use when you build a health page of your own from {@link check}, or read the JSON of the routes of {@link layer}.
 *
 * **Details**
 *
 * A report contains no host, user or text of the broker.
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
  /** Whether the HTTP server of the current request is stopping. Always `false` without `AmqpHttpServer.graceful`. */
  readonly stopping: boolean
  /** The connection of pool and publisher. */
  readonly connection: {
    /** The tag of the connection's state. */
    readonly state: AmqpConnection.State["_tag"]
    /** Why the connection is not open: the tag of an `AmqpErrorReason`. */
    readonly reason?: string
    /** Number of attempts that have failed since the connection was lost. */
    readonly attempt?: number
    /** The number of this connection, counted since the start of the service. */
    readonly generation?: number
  }
  /** The conditions that need attention, by kind; empty if there are none. */
  readonly conditions: ReadonlyArray<ConditionReport>
  /** Whether the broker accepts messages. */
  readonly flow: AmqpConnection.Flow["_tag"]
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

/**
 * Options of the health checks.
 *
 * **When to use**
 *
 * Use when the paths of an orchestrator differ from the defaults, or when the service stays useful while the broker
 * blocks publishers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Whether the service is ready while the broker blocks publishers. Default: `"notReady"`. Choose `"ready"` for a
   * service that publishes nothing, or that can wait.
   */
  readonly blocked?: "ready" | "notReady" | undefined
  /** Path of the liveness check. Default: `/health/live`. */
  readonly livePath?: HttpRouter.PathInput | undefined
  /** Path of the readiness check. Default: `/health/ready`. */
  readonly readyPath?: HttpRouter.PathInput | undefined
}

const optionNames: Names<Options> = { blocked: true, livePath: true, readyPath: true }

const connectionReport = (state: AmqpConnection.State): Report["connection"] => {
  switch (state._tag) {
    case "Open":
      return { state: state._tag, generation: state.generation }
    case "Closed":
      return { state: state._tag, reason: state.reason._tag }
    default:
      return {
        state: state._tag,
        attempt: state.attempt,
        ...(state.reason === undefined ? undefined : { reason: state.reason._tag })
      }
  }
}

const conditionsByKind = (conditions: ReadonlyArray<AmqpConnection.Condition>): ReadonlyArray<ConditionReport> => {
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
 * Checks the connection, the pool and the conditions.
 *
 * **When to use**
 *
 * Use when the application has a health page of its own, or combines AMQP's health with that of other services. The
 * layer of this module adds ready-made routes.
 *
 * **Details**
 *
 * A check reads memory only. It sends nothing to the broker, and never fails. It dies if it is given an unknown option.
 *
 * **Example** (Logging why a service is not ready)
 *
 * ```ts
 * import { AmqpHealth } from "@effect-amqp/http"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const { ready, reasons } = yield* AmqpHealth.check()
 *   if (!ready) yield* Effect.logWarning("not ready", reasons)
 * })
 * ```
 *
 * @see {@link layer} for the routes
 *
 * @category health checks
 * @since 0.1.0
 */
export const check = Effect.fnUntraced(function* (
  options: Pick<Options, "blocked"> = {}
): Effect.fn.Return<Report, never, AmqpConnection.AmqpConnection | AmqpPool.AmqpPool> {
  refuseUnknownNames("AmqpHealth.check", options, { blocked: true })
  const { config, flow, state } = yield* AmqpConnection.AmqpConnection
  const { idle, max, pending, used } = yield* AmqpPool.stats
  const stopping = (yield* AmqpHttpServer.Shutdown).isStopping
  const conditions = yield* AmqpConnection.conditions
  const reasons = reasonsOf(
    diagnose({
      state: state.value,
      flow: flow.value,
      stateSince: undefined,
      blocked: options.blocked ?? "notReady",
      pool: poolOf(config, { used, pending }),
      stopping,
      conditions,
      consumers: [],
      consumersState: undefined,
      recent: undefined,
      queues: undefined
    })
  )
  return {
    live: state.value._tag !== "Closed",
    ready: reasons.length === 0,
    reasons,
    stopping,
    connection: connectionReport(state.value),
    conditions: conditionsByKind(conditions),
    flow: flow.value._tag,
    pool: { idle, used, pending, max: Number.isFinite(max) ? max : null }
  }
})

const answer = (name: "live" | "ready", report: Report) =>
  HttpServerResponse.jsonUnsafe(
    { status: report[name] ? "pass" : "fail", ...report },
    {
      status: report[name] ? 200 : 503,
      headers: { "cache-control": "no-store", ...(report[name] ? undefined : { "retry-after": "5" }) }
    }
  )

/**
 * Adds two routes to the `HttpRouter`: `/health/live` and `/health/ready`.
 *
 * **When to use**
 *
 * Use as the liveness and readiness probes of an orchestrator or a load balancer.
 *
 * **Details**
 *
 * A route answers 200 with `"status": "pass"`, or 503 with `"status": "fail"` and `Retry-After: 5`. The body is the
 * {@link Report} as JSON, and is never cached.
 *
 * **Gotchas**
 *
 * - Readiness follows a stopping server only if the server is wrapped in `AmqpHttpServer.graceful`.
 * - The name of an option that is unknown makes the layer die while it is built.
 *
 * **Example** (Serving health checks)
 *
 * ```ts
 * import { NodeHttpServer } from "@effect/platform-node"
 * import { AmqpLive } from "@effect-amqp/core"
 * import { AmqpHealth } from "@effect-amqp/http"
 * import { Layer } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { createServer } from "node:http"
 *
 * const Health = AmqpHealth.layer({ readyPath: "/ready" })
 *
 * const Server = HttpRouter.serve(Health).pipe(
 *   Layer.provide(NodeHttpServer.layer(createServer, { port: 3000 })),
 *   Layer.provide(AmqpLive)
 * )
 * ```
 *
 * @see {@link check} for the same check as an effect
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, never, HttpRouter.HttpRouter | Amqp.Amqp> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      refuseUnknownNames("AmqpHealth.layer", options, optionNames)
      const { blocked, livePath = "/health/live", readyPath = "/health/ready" } = options
      const context = yield* Effect.context<AmqpConnection.AmqpConnection | AmqpPool.AmqpPool>()
      const services = Context.pick(AmqpConnection.AmqpConnection, AmqpPool.AmqpPool)(context)
      const route = (name: "live" | "ready") =>
        Effect.provideContext(
          Effect.map(check({ blocked }), (report) => answer(name, report)),
          services
        )
      yield* router.add("GET", livePath, route("live"))
      yield* router.add("GET", readyPath, route("ready"))
    })
  )
