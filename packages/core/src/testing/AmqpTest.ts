import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/testing/TestClock"
import * as Amqp from "../Amqp.ts"
import type { Options as ConfigOptions } from "../AmqpConfig.ts"
import type { AmqpError } from "../model/error.ts"
import * as MemoryBroker from "./MemoryBroker.ts"

/**
 * Options of {@link layer}: those of `Amqp.layer`, without the broker's address, and those of the memory broker.
 *
 * **When to use**
 *
 * Use to test with the settings of the application, such as the size of its pool.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options
  extends Omit<ConfigOptions, "url" | "host" | "port" | "hosts" | "vhost">, Pick<MemoryBroker.Options, "version"> {}

const defaults = { username: "guest", password: "guest", shutdownTimeout: 0 }

/** The user of the application, whom the broker knows and who may do everything. */
const userOf = ({ credentials, password, username }: ConfigOptions): Readonly<Record<string, string>> => {
  const given = credentials?._tag === "Plain" ? credentials : { username, password }
  const secret = given.password ?? defaults.password
  return { [given.username ?? defaults.username]: Redacted.isRedacted(secret) ? Redacted.value(secret) : secret }
}

/**
 * All services of `@effect-amqp/core`, connected to a fresh broker in memory.
 *
 * **When to use**
 *
 * Use in tests of code that publishes, consumes or calls, in place of the application's `AmqpLive`. It needs no RabbitMQ and
 * no socket, and is built in less than 5 milliseconds, so each test can have its own. Use `TestBroker.layerAmqp` for what only
 * a real broker shows.
 *
 * **Details**
 *
 * The services are those of `Amqp.layer` with the same options. The services and the broker use the clock of the fiber that
 * builds the layer. Under `it.effect` that is the `TestClock`: a retry after ten minutes, a message's time to live and a
 * reconnect happen when the test calls {@link adjust}, and take no time.
 *
 * The default of `shutdownTimeout` is zero here: a handler that sleeps on the `TestClock` when the layer closes is
 * interrupted, because no one adjusts that clock any more.
 *
 * The broker knows the user of the options, who may do everything. TLS and a login by a certificate are refused.
 *
 * Building fails as `Amqp.layer` does.
 *
 * **Example** (A worker whose retries take minutes)
 *
 * ```ts
 * import { AmqpConsumer, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
 * import { AmqpTest } from "@effect-amqp/core/testing"
 * import { assert, it } from "@effect/vitest"
 * import { Effect } from "effect"
 *
 * const orders = AmqpTopology.workQueue("orders", { retryDelays: ["1 minute", "10 minutes"] })
 *
 * it.effect("an order is shipped at the third attempt", () =>
 *   Effect.gen(function* () {
 *     const attempts: Array<number> = []
 *     yield* AmqpConsumer.consume(
 *       "orders",
 *       ({ attempt }) => {
 *         attempts.push(attempt)
 *         return attempt < 3 ? Effect.fail("busy" as const) : Effect.void
 *       },
 *       { onFailure: orders.onFailure }
 *     ).pipe(Effect.forkScoped)
 *     yield* AmqpPublisher.publish({ routingKey: "orders", content: "one order" })
 *     yield* AmqpTest.adjust("11 minutes")
 *     assert.deepStrictEqual(attempts, [1, 2, 3])
 *   }).pipe(Effect.provide(AmqpTopology.layer(orders)), Effect.provide(AmqpTest.layer()))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = ({ version, ...options }: Options = {}): Layer.Layer<
  MemoryBroker.MemoryBroker | Amqp.Amqp,
  AmqpError
> =>
  Layer.fresh(
    Layer.unwrap(
      Effect.map(MemoryBroker.MemoryBroker, ({ inProcess }) =>
        Layer.provide(Amqp.layer({ ...defaults, ...options, host: "memory" }), inProcess)
      )
    ).pipe(Layer.provideMerge(MemoryBroker.layer({ version, users: { guest: "guest", ...userOf(options) } })))
  )

const use = <A>(read: (broker: MemoryBroker.MemoryBroker["Service"]) => Effect.Effect<A>) =>
  Effect.flatMap(MemoryBroker.MemoryBroker, read)

/**
 * A queue and its messages. Dies if there is no queue with this name, and names those that there are.
 *
 * **When to use**
 *
 * Use to assert on what is left in a queue, such as its dead letters.
 *
 * **Example** (Dead letters)
 *
 * ```ts
 * import { AmqpTest } from "@effect-amqp/core/testing"
 * import { assert } from "@effect/vitest"
 * import { Effect } from "effect"
 *
 * const deadLetters = Effect.gen(function* () {
 *   const { messages } = yield* AmqpTest.queue("orders.dlq")
 *   assert.deepStrictEqual(messages.map(({ text }) => text), ["one order"])
 * })
 * ```
 *
 * @category reading
 * @since 0.1.0
 */
export const queue = (name: string): Effect.Effect<MemoryBroker.MemoryQueue, never, MemoryBroker.MemoryBroker> =>
  use(({ queues }) =>
    Effect.flatMap(queues, (all) => {
      const found = all.find((one) => one.name === name)
      if (found !== undefined) return Effect.succeed(found)
      const names = all.map((one) => JSON.stringify(one.name)).join(", ")
      return Effect.die(
        new Error(`AmqpTest.queue: expected a queue "${name}", got ${names === "" ? "no queues" : `only ${names}`}`)
      )
    })
  )

/**
 * The messages that the application has published, in their order.
 *
 * **When to use**
 *
 * Use to assert on what code under test publishes, also if no queue takes it. Retries that the library publishes are among
 * them, and dead letters, which the broker moves itself, are not.
 *
 * @category reading
 * @since 0.1.0
 */
export const published: Effect.Effect<
  ReadonlyArray<MemoryBroker.MemoryMessage>,
  never,
  MemoryBroker.MemoryBroker
> = use((broker) => broker.published)

/**
 * Waits until nothing moves: every queue with consumers is empty, and all deliveries are settled.
 *
 * **When to use**
 *
 * Use after a publish, and before asserting on what the application has done with it.
 *
 * **Details**
 *
 * A message that waits for its time in a queue without consumers, such as a retry, is at rest: {@link adjust} the time first.
 *
 * Dies after 5 seconds of real time, and names the queues that are not at rest.
 *
 * @category reading
 * @since 0.1.0
 */
export const awaitIdle: Effect.Effect<void, never, MemoryBroker.MemoryBroker> = use((broker) => broker.awaitIdle)

/**
 * Lets time pass on the `TestClock`, together with all that the application and the broker do in it.
 *
 * **When to use**
 *
 * Use in place of `TestClock.adjust` in a test with {@link layer}. `TestClock.adjust` by itself may move the clock before the
 * application has begun to wait for it.
 *
 * **Details**
 *
 * It waits until nothing moves between the application and the broker, adjusts the `TestClock`, and waits again. It does not
 * see what the application does outside of both, such as requests over the network: await those first.
 *
 * @category time
 * @since 0.1.0
 */
export const adjust = (duration: Duration.Input): Effect.Effect<void, never, MemoryBroker.MemoryBroker> =>
  use(({ awaitStill }) => Effect.andThen(awaitStill, Effect.andThen(TestClock.adjust(duration), awaitStill)))

/**
 * Cuts the connections of the application without a word, and returns their number.
 *
 * **When to use**
 *
 * Use to test what an application does about a lost connection. It reconnects by its clock: adjust the `TestClock`. The
 * other faults are those of the service `MemoryBroker`.
 *
 * @category faults
 * @since 0.1.0
 */
export const cut: Effect.Effect<number, never, MemoryBroker.MemoryBroker> = use((broker) => broker.cut)
