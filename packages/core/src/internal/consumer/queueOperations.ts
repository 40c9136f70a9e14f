/**
 * Declares, inspects and deletes queues, each on a channel of its own, because the broker closes the channel of a
 * method that it refuses.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import type { AmqpConfig } from "../../model/config.ts"
import { make } from "../connection/supervisor.ts"
import * as AmqpError from "../../model/error.ts"
import { openChannel } from "../channel/openChannel.ts"
import type { readQueueDeclare } from "../wire/declarations.ts"
import type { DriverChannel } from "../driver/driver.ts"
import { ChannelHandle, type ChannelTimeouts } from "../channel/channelHandle.ts"
import { type ConnectionInternals, connectionInternals } from "../connection/connectionInternals.ts"
import { SharedLogin } from "../connection/login.ts"

/** The checked options of a queue. */
export type Declaration = Exclude<ReturnType<typeof readQueueDeclare>, AmqpError.InvalidArgument>

/** The counts of a queue, from the answer to its declaration. */
export interface QueueCounts {
  readonly messageCount: number
  readonly consumerCount: number
}

class SingleUseChannel extends ChannelHandle {
  readonly #internals: ConnectionInternals
  readonly #closeTimeout: Duration.Duration

  constructor(timeouts: ChannelTimeouts, internals: ConnectionInternals, closeTimeout: Duration.Duration) {
    super(
      timeouts,
      new AmqpError.ChannelClosed({ message: "queue.declare: the channel is not open yet. Nothing was sent." })
    )
    this.#internals = internals
    this.#closeTimeout = closeTimeout
  }

  run<A>(
    operation: string,
    queue: string,
    send: (driver: DriverChannel) => Promise<A>
  ): Effect.Effect<A, AmqpError.AmqpError> {
    return Effect.flatMap(this.#internals.nextLink, (link) =>
      openChannel(link, "regular", this.timeouts.continuationTimeout, (channel) => {
        this.held = channel
      })
    ).pipe(
      Effect.andThen(this.request(operation, send, [queue])),
      Effect.ensuring(Effect.suspend(() => this.held?.close(this.#closeTimeout) ?? Effect.void))
    )
  }
}

export class QueueOperations {
  readonly internals: ConnectionInternals
  readonly #timeouts: ChannelTimeouts
  readonly #config: AmqpConfig

  constructor(timeouts: ChannelTimeouts, internals: ConnectionInternals, config: AmqpConfig) {
    this.internals = internals
    this.#timeouts = timeouts
    this.#config = config
  }

  #method(): SingleUseChannel {
    return new SingleUseChannel(this.#timeouts, this.internals, this.#config.closeTimeout)
  }

  /** Fails with `PreconditionFailed` if the queue exists with other properties. */
  declare(queue: string, declaration: Declaration): Effect.Effect<QueueCounts, AmqpError.AmqpError> {
    return Effect.suspend(() =>
      this.#method().run("queue.declare", queue, (driver) => driver.queueDeclare(queue, declaration))
    )
  }

  /** Fails with `NotFound` if the queue does not exist. */
  declarePassive(queue: string): Effect.Effect<QueueCounts, AmqpError.AmqpError> {
    return Effect.suspend(() =>
      this.#method().run("queue.declare", queue, (driver) => driver.queueDeclarePassive(queue))
    )
  }

  /**
   * Fails with `PreconditionFailed` if the queue is in use or has messages. Ends the connection if it is a quorum
   * queue: RabbitMQ 3.10 to 4.3 refuse these conditions for quorum queues with 540.
   */
  deleteUnused(queue: string): Effect.Effect<unknown, AmqpError.AmqpError> {
    return Effect.suspend(() =>
      this.#method().run("queue.delete", queue, (driver) =>
        driver.queueDelete(queue, { ifUnused: true, ifEmpty: true })
      )
    )
  }

  /** Runs operations on a connection of their own, for operations that may end a connection. */
  onOwnConnection<A>(
    use: (declaring: QueueOperations) => Effect.Effect<A, AmqpError.AmqpError>
  ): Effect.Effect<A, AmqpError.AmqpError> {
    const { connectionName } = this.#config
    const config: AmqpConfig = {
      ...this.#config,
      connectionName: connectionName === undefined ? "delay queues" : `${connectionName} delay queues`,
      lazyConnect: false,
      connectionAttempts: 1
    }
    // The end of this connection may be the answer, and `use` reports the result, so the connection itself logs
    // nothing.
    const quiet = Effect.provideService(make(config), References.MinimumLogLevel, "None")
    return Effect.scoped(
      Effect.flatMap(Effect.provideService(quiet, SharedLogin, this.internals.login), (connection) =>
        use(new QueueOperations(this.#timeouts, connectionInternals(connection), config))
      )
    )
  }
}
