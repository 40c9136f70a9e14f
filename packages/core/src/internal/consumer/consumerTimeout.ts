/**
 * How long a delivery may stay unsettled: RabbitMQ's consumer timeout, after which it ends the channel or the consumer, and
 * all its deliveries go back (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout).
 *
 * | RabbitMQ      | of a queue (`x-consumer-timeout`)   | of a consumer      | what it ends                               |
 * | ------------- | ----------------------------------- | ------------------ | ------------------------------------------ |
 * | 3.10          | ignored                             | ignored            | the channel (406), for queues of all types |
 * | 3.11.15 - 4.2 | taken, for queues of all types      | ignored            | the channel (406), looked at once a minute |
 * | 4.3           | taken for quorum queues, else a 406 | the same           | the consumer, and the delivery goes back   |
 *
 * Since 4.3 nothing but a quorum queue has one.
 */
import type { FieldTable, FieldValue } from "../../model/message.ts"
import { isFrom } from "../wire/versions.ts"
import { type KnownQueues, typeOf } from "../connection/knownQueues.ts"
import type { Start } from "./start.ts"

export const argument = "x-consumer-timeout"

/** RabbitMQ's default, in milliseconds. */
const byDefault = 30 * 60_000

const millisOf = (value: unknown): number | undefined =>
  (typeof value === "number" || typeof value === "bigint") && value > 0 ? Number(value) : undefined

/** In milliseconds, as the consumer says, or its arguments or the queue's declaration; undefined: nothing here has set it. */
export const knownConsumerTimeoutOf = (queues: KnownQueues, start: Start): number | undefined =>
  start.consumerTimeout ?? millisOf(start.arguments[argument]) ?? millisOf(queues.get(start.queue)?.arguments[argument])

/** The same, or the broker's default. */
export const consumerTimeoutOf = (queues: KnownQueues, start: Start): number =>
  knownConsumerTimeoutOf(queues, start) ?? byDefault

/** The arguments of `basic.consume`: with the consumer's own timeout where the broker takes it. */
export const withConsumerTimeout = (product: string, queues: KnownQueues, start: Start): Start => {
  const { arguments: table, consumerTimeout, queue, queueType } = start
  const type = typeOf(queues.get(queue)) ?? queueType
  if (consumerTimeout === undefined || type !== "quorum" || !isFrom(product, 4, 3)) return start
  // A checked table may keep its own keys in its prototype.
  const all: Record<string, FieldValue | undefined> = Object.create(null)
  for (const key in table) all[key] = table[key]
  all[argument] = consumerTimeout
  return { ...start, arguments: all as FieldTable }
}
