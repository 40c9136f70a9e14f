/** The metrics of the inbox. */
import * as Metric from "effect/Metric"

/**
 * A counter of what the inboxes of this process have done, by `amqp.outcome`: `handled`, `repeated`, `without_key`,
 * `retried`.
 *
 * **When to use**
 *
 * Use to see how many messages come more than once, and how often transactions collide.
 *
 * **Details**
 *
 * Metric `amqp.inbox.deliveries`. `handled` counts commits, `repeated` what was acknowledged without its handler,
 * `without_key` messages without a key, whatever `onMissingKey` is, and `retried` further tries after a serialization
 * failure or a deadlock. Failures are counted by the metrics of the consumer.
 *
 * @category metrics
 * @since 0.1.0
 */
export const deliveries = Metric.counter("amqp.inbox.deliveries", {
  description: "What the inboxes of this process have done with their deliveries, by outcome",
  incremental: true
})

/** What a delivery is counted as. */
export type Outcome = "handled" | "repeated" | "without_key" | "retried"

const byOutcome = {
  handled: Metric.withAttributes(deliveries, { "amqp.outcome": "handled" }),
  repeated: Metric.withAttributes(deliveries, { "amqp.outcome": "repeated" }),
  without_key: Metric.withAttributes(deliveries, { "amqp.outcome": "without_key" }),
  retried: Metric.withAttributes(deliveries, { "amqp.outcome": "retried" })
} satisfies Record<Outcome, unknown>

/** Counts an outcome. */
export const countDelivery = (outcome: Outcome) => Metric.update(byOutcome[outcome], 1)
