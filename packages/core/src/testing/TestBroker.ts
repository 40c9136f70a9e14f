import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
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
 * A real RabbitMQ for tests, with a virtual host of its own, an exact census, and faults on demand.
 *
 * Use it wherever a test is about what a broker really does. The first of these that works is the broker:
 *
 * 1. `url`: the one at `AMQP_URL`, if set;
 * 2. `binary`: the installed `rabbitmq-server` as a private process, on 127.0.0.1, free ports and a temporary folder;
 * 3. `container`: a container of `AMQP_TEST_IMAGE` (default `rabbitmq:4.2`) through the optional peer dependencies
 *    `testcontainers` and `@testcontainers/rabbitmq`, if a Docker engine answers;
 * 4. `package`: the distribution's `rabbitmq-server`, installed on the spot, as root on Debian or Ubuntu.
 *
 * `AMQP_TEST_BROKER` narrows that down: `AMQP_TEST_BROKER=container` takes a container or fails. `AMQP_TEST_RABBITMQCTL`
 * names the `rabbitmqctl` that reaches the broker at `AMQP_URL`, such as `docker exec my-rabbit rabbitmqctl`; the one on
 * the `PATH` is found without.
 *
 * Private brokers are gone when the test process is, even if it was killed with SIGKILL.
 *
 * @example
 * ```ts
 * import { TestBroker } from "@effect-amqp/core/testing"
 * import { assert, layer } from "@effect/vitest"
 * import { Effect } from "effect"
 *
 * layer(TestBroker.layer, { timeout: "2 minutes" })("orders", (it) => {
 *   it.effect("leave nothing behind", () =>
 *     Effect.gen(function* () {
 *       const broker = yield* TestBroker.TestBroker
 *       // ... connect to broker.url, work, disconnect ...
 *       yield* broker.awaitCensus({ connections: 0, channels: 0 })
 *     })
 *   )
 * })
 * ```
 */
export class TestBroker extends Context.Service<
  TestBroker,
  {
    /**
     * Where to connect, virtual host included. A plain string: a private broker has only the user `guest` with the
     * password `guest`, on loopback. With `AMQP_URL` it holds whatever password that holds.
     */
    readonly url: string
    readonly vhost: string
    readonly origin: Origin
    /** For humans: which broker this is. */
    readonly description: string
    /** The private node's process ids and folder, for tests that pause or crash it; only for `binary` and `package`. */
    readonly processes: Processes | undefined
    /** The broker's own count of what is open in this virtual host, now; a few milliseconds. */
    readonly census: Effect.Effect<Census, TestBrokerError>
    /** Each queue of this virtual host with its counts. */
    readonly queues: Effect.Effect<ReadonlyArray<QueueCensus>, TestBrokerError>
    /**
     * Waits until the census shows these numbers: a client's socket is closed a moment before its broker process ends.
     * Fails with `CommandFailed` and the last census after `timeout` (default 5 seconds of real time, whatever the
     * test's clock).
     */
    readonly awaitCensus: (
      expected: Partial<Census>,
      options?: { readonly timeout?: Duration.Input | undefined }
    ) => Effect.Effect<Census, TestBrokerError>
    /** The broker closes all connections of this virtual host; clients see 320 CONNECTION_FORCED. Returns how many. */
    readonly closeConnections: (reason?: string) => Effect.Effect<number, TestBrokerError>
    /** Cuts all connections of this virtual host without a word; clients see a reset or an end. Returns how many. */
    readonly killConnections: Effect.Effect<number, TestBrokerError>
    /**
     * Raises the memory alarm, until `unblockPublishers` or the end of the layer. The alarm is the whole broker's: on a
     * shared one it blocks the other test files too, so use {@link layerPrivate}. An idle connection hears nothing;
     * `connection.blocked` follows its next publish.
     */
    readonly blockPublishers: Effect.Effect<void, TestBrokerError>
    readonly unblockPublishers: Effect.Effect<void, TestBrokerError>
    /** Runs `rabbitmqctl` and returns its trimmed output; about half a second. For users, permissions, policies, ... */
    readonly ctl: (...args: ReadonlyArray<string>) => Effect.Effect<string, TestBrokerError>
    /**
     * Evaluates Erlang inside the broker, where a `rabbitmqctl eval` would, in about a millisecond. The source ends in a
     * full stop; the value comes back as text: a binary as it is, any other term as Erlang prints it.
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

/** A fresh virtual host; on a broker that we cannot command, the one that its URL names. */
const freshVhost = (broker: Broker) =>
  isControllable(broker)
    ? Effect.acquireRelease(
        Effect.gen(function* () {
          const vhost = `test-${Crypto.randomBytes(8).toString("hex")}`
          yield* Operations.addVhost(broker, vhost, userOf(broker.url))
          return vhost
        }),
        // It fails only if the broker is gone, and the virtual host with it.
        (vhost) => Effect.ignore(Operations.deleteVhost(broker, vhost))
      )
    : Effect.succeed(vhostOf(broker.url))

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
                  message: `The census was to be ${JSON.stringify(expected)}, but stayed ${JSON.stringify(last)}`
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
 * A fresh virtual host for every build of the layer, which is every test file, deleted at the end, on a broker that is
 * shared: by the whole run if vitest has `@effect-amqp/core/testing/vitest` among its `globalSetup`, else by the process.
 *
 * The first build on a machine with a `rabbitmq-server` takes 4 to 8 seconds, or as long as it takes to pull an image or
 * install a package; further ones take milliseconds. Fails with a {@link TestBrokerError}. If the broker at `AMQP_URL`
 * is not within reach of a `rabbitmqctl`, the virtual host is the URL's own, and it is not fresh.
 */
export const layer: Layer.Layer<TestBroker, TestBrokerError> = Layer.effect(
  TestBroker,
  live(Effect.flatMap(Shared.broker, make))
)

/**
 * A broker of one's own, for tests that raise alarms, stop the node, or need a configuration: no other file notices.
 * Takes as long as starting one does, in every build. `AMQP_URL` is not looked at: that broker is somebody's.
 */
export const layerPrivate = (options: NodeOptions = {}): Layer.Layer<TestBroker, TestBrokerError> =>
  Layer.effect(TestBroker, live(Effect.flatMap(Resolve.first(Resolve.ways({ ...options, exclusive: true })), make)))

/** A broker as it comes, for a program to run against rather than a test. */
export interface Running {
  /** With the virtual host of `AMQP_URL`, or `/` on a private broker. */
  readonly url: string
  readonly origin: Origin
  readonly description: string
}

/**
 * Comes by a broker in the same order, without a virtual host of its own, until the scope closes; a private one is gone
 * a moment later. For programs that bring their own broker, such as an example or a development server.
 */
export const start: Effect.Effect<Running, TestBrokerError, Scope.Scope> = Effect.map(
  Resolve.first(Resolve.ways({ exclusive: false })),
  ({ description, origin, url }) => ({ description, origin, url })
)
