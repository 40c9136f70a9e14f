/** The routes of the dead letters: pages, redrive, discard and the OpenAPI document. */
import type { Amqp, AmqpDeadLetters, AmqpError } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import type * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type Refusal, refuse, refusalOf as generalRefusalOf } from "../gateway/refusals.ts"
import {
  answering,
  failWith,
  notFound,
  pathBelow,
  readBody,
  RequestRefused,
  type RouteEffect
} from "../gateway/requests.ts"
import type { Access, Decision } from "./access.ts"
import { apiAt, Discard, Page, Query, Redrive, Report } from "./contract.ts"
import { type Audit, audited, eventsOf, type Run } from "./moving.ts"
import { isChoice, peekAll, whereOf } from "./pages.ts"

export interface RoutesOptions {
  readonly path: `/${string}`
  readonly queues: ReadonlyArray<string>
  readonly lettersOf: (queue: string) => AmqpDeadLetters.DeadLetters
  readonly authorize: (request: HttpServerRequest.HttpServerRequest, access: Access) => Effect.Effect<Decision>
  /** Whether a request comes from a page that may use the routes, or from no page. */
  readonly isOwnPage: (request: HttpServerRequest.HttpServerRequest) => boolean
  readonly challenge: string
  readonly connection: string
  readonly bodyBytes: number
  /** Completes when the server begins to stop. */
  readonly stopping: Effect.Effect<void>
}

const parseOptions = { errors: "all", onExcessProperty: "error" } as const
const longestDetail = 600

const invalid = (what: string) => (error: Schema.SchemaError) => {
  const text = `${what}: ${error.message}`.replaceAll(/\s*\n\s*/g, " ")
  return new RequestRefused(refuse(400, text.length > longestDetail ? `${text.slice(0, longestDetail - 1)}…` : text))
}

/** A client of these routes may see what the library refuses: it names the queues and the options itself. */
const refusalOf = (error: AmqpError.AmqpError): Refusal => {
  switch (error.reason._tag) {
    case "InvalidArgument":
      return refuse(400, error.message)
    case "NotFound":
      return refuse(404, "The queue or the exchange does not exist at the message broker. Declare it, and try again.")
    case "AccessRefused":
      return refuse(
        403,
        "The message broker refuses this to the user of this service. It needs the permission to read the dead-letter queue, and to write to the exchange that a redrive publishes to."
      )
    case "ResourceLocked":
      return refuse(
        409,
        "Another connection of the message broker has the queue exclusively. Stop its exclusive consumer, or declare the queue without exclusive."
      )
    case "InactivityTimeout":
      return refuse(503, "The message broker delivered nothing in time. Another consumer may hold the messages.", 10)
    default:
      return generalRefusalOf(error)
  }
}

const noQueue = (path: string) =>
  failWith(refuse(404, `No such dead-letter queue here. GET ${path} lists the dead-letter queues.`))

const securityHeaders = { "cache-control": "no-store", "x-content-type-options": "nosniff" } as const

/** The routes by method, below the path. */
export const routes = ({
  authorize,
  bodyBytes,
  challenge,
  connection,
  isOwnPage,
  lettersOf,
  path,
  queues,
  stopping
}: RoutesOptions) => {
  let isMoving = false

  const answer = answering(challenge, connection, refusalOf)

  /** Lets a request pass that may do what it asks for. Returns who has sent it, if the application says so. */
  const guard = Effect.fnUntraced(function* (request: HttpServerRequest.HttpServerRequest, access: Access) {
    // A page of another site has its visitors' cookies.
    if (!isOwnPage(request)) {
      return yield* failWith(refuse(403, "Pages of other origins may not use these routes. See the option origins."))
    }
    const decision = yield* authorize(request, access)
    if (decision === "deny") return yield* failWith(refuse(403, "Access denied. This client may not do this."))
    if (decision === "authenticate") {
      return yield* failWith(refuse(401, "Authentication required; see WWW-Authenticate."))
    }
    return decision === "allow" ? undefined : decision.user
  })

  const json = <S extends Schema.Top>(schema: S, value: S["Type"]) =>
    Effect.map(Effect.orDie(Schema.encodeEffect(schema)(value)) as Effect.Effect<S["Encoded"]>, (encoded) =>
      HttpServerResponse.jsonUnsafe(encoded, { headers: securityHeaders })
    )

  const queueOf = (queue: string) => (queues.includes(queue) ? Effect.succeed(queue) : noQueue(path))

  const peek = Effect.fnUntraced(function* (
    queue: string | undefined
  ): Effect.fn.Return<
    HttpServerResponse.HttpServerResponse,
    RequestRefused | AmqpError.AmqpError,
    Amqp.Amqp | HttpRouter.Provided
  > {
    const request = yield* HttpServerRequest.HttpServerRequest
    const user = yield* guard(request, { action: "peek", queue })
    const chosen = queue === undefined ? queues : [yield* queueOf(queue)]
    const query = yield* Effect.mapError(
      Schema.decodeUnknownEffect(Query)(yield* HttpServerRequest.ParsedSearchParams, parseOptions),
      invalid("query")
    )
    const { limit = 100, maxContent = 4096 } = query
    const page = yield* peekAll(chosen.map(lettersOf), { limit, maxContent, where: whereOf(query) })
    yield* Effect.annotateLogs(Effect.logInfo("AMQP dead letters: peek"), {
      "amqp.queue": queue ?? queues.join(", "),
      user: user ?? "unknown",
      letters: page.letters.length
    })
    return yield* json(Page, page)
  })

  const bodyOf = Effect.fnUntraced(function* <S extends typeof Redrive | typeof Discard>(
    request: HttpServerRequest.HttpServerRequest,
    schema: S
  ) {
    // A form of another site cannot send this type without asking first (CORS).
    if (!/^application\/json\s*(;|$)/i.test(request.headers["content-type"] ?? "")) {
      return yield* failWith(refuse(415, "content-type: expected application/json."))
    }
    const bytes = yield* readBody(request, { body: bodyBytes, idleTimeout: bodyTimeout })
    const parsed = yield* Effect.try({
      try: () => JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as unknown,
      catch: () => new RequestRefused(refuse(400, "The body is not JSON in UTF-8."))
    })
    const body = yield* Effect.mapError(
      Schema.decodeUnknownEffect(schema)(parsed, parseOptions) as Effect.Effect<S["Type"], Schema.SchemaError>,
      invalid("body")
    )
    const { all = false } = body
    if (all === isChoice(body)) {
      return yield* failWith(
        refuse(
          400,
          "body: expected either all: true, or what chooses dead letters: ids, error, kind, origin, before, since."
        )
      )
    }
    return body
  })

  /** One at a time: two of them would wait for each other's messages. */
  const alone = Effect.acquireRelease(
    Effect.suspend(() => {
      if (isMoving) {
        return failWith(refuse(409, "Another redrive or discard runs. Wait until it is done, or stop it.", 5))
      }
      isMoving = true
      return Effect.void
    }),
    () =>
      Effect.sync(() => {
        isMoving = false
      })
  )

  const run = Effect.fnUntraced(function* (
    request: HttpServerRequest.HttpServerRequest,
    audit: Audit,
    operation: Run
  ): Effect.fn.Return<
    HttpServerResponse.HttpServerResponse,
    RequestRefused | AmqpError.AmqpError,
    Amqp.Amqp | Scope.Scope
  > {
    yield* alone
    const logged = audited(audit, operation)
    if (!/(^|,)\s*text\/event-stream\s*(;|,|$)/i.test(request.headers["accept"] ?? "")) {
      return yield* json(Report, yield* logged(() => Effect.void))
    }
    const context = yield* Effect.context<Amqp.Amqp>()
    const events = Stream.provideContext(eventsOf(logged, refusalOf), context)
    return HttpServerResponse.stream(Stream.encodeText(Stream.interruptWhen(events, stopping)), {
      contentType: "text/event-stream",
      // Some proxies buffer a response before they forward it.
      headers: { ...securityHeaders, "x-accel-buffering": "no" }
    })
  })

  const redrive = Effect.fnUntraced(function* (name: string) {
    const request = yield* HttpServerRequest.HttpServerRequest
    const user = yield* guard(request, { action: "redrive", queue: name })
    const queue = yield* queueOf(name)
    const body = yield* bodyOf(request, Redrive)
    const { dryRun, ids, limit, rate, to } = body
    if (to !== undefined) {
      yield* guard(request, {
        action: "publish",
        ...(typeof to === "string" ? { exchange: "", routingKey: to } : to)
      })
    }
    return yield* run(request, { action: "redrive", queue, user, request: body }, (onProgress) =>
      lettersOf(queue).redrive({ ids, where: whereOf(body), dryRun, limit, rate, to, onProgress })
    )
  })

  const discard = Effect.fnUntraced(function* (name: string) {
    const request = yield* HttpServerRequest.HttpServerRequest
    const user = yield* guard(request, { action: "discard", queue: name })
    const queue = yield* queueOf(name)
    const body = yield* bodyOf(request, Discard)
    const { dryRun, ids, limit, rate } = body
    return yield* run(request, { action: "discard", queue, user, request: body }, (onProgress) =>
      lettersOf(queue).discard({ ids, where: whereOf(body), dryRun, limit, rate, onProgress })
    )
  })

  const document = HttpServerResponse.jsonUnsafe(OpenApi.fromApi(apiAt(path)), { headers: securityHeaders })

  /** The part of the path below the routes, with one spelling each. */
  const below = Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
    const [url = ""] = request.url.split(/[?#]/, 1)
    return url === path ? Effect.succeed([]) : pathBelow(request, path)
  })

  const get: RouteEffect = Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    const [first, queue, ...more] = yield* below
    // The router sends HEAD requests here too.
    if (request.method !== "GET" || more.length > 0) return yield* notFound
    if (first === undefined) return yield* peek(undefined)
    if (first === "queues" && queue !== undefined && queue !== "") return yield* peek(queue)
    if (first === "openapi.json" && queue === undefined) {
      yield* guard(request, { action: "peek", queue: undefined })
      return document
    }
    return yield* notFound
  })

  const post: RouteEffect = Effect.gen(function* () {
    const [first, queue, action, ...more] = yield* below
    if (first !== "queues" || queue === undefined || queue === "" || more.length > 0) return yield* notFound
    if (action === "redrive") return yield* redrive(queue)
    if (action === "discard") return yield* discard(queue)
    return yield* notFound
  })

  return { get: answer(get), post: answer(post) }
}

const bodyTimeout = "30 seconds"
