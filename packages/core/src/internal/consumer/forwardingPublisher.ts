/**
 * Publishes messages that a broker has delivered. The broker has accepted such a message before, so it is expected to
 * accept it again, unless it refuses it now.
 *
 * A publisher's limits apply to what applications publish. A message above them is published on a channel of its own:
 * if the broker refuses it, only that channel closes. The same is done with a message whose outcome is unknown because
 * the broker closed the publisher's channel for a refusal: on a channel of its own, a refusal can only concern this
 * message.
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
import { openChannel } from "../channel/openChannel.ts"
import { fail } from "../../model/failures.ts"
import { type ChannelTimeouts } from "../channel/channelHandle.ts"
import { Lease } from "../channel/lease.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import { publisherOf } from "../publisher/publisher.ts"

type Publishing = Effect.Effect<Confirmed, AmqpError.AmqpError>

/**
 * How long the broker's refusal of an exchange applies to later messages for it, in milliseconds. Each refusal closes a
 * channel that others publish on.
 */
const refusalTtl = 10_000

/** Whether waiting cannot help, because the broker, or a check before sending, refuses this message. */
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

const isCausedByRefusal = ({ cause }: AmqpError.PublishUnknown): boolean =>
  AmqpError.isAmqpErrorReason(cause) && isRefusal(cause)

export class ForwardingPublisher {
  readonly #publisher: AmqpPublisher["Service"]
  readonly #internals: ConnectionInternals
  readonly #timeouts: ChannelTimeouts
  readonly #closeTimeout: Duration.Duration
  // Contents may be large, and each message has a channel of its own.
  readonly #oneAtATime = Semaphore.makeUnsafe(1)
  /** Refusals by exchange. */
  readonly #refused = new Map<string, { readonly reason: AmqpError.AccessRefused; readonly until: number }>()

  /** @param internals used if the publisher's own connection is not known */
  constructor(
    publisher: AmqpPublisher["Service"],
    internals: ConnectionInternals,
    timeouts: ChannelTimeouts,
    config: AmqpConfig
  ) {
    this.#publisher = publisher
    this.#internals = publisherOf(publisher)?.internals ?? internals
    this.#timeouts = timeouts
    this.#closeTimeout = config.closeTimeout
  }

  /** A publisher service for messages that a broker has delivered. */
  get service(): AmqpPublisher["Service"] {
    return { ...this.#publisher, publish: this.#publish }
  }

  readonly #publish = (message: Message, options?: PublishOptions): Publishing =>
    Effect.suspend(() => {
      const exchange = message.exchange ?? ""
      const refused = this.#refused.get(exchange)
      if (refused !== undefined) {
        if (refused.until > this.#timeouts.deadlines.now) return fail(refused.reason)
        this.#refused.delete(exchange)
      }
      return this.#publisher.publish(message, options).pipe(
        Effect.catchReasons("AmqpError", {
          MessageTooLarge: (reason) => (wasSent(reason) ? fail(reason) : this.#publishOnOwnChannel(message, options)),
          PublishUnknown: (reason) =>
            isCausedByRefusal(reason) ? this.#publishOnOwnChannel(message, options) : fail(reason)
        }),
        Effect.tapError(({ reason }) =>
          Effect.sync(() => {
            if (reason._tag !== "AccessRefused") return
            this.#refused.set(exchange, { reason, until: this.#timeouts.deadlines.now + refusalTtl })
          })
        )
      )
    })

  /** Publishes on a channel of its own, on the publishers' connection. */
  #publishOnOwnChannel(message: Message, options: PublishOptions | undefined): Publishing {
    return this.#oneAtATime.withPermits(1)(
      Effect.suspend(() => {
        const lease = new Lease(this.#timeouts)
        let channel: Channels.Channel | undefined
        return Effect.flatMap(this.#internals.nextLink, (link) =>
          openChannel(link, "confirm", this.#timeouts.continuationTimeout, (opened) => {
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
