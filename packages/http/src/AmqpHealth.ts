/**
 * Health checks: whether the process is to be restarted (live), and whether it is to be sent requests (ready).
 *
 * | | live | ready |
 * | --- | --- | --- |
 * | the connection is open, and flows | yes | yes |
 * | it connects for the first time, or reconnects, also after a refusal that may pass | yes | no |
 * | the broker has blocked publishers | yes | no, or yes with `blocked: "ready"` |
 * | the line before the pool is full, so that the next borrower is turned away | yes | no |
 * | a consumer or RPC server has ended that nobody asked to, or could not start | yes | no |
 * | a consumer has lost its subscription, and subscribes again | yes | yes |
 * | another condition lasts (`AmqpConnection.conditions`) | yes | as it says |
 * | the server stops (`AmqpHttpServer.graceful`) | yes | no |
 * | it is closed for good (a refusal at first, or by `reconnect.onRefused: "close"`) | no | no |
 *
 * A live service that is not ready recovers automatically, so a restart would only cost it its place. A refused login is such
 * a case: the connection tries again, at once with a new secret (`updateSecret`), and an orchestrator that kills the process
 * over and over would add failed logins. So is an ended consumer: whether a restart would help depends on why it has ended,
 * so let the application end with it (`Effect.raceFirst(server, consumer)`), or start it again. What is closed for good reads its configuration again only when it is restarted.
 *
 * The answers are JSON with the checks and the reasons, as tags; no host, user or text of the broker is in them, so they
 * may be seen from outside.
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

/**
 * What keeps a service from being ready: its connection is not open; the broker takes no messages; the line before the pool
 * is full; its server stops; a consumer has ended, or could not start; or the kind of another condition.
 */
export type Reason =
  | "NotConnected"
  | "Blocked"
  | "PoolFull"
  | "Stopping"
  | "ConsumerEnded"
  | "ConsumerNotStarted"
  | (string & {})

/** Conditions of one kind. Their texts, which may name queues, are in the log and on the dashboard. */
export interface ConditionReport {
  /** A stable word: see `AmqpConnection.conditions`. */
  readonly kind: string
  readonly count: number
  /** Whether they keep the service from being ready. */
  readonly notReady: boolean
  /** When the oldest of them began, in milliseconds of Unix time. */
  readonly since: number
}

/** What a check has found. */
export interface Report {
  readonly live: boolean
  readonly ready: boolean
  /** Why it is not ready: all of it; empty if it is. */
  readonly reasons: ReadonlyArray<Reason>
  /** Whether the HTTP server of the current request is stopping, as far as `AmqpHttpServer.graceful` says so. */
  readonly stopping: boolean
  readonly connection: {
    readonly state: AmqpConnection.State["_tag"]
    /** Why it is not open: the tag of an `AmqpErrorReason`. */
    readonly reason?: string
    /** Attempts that have failed since it was lost. */
    readonly attempt?: number
    /** Counts the connections of this service. */
    readonly generation?: number
  }
  /** What needs attention, by kind; empty if nothing does. */
  readonly conditions: ReadonlyArray<ConditionReport>
  /** Whether the broker takes messages. */
  readonly flow: AmqpConnection.Flow["_tag"]
  readonly pool: {
    readonly idle: number
    readonly used: number
    /** Borrowers in line. */
    readonly pending: number
    /** Channels at most; null without pooling. */
    readonly max: number | null
  }
}

/** When a service is ready, and where that is asked. */
export interface Options {
  /**
   * Whether a service is ready while the broker blocks publishers. Default: `"notReady"`. `"ready"` is for services that
   * publish nothing, or can wait.
   */
  readonly blocked?: "ready" | "notReady" | undefined
  /** Default: `/health/live`. */
  readonly livePath?: HttpRouter.PathInput | undefined
  /** Default: `/health/ready`. */
  readonly readyPath?: HttpRouter.PathInput | undefined
}

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
 * Looks at the connection, the pool and the conditions, which costs no round trip. For an application with a health page of its own.
 *
 * @example
 * ```ts
 * import { AmqpHealth } from "@effect-amqp/http"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const { ready, reasons } = yield* AmqpHealth.check()
 *   if (!ready) yield* Effect.logWarning("not ready", reasons)
 * })
 * ```
 */
export const check = Effect.fnUntraced(function* (
  options: Pick<Options, "blocked"> = {}
): Effect.fn.Return<Report, never, AmqpConnection.AmqpConnection | AmqpPool.AmqpPool> {
  const { config, flow, state } = yield* AmqpConnection.AmqpConnection
  const { idle, max, pending, used } = yield* AmqpPool.stats
  const stopping = (yield* AmqpHttpServer.Shutdown).hasBegun
  const conditions = conditionsByKind(yield* AmqpConnection.conditions)
  const isFull = config.pool !== false && used >= config.pool.max && pending >= Math.max(1, config.pool.maxWaiting)
  const reasons: Array<Reason> = []
  if (state.value._tag !== "Open") reasons.push("NotConnected")
  if (flow.value._tag === "Blocked" && options.blocked !== "ready") reasons.push("Blocked")
  if (isFull) reasons.push("PoolFull")
  if (stopping) reasons.push("Stopping")
  for (const { kind, notReady } of conditions) if (notReady) reasons.push(kind)
  return {
    live: state.value._tag !== "Closed",
    ready: reasons.length === 0,
    reasons,
    stopping,
    connection: connectionReport(state.value),
    conditions,
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
 * Two routes, which answer 200, or 503 while it is not so: `/health/live` and `/health/ready`.
 *
 * @example
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
 */
export const layer = (options: Options = {}): Layer.Layer<never, never, HttpRouter.HttpRouter | Amqp.Amqp> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      const context = yield* Effect.context<AmqpConnection.AmqpConnection | AmqpPool.AmqpPool>()
      const services = Context.pick(AmqpConnection.AmqpConnection, AmqpPool.AmqpPool)(context)
      const route = (name: "live" | "ready") =>
        Effect.provideContext(
          Effect.map(check(options), (report) => answer(name, report)),
          services
        )
      yield* router.add("GET", options.livePath ?? "/health/live", route("live"))
      yield* router.add("GET", options.readyPath ?? "/health/ready", route("ready"))
    })
  )
