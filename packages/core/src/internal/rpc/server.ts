/** The server side: a consumer whose handlers reply with their outcome. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
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
import { reportRefusal } from "../consumer/consuming.ts"
import { handleEach } from "../consumer/handling.ts"
import { readHandling } from "../consumer/options.ts"
import { invalidArgument } from "../wire/fieldTable.ts"
import { isInvalidArgument, formatValue } from "../wire/optionTable.ts"
import { type Outgoing, toOutgoing } from "../wire/properties.ts"
import { obstacle } from "../channel/publishing.ts"
import { ownPublisherOf, type Publisher } from "../publisher/publisher.ts"
import { clockOf, measuresOf, publishingAccessOf, queuesOf } from "../consumer/runningConsumers.ts"
import type { ConsumerMeasures } from "../metrics/measures.ts"
import * as Logging from "../telemetry/logging.ts"
import { LogLimiter } from "../telemetry/logLimiter.ts"
import { failureOf } from "../message/failure.ts"
import { Deadlines } from "../waiting/deadlines.ts"
import { readServeOptions, type RepliesTo } from "./options.ts"
import { type Codecs, codecsOf } from "./procedure.ts"
import { isDirectReplyTo, isReplyAddress, isWellFormedAddress } from "../wire/directReply.ts"
import * as Tracing from "../telemetry/tracing.ts"
import { isStream } from "../connection/knownQueues.ts"

type Any = Schema.Constraint

export const unroutable = Metric.counter("amqp.rpc.unroutable_replies", {
  description: "Replies that could not be delivered, because their address no longer existed or was invalid",
  incremental: true
})

export const refusedReplies = Metric.counter("amqp.rpc.refused_replies", {
  description: "Requests that were rejected, because their server does not reply to the queue in their replyTo",
  incremental: true
})

/** The number of times that a failed reply is sent again. */
const retries = 2

/**
 * The largest reply, in bytes, that is sent on the channel of its request. A larger reply goes through the publisher,
 * as does one that exceeds the publisher's `maxMessageSize`.
 */
const smallReply = 4096

const mandatory: PublishOptions = { mandatory: true }
// RabbitMQ returns every mandatory message to a direct reply-to address, even those that it has delivered.
const notMandatory: PublishOptions = { mandatory: false }

/** The content and the type of a reply. */
type Answer = Pick<Message, "content" | "contentType" | "contentEncoding"> & {
  readonly type: "success" | "failure" | "defect"
}

/**
 * A reply of type `defect`. Its message must not contain internal details of the server: those belong in the log only.
 */
const defect = (message: string): Answer => ({
  type: "defect",
  content: JSON.stringify({ message }),
  contentType: "application/json",
  contentEncoding: "utf-8"
})

/**
 * The failure of a request whose reply could not be sent, or of a request without `replyTo` that failed. The failure
 * policy decides what happens to the request.
 */
class ReplyFailed {
  readonly message: string
  readonly reason: AmqpError.AmqpErrorReason | undefined

  constructor(message: string, reason?: AmqpError.AmqpErrorReason) {
    this.message = message
    this.reason = reason
  }
}

// A request without `replyTo` that failed is delivered again, as a failed delivery of a consumer is. If the reply could
// not be sent for a temporary reason, the request is delivered again too: another server, or this one on a new
// connection, may be able to reply. If the reason is not temporary, or the redelivered request may have ended the
// connection again, the request is rejected.
const onFailure = ({ reason }: ReplyFailed, { redelivered }: Delivery): Policy => {
  if (reason === undefined) return redeliver
  const isTemporary = reason.isRetryable || reason._tag === "PoolClosed"
  return isTemporary && !(redelivered && mayHaveEndedConnection(reason)) ? redeliver : deadLetter
}

class Server<P extends Any, S extends Any, E extends Any, R> {
  readonly #name: string
  readonly #codecs: Codecs<P, S, E>
  readonly #handler: (payload: P["Type"], request: Delivery) => Effect.Effect<S["Type"], E["Type"], R>
  readonly #publisher: AmqpConsumer["Service"]["publisher"]
  readonly #replies: ConsumerMeasures["replies"]
  /**
   * The publisher of the service, whose link can be compared with a request's. `undefined` if the service is written by
   * hand, or is a copy that replaces `publish`.
   */
  readonly #ownPublisher: Publisher | undefined
  /** The largest reply, in bytes, that may be written on its request's channel. */
  readonly #maxUnconfirmedReply: number
  /**
   * The link of the requests, after a direct reply was confirmed on it. So the user of this link has the permission to
   * reply.
   */
  #verifiedLink: Link | undefined = undefined
  #lastValidAddress: string | undefined = undefined
  readonly #repliesTo: RepliesTo
  /** Limits the lines about requests, so that a client cannot fill the log. */
  readonly #logLimiter: LogLimiter

  constructor(
    name: string,
    codecs: Codecs<P, S, E>,
    handler: (payload: P["Type"], request: Delivery) => Effect.Effect<S["Type"], E["Type"], R>,
    consumer: AmqpConsumer["Service"],
    repliesTo: RepliesTo,
    logLimiter: LogLimiter
  ) {
    this.#name = name
    this.#logLimiter = logLimiter
    this.#repliesTo = repliesTo
    this.#codecs = codecs
    this.#handler = handler
    this.#publisher = consumer.publisher
    this.#replies = measuresOf(consumer).replies
    this.#ownPublisher = ownPublisherOf(consumer.publisher)
    this.#maxUnconfirmedReply = Math.min(smallReply, this.#ownPublisher?.settings.maxMessageSize ?? smallReply)
  }

  /**
   * Handles a request. It completes when the broker has confirmed the reply, or when the reply is written on the
   * channel of the request, on which the acknowledgement follows it.
   */
  readonly handle = (request: Delivery) => {
    const { replyTo } = request.properties
    if (replyTo !== undefined && replyTo !== "" && !isReplyAddress(replyTo) && !this.#repliesTo(replyTo)) {
      return this.#refuseReplyTo(request, replyTo)
    }
    return Effect.flatMap(this.#answer(request), ([answer, problem]) => {
      this.#replies[answer.type]++
      Tracing.recordReply(Fiber.getCurrent(), answer.type)
      if (replyTo !== undefined && replyTo !== "") return this.#reply(request, replyTo, answer)
      // A request without `replyTo` fails as a delivery of a consumer fails.
      return problem === undefined ? Effect.void : Effect.fail(new ReplyFailed(problem))
    })
  }

  /** Handles the request. Returns the reply, and the problem if there was one. */
  #answer(request: Delivery) {
    const { type } = request.properties
    if (type !== undefined && type !== this.#name) {
      return this.#refuse(
        request,
        "OtherProcedure",
        `type: expected the procedure ${this.#name}, got ${JSON.stringify(type)}`
      )
    }
    return Effect.matchCauseEffect(this.#codecs.payload.decode(request), {
      onFailure: (cause) => {
        const found = Cause.findError(cause)
        return Result.isSuccess(found)
          ? this.#refuse(
              request,
              failureOf(found.success).tag,
              `its payload cannot be decoded: ${found.success.message}`
            )
          : this.#failed(request, "could not be called: the schema of its payload died", cause)
      },
      onSuccess: (payload) =>
        Effect.matchCauseEffect(Effect.scoped(Effect.suspend(() => this.#handler(payload, request))), {
          onSuccess: (value) =>
            Effect.matchCauseEffect(this.#codecs.success.encode(value, envelope), {
              onSuccess: (message): Effect.Effect<Outcome> =>
                Effect.succeed([{ ...message, type: "success" }, undefined]),
              onFailure: (cause) => this.#failed(request, "returned a value that cannot be encoded", cause)
            }),
          onFailure: (cause) => {
            const found = Cause.findError(cause)
            if (Result.isFailure(found)) return this.#failed(request, "died", cause)
            return Effect.matchCauseEffect(this.#codecs.error.encode(found.success, envelope), {
              onSuccess: (message): Effect.Effect<Outcome> =>
                Effect.succeed([{ ...message, type: "failure" }, "the handler failed"]),
              onFailure: (cause) => this.#failed(request, "failed with an error that cannot be encoded", cause)
            })
          }
        })
    })
  }

  #about(request: Delivery): Readonly<Record<string, unknown>> {
    const channel = request instanceof ConsumerDelivery ? Logging.channelAnnotations(request.channel) : {}
    return { procedure: this.#name, messageId: request.properties.messageId, ...channel }
  }

  /** Refuses a request because of a mistake of the client. The reply says what is wrong. */
  #refuse(request: Delivery, error: string, because: string): Effect.Effect<Outcome> {
    const message = `the request was refused: ${because}`
    const title = "AMQP RPC request refused"
    return Effect.as(
      this.#logLimiter.write(
        { title, isError: false, error },
        Effect.suspend(() =>
          Effect.annotateLogs(Effect.logWarning(title), { ...this.#about(request), reason: because })
        )
      ),
      [defect(message), message]
    )
  }

  /** Reports a mistake of the server. The reply does not contain its details. */
  #failed(request: Delivery, what: string, cause: Cause.Cause<unknown>): Effect.Effect<Outcome> {
    const message = `the handler ${what}`
    const title = `AMQP RPC handler ${what}`
    return Effect.as(
      Effect.andThen(
        Tracing.recordDefect(cause),
        this.#logLimiter.write(
          { title, isError: true, error: failureOf(Cause.squash(cause)).tag },
          Effect.suspend(() => Effect.annotateLogs(Effect.logError(title, cause), this.#about(request)))
        )
      ),
      [defect(message), message]
    )
  }

  /**
   * Rejects a request whose `replyTo` is not accepted. The handler does not run, because its outcome could not be sent
   * to the client.
   */
  #refuseReplyTo(request: Delivery, replyTo: string): Effect.Effect<void> {
    const title = "AMQP RPC request rejected because of its replyTo"
    const refused = Effect.suspend(() => {
      if (request instanceof ConsumerDelivery && !request.isSettled) request.settle("discard")
      return this.#logLimiter.write(
        { title, isError: false },
        Effect.suspend(() =>
          Effect.annotateLogs(
            Effect.logWarning(
              `${title}: this server does not reply to that queue. To accept it, set the option replyTo of AmqpRpc.serve`
            ),
            { ...this.#about(request), replyTo: formatValue(replyTo) }
          )
        )
      )
    })
    return Effect.andThen(Metric.update(refusedReplies, 1), refused)
  }

  #reply(request: Delivery, replyTo: string, answer: Answer): Effect.Effect<void, ReplyFailed> {
    // This is true only for RabbitMQ's addresses. Replies to LavinMQ's addresses are mandatory, because LavinMQ returns
    // only messages that it could not deliver.
    const isDirect = isDirectReplyTo(replyTo)
    if (isDirect && !this.#isValidAddress(replyTo)) return this.#countUndelivered(request, replyTo)
    const { correlationId } = request.properties
    const message: Message = { ...answer, routingKey: replyTo, correlationId, persistent: false }
    if (isDirect && this.#canWriteOnRequestChannel(request)) {
      const { channel } = request
      const { frameMax } = channel.link
      const outgoing = toOutgoing(message, frameMax)
      // This is decided before the span opens, because the publisher opens its own span.
      if (!isInvalidArgument(outgoing) && outgoing.content.length <= this.#maxUnconfirmedReply) {
        const fiber = Fiber.getCurrent()
        if (fiber !== undefined && Tracing.isTraced(fiber)) {
          return Effect.flatMap(
            Tracing.withPublishSpan(message, channel.link, (message) =>
              Effect.sync(() => tryWrite(channel, toOutgoing(message, frameMax)))
            ),
            (isWritten) => (isWritten ? Effect.void : this.#confirmed(request, replyTo, answer, message))
          )
        }
        if (tryWrite(channel, outgoing)) return Effect.void
      }
    }
    return this.#confirmed(request, replyTo, answer, message)
  }

  /**
   * Whether the reply may be written on the channel of its request, without a confirm. The broker processes the frames
   * of a channel in order, and does not store a direct reply in a queue. So when the broker reads the acknowledgement
   * of the request, it has already processed the reply, and a confirm could report nothing more.
   *
   * If the broker refuses the reply, it closes the channel, and the request is delivered again. The reply to a
   * redelivered request is sent with a confirm, and retried.
   */
  #canWriteOnRequestChannel(request: Delivery): request is ConsumerDelivery {
    return (
      !request.redelivered &&
      request instanceof ConsumerDelivery &&
      !request.isSettled &&
      request.channel.link === this.#verifiedLink &&
      obstacle(request.channel) === undefined
    )
  }

  #confirmed(request: Delivery, replyTo: string, answer: Answer, message: Message): Effect.Effect<void, ReplyFailed> {
    const isDirect = isDirectReplyTo(replyTo)
    const confirmed = () => {
      if (isDirect && request instanceof ConsumerDelivery) {
        const { link } = request.channel
        // The publisher may use another connection, and therefore another user, whose permissions say nothing about
        // this link.
        if (this.#ownPublisher?.link === link) this.#verifiedLink = link
      }
      return Effect.void
    }
    const failed = (reason: AmqpError.AmqpErrorReason) => {
      this.#verifiedLink = undefined
      switch (reason._tag) {
        case "PublishReturned":
          return this.#countUndelivered(request, replyTo)
        case "MessageTooLarge":
        case "InvalidArgument":
          if (answer.type === "defect") break
          return Effect.flatMap(
            this.#failed(request, "ended with a reply that cannot be sent", Cause.fail(reason)),
            ([answer]) => this.#reply(request, replyTo, answer)
          )
      }
      return Effect.fail(new ReplyFailed(`the reply could not be sent: ${reason.message}`, reason))
    }
    return this.#publish(message, isDirect ? notMandatory : mandatory, retries, confirmed, failed)
  }

  // `Effect.retry` is not used, because it would create a schedule for every reply, although few replies fail.
  #publish(
    message: Message,
    options: PublishOptions,
    retries: number,
    onSuccess: () => Effect.Effect<void>,
    onFailure: (reason: AmqpError.AmqpErrorReason) => Effect.Effect<void, ReplyFailed>
  ): Effect.Effect<void, ReplyFailed> {
    return Effect.matchEffect(this.#publisher.publish(message, options), {
      onFailure: ({ reason }) =>
        retries > 0 && reason.isRetryable && !mayHaveEndedConnection(reason)
          ? this.#publish(message, options, retries - 1, onSuccess, onFailure)
          : onFailure(reason),
      onSuccess
    })
  }

  /**
   * Whether a direct reply-to address is well-formed. The last valid one is remembered, because a client sends many
   * requests with the same address.
   */
  #isValidAddress(replyTo: string): boolean {
    if (replyTo === this.#lastValidAddress) return true
    if (!isWellFormedAddress(replyTo)) return false
    this.#lastValidAddress = replyTo
    return true
  }

  /** Counts a reply that cannot be delivered, because the client's address no longer exists or is invalid. */
  #countUndelivered(request: Delivery, replyTo: string): Effect.Effect<void> {
    return Effect.andThen(
      Metric.update(unroutable, 1),
      Effect.annotateLogs(Effect.logDebug("AMQP RPC reply dropped: its address no longer exists or is invalid"), {
        ...this.#about(request),
        replyTo
      })
    )
  }
}

/** Writes a reply on a channel. Returns whether it was written. */
const tryWrite = (channel: Channel, outgoing: Outgoing | AmqpError.InvalidArgument): boolean => {
  if (isInvalidArgument(outgoing)) return false
  try {
    channel.publish(outgoing)
    return true
  } catch {
    // The channel is closing and no longer sends.
    return false
  }
}

// Whether the broker closed the connection with an internal error (541), which this message may have caused. Such a
// message is not sent again at once, because it could end each new connection.
const mayHaveEndedConnection = (reason: AmqpError.AmqpErrorReason): boolean =>
  reason._tag === "PublishUnknown" && Predicate.hasProperty(reason.cause, "replyCode") && reason.cause.replyCode === 541

type Outcome = readonly [answer: Answer, problem: string | undefined]

// The routing key is set when the reply is published.
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
  Effect.flatMap(AmqpConsumer, (consumer) =>
    Effect.withFiber((fiber) => {
      const codecs = codecsOf(procedure)
      const queue = String((procedure as Partial<typeof procedure> | null | undefined)?.queue)
      const notStarted = (reason: AmqpError.InvalidArgument) =>
        reportRefusal(consumer, publishingAccessOf(consumer), queue, options, reason)
      if (isInvalidArgument(codecs)) return notStarted(codecs)
      if (typeof handler !== "function") {
        return notStarted(invalidArgument("AmqpRpc.serve", "handler", "a function", formatValue(handler)))
      }
      const settings = readServeOptions(options)
      if (isInvalidArgument(settings)) return notStarted(settings)
      const { consuming, repliesTo } = settings
      const clock = clockOf(consumer) ?? fiber.getRef(Clock.Clock)
      const fork = Effect.runForkWith(Context.add(fiber.context, Clock.Clock, clock))
      const deadlines = new Deadlines(clock, fork)
      const logLimiter = new LogLimiter(deadlines, fork, { procedure: procedure.name, queue })
      const server = new Server(procedure.name, codecs, handler, consumer, repliesTo, logLimiter)
      if (isStream(queuesOf(consumer), queue)) {
        const expected =
          "a queue that is not a stream (requests stay in a stream, so every server would handle all of them)"
        return notStarted(invalidArgument("AmqpRpc.serve", "queue", expected, formatValue(queue)))
      }
      const handling = readHandling(queue, { ...consuming, onFailure }, server.handle, undefined)
      if (isInvalidArgument(handling)) return notStarted(handling)
      return Effect.ensuring(
        handleEach(consumer, handling, undefined, server.handle, procedure.name),
        Effect.andThen(
          logLimiter.end,
          Effect.sync(() => deadlines.stop())
        )
      )
    })
  )
