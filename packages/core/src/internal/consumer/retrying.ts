/** Trying again later: the message that is published to a delay queue. */
import * as Effect from "effect/Effect"
import type { AmqpConfig } from "../../model/config.ts"
import type * as AmqpError from "../../model/error.ts"
import { fromDelivery } from "../message/forward.ts"
import { type Message } from "../../model/message.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import { deriveReceived } from "../wire/received.ts"
import type { Failure } from "../message/failure.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import type { DelayQueues } from "./delayQueues.ts"
import type { Delay } from "./policyOptions.ts"

export class Retrying {
  readonly #delayQueues: DelayQueues
  readonly #config: AmqpConfig
  readonly #publisher: AmqpPublisher["Service"]

  constructor(options: {
    readonly delayQueues: DelayQueues
    readonly config: AmqpConfig
    readonly publisher: AmqpPublisher["Service"]
  }) {
    this.#delayQueues = options.delayQueues
    this.#config = options.config
    this.#publisher = options.publisher
  }

  /** Makes sure of a delay queue. */
  declare(delay: Delay): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#delayQueues.declare(delay)
  }

  /** Publishes the message for the next try; done when it is confirmed. */
  publish(delivery: ConsumerDelivery, delay: Delay, failure: Failure): Effect.Effect<void, AmqpError.AmqpError> {
    const send = (message: Message) =>
      Effect.andThen(this.declare(delay), this.#publisher.publish(message, { mandatory: true }))
    const publish = (failure: Failure | undefined, withOrigin: boolean) =>
      Effect.suspend(() => send(this.#message(delivery, delay, failure, withOrigin))).pipe(
        // Somebody has deleted the queue.
        Effect.catchReason("AmqpError", "PublishReturned", () => {
          this.#delayQueues.forget(delay)
          return send(this.#message(delivery, delay, failure, withOrigin))
        })
      )
    // Its headers may be nearly as large as can be already. What counts the tries is never left out.
    return publish(failure, true).pipe(
      Effect.catchReason("AmqpError", "InvalidArgument", () => publish(undefined, true)),
      Effect.catchReason("AmqpError", "InvalidArgument", () => publish(undefined, false)),
      Effect.asVoid
    )
  }

  #message(delivery: ConsumerDelivery, delay: Delay, failure: Failure | undefined, withOrigin: boolean): Message {
    const { userId } = delivery.properties
    const { credentials } = this.#config
    const message = fromDelivery(delivery, {
      exchange: "",
      routingKey: delay.queue,
      headers: delivery.headersOfRetry(failure, withOrigin),
      expiration: undefined,
      userId: credentials._tag === "Plain" && credentials.username === userId ? userId : undefined
    })
    deriveReceived(message.headers!, delivery.properties.headers)
    return message
  }
}
