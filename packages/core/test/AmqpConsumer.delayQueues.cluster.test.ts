/** Retries that wait while a node dies that has the leader of their work queue, or also of their delay queue. */
import { Amqp, AmqpConsumer, AmqpMessage, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Duration, Effect, References } from "effect"
import { configOf, layerWith } from "./support/amqp.ts"
import * as Cluster from "./support/Cluster.ts"

type Node = Cluster.Node

const configFor = Effect.fnUntraced(function* (first: Node, ...others: ReadonlyArray<Node>) {
  const { url } = yield* Cluster.Cluster
  return configOf(url, {
    hosts: [first.host, ...others.map(({ host }) => host)],
    heartbeat: Duration.seconds(1),
    connectTimeout: Duration.seconds(2),
    publishTimeout: Duration.seconds(10)
  })
})

const figures: Array<string> = []

afterAll(() => {
  console.log(["", "retries that wait in a delay queue on three nodes", ...figures].join("\n"))
})

const count = 1000
const fibers = 20

let queues = 0

/**
 * Every message fails once, and waits a second for its retry. While some messages arrive, wait and come back, a fault
 * hits the node of the work queue's leader, or of both leaders. Every confirmed message must be handled.
 */
const whileRetriesWait = (
  name: string,
  whose: "work queue" | "both",
  fault: (node: Node) => Effect.Effect<void, unknown>
) =>
  Effect.gen(function* () {
    const cluster = yield* Cluster.Cluster
    const [leader, second, third] = cluster.nodes
    // How long a dead letter waits for its confirm before it is sent again. The default is three minutes.
    yield* Effect.forEach(cluster.nodes, (node) =>
      node.evaluate("application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 2000).")
    )
    const work = AmqpTopology.workQueue(`work-${++queues}`, { queueType: "quorum", retryDelays: ["1 second"] })
    const delays = AmqpTopology.retryQueues(work.queue, ["1 second"])
    // A queue's leader is placed on the node that declares the queue.
    const declareOn = (node: Node, topology: AmqpTopology.AmqpTopology) =>
      Effect.flatMap(configFor(node), (config) =>
        AmqpTopology.declare(topology).pipe(Effect.scoped, Effect.provide(layerWith(config), { local: true }))
      )
    yield* declareOn(whose === "both" ? leader : second, delays)
    yield* declareOn(leader, work)
    yield* cluster.ready
    assert.strictEqual((yield* cluster.leader(work.queue)).name, leader.name)
    const confirmed = new Set<string>()
    const handled = new Map<string, number>()
    const until = (what: string, within: Duration.Input, condition: () => boolean) =>
      Effect.sleep(20).pipe(
        Effect.repeat({ until: condition }),
        Effect.timeoutOrElse({
          duration: within,
          orElse: () => Effect.die(new Error(`not within ${String(within)}: ${what}`))
        })
      )
    const lost = () => [...confirmed].filter((id) => !handled.has(id))
    yield* Effect.gen(function* () {
      yield* Effect.forkScoped(
        AmqpConsumer.consume(
          work.queue,
          (delivery) => {
            if (delivery.properties.headers["x-retry-count"] === undefined) return Effect.fail("once")
            const id = AmqpMessage.text(delivery)
            return Effect.sync(() => handled.set(id, (handled.get(id) ?? 0) + 1))
          },
          { onFailure: work.onFailure, concurrency: 50 }
        )
      )
      yield* Effect.forkScoped(
        Effect.forEach(
          Array.from({ length: count }, (_, i) => String(i)),
          (id) =>
            AmqpPublisher.publish({ routingKey: work.queue, content: id }).pipe(
              Effect.retry({ while: (error) => error.isRetryable }),
              Effect.tap(() => Effect.sync(() => confirmed.add(id))),
              Effect.andThen(Effect.sleep("60 millis"))
            ),
          { concurrency: fibers, discard: true }
        )
      )
      yield* until("a tenth has been handled", "60 seconds", () => handled.size > count / 10)
      yield* fault(leader)
      yield* until("all are confirmed", "60 seconds", () => confirmed.size === count)
      yield* until(`all are handled; missing: ${lost().length}`, "120 seconds", () => lost().length === 0)
    }).pipe(
      Effect.scoped,
      Effect.provide(Amqp.fromConfig(yield* configFor(second, third)), { local: true }),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
    const twice = [...handled.values()].filter((times) => times > 1).length
    figures.push(
      `${name.padEnd(7)} node of the leader of ${whose.padEnd(10)}: confirmed ${confirmed.size}, lost ${lost().length}, handled twice ${twice}`
    )
    assert.isEmpty(lost())
  })

const killed = (node: Node) => Effect.andThen(Effect.andThen(node.kill9, Effect.sleep("5 seconds")), node.start)

// RabbitMQ 4.3 does not stop a node that was alone, for which `resume` waits. So this is the last test.
const paused = (node: Node) => Effect.andThen(node.pause, Effect.ignore(node.resume))

const whole = Effect.flatMap(Cluster.Cluster, ({ ready }) => ready)

layer(Cluster.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("No retry is lost when a node dies:", () => {
    it.effect(
      "that of the work queue's leader is killed",
      () => Effect.andThen(whileRetriesWait("killed", "work queue", killed), whole),
      240_000
    )

    it.effect(
      "that of both queues' leaders is killed",
      () => Effect.andThen(whileRetriesWait("killed", "both", killed), whole),
      240_000
    )

    it.effect(
      "that of the work queue's leader is paused",
      () => whileRetriesWait("paused", "work queue", paused),
      240_000
    )
  })
})
