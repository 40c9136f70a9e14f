/**
 * RabbitMQ's consumer timeout: how long a delivery may stay unsettled. After it the broker ends the channel or the
 * consumer, and all its deliveries go back to the queue
 * (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout).
 *
 * | RabbitMQ      | of a queue (`x-consumer-timeout`) | of a consumer | what it ends                               |
 * | ------------- | --------------------------------- | ------------- | ------------------------------------------ |
 * | 3.10          | ignored                           | ignored       | the channel (406), for all queue types     |
 * | 3.11.15 - 4.2 | applies, to queues of all types   | ignored       | the channel (406), checked once per minute |
 * | 4.3           | quorum queues; otherwise a 406    | the same      | the consumer; the delivery is requeued     |
 *
 * Since 4.3 only quorum queues have a consumer timeout.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { FieldTable, FieldValue } from "../../model/message.ts"
import { isAtLeast, versionOf } from "../wire/versions.ts"
import { type KnownQueues, typeOf } from "../connection/knownQueues.ts"
import type { Start } from "./start.ts"

export const consumerTimeoutArgument = "x-consumer-timeout"

/** RabbitMQ's default, in milliseconds. */
const byDefault = 30 * 60_000

const millisOf = (value: unknown): number | undefined =>
  (typeof value === "number" || typeof value === "bigint") && value > 0 ? Number(value) : undefined

/**
 * The timeout in milliseconds that the consumer, its arguments or the queue's declaration sets. `undefined`: nothing in
 * this application sets it.
 */
export const knownConsumerTimeoutOf = (queues: KnownQueues, start: Start): number | undefined =>
  start.consumerTimeout ??
  millisOf(start.arguments[consumerTimeoutArgument]) ??
  millisOf(queues.get(start.queue)?.arguments[consumerTimeoutArgument])

/** The timeout that this application sets, or else the broker's default, in milliseconds. */
export const consumerTimeoutOf = (queues: KnownQueues, start: Start): number =>
  knownConsumerTimeoutOf(queues, start) ?? byDefault

const queueTypeOf = (queues: KnownQueues, { queue, queueType }: Start) => typeOf(queues.get(queue)) ?? queueType

/** Whether the broker accepts a timeout from a consumer of this queue. */
const isAccepted = (product: string, queues: KnownQueues, start: Start) =>
  queueTypeOf(queues, start) === "quorum" && isAtLeast(product, 4, 3)

/** Adds the consumer's own timeout to the arguments of `basic.consume` where the broker accepts it. */
export const withConsumerTimeout = (product: string, queues: KnownQueues, start: Start): Start => {
  const { arguments: table, consumerTimeout } = start
  if (consumerTimeout === undefined || !isAccepted(product, queues, start)) return start
  // A checked table may have its own keys in its prototype.
  const all: Record<string, FieldValue | undefined> = Object.create(null)
  for (const key in table) all[key] = table[key]
  all[consumerTimeoutArgument] = consumerTimeout
  return { ...start, arguments: all as FieldTable }
}

/** Where the broker takes the timeout from, if not from the consumer. */
const originOf = (product: string, queues: KnownQueues, start: Start): string => {
  if (versionOf(product) === undefined) return `it is sent to RabbitMQ only, and this broker is ${product}.`
  if (isAtLeast(product, 4, 3)) {
    return queueTypeOf(queues, start) === undefined
      ? `${product} has this timeout for quorum queues only. If this is one, say so with queueType: "quorum".`
      : `${product} has this timeout for quorum queues only.`
  }
  return isAtLeast(product, 3, 12)
    ? `${product} takes it from the queue's declaration (consumerTimeout there) or from its own configuration (consumer_timeout), not from consumers.`
    : `${product} takes it from its own configuration only (consumer_timeout).`
}

/** Logs that the consumer's timeout sets nothing on this broker, unless the queue was declared with the same timeout. */
export const logIgnoredTimeout = (
  product: string,
  queues: KnownQueues,
  start: Start,
  annotations: Readonly<Record<string, unknown>>
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { consumerTimeout, queue } = start
    if (consumerTimeout === undefined || isAccepted(product, queues, start)) return Effect.void
    const declared = millisOf(queues.get(queue)?.arguments[consumerTimeoutArgument])
    if (declared === consumerTimeout && isAtLeast(product, 3, 12)) return Effect.void
    return Effect.annotateLogs(
      Effect.logInfo(
        `AMQP consumerTimeout of ${Duration.format(Duration.millis(consumerTimeout))} sets nothing on the broker: ${originOf(product, queues, start)}`
      ),
      { queue, ...annotations }
    )
  })
