/**
 * What must be known of a queue before its messages are read: its type, whether the end of a consumer would delete it,
 * and its delivery limit.
 *
 * AMQP has no method that returns these. RabbitMQ names the difference when it refuses a declaration of a queue that
 * exists, so a declaration with a queue type that no broker has shows the type. It never creates a queue. It requires
 * the permission to configure the queue; without it, the queue is read by `basic.get`, which is slower and safe for all
 * but streams.
 */
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { Headers } from "../../model/message.ts"
import { ChannelHandle, type ChannelTimeouts } from "../channel/channelHandle.ts"
import { openChannel } from "../channel/openChannel.ts"
import { isExclusiveUse } from "../connection/brokerTexts.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import { typeOf } from "../connection/knownQueues.ts"
import { fail } from "../../model/failures.ts"
import { isAtLeast } from "../wire/versions.ts"

export interface QueueFacts {
  readonly type: "classic" | "quorum" | undefined
  /** How messages are read. The end of a consumer deletes an auto-delete queue, so such a queue has none. */
  readonly reading: "consume" | "get"
  /** Whether one message can be got: RabbitMQ refuses that for a quorum queue with a single active consumer. */
  readonly canGet: boolean
  /** The known delivery limit; `undefined` means the default of the broker. */
  readonly deliveryLimit: number | undefined
}

/** A queue type that does not exist. */
const noType = "none-of-these"

class Probe extends ChannelHandle {
  constructor(timeouts: ChannelTimeouts) {
    super(timeouts, new AmqpError.ChannelClosed({ message: "queue.declare: the channel is not open yet" }))
  }

  /** Runs one declaration on a channel of its own: the broker closes the channel when it refuses. */
  run<A>(
    internals: ConnectionInternals,
    send: (probe: Probe) => Effect.Effect<A, AmqpError.AmqpError>
  ): Effect.Effect<A, AmqpError.AmqpError> {
    return Effect.flatMap(internals.nextLink, (link) =>
      openChannel(link, "regular", this.timeouts.continuationTimeout, (channel) => {
        this.held = channel
      })
    ).pipe(Effect.andThen(send(this)), Effect.ensuring(Effect.sync(() => this.held?.abandon())))
  }

  exists(queue: string) {
    return this.request("queue.declare", (driver) => driver.queueDeclarePassive(queue), [queue])
  }

  declare(queue: string) {
    return this.request(
      "queue.declare",
      (driver) => driver.queueDeclare(queue, { durable: true, arguments: { "x-queue-type": noType } }),
      [queue]
    )
  }
}

export const refusedStream = (queue: string) =>
  new AmqpError.InvalidArgument({
    message: `AmqpDeadLetters: queue: expected a classic or a quorum queue, got the stream ${JSON.stringify(queue)}. A stream keeps its messages, so nothing can be taken out of it: read it with AmqpConsumer and the option offset.`,
    operation: "AmqpDeadLetters",
    argument: "queue"
  })

/** Whether another connection keeps the queue for itself: by an exclusive queue, or by an exclusive consumer. */
export const isExclusive = (
  reason: AmqpError.AmqpErrorReason
): reason is AmqpError.ResourceLocked | AmqpError.AccessRefused =>
  (reason._tag === "ResourceLocked" && reason.operation === "queue.declare") ||
  (reason._tag === "AccessRefused" && isExclusiveUse(reason.message))

export const exclusive = (
  queue: string,
  { _tag, message, replyCode }: AmqpError.ResourceLocked | AmqpError.AccessRefused
): AmqpError.AmqpErrorReason => {
  const name = JSON.stringify(queue)
  return new AmqpError.ResourceLocked({
    message:
      _tag === "ResourceLocked"
        ? `AmqpDeadLetters: the queue ${name} is exclusive: only the connection that has declared it may read it, and the queue is gone with that connection. Read it there with AmqpChannel, or declare the dead-letter queue without exclusive. (${message})`
        : `AmqpDeadLetters: a consumer has the queue ${name} exclusively. Stop that consumer, and try again. (${message})`,
    operation: "AmqpDeadLetters",
    replyCode
  })
}

const difference = /inequivalent arg '([^']*)' for .*but current is (?:the value )?'?([a-z]+)/s

const factsOf = (
  queue: string,
  reason: AmqpError.AmqpErrorReason,
  deliveryLimit: number | undefined
): Effect.Effect<QueueFacts, AmqpError.AmqpError> => {
  const cautious: QueueFacts = { type: undefined, reading: "get", canGet: true, deliveryLimit }
  // Only the owner of an exclusive queue gets here: others cannot even see it.
  if (reason._tag === "AccessRefused" || reason._tag === "ResourceLocked") return Effect.succeed(cautious)
  if (reason._tag !== "PreconditionFailed") return fail(reason)
  const [, argument, current] = difference.exec(reason.message) ?? []
  // RabbitMQ compares `durable` and `auto_delete` first. Only classic queues can have other values there.
  if (argument === "durable" || argument === "auto_delete") return Effect.succeed({ ...cautious, type: "classic" })
  if (argument !== "x-queue-type") return Effect.succeed(cautious)
  if (current === "stream") return fail(refusedStream(queue))
  const found = current === "quorum" ? "quorum" : "classic"
  return Effect.succeed({ type: found, reading: "consume", canGet: true, deliveryLimit })
}

/** Finds out about a queue. Fails with `NotFound` if it does not exist, and with `InvalidArgument` if it is a stream. */
export const inspect = (
  timeouts: ChannelTimeouts,
  internals: ConnectionInternals,
  queue: string,
  given: number | undefined
): Effect.Effect<QueueFacts, AmqpError.AmqpError> =>
  Effect.suspend(() => {
    const known = timeouts.queues.get(queue)
    const declared = known?.arguments["x-delivery-limit"]
    const limit = given ?? (typeof declared === "number" ? declared : undefined)
    const type = typeOf(known)
    if (type === "stream") return fail(refusedStream(queue))
    const exists = Effect.suspend(() => new Probe(timeouts).run(internals, (probe) => probe.exists(queue)))
    if (known !== undefined && type !== undefined) {
      const reading = known.autoDelete || known.exclusive ? "get" : "consume"
      return Effect.as(exists, { type, reading, canGet: true, deliveryLimit: limit } satisfies QueueFacts)
    }
    const declare = Effect.suspend(() => new Probe(timeouts).run(internals, (probe) => probe.declare(queue)))
    return Effect.andThen(
      exists,
      Effect.matchEffect(declare, {
        onSuccess: () =>
          Effect.succeed<QueueFacts>({ type: undefined, reading: "get", canGet: true, deliveryLimit: limit }),
        onFailure: ({ reason }) => factsOf(queue, reason, limit)
      })
    )
  })

/** The delivery limit that applies to a message; `Infinity`: none. */
export const limitOf = (product: string, { deliveryLimit, type }: QueueFacts, headers: Headers): number => {
  if (type === undefined && typeof headers["x-delivery-count"] !== "number") return Infinity
  if (deliveryLimit !== undefined) return deliveryLimit < 0 ? Infinity : deliveryLimit
  return isAtLeast(product, 4, 0) ? 20 : Infinity
}

/** How often a message can still be returned before the broker removes it. */
export const returnsLeft = (limit: number, headers: Headers): number => {
  const count = headers["x-delivery-count"]
  return limit - (typeof count === "number" ? count : 0)
}
