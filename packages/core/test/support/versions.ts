/** Differences between the versions of RabbitMQ and Erlang that the tests run on. */
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"

/** The first number of the broker's version. */
export const major = Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
  Effect.map(evaluate(`list_to_integer(hd(string:lexemes(rabbit_misc:version(), "."))).`), Number)
)

/** The Erlang release on which it runs. */
export const erlang = Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
  Effect.map(evaluate("list_to_integer(erlang:system_info(otp_release))."), Number)
)

/**
 * Makes the broker refuse bodies of more bytes until the scope closes: on channels that are opened then (RabbitMQ 3),
 * or at once (4).
 */
export const limitBodies = (bytes: number) =>
  Effect.gen(function* () {
    const { evaluate } = yield* TestBroker.TestBroker
    // RabbitMQ 4 reads the setting once, when it starts.
    const limit = (bytes: string) =>
      evaluate(
        `application:set_env(rabbit, max_message_size, ${bytes}), persistent_term:put(max_message_size, ${bytes}).`
      )
    const before = yield* evaluate("{ok, Most} = application:get_env(rabbit, max_message_size), Most.")
    yield* Effect.acquireRelease(limit(String(bytes)), () => Effect.orDie(limit(before)))
  })

/** Whether the broker is of this version or a later one, such as `isFrom("4.3.0")`. */
export const isFrom = (version: string) =>
  Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
    Effect.map(
      evaluate(`rabbit_misc:version_compare(rabbit_misc:version(), "${version}", gte).`),
      (text) => text === "true"
    )
  )

/** Whether `basic.qos` with `global` bounds a channel. By default 4.3 bounds each consumer instead. */
export const hasGlobalPrefetch = Effect.map(isFrom("4.3.0"), (is43) => !is43)

/** The smallest frame-max that a broker accepts. */
export const leastFrameMax = Effect.map(isFrom("4.1.0"), (is41) => (is41 ? 8192 : 4096))

/**
 * What ends when a delivery is not settled within the consumer timeout: its channel (406) or, for quorum queues only,
 * the consumer, by `basic.cancel`.
 */
export const timeoutEnds = Effect.map(isFrom("4.3.0"), (is43) => (is43 ? "consumer" : "channel"))

/** Whether a queue may have its own consumer timeout (`x-consumer-timeout`); earlier versions ignore it. */
export const takesQueueTimeout = isFrom("3.11.15")

/**
 * Whether a delivery that a consumer returns with `basic.nack` counts towards the delivery limit of a quorum queue.
 */
export const countsNacks = Effect.map(isFrom("4.3.0"), (is43) => !is43)
