/**
 * How long a delivery may stay unsettled: RabbitMQ's consumer timeout, after which it ends the channel or the consumer, and
 * all its deliveries go back (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout).
 */
import type { KnownQueues } from "../knownQueues.ts"
import type { Subscribing } from "./options.ts"

const argument = "x-consumer-timeout"

/** RabbitMQ's default, in milliseconds. */
const byDefault = 30 * 60_000

const millisOf = (value: unknown): number | undefined =>
  (typeof value === "number" || typeof value === "bigint") && value > 0 ? Number(value) : undefined

/** In milliseconds: as the consumer says, as its arguments or the queue's declaration say, or the broker's default. */
export const consumerTimeoutOf = (queues: KnownQueues, { consumerTimeout, start }: Subscribing): number =>
  consumerTimeout ??
  millisOf(start.arguments[argument]) ??
  millisOf(queues.get(start.queue)?.arguments[argument]) ??
  byDefault
