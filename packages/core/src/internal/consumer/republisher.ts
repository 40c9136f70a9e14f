/** Publishes a message again, unchanged, to the queue that it came from, if it cannot be returned. */
import * as Effect from "effect/Effect"
import type { AmqpConfig } from "../../model/config.ts"
import type { AmqpError } from "../../model/error.ts"
import { sameAtEnd } from "../message/copies.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import type { ConsumerDelivery } from "./delivery.ts"

export class Republisher {
  readonly #publisher: AmqpPublisher["Service"]
  readonly #config: AmqpConfig

  constructor(publisher: AmqpPublisher["Service"], config: AmqpConfig) {
    this.#publisher = publisher
    this.#config = config
  }

  /**
   * Completes when the broker has confirmed the copy. The copy arrives from the default exchange, with the queue's name
   * as its routing key.
   */
  publish(delivery: ConsumerDelivery): Effect.Effect<void, AmqpError> {
    return Effect.asVoid(
      this.#publisher.publish(sameAtEnd(delivery.queue, delivery, this.#config), { mandatory: true })
    )
  }
}
