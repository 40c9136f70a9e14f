/** The metrics of the outbox. */
import * as Metric from "effect/Metric"

/**
 * A gauge of the messages that wait in the outbox, counted up to 100,000.
 *
 * **When to use**
 *
 * Use to alert on an outbox that grows.
 *
 * **Details**
 *
 * Metric `amqp.outbox.waiting`. A relay updates it every 15 seconds, with the table as `db.collection.name`.
 *
 * @category metrics
 * @since 0.1.0
 */
export const waitingMessages = Metric.gauge("amqp.outbox.waiting", {
  description: "Messages that wait in the outbox, counted up to 100,000"
})

/**
 * A gauge of the age of the oldest message in the outbox, in seconds; 0 if there is none.
 *
 * **When to use**
 *
 * Use to alert on messages that are not published in time.
 *
 * **Details**
 *
 * Metric `amqp.outbox.oldest_age`. A relay updates it every 15 seconds, with the table as `db.collection.name`.
 *
 * @category metrics
 * @since 0.1.0
 */
export const oldestAge = Metric.gauge("amqp.outbox.oldest_age", {
  description: "Age of the oldest message in the outbox",
  attributes: { unit: "s" }
})

/**
 * A gauge of the messages that are set aside, counted up to 10,000.
 *
 * **When to use**
 *
 * Use to alert on messages that could not be published.
 *
 * **Details**
 *
 * Metric `amqp.outbox.set_aside`. A relay updates it every 15 seconds, with the table as `db.collection.name`.
 *
 * @category metrics
 * @since 0.1.0
 */
export const setAsideMessages = Metric.gauge("amqp.outbox.set_aside", {
  description: "Messages that could not be published and are set aside, counted up to 10,000"
})

/**
 * A counter of what relays of this process have done, by `amqp.outcome`: `published`, `postponed`, `set_aside`,
 * `failed`.
 *
 * **When to use**
 *
 * Use to see the throughput of a relay, and how many of its attempts fail.
 *
 * **Details**
 *
 * Metric `amqp.outbox.relayed`. `failed` counts attempts that failed for a reason outside of the message, such as a lost
 * connection.
 *
 * @category metrics
 * @since 0.1.0
 */
export const relayedMessages = Metric.counter("amqp.outbox.relayed", {
  description: "What the relays of this process have done, by outcome",
  incremental: true
})

/** The gauges of one outbox: two in one process do not overwrite each other's. */
export const gaugesOf = (table: string) => {
  const attributes = { "db.collection.name": table }
  return {
    waiting: Metric.withAttributes(waitingMessages, attributes),
    oldestAge: Metric.withAttributes(oldestAge, attributes),
    setAside: Metric.withAttributes(setAsideMessages, attributes)
  }
}

type Outcome = "published" | "postponed" | "set_aside" | "failed"

const byOutcome = {
  published: Metric.withAttributes(relayedMessages, { "amqp.outcome": "published" }),
  postponed: Metric.withAttributes(relayedMessages, { "amqp.outcome": "postponed" }),
  set_aside: Metric.withAttributes(relayedMessages, { "amqp.outcome": "set_aside" }),
  failed: Metric.withAttributes(relayedMessages, { "amqp.outcome": "failed" })
} satisfies Record<Outcome, unknown>

/** Counts an outcome. */
export const countRelayed = (outcome: Outcome, by = 1) => Metric.update(byOutcome[outcome], by)
