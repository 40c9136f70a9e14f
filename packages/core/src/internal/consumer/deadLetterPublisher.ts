/**
 * Publishes a delivery that a policy dead-letters to the dead-letter exchange of its queue, with the reason in its
 * headers, which the broker's own dead-lettering cannot add.
 *
 * The copy is what the broker would have made of a rejected message, its `x-death` included, so that whatever reads a
 * dead-letter queue sees no difference.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { AmqpConfig } from "../../model/config.ts"
import type { DeadLettering } from "../../model/consumer.ts"
import type * as AmqpError from "../../model/error.ts"
import type { FieldValue, Headers, Message } from "../../model/message.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import { deathsOf, isTable } from "../message/deaths.ts"
import { ownUserId } from "../message/copies.ts"
import { fromDelivery } from "../message/forward.ts"
import type { Failure } from "../message/failure.ts"
import type { Deadlines } from "../waiting/deadlines.ts"
import { isAtLeast } from "../wire/versions.ts"
import {
  deadLetterHeaders,
  type Detail,
  type FailedFacts,
  publishWithDetails,
  traceIdOfFailure
} from "./deadLetterHeaders.ts"
import type { ConsumerDelivery } from "./delivery.ts"
import type { Secrets } from "./retryHeaders.ts"

/**
 * How long nothing is published after the broker has refused the exchange, in milliseconds: each refusal closes a
 * channel that others publish on.
 */
const refusalTtl = 60_000

/** Where dead letters of a queue go. */
export interface DeadLetterTarget {
  readonly exchange: string
  /** `undefined`: a dead letter keeps its routing key. */
  readonly routingKey: string | undefined
}

/** Why dead letters are rejected instead of being published. */
export type RejectedBecause = "chosen" | "noExchange" | "unknownQueue" | "refused"

export class DeadLetterPublisher {
  readonly #queue: string
  readonly #consumer: string
  readonly #mode: DeadLettering
  readonly #secrets: Secrets
  readonly #publisher: AmqpPublisher["Service"]
  readonly #config: AmqpConfig
  readonly #internals: ConnectionInternals
  readonly #deadlines: Deadlines
  readonly #clock: Clock.Clock
  #refusedUntil = -Infinity

  constructor(options: {
    readonly queue: string
    /** The name of the consumer. */
    readonly consumer: string
    readonly mode: DeadLettering
    readonly secrets: Secrets
    readonly publisher: AmqpPublisher["Service"]
    readonly config: AmqpConfig
    readonly internals: ConnectionInternals
    readonly deadlines: Deadlines
    readonly clock: Clock.Clock
  }) {
    this.#queue = options.queue
    this.#consumer = options.consumer
    this.#mode = options.mode
    this.#secrets = options.secrets
    this.#publisher = options.publisher
    this.#config = options.config
    this.#internals = options.internals
    this.#deadlines = options.deadlines
    this.#clock = options.clock
  }

  /** Where a dead letter is published now, or why it is rejected instead. */
  get target(): DeadLetterTarget | RejectedBecause {
    if (this.#mode === "reject") return "chosen"
    if (this.#deadlines.now < this.#refusedUntil) return "refused"
    if (typeof this.#mode === "object") return { routingKey: undefined, ...this.#mode }
    const known = this.#internals.queues.get(this.#queue)
    if (known === undefined) return "unknownQueue"
    const exchange = known.arguments["x-dead-letter-exchange"]
    const routingKey = known.arguments["x-dead-letter-routing-key"]
    if (typeof exchange !== "string") return "noExchange"
    return { exchange, routingKey: typeof routingKey === "string" ? routingKey : undefined }
  }

  /** Publishes a dead letter; completes when it is confirmed. */
  publish(
    delivery: ConsumerDelivery,
    target: DeadLetterTarget,
    failure: Failure
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.withFiber((fiber) => {
      const now = this.#clock.currentTimeMillisUnsafe()
      const facts: FailedFacts = {
        queue: this.#queue,
        offset: undefined,
        origin: delivery.origin ?? delivery,
        failure,
        attempt: delivery.attempt,
        consumer: this.#consumer,
        firstAt: Math.min(delivery.firstFailedAt ?? now, now),
        lastAt: now,
        traceId: traceIdOfFailure(fiber, delivery.properties.headers)
      }
      return publishWithDetails((detail) =>
        // A broker that takes nothing now still takes a rejection.
        this.#publisher.publish(this.#message(delivery, target, facts, detail), { mandatory: true, onBlocked: "fail" })
      ).pipe(
        Effect.tapError(({ reason }) =>
          Effect.sync(() => {
            if (reason._tag !== "AccessRefused" && reason._tag !== "NotFound") return
            this.#refusedUntil = this.#deadlines.now + refusalTtl
          })
        ),
        Effect.asVoid
      )
    })
  }

  #message(delivery: ConsumerDelivery, target: DeadLetterTarget, facts: FailedFacts, detail: Detail): Message {
    const headers = deadLetterHeaders(delivery, facts, this.#secrets, detail, target.routingKey === undefined)
    addDeath(headers, delivery, this.#queue, facts.lastAt)
    return fromDelivery(delivery, {
      exchange: target.exchange,
      routingKey: target.routingKey ?? delivery.routingKey,
      headers,
      // The broker removes it too, so that a dead letter does not expire.
      expiration: undefined,
      userId: ownUserId(this.#config, delivery.properties.userId)
    })
  }
}

/** Adds to `x-death` what the broker adds for a rejected message (https://www.rabbitmq.com/docs/dlx#effects). */
const addDeath = (
  headers: Record<string, FieldValue | undefined>,
  { channel, exchange, properties, routingKey }: ConsumerDelivery,
  queue: string,
  at: number
): void => {
  const deaths = deathsOf(properties.headers)
  const isSame = (death: FieldValue) => isTable(death) && death["queue"] === queue && death["reason"] === "rejected"
  const same = deaths.find(isSame)
  const count = isTable(same) && typeof same["count"] === "number" && same["count"] > 0 ? same["count"] : 0
  const from = exchange.toWellFormed()
  headers["x-death"] = [
    {
      // RabbitMQ increments 64-bit integers only.
      count: BigInt(Math.trunc(count)) + 1n,
      reason: "rejected",
      queue,
      time: new Date(at),
      exchange: from,
      "routing-keys": [routingKey.toWellFormed()]
    },
    ...deaths.filter((death) => !isSame(death))
  ]
  const event: Headers = { reason: "rejected", queue, exchange: from }
  // RabbitMQ adds the last one from 3.13 on.
  const kinds = isAtLeast(channel.link.product, 3, 13) ? ["first", "last"] : ["first"]
  for (const kind of kinds) {
    if (kind === "first" && headers["x-first-death-queue"] !== undefined) continue
    for (const key of Object.keys(event)) headers[`x-${kind}-death-${key}`] = event[key]
  }
}
