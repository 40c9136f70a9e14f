/**
 * Dead letters over HTTP: why messages failed, and how they get back to where they belong.
 *
 * | route | what it does |
 * | --- | --- |
 * | `GET /amqp/dead-letters` | a page of the dead letters of all queues, grouped by error and origin |
 * | `GET /amqp/dead-letters/queues/{queue}` | the same for one queue |
 * | `POST /amqp/dead-letters/queues/{queue}/redrive` | publishes chosen dead letters to the queues in which they failed |
 * | `POST /amqp/dead-letters/queues/{queue}/discard` | removes chosen dead letters |
 * | `GET /amqp/dead-letters/openapi.json` | the OpenAPI document |
 *
 * **Choosing**
 *
 * Pages take query parameters: `error`, `kind`, `origin`, `before` and `since` (ISO 8601), `limit` (1 to 10,000, 100 by
 * default) and `maxContent` (bytes, 4096 by default; all contents of a page have at most 32 MiB, and those after that are
 * empty). The two operations take a JSON body with the same names, `ids`,
 * `limit`, `rate`, `dryRun`, and for a redrive `to`. Several of them must all choose a dead letter. What chooses nothing
 * is refused, unless it says `"all": true`.
 *
 * **Progress**
 *
 * The operations answer with a report when they are done. With `Accept: text/event-stream` they answer with events:
 * `progress` with the counts so far, and at the end `report`, or `problem`. A client that leaves stops the operation:
 * what it has published is confirmed and acknowledged first, and nothing is lost. One operation runs at a time; another
 * one gets a 409.
 *
 * **Security**
 *
 * - `authorize` decides for each request and action, before the body is read. A redrive with `to` is authorized a second
 *   time, as a publish to that exchange and routing key.
 * - Only the queues of the option `queues` can be named.
 * - Pages of other origins are refused (`origins`), and the operations take only `application/json`, which a form of
 *   another site cannot send.
 * - Each request is logged, with the user that `authorize` names: an operation when it begins, and with its counts when
 *   it ends.
 *
 * Failures are answered as problem details (RFC 9457).
 *
 * @since 0.1.0
 */
import { type Amqp, AmqpDeadLetters, type AmqpTopology } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as Layer from "effect/Layer"
import * as AmqpHttpServer from "./AmqpHttpServer.ts"
import type { Access, Decision } from "./internal/deadLetters/access.ts"
import { apiAt } from "./internal/deadLetters/contract.ts"
import { routes } from "./internal/deadLetters/routes.ts"
import { isOwnPage } from "./internal/deadLetters/ownPages.ts"
import { originsOf } from "./internal/gateway/origins.ts"
import { provider } from "./internal/handlers.ts"
import { type Names, refuseUnknownNames } from "./internal/options.ts"

export type { Access, Decision } from "./internal/deadLetters/access.ts"

/**
 * Options of the dead letters' routes.
 *
 * **When to use**
 *
 * Use when you configure {@link layer}, or pass its options through a function of your own.
 *
 * **Details**
 *
 * `R` is the requirement of `authorize`. The layer takes it from the context in which it is built.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<R = never> {
  /**
   * The dead-letter queues that can be reached: their names, or a topology, which stands for its dead-letter queues (see
   * `AmqpDeadLetters.of`).
   */
  readonly queues: ReadonlyArray<string> | AmqpTopology.Part
  /** Decides what a request may do. It runs before the body is read, and before anything is sent to the broker. */
  readonly authorize: (
    request: HttpServerRequest.HttpServerRequest,
    access: Access
  ) => Effect.Effect<Decision, never, R>
  /** How dead letters are read: secrets of signed reasons, delivery limit, timeout. Default: as `AmqpDeadLetters.of`. */
  readonly letters?: AmqpDeadLetters.Options | undefined
  /** The path of the routes. Default: `/amqp/dead-letters`. */
  readonly path?: `/${string}` | undefined
  /**
   * The origins whose pages may use the routes: `["https://ops.example.com"]`, without a path. Default: pages of the
   * host that the request names (`Host`). Requests that do not come from a browser are not concerned.
   */
  readonly origins?: ReadonlyArray<string> | undefined
  /** The `WWW-Authenticate` header of a 401 (RFC 9110, section 11.6.1). Default: `Bearer`. */
  readonly challenge?: string | undefined
}

const optionNames: Names<Options> = {
  queues: true,
  authorize: true,
  letters: true,
  path: true,
  origins: true,
  challenge: true
}

const defaultPath = "/amqp/dead-letters"

const isNames = (queues: Options["queues"]): queues is ReadonlyArray<string> =>
  Array.isArray(queues) && queues.every((queue) => typeof queue === "string")

const namesOf = (queues: Options["queues"]): ReadonlyArray<string> => {
  const names = isNames(queues) ? queues : AmqpDeadLetters.of(queues).queues
  if (names.length > 0 && names.every((name) => name !== "")) return names
  throw new Error(
    "AmqpDeadLettersHttp: queues: expected the names of dead-letter queues, or a topology whose queues have a dead-letter exchange that routes to a queue, got none"
  )
}

const pathOf = (path: string = defaultPath): `/${string}` => {
  if (/^(\/[A-Za-z0-9._~-]+)+$/.test(path)) return path as `/${string}`
  throw new Error(
    `AmqpDeadLettersHttp: path: expected a path such as ${defaultPath}, without a slash at its end, got ${JSON.stringify(path)}`
  )
}

/** Largest body of a request: 10,000 ids of 100 bytes. */
const bodyBytes = 1_048_576

/**
 * Adds the dead letters' routes to the `HttpRouter`.
 *
 * **When to use**
 *
 * Use where operators bring messages back over HTTP, or where a tool of your own does. For a terminal there is
 * `npx effect-amqp`.
 *
 * **Details**
 *
 * `authorize` runs with the services of the context in which the layer is built. On a server that is wrapped in
 * `AmqpHttpServer.graceful`, operations with events are stopped in order when its shutdown begins.
 *
 * **Gotchas**
 *
 * - The contents of messages are in the pages. Permit `peek` only to those who may read them.
 * - An option that is not valid, or whose name is unknown, makes the layer die while it is built.
 *
 * **Example** (Redriving for operators)
 *
 * ```ts
 * import { NodeHttpServer } from "@effect/platform-node"
 * import { AmqpLive, AmqpTopology } from "@effect-amqp/core"
 * import { AmqpDeadLettersHttp, AmqpHttpServer } from "@effect-amqp/http"
 * import { Config, Effect, Layer, Redacted } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { createServer } from "node:http"
 *
 * const topology = AmqpTopology.make(
 *   AmqpTopology.queue("orders", { deadLetterExchange: "", deadLetterRoutingKey: "orders.dead" }),
 *   AmqpTopology.queue("orders.dead", { queueType: "quorum" })
 * )
 *
 * const DeadLetters = Layer.unwrap(
 *   Effect.gen(function* () {
 *     const token = yield* Config.Redacted("OPERATOR_TOKEN")
 *     return AmqpDeadLettersHttp.layer({
 *       queues: topology,
 *       authorize: ({ headers }, access) =>
 *         Effect.sync(() => {
 *           if (headers["authorization"] !== `Bearer ${Redacted.value(token)}`) return "authenticate"
 *           return access.action === "discard" ? "deny" : { user: "operator" }
 *         })
 *     })
 *   })
 * )
 *
 * const Server = HttpRouter.serve(DeadLetters).pipe(
 *   Layer.provide(NodeHttpServer.layer(createServer, { port: 3000 }).pipe(AmqpHttpServer.graceful())),
 *   Layer.provide(AmqpLive)
 * )
 * ```
 *
 * @see {@link Options} for the settings
 * @see {@link api} for typed clients
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<never, never, HttpRouter.HttpRouter | Amqp.Amqp | R> =>
  HttpRouter.use((router) =>
    Effect.gen(function* () {
      refuseUnknownNames<Options<R>>("AmqpDeadLettersHttp", options, optionNames)
      const path = pathOf(options.path)
      const services = yield* Effect.context<R>()
      const { connection, provide } = yield* provider
      const { get, post } = routes({
        path,
        queues: namesOf(options.queues),
        lettersOf: (queue) => AmqpDeadLetters.of(queue, options.letters),
        authorize: (request, access) => Effect.provideContext(options.authorize(request, access), services),
        isOwnPage: isOwnPage(originsOf(options.origins, "AmqpDeadLettersHttp")),
        challenge: options.challenge ?? "Bearer",
        connection,
        bodyBytes,
        stopping: AmqpHttpServer.stopping
      })
      // This is also the path itself.
      yield* router.add("GET", `${path}/*`, provide(get))
      yield* router.add("POST", `${path}/*`, provide(post))
    })
  )

/**
 * The routes as an `HttpApi`, at `/amqp/dead-letters`.
 *
 * **When to use**
 *
 * Use with `HttpApiClient.make`, for a client whose requests and answers are checked by their types.
 *
 * **Gotchas**
 *
 * The client gets reports, and no events.
 *
 * @category models
 * @since 0.1.0
 */
export const api: ReturnType<typeof apiAt<typeof defaultPath>> = apiAt(defaultPath)
