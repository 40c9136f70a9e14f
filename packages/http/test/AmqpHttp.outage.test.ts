/** Routes with AMQP while the broker is unreachable, blocks, hangs or refuses, on a broker for this file only. */
import { assert, layer } from "@effect/vitest"
import { AmqpChannel, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Fiber } from "effect"
import { untilState } from "../../core/test/support/amqp.ts"
import { type Answer, get, ok, touch, untilFlow, withService } from "./support/service.ts"

const publish = (content: string, onBlocked?: "wait" | "fail") =>
  Effect.as(
    AmqpChannel.use((channel) => channel.publish({ routingKey: "nowhere", content }, { onBlocked })),
    ok
  )

/** Checks that the whole answer is a problem of this status with this detail, and nothing more. */
const isProblem = (
  { body, headers, status }: Answer,
  expected: { readonly status: number; readonly retryAfter?: string; readonly title: string; readonly detail: string }
) => {
  const { retryAfter, ...problem } = expected
  assert.strictEqual(status, expected.status)
  assert.strictEqual(headers["content-type"], "application/problem+json")
  assert.strictEqual(headers["retry-after"], retryAfter)
  assert.deepStrictEqual(JSON.parse(body), { type: "about:blank", ...problem })
}

const tooLate = {
  status: 503,
  retryAfter: "1",
  title: "Service Unavailable",
  detail: "The service did not reach its message broker in time. Try again in a moment."
}

const disconnected = {
  status: 503,
  retryAfter: "5",
  title: "Service Unavailable",
  detail: "The service has no connection to its message broker. Try again later."
}

const blocked = {
  status: 503,
  retryAfter: "10",
  title: "Service Unavailable",
  detail: "The message broker does not accept messages at the moment. Try again later."
}

const timedOut = {
  status: 504,
  title: "Gateway Timeout",
  detail:
    "The message broker did not answer in time. The request may have taken effect; repeat it only if that is safe."
}

const tooLarge = {
  status: 413,
  title: "Content Too Large",
  detail: "The message is larger than the message broker accepts. Send a smaller one."
}

layer(TestBroker.layerPrivate({ config: ["max_message_size = 10000"] }), {
  excludeTestServices: true,
  timeout: "2 minutes"
})((it) => {
  it.effect("a lost connection is a 503 with Retry-After, for the request it hits and until it is restored", () =>
    Effect.gen(function* () {
      const { awaitCensus, evaluate, killConnections, url } = yield* TestBroker.TestBroker
      const listening = (yes: boolean) =>
        evaluate(`rabbit_maintenance:${yes ? "resume" : "suspend"}_all_client_listeners().`)
      const reached = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const amid = AmqpChannel.use((channel) =>
        Deferred.succeed(reached, undefined).pipe(
          Effect.andThen(Deferred.await(goOn)),
          Effect.andThen(channel.publish({ routingKey: "nowhere", content: "too late" })),
          Effect.as(ok)
        )
      )
      yield* Effect.gen(function* () {
        const asking = yield* Effect.forkChild(get("/amid"))
        yield* Deferred.await(reached)
        yield* Effect.acquireRelease(listening(false), () => Effect.orDie(listening(true)))
        yield* killConnections
        yield* untilState((state) => state._tag === "Reconnecting")
        yield* Deferred.succeed(goOn, undefined)
        isProblem(yield* Fiber.join(asking), disconnected)
        // Until the connection is restored, a request waits for a channel up to the acquire timeout.
        isProblem(yield* get("/"), tooLate)
        assert.strictEqual((yield* get("/without")).status, 200)
        yield* listening(true)
        yield* untilState((state) => state._tag === "Open")
        assert.strictEqual((yield* get("/")).status, 200)
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, idle: 1 })
        yield* awaitCensus({ connections: 1, channels: 1 })
      }).pipe(
        withService(
          url,
          { "/amid": amid, "/": Effect.as(touch, ok), "/without": Effect.succeed(ok) },
          { amqp: { pool: { max: 2, acquireTimeout: "1 second" } } }
        )
      )
    })
  )

  it.effect(
    "a blocked connection is a 503 with Retry-After, immediately or after a wait, and only for publishers",
    () =>
      Effect.gen(function* () {
        const { blockPublishers, unblockPublishers, url } = yield* TestBroker.TestBroker
        yield* Effect.gen(function* () {
          yield* blockPublishers
          // The broker sends connection.blocked when a client publishes.
          assert.strictEqual((yield* get("/waiting")).status, 200)
          yield* untilFlow("Blocked")
          isProblem(yield* get("/waiting"), blocked)
          isProblem(yield* get("/impatient"), blocked)
          assert.strictEqual((yield* get("/without")).status, 200)
          yield* unblockPublishers
          yield* untilFlow("Flowing")
          assert.strictEqual((yield* get("/waiting")).status, 200)
          assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0 })
        }).pipe(
          withService(
            url,
            {
              "/waiting": publish("a message"),
              "/impatient": publish("a message", "fail"),
              "/without": Effect.succeed(ok)
            },
            { amqp: { publishTimeout: "100 millis" } }
          )
        )
      })
  )

  it.effect("a message that is too large for the broker is a 413", () =>
    Effect.gen(function* () {
      const { url } = yield* TestBroker.TestBroker
      const large = Effect.andThen(publish("x".repeat(20_000)), Effect.as(touch, ok))
      yield* Effect.gen(function* () {
        isProblem(yield* get("/large"), tooLarge)
        assert.strictEqual((yield* get("/")).status, 200)
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, discarded: 1 })
      }).pipe(withService(url, { "/large": large, "/": Effect.as(touch, ok) }))
    })
  )

  it.effect("a broker that does not answer is a 504", (test) =>
    Effect.gen(function* () {
      const { awaitCensus, processes, url } = yield* TestBroker.TestBroker
      if (processes === undefined) return test.skip("the broker is not a process of ours that could be paused")
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* get("/")).status, 200)
        yield* Effect.acquireUseRelease(
          Effect.sync(() => process.kill(processes.server, "SIGSTOP")),
          () => Effect.map(get("/"), (answer) => isProblem(answer, timedOut)),
          () => Effect.sync(() => process.kill(processes.server, "SIGCONT"))
        )
        assert.strictEqual((yield* get("/")).status, 200)
        assert.deepInclude(yield* AmqpPool.stats, { used: 0, pending: 0, discarded: 1 })
      }).pipe(withService(url, { "/": Effect.as(touch, ok) }, { amqp: { continuationTimeout: "1 second" } }))
      yield* awaitCensus({ connections: 0, channels: 0 })
    })
  )
})
