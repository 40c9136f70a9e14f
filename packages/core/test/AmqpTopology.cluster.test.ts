/**
 * A node of a cluster stops, and with it queues that are on no other node: what their consumers and their topology do.
 */
import { AmqpConnection, AmqpConsumer, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Queue } from "effect"
import { configOf, layerWith } from "./support/amqp.ts"
import * as Cluster from "./support/Cluster.ts"
import { withConsumers } from "./support/consumers.ts"
import { eventually } from "./support/polling.ts"

layer(Cluster.layer, { excludeTestServices: true, timeout: "3 minutes" })((it) => {
  describe("A stopped node", () => {
    it.effect(
      "a consumer waits for its node; a transient queue after it in the topology is declared on another",
      () =>
        Effect.gen(function* () {
          const { forgetsTransients, nodes, ready, url } = yield* Cluster.Cluster
          const [stopping, other, third] = nodes
          const topology = AmqpTopology.make(
            AmqpTopology.exchange("nodes", "direct"),
            AmqpTopology.queue("stays", { queueType: "classic" }),
            AmqpTopology.queue("moves", { queueType: "classic", durable: false }),
            AmqpTopology.queueBinding("stays", "nodes", "stays"),
            AmqpTopology.queueBinding("moves", "nodes", "moves")
          )
          // A queue is on the node of the connection that declares it.
          yield* AmqpTopology.declare(topology).pipe(
            Effect.provide(layerWith(configOf(url, { hosts: [stopping.host] })), { local: true })
          )
          yield* Effect.gen(function* () {
            const got = yield* Queue.unbounded<string>()
            const consume = (queue: string) =>
              Effect.forkScoped(AmqpConsumer.consume(queue, () => Queue.offer(got, queue)))
            const publish = (routingKey: string) =>
              AmqpPublisher.publish({ exchange: "nodes", routingKey, content: "" }, { mandatory: true })
            const consumers = yield* Effect.forEach(["stays", "moves"], consume)
            for (const queue of ["stays", "moves"]) {
              yield* publish(queue)
              assert.strictEqual(yield* Queue.take(got), queue)
            }
            yield* stopping.stop
            // With Khepri, which 4.3 always uses, the queue still exists, on the stopped node, so its consumer waits as
            // well.
            if (forgetsTransients) {
              yield* eventually("the transient queue", Effect.isSuccess(publish("moves")))
              assert.strictEqual(yield* Queue.take(got), "moves")
            }
            yield* stopping.start
            yield* ready
            if (!forgetsTransients) {
              yield* eventually("the transient queue", Effect.isSuccess(publish("moves")))
              assert.strictEqual(yield* Queue.take(got), "moves")
            }
            yield* publish("stays")
            assert.strictEqual(yield* Queue.take(got), "stays")
            for (const consumer of consumers) assert.isUndefined(consumer.pollUnsafe())
            yield* eventually(
              "no condition",
              Effect.map(AmqpConnection.conditions, (all) => all.length === 0)
            )
          }).pipe(
            Effect.provide(AmqpTopology.layer(topology), { local: true }),
            withConsumers(url, { hosts: [other.host, third.host] })
          )
        }),
      180_000
    )
  })
})
