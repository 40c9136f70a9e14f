/** Consumers under test: their layer, queues for them, and ways to wait for the broker's counts. */
import {
  type AmqpChannel,
  AmqpConnection,
  AmqpConsumer,
  type AmqpError,
  type AmqpMessage,
  AmqpMessage as Messages,
  AmqpPool,
  AmqpPublisher
} from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Cause, Effect, flow, Layer, Logger, Option, References, Schedule } from "effect"
import { configOf, type Overrides } from "./amqp.ts"

export const layerOf = (url: string, overrides?: Overrides) =>
  AmqpConsumer.layer.pipe(
    Layer.provideMerge(AmqpPublisher.layer),
    Layer.provideMerge(AmqpPool.layer),
    Layer.provideMerge(AmqpConnection.layer(configOf(url, overrides)))
  )

/**
 * Runs a program with its own consumers, which are closed afterwards, without a log: most of these tests are about
 * failures.
 */
export const withConsumers = (url: string, overrides?: Overrides) =>
  flow(
    Effect.scoped,
    Effect.provide(layerOf(url, overrides), { local: true }),
    Effect.provideService(References.MinimumLogLevel, "None")
  )

/** The same, against the broker of the test. */
export const onBroker = <A, E, R>(effect: Effect.Effect<A, E, R>, overrides?: Overrides) =>
  Effect.flatMap(TestBroker.TestBroker, ({ url }) => withConsumers(url, overrides)(effect))

/** A line with its annotations. */
export interface LogLine {
  readonly level: string
  readonly text: string
  /** The cause as it is printed; empty if there is none. */
  readonly cause: string
}

/** What is logged while an effect runs. */
export const logged = <A, E, R>(f: (lines: ReadonlyArray<LogLine>) => Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const lines: Array<LogLine> = []
    const logger = Logger.make(({ cause, fiber, logLevel, message }) => {
      const annotations = fiber.getRef(References.CurrentLogAnnotations)
      const text = [...(Array.isArray(message) ? message : [message]), annotations].map(shown).join(" ")
      lines.push({ level: logLevel, text, cause: Cause.pretty(cause) })
    })
    return f(lines).pipe(
      Effect.provide(Logger.layer([logger])),
      Effect.provideService(References.MinimumLogLevel, "Info")
    )
  })

const shown = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value))

let queues = 0

export const declareQueue = (options?: AmqpChannel.QueueDeclareOptions, name = `queue-${++queues}`) =>
  AmqpPool.AmqpPool.pipe(
    Effect.flatMap((pool) => pool.use((channel) => channel.queueDeclare(name, options))),
    Effect.as(name)
  )

/** A queue, and another one that gets its dead letters. */
export const declareWithDeadLetters = Effect.fnUntraced(function* (options?: AmqpChannel.QueueDeclareOptions) {
  const deadLetters = yield* declareQueue()
  const queue = yield* declareQueue({ ...options, deadLetterExchange: "", deadLetterRoutingKey: deadLetters })
  return { queue, deadLetters }
})

export const deleteQueue = (queue: string) =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use((channel) => channel.queueDelete(queue)))

export const send = (queue: string, ...contents: ReadonlyArray<string>) =>
  Effect.forEach(contents, (content) => AmqpPublisher.publish({ routingKey: queue, content }), { discard: true })

/** Takes the next message of a queue, waiting for it. */
export const next = (queue: string): Effect.Effect<AmqpMessage.Delivery, AmqpError.AmqpError, AmqpPool.AmqpPool> =>
  Effect.flatMap(AmqpPool.AmqpPool, (pool) => pool.use((channel) => channel.get(queue, { noAck: true }))).pipe(
    Effect.repeat({ until: Option.isSome, schedule: Schedule.spaced("5 millis") }),
    Effect.map((delivery) => Option.getOrThrow(delivery as Option.Option<AmqpMessage.Delivery>)),
    Effect.timeout("10 seconds"),
    Effect.orDie
  )

export const nextText = (queue: string) => Effect.map(next(queue), Messages.text)

/** Waits until a queue shows these counts, on the broker of the test. */
export const untilQueue = Effect.fnUntraced(function* (name: string, expected: Partial<TestBroker.QueueCensus>) {
  const broker = yield* TestBroker.TestBroker
  let last: TestBroker.QueueCensus | undefined
  yield* broker.queues.pipe(
    Effect.tap((all) =>
      Effect.sync(() => {
        last = all.find((queue) => queue.name === name)
      })
    ),
    Effect.repeat({
      until: () =>
        last !== undefined &&
        Object.entries(expected).every(([key, value]) => last![key as keyof TestBroker.QueueCensus] === value),
      schedule: Schedule.spaced("5 millis")
    }),
    Effect.timeoutOrElse({
      duration: "10 seconds",
      orElse: () =>
        Effect.die(
          new Error(`the queue ${name} was to be ${JSON.stringify(expected)}, but stayed ${JSON.stringify(last)}`)
        )
    })
  )
})
