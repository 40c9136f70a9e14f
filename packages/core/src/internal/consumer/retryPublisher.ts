/** Publishes the message of a retry to a delay queue. */
import * as Effect from "effect/Effect"
import type { AmqpConfig } from "../../model/config.ts"
import type * as AmqpError from "../../model/error.ts"
import { ownUserId } from "../message/copies.ts"
import { fromDelivery } from "../message/forward.ts"
import { type Message } from "../../model/message.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import { copyReceivedBytes } from "../wire/receivedBytes.ts"
import type { Failure } from "../message/failure.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import type { DelayQueues } from "./delayQueues.ts"
import type { RetryDelay } from "./policyOptions.ts"

export class RetryPublisher {
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

  /** Declares a delay queue unless that was done before. */
  declare(delay: RetryDelay): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#delayQueues.declare(delay)
  }

  /** Publishes the message of the next retry; completes when it is confirmed. */
  publish(delivery: ConsumerDelivery, delay: RetryDelay, failure: Failure): Effect.Effect<void, AmqpError.AmqpError> {
    const send = (message: Message) =>
      Effect.andThen(this.declare(delay), this.#publisher.publish(message, { mandatory: true }))
    const publish = (failure: Failure | undefined, withOrigin: boolean) =>
      Effect.suspend(() => send(this.#message(delivery, delay, failure, withOrigin))).pipe(
        // The delay queue was deleted, for example by an operator.
        Effect.catchReason("AmqpError", "PublishReturned", () => {
          this.#delayQueues.forget(delay)
          return send(this.#message(delivery, delay, failure, withOrigin))
        })
      )
    // The message's own headers may already fill most of a frame. The counts of attempts are never left out.
    return publish(failure, true).pipe(
      Effect.catchReason("AmqpError", "InvalidArgument", () => publish(undefined, true)),
      Effect.catchReason("AmqpError", "InvalidArgument", () => publish(undefined, false)),
      Effect.asVoid
    )
  }

  #message(delivery: ConsumerDelivery, delay: RetryDelay, failure: Failure | undefined, withOrigin: boolean): Message {
    const message = fromDelivery(delivery, {
      exchange: "",
      routingKey: delay.queue,
      headers: delivery.headersOfRetry(failure, withOrigin),
      expiration: undefined,
      userId: ownUserId(this.#config, delivery.properties.userId)
    })
    copyReceivedBytes(message.headers!, delivery.properties.headers)
    return message
  }
}
