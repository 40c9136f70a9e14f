/** The metrics of the outbox. */
import type * as Context from "effect/Context"
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
 * Metric `amqp.outbox.waiting`, with the table as `db.collection.name`. A relay counts every 15 seconds. The series exists while
 * a relay of this process runs and can count.
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
 * Metric `amqp.outbox.oldest_age`, with the table as `db.collection.name`. A relay counts every 15 seconds. The series exists while
 * a relay of this process runs and can count.
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
 * Metric `amqp.outbox.set_aside`, with the table as `db.collection.name`. A relay counts every 15 seconds. The series exists while
 * a relay of this process runs and can count.
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

/** What the gauges report; the age in milliseconds. */
interface Counted {
  readonly waiting: number
  readonly oldestAge: number
  readonly setAside: number
}

/** The gauges of one outbox: two in one process do not overwrite each other's. */
export class OutboxGauges {
  readonly #table: string
  readonly #context: Context.Context<never>
  #registrations: ReadonlyArray<Metric.Registration> = []

  /** `context` holds the `MetricRegistry`. */
  constructor(table: string, context: Context.Context<never>) {
    this.#table = table
    this.#context = context
  }

  /** Reports what was counted. */
  set({ oldestAge: ageMillis, setAside, waiting }: Counted): void {
    // Another relay of the same table, which has replaced the series, may have ended since: they are registered again.
    this.clear()
    this.#registrations = [
      this.#register(waitingMessages, waiting),
      this.#register(oldestAge, ageMillis / 1000),
      this.#register(setAsideMessages, setAside)
    ]
  }

  /** Removes the series: what they report is no longer known. Those of another relay stay. */
  clear(): void {
    for (const registration of this.#registrations) registration.remove()
    this.#registrations = []
  }

  #register(gauge: Metric.Gauge<number>, value: number): Metric.Registration {
    const series = Metric.withAttributes(gauge, { "db.collection.name": this.#table })
    return Metric.registerUnsafe(series, this.#context, { get: () => ({ value }), update: nothing, modify: nothing })
  }
}

const nothing = () => {}

type Outcome = "published" | "postponed" | "set_aside" | "failed"

const byOutcome = {
  published: Metric.withAttributes(relayedMessages, { "amqp.outcome": "published" }),
  postponed: Metric.withAttributes(relayedMessages, { "amqp.outcome": "postponed" }),
  set_aside: Metric.withAttributes(relayedMessages, { "amqp.outcome": "set_aside" }),
  failed: Metric.withAttributes(relayedMessages, { "amqp.outcome": "failed" })
} satisfies Record<Outcome, unknown>

/** Counts an outcome. */
export const countRelayed = (outcome: Outcome, by = 1) => Metric.update(byOutcome[outcome], by)
