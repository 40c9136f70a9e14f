/** A publisher under test on a given broker, and ways to wait for its state. */
import { Effect, Exit, Fiber, flow, Layer, References, Scope, SubscriptionRef } from "effect"
import {
  type AmqpChannel,
  AmqpConnection,
  type AmqpError,
  type AmqpMessage,
  AmqpPool,
  AmqpPublisher
} from "@effect-amqp/core"
import { configOf, type Overrides } from "./amqp.ts"
import { until } from "./polling.ts"
import type { Script, ScriptedBroker } from "./ScriptedBroker.ts"

/**
 * Runs a program with its own connection, publisher and pool, which are closed afterwards. Its log begins at warnings.
 */
export const withPublisher = (url: string, options: AmqpPublisher.Options = {}, overrides?: Overrides) =>
  flow(
    Effect.provide(
      Layer.provideMerge(
        Layer.merge(AmqpPublisher.layerWith(options), AmqpPool.layer),
        AmqpConnection.layer(configOf(url, overrides))
      ),
      { local: true }
    ),
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )

/** A publisher in its own scope, on the connection in context, and an effect that closes that scope. */
export const closable = (options?: AmqpPublisher.Options) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const publisher = yield* Scope.provide(AmqpPublisher.make(options), scope)
    return { publisher, close: Scope.close(scope, Exit.void) }
  })

/** The tag of an effect's reason, or `Confirmed`. */
export const outcomeOf = <A, R>(
  effect: Effect.Effect<A, AmqpError.AmqpError, R>
): Effect.Effect<"Confirmed" | AmqpError.AmqpErrorReason["_tag"], never, R> =>
  Effect.match(effect, { onFailure: (error) => error.reason._tag, onSuccess: () => "Confirmed" as const })

/** How often each outcome occurs. */
export const tally = (outcomes: Iterable<string>): Record<string, number> => {
  const counts: Record<string, number> = {}
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1
  return counts
}

/** A message of which only the content matters. */
export const message = (content: string | number | Uint8Array): AmqpMessage.Message => ({
  exchange: "x",
  routingKey: "k",
  content: typeof content === "number" ? String(content) : content
})

/** Publishes such a message, and returns its outcome. */
export const send = (content: string | Uint8Array, options?: AmqpChannel.PublishOptions) =>
  outcomeOf(AmqpPublisher.publish(message(content), options))

/** A broker that holds the answer to every publish. */
export const held: Script = { "basic.publish": (publish) => publish.hold() }

/** Starts an effect at once, in a fiber whose outcome is awaited with `Fiber.join`. */
export const start = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Fiber.Fiber<A, E>, never, R> =>
  Effect.forkChild(effect, { startImmediately: true })

export const startAll = <A, E, R>(effects: ReadonlyArray<Effect.Effect<A, E, R>>) => Effect.forEach(effects, start)

export const joinAll = <A, E>(fibers: ReadonlyArray<Fiber.Fiber<A, E>>) => Effect.forEach(fibers, Fiber.join)

/** Waits until the publisher's counts are as expected. */
export const untilStats = (
  wanted: (stats: AmqpPublisher.Stats) => boolean,
  of?: AmqpPublisher.AmqpPublisher["Service"]
) =>
  Effect.flatMap(of === undefined ? AmqpPublisher.AmqpPublisher : Effect.succeed(of), ({ stats }) =>
    until(stats, wanted, "the publisher")
  )

/** Waits until the publisher's flow has this tag. */
export const untilFlow = (tag: AmqpPublisher.Flow["_tag"]) =>
  Effect.flatMap(AmqpPublisher.AmqpPublisher, ({ flow }) =>
    until(SubscriptionRef.get(flow), (now) => now._tag === tag, "the flow")
  )

/** The contents that a scripted broker received, in order. */
export const published = (broker: ScriptedBroker) =>
  broker.log.flatMap((r) => (r.method === "basic.publish" ? [r.content!.body.toString()] : []))
