import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import { Opener } from "../internal/driver/driver.ts"
import { live } from "./internal/liveClock.ts"
import { idle, still } from "./internal/memory/idle.ts"
import { open } from "./internal/memory/inProcess.ts"
import { Broker, type Confirms } from "./internal/memory/model/broker.ts"
import * as Server from "./internal/memory/server.ts"
import * as Timers from "./internal/memory/timers.ts"
import type { Version } from "./internal/memory/version.ts"
import { type MemoryMessage, type MemoryQueue, publicationsOf, queuesOf } from "./internal/memory/views.ts"
import type { TestBrokerError } from "./TestBrokerError.ts"

export type { Confirms, MemoryMessage, MemoryQueue, Version }

/**
 * Options of a memory broker.
 *
 * **When to use**
 *
 * Use to play the version of RabbitMQ that runs in production.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The version of RabbitMQ that it plays. Default: `"4.3"`. */
  readonly version?: Version | undefined
  /**
   * Passwords by the names of the users, who may do everything. Default: `guest` with the password `guest`. Others are
   * refused with `AuthenticationFailed`.
   */
  readonly users?: Readonly<Record<string, string>> | undefined
  /** Whether it keeps each published message for `published`. Default: true. A broker that runs for long needs false. */
  readonly keepsPublished?: boolean | undefined
}

/**
 * A broker in memory, for tests without RabbitMQ.
 *
 * **When to use**
 *
 * Use for tests of an application's own logic: what it publishes, how its workers settle, retry and recover. Use
 * `TestBroker`, a real RabbitMQ, for what only a real broker shows.
 *
 * **Details**
 *
 * It plays RabbitMQ 4.3, or 3.10: exchanges of the four types, exchange-to-exchange bindings, alternate exchanges, classic
 * and quorum queues with their limits and times, dead letters with `x-death`, consumers, prefetch, confirms, returns,
 * direct replies, and RabbitMQ's errors with their codes and texts. A differential test compares it with RabbitMQ.
 *
 * All of its time is Effect's `Clock`, that of the fiber that makes it: with a `TestClock`, `TestClock.adjust("1 day")`
 * passes a time to live of a day at once.
 *
 * A delivery that is not settled within 30 minutes, or within the consumer timeout of its queue or consumer, is taken back as
 * RabbitMQ does: 4.3 ends the consumer of a quorum queue, and 3.10 the channel, whatever the queue.
 *
 * It has no streams, no transactions, no priority queues, no delayed retries, no permissions, no TLS and no clusters. What
 * it does not have is refused with 540 NOT_IMPLEMENTED, so no test passes by a silent difference. There is no way to set a
 * policy.
 *
 * **Gotchas**
 *
 * It is a test double. It keeps nothing on disk, and its speed is not that of RabbitMQ.
 *
 * **Example** (A broker that any client can use)
 *
 * ```ts
 * import { MemoryBroker } from "@effect-amqp/core/testing"
 * import { Console, Effect } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const broker = yield* MemoryBroker.make()
 *   const url = yield* broker.listen()
 *   yield* Console.log(`Any AMQP 0-9-1 client can use ${url}`)
 *   return yield* Effect.never
 * }).pipe(Effect.scoped)
 * ```
 *
 * @see `AmqpTest` for the services of `@effect-amqp/core` on a memory broker
 * @category services
 * @since 0.1.0
 */
export class MemoryBroker extends Context.Service<
  MemoryBroker,
  {
    /** The version of RabbitMQ that it plays. */
    readonly version: Version
    /** The queues of the virtual host `/`, in the order of their declaration. */
    readonly queues: Effect.Effect<ReadonlyArray<MemoryQueue>>
    /** A queue of the virtual host `/`; `undefined`: there is no queue with this name. */
    readonly queue: (name: string) => Effect.Effect<MemoryQueue | undefined>
    /** The messages that clients have published, in their order. Dead letters are not among them. */
    readonly published: Effect.Effect<ReadonlyArray<MemoryMessage>>
    /**
     * Waits until nothing moves: every queue with consumers is empty, and all deliveries are settled. What an application
     * does without a message is not seen, and a message that waits for its time in a queue without consumers is at rest.
     * Dies after 5 seconds of real time, with the queues that are not at rest: a handler may sleep on a `TestClock`.
     */
    readonly awaitIdle: Effect.Effect<void>
    /**
     * Waits until nothing has moved for some turns of the event loop, whether or not deliveries are settled: what is left
     * waits for time to pass, or for something outside.
     */
    readonly awaitStill: Effect.Effect<void>
    /** Cuts all connections without a word. Returns their number. What a client had sent and the broker not read is lost. */
    readonly cut: Effect.Effect<number>
    /** Closes all connections with 320 CONNECTION_FORCED. Returns their number. */
    readonly close: (reason?: string) => Effect.Effect<number>
    /** Stops reading and writing on all connections, new ones included, until `resume`. */
    readonly stall: Effect.Effect<void>
    readonly resume: Effect.Effect<void>
    /** Refuses new connections, until it is called with false. */
    readonly refuseConnections: (isRefusing: boolean) => Effect.Effect<void>
    /**
     * What happens to confirms from now on: `send`, `withhold` them, or `nack` every message, which is routed all the same.
     * Those that were withheld are sent when that ends.
     */
    readonly confirms: (confirms: Confirms) => Effect.Effect<void>
    /** Cancels the consumers of a queue, as RabbitMQ does when the queue's leader moves. Returns their number. */
    readonly cancelConsumers: (queue: string) => Effect.Effect<number>
    /** Raises an alarm: each connection is blocked at its next publish, which is read after `unblock`. */
    readonly block: (reason?: string) => Effect.Effect<void>
    readonly unblock: Effect.Effect<void>
    /**
     * Restarts: all connections are closed. `keeps: "durable"`, the default, keeps durable exchanges and queues, their
     * persistent messages, and all messages of quorum queues; `"nothing"` is a new broker.
     */
    readonly restart: (options?: { readonly keeps?: "durable" | "nothing" | undefined }) => Effect.Effect<void>
    /**
     * Listens on the loopback interface for clients of AMQP 0-9-1 of any kind, until the scope closes. Returns the URL, with
     * the first of the users. Fails with `StartFailed` if the port is in use. Default port: a free one.
     */
    readonly listen: (options?: {
      readonly port?: number | undefined
    }) => Effect.Effect<string, TestBrokerError, Scope.Scope>
    /** A layer for which a connection of this library is one to this broker, in this process and without a socket. */
    readonly inProcess: Layer.Layer<never>
  }
>()("@effect-amqp/core/testing/MemoryBroker") {}

/**
 * Makes a memory broker, which ends with its scope.
 *
 * **When to use**
 *
 * Use for a broker of a test's own, or to listen for clients of any kind. `AmqpTest.layer` makes one with all services
 * connected to it.
 *
 * **Details**
 *
 * Its clock is that of the fiber that makes it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* ({
  keepsPublished = true,
  users,
  version = "4.3"
}: Options = {}): Effect.fn.Return<MemoryBroker["Service"], never, Scope.Scope> {
  const broker = new Broker(yield* Timers.make, { version, users, keepsPublications: keepsPublished })
  const clock = yield* Clock.Clock
  const dispatcher = (yield* Scheduler.Scheduler).makeDispatcher()
  const run = <A>(action: () => A) => Effect.sync(() => broker.run(action))
  yield* Effect.addFinalizer(() => run(() => broker.cut()))
  const main = () => broker.vhosts.get("/")!
  return MemoryBroker.of({
    version,
    queues: Effect.sync(() => queuesOf(broker.behavior, main())),
    queue: (name) => Effect.sync(() => queuesOf(broker.behavior, main()).find((queue) => queue.name === name)),
    published: Effect.sync(() => publicationsOf(broker.publications)),
    awaitIdle: live(idle(broker)),
    awaitStill: still(broker),
    cut: run(() => broker.cut()),
    close: (reason = "closed by the test") => run(() => broker.close(reason)),
    stall: run(() => broker.setStalled(true)),
    resume: run(() => broker.setStalled(false)),
    refuseConnections: (isRefusing) =>
      run(() => {
        broker.isRefusing = isRefusing
      }),
    confirms: (confirms) => run(() => broker.setConfirms(confirms)),
    cancelConsumers: (queue) => run(() => broker.cancelConsumers("/", queue)),
    block: (reason = "low on memory") => run(() => broker.raiseAlarm(reason)),
    unblock: run(() => broker.clearAlarm()),
    restart: ({ keeps = "durable" } = {}) => run(() => broker.restart(keeps === "durable")),
    listen: ({ port = 0 } = {}) => Effect.provideService(Server.listen(broker, port), Clock.Clock, clock),
    inProcess: Layer.succeed(Opener, open(broker, dispatcher))
  })
})

/**
 * A layer with a memory broker.
 *
 * **When to use**
 *
 * Use for a test of a client that is not one of this library, over `listen`.
 *
 * @see {@link make} for the details
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<MemoryBroker> => Layer.effect(MemoryBroker, make(options))
