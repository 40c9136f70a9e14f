/**
 * What a version of RabbitMQ no longer has, or does not have yet.
 *
 * The table is that of the library's own checks (`internal/connection/versionChecks.ts` of the core), which refuse the
 * same declarations before they are sent.
 */
import type { AmqpTopology } from "@effect-amqp/core"
import { type Check, error, ok, warning } from "./Check.ts"

type Version = readonly [major: number, minor: number]

export const versionOf = (product: string): Version | undefined => {
  const found = /^RabbitMQ (\d+)\.(\d+)/.exec(product)
  return found === null ? undefined : [Number(found[1]), Number(found[2])]
}

const isBefore = (a: Version, b: Version): boolean => a[0] < b[0] || (a[0] === b[0] && a[1] < b[1])

interface Feature {
  readonly name: string
  /** The versions that do not have it; `gone`: from this one on, `since`: before this one. */
  readonly gone?: Version
  readonly since?: Version
  /** What becomes of a queue that uses it. */
  readonly effect: string
  readonly isRefused: boolean
  readonly cure: string
  readonly usedBy?: (queue: AmqpTopology.Queue) => boolean
}

const has = (queue: AmqpTopology.Queue, option: string, argument: string) =>
  (queue.options as Readonly<Record<string, unknown>>)[option] !== undefined ||
  queue.options.arguments?.[argument] !== undefined

const features: ReadonlyArray<Feature> = [
  {
    name: "queueMode (x-queue-mode)",
    gone: [3, 12],
    effect: "ignored from 3.12 on, refused from 4.3 on",
    isRefused: false,
    cure: "Leave it out: classic queues keep their messages on disk since RabbitMQ 3.12.",
    usedBy: (queue) => has(queue, "queueMode", "x-queue-mode")
  },
  {
    name: "x-queue-master-locator",
    gone: [4, 3],
    effect: "the connection is closed (541)",
    isRefused: true,
    cure: "Use queueLeaderLocator.",
    usedBy: (queue) => queue.options.arguments?.["x-queue-master-locator"] !== undefined
  },
  {
    name: "prefetch with global",
    gone: [4, 3],
    effect: "bounds each consumer and not the channel, unless deprecated_features.permit.global_qos",
    isRefused: false,
    cure: "Use one consumer per channel where the channel must be bounded."
  },
  {
    name: "delayed retries (x-delayed-retry-*)",
    since: [4, 3],
    effect: "ignored by the broker, so the library refuses it",
    isRefused: true,
    cure: "Leave it out: AmqpConsumer.retry delays retries on every version.",
    usedBy: (queue) =>
      has(queue, "delayedRetryType", "x-delayed-retry-type") || has(queue, "delayedRetryMin", "x-delayed-retry-min")
  },
  {
    name: "consumerDisconnectedTimeout",
    since: [4, 3],
    effect: "ignored by the broker, so the library refuses it",
    isRefused: true,
    cure: "Leave it out.",
    usedBy: (queue) => has(queue, "consumerDisconnectedTimeout", "x-consumer-disconnected-timeout")
  },
  {
    name: "a queue that is neither durable nor exclusive",
    gone: [4, 0],
    effect: "deprecated: refused where deprecated_features.permit.transient_nonexcl_queues is false",
    isRefused: false,
    cure: "Declare it durable, with expires if it is to be deleted automatically, or exclusive.",
    usedBy: ({ options }) => options.durable === false && options.exclusive !== true
  }
]

const lacks = ({ gone, since }: Feature, version: Version): boolean =>
  (gone !== undefined && !isBefore(version, gone)) || (since !== undefined && isBefore(version, since))

const text = ([major, minor]: Version) => `${major}.${minor}`

/** The product and version, what it lacks, and which queues of the topology use what it lacks. */
export const broker = (product: string, topology: AmqpTopology.AmqpTopology | undefined): ReadonlyArray<Check> => {
  const version = versionOf(product)
  if (version === undefined) {
    return [
      warning(
        "broker",
        product,
        "not RabbitMQ, or without a version",
        "The library is tested with RabbitMQ 3.10 to 4.3. What this broker supports is not known."
      )
    ]
  }
  const found: Array<Check> = [
    isBefore(version, [3, 10])
      ? warning("broker", product, "older than what the library is tested with", "Use RabbitMQ 3.10 or later.")
      : ok("broker", product, "a version that the library is tested with, or a later one")
  ]
  for (const feature of features) {
    const { cure, effect, gone, isRefused, name, since, usedBy } = feature
    const users = (topology?.queues ?? [])
      .filter((queue) => usedBy?.(queue) === true)
      .map(({ name }) => JSON.stringify(name))
      .join(", ")
    if (!lacks(feature, version)) {
      if (gone === undefined || users === "") continue
      found.push(warning("broker", name, `${users}: works here, and no longer from ${text(gone)} on: ${effect}`, cure))
    } else if (users !== "") {
      const when = gone === undefined ? `before ${text(since!)}` : `from ${text(gone)} on`
      found.push((isRefused ? error : warning)("broker", name, `${users}: not ${when}: ${effect}`, cure))
    } else if (gone !== undefined) {
      found.push(
        ok("broker", name, `deprecated or gone from ${text(gone)} on: ${effect}. Nothing here is known to use it`)
      )
    }
  }
  return found
}
