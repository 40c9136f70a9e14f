/**
 * Publishing what a broker has delivered: what it has taken once it takes again, unless it says no.
 *
 * The limits of a publisher are for what applications publish. A message above them is published on a channel of its own:
 * should the broker refuse it, that ends this channel alone. So is one of which the outcome is unknown because the broker
 * has closed the publisher's channel over a refusal: on a channel of its own there is no doubt whose refusal it is.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { AmqpConfig } from "../../model/config.ts"
import type { Confirmed, PublishOptions } from "../../model/channel.ts"
import * as AmqpError from "../../model/error.ts"
import type { Message } from "../../model/message.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import type * as Channels from "../channel/channel.ts"
import { openChannel } from "../channel/opening.ts"
import { fail } from "../../model/failures.ts"
import { type Terms } from "../channel/handle.ts"
import { Lease } from "../channel/lease.ts"
import type { Links } from "../connection/links.ts"
import { publisherOf } from "../publisher/publisher.ts"

type Publishing = Effect.Effect<Confirmed, AmqpError.AmqpError>

/**
 * How long the broker's refusal of an exchange holds for what is published to it next, in milliseconds: each refusal ends
 * a channel that others publish on.
 */
const refusalHolds = 10_000

/** Whether waiting cannot help: the broker, or a check before anything is sent, refuses this message. */
export const isRefusal = (reason: AmqpError.AmqpErrorReason): boolean => {
  switch (reason._tag) {
    case "InvalidArgument":
    case "MessageTooLarge":
    case "AccessRefused":
    case "NotFound":
    case "PreconditionFailed":
      return true
    default:
      return false
  }
}

const wasSent = (reason: AmqpError.MessageTooLarge): boolean => reason.replyCode !== undefined

const isOverRefusal = ({ cause }: AmqpError.PublishUnknown): boolean =>
  AmqpError.isAmqpErrorReason(cause) && isRefusal(cause)

export class PublishingAgain {
  readonly #publisher: AmqpPublisher["Service"]
  readonly #links: Links
  readonly #terms: Terms
  readonly #closeTimeout: Duration.Duration
  // Their contents may be large, and each has a channel.
  readonly #oneAtATime = Semaphore.makeUnsafe(1)
  /** By exchange. */
  readonly #refused = new Map<string, { readonly reason: AmqpError.AccessRefused; readonly until: number }>()

  /** @param links where publishers have no connection that is known */
  constructor(publisher: AmqpPublisher["Service"], links: Links, terms: Terms, config: AmqpConfig) {
    this.#publisher = publisher
    this.#links = publisherOf(publisher)?.links ?? links
    this.#terms = terms
    this.#closeTimeout = config.closeTimeout
  }

  /** The publisher for what a broker has delivered. */
  get service(): AmqpPublisher["Service"] {
    return { ...this.#publisher, publish: this.#publish }
  }

  readonly #publish = (message: Message, options?: PublishOptions): Publishing =>
    Effect.suspend(() => {
      const exchange = message.exchange ?? ""
      const refused = this.#refused.get(exchange)
      if (refused !== undefined) {
        if (refused.until > this.#terms.deadlines.now) return fail(refused.reason)
        this.#refused.delete(exchange)
      }
      return this.#publisher.publish(message, options).pipe(
        Effect.catchReasons("AmqpError", {
          MessageTooLarge: (reason) => (wasSent(reason) ? fail(reason) : this.#alone(message, options)),
          PublishUnknown: (reason) => (isOverRefusal(reason) ? this.#alone(message, options) : fail(reason))
        }),
        Effect.tapError(({ reason }) =>
          Effect.sync(() => {
            if (reason._tag !== "AccessRefused") return
            this.#refused.set(exchange, { reason, until: this.#terms.deadlines.now + refusalHolds })
          })
        )
      )
    })

  /** On a channel of its own, of the publishers' connection. */
  #alone(message: Message, options: PublishOptions | undefined): Publishing {
    return this.#oneAtATime.withPermits(1)(
      Effect.suspend(() => {
        const lease = new Lease(this.#terms)
        let channel: Channels.Channel | undefined
        return Effect.flatMap(this.#links.next, (link) =>
          openChannel(link, "confirm", this.#terms.continuationTimeout, (opened) => {
            channel = opened
            lease.begin(opened)
          })
        ).pipe(
          Effect.andThen(Effect.suspend(() => lease.publish(message, options))),
          Effect.ensuring(
            Effect.suspend(() => {
              lease.end()
              return channel?.close(this.#closeTimeout) ?? Effect.void
            })
          )
        )
      })
    )
  }
}
