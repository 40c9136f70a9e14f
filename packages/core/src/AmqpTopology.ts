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
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpChannel } from "./AmqpChannel.ts"
import { AmqpConnection, type State } from "./AmqpConnection.ts"
import * as AmqpError from "./AmqpError.ts"
import { AmqpPool } from "./AmqpPool.ts"
import { linksOf } from "./internal/links.ts"
import * as Logging from "./internal/logging.ts"
import * as Check from "./internal/topology/check.ts"
import * as Redeclaring from "./internal/topology/redeclaring.ts"
import type { AmqpTopology, Exchange } from "./internal/topology/values.ts"

export * from "./internal/topology/shapes.ts"
export * from "./internal/topology/values.ts"

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

/** Alternate exchanges before those that send there. */
const inOrder = (exchanges: ReadonlyArray<Exchange>): Iterable<Exchange> => {
  const byName = new Map(exchanges.map((exchange) => [exchange.name, exchange]))
  const ordered = new Set<Exchange>()
  for (const exchange of exchanges) {
    const chain: Array<Exchange> = []
    for (let next: Exchange | undefined = exchange; next !== undefined && !ordered.has(next);) {
      chain.push(next)
      next = byName.get(next.options.alternateExchange ?? "")
    }
    for (const each of chain.toReversed()) ordered.add(each)
  }
  return ordered
}

const declareOn = Effect.fnUntraced(function* (channel: AmqpChannel, topology: AmqpTopology) {
  for (const { name, options, type } of inOrder(topology.exchanges)) {
    yield* channel.exchangeDeclare(name, type, options)
  }
  for (const { name, options } of topology.queues) yield* channel.queueDeclare(name, options)
  for (const { destination, destinationType, options, routingKey, source } of topology.bindings) {
    yield* destinationType === "queue"
      ? channel.queueBind(destination, source, routingKey, options)
      : channel.exchangeBind(destination, source, routingKey, options)
  }
})

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

// As AmqpConnection does: what a restarted broker has to do for all its clients at once is spread out.
const backoff = Schedule.jittered(Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("30 seconds")]))

const generationOf = ({ value }: SubscriptionRef.SubscriptionRef<State>) =>
  value._tag === "Open" ? value.generation : 0

/**
 * Declares a topology when the layer is built, and again on every new connection: exclusive queues go with their
 * connection, and after a broker without durable storage has been replaced everything has to be made anew.
 *
 * Building fails as `declare` does, and what is provided with this layer is built afterwards. After a reconnect,
 * `AmqpPublisher` sends nothing and `AmqpConsumer` subscribes to nothing before the topology has been declared again, so
 * that no message comes before its queue: for `continuationTimeout` at most, after which they go on without. Borrowed
 * channels and requests do not wait.
 *
 * What may pass is tried again with backoff, up to 30 seconds apart, and logged as a warning; what will not, such as
 * `PreconditionFailed`, is logged as an error, publishers and consumers go on, and the next connection gets the next try.
 * It ends with the layer's scope.
 */
export const layer = (topology: AmqpTopology): Layer.Layer<never, AmqpError.AmqpError, AmqpConnection | AmqpPool> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const connection = yield* AmqpConnection
      const { state } = connection
      const links = linksOf(connection)
      // Which connection it will be is known before only. A later one is seen afterwards, and declared on again.
      let declared = 0
      let link = links.current()
      const declareFor = <R>(generation: number, declaring: Effect.Effect<void, AmqpError.AmqpError, R>) =>
        Effect.suspend(() => {
          link = links.current()
          return Effect.map(declaring, () => {
            declared = generation
          })
        })
      // Publishers and consumers on the next connection wait for it.
      const preparation = Effect.acquireRelease(
        Effect.sync(() => links.preparations.add(link)),
        (preparation) => Effect.sync(() => links.preparations.remove(preparation))
      )
      const opened = Effect.map(
        Stream.runHead(Stream.filter(SubscriptionRef.changes(state), ({ _tag }) => _tag === "Open")),
        () => generationOf(state)
      )
      const onOwnChannel = Redeclaring.onOwnChannel(connection, (channel) => declareOn(channel, topology))
      const again = Effect.flatMap(opened, (generation) => declareFor(generation, onOwnChannel)).pipe(
        Effect.tapError((error) =>
          error.isRetryable
            ? Effect.annotateLogs(Effect.logWarning("AMQP topology not declared again yet"), {
                reason: error.message,
                ...Logging.ofConnection(connection.config)
              })
            : Effect.void
        ),
        Effect.retry({ while: (error) => error.isRetryable, schedule: backoff }),
        Effect.catch((error) =>
          Effect.annotateLogs(Effect.logError("AMQP topology not declared again"), {
            reason: error.message,
            ...Logging.ofConnection(connection.config)
          })
        ),
        Effect.andThen(
          Effect.sync(() => {
            if (link !== undefined) prepared.done(link)
          })
        )
      )
      yield* declareFor(generationOf(state), declare(topology))
      const prepared = yield* preparation
      yield* Effect.forkScoped(
        Stream.runForEach(SubscriptionRef.changes(state), () =>
          Effect.suspend(() => (generationOf(state) > declared ? again : Effect.void))
        )
      )
    })
  )
