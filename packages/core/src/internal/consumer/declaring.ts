/** Declaring, looking at and deleting queues, each on a channel of its own: the broker closes it over what it refuses. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import type { AmqpConfig } from "../../model/config.ts"
import { make } from "../connection/supervisor.ts"
import * as AmqpError from "../../model/error.ts"
import { openChannel } from "../channel/opening.ts"
import type { readQueueDeclare } from "../wire/declarations.ts"
import type { DriverChannel } from "../driver/driver.ts"
import { Handle, type Terms } from "../channel/handle.ts"
import { type Links, linksOf } from "../connection/links.ts"
import { SharedLogin } from "../connection/login.ts"

/** The options of a queue, checked. */
export type Declaration = Exclude<ReturnType<typeof readQueueDeclare>, AmqpError.InvalidArgument>

/** What a queue holds, as its declaration is answered. */
export interface Held {
  readonly messageCount: number
  readonly consumerCount: number
}

class OneMethod extends Handle {
  readonly #links: Links
  readonly #closeTimeout: Duration.Duration

  constructor(terms: Terms, links: Links, closeTimeout: Duration.Duration) {
    super(terms, new AmqpError.ChannelClosed({ message: "queue.declare: there is no channel yet" }))
    this.#links = links
    this.#closeTimeout = closeTimeout
  }

  run<A>(
    operation: string,
    queue: string,
    send: (driver: DriverChannel) => Promise<A>
  ): Effect.Effect<A, AmqpError.AmqpError> {
    return Effect.flatMap(this.#links.next, (link) =>
      openChannel(link, "regular", this.terms.continuationTimeout, (channel) => {
        this.held = channel
      })
    ).pipe(
      Effect.andThen(this.request(operation, send, [queue])),
      Effect.ensuring(Effect.suspend(() => this.held?.close(this.#closeTimeout) ?? Effect.void))
    )
  }
}

export class Declaring {
  readonly links: Links
  readonly #terms: Terms
  readonly #config: AmqpConfig

  constructor(terms: Terms, links: Links, config: AmqpConfig) {
    this.links = links
    this.#terms = terms
    this.#config = config
  }

  #method(): OneMethod {
    return new OneMethod(this.#terms, this.links, this.#config.closeTimeout)
  }

  /** Fails with `PreconditionFailed` if there is such a queue with other properties. */
  declare(queue: string, declaration: Declaration): Effect.Effect<Held, AmqpError.AmqpError> {
    return Effect.suspend(() =>
      this.#method().run("queue.declare", queue, (driver) => driver.queueDeclare(queue, declaration))
    )
  }

  /** Fails with `NotFound` if there is no such queue. */
  look(queue: string): Effect.Effect<Held, AmqpError.AmqpError> {
    return Effect.suspend(() =>
      this.#method().run("queue.declare", queue, (driver) => driver.queueDeclarePassive(queue))
    )
  }

  /**
   * Fails with `PreconditionFailed` if it is in use or has messages. Ends the connection if it is a quorum queue: RabbitMQ
   * 3.10 to 4.3 refuse these conditions for them with 540.
   */
  deleteUnused(queue: string): Effect.Effect<unknown, AmqpError.AmqpError> {
    return Effect.suspend(() =>
      this.#method().run("queue.delete", queue, (driver) =>
        driver.queueDelete(queue, { ifUnused: true, ifEmpty: true })
      )
    )
  }

  /** The same on a connection of its own, for what may end one. */
  aside<A>(
    use: (declaring: Declaring) => Effect.Effect<A, AmqpError.AmqpError>
  ): Effect.Effect<A, AmqpError.AmqpError> {
    const { connectionName } = this.#config
    const config: AmqpConfig = {
      ...this.#config,
      connectionName: connectionName === undefined ? "delay queues" : `${connectionName} delay queues`,
      lazyConnect: false,
      connectionAttempts: 1
    }
    // Its end may be the answer: `use` says what became of it.
    const quiet = Effect.provideService(make(config), References.MinimumLogLevel, "None")
    return Effect.scoped(
      Effect.flatMap(Effect.provideService(quiet, SharedLogin, this.links.login), (connection) =>
        use(new Declaring(this.#terms, linksOf(connection), config))
      )
    )
  }
}
