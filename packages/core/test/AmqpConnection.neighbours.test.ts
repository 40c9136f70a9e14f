/** A connection error is a lost connection for everyone who did not cause it: consumers and borrowers on a real broker. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConsumer, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Fiber, Queue } from "effect"
import { configOf, type Overrides, quietly, reasonOf } from "./support/amqp.ts"
import { onTestBroker } from "./support/client.ts"
import { major } from "./support/versions.ts"

const withAmqp = (url: string, overrides: Overrides = {}) => {
  const layer = Amqp.fromConfig(configOf(url, overrides))
  return <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    quietly(Effect.scoped(Effect.provide(effect, layer, { local: true })))
}

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("nine consumers next to one whose `declare` ends the connection", () => {
    const unsupported: AmqpConsumer.ConsumeOptions<never> = {
      declare: (channel) =>
        channel.exchangeDeclare("innocents-x", "x-unknown", { arguments: { "x-delayed-type": "direct" } })
    }

    for (const resubscribe of ["lost", "always"] as const) {
      it.effect(
        `all nine continue and handle their messages; the one ends with the broker's reason (${resubscribe})`,
        () =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            const before = yield* broker.census
            yield* Effect.gen(function* () {
              const queues = Array.from({ length: 9 }, (_, i) => `innocent-${resubscribe}-${i}`)
              yield* Effect.scoped(
                AmqpChannel.use((channel) => Effect.forEach(queues, (queue) => channel.queueDeclare(queue)))
              )
              const got = yield* Queue.unbounded<string>()
              const consume = (queue: string) =>
                Effect.forkScoped(
                  AmqpConsumer.consume(queue, (delivery) => Queue.offer(got, AmqpMessage.text(delivery)), {
                    resubscribe
                  })
                )
              const first = yield* Effect.forEach(queues.slice(0, 5), consume)
              const bad = yield* Effect.forkScoped(
                reasonOf(AmqpConsumer.consume(queues[0]!, () => Effect.void, { ...unsupported, resubscribe }))
              )
              const rest = yield* Effect.forEach(queues.slice(5), consume)
              const reason = yield* Fiber.join(bad)
              assert.include(["ProtocolError", "PreconditionFailed"], reason._tag)
              assert.include(reason.message, "unknown exchange type 'x-unknown'")
              for (const queue of queues) yield* AmqpPublisher.publish({ routingKey: queue, content: queue })
              const handled = new Set<string>()
              while (handled.size < queues.length) handled.add(yield* Effect.timeout(Queue.take(got), "10 seconds"))
              for (const fiber of [...first, ...rest]) assert.isUndefined(fiber.pollUnsafe())
              yield* Effect.scoped(
                AmqpChannel.use((channel) => Effect.forEach(queues, (queue) => channel.queueDelete(queue)))
              )
            }).pipe(withAmqp(broker.url))
            yield* broker.awaitCensus({ connections: before.connections, channels: before.channels })
          })
      )
    }

    it.effect(
      "a borrower whose own declaration ends the connection fails with that reason, which is not retryable",
      () =>
        onTestBroker({}, function* () {
          const reason = yield* reasonOf(
            Effect.scoped(AmqpChannel.use((channel) => channel.exchangeDeclare("innocents-y", "x-unknown")))
          )
          assert.deepInclude(reason, {
            _tag: (yield* major) === 3 ? "ProtocolError" : "PreconditionFailed",
            isRetryable: false
          })
        })
    )
  })
})
