/** Confirm and transaction channels, on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Queue } from "effect"
import { untilStats, withPool, reasonOf } from "./support/amqp.ts"
import { contents } from "./support/queues.ts"

const onBroker = <A, E, R>(program: Effect.Effect<A, E, R>) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) => withPool(url, { pool: { max: 2 } })(program))

/** A queue that exists for the duration of a test. */
const withQueue = <A, E, R>(
  name: string,
  f: (queue: string) => Effect.Effect<A, E, R>,
  options?: AmqpChannel.QueueDeclareOptions
) =>
  Effect.acquireUseRelease(
    Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(name, options))),
    ({ queue }) => f(queue),
    ({ queue }) => Effect.ignore(Effect.scoped(AmqpChannel.use((channel) => channel.queueDelete(queue))))
  )

const confirmStats = Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.confirm.stats)
const transactionStats = Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.transaction.stats)

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a confirm channel", () => {
    it.effect("a confirm channel's publish completes when the message is in its queue", () =>
      onBroker(
        withQueue("confirmed", (queue) =>
          Effect.gen(function* () {
            const outcome = yield* Effect.scoped(
              AmqpChannel.useConfirm((channel) => channel.publish({ routingKey: queue, content: "a" }))
            )
            assert.deepStrictEqual(outcome, { _tag: "Confirmed" })
            assert.deepStrictEqual(yield* contents(queue), ["a"])
          })
        )
      )
    )

    it.effect("a thousand concurrent publishes on one channel are each confirmed once", () =>
      onBroker(
        withQueue("many", (queue) =>
          Effect.gen(function* () {
            const count = 1000
            const outcomes = yield* Effect.scoped(
              AmqpChannel.useConfirm((channel) =>
                Effect.forEach(
                  Array.from({ length: count }, (_, i) => String(i)),
                  (content) => channel.publish({ routingKey: queue, content }),
                  { concurrency: "unbounded" }
                )
              )
            )
            assert.lengthOf(outcomes, count)
            assert.deepStrictEqual(
              yield* contents(queue),
              Array.from({ length: count }, (_, i) => String(i))
            )
            assert.deepInclude(yield* confirmStats, { created: 1, used: 0, idle: 1, discarded: 0 })
          })
        )
      )
    )

    it.effect(
      "a mandatory message that is routed to no queue fails with PublishReturned; other publishes succeed",
      () =>
        onBroker(
          withQueue("routed", (queue) =>
            Effect.scoped(
              AmqpChannel.useConfirm((channel) =>
                Effect.gen(function* () {
                  const publish = (routingKey: string, content: string) =>
                    Effect.exit(channel.publish({ routingKey, content, headers: { content } }, { mandatory: true }))
                  const exits = yield* Effect.forEach(
                    Array.from({ length: 100 }, (_, i) => i),
                    (i) => publish(i % 3 === 0 ? "unbound" : queue, String(i)),
                    { concurrency: "unbounded" }
                  )
                  exits.forEach((exit, i) => assert.strictEqual(Exit.isSuccess(exit), i % 3 !== 0, `message ${i}`))
                  const reason = yield* reasonOf(
                    channel.publish({ routingKey: "unbound", content: "" }, { mandatory: true })
                  )
                  assert.deepInclude(reason, {
                    _tag: "PublishReturned",
                    replyCode: 312,
                    replyText: "NO_ROUTE",
                    exchange: "",
                    routingKey: "unbound"
                  })
                  // Without mandatory the broker drops the message and confirms it.
                  yield* channel.publish({ routingKey: "unbound", content: "" })
                })
              )
            )
          )
        )
    )

    it.effect("publishes that a full queue rejects fail with PublishNacked", () =>
      onBroker(
        withQueue(
          "full",
          (queue) =>
            Effect.scoped(
              AmqpChannel.useConfirm((channel) =>
                Effect.gen(function* () {
                  yield* channel.publish({ routingKey: queue, content: "fits" })
                  const reason = yield* reasonOf(channel.publish({ routingKey: queue, content: "too much" }))
                  assert.strictEqual(reason._tag, "PublishNacked")
                  assert.deepStrictEqual(yield* contents(queue), ["fits"])
                  yield* channel.publish({ routingKey: queue, content: "fits again" })
                })
              )
            ),
          { maxLength: 1, overflow: "reject-publish" }
        )
      )
    )

    it.effect("a missing exchange fails the publish that named it; the others in flight are of unknown outcome", () =>
      onBroker(
        withQueue("others", (queue) =>
          Effect.gen(function* () {
            const reasons = yield* Effect.scoped(
              AmqpChannel.useConfirm((channel) =>
                Effect.forEach(
                  ["", "", "missing", "", "missing"],
                  (exchange) =>
                    Effect.match(channel.publish({ exchange, routingKey: queue, content: "" }), {
                      onFailure: (error) => error.reason._tag,
                      onSuccess: (confirmed) => confirmed._tag
                    }),
                  { concurrency: "unbounded" }
                )
              )
            )
            assert.strictEqual(reasons[2], "NotFound")
            for (const earlier of [reasons[0], reasons[1]]) assert.include(["Confirmed", "PublishUnknown"], earlier)
            assert.deepStrictEqual(reasons.slice(3), ["PublishUnknown", "PublishUnknown"])
            // The next use in the scope gets a new channel.
            yield* untilStats((stats) => stats.used === 0)
            yield* Effect.scoped(
              AmqpChannel.useConfirm((channel) => channel.publish({ routingKey: queue, content: "" }))
            )
          })
        )
      )
    )

    it.effect("8. A lent channel is clean: no pending confirms. One with some is discarded.", () =>
      onBroker(
        withQueue("slow", (queue) =>
          Effect.gen(function* () {
            yield* Effect.scoped(
              AmqpChannel.useConfirm((channel) =>
                Effect.gen(function* () {
                  // It is interrupted before the broker can have answered, so its confirm is still pending.
                  const publishing = yield* Effect.forkChild(channel.publish({ routingKey: queue, content: "1" }), {
                    startImmediately: true
                  })
                  yield* Fiber.interrupt(publishing)
                })
              )
            )
            assert.deepInclude(yield* confirmStats, { used: 0, discarded: 1 })
            yield* Effect.scoped(
              AmqpChannel.useConfirm((channel) => channel.publish({ routingKey: queue, content: "2" }))
            )
            // The message had been written before the interruption.
            assert.deepStrictEqual(yield* contents(queue), ["1", "2"])
          })
        )
      )
    )

    it.effect("a scope holds at most one channel of each kind, and returns both", () =>
      onBroker(
        Effect.gen(function* () {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const regular = yield* AmqpChannel.use(Effect.succeed)
              const confirm = yield* AmqpChannel.useConfirm(Effect.succeed)
              assert.strictEqual(regular.kind, "regular")
              assert.strictEqual(confirm.kind, "confirm")
              assert.strictEqual(yield* AmqpChannel.useConfirm(Effect.succeed), confirm)
              assert.deepInclude(yield* AmqpPool.stats, { used: 1 })
              assert.deepInclude(yield* confirmStats, { used: 1 })
            })
          )
          assert.deepInclude(yield* AmqpPool.stats, { used: 0, idle: 1 })
          assert.deepInclude(yield* confirmStats, { used: 0, idle: 1 })
        })
      )
    )
  })

  describe("a transaction", () => {
    it.effect("that succeeds commits what it published and acknowledged", () =>
      Effect.gen(function* () {
        const { awaitCensus } = yield* TestBroker.TestBroker
        yield* onBroker(
          withQueue("from", (from) =>
            withQueue("to", (to) =>
              Effect.gen(function* () {
                yield* Effect.scoped(AmqpChannel.use((channel) => channel.publish({ routingKey: from, content: "a" })))
                const inside = yield* AmqpChannel.useTransaction((channel) =>
                  Effect.gen(function* () {
                    const delivery = Option.getOrThrow(yield* channel.get(from))
                    yield* channel.publish({ routingKey: to, content: delivery.content })
                    yield* channel.ack(delivery)
                    return yield* contents(to)
                  })
                )
                assert.deepStrictEqual(inside, [])
                assert.deepStrictEqual(yield* contents(to), ["a"])
                assert.deepStrictEqual(yield* contents(from), [])
                yield* awaitCensus({ unacked: 0, messages: 0 })
                assert.deepInclude(yield* transactionStats, { used: 0, idle: 1, discarded: 0 })
              })
            )
          )
        )
      })
    )

    it.effect("that fails, dies or is interrupted commits nothing, and the next one is clean", () =>
      onBroker(
        withQueue("from", (from) =>
          withQueue("to", (to) =>
            Effect.gen(function* () {
              yield* Effect.scoped(AmqpChannel.use((channel) => channel.publish({ routingKey: from, content: "a" })))
              const started = yield* Deferred.make<void>()
              const endings = [Effect.fail("business"), Effect.die("defect"), Effect.interrupt] as const
              for (const ending of [...endings, Effect.andThen(Deferred.succeed(started, undefined), Effect.never)]) {
                const transaction = AmqpChannel.useTransaction((channel) =>
                  Effect.gen(function* () {
                    const delivery = Option.getOrThrow(yield* channel.get(from))
                    yield* channel.publish({ routingKey: to, content: delivery.content })
                    yield* channel.ack(delivery)
                    yield* ending
                  })
                )
                const fiber = yield* Effect.forkChild(transaction)
                if (!endings.includes(ending as never)) {
                  yield* Deferred.await(started)
                  yield* Fiber.interrupt(fiber)
                }
                assert.isTrue(Exit.isFailure(yield* Fiber.await(fiber)))
                yield* Effect.flatMap(AmqpPool.AmqpPool, (pool) =>
                  Effect.repeat(pool.transaction.stats, { until: (stats) => stats.used === 0 })
                )
                // An empty transaction commits nothing that an earlier one has left.
                yield* AmqpChannel.useTransaction(() => Effect.void)
                assert.deepStrictEqual(yield* contents(to), [])
              }
              yield* AmqpChannel.useTransaction((channel) =>
                Effect.flatMap(channel.get(from), (delivery) => channel.ack(Option.getOrThrow(delivery)))
              )
              assert.deepStrictEqual(yield* contents(from), [])
            })
          )
        )
      )
    )

    it.effect("that is interrupted keeps the defects of its effect's finalizers", () =>
      onBroker(
        Effect.gen(function* () {
          const bug = new Error("bug")
          const started = yield* Deferred.make<void>()
          const fiber = yield* Effect.forkChild(
            AmqpChannel.useTransaction((channel) =>
              channel.publish({ routingKey: "nowhere", content: "x" }).pipe(
                Effect.andThen(Deferred.succeed(started, undefined)),
                Effect.andThen(Effect.never),
                Effect.onInterrupt(() => Effect.die(bug))
              )
            )
          )
          yield* Deferred.await(started)
          yield* Fiber.interrupt(fiber)
          const exit = yield* Fiber.await(fiber)
          assert(Exit.isFailure(exit))
          assert.isTrue(Cause.hasInterrupts(exit.cause))
          assert.deepStrictEqual(
            exit.cause.reasons.filter(Cause.isDieReason).map(({ defect }) => defect),
            [bug]
          )
        })
      )
    )

    it.effect("that is rolled back by hand can settle its deliveries again, and commits what follows", () =>
      onBroker(
        withQueue("from", (from) =>
          withQueue("to", (to) =>
            Effect.gen(function* () {
              yield* Effect.scoped(AmqpChannel.use((channel) => channel.publish({ routingKey: from, content: "a" })))
              yield* AmqpChannel.useTransaction((channel) =>
                Effect.gen(function* () {
                  const delivery = Option.getOrThrow(yield* channel.get(from))
                  yield* channel.publish({ routingKey: to, content: "undone" })
                  yield* channel.ack(delivery)
                  yield* channel.rollback
                  yield* channel.publish({ routingKey: to, content: "done" })
                  yield* channel.ack(delivery)
                })
              )
              assert.deepStrictEqual(yield* contents(to), ["done"])
              assert.deepStrictEqual(yield* contents(from), [])
            })
          )
        )
      )
    )

    it.effect("whose commit the broker refuses fails", () =>
      onBroker(
        withQueue("to", (to) =>
          Effect.gen(function* () {
            const reason = yield* reasonOf(
              AmqpChannel.useTransaction((channel) =>
                Effect.andThen(
                  channel.publish({ routingKey: to, content: "" }),
                  channel.publish({ exchange: "missing", routingKey: to, content: "" })
                )
              )
            )
            assert.strictEqual(reason._tag, "NotFound")
            assert.deepStrictEqual(yield* contents(to), [])
          })
        )
      )
    )

    it.effect("gets mandatory messages that are routed to no queue back with its commit", () =>
      onBroker(
        AmqpChannel.useTransaction((channel) =>
          Effect.gen(function* () {
            yield* channel.publish({ routingKey: "unbound", content: "back" }, { mandatory: true })
            assert.strictEqual(yield* Queue.size(channel.returns), 0)
            yield* channel.commit
            assert.strictEqual((yield* Queue.take(channel.returns)).replyCode, 312)
          })
        )
      )
    )
  })
})
