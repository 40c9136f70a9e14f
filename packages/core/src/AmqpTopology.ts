/**
 * Exchanges, queues and bindings: described as plain values, checked as a whole, declared together.
 *
 * **When to use**
 *
 * Use when an application declares what it publishes to and consumes from.
 *
 * **Details**
 *
 * A description is data. Modules describe their parts, `make` combines them, and `layer` declares the whole when the
 * application starts and again on every new connection. Declarations are idempotent: an exchange or queue that exists
 * with the same properties stays unchanged, with its messages.
 *
 * **Example** (Declaring a topology before the service starts)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { AmqpLive, AmqpTopology } from "@effect-amqp/core"
 *
 * const topology = AmqpTopology.make(
 *   AmqpTopology.publishSubscribe("shop", { audit: { queueType: "quorum" } }),
 *   AmqpTopology.workQueue("orders", { retryDelays: ["1 second", "1 minute"] }),
 *   AmqpTopology.queueBinding("orders", "shop", "order.created")
 * )
 *
 * // A service that needs the queues is built after they are declared.
 * declare const service: Layer.Layer<never>
 * const main = service.pipe(Layer.provide(AmqpTopology.layer(topology)), Layer.provide(AmqpLive), Layer.launch)
 * ```
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpChannel } from "./model/channel.ts"
import { AmqpConnection, type State } from "./model/connection.ts"
import * as AmqpError from "./model/error.ts"
import { AmqpPool } from "./model/pool.ts"
import { isInvalidArgument, withDefault, readerOf, rule, type Table, toMillis } from "./internal/wire/optionTable.ts"
import { connectionInternals } from "./internal/connection/connectionInternals.ts"
import { onClock } from "./internal/waiting/onClock.ts"
import * as Logging from "./internal/telemetry/logging.ts"
import * as Check from "./internal/topology/check.ts"
import { TopologyKeeper } from "./internal/topology/topologyKeeper.ts"
import { stepsOf } from "./internal/topology/steps.ts"
import { make } from "./internal/topology/values.ts"
import type { AmqpTopology, Part } from "./model/topology.ts"

export * from "./internal/topology/shapes.ts"
export * from "./internal/topology/values.ts"
export * from "./model/topology.ts"

/**
 * Finds every mistake in a topology without a broker, as one sentence per mistake; an empty array means none.
 *
 * **When to use**
 *
 * Use in a test of the topology. `declare`, `verify` and `layer` call it before they send anything.
 *
 * **Details**
 *
 * It takes a topology or a single part, as `make` does. These are mistakes:
 *
 * - A binding, `deadLetterExchange`, `alternateExchange`, or `deadLetterRoutingKey` of the default exchange, that names
 *   an exchange or queue that is neither declared here nor marked as external. RabbitMQ would refuse such a binding,
 *   but accept the options, and lose messages there.
 * - The same name with different properties.
 * - A name that is empty, longer than 255 bytes, or reserved for the broker (`amq.`); options that `AmqpChannel`
 *   refuses; a binding to the default exchange.
 * - Bindings of exchanges that form a cycle, and alternate exchanges that do.
 * - Dead letters that form a cycle through queues that all dead-letter automatically, by `messageTtl`, `maxLength`,
 *   `maxLengthBytes` or `deliveryLimit`: RabbitMQ drops a message that returns to a queue without having been rejected
 *   (https://www.rabbitmq.com/docs/dlx#routing).
 * - Dead letters that form a cycle without a queue with a `messageTtl`: a message that is always rejected would return
 *   at once, forever.
 *
 * A cycle for retries is therefore valid: by rejection from the work queue to a queue with a `messageTtl`, and from
 * there back.
 *
 * **Gotchas**
 *
 * Cycles are found through exchanges of type `direct`, `fanout` and `topic` that are declared here.
 *
 * **Example** (Testing a topology)
 *
 * ```ts
 * import { AmqpTopology } from "@effect-amqp/core"
 *
 * const topology = AmqpTopology.make(AmqpTopology.queue("orders", { deadLetterExchange: "orders.dlx" }))
 *
 * // One mistake: the exchange "orders.dlx" is not declared.
 * const mistakes = AmqpTopology.check(topology)
 * ```
 *
 * @see {@link verify} for what only the broker can tell
 * @category validation
 * @since 0.1.0
 */
export const check = (topology: Part): ReadonlyArray<string> => Check.check(make(topology))

/** The topology of a part, if it has no mistakes. */
const checked = (part: Part): Effect.Effect<AmqpTopology, AmqpError.AmqpError> =>
  Effect.suspend(() => {
    const topology = make(part)
    const issues = Check.check(topology)
    if (issues.length === 0) return Effect.succeed(topology)
    const count = issues.length === 1 ? "a mistake" : `${issues.length} mistakes`
    const message = `The topology has ${count}, nothing was declared:\n- ${issues.join("\n- ")}`
    return Effect.fail(AmqpError.fromReason(new AmqpError.InvalidTopology({ message, issues })))
  })

const declareOn = (channel: AmqpChannel, topology: AmqpTopology): Effect.Effect<void, AmqpError.AmqpError> =>
  Effect.forEach(stepsOf(topology), (step) => step.declare(channel), { discard: true })

/**
 * Declares a topology on one borrowed channel: exchanges, then queues, then bindings.
 *
 * **When to use**
 *
 * Use to declare a topology once, such as in a deployment or in a test. Use `layer` in a service, which also declares
 * it on later connections.
 *
 * **Details**
 *
 * It takes a topology or a single part, as `make` does. Declaring a topology again changes nothing. If `check` finds mistakes, nothing is sent.
 *
 * Fails
 *
 * - with `InvalidTopology`, which lists all mistakes that `check` finds;
 * - with `PreconditionFailed` if something exists with other properties; the message names the first property that
 *   differs and both values;
 * - with `AccessRefused` if this user may not declare (see `verify`);
 * - with `NotFound` if a binding refers to something external that does not exist;
 * - as `AmqpPool.use` does.
 *
 * **Gotchas**
 *
 * What was declared before a failure stays declared.
 *
 * **Example** (Declaring a topology in a script)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpLive, AmqpTopology } from "@effect-amqp/core"
 *
 * const topology = AmqpTopology.workQueue("orders", { queueType: "quorum" })
 *
 * const program = AmqpTopology.declare(topology).pipe(
 *   Effect.catchReason("AmqpError", "PreconditionFailed", ({ message }) => Effect.logError(message)),
 *   Effect.provide(AmqpLive)
 * )
 * ```
 *
 * @see {@link layer} for keeping a topology declared
 * @see {@link verify} for users that may not declare
 * @category declarations
 * @since 0.1.0
 */
export const declare = (topology: Part): Effect.Effect<void, AmqpError.AmqpError, AmqpPool> =>
  Effect.flatMap(checked(topology), (topology) =>
    Effect.flatMap(AmqpPool, (pool) => pool.use((channel) => declareOn(channel, topology)))
  )

/**
 * Verifies that every exchange and queue of a topology exists, including the external ones, without declaring any.
 *
 * **When to use**
 *
 * Use in services that may not declare, or where an operator declares the topology.
 *
 * **Details**
 *
 * It takes a topology or a single part, as `make` does. Fails with `InvalidTopology` if `check` finds mistakes, and with `NotFound`, whose message lists everything that is
 * missing.
 *
 * **Gotchas**
 *
 * AMQP lets a client verify names only: properties and bindings are not compared.
 *
 * **Example** (Verifying the queue of another team)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpLive, AmqpTopology } from "@effect-amqp/core"
 *
 * const topology = AmqpTopology.make(AmqpTopology.externalQueue("orders"))
 *
 * const program = AmqpTopology.verify(topology).pipe(Effect.provide(AmqpLive))
 * ```
 *
 * @see {@link declare} for declaring a topology
 * @category validation
 * @since 0.1.0
 */
export const verify = (part: Part): Effect.Effect<void, AmqpError.AmqpError, AmqpPool> =>
  Effect.gen(function* () {
    const topology = yield* checked(part)
    const pool = yield* AmqpPool
    const names = (type: "exchange" | "queue") =>
      new Set(
        [
          ...(type === "exchange" ? topology.exchanges : topology.queues),
          ...topology.external.filter((external) => external.type === type)
        ].map(({ name }) => name)
      )
    const missing: Array<string> = []
    // The broker closes the channel on which a passive declaration fails, so each one borrows its own.
    const look = (what: string, passive: (channel: AmqpChannel) => Effect.Effect<unknown, AmqpError.AmqpError>) =>
      pool.use(passive).pipe(
        Effect.asVoid,
        Effect.catchReason("AmqpError", "NotFound", () => Effect.sync(() => void missing.push(what)))
      )
    for (const name of names("exchange")) {
      yield* look(`exchange ${JSON.stringify(name)}`, (channel) => channel.exchangeDeclarePassive(name))
    }
    for (const name of names("queue")) {
      yield* look(`queue ${JSON.stringify(name)}`, (channel) => channel.queueDeclarePassive(name))
    }
    if (missing.length === 0) return
    const message = `missing on the broker: ${missing.join(", ")}. Their owner must declare them first.`
    return yield* Effect.fail(AmqpError.fromReason(new AmqpError.NotFound({ message, replyCode: 404 })))
  })

/**
 * Options of `layer`.
 *
 * **When to use**
 *
 * Use with `layer` to change how often it verifies that the topology exists.
 *
 * @see {@link layer} for the function that takes these options
 * @category options
 * @since 0.1.0
 */
export interface LayerOptions {
  /**
   * How often the layer verifies that its exchanges and queues exist. 1 second to 1 day; 0 or `"never"`: not at all.
   * Default: 30 seconds.
   *
   * It verifies them by passive declarations, one round trip each, on a channel of its own, and at a random time up to
   * a tenth earlier or later. It does not verify exchanges and queues with `autoDelete` or `expires`, because the
   * broker deletes these on purpose. A loss that the layer notices otherwise is repaired without waiting for this
   * interval.
   */
  readonly checkInterval?: Duration.Input | "never" | undefined
}

const layerRules = {
  // In milliseconds; 0 disables the check.
  checkInterval: withDefault(
    rule<Duration.Input | "never", number>('"never", 0, or a duration from 1 second to 1 day', (value) => {
      if (value === "never") return 0
      const millis = toMillis(value)
      return millis === 0 || (millis !== undefined && millis >= 1000 && millis <= 86_400_000) ? millis : undefined
    }),
    30_000
  )
} satisfies Table<LayerOptions>

const layerOptionsOf = readerOf(layerRules)

// A lost connection is not a fault of the topology. Each attempt waits for a connection for `acquireTimeout`.
const attempts = 3

const generationOf = ({ value }: SubscriptionRef.SubscriptionRef<State>) =>
  value._tag === "Open" ? value.generation : 0

/**
 * Declares a topology when the layer is built, and keeps it declared until the layer's scope closes.
 *
 * **When to use**
 *
 * Use in every service, unless an operator declares everything: then use `verify`. Exclusive queues are deleted with
 * their connection, a broker without durable storage restarts empty, and a queue that is deleted by mistake loses what
 * is published: the broker also confirms messages that reach no queue.
 *
 * **Details**
 *
 * - It takes a topology or a single part, as `make` does. Building fails as `declare` does, and what this layer is
 *   provided to is built afterwards. If the connection is lost during the declaration, the layer waits for the next
 *   one, twice at most.
 * - With `lazyConnect` the layer is built at once if there is no connection, and everything is declared as soon as the
 *   connection opens. If it is open already, the layer waits for its declarations, for `continuationTimeout` at most.
 *   Building fails only if `check` finds mistakes. A declaration that the broker refuses is set aside, as below.
 * - On every new connection it declares everything again, after the topology layers that were built before it. Before
 *   each declaration has been attempted, and has succeeded if it was locked (405), `AmqpPublisher` sends nothing and
 *   `AmqpConsumer` does not subscribe. They wait for `continuationTimeout` at most, and then continue. Borrowed
 *   channels and requests do not wait.
 * - It declares everything again, bindings included, when a part is missing: when the broker cancels a consumer of one
 *   of its queues, when the broker closes a channel of this application because a name of the topology does not exist
 *   (404), when the broker returns a mandatory message to one of its exchanges (every 30 seconds at most), and when a
 *   check finds a part missing (`checkInterval`). Each time is logged as a warning.
 * - A declaration that the broker refuses is set aside, and the others continue. It is attempted again after 1 second,
 *   or 100 milliseconds if it is locked, then after pauses that double up to 1 minute. It is logged once, as a warning
 *   if the cause may pass (a queue whose node is down) and otherwise as an error (`PreconditionFailed`). Until it
 *   succeeds, it is a condition `DeclarationSetAside` for health checks and metrics. The application is not ready if
 *   the declaration has never succeeded, which only happens with `lazyConnect`.
 * - A declaration that ends the connection, such as one for an exchange whose plugin is missing on RabbitMQ 3, is
 *   attempted again on a short-lived connection of its own, which has the name of the application's connection with
 *   `topology` appended. Bindings that need it wait for it.
 *
 * **Gotchas**
 *
 * Messages that are published between the deletion of a queue and its discovery are lost, unless they are mandatory. If
 * only a binding is deleted, only returned messages reveal it: AMQP cannot verify bindings.
 *
 * With `lazyConnect` what this layer is provided to may be built before the topology exists. It must not borrow a
 * channel or send a request for it while it is built.
 *
 * **Example** (Checking the topology every 10 seconds)
 *
 * ```ts
 * import { Layer } from "effect"
 * import { AmqpLive, AmqpTopology } from "@effect-amqp/core"
 *
 * const topology = AmqpTopology.make(AmqpTopology.queue("orders", { queueType: "quorum" }))
 *
 * const layer = AmqpTopology.layer(topology, { checkInterval: "10 seconds" }).pipe(Layer.provide(AmqpLive))
 * ```
 *
 * @see {@link declare} for declaring a topology once
 * @see {@link verify} for services that may not declare
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  topology: Part,
  options?: LayerOptions
): Layer.Layer<never, AmqpError.AmqpError, AmqpConnection | AmqpPool> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const settings = layerOptionsOf("AmqpTopology.layer", options)
      if (isInvalidArgument(settings)) return yield* Effect.fail(AmqpError.fromReason(settings))
      const connection = yield* AmqpConnection
      const internals = connectionInternals(connection)
      const { clock } = internals
      const keep = (declaredOn: ConstructorParameters<typeof TopologyKeeper>[4]) =>
        new TopologyKeeper(
          connection,
          make(topology),
          settings.checkInterval === 0 ? undefined : settings.checkInterval,
          clock,
          declaredOn
        ).run
      if (connection.config.lazyConnect) {
        yield* checked(topology)
        return yield* onClock(clock, Effect.andThen(keep(undefined), untilPrepared(connection)))
      }
      // Read before declaring: a connection that replaces this one during the declaration is noticed afterwards, and
      // everything is declared on it again.
      const first = Effect.suspend(() => {
        const declaredOn = { link: internals.currentLink(), generation: generationOf(connection.state) }
        return Effect.as(declare(topology), declaredOn)
      })
      const declaredOn = yield* first.pipe(
        Effect.tapError(({ reason }) =>
          isLost(reason)
            ? Effect.annotateLogs(Effect.logWarning("AMQP topology not declared yet: the connection was lost"), {
                reason: reason.message,
                ...Logging.connectionAnnotations(connection.config)
              })
            : Effect.void
        ),
        Effect.retry({
          while: ({ reason }) => isLost(reason),
          times: attempts - 1,
          schedule: Schedule.spaced("100 millis")
        }),
        (declaring) => onClock(clock, declaring)
      )
      yield* onClock(clock, keep(declaredOn))
    })
  )

/**
 * Waits until the topology is declared on the connection that is open now, for `continuationTimeout` at most. Waits for
 * nothing if none is open, and no longer than the connection lasts: on the next one, publishers and consumers wait.
 * Publishers whose channels are open already do not.
 */
const untilPrepared = (connection: AmqpConnection["Service"]): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { currentLink, preparations } = connectionInternals(connection)
    const link = currentLink()
    if (link === undefined) return Effect.void
    const lost = SubscriptionRef.changes(connection.state).pipe(
      Stream.filter(() => currentLink() !== link),
      Stream.take(1),
      Stream.runDrain
    )
    return Effect.raceFirst(preparations.wait(connection.config.continuationTimeout), lost)
  })

const isLost = (reason: AmqpError.AmqpErrorReason) => reason.severity === "connection" && reason.isRetryable
