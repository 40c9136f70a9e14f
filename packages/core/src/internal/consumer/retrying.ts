/** Trying again later: the delay queues, and the message that is published to one of them. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { AmqpConfig } from "../../AmqpConfig.ts"
import * as AmqpError from "../../AmqpError.ts"
import { fromDelivery, type Message } from "../../AmqpMessage.ts"
import type { AmqpPublisher } from "../../AmqpPublisher.ts"
import * as Channels from "../channel.ts"
import { Handle, type Terms } from "../handle.ts"
import type { Links } from "../links.ts"
import { type Failure, retryHeaders } from "./attempts.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import type { Delay } from "./options.ts"

/** A channel of its own for each declaration: the broker closes it over what it refuses. */
class Declaring extends Handle {
  readonly #links: Links
  readonly #closeTimeout: Duration.Duration

  constructor(terms: Terms, links: Links, closeTimeout: Duration.Duration) {
    super(terms, new AmqpError.ChannelClosed({ message: "queue.declare: there is no channel yet" }))
    this.#links = links
    this.#closeTimeout = closeTimeout
  }

  #onChannel(method: Effect.Effect<unknown, AmqpError.AmqpError>): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.flatMap(this.#links.next, (link) =>
      Channels.open(link, "regular", this.terms.continuationTimeout, (channel) => {
        this.held = channel
      })
    ).pipe(
      Effect.andThen(method),
      Effect.ensuring(Effect.suspend(() => this.held?.close(this.#closeTimeout) ?? Effect.void)),
      Effect.asVoid
    )
  }

  /** Fails with `NotFound` if there is no such queue. */
  passively({ queue }: Delay): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#onChannel(this.request("queue.declare", (driver) => driver.checkQueue(queue)))
  }

  actively({ declaration, queue }: Delay): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#onChannel(this.request("queue.declare", (driver) => driver.assertQueue(queue, declaration)))
  }
}

export class Retrying {
  readonly #declared = new Set<string>()
  // Deliveries that fail together want the same queue, and each declaration has a channel of its own.
  readonly #oneAtATime = Semaphore.makeUnsafe(1)
  readonly #links: Links
  readonly #terms: Terms
  readonly #config: AmqpConfig
  readonly #publisher: AmqpPublisher["Service"]

  constructor(options: {
    readonly links: Links
    readonly terms: Terms
    readonly config: AmqpConfig
    readonly publisher: AmqpPublisher["Service"]
  }) {
    this.#links = options.links
    this.#terms = options.terms
    this.#config = options.config
    this.#publisher = options.publisher
  }

  /**
   * Makes sure of a delay queue. One that is there stays as it is: it may have been declared with other properties, by
   * `AmqpTopology` for one, and its name says what matters.
   */
  declare(delay: Delay): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() =>
      this.#declared.has(delay.queue) ? Effect.void : this.#oneAtATime.withPermits(1)(this.#declareNow(delay))
    )
  }

  #declareNow(delay: Delay): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      if (this.#declared.has(delay.queue)) return Effect.void
      const declaring = () => new Declaring(this.#terms, this.#links, this.#config.closeTimeout)
      return declaring()
        .passively(delay)
        .pipe(
          Effect.catchReason("AmqpError", "NotFound", () => declaring().actively(delay)),
          Effect.andThen(
            Effect.sync(() => {
              this.#declared.add(delay.queue)
            })
          )
        )
    })
  }

  /** Publishes the message for the next try; done when it is confirmed. */
  publish(delivery: ConsumerDelivery, delay: Delay, failure: Failure): Effect.Effect<void, AmqpError.AmqpError> {
    const send = (message: Message) =>
      Effect.andThen(this.declare(delay), this.#publisher.publish(message, { mandatory: true }))
    return send(this.#message(delivery, delay, failure)).pipe(
      // Somebody has deleted the queue.
      Effect.catchReason("AmqpError", "PublishReturned", () => {
        this.#declared.delete(delay.queue)
        return send(this.#message(delivery, delay, failure))
      }),
      // The headers were nearly as large as may be already: it has to do without the error.
      Effect.catchReason("AmqpError", "InvalidArgument", () => send(this.#message(delivery, delay, undefined))),
      Effect.asVoid
    )
  }

  #message(delivery: ConsumerDelivery, delay: Delay, failure: Failure | undefined): Message {
    const { attempt, exchange, routingKey } = delivery
    const { headers, userId } = delivery.properties
    const { credentials } = this.#config
    return fromDelivery(delivery, {
      exchange: "",
      routingKey: delay.queue,
      headers: retryHeaders({ headers, attempt, exchange, routingKey }, delivery.queue, failure),
      expiration: undefined,
      userId: credentials._tag === "Plain" && credentials.username === userId ? userId : undefined
    })
  }
}
