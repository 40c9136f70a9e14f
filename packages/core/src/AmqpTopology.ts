/**
 * Exchanges, queues and bindings: described as plain values, checked as a whole, declared together.
 *
 * A description is data. Modules describe their parts, `make` puts them together, `layer` declares the whole when the
 * application starts and again on every new connection. Declaring is idempotent: what is there already, with the same
 * properties, stays as it is, with its messages.
 *
 * @example
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
 * // Whatever needs the queues is built after they are there.
 * declare const service: Layer.Layer<never>
 * const main = service.pipe(Layer.provide(AmqpTopology.layer(topology)), Layer.provide(AmqpLive), Layer.launch)
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpChannel } from "./model/channel.ts"
import { AmqpConnection, type State } from "./model/connection.ts"
import * as AmqpError from "./model/error.ts"
import { AmqpPool } from "./model/pool.ts"
import { isRefused, or, readerOf, rule, type Table, toMillis } from "./internal/wire/optionTable.ts"
import { linksOf } from "./internal/connection/links.ts"
import * as Logging from "./internal/telemetry/logging.ts"
import * as Check from "./internal/topology/check.ts"
import { Redeclaring } from "./internal/topology/redeclaring.ts"
import { stepsOf } from "./internal/topology/steps.ts"
import type { AmqpTopology } from "./model/topology.ts"

export * from "./internal/topology/shapes.ts"
export * from "./internal/topology/values.ts"
export * from "./model/topology.ts"

/**
 * Every mistake in a topology, as a sentence each; none if there are none. Pure: for a test of the topology, say.
 *
 * These are mistakes:
 *
 * - A binding, `deadLetterExchange`, `alternateExchange`, or `deadLetterRoutingKey` of the default exchange, that names
 *   what is neither declared here nor marked as external. RabbitMQ would refuse the binding, but take the others, and
 *   lose messages there.
 * - The same name with different properties.
 * - A name that is empty, longer than 255 bytes or the broker's own (`amq.`); options that `AmqpChannel` refuses; a
 *   binding to the default exchange.
 * - Bindings of exchanges that go round, and alternate exchanges that do.
 * - Dead letters that go round through queues of which each dead-letters by itself, by `messageTtl`, `maxLength`,
 *   `maxLengthBytes` or `deliveryLimit`: RabbitMQ drops a message that comes back without having been rejected
 *   (https://www.rabbitmq.com/docs/dlx#routing).
 * - Dead letters that go round without a queue with a `messageTtl`: a message that is always rejected would come back at
 *   once, for ever.
 *
 * So a circle for trying again is right: from the work queue by rejection to a queue with a `messageTtl`, and from there
 * back. Circles are found through exchanges of type `direct`, `fanout` and `topic` that are declared here.
 */
export const check: (topology: AmqpTopology) => ReadonlyArray<string> = Check.check

const checked = (topology: AmqpTopology): Effect.Effect<void, AmqpError.AmqpError> =>
  Effect.suspend(() => {
    const issues = check(topology)
    if (issues.length === 0) return Effect.void
    const count = issues.length === 1 ? "a mistake" : `${issues.length} mistakes`
    const message = `The topology has ${count}, nothing was declared:\n- ${issues.join("\n- ")}`
    return Effect.fail(AmqpError.fromReason(new AmqpError.InvalidTopology({ message, issues })))
  })

const declareOn = (channel: AmqpChannel, topology: AmqpTopology): Effect.Effect<void, AmqpError.AmqpError> =>
  Effect.forEach(stepsOf(topology), (step) => step.declare(channel), { discard: true })

/**
 * Declares a topology on one borrowed channel: exchanges, then queues, then bindings. Doing it again changes nothing.
 *
 * Nothing is sent if `check` finds mistakes: it fails with `InvalidTopology`, which lists them all. Fails with
 * `PreconditionFailed` if something exists with other properties, naming the first that differs and both values; with
 * `AccessRefused` if this user may not declare (see `verify`); with `NotFound` if what is marked as external does not
 * exist and is bound to; and as `AmqpPool.use` does. What was declared before the failure stays.
 */
export const declare = (topology: AmqpTopology): Effect.Effect<void, AmqpError.AmqpError, AmqpPool> =>
  Effect.andThen(
    checked(topology),
    Effect.flatMap(AmqpPool, (pool) => pool.use((channel) => declareOn(channel, topology)))
  )

/**
 * Makes sure that every exchange and queue of a topology exists, the external ones too, without declaring any: for
 * services that may not declare, or whose operators do.
 *
 * Names are all that AMQP lets a client look at: properties and bindings are not compared. Fails with `NotFound`, whose
 * message lists everything that is missing.
 */
export const verify = (topology: AmqpTopology): Effect.Effect<void, AmqpError.AmqpError, AmqpPool> =>
  Effect.gen(function* () {
    yield* checked(topology)
    const pool = yield* AmqpPool
    const names = (type: "exchange" | "queue") =>
      new Set(
        [
          ...(type === "exchange" ? topology.exchanges : topology.queues),
          ...topology.external.filter((external) => external.type === type)
        ].map(({ name }) => name)
      )
    const missing: Array<string> = []
    // The broker closes the channel of a passive declaration that fails, so each has one of its own.
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
    const message = `missing on the broker: ${missing.join(", ")}. Who owns them has to declare them first.`
    return yield* Effect.fail(AmqpError.fromReason(new AmqpError.NotFound({ message, replyCode: 404 })))
  })

/** How a topology is kept declared. */
export interface LayerOptions {
  /**
   * How often the layer looks whether its exchanges and queues are there, if nobody has noticed their absence before. From
   * 1 second; 0 or `"never"`: not at all. Default: 30 seconds.
   *
   * It looks by passive declarations, one round trip each, on a channel of its own, and at a random time up to a tenth
   * earlier or later. Exchanges and queues with `autoDelete` or `expires` are not looked at: the broker deletes these on
   * purpose.
   */
  readonly checkInterval?: Duration.Input | "never" | undefined
}

const layerRules = {
  // In milliseconds; 0: it does not look.
  checkInterval: or(
    rule<Duration.Input | "never", number>('"never", 0, or a duration from 1 second to 1 day', (value) => {
      if (value === "never") return 0
      const millis = toMillis(value)
      return millis === 0 || (millis !== undefined && millis >= 1000 && millis <= 86_400_000) ? millis : undefined
    }),
    30_000
  )
} satisfies Table<LayerOptions>

const layerOptionsOf = readerOf(layerRules)

// A lost connection says nothing about the topology. Each attempt waits for a connection for `acquireTimeout`.
const attempts = 3

const generationOf = ({ value }: SubscriptionRef.SubscriptionRef<State>) =>
  value._tag === "Open" ? value.generation : 0

/**
 * Declares a topology when the layer is built, and keeps it declared until the layer's scope closes.
 *
 * **When to use**
 *
 * Always, unless an operator declares everything: then `verify`. Exclusive queues go with their connection, a broker
 * without durable storage comes back empty, and a queue that was deleted by mistake swallows what is published: messages
 * that reach no queue are confirmed, too.
 *
 * **Details**
 *
 * - Building fails as `declare` does, and what is provided with this layer is built afterwards. A connection that is lost
 *   meanwhile is waited for, two times.
 * - On every new connection it declares everything again. `AmqpPublisher` sends nothing and `AmqpConsumer` subscribes to
 *   nothing before each declaration has been tried, and made if it was locked (405): for `continuationTimeout` at most,
 *   after which they go on without. Borrowed channels and requests do not wait.
 * - It declares everything again, bindings included, when something of it is missing: when the broker cancels a consumer
 *   of one of its queues, when it closes a channel of this application over a name of the topology (404), when it returns
 *   a mandatory message to one of its exchanges (every 30 seconds at most), and when a look finds something missing
 *   (`checkInterval`). Each time is logged as a warning.
 * - A declaration that the broker refuses is set aside, and the others go on. It is tried again after 1 second, or
 *   100 milliseconds if it is locked, then after pauses that double up to 1 minute. It is logged once, as a warning if it
 *   may pass (a queue whose node is down) and as an error if not (`PreconditionFailed`), and is a condition
 *   `DeclarationSetAside` for health checks and metrics until it has been made.
 * - A declaration that ends the connection, as one for an exchange whose plugin is missing does on RabbitMQ 3, is tried
 *   again on a short-lived connection of its own, named after the application with `topology` behind it. Bindings that
 *   need it wait for it.
 *
 * **Gotchas**
 *
 * Messages that were published between the deletion of a queue and its discovery are lost, unless they are mandatory. A
 * binding that is deleted alone is noticed by returned messages only: AMQP cannot look at bindings.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { AmqpLive, AmqpTopology } from "@effect-amqp/core"
 *
 * const topology = AmqpTopology.make(AmqpTopology.queue("orders", { queueType: "quorum" }))
 *
 * const layer = AmqpTopology.layer(topology, { checkInterval: "10 seconds" }).pipe(Layer.provide(AmqpLive))
 * ```
 */
export const layer = (
  topology: AmqpTopology,
  options?: LayerOptions
): Layer.Layer<never, AmqpError.AmqpError, AmqpConnection | AmqpPool> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const settings = layerOptionsOf("AmqpTopology.layer", options)
      if (isRefused(settings)) return yield* Effect.fail(AmqpError.fromReason(settings))
      const connection = yield* AmqpConnection
      const links = linksOf(connection)
      // Which connection it will be is known before only. A later one is seen afterwards, and declared on again.
      const first = Effect.suspend(() => {
        const declaredOn = { link: links.current(), generation: generationOf(connection.state) }
        return Effect.as(declare(topology), declaredOn)
      })
      const declaredOn = yield* first.pipe(
        Effect.tapError(({ reason }) =>
          isLost(reason)
            ? Effect.annotateLogs(Effect.logWarning("AMQP topology not declared yet: the connection was lost"), {
                reason: reason.message,
                ...Logging.ofConnection(connection.config)
              })
            : Effect.void
        ),
        Effect.retry({
          while: ({ reason }) => isLost(reason),
          times: attempts - 1,
          schedule: Schedule.spaced("100 millis")
        })
      )
      const redeclaring = new Redeclaring(
        connection,
        topology,
        settings.checkInterval === 0 ? undefined : settings.checkInterval,
        yield* Clock.Clock,
        declaredOn
      )
      yield* redeclaring.run
    })
  )

const isLost = (reason: AmqpError.AmqpErrorReason) => reason.severity === "connection" && reason.isRetryable
