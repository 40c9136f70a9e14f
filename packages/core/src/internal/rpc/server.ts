/** The server side: a consumer whose handlers end with a reply. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type Delivery, AmqpConsumer } from "../../model/consumer.ts"
import { redeliver, deadLetter, type Policy } from "../../model/policies.ts"
import type { PublishOptions } from "../../model/channel.ts"
import type * as AmqpError from "../../model/error.ts"
import type { Channel } from "../channel/channel.ts"
import type { Link } from "../connection/link.ts"
import type { Message } from "../../model/message.ts"
import type { Procedure, ServeOptions } from "../../model/rpc.ts"
import { ConsumerDelivery } from "../consumer/delivery.ts"
import { refuse } from "../consumer/consuming.ts"
import { handleEach } from "../consumer/handling.ts"
import { readHandling } from "../consumer/options.ts"
import { refused } from "../wire/fieldTable.ts"
import { isRefused, shown } from "../wire/optionTable.ts"
import { fail } from "../../model/failures.ts"
import { type Outgoing, toPublish } from "../wire/properties.ts"
import { obstacle } from "../channel/publishing.ts"
import { ownPublisherOf, type Publisher } from "../publisher/publisher.ts"
import { measuresOf, publishingAccessOf, queuesOf } from "../consumer/running.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import * as Logging from "../telemetry/logging.ts"
import { readServeOptions, type RepliesTo } from "./options.ts"
import { type Codecs, codecsOf } from "./procedure.ts"
import { isDirect, isReplyAddress, isSound } from "../wire/directReply.ts"
import * as Tracing from "../telemetry/tracing.ts"
import { isStream } from "../connection/knownQueues.ts"

type Any = Schema.Constraint

export const unroutable = Metric.counter("amqp.rpc.unroutable_replies", {
  description: "Replies that could not be delivered, because the address they were to go to was gone, or none",
  incremental: true
})

export const refusedReplies = Metric.counter("amqp.rpc.refused_replies", {
  description: "Requests that were rejected because their server does not reply to the queue that they name",
  incremental: true
})

/** How often refused requests are logged, in milliseconds: whoever may send requests must not be able to fill the log. */
const refusalsLoggedEvery = 10_000

/** How often a reply is tried again. */
const retries = 2

/** A reply of more bytes goes by the publisher, as one that is larger than that takes. */
const smallReply = 4096

const mandatory: PublishOptions = { mandatory: true }
// RabbitMQ gives back every mandatory message to a direct reply-to address, also those that it has delivered.
const straight: PublishOptions = { mandatory: false }

/** What is said, and as what. */
type Answer = Pick<Message, "content" | "contentType" | "contentEncoding"> & {
  readonly type: "success" | "failure" | "defect"
}

/** What the client learns of what went wrong here: nothing that the log says. */
const defect = (message: string): Answer => ({
  type: "defect",
  content: JSON.stringify({ message }),
  contentType: "application/json",
  contentEncoding: "utf-8"
})

/** A reply that could not be sent, or that nobody wants: for the policy. */
class NotAnswered {
  readonly message: string
  readonly reason: AmqpError.AmqpErrorReason | undefined

  constructor(message: string, reason?: AmqpError.AmqpErrorReason) {
    this.message = message
    this.reason = reason
  }
}

// Another server, or this one with a new connection, may do better. A request that was handled and cannot be answered is of
// no more use; one that was not handled, and wants no answer, comes again as it does for every consumer.
const onFailure = ({ reason }: NotAnswered, { redelivered }: Delivery): Policy => {
  if (reason === undefined) return redeliver
  const mayPass = reason.isRetryable || reason._tag === "PoolClosed"
  return mayPass && !(redelivered && isFatal(reason)) ? redeliver : deadLetter
}

class Server<P extends Any, S extends Any, E extends Any, R> {
  readonly #name: string
  readonly #codecs: Codecs<P, S, E>
  readonly #handler: (payload: P["Type"], request: Delivery) => Effect.Effect<S["Type"], E["Type"], R>
  readonly #publisher: AmqpConsumer["Service"]["publisher"]
  readonly #replies: ConsumerMeasures["replies"]
  /** Of which the link is known; undefined for a service that was made by hand, or has a `publish` of its own. */
  readonly #known: Publisher | undefined
  /** The largest reply in bytes that may be written behind its request. */
  readonly #largest: number
  /** The connection on which a direct reply was confirmed, and requests come: there this user may reply. */
  #proven: Link | undefined = undefined
  #soundAddress: string | undefined = undefined
  readonly #repliesTo: RepliesTo
  /** Requests that were refused for their `replyTo` since the log has said so, and when it has. */
  #refusals = 0
  #refusalsLoggedAt = -Infinity

  constructor(
    name: string,
    codecs: Codecs<P, S, E>,
    handler: (payload: P["Type"], request: Delivery) => Effect.Effect<S["Type"], E["Type"], R>,
    consumer: AmqpConsumer["Service"],
    repliesTo: RepliesTo
  ) {
    this.#name = name
    this.#repliesTo = repliesTo
    this.#codecs = codecs
    this.#handler = handler
    this.#publisher = consumer.publisher
    this.#replies = measuresOf(consumer).replies
    this.#known = ownPublisherOf(consumer.publisher)
    this.#largest = Math.min(smallReply, this.#known?.settings.maxMessageSize ?? smallReply)
  }

  /** From the request to the reply that the broker has, or will have before it reads what follows. */
  readonly handle = (request: Delivery) => {
    const { replyTo } = request.properties
    if (replyTo !== undefined && replyTo !== "" && !isReplyAddress(replyTo) && !this.#repliesTo(replyTo)) {
      return this.#refuseReplyTo(request, replyTo)
    }
    return Effect.flatMap(this.#answer(request), ([answer, problem]) => {
      this.#replies[answer.type]++
      Tracing.answers(Fiber.getCurrent(), answer.type)
      if (replyTo !== undefined && replyTo !== "") return this.#reply(request, replyTo, answer)
      // There was nobody to tell.
      return problem === undefined ? Effect.void : Effect.fail(new NotAnswered(problem))
    })
  }

  /** What is to be replied; and what went wrong, if so. */
  #answer(request: Delivery) {
    const { type } = request.properties
    if (type !== undefined && type !== this.#name) {
      return this.#refuse(
        request,
        `it is for the procedure ${JSON.stringify(type)}, and this server is for ${this.#name} alone`
      )
    }
    return Effect.matchCauseEffect(this.#codecs.payload.decode(request), {
      onFailure: (cause) => {
        const found = Cause.findError(cause)
        return Result.isSuccess(found)
          ? this.#refuse(request, `it cannot be read: ${found.success.message}`)
          : this.#failed(request, "could not be called: the schema of its payload has died", cause)
      },
      onSuccess: (payload) =>
        Effect.matchCauseEffect(Effect.scoped(Effect.suspend(() => this.#handler(payload, request))), {
          onSuccess: (value) =>
            Effect.matchCauseEffect(this.#codecs.success.encode(value, envelope), {
              onSuccess: (message): Effect.Effect<Outcome> =>
                Effect.succeed([{ ...message, type: "success" }, undefined]),
              onFailure: (cause) => this.#failed(request, "has returned what cannot be written", cause)
            }),
          onFailure: (cause) => {
            const found = Cause.findError(cause)
            if (Result.isFailure(found)) return this.#failed(request, "has died", cause)
            return Effect.matchCauseEffect(this.#codecs.error.encode(found.success, envelope), {
              onSuccess: (message): Effect.Effect<Outcome> =>
                Effect.succeed([{ ...message, type: "failure" }, "its handler has failed"]),
              onFailure: (cause) => this.#failed(request, "has failed with what cannot be written", cause)
            })
          }
        })
    })
  }

  #about(request: Delivery): Readonly<Record<string, unknown>> {
    const of = request instanceof ConsumerDelivery ? Logging.ofChannel(request.channel) : {}
    return { procedure: this.#name, messageId: request.properties.messageId, ...of }
  }

  /** The client's mistake: it is told what is wrong. */
  #refuse(request: Delivery, because: string): Effect.Effect<Outcome> {
    const message = `the request was refused: ${because}`
    return Effect.as(
      Effect.logWarning("AMQP RPC request refused").pipe(
        Effect.annotateLogs({ ...this.#about(request), reason: because })
      ),
      [defect(message), message]
    )
  }

  /** The server's own: the client learns no more than that. */
  #failed(request: Delivery, what: string, cause: Cause.Cause<unknown>): Effect.Effect<Outcome> {
    const message = `its handler ${what}`
    return Effect.as(
      Effect.andThen(
        Tracing.died(cause),
        Effect.logError(`AMQP RPC handler ${what}`, cause).pipe(Effect.annotateLogs(this.#about(request)))
      ),
      [defect(message), message]
    )
  }

  /** Nobody could be told what comes of it, so nothing is done for it. */
  #refuseReplyTo(request: Delivery, replyTo: string): Effect.Effect<void> {
    const refused = Effect.suspend(() => {
      if (request instanceof ConsumerDelivery && !request.isSettled) request.settle("discard")
      this.#refusals++
      const now = performance.now()
      if (now - this.#refusalsLoggedAt < refusalsLoggedEvery) return Effect.void
      const requests = this.#refusals
      this.#refusals = 0
      this.#refusalsLoggedAt = now
      return Effect.annotateLogs(
        Effect.logWarning(
          "AMQP RPC requests rejected: they want their reply in a queue, and this server replies by direct reply-to. See the option replyTo of AmqpRpc.serve"
        ),
        { ...this.#about(request), replyTo: shown(replyTo), requests }
      )
    })
    return Effect.andThen(Metric.update(refusedReplies, 1), refused)
  }

  #reply(request: Delivery, replyTo: string, answer: Answer): Effect.Effect<void, NotAnswered> {
    // RabbitMQ's alone. LavinMQ gives back only what it has not delivered, so replies to its addresses are mandatory.
    const direct = isDirect(replyTo)
    if (direct && !this.#isSound(replyTo)) return this.#undelivered(request, replyTo)
    const { correlationId } = request.properties
    const message: Message = { ...answer, routingKey: replyTo, correlationId, persistent: false }
    if (direct && this.#mayWrite(request)) {
      const { channel } = request
      const { frameMax } = channel.link
      const outgoing = toPublish(message, frameMax)
      // Known before the span opens: the publisher opens its own.
      if (!isRefused(outgoing) && outgoing.content.length <= this.#largest) {
        const fiber = Fiber.getCurrent()
        if (fiber !== undefined && Tracing.isTraced(fiber)) {
          return Effect.flatMap(
            Tracing.publishing(message, channel.link, (message) =>
              Effect.sync(() => write(channel, toPublish(message, frameMax)))
            ),
            (isWritten) => (isWritten ? Effect.void : this.#confirmed(request, replyTo, answer, message))
          )
        }
        if (write(channel, outgoing)) return Effect.void
      }
    }
    return this.#confirmed(request, replyTo, answer, message)
  }

  /**
   * Whether the reply may go by the channel that the request came by. A channel does in order what it is sent, and a direct
   * reply is in no queue: when the broker reads the acknowledgement behind it, all that a confirm could tell has happened.
   *
   * What the broker does not take ends the channel, and the request comes again: then its reply is confirmed, and tried again.
   */
  #mayWrite(request: Delivery): request is ConsumerDelivery {
    return (
      !request.redelivered &&
      request instanceof ConsumerDelivery &&
      !request.isSettled &&
      request.channel.link === this.#proven &&
      obstacle(request.channel) === undefined
    )
  }

  #confirmed(request: Delivery, replyTo: string, answer: Answer, message: Message): Effect.Effect<void, NotAnswered> {
    const direct = isDirect(replyTo)
    const confirmed = () => {
      if (direct && request instanceof ConsumerDelivery) {
        const { link } = request.channel
        // The publisher may have another connection, and with it another user.
        if (this.#known?.link === link) this.#proven = link
      }
      return Effect.void
    }
    const failed = (reason: AmqpError.AmqpErrorReason) => {
      this.#proven = undefined
      switch (reason._tag) {
        case "PublishReturned":
          return this.#undelivered(request, replyTo)
        case "MessageTooLarge":
        case "InvalidArgument":
          if (answer.type === "defect") break
          return Effect.flatMap(
            this.#failed(request, "has ended with a reply that cannot be sent", Cause.fail(reason)),
            ([answer]) => this.#reply(request, replyTo, answer)
          )
      }
      return Effect.fail(new NotAnswered(`the reply could not be sent: ${reason.message}`, reason))
    }
    return this.#publish(message, direct ? straight : mandatory, retries, confirmed, failed)
  }

  // No `Effect.retry`: it makes a schedule for each reply, for the sake of one that fails.
  #publish(
    message: Message,
    options: PublishOptions,
    retries: number,
    onSuccess: () => Effect.Effect<void>,
    onFailure: (reason: AmqpError.AmqpErrorReason) => Effect.Effect<void, NotAnswered>
  ): Effect.Effect<void, NotAnswered> {
    return Effect.matchEffect(this.#publisher.publish(message, options), {
      onFailure: ({ reason }) =>
        retries > 0 && reason.isRetryable && !isFatal(reason)
          ? this.#publish(message, options, retries - 1, onSuccess, onFailure)
          : onFailure(reason),
      onSuccess
    })
  }

  /** A client asks again and again from the same address. */
  #isSound(replyTo: string): boolean {
    if (replyTo === this.#soundAddress) return true
    if (!isSound(replyTo)) return false
    this.#soundAddress = replyTo
    return true
  }

  /** The client is gone, or never was. */
  #undelivered(request: Delivery, replyTo: string): Effect.Effect<void> {
    return Effect.andThen(
      Metric.update(unroutable, 1),
      Effect.annotateLogs(Effect.logDebug("AMQP RPC reply to nobody"), { ...this.#about(request), replyTo })
    )
  }
}

/** Whether it could be written. */
const write = (channel: Channel, outgoing: Outgoing | AmqpError.InvalidArgument): boolean => {
  if (isRefused(outgoing)) return false
  try {
    channel.publish(outgoing)
    return true
  } catch {
    // The channel is closing, and sends nothing any more.
    return false
  }
}

// The broker has died of something on that connection, and it may have been this: not three times in a row.
const isFatal = (reason: AmqpError.AmqpErrorReason): boolean =>
  reason._tag === "PublishUnknown" && Predicate.hasProperty(reason.cause, "replyCode") && reason.cause.replyCode === 541

type Outcome = readonly [answer: Answer, problem: string | undefined]

// Where it goes is said later.
const envelope = { routingKey: "" }

export const serve = <P extends Any, S extends Any, E extends Any, R>(
  procedure: Procedure<P, S, E>,
  handler: (payload: P["Type"], request: Delivery) => Effect.Effect<S["Type"], E["Type"], R>,
  options?: ServeOptions
): Effect.Effect<
  never,
  AmqpError.AmqpError,
  AmqpConsumer | Exclude<R | P["DecodingServices"] | S["EncodingServices"] | E["EncodingServices"], Scope.Scope>
> =>
  Effect.flatMap(AmqpConsumer, (consumer) => {
    const codecs = codecsOf(procedure)
    if (isRefused(codecs)) return fail(codecs)
    const { queue } = procedure
    const notStarted = (reason: AmqpError.InvalidArgument) =>
      refuse(consumer, publishingAccessOf(consumer), queue, options, reason)
    if (typeof handler !== "function") {
      return notStarted(refused("AmqpRpc.serve", "handler", "a function", shown(handler)))
    }
    const settings = readServeOptions(options)
    if (isRefused(settings)) return notStarted(settings)
    const { consuming, repliesTo } = settings
    const server = new Server(procedure.name, codecs, handler, consumer, repliesTo)
    if (isStream(queuesOf(consumer), queue)) {
      const wants = "one that is no stream: requests stay there, and each server would answer all of them"
      return notStarted(refused("AmqpRpc.serve", "queue", wants, shown(queue)))
    }
    const handling = readHandling(queue, { ...consuming, onFailure }, server.handle, undefined)
    return isRefused(handling)
      ? notStarted(handling)
      : handleEach(consumer, handling, undefined, server.handle, procedure.name)
  })
