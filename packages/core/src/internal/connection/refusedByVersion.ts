/**
 * What a broker of a known version does not take, or silently does not do. A broker says its version when a connection
 * opens, so this is looked at when a declaration is about to be sent.
 *
 * | option | 3.10 | 4.0 | 4.3 |
 * | --- | --- | --- | --- |
 * | `x-queue-mode` | works | ignored | ignored; its release notes refuse it |
 * | `x-queue-master-locator` | works | works | 541, unless `deprecated_features.permit.queue_master_locator` |
 * | `x-delayed-retry-*`, `x-consumer-disconnected-timeout` | ignored | ignored | works |
 * | `x-consumer-timeout` of other than quorum queues | ignored | works | 406 |
 * | a queue that is neither durable nor exclusive | works | 541, where `deprecated_features.permit.transient_nonexcl_queues` is false | 541, where `deprecated_features.permit.transient_nonexcl_queues` is false |
 * | `basic.qos` with `global` | works | works | bounds each consumer, unless `deprecated_features.permit.global_qos` |
 */
import * as Effect from "effect/Effect"
import type { QueueDeclareOptions } from "../../model/channel.ts"
import type { AmqpErrorReason } from "../../model/errorReason.ts"
import { InvalidArgument } from "../../model/errorReason.ts"
import type { KnownQueue, KnownQueues } from "./knownQueues.ts"
import type { Link } from "./link.ts"
import { isBefore, isFrom } from "../wire/versions.ts"

const operation = "queue.declare"

const refusal = (argument: string, why: string, cure: string): InvalidArgument =>
  new InvalidArgument({ message: `${operation}: ${argument}: ${why}. ${cure} Nothing was sent.`, operation, argument })

/** Options that only brokers from RabbitMQ 4.3 on know; others take them, and do nothing. */
const since43 = {
  "x-delayed-retry-type": "delayedRetryType",
  "x-delayed-retry-min": "delayedRetryMin",
  "x-delayed-retry-max": "delayedRetryMax",
  "x-consumer-disconnected-timeout": "consumerDisconnectedTimeout"
} as const

/**
 * The applications, by what they share, whose broker has refused a queue that is neither durable nor exclusive; and which
 * product that was: one of another version may take such queues.
 */
const refusing = new WeakMap<KnownQueues, string>()

/** RabbitMQ's own words. Names of queues, which the broker quotes in refusals, may have the setting's name in them. */
const notPermitted = "Feature `transient_nonexcl_queues` is deprecated"

/** A failure of a declaration: if this broker takes no such queue at all, no other one is sent to it. */
export const noteRefusal = (product: string, queues: KnownQueues, reason: AmqpErrorReason): void => {
  // The connection ends over it (541), with the work of all others on it: once is enough. No version before 3.12 has the setting.
  if (!("replyCode" in reason) || reason.replyCode !== 541 || !isFrom(product, 3, 12)) return
  if (reason.message.includes(notPermitted)) refusing.set(queues, product)
}

/** Why a declaration is not sent to this broker; undefined if it is. */
export const refusesDeclare = (
  product: string,
  queues: KnownQueues,
  { arguments: table, durable, exclusive }: Pick<KnownQueue, "arguments" | "durable" | "exclusive">
): InvalidArgument | undefined => {
  if (isFrom(product, 4, 3)) {
    if (table["x-queue-mode"] !== undefined) {
      return refusal(
        "queueMode",
        `${product} has no x-queue-mode`,
        "Leave it out: classic queues keep their messages on disk since RabbitMQ 3.12."
      )
    }
    if (table["x-queue-master-locator"] !== undefined) {
      return refusal(
        "arguments.x-queue-master-locator",
        `${product} closes the connection over it (541), for all who use it`,
        "Use queueLeaderLocator."
      )
    }
  }
  if (isBefore(product, 4, 3)) {
    for (const [argument, option] of Object.entries(since43)) {
      if (table[argument] === undefined) continue
      const instead = argument.startsWith("x-delayed") ? " AmqpConsumer.retry waits on every version." : ""
      return refusal(
        option,
        `${product} takes ${argument} and does nothing, RabbitMQ 4.3 has it`,
        `Leave it out.${instead}`
      )
    }
  }
  if (!durable && !exclusive && refusing.get(queues) === product) {
    return refusal(
      "durable",
      `${product} refuses queues that are neither durable nor exclusive, and closes the connection over them (541)`,
      "Declare it durable, with expires if it is to go by itself, or exclusive; or permit such queues in the broker's configuration (deprecated_features.permit.transient_nonexcl_queues = true) and start the application again."
    )
  }
  return undefined
}

/**
 * Why a queue is not declared with this consumer timeout. One without a type has the default of its virtual host, which is not
 * known here; for the broker it is the same to state that it is a quorum queue.
 */
export const refusesConsumerTimeout = (
  product: string,
  queue: string,
  options: QueueDeclareOptions | undefined
): InvalidArgument | undefined => {
  const { arguments: table, consumerTimeout, queueType } = options ?? {}
  if (consumerTimeout === undefined || !isFrom(product, 4, 3)) return undefined
  if (queueType === "quorum" || table?.["x-queue-type"] === "quorum") return undefined
  return refusal(
    "consumerTimeout",
    `${JSON.stringify(queue)} is not declared as a quorum queue, and ${product} has a consumer timeout of quorum queues only, and refuses it for others`,
    'Declare it with queueType: "quorum", or leave consumerTimeout out.'
  )
}

/** The connections on which it has been said. */
const warned = new WeakSet<Link>()

/** Whether a broker from 4.3 on has a global prefetch is a matter of its configuration, which a client cannot see. */
export const warnOfGlobalPrefetch = (link: Link): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (!isFrom(link.product, 4, 3) || warned.has(link)) return Effect.void
    warned.add(link)
    return Effect.annotateLogs(
      Effect.logWarning(
        `AMQP prefetch with global: ${link.product} has none unless its configuration permits it (deprecated_features.permit.global_qos = true), and bounds each consumer of the channel by that number instead. Leave global out, and use one consumer per channel where the channel is to be bounded`
      ),
      { "amqp.connection": link.name ?? link.peer }
    )
  })
