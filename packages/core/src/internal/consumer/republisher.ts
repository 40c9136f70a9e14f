/** Publishes a message again, unchanged, to the queue that it came from, if it cannot be returned. */
import * as Effect from "effect/Effect"
import type { AmqpConfig } from "../../model/config.ts"
import type { AmqpError } from "../../model/error.ts"
import { fromDelivery } from "../message/forward.ts"
import { type FieldValue } from "../../model/message.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import { copyReceivedBytes } from "../wire/receivedBytes.ts"
import type { ConsumerDelivery } from "./delivery.ts"

// The queue's own count starts again, and the message must not be copied to further recipients again.
const leftOut = new Set(["x-delivery-count", "x-acquired-count", "CC", "BCC"])

export class Republisher {
  readonly #publisher: AmqpPublisher["Service"]
  readonly #credentials: AmqpConfig["credentials"]

  constructor(publisher: AmqpPublisher["Service"], { credentials }: AmqpConfig) {
    this.#publisher = publisher
    this.#credentials = credentials
  }

  /**
   * Completes when the broker has confirmed the copy. The copy arrives from the default exchange, with the queue's name
   * as its routing key.
   */
  publish(delivery: ConsumerDelivery): Effect.Effect<void, AmqpError> {
    const { properties, queue } = delivery
    const headers: Record<string, FieldValue | undefined> = Object.create(null)
    for (const [name, value] of Object.entries(properties.headers)) if (!leftOut.has(name)) headers[name] = value
    copyReceivedBytes(headers, properties.headers)
    const { userId } = properties
    const credentials = this.#credentials
    const isOurs = credentials._tag === "Plain" && credentials.username === userId
    return Effect.asVoid(
      this.#publisher.publish(
        fromDelivery(delivery, {
          exchange: "",
          routingKey: queue,
          headers,
          userId: isOurs ? userId : undefined
        }),
        { mandatory: true }
      )
    )
  }
}
