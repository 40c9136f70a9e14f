/** The order service as its customers see it: over HTTP, with a broker in memory behind it. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpPool } from "@effect-amqp/core"
import { AmqpTest } from "@effect-amqp/core/testing"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { HttpServer } from "effect/http"
import { createServer } from "node:http"
import { OrdersService } from "../src/orders.ts"

const Service = OrdersService.pipe(
  Layer.provideMerge(NodeHttpServer.layerServer(createServer, { host: "127.0.0.1", port: 0 })),
  Layer.provideMerge(AmqpTest.layer())
)

const ask = (path: string, init?: RequestInit) =>
  Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
    Effect.promise(async (signal) => {
      const response = await fetch(HttpServer.formatAddress(address) + path, { ...init, signal })
      return { status: response.status, type: response.headers.get("content-type"), body: await response.text() }
    })
  )

const post = (body: string) => ask("/orders", { method: "POST", body })

const next = ask("/orders/next")

/** What the answer to a bad order says about it. */
const mistakesIn = (body: string) =>
  Effect.map(post(body), (answer) => {
    assert.strictEqual(answer.status, 400)
    assert.strictEqual(answer.type, "application/problem+json")
    const { errors, ...problem } = JSON.parse(answer.body)
    return { problem, errors }
  })

layer(Service, { excludeTestServices: true })((it) => {
  describe("POST /orders", () => {
    it.effect("puts the order into the queue, by a channel that is returned, and answers 202 with its id", () =>
      Effect.gen(function* () {
        const { status, body } = yield* post('{"product":"tea","quantity":2}')
        assert.strictEqual(status, 202)
        const { id, ...rest } = JSON.parse(body)
        assert.match(id, /^[0-9a-f-]{36}$/)
        assert.deepStrictEqual(rest, {})
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, created: 1 })
        const [order] = (yield* AmqpTest.queue("orders")).messages
        assert.deepStrictEqual(JSON.parse(order!.text), { id, product: "tea", quantity: 2 })
        assert.deepInclude(order!.properties, { messageId: id, contentType: "application/json", persistent: true })
        assert.strictEqual((yield* next).status, 200)
      })
    )

    it.effect("reports every mistake of a bad order at once: where it is, and what was expected there", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* mistakesIn('{"product":"","quantity":1.5,"price":1,"a/b":2}'), {
          problem: { type: "about:blank", title: "Bad Request", status: 400, detail: "The body is not an order." },
          errors: [
            { pointer: "/price", detail: "Expected no excess property" },
            { pointer: "/a~1b", detail: "Expected no excess property" },
            { pointer: "/product", detail: "Expected a value with a length of at least 1" },
            { pointer: "/quantity", detail: "Expected an integer" }
          ]
        })
        assert.deepStrictEqual((yield* mistakesIn('{"product":7,"quantity":1001}')).errors, [
          { pointer: "/product", detail: "Expected string" },
          { pointer: "/quantity", detail: "Expected a value between 1 and 1000" }
        ])
        assert.deepStrictEqual((yield* mistakesIn('{"product":"tea"}')).errors, [
          { pointer: "/quantity", detail: "Missing key" }
        ])
        assert.deepStrictEqual((yield* mistakesIn("[]")).errors, [{ pointer: "", detail: "Expected object" }])
      })
    )

    it.effect("reports where JSON is malformed", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* mistakesIn('{"product":"tea"'), {
          problem: { type: "about:blank", title: "Bad Request", status: 400, detail: "The body is not JSON." },
          errors: [
            {
              pointer: "",
              detail: "Expected ',' or '}' after property value in JSON at position 16 (line 1 column 17)"
            }
          ]
        })
        assert.include((yield* mistakesIn('{"product":tea}')).errors[0].detail, '"{"product":tea}" is not valid JSON')
      })
    )

    it.effect("does not publish an order that it refuses, and borrows no channel for it", () =>
      Effect.gen(function* () {
        const { created } = yield* AmqpPool.stats
        yield* Effect.forEach(["", "null", "{", '{"product":"tea","quantity":0}'], mistakesIn)
        assert.strictEqual((yield* post("x".repeat(70_000))).status, 413)
        assert.strictEqual((yield* AmqpPool.stats).created, created)
        assert.strictEqual((yield* next).status, 204)
      })
    )
  })

  describe("GET /orders/next", () => {
    it.effect("takes the orders from the queue, oldest first, then answers 204", () =>
      Effect.gen(function* () {
        yield* Effect.forEach([1, 2, 3], (quantity) => post(`{"product":"tea","quantity":${quantity}}`))
        const orders = yield* Effect.forEach([1, 2, 3], () => next)
        assert.deepStrictEqual(
          orders.map(({ body, status, type }) => [status, type, JSON.parse(body).quantity]),
          [1, 2, 3].map((quantity) => [200, "application/json", quantity])
        )
        assert.deepInclude(yield* next, { status: 204, body: "" })
        yield* AmqpTest.awaitIdle
        assert.deepInclude(yield* AmqpTest.queue("orders"), { ready: 0, unsettled: 0 })
      })
    )

    it.effect("gives each of many orders to one of many customers", () =>
      Effect.gen(function* () {
        const posts = yield* Effect.forEach(
          Array.from({ length: 200 }, (_, i) => i + 1),
          (quantity) => post(`{"product":"tea","quantity":${quantity}}`),
          { concurrency: 20 }
        )
        assert.lengthOf((yield* AmqpTest.queue("orders")).messages, 200)
        const taken = yield* Effect.forEach(posts, () => next, { concurrency: 20 })
        const ids = (answers: ReadonlyArray<{ readonly body: string }>) =>
          answers.map(({ body }) => String(JSON.parse(body).id)).toSorted()
        assert.deepStrictEqual(ids(taken), ids(posts))
        assert.strictEqual((yield* AmqpPool.stats).used, 0)
        yield* AmqpTest.awaitIdle
        assert.deepInclude(yield* AmqpTest.queue("orders"), { ready: 0, unsettled: 0 })
      })
    )
  })
})
