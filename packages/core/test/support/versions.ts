/** What differs between the versions of RabbitMQ and Erlang that the tests run against. */
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"

/** The first number of the broker's version. */
export const major = Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
  Effect.map(evaluate(`list_to_integer(hd(string:lexemes(rabbit_misc:version(), "."))).`), Number)
)

/** The release of the Erlang that it runs on. */
export const erlang = Effect.flatMap(TestBroker.TestBroker, ({ evaluate }) =>
  Effect.map(evaluate("list_to_integer(erlang:system_info(otp_release))."), Number)
)

/** The broker refuses bodies of more bytes until the scope closes: on channels that are opened then (3), or at once (4). */
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

/** Whether `basic.qos` with `global` bounds a channel: 4.3 bounds each consumer instead, unless it is configured otherwise. */
export const hasGlobalPrefetch = Effect.map(isFrom("4.3.0"), (is43) => !is43)

/** The least frame-max that a broker agrees on. */
export const leastFrameMax = Effect.map(isFrom("4.1.0"), (is41) => (is41 ? 8192 : 4096))

/**
 * What a delivery that is not settled within the consumer timeout ends: its channel (406), or, of quorum queues alone, the
 * consumer, by `basic.cancel`.
 */
export const timeoutEnds = Effect.map(isFrom("4.3.0"), (is43) => (is43 ? "consumer" : "channel"))

/** Whether a queue may have a consumer timeout of its own (`x-consumer-timeout`); earlier versions ignore it. */
export const takesQueueTimeout = isFrom("3.11.15")

/** Whether what a consumer gives back by `basic.nack` counts towards the delivery limit of a quorum queue. */
export const countsNacks = Effect.map(isFrom("4.3.0"), (is43) => !is43)
