/** The dead letters' routes, as operators and their tools use them. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, type AmqpChannel, AmqpConfig, type AmqpError, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpDeadLettersHttp } from "@effect-amqp/http"
import { Deferred, Effect, Exit, Layer, type Scope, Stream } from "effect"
import { FetchHttpClient, HttpClient, HttpClientRequest, HttpRouter, type HttpServer } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { logged } from "../../core/test/support/consumers.ts"
import { hostileHeaders } from "../../core/test/support/hostileLetters.ts"
import { until } from "../../core/test/support/polling.ts"
import { ask, type Events, eventsOf } from "./support/gateway.ts"
import { address, gracefulServer, quiet } from "./support/server.ts"

const path = "/amqp/dead-letters"
const operator = { authorization: "Bearer operator" }
const json = { ...operator, "content-type": "application/json" }

/** The operator may do everything, and a reader may read. */
const authorize: AmqpDeadLettersHttp.Options["authorize"] = ({ headers }, access) =>
  Effect.succeed(
    headers["authorization"] === operator.authorization
      ? access.action === "publish" && access.routingKey === "forbidden"
        ? "deny"
        : { user: "olga" }
      : headers["authorization"] === "Bearer reader"
        ? access.action === "peek"
          ? "allow"
          : "deny"
        : "authenticate"
  )

// oxlint-disable-next-line typescript/no-explicit-any
type Json = any

let tests = 0

interface Queues {
  readonly work: string
  readonly dead: string
  readonly other: string
}

const channel = <A, E, R>(use: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use(use))

const countOf = (queue: string) =>
  Effect.map(
    channel((it) => it.queueDeclarePassive(queue)),
    ({ messageCount }) => messageCount
  )

const untilCount = (queue: string, count: number) =>
  until(countOf(queue), (found) => found === count, `messages of ${queue}`, 20)

/** Runs a test with two dead-letter queues and their routes. The queues are deleted afterwards. */
const onService = <A, E>(
  test: (
    queues: Queues
  ) => Effect.Effect<A, E, Amqp.Amqp | HttpServer.HttpServer | TestBroker.TestBroker | Scope.Scope>,
  options: Partial<AmqpDeadLettersHttp.Options> = {}
): Effect.Effect<A, E | AmqpError.AmqpError, TestBroker.TestBroker> => {
  const n = ++tests
  const queues: Queues = { work: `work-${n}`, dead: `dead-${n}`, other: `other-${n}` }
  const service = HttpRouter.serve(
    AmqpDeadLettersHttp.layer({ queues: [queues.dead, queues.other], authorize, ...options }),
    quiet
  ).pipe(
    Layer.provideMerge(gracefulServer()),
    Layer.provideMerge(
      Layer.unwrap(
        Effect.flatMap(TestBroker.TestBroker, ({ url }) => Effect.map(AmqpConfig.fromUrl(url), Amqp.fromConfig))
      )
    )
  )
  return Effect.acquireUseRelease(
    channel((it) => Effect.forEach(Object.values(queues), (queue) => it.queueDeclare(queue))),
    () => Effect.scoped(test(queues)),
    () => Effect.ignore(channel((it) => Effect.forEach(Object.values(queues), (queue) => it.queueDelete(queue))))
  ).pipe(Effect.provide(service, { local: true })) as Effect.Effect<A, E | AmqpError.AmqpError, TestBroker.TestBroker>
}

/** Publishes dead letters as a consumer does: the even ones with another error. */
const fill = (
  { dead, work }: Queues,
  count: number,
  content: (i: number) => string | Uint8Array = (i) => `letter ${i}`
) =>
  AmqpPublisher.publishAll(
    Stream.map(Stream.range(1, count), (i) => ({
      routingKey: dead,
      content: content(i),
      messageId: `${i}`,
      headers: {
        "x-failed-version": 1,
        "x-failed-queue": work,
        "x-failed-exchange": "",
        "x-failed-routing-key": work,
        "x-failed-error": i % 2 === 0 ? "Even" : "Odd",
        "x-failed-reason": `it was ${i}`,
        "x-failed-attempt": 3,
        "x-failed-last-at": new Date(1_700_000_000_000 + i * 1000).toISOString()
      }
    }))
  ).pipe(Stream.runDrain)

const move = (queue: string, action: "redrive" | "discard", body: unknown, headers: Record<string, string> = json) =>
  ask("POST", `${path}/queues/${queue}/${action}`, {
    headers,
    body: typeof body === "string" ? body : JSON.stringify(body)
  })

/** Starts an operation whose client reads events. */
const moving = (
  queue: string,
  action: "redrive" | "discard",
  body: unknown
): Effect.Effect<Events, Error, HttpServer.HttpServer | Scope.Scope> =>
  eventsOf("POST", `${path}/queues/${queue}/${action}`, {
    headers: { ...json, accept: "text/event-stream" },
    body: JSON.stringify(body)
  })

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("A page", () => {
    it.effect("has the dead letters of all queues, or of one, grouped by error and origin", () =>
      onService((queues) =>
        Effect.gen(function* () {
          yield* fill(queues, 9)
          yield* AmqpPublisher.publish({ routingKey: queues.other, content: Uint8Array.of(0xff, 0) })
          const all = (yield* ask("GET", path, { headers: operator })).json as Json
          assert.strictEqual(all.total, 10)
          assert.deepStrictEqual(all.queues, [
            { queue: queues.dead, total: 9 },
            { queue: queues.other, total: 1 }
          ])
          assert.deepInclude(all.groups[0], { kind: "failed", error: "Odd", origin: queues.work, count: 5 })
          assert.deepInclude(all.letters[9], { queue: queues.other, base64: "/wA=", size: 2 })
          const query = "?error=Even&limit=6&maxContent=3&since=2023-11-14T22:13:24Z"
          const { json: one } = (yield* ask("GET", `${path}/queues/${queues.dead}${query}`, {
            headers: operator
          })) as Json
          assert.strictEqual(one.scanned, 6)
          assert.deepStrictEqual(
            one.letters.map((letter: Json) => [letter.id, letter.content, letter.size]),
            [
              ["4", "let", 8],
              ["6", "let", 8]
            ]
          )
          assert.deepInclude(one.letters[0].reason, {
            kind: "failed",
            error: "Even",
            message: "it was 4",
            attempt: 3,
            lastAt: "2023-11-14T22:13:24.000Z",
            verified: false
          })
          assert.strictEqual(one.letters[0].properties.headers["x-failed-queue"], queues.work)
          yield* untilCount(queues.dead, 9)
        })
      )
    )

    it.effect("has at most 32 MiB of contents, of all queues together", () =>
      onService((queues) =>
        Effect.gen(function* () {
          const megabyte = "x".repeat(1_048_576)
          for (const queue of [queues.dead, queues.other]) yield* fill({ ...queues, dead: queue }, 20, () => megabyte)
          const { json } = (yield* ask("GET", `${path}?maxContent=1048576`, { headers: operator })) as Json
          assert.strictEqual(json.letters.length, 40)
          const sizes = json.letters.map(({ content }: Json) => content.length)
          assert.deepStrictEqual(sizes, [...Array(32).fill(1_048_576), ...Array(8).fill(0)])
        })
      )
    )

    it.effect("is answered whatever the headers of the dead letters are", () =>
      onService(({ dead }) =>
        Effect.gen(function* () {
          for (const headers of hostileHeaders) {
            yield* AmqpPublisher.publish({ routingKey: dead, content: "letter", headers })
          }
          const page = yield* ask("GET", `${path}/queues/${dead}?limit=10000`, { headers: operator })
          assert.strictEqual(page.status, 200)
          assert.lengthOf((page.json as { readonly letters: ReadonlyArray<unknown> }).letters, hostileHeaders.length)
        })
      )
    )

    it.effect("shows the beginning of a text as text, also if the cut is inside of a character", () =>
      onService((queues) =>
        Effect.gen(function* () {
          yield* fill(queues, 1, () => "aé€😀")
          const shown: Array<unknown> = []
          for (let bytes = 1; bytes <= 10; bytes++) {
            const { json } = (yield* ask("GET", `${path}?maxContent=${bytes}`, { headers: operator })) as Json
            shown.push(json.letters[0].content)
          }
          assert.deepStrictEqual(shown, ["a", "a", "aé", "aé", "aé", "aé€", "aé€", "aé€", "aé€", "aé€😀"])
        })
      )
    )
  })

  describe("A redrive", () => {
    it.effect("brings back what is chosen, leaves the rest, and answers with its report", () =>
      onService((queues) =>
        Effect.gen(function* () {
          yield* fill(queues, 100)
          const dry = yield* move(queues.dead, "redrive", { error: "Even", dryRun: true })
          assert.deepInclude(dry.json, { redriven: 50, left: 50, dryRun: true })
          assert.strictEqual(yield* countOf(queues.work), 0)
          const report = yield* move(queues.dead, "redrive", { error: "Even", limit: 20 })
          assert.strictEqual(report.status, 200)
          assert.deepInclude(report.json, { redriven: 20, failed: 0, duplicates: 0, dryRun: false })
          assert.strictEqual(yield* countOf(queues.work), 20)
          yield* untilCount(queues.dead, 80)
          const rest = yield* move(queues.dead, "redrive", { all: true, to: queues.other })
          assert.deepInclude(rest.json, { redriven: 80, left: 0 })
          assert.strictEqual(yield* countOf(queues.other), 80)
        })
      )
    )

    it.effect("reports its progress as events, and is stopped in order by a client that leaves", () =>
      onService((queues) =>
        Effect.gen(function* () {
          yield* fill(queues, 300)
          const first = yield* moving(queues.dead, "redrive", { all: true, limit: 100 })
          const report = yield* first.until("report")
          assert.deepInclude(report.data, { redriven: 100, failed: 0 })
          assert.isUndefined(yield* first.next)
          const slow = yield* moving(queues.dead, "redrive", { all: true, rate: 20 })
          const progress = yield* slow.until("progress")
          assert.strictEqual(progress.data.queue, queues.dead)
          assert.strictEqual(progress.data.total, 200)
          const conflict = yield* move(queues.dead, "discard", { all: true })
          assert.strictEqual(conflict.status, 409)
          yield* slow.hangUp
          // It has ended when another one may run.
          yield* until(
            move(queues.dead, "redrive", { ids: ["none"], dryRun: true }),
            ({ status }) => status === 200,
            "the end of the redrive",
            20
          )
          const back = yield* countOf(queues.work)
          assert.isBelow(back, 300)
          yield* untilCount(queues.dead, 300 - back)
        })
      )
    )

    it.effect("of a queue that is gone says so", () =>
      onService((queues) =>
        Effect.gen(function* () {
          yield* channel((it) => it.queueDelete(queues.dead))
          const answer = yield* move(queues.dead, "redrive", { all: true })
          assert.deepInclude(answer.json, { status: 404 })
          const events = yield* moving(queues.dead, "redrive", { all: true })
          assert.deepInclude((yield* events.until("problem")).data, { status: 404, title: "Not Found" })
        })
      )
    )
  })

  it.effect("An operation on a queue that another connection has exclusively is refused with 409, and says so", () =>
    onService((queues) =>
      Effect.gen(function* () {
        yield* fill(queues, 10)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const held = yield* Deferred.make<void>()
            yield* Effect.forkScoped(
              channel((it) =>
                Effect.gen(function* () {
                  yield* it.qos(1)
                  yield* it.consume(queues.dead, { exclusive: true })
                  yield* Deferred.succeed(held, undefined)
                  yield* Effect.never
                })
              )
            )
            yield* Deferred.await(held)
            for (const action of ["redrive", "discard"] as const) {
              const answer = yield* move(queues.dead, action, { all: true })
              assert.deepInclude(answer.json, { status: 409 })
              assert.include(JSON.stringify(answer.json), "exclusively")
            }
          })
        )
      })
    )
  )

  it.effect("A discard removes only what is chosen", () =>
    onService((queues) =>
      Effect.gen(function* () {
        yield* fill(queues, 10)
        const report = yield* move(queues.dead, "discard", { ids: ["1", "2", "3"], error: "Odd" })
        assert.deepInclude(report.json, { discarded: 2, left: 8 })
        yield* untilCount(queues.dead, 8)
        assert.deepInclude((yield* move(queues.dead, "discard", { all: true })).json, { discarded: 8 })
        yield* untilCount(queues.dead, 0)
      })
    )
  )

  describe("A request is refused, and nothing changes, if it", () => {
    it.effect("does not choose, names what is unknown, or has no JSON", () =>
      onService((queues) =>
        Effect.gen(function* () {
          yield* fill(queues, 5)
          const cases: ReadonlyArray<readonly [unknown, number]> = [
            [{}, 400],
            [{ all: true, error: "Even" }, 400],
            [{ all: false }, 400],
            [{ all: true, dryrun: true }, 400],
            [{ ids: [] }, 400],
            [{ all: true, rate: 0 }, 400],
            [{ before: "yesterday" }, 400],
            ["[", 400],
            ["null", 400],
            [JSON.stringify({ ids: ["x".repeat(1_100_000)] }), 413]
          ]
          for (const [body, status] of cases) {
            const answer = yield* move(queues.dead, "discard", body)
            assert.deepInclude(answer.json, { status }, JSON.stringify(body).slice(0, 60))
          }
          const form = { ...operator, "content-type": "application/x-www-form-urlencoded" }
          assert.strictEqual((yield* move(queues.dead, "discard", { all: true }, form)).status, 415)
          assert.strictEqual((yield* ask("GET", `${path}?limit=0`, { headers: operator })).status, 400)
          assert.strictEqual((yield* ask("GET", `${path}?lmit=1`, { headers: operator })).status, 400)
          yield* untilCount(queues.dead, 5)
        })
      )
    )

    it.effect("may not do it, or comes from a page of another origin", () =>
      onService((queues) =>
        Effect.gen(function* () {
          yield* fill(queues, 5)
          const stranger = yield* ask("GET", path, { headers: {} })
          assert.strictEqual(stranger.status, 401)
          assert.strictEqual(stranger.headers.get("www-authenticate"), "Bearer")
          const reader = { authorization: "Bearer reader", "content-type": "application/json" }
          assert.strictEqual((yield* ask("GET", path, { headers: reader })).status, 200)
          for (const action of ["redrive", "discard"] as const) {
            assert.strictEqual((yield* move(queues.dead, action, { all: true }, reader)).status, 403)
            for (const foreign of [
              { origin: "https://evil.example" },
              { origin: "null" },
              { "sec-fetch-site": "cross-site" }
            ]) {
              assert.strictEqual((yield* move(queues.dead, action, { all: true }, { ...json, ...foreign })).status, 403)
            }
          }
          const publish = { all: true, to: { exchange: "", routingKey: "forbidden" } }
          assert.strictEqual((yield* move(queues.dead, "redrive", publish)).status, 403)
          // A queue that exists, and is none of these.
          assert.strictEqual((yield* move(queues.work, "discard", { all: true })).status, 404)
          for (const wrong of [`${path}/queues/`, `${path}/`, `${path}/x`, "/AMQP/dead-letters", `/${path}`]) {
            assert.strictEqual((yield* ask("GET", wrong, { headers: operator })).status, 404, wrong)
          }
          yield* untilCount(queues.dead, 5)
        })
      )
    )
  })

  it.effect("An authorizer that dies permits nothing, and the next request is served", () => {
    let dies = true
    const dying: AmqpDeadLettersHttp.Options["authorize"] = (request, access) =>
      Effect.suspend(() => (dies ? Effect.die(new Error("the directory is away")) : authorize(request, access)))
    return onService(
      (queues) =>
        Effect.gen(function* () {
          yield* fill(queues, 3)
          for (const action of ["redrive", "discard"] as const) {
            const answer = yield* move(queues.dead, action, { all: true })
            assert.strictEqual(answer.status, 500)
            assert.notInclude(JSON.stringify(answer), "directory")
          }
          assert.strictEqual((yield* ask("GET", path, { headers: operator })).status, 500)
          yield* untilCount(queues.dead, 3)
          dies = false
          assert.deepInclude((yield* move(queues.dead, "discard", { all: true })).json, { discarded: 3 })
        }),
      { authorize: dying }
    )
  })

  it.effect("Each request is logged, with its user, what it chose, and its counts", () =>
    onService((queues) =>
      Effect.gen(function* () {
        yield* fill(queues, 4)
        yield* ask("GET", path, { headers: operator })
        yield* move(queues.dead, "redrive", { error: "Even" })
      })
    ).pipe((test) =>
      logged((lines) =>
        Effect.gen(function* () {
          yield* test
          const audit = lines.filter(({ text }) => text.includes("AMQP dead letters"))
          assert.strictEqual(audit.length, 3)
          for (const { text } of audit) assert.include(text, '"user":"olga"')
          assert.include(audit[1]!.text, "redrive begins")
          assert.include(audit[1]!.text, "Even")
          assert.include(audit[2]!.text, "redrive is done")
          assert.include(audit[2]!.text, '"redriven":2')
        })
      )
    )
  )

  it.effect("The OpenAPI document and a typed client describe what the routes do", () =>
    onService((queues) =>
      Effect.gen(function* () {
        yield* fill(queues, 6)
        const { json: document } = (yield* ask("GET", `${path}/openapi.json`, { headers: operator })) as Json
        assert.deepStrictEqual(Object.keys(document.paths), [
          path,
          `${path}/queues/{queue}`,
          `${path}/queues/{queue}/redrive`,
          `${path}/queues/{queue}/discard`
        ])
        const baseUrl = yield* address
        const client = yield* HttpApiClient.make(AmqpDeadLettersHttp.api, {
          baseUrl,
          transformClient: HttpClient.mapRequest(HttpClientRequest.setHeaders(operator))
        }).pipe(Effect.provide(FetchHttpClient.layer))
        const page = yield* client.deadLetters.peek({ query: { limit: 3 } })
        assert.strictEqual(page.letters.length, 3)
        assert.instanceOf(page.letters[0]!.reason.lastAt, Date)
        const params = { queue: queues.dead }
        assert.include(yield* client.deadLetters.redrive({ params, payload: { error: "Odd" } }), {
          redriven: 3,
          left: 3
        })
        assert.include(yield* client.deadLetters.discard({ params, payload: { all: true } }), { discarded: 3 })
        const refused = yield* Effect.flip(client.deadLetters.discard({ params, payload: {} }))
        assert.deepInclude(refused, { status: 400 })
      })
    )
  )

  it.effect("Options that are not valid make the layer die while it is built", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<Partial<AmqpDeadLettersHttp.Options> & object> = [
        { queues: [] },
        { queues: [""] },
        { path: "/amqp/" as never },
        { origins: ["example.com"] },
        { orgins: [] } as never
      ]
      for (const options of wrong) {
        const exit = yield* Effect.exit(onService(() => Effect.void, options))
        assert.isTrue(Exit.hasDies(exit), JSON.stringify(options))
      }
    })
  )
})
