/**
 * Who consumes by one service: asked to stop, and waited for, when that ends before they do.
 *
 * Most consumers are stopped by whoever started them. Those of a fiber that outlives the service, a child of the fiber
 * that provides its layer for instance, would have their connection closed under the hands of their handlers.
 */
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpConsumer } from "../../model/consumer.ts"
import * as AmqpError from "../../model/error.ts"
import { Inside } from "../../model/inside.ts"
import type { KnownQueues } from "../connection/knownQueues.ts"
import { linksOf } from "../connection/links.ts"
import * as Logging from "../telemetry/logging.ts"
import { ConsumerMeasures } from "../metrics/measures.ts"
import type { Shutdown } from "../connection/shutdown.ts"
import { aloneOf, notStarted } from "./connection.ts"
import { ownConfig } from "./ownConfig.ts"
import { type Presence, Presences } from "./presence.ts"
import type { Alone } from "./source.ts"
import { AttemptMemory } from "./attemptMemory.ts"

const ended = AmqpError.fromReason(
  new AmqpError.ConnectionClosed({
    message: "basic.consume: the scope of the AmqpConsumer has ended, and no consumer goes on or starts"
  })
)

export class Running {
  readonly shutdown: Shutdown
  /** The connection of the publishers. */
  readonly main: AmqpConnection["Service"]
  /** The connection of its consumers, while there is one. */
  readonly connection: SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>
  /** Fails when the service ends. */
  readonly ended: Effect.Effect<never, AmqpError.AmqpError>
  readonly measures = new ConsumerMeasures()
  readonly presences: Presences
  readonly attempts = new AttemptMemory()
  readonly #ended = Deferred.makeUnsafe<never, AmqpError.AmqpError>()
  #count = 0
  #allStopped: Deferred.Deferred<void> | undefined = undefined

  constructor(
    main: AmqpConnection["Service"],
    connection: SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>,
    clock: Clock.Clock
  ) {
    this.main = main
    this.presences = new Presences(linksOf(main).conditions, clock)
    this.shutdown = linksOf(main).shutdown
    this.connection = connection
    this.ended = Deferred.await(this.#ended)
  }

  /** One more, until the scope closes. */
  readonly enter: Effect.Effect<void, AmqpError.AmqpError, Scope.Scope> = Effect.suspend(() =>
    Deferred.isDoneUnsafe(this.#ended)
      ? this.ended
      : Effect.acquireRelease(
          Effect.sync(() => {
            this.#count++
          }),
          () =>
            Effect.sync(() => {
              this.#count--
              if (this.#count === 0 && this.#allStopped !== undefined) {
                Deferred.doneUnsafe(this.#allStopped, Effect.void)
              }
            })
        )
  )

  /** Asks them all to stop, and waits until they have, for as long as they may take. */
  readonly stop: Effect.Effect<void> = Effect.suspend(() => {
    const allStopped = (this.#allStopped = Deferred.makeUnsafe<void>())
    Deferred.doneUnsafe(this.#ended, Effect.fail(ended))
    return this.shutdown.during(this.#wait(allStopped))
  })

  #wait(allStopped: Deferred.Deferred<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#count === 0) return Effect.void
      const timeout = this.shutdown.settling
      if (timeout > 0) {
        // Again: one with a longer timeout of its own may have begun to stop meanwhile.
        return Effect.andThen(Effect.timeoutOption(Deferred.await(allStopped), timeout), this.#wait(allStopped))
      }
      return Effect.annotateLogs(Effect.logWarning("AMQP connection closed over consumers that did not stop"), {
        consumers: this.#count,
        ...Logging.ofConnection(ownConfig(this.main.config))
      })
    })
  }
}

/** The inside of an `AmqpConsumer`. */
export class ConsumerInside extends Inside<Running> {}

/** Undefined for a service that was made by hand. */
export const runningOf = (service: AmqpConsumer["Service"]): Running | undefined => ConsumerInside.of(service)

/** What its application has declared. */
export const queuesOf = (service: AmqpConsumer["Service"]): KnownQueues | undefined => {
  const main = runningOf(service)?.main
  return main === undefined ? undefined : linksOf(main).queues
}

/** By which connection somebody consumes, and what the log says of it. */
export interface Access {
  readonly connection: AmqpConsumer["Service"]["connection"]
  readonly annotations: Readonly<Record<string, unknown>>
  /** Undefined for a service that was made by hand: its consumers share a connection in any case. */
  readonly alone: Alone | undefined
  /** What the consumer reports of itself, once it has begun. */
  readonly presence?: Presence | undefined
}

/** By the consumers' own. */
export const accessOf = (service: AmqpConsumer["Service"]): Access => {
  const main = runningOf(service)?.main
  return {
    connection: service.connection,
    annotations: main === undefined ? {} : Logging.ofConnection(ownConfig(main.config)),
    alone: main === undefined ? undefined : aloneOf(main)
  }
}

/** By that of the publishers, where who consumes publishes to the channel that it consumes on. */
export const publishingAccessOf = (service: AmqpConsumer["Service"]): Access => {
  const main = runningOf(service)?.main
  return main === undefined
    ? accessOf(service)
    : { connection: Effect.succeed(main), annotations: Logging.ofConnection(main.config), alone: aloneOf(main) }
}

/** A consumer begins, and reports of itself until the scope closes; not one that is not essential. */
export const begin = (
  service: AmqpConsumer["Service"],
  access: Access,
  { essential, name }: { readonly essential: boolean; readonly name: string }
): Effect.Effect<Access, never, Scope.Scope> => {
  const presences = runningOf(service)?.presences
  if (presences === undefined || !essential) return Effect.succeed(access)
  return Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => presences.enter(name)),
      (presence) => Effect.sync(() => presence.left())
    ),
    (presence) => ({ ...access, presence })
  )
}

/** Whether a consumer has failed because its service has ended. */
export const isEndOfService = ({ reason }: AmqpError.AmqpError): boolean =>
  reason === ended.reason || reason === notStarted

/** What the consumers of a service add to. */
export const measuresOf = (service: AmqpConsumer["Service"]): ConsumerMeasures =>
  runningOf(service)?.measures ?? new ConsumerMeasures()

/** What the consumers of a service know of failed attempts. */
export const attemptsOf = (service: AmqpConsumer["Service"]): AttemptMemory =>
  runningOf(service)?.attempts ?? new AttemptMemory()
