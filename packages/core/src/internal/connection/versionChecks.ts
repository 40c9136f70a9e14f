/**
 * Options that a broker of a known version does not support, or silently ignores. A broker states its version when a
 * connection opens, so they are checked before a declaration is sent.
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
import { isBefore, isAtLeast } from "../wire/versions.ts"

const operation = "queue.declare"

const refusal = (argument: string, why: string, cure: string): InvalidArgument =>
  new InvalidArgument({ message: `${operation}: ${argument}: ${why}. ${cure} Nothing was sent.`, operation, argument })

/** Options that only RabbitMQ 4.3 and later support. Earlier versions accept and ignore them. */
const optionsSince43 = {
  "x-delayed-retry-type": "delayedRetryType",
  "x-delayed-retry-min": "delayedRetryMin",
  "x-delayed-retry-max": "delayedRetryMax",
  "x-consumer-disconnected-timeout": "consumerDisconnectedTimeout"
} as const

/**
 * The applications, identified by their known queues, whose broker has refused a queue that is neither durable nor
 * exclusive, with the product that refused it: a broker of another version may accept such queues.
 */
const refusingTransientQueues = new WeakMap<KnownQueues, string>()

/**
 * RabbitMQ's text. The setting's name alone is not enough, because queue names, which the broker quotes in refusals,
 * may contain it.
 */
const notPermitted = "Feature `transient_nonexcl_queues` is deprecated"

/**
 * Records a failed declaration. If this broker refuses all queues that are neither durable nor exclusive, no other one
 * is sent to it.
 */
export const noteRefusal = (product: string, queues: KnownQueues, reason: AmqpErrorReason): void => {
  // The refusal ends the connection (541) with all work on it, so it must not happen twice. No version before 3.12 has
  // the setting.
  if (!("replyCode" in reason) || reason.replyCode !== 541 || !isAtLeast(product, 3, 12)) return
  if (reason.message.includes(notPermitted)) refusingTransientQueues.set(queues, product)
}

/** Returns why a declaration is not sent to this broker; `undefined` if it is sent. */
export const checkVersionForDeclare = (
  product: string,
  queues: KnownQueues,
  { arguments: table, durable, exclusive }: Pick<KnownQueue, "arguments" | "durable" | "exclusive">
): InvalidArgument | undefined => {
  if (isAtLeast(product, 4, 3)) {
    if (table["x-queue-mode"] !== undefined) {
      return refusal(
        "queueMode",
        `${product} does not support x-queue-mode`,
        "Leave it out: classic queues keep their messages on disk since RabbitMQ 3.12."
      )
    }
    if (table["x-queue-master-locator"] !== undefined) {
      return refusal(
        "arguments.x-queue-master-locator",
        `${product} would close the connection (541), with all of its channels`,
        "Use queueLeaderLocator."
      )
    }
  }
  if (isBefore(product, 4, 3)) {
    for (const [argument, option] of Object.entries(optionsSince43)) {
      if (table[argument] === undefined) continue
      const instead = argument.startsWith("x-delayed") ? " AmqpConsumer.retry delays retries on every version." : ""
      return refusal(
        option,
        `${product} ignores ${argument}, which RabbitMQ supports from 4.3 on`,
        `Leave it out.${instead}`
      )
    }
  }
  if (!durable && !exclusive && refusingTransientQueues.get(queues) === product) {
    return refusal(
      "durable",
      `${product} refuses queues that are neither durable nor exclusive, and would close the connection (541)`,
      "Declare it durable, with expires if it is to be deleted automatically, or exclusive; or permit such queues in the broker's configuration (deprecated_features.permit.transient_nonexcl_queues = true) and restart the application."
    )
  }
  return undefined
}

/**
 * Returns why a queue is not declared with this consumer timeout. A queue without a type gets the default of its
 * virtual host, which is not known here. Stating that it is a quorum queue is the same to the broker.
 */
export const checkVersionForConsumerTimeout = (
  product: string,
  queue: string,
  options: QueueDeclareOptions | undefined
): InvalidArgument | undefined => {
  const { arguments: table, consumerTimeout, queueType } = options ?? {}
  if (consumerTimeout === undefined || !isAtLeast(product, 4, 3)) return undefined
  if (queueType === "quorum" || table?.["x-queue-type"] === "quorum") return undefined
  return refusal(
    "consumerTimeout",
    `${JSON.stringify(queue)} is not declared as a quorum queue, and ${product} refuses a consumer timeout for other queues`,
    'Declare it with queueType: "quorum", or leave consumerTimeout out.'
  )
}

/** The links on which the warning was logged. */
const warned = new WeakSet<Link>()

/**
 * Warns once per link. Whether a broker from 4.3 on supports a global prefetch depends on its configuration, which a
 * client cannot read.
 */
export const warnOfGlobalPrefetch = (link: Link): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (!isAtLeast(link.product, 4, 3) || warned.has(link)) return Effect.void
    warned.add(link)
    return Effect.annotateLogs(
      Effect.logWarning(
        `AMQP prefetch with global: unless its configuration permits it (deprecated_features.permit.global_qos = true), ${link.product} applies the prefetch to each consumer and not to the whole channel. Leave global out, and use one consumer per channel where the channel must be bounded`
      ),
      { "amqp.connection": link.name ?? link.peer }
    )
  })
