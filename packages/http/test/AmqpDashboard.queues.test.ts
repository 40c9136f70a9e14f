/** `queueCounts`: what the broker says about queues, on the dashboard in a browser and on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer, AmqpPool, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Context, Deferred, Effect, Exit, Layer, Scope } from "effect"
import type { Page } from "playwright-core"
import * as Users from "../../core/test/support/users.ts"
import {
  browser,
  connection,
  consumer,
  dashboard,
  environment,
  found,
  line,
  open,
  promise,
  row,
  userPassword
} from "./support/dashboardPage.ts"
import { asClient } from "./support/queues.ts"

const options = { excludeTestServices: true, timeout: "5 minutes" } as const

/** The fastest pace. */
const interval = "5 seconds"

const other = (page: Page, name: RegExp) => row(page, "Other queues counted by the broker", name)

const declare = (queue: string, type: "classic" | "stream" = "classic") =>
  Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue, { queueType: type, durable: true })))

const publish = (queue: string, messages: number) =>
  Effect.repeat(AmqpPublisher.publish({ routingKey: queue, content: "one" }), { times: messages - 1 })

describe.skipIf(found.path === undefined)(`dashboard: counts of queues ${found.missing ?? ""}`.trim(), () => {
  layer(
    environment,
    options
  )((it) => {
    it.effect(
      "has the counts of the consumers' queues and of others, of streams too, and says which queues are missing or refused",
      () =>
        Effect.gen(function* () {
          const { services, url } = yield* dashboard({
            queueCounts: { queues: ["idle", "audit", "gone", "private"], interval }
          })
          const { errors, page } = yield* open({ viewport: { width: 1280, height: 900 } })
          yield* Effect.gen(function* () {
            for (const queue of ["orders", "idle", "doomed"]) yield* declare(queue)
            for (const stream of ["events", "audit"]) yield* declare(stream, "stream")
            const letGo = yield* Deferred.make<void>()
            const consume = (queue: string, settings: AmqpConsumer.ConsumeOptions = {}) =>
              Effect.forkScoped(Effect.exit(AmqpConsumer.consume(queue, () => Deferred.await(letGo), settings)))
            yield* consume("orders", { prefetch: 1 })
            yield* consume("doomed")
            yield* publish("orders", 4)
            yield* publish("idle", 3)
            yield* publish("events", 2)
            yield* publish("audit", 5)
            yield* consume("events", { queueType: "stream", offset: "first" })
            // Another connection has a queue of its own.
            const held = yield* Deferred.make<void>()
            yield* Effect.forkScoped(
              asClient(
                AmqpChannel.use((channel) =>
                  Effect.andThen(
                    channel.queueDeclare("private", { exclusive: true }),
                    Effect.andThen(Deferred.succeed(held, undefined), Effect.never)
                  )
                ).pipe(Effect.scoped)
              )
            )
            yield* Deferred.await(held)
            yield* promise(() => page.goto(url))

            yield* consumer(page, /^orders running .* 1 of 1 1 .* 3 at [\d:]+ 1$/)
            yield* consumer(page, /^events running .* 2 at [\d:]+ \d$/)
            yield* other(page, /^idle 3 at [\d:]+ 0$/)
            yield* other(page, /^audit 5 at [\d:]+ \d$/)
            yield* other(page, /^gone no such queue –$/)
            yield* other(page, /^private not counted: ResourceLocked –$/)
            yield* line(page, /^gone: the queue does not exist/)
            yield* line(page, /^idle: 3 messages wait, and the queue has no consumer/)
            // RabbitMQ reports no consumers of a stream, and this process has one.
            assert.strictEqual(yield* promise(() => page.getByText(/^events: .* no consumer/).count()), 0)

            // A queue that is deleted, and one that comes.
            yield* Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete("doomed")))
            yield* consumer(page, /^doomed ended .* no such queue –$/)
            yield* declare("gone")
            yield* other(page, /^gone 0 at [\d:]+ 0$/)
            yield* publish("orders", 2)
            yield* consumer(page, /^orders .* 5 at [\d:]+ 1$/)
            yield* Deferred.succeed(letGo, undefined)
            yield* consumer(page, /^orders .* 0 at [\d:]+ 1$/)
          }).pipe(Effect.scoped, Effect.provideContext(services))
          assert.deepStrictEqual(errors, [])
        }),
      120_000
    )

    it.effect(
      "says which queues the user may not see, and counts with one permission, whichever it is",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const user = yield* Users.make(userPassword)
          yield* asClient(Effect.andThen(declare("stock"), publish("stock", 2)))
          // May do nothing in this virtual host.
          yield* user.permit("^$", "^$", "^$")
          const { url } = yield* dashboard({ queueCounts: { queues: ["stock"], interval } }, user.name)
          const { page } = yield* open()
          yield* promise(() => page.goto(url))
          // RabbitMQ 4.3 demands one of the three permissions, and earlier versions none.
          yield* other(page, /^stock (?:2 at [\d:]+ 0|not counted: AccessRefused –)$/)
          // Nothing else suffers.
          yield* row(page, connection, / open .+ connection 1 to /)
          yield* broker.awaitCensus({ connections: 1 })
          yield* user.permit("^$", "^$", "^stock$")
          yield* other(page, /^stock 2 at [\d:]+ 0$/)
        }),
      120_000
    )

    it.effect(
      "uses one channel of the pool at a time, and leaves no channel and no connection behind",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const queues = Array.from({ length: 20 }, (_, i) => `counted-${i}`)
          // The broker closes a channel for each queue that is missing. They come first: the channel of the others stays open.
          yield* asClient(Effect.forEach(queues.slice(5), (queue) => declare(queue)))
          const scope = yield* Scope.make()
          const { services, url } = yield* Scope.provide(dashboard({ queueCounts: { queues, interval } }), scope)
          const { page } = yield* open()
          yield* promise(() => page.goto(url))
          yield* other(page, /^counted-0 no such queue /)
          yield* other(page, /^counted-19 0 at /)
          yield* row(page, "Channels in use", /^regular 0 /)
          const { idle, used } = yield* Context.get(services, AmqpPool.AmqpPool).stats
          assert.isAtMost(idle + used, 1)
          yield* broker.awaitCensus({ connections: 1, channels: 1 })
          yield* Scope.close(scope, Exit.void)
          yield* broker.awaitCensus({ connections: 0, channels: 0 })
        }),
      120_000
    )
  })

  layer(
    Layer.merge(TestBroker.layerPrivate(), browser),
    options
  )((it) => {
    it.effect(
      "the last counts stay with their time while the broker is away, and are counted again when it is back",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          const { services, url } = yield* dashboard({ queueCounts: { queues: ["idle"], interval } })
          const { page } = yield* open()
          yield* Effect.gen(function* () {
            yield* declare("idle")
            yield* publish("idle", 1)
          }).pipe(Effect.provideContext(services))
          yield* promise(() => page.goto(url))
          yield* other(page, /^idle 1 at /)
          const counted = () =>
            promise(() =>
              page.getByRole("figure", { name: "Other queues" }).getByRole("row", { name: /^idle/ }).innerText()
            )
          yield* broker.ctl("stop_app")
          yield* row(page, connection, / reconnecting /)
          const before = yield* counted()
          assert.match(before, /1 at [\d:]+/)
          yield* broker.ctl("start_app")
          yield* row(page, connection, / open .+ connection 2 to /)
          const after = yield* Effect.repeat(Effect.andThen(Effect.sleep("50 millis"), counted()), {
            until: (text) => text !== before
          })
          // The message was transient.
          assert.match(after, /[01] at [\d:]+/)
        }),
      180_000
    )
  })
})
