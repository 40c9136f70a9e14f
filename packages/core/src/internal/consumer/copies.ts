/** A message published again to the queue that it came from, as it is, for what cannot go back by itself. */
import * as Effect from "effect/Effect"
import type { AmqpConfig } from "../../model/config.ts"
import type { AmqpError } from "../../model/error.ts"
import { fromDelivery } from "../message/forward.ts"
import { type FieldValue } from "../../model/message.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import { deriveReceived } from "../wire/received.ts"
import type { ConsumerDelivery } from "./delivery.ts"

// The queue's own count begins again, and copies are not to be sent again.
const leftOut = new Set(["x-delivery-count", "x-acquired-count", "CC", "BCC"])

export class Copies {
  readonly #publisher: AmqpPublisher["Service"]
  readonly #credentials: AmqpConfig["credentials"]

  constructor(publisher: AmqpPublisher["Service"], { credentials }: AmqpConfig) {
    this.#publisher = publisher
    this.#credentials = credentials
  }

  /** Done when the broker has confirmed the copy, which it shows with the default exchange and the queue's name. */
  publish(delivery: ConsumerDelivery): Effect.Effect<void, AmqpError> {
    const { properties, queue } = delivery
    const headers: Record<string, FieldValue | undefined> = Object.create(null)
    for (const [name, value] of Object.entries(properties.headers)) if (!leftOut.has(name)) headers[name] = value
    deriveReceived(headers, properties.headers)
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
