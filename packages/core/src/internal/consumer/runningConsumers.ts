/**
 * The running consumers of one service. When the service ends before they do, they are stopped and waited for.
 *
 * Most consumers are stopped by the fiber that started them. A consumer in a fiber that outlives the service, for
 * instance a child of the fiber that provides its layer, would lose its connection while its handlers are still
 * running.
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
import { connectionInternals } from "../connection/connectionInternals.ts"
import * as Logging from "../telemetry/logging.ts"
import { ConsumerMeasures } from "../metrics/measures.ts"
import type { Shutdown } from "../connection/shutdown.ts"
import { openDedicatedConnection, notStarted } from "./sharedConnection.ts"
import { ownConfig } from "./ownConfig.ts"
import { type ConsumerHealth, ConsumerHealthRegistry } from "./consumerHealth.ts"
import type { SubscriptionSettings } from "./options.ts"
import type { OpenDedicatedConnection } from "./source.ts"
import { AttemptMemory } from "./attemptMemory.ts"

const ended = AmqpError.fromReason(
  new AmqpError.ConnectionClosed({
    message: "basic.consume: the scope of the AmqpConsumer has closed, so its consumers stop and none can start"
  })
)

export class RunningConsumers {
  readonly shutdown: Shutdown
  /** The publishers' connection. */
  readonly main: AmqpConnection["Service"]
  /** The consumers' connection, while there is one. */
  readonly connection: SubscriptionRef.SubscriptionRef<AmqpConnection["Service"] | undefined>
  /** Fails when the service ends. */
  readonly ended: Effect.Effect<never, AmqpError.AmqpError>
  readonly measures = new ConsumerMeasures()
  readonly health: ConsumerHealthRegistry
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
    this.health = new ConsumerHealthRegistry(connectionInternals(main).conditions, clock)
    this.shutdown = connectionInternals(main).shutdown
    this.connection = connection
    this.ended = Deferred.await(this.#ended)
  }

  /** Counts one consumer as running, until the scope closes. */
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

  /** Stops all consumers and waits for them, within the shutdown budget. */
  readonly stop: Effect.Effect<void> = Effect.suspend(() => {
    const allStopped = (this.#allStopped = Deferred.makeUnsafe<void>())
    Deferred.doneUnsafe(this.#ended, Effect.fail(ended))
    return this.shutdown.during(this.#wait(allStopped))
  })

  #wait(allStopped: Deferred.Deferred<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#count === 0) return Effect.void
      const timeout = this.shutdown.settleTimeLeft
      if (timeout > 0) {
        // Wait again: a consumer with a longer timeout of its own may have started to stop in the meantime.
        return Effect.andThen(Effect.timeoutOption(Deferred.await(allStopped), timeout), this.#wait(allStopped))
      }
      return Effect.annotateLogs(
        Effect.logWarning(
          "AMQP connection closed while consumers were still running: they did not stop within the shutdown timeout. The broker requeues their unsettled deliveries"
        ),
        {
          consumers: this.#count,
          ...Logging.connectionAnnotations(ownConfig(this.main.config))
        }
      )
    })
  }
}

/** The inside of an `AmqpConsumer`. */
export class ConsumerInside extends Inside<RunningConsumers> {}

/** `undefined` for a service that was written by hand. */
export const runningConsumersOf = (service: AmqpConsumer["Service"]): RunningConsumers | undefined =>
  ConsumerInside.of(service)

/** The queues that the application has declared. */
export const queuesOf = (service: AmqpConsumer["Service"]): KnownQueues | undefined => {
  const main = runningConsumersOf(service)?.main
  return main === undefined ? undefined : connectionInternals(main).queues
}

/** The clock of the connection; `undefined` for a service that was written by hand. */
export const clockOf = (service: AmqpConsumer["Service"]): Clock.Clock | undefined => {
  const main = runningConsumersOf(service)?.main
  return main === undefined ? undefined : connectionInternals(main).clock
}

/** The connection that a consumer uses, and its log annotations. */
export interface Access {
  readonly connection: AmqpConsumer["Service"]["connection"]
  readonly annotations: Readonly<Record<string, unknown>>
  /** `undefined` for a service that was written by hand: its consumers always share a connection. */
  readonly openDedicated: OpenDedicatedConnection | undefined
  /** The consumer's health, once it has started. */
  readonly health?: ConsumerHealth | undefined
}

/** Access to the consumers' connection. */
export const accessOf = (service: AmqpConsumer["Service"]): Access => {
  const main = runningConsumersOf(service)?.main
  return {
    connection: service.connection,
    annotations: main === undefined ? {} : Logging.connectionAnnotations(ownConfig(main.config)),
    openDedicated: main === undefined ? undefined : openDedicatedConnection(main)
  }
}

/** Access to the publishers' connection, for a consumer that publishes on the channel that it consumes on. */
export const publishingAccessOf = (service: AmqpConsumer["Service"]): Access => {
  const main = runningConsumersOf(service)?.main
  return main === undefined
    ? accessOf(service)
    : {
        connection: Effect.succeed(main),
        annotations: Logging.connectionAnnotations(main.config),
        openDedicated: openDedicatedConnection(main)
      }
}

/** Registers the health of a consumer until the scope closes. */
export const registerHealth = (
  service: AmqpConsumer["Service"],
  access: Access,
  { name, requiredForReadiness, start: { queue } }: SubscriptionSettings
): Effect.Effect<Access, never, Scope.Scope> => {
  const registry = runningConsumersOf(service)?.health
  if (registry === undefined) return Effect.succeed(access)
  return Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => registry.register(queue, name, requiredForReadiness)),
      (health) => Effect.sync(() => health.close())
    ),
    (health) => ({ ...access, health })
  )
}

/** Whether a consumer has failed because its service has ended. */
export const isEndOfService = ({ reason }: AmqpError.AmqpError): boolean =>
  reason === ended.reason || reason === notStarted

/** The measures of the consumers of a service. */
export const measuresOf = (service: AmqpConsumer["Service"]): ConsumerMeasures =>
  runningConsumersOf(service)?.measures ?? new ConsumerMeasures()

/** The failed attempts that the consumers of a service remember. */
export const attemptsOf = (service: AmqpConsumer["Service"]): AttemptMemory =>
  runningConsumersOf(service)?.attempts ?? new AttemptMemory()
