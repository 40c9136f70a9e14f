import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import * as Amqp from "../Amqp.ts"
import type { Options } from "../AmqpConfig.ts"
import type { AmqpError } from "../model/error.ts"
import { fromCoordinates } from "./internal/access.ts"
import type { Broker, Coordinates, Origin, Processes } from "./internal/broker.ts"
import { live } from "./internal/liveClock.ts"
import * as Operations from "./internal/operations.ts"
import type { Census, QueueCensus } from "./internal/operations.ts"
import type { NodeOptions } from "./internal/privateNode.ts"
import * as Resolve from "./internal/resolve.ts"
import * as Shared from "./internal/shared.ts"
import { TestBrokerError } from "./TestBrokerError.ts"

export { TestBrokerError }
export type { Census, NodeOptions, Origin, Processes, QueueCensus }

/**
 * A real RabbitMQ for tests, with a virtual host per layer, an exact census, and faults on demand.
 *
 * **When to use**
 *
 * Use wherever a test depends on what a broker really does.
 *
 * **Details**
 *
 * The first source that works provides the broker:
 *
 * 1. `url`: the broker at `AMQP_URL`, if set.
 * 2. `binary`: the installed `rabbitmq-server` as a private process, on 127.0.0.1, free ports and a temporary folder.
 * 3. `container`: a container of `AMQP_TEST_IMAGE` (default `rabbitmq:4.2`) through the optional peer dependencies
 *    `testcontainers` and `@testcontainers/rabbitmq`, if a Docker engine responds.
 * 4. `package`: the distribution's `rabbitmq-server`, installed automatically, as root on Debian or Ubuntu.
 *
 * `AMQP_TEST_BROKER` restricts the sources: `AMQP_TEST_BROKER=container` takes a container or fails.
 * `AMQP_TEST_RABBITMQCTL` is the `rabbitmqctl` command that reaches the broker at `AMQP_URL`, such as `docker exec
 * my-rabbit rabbitmqctl`; without it, the `rabbitmqctl` on the `PATH` is used.
 *
 * A private broker ends with the test process, even if that process is killed with SIGKILL.
 *
 * **Example** (Testing that a publish survives the loss of the connection)
 *
 * ```ts
 * import { AmqpChannel, AmqpPublisher } from "@effect-amqp/core"
 * import { TestBroker } from "@effect-amqp/core/testing"
 * import { assert, layer } from "@effect/vitest"
 * import { Effect } from "effect"
 *
 * layer(TestBroker.layerAmqp(), { timeout: "2 minutes" })("orders", (it) => {
 *   it.effect("are published after a loss of the connection", () =>
 *     Effect.gen(function* () {
 *       const broker = yield* TestBroker.TestBroker
 *       yield* AmqpChannel.use((channel) => channel.queueDeclare("orders"))
 *       yield* broker.killConnections
 *       yield* AmqpPublisher.publish({ routingKey: "orders", content: "one order" }, { mandatory: true })
 *       const [orders] = yield* broker.queues
 *       assert.strictEqual(orders?.ready, 1)
 *     })
 *   )
 * })
 * ```
 *
 * @see {@link layerAmqp} for the services of `@effect-amqp/core`, connected to a fresh virtual host
 * @see {@link layer} for a virtual host on a shared broker, without a connection
 * @see {@link layerPrivate} for a private broker
 * @category services
 * @since 0.1.0
 */
export class TestBroker extends Context.Service<
  TestBroker,
  {
    /**
     * The URL to connect to, virtual host included. It is a plain string: a private broker has only the user `guest`
     * with the password `guest`, on loopback. With `AMQP_URL` it contains the password of that URL.
     */
    readonly url: string
    /** The virtual host of this layer. */
    readonly vhost: string
    /** The source of the broker. */
    readonly origin: Origin
    /** A description of the broker, for humans. */
    readonly description: string
    /**
     * The process ids and the folder of a private node, for tests that pause or crash it; only for `binary` and
     * `package`.
     */
    readonly processes: Processes | undefined
    /** The broker's own count of what is open in this virtual host, now. It takes a few milliseconds. */
    readonly census: Effect.Effect<Census, TestBrokerError>
    /** The queues of this virtual host with their counts. */
    readonly queues: Effect.Effect<ReadonlyArray<QueueCensus>, TestBrokerError>
    /**
     * Waits until the census equals these numbers: a client's socket closes a moment before its process in the broker
     * ends. Fails with `CommandFailed` and the last census after `timeout` (default: 5 seconds of real time,
     * independent of the test's clock).
     */
    readonly awaitCensus: (
      expected: Partial<Census>,
      options?: { readonly timeout?: Duration.Input | undefined }
    ) => Effect.Effect<Census, TestBrokerError>
    /**
     * Makes the broker close all connections of this virtual host; clients receive 320 CONNECTION_FORCED. Returns their
     * number.
     */
    readonly closeConnections: (reason?: string) => Effect.Effect<number, TestBrokerError>
    /**
     * Cuts all connections of this virtual host without `connection.close`; clients see a reset or an end of the
     * stream. Completes when the sockets are closed and clients in this process have read that, and returns the number
     * of connections.
     */
    readonly killConnections: Effect.Effect<number, TestBrokerError>
    /**
     * Raises the memory alarm, until `unblockPublishers` or the end of the layer. The alarm applies to the whole
     * broker: on a shared one it blocks the other test files too, so use {@link layerPrivate}. The broker does not
     * notify an idle connection; it sends `connection.blocked` after that connection's next publish.
     */
    readonly blockPublishers: Effect.Effect<void, TestBrokerError>
    /** Clears the memory alarm. */
    readonly unblockPublishers: Effect.Effect<void, TestBrokerError>
    /**
     * Runs `rabbitmqctl` and returns its trimmed output, in about half a second. For users, permissions, policies and
     * the like.
     */
    readonly ctl: (...args: ReadonlyArray<string>) => Effect.Effect<string, TestBrokerError>
    /**
     * Evaluates Erlang inside the broker, as `rabbitmqctl eval` does, but in about a millisecond. The source ends with
     * a full stop. The value is returned as text: a binary unchanged, any other term as Erlang prints it.
     */
    readonly evaluate: (erlang: string) => Effect.Effect<string, TestBrokerError>
  }
>()("@effect-amqp/core/testing/TestBroker") {}

const isControllable = (broker: Broker) => broker.control !== undefined || broker.cli !== undefined

const userOf = (url: string) => decodeURIComponent(new URL(url).username) || "guest"

const vhostOf = (url: string) => decodeURIComponent(new URL(url).pathname.slice(1)) || "/"

const withVhost = (url: string, vhost: string) => {
  const result = new URL(url)
  result.pathname = `/${encodeURIComponent(vhost)}`
  return result.href
}

/** A fresh virtual host; on a broker that cannot be controlled, the virtual host of its URL. */
const freshVhost = (broker: Broker) =>
  isControllable(broker)
    ? Effect.acquireRelease(
        Effect.gen(function* () {
          const vhost = `test-${Crypto.randomBytes(8).toString("hex")}`
          yield* Operations.addVhost(broker, vhost, userOf(broker.url))
          return vhost
        }),
        // It fails only if the broker has ended, and the virtual host with it.
        (vhost) => Effect.ignore(Operations.deleteVhost(broker, vhost))
      )
    : Effect.suspend(() => {
        const vhost = vhostOf(broker.url)
        return Effect.as(
          Effect.logWarning(
            `TestBroker: tests use the virtual host ${JSON.stringify(vhost)} of AMQP_URL itself, and its queues, since no rabbitmqctl reaches that broker. Set AMQP_TEST_RABBITMQCTL to a command that reaches it (such as "docker exec my-rabbit rabbitmqctl") to give each test file a virtual host of its own`
          ),
          vhost
        )
      })

const matches = (census: Census, expected: Partial<Census>) =>
  Object.entries(expected).every(([key, value]) => census[key as keyof Census] === value)

const make = Effect.fnUntraced(function* (coordinates: Coordinates) {
  const broker = fromCoordinates(coordinates)
  const vhost = yield* freshVhost(broker)
  const census = Operations.census(broker, vhost)
  let blocked = false
  const unblockPublishers = Effect.tap(Effect.asVoid(Operations.unblockPublishers(broker)), () =>
    Effect.sync(() => {
      blocked = false
    })
  )
  yield* Effect.addFinalizer(() => (blocked ? Effect.ignore(unblockPublishers) : Effect.void))
  return TestBroker.of({
    url: withVhost(broker.url, vhost),
    vhost,
    origin: broker.origin,
    description: broker.description,
    processes: broker.processes,
    census,
    queues: Operations.queues(broker, vhost),
    awaitCensus: (expected, options) =>
      Effect.suspend(() => {
        let last: Census | undefined
        return census.pipe(
          Effect.tap((seen) =>
            Effect.sync(() => {
              last = seen
            })
          ),
          Effect.repeat({ until: (seen) => matches(seen, expected), schedule: Schedule.spaced("10 millis") }),
          Effect.timeoutOrElse({
            duration: options?.timeout ?? "5 seconds",
            orElse: () =>
              Effect.fail(
                new TestBrokerError({
                  reason: "CommandFailed",
                  message: `awaitCensus: expected ${JSON.stringify(expected)}, got ${JSON.stringify(last)}`
                })
              )
          }),
          live
        )
      }),
    closeConnections: (reason = "closed by the test") => Operations.closeConnections(broker, vhost, reason),
    killConnections: Operations.killConnections(broker, vhost),
    blockPublishers: Effect.suspend(() => {
      blocked = true
      return Effect.asVoid(Operations.blockPublishers(broker))
    }),
    unblockPublishers,
    ctl: broker.ctl,
    evaluate: broker.evaluate
  })
})

/**
 * A layer with a fresh virtual host on a shared broker. The virtual host is deleted when the layer's scope closes.
 *
 * **When to use**
 *
 * Use in every test file that does not change the broker as a whole. Use `layerPrivate` for tests that raise alarms or
 * stop the broker.
 *
 * **Details**
 *
 * Each build of the layer, that is each test file, has its own virtual host. If vitest has
 * `@effect-amqp/core/testing/vitest` in its `globalSetup`, the whole run shares one broker; otherwise the layers of a
 * process do.
 *
 * On a machine with a `rabbitmq-server` the first build takes 4 to 8 seconds, otherwise as long as it takes to pull an
 * image or install a package. Further builds take milliseconds. Fails with a {@link TestBrokerError}.
 *
 * **Gotchas**
 *
 * If no `rabbitmqctl` reaches the broker at `AMQP_URL`, the virtual host is that of the URL, and it is not fresh.
 *
 * @see {@link layerAmqp} for the services of `@effect-amqp/core`, connected to a fresh virtual host
 * @see {@link layerPrivate} for a private broker
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<TestBroker, TestBrokerError> = Layer.effect(
  TestBroker,
  live(Effect.flatMap(Shared.broker, make))
)

/**
 * A layer with a private broker.
 *
 * **When to use**
 *
 * Use for tests that raise alarms, stop the node, or need a configuration: other test files are not affected.
 *
 * **Details**
 *
 * Every build takes as long as the start of a broker. `AMQP_URL` is ignored, because that broker belongs to others.
 *
 * Fails with a {@link TestBrokerError}.
 *
 * **Example** (A broker with a plugin)
 *
 * ```ts
 * import { TestBroker } from "@effect-amqp/core/testing"
 *
 * const broker = TestBroker.layerPrivate({
 *   config: ["max_message_size = 1024"],
 *   plugins: ["rabbitmq_auth_mechanism_ssl"]
 * })
 * ```
 *
 * @see {@link layer} for a shared broker
 * @category layers
 * @since 0.1.0
 */
export const layerPrivate = (options: NodeOptions = {}): Layer.Layer<TestBroker, TestBrokerError> =>
  Layer.effect(TestBroker, live(Effect.flatMap(Resolve.first(Resolve.ways({ ...options, exclusive: true })), make)))

/**
 * Options of {@link layerAmqp}: those of `Amqp.layer`, without the broker's address, and the broker.
 *
 * **When to use**
 *
 * Use to test with the settings of the application, such as the size of its pool.
 *
 * @see {@link layerAmqp} for the layer
 * @category models
 * @since 0.1.0
 */
export interface AmqpOptions extends Omit<Options, "url" | "host" | "port" | "hosts" | "vhost"> {
  /** The layer that provides the broker. Default: {@link layer}. Give {@link layerPrivate} for a private broker. */
  readonly broker?: Layer.Layer<TestBroker, TestBrokerError> | undefined
}

/**
 * A layer with a fresh virtual host, and all services of `@effect-amqp/core` connected to it.
 *
 * **When to use**
 *
 * Use in tests of code that publishes, consumes or calls, in place of the application's `AmqpLive`.
 *
 * **Details**
 *
 * The services are those of `Amqp.layer` with the same options. They use the real clock, also if the test has a
 * `TestClock`: reconnects, timeouts, retries and pauses of the library take as long as in production. What the
 * application does keeps the clock of the test: its handlers, and everything that it runs with a borrowed channel.
 *
 * When the layer's scope closes, the services stop in order, as in an application, and then the virtual host is
 * deleted. Building fails with a {@link TestBrokerError}, or as `Amqp.layer` does.
 *
 * **Gotchas**
 *
 * The `TestClock` stands still until the test adjusts it. A handler that sleeps on it when the test ends is interrupted
 * after `shutdownTimeout`, which is 10 seconds of real time by default.
 *
 * **Example** (A consumer and its topology)
 *
 * ```ts
 * import { AmqpConsumer, AmqpPublisher, AmqpTopology } from "@effect-amqp/core"
 * import { TestBroker } from "@effect-amqp/core/testing"
 * import { layer } from "@effect/vitest"
 * import { Effect, Layer } from "effect"
 *
 * const Worker = AmqpConsumer.layerConsume("orders", () => Effect.void)
 * const Topology = AmqpTopology.layer(AmqpTopology.make(AmqpTopology.queue("orders", { queueType: "quorum" })))
 *
 * const TestLayer = Worker.pipe(Layer.provide(Topology), Layer.provideMerge(TestBroker.layerAmqp()))
 *
 * layer(TestLayer, { timeout: "2 minutes" })("the worker", (it) => {
 *   it.effect("handles orders", () =>
 *     Effect.gen(function* () {
 *       const broker = yield* TestBroker.TestBroker
 *       yield* AmqpPublisher.publish({ routingKey: "orders", content: "one order" }, { mandatory: true })
 *       yield* broker.awaitCensus({ messages: 0 })
 *     })
 *   )
 * })
 * ```
 *
 * @see {@link layer} for a virtual host without a connection
 * @category layers
 * @since 0.1.0
 */
export const layerAmqp = ({ broker = layer, ...options }: AmqpOptions = {}): Layer.Layer<
  TestBroker | Amqp.Amqp,
  TestBrokerError | AmqpError
> =>
  Layer.provideMerge(
    Layer.effectContext(
      Effect.gen(function* () {
        const { url } = yield* TestBroker
        // The services also stop with the real clock: the fiber that closes the layer's scope may have a TestClock.
        const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => live(Scope.close(scope, exit)))
        return yield* live(Layer.buildWithScope(Amqp.layer({ ...options, url }), scope))
      })
    ),
    broker
  )

/**
 * A running broker for a program that is not a test.
 *
 * **When to use**
 *
 * Use as the type of what {@link start} returns.
 *
 * @see {@link start} for starting a broker
 * @category models
 * @since 0.1.0
 */
export interface Running {
  /** The URL to connect to, with the virtual host of `AMQP_URL`, or `/` on a private broker. */
  readonly url: string
  /** The source of the broker. */
  readonly origin: Origin
  /** A description of the broker, for humans. */
  readonly description: string
}

/**
 * Starts or finds a broker, from the same sources in the same order, until the scope closes.
 *
 * **When to use**
 *
 * Use in programs that start their own broker, such as an example or a development server.
 *
 * **Details**
 *
 * It creates no virtual host. A private broker ends a moment after the scope has closed. Fails with a {@link
 * TestBrokerError}.
 *
 * **Example** (A development server)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { TestBroker } from "@effect-amqp/core/testing"
 *
 * const program = Effect.gen(function* () {
 *   const { description, url } = yield* TestBroker.start
 *   yield* Effect.logInfo(description)
 *   // ... serve with a connection to url ...
 * }).pipe(Effect.scoped)
 * ```
 *
 * @see {@link layer} for tests
 * @category constructors
 * @since 0.1.0
 */
export const start: Effect.Effect<Running, TestBrokerError, Scope.Scope> = Effect.map(
  Resolve.first(Resolve.ways({ exclusive: false, fallsBack: true })),
  ({ description, origin, url }) => ({ description, origin, url })
)
