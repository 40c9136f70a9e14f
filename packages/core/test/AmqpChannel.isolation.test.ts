/** A channel error affects its channel only: not other channels, not the connection, not the process's memory. */
import { assert, describe, it as plain, layer } from "@effect/vitest"
import {
  AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  AmqpMessage,
  AmqpPool,
  AmqpPublisher
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Effect, Fiber, Option, Queue, Schema } from "effect"
import type { Lease } from "../src/internal/channel/lease.ts"
import { onScriptedBroker } from "./support/client.ts"
import { tagOf, withPool } from "./support/amqp.ts"
import { declareQueue, withConsumers } from "./support/consumers.ts"
import { bytesHeld } from "./support/heap.ts"
import { eventually } from "./support/polling.ts"
import { range } from "./support/ranges.ts"
import { closable } from "./support/publisher.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { limitBodies } from "./support/versions.ts"

/** The driver's channel, which does not validate arguments. */
const driverOf = (channel: AmqpChannel.AmqpChannel) => (channel as Lease).channel!.driver

const acknowledge = (channel: AmqpChannel.AmqpChannel, deliveryTag: number) =>
  Effect.sync(() => driverOf(channel).ack(deliveryTag, false))

const kibibyte = 1024

layer(TestBroker.layerPrivate(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("9. A channel error touches its channel alone", () => {
    it.effect(
      "1,000 errors of every kind close no other channel and no connection, are seen by no other caller, and leave nothing",
      () =>
        Effect.gen(function* () {
          const broker = yield* TestBroker.TestBroker
          yield* limitBodies(100_000)

          /** How many connections and channels the broker has opened since it started. */
          const created = Effect.map(broker.evaluate("ets:tab2list(connection_churn_metrics)."), (text) => {
            const [connections = -1, , channels = -1] = /,(\d+),(\d+),(\d+),/.exec(text)!.slice(1).map(Number)
            return { connections, channels }
          })
          const pids = (list: string) =>
            Effect.map(broker.evaluate(`[pid_to_list(P) || P <- ${list}].`), (text) =>
              Array.from(text.matchAll(/<[\d.]+>/g), ([pid]) => pid)
            )
          const channelPids = pids("rabbit_channel:list()")
          const connectionPids = pids("rabbit_networking:connections()")

          /** A queue that another connection owns. */
          const locked = "locked"
          const shared = "shared"

          const program = Effect.gen(function* () {
            const connection = yield* AmqpConnection.AmqpConnection
            const pool = yield* AmqpPool.AmqpPool
            const publisher = yield* AmqpPublisher.AmqpPublisher
            const consumer = yield* AmqpConsumer.AmqpConsumer
            const consumers = yield* consumer.connection
            const queues = {
              flow: yield* declareQueue(),
              shared: yield* declareQueue({}, shared),
              failing: yield* declareQueue(),
              typed: yield* declareQueue()
            }
            yield* pool.use((channel) => channel.exchangeDeclare("inner", "fanout", { internal: true }))

            // --- The siblings ---------------------------------------------------------------------------------------

            const stop = { now: false }
            const done = { borrower: 0, confirmed: 0, published: 0, consumed: 0 }
            const until = <E, R>(step: Effect.Effect<void, E, R>) =>
              Effect.forkScoped(
                Effect.gen(function* () {
                  while (!stop.now) yield* step
                }),
                { startImmediately: true }
              )
            const siblings: Array<Fiber.Fiber<void, AmqpError.AmqpError>> = []
            for (const i of range(3)) {
              const channel = yield* AmqpPool.get
              const { queue } = yield* channel.queueDeclare(`borrower-${i}`)
              siblings.push(
                yield* until(
                  Effect.gen(function* () {
                    yield* channel.publish({ routingKey: queue, content: "mine", persistent: false })
                    const delivery = Option.getOrThrow(yield* channel.get(queue))
                    yield* channel.ack(delivery)
                    done.borrower++
                  })
                )
              )
            }
            const confirming = yield* pool.confirm.get
            siblings.push(
              yield* until(
                Effect.map(
                  confirming.publish({ routingKey: "borrower-0-confirmed", content: "mine", persistent: false }),
                  () => {
                    done.confirmed++
                  }
                )
              )
            )
            for (const _ of range(10)) {
              siblings.push(
                yield* until(
                  Effect.map(publisher.publish({ routingKey: queues.flow, content: "ours", persistent: false }), () => {
                    done.published++
                  })
                )
              )
            }
            const consuming = yield* Effect.forkScoped(
              AmqpConsumer.consume(queues.flow, () => Effect.sync(() => done.consumed++), { resubscribe: "never" })
            )

            // --- The failing parties --------------------------------------------------------------------------------------

            /** Handlers that fail. Each reports that it has begun. */
            const handled = new Map<string, Deferred.Deferred<void>>()
            const seen = (id: string) => Effect.suspend(() => Deferred.succeed(handled.get(id)!, undefined))
            const bodyOf = (delivery: AmqpConsumer.Delivery) => Buffer.from(delivery.content).toString()
            const failing = yield* Effect.forkScoped(
              AmqpConsumer.consume(
                queues.failing,
                (delivery) => {
                  const [how, id] = bodyOf(delivery).split(" ") as [string, string]
                  Effect.runSync(seen(id))
                  if (how === "throw") throw new Error("a handler that throws")
                  return how === "die" ? Effect.die("a handler that dies") : Effect.fail("a policy that throws")
                },
                {
                  resubscribe: "never",
                  onDefect: AmqpConsumer.deadLetter,
                  // The delivery is redelivered then.
                  onFailure: (_, { attempt }) => {
                    if (attempt === 1) throw new Error("a policy that throws")
                    return AmqpConsumer.deadLetter
                  }
                }
              )
            )
            const undecoded = yield* Effect.forkScoped(
              AmqpConsumer.consume(queues.typed, () => Effect.void, {
                schema: Schema.Struct({ id: Schema.Int }),
                resubscribe: "never",
                onDecodeFailure: (_, delivery) => {
                  Effect.runSync(seen(bodyOf(delivery)))
                  return AmqpConsumer.drop
                }
              })
            )
            // Each publish has its own channel: a message that kills its channel leaves the others on it of unknown
            // outcome, by design.
            const { publisher: lost } = yield* closable({ channels: 1 })
            const { publisher: oversized } = yield* closable({ channels: 1 })
            let ids = 0
            const toHandler = (queue: string, how: string) =>
              Effect.gen(function* () {
                const id = `id-${++ids}`
                const begun = yield* Deferred.make<void>()
                handled.set(id, begun)
                yield* publisher.publish({ routingKey: queue, content: `${how}${id}`, persistent: false })
                yield* Deferred.await(begun)
                handled.delete(id)
                return "handled"
              })
            const large = { routingKey: shared, content: new Uint8Array(200_000) }
            const nowhere = { exchange: "missing", routingKey: "k", content: "" }

            const kinds: Record<
              string,
              readonly [string, Effect.Effect<string, unknown, AmqpConsumer.Services<never>>]
            > = {
              "404, a missing queue": ["NotFound", tagOf(pool.use((ch) => ch.get("missing")))],
              "404, a missing exchange": ["NotFound", tagOf(pool.use((ch) => ch.queueBind(shared, "missing", "k")))],
              "406, declared otherwise": [
                "PreconditionFailed",
                tagOf(pool.use((ch) => ch.queueDeclare(shared, { durable: false })))
              ],
              "403, a reserved name": [
                "AccessRefused",
                tagOf(pool.use((ch) => ch.exchangeDeclare("amq.mine", "direct")))
              ],
              "405, another's queue": ["ResourceLocked", tagOf(pool.use((ch) => ch.queueDeclarePassive(locked)))],
              "406, a stale ack": [
                "PreconditionFailed",
                tagOf(pool.use((ch) => Effect.andThen(acknowledge(ch, 12_345), ch.get(shared))))
              ],
              "406, a second ack": [
                "PreconditionFailed",
                tagOf(
                  pool.use((ch) =>
                    Effect.gen(function* () {
                      yield* ch.publish({ routingKey: shared, content: "twice", persistent: false })
                      const delivery = Option.getOrThrow(yield* ch.get(shared))
                      yield* ch.ack(delivery)
                      yield* acknowledge(ch, 1)
                      yield* ch.queueDeclarePassive(shared)
                    })
                  )
                )
              ],
              "a publish to nowhere": [
                "NotFound",
                tagOf(pool.use((ch) => Effect.andThen(ch.publish(nowhere), ch.queueDeclarePassive(shared))))
              ],
              "a publish to nowhere, confirmed": ["NotFound", tagOf(pool.confirm.use((ch) => ch.publish(nowhere)))],
              "a publish to an internal exchange": [
                "AccessRefused",
                tagOf(pool.confirm.use((ch) => ch.publish({ exchange: "inner", routingKey: "k", content: "" })))
              ],
              "a message too large": ["MessageTooLarge", tagOf(pool.confirm.use((ch) => ch.publish(large)))],
              "a commit that is refused": [
                "NotFound",
                tagOf(
                  AmqpChannel.useTransaction((ch) => ch.publish(nowhere)).pipe(
                    Effect.provideService(AmqpPool.AmqpPool, pool)
                  )
                )
              ],
              "a borrower that dies": [
                "died",
                pool
                  .use(() => Effect.die("a borrower that dies"))
                  .pipe(Effect.catchDefect(() => Effect.succeed("died")))
              ],
              "a request that is interrupted": [
                "interrupted",
                pool
                  .use((ch) =>
                    Effect.flatMap(
                      Effect.forkChild(ch.queueDeclarePassive(shared), { startImmediately: true }),
                      Fiber.interrupt
                    )
                  )
                  .pipe(Effect.as("interrupted"))
              ],
              "a publisher's, to nowhere": ["NotFound", tagOf(lost.publish(nowhere))],
              "a publisher's, too large": ["MessageTooLarge", tagOf(oversized.publish(large))],
              "a handler that dies": ["handled", toHandler(queues.failing, "die ")],
              "a handler that throws": ["handled", toHandler(queues.failing, "throw ")],
              "a policy that throws": ["handled", toHandler(queues.failing, "policy ")],
              "a content that is not decoded": ["handled", toHandler(queues.typed, "")]
            }
            const errors = Object.entries(kinds)
            assert.strictEqual(errors.length, 20)
            const round = Effect.forEach(
              errors,
              ([kind, [expected, err]]) => Effect.map(err, (tag) => assert.strictEqual(tag, expected, kind)),
              { concurrency: 8, discard: true }
            )

            // --- What it costs --------------------------------------------------------------------------------------

            // Until everything is open that lasts.
            yield* eventually(
              "siblings at work",
              Effect.sync(() => done.consumed > 100 && done.confirmed > 10 && done.borrower > 10)
            )
            yield* broker.awaitCensus({ consumers: 3 })
            const before = {
              created: yield* created,
              channels: yield* channelPids,
              connections: yield* connectionPids,
              done: { ...done }
            }
            const heap: Array<readonly [number, number]> = []
            let slowest = Number.POSITIVE_INFINITY
            for (const tenth of range(Number(process.env["ROUNDS"] ?? 10))) {
              const last = { ...done }
              for (const _ of range(5)) yield* round
              for (const key of ["borrower", "confirmed", "published", "consumed"] as const) {
                slowest = Math.min(slowest, done[key] - last[key])
              }
              heap.push([(tenth + 1) * 5 * errors.length, bytesHeld()])
            }
            const after = { created: yield* created, channels: yield* channelPids, connections: yield* connectionPids }
            const served = { ...done }
            stop.now = true
            for (const sibling of siblings) yield* Fiber.join(sibling)
            for (const fiber of [consuming, failing, undecoded]) assert.isUndefined(fiber.pollUnsafe())

            console.log(
              [
                "1,000 channel errors of 20 kinds",
                `connections opened for them            ${after.created.connections - before.created.connections}`,
                `channels opened for them               ${after.created.channels - before.created.channels}`,
                `sibling channels lost                  ${before.channels.filter((pid) => !after.channels.includes(pid)).length} of ${before.channels.length}`,
                `served by siblings, borrowers          ${served.borrower - before.done.borrower}`,
                `served by siblings, confirmed          ${served.confirmed - before.done.confirmed + served.published - before.done.published}`,
                `served by siblings, consumed           ${served.consumed - before.done.consumed}`,
                ...heap.map(
                  ([n, bytes]) =>
                    `heap after ${String(n).padStart(5)} errors, KiB       ${Math.round(bytes / kibibyte)}`
                )
              ].join("\n")
            )
            assert.strictEqual(after.created.connections, before.created.connections)
            assert.deepStrictEqual(after.connections.toSorted(), before.connections.toSorted())
            for (const pid of before.channels) assert.include(after.channels, pid)
            for (const { state } of [connection, consumers]) {
              assert.deepInclude(state.value, { _tag: "Open", generation: 1 })
            }
            const stats = yield* publisher.stats
            assert.deepInclude(stats, { inFlight: 0, waiting: 0, unknown: 0, refused: 0, timedOut: 0, nacked: 0 })
            for (const { stats } of [lost, oversized]) {
              assert.deepInclude(yield* stats, { inFlight: 0, waiting: 0, unknown: 0, refused: 50 })
            }
            yield* broker.awaitCensus({ unacked: 0, unconfirmed: 0 })

            // Siblings of every kind made progress all the time.
            assert.isAbove(slowest, 0)

            // The process is warm after 300 errors.
            const [first, last] = [heap[2]!, heap.at(-1)!]
            assert.isBelow((last[1] - first[1]) / (last[0] - first[0]), 2.5 * kibibyte)
          })

          yield* Effect.gen(function* () {
            yield* Effect.scoped(
              AmqpChannel.use((channel) =>
                Effect.gen(function* () {
                  yield* channel.queueDeclare(locked, { exclusive: true })
                  yield* program.pipe(withConsumers(broker.url, { pool: { max: 12 } }))
                })
              )
            )
          }).pipe(withPool(broker.url))
          yield* broker.awaitCensus({ connections: 0, channels: 0 })
        }),
      180_000
    )
  })
})

describe("14. A delivery settles at most once, and only on the channel that delivered it. A late ack is a typed error, not a 406.", () => {
  plain.live("on a borrowed channel with the number and the tags of a lost connection's channel", () =>
    onScriptedBroker({ pool: { max: 1 } }, function* (broker) {
      broker.enqueue("q", "a")
      const stale = yield* Effect.scoped(
        AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const delivery = Option.getOrThrow(yield* channel.get("q"))
            broker.destroy()
            while ((yield* tagOf(channel.queueDeclare("q"))) === "Success") yield* Effect.yieldNow
            assert.include(["ConnectionClosed", "ChannelClosed"], yield* tagOf(channel.ack(delivery)))
            return delivery
          })
        )
      )
      yield* Effect.scoped(
        AmqpChannel.use((channel) =>
          Effect.gen(function* () {
            const delivery = Option.getOrThrow(yield* channel.get("q"))
            assert.strictEqual(delivery.deliveryTag, stale.deliveryTag)
            for (const settle of [channel.ack(stale), channel.nack(stale), channel.reject(stale)]) {
              assert.strictEqual(yield* tagOf(settle), "DeliverySettled")
            }
            assert.strictEqual(yield* tagOf(channel.ack(delivery)), "Success")
            assert.strictEqual(yield* tagOf(channel.ack(delivery)), "DeliverySettled")
            yield* channel.queueDeclare("q")
          })
        )
      )
      assert.deepStrictEqual(
        broker.log.flatMap((r) =>
          /basic\.(ack|nack|reject)/.test(r.method) ? [[r.method, r.connection.id, r.channel]] : []
        ),
        [["basic.ack", 2, 1]]
      )
      assert.strictEqual(broker.count("channel.close-ok"), 0)
    })
  )

  plain.live("by the first of many concurrent fibers: one frame per delivery", () =>
    Effect.gen(function* () {
      const broker = yield* ScriptedBroker.make()
      const count = 100
      yield* Effect.scoped(
        Effect.gen(function* () {
          for (const i of range(count)) broker.enqueue("q", String(i))
          const channel = yield* AmqpPool.get
          const { deliveries } = yield* channel.consume("q")
          const all = yield* Queue.takeN(deliveries, count)
          const outcomes = yield* Effect.forEach(
            all,
            (delivery) =>
              Effect.all(
                [
                  channel.ack(delivery),
                  channel.nack(delivery, { requeue: false }),
                  channel.reject(delivery, { requeue: false })
                ].map((settle) => Effect.andThen(Effect.yieldNow, tagOf(settle))),
                { concurrency: "unbounded" }
              ),
            { concurrency: "unbounded" }
          )
          for (const each of outcomes) {
            assert.sameMembers<string>(each, ["Success", "DeliverySettled", "DeliverySettled"])
          }
          yield* channel.queueDeclare("q")
          const frames = broker.log.flatMap((r) =>
            r.method === "basic.ack" || r.method === "basic.nack" || r.method === "basic.reject"
              ? [r.args.deliveryTag]
              : []
          )
          assert.strictEqual(frames.length, count)
          assert.strictEqual(new Set(frames).size, count)
        })
      ).pipe(withPool(broker.url))
    })
  )
})

describe("A consumer tag that is reused", () => {
  plain.live(
    "belongs to the next consumer, also when the answer to a cancel that crossed the broker's cancel arrives then",
    () =>
      onScriptedBroker({ pool: { max: 1 } }, function* (broker) {
        const content = yield* Effect.scoped(
          AmqpChannel.use((channel) =>
            Effect.gen(function* () {
              const consume = channel.consume("q", { consumerTag: "c", noAck: true })
              const { deliveries: ended } = yield* consume
              broker.once("basic.cancel", ({ hold }) => hold())
              const cancelling = yield* Effect.forkChild(channel.cancel("c"))
              const { channel: number } = yield* broker.received("basic.cancel")
              broker.send(number, "basic.cancel", { consumerTag: "c", noWait: true })
              assert.strictEqual(yield* tagOf(Queue.collect(ended)), "ConsumerCancelled")
              const consuming = yield* Effect.forkChild(consume, { startImmediately: true })
              broker.release("basic.cancel")
              yield* Fiber.join(cancelling)
              const { deliveries } = yield* Fiber.join(consuming)
              broker.enqueue("q", "a")
              return AmqpMessage.text(yield* Effect.timeout(Queue.take(deliveries), "10 seconds"))
            })
          )
        )
        assert.strictEqual(content, "a")
      })
  )
})
