/** The process of `redrive.ts` that redrives dead letters, and is killed meanwhile: prints its counts line by line. */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp, AmqpConfig, AmqpConsumer, AmqpDeadLetters } from "@effect-amqp/core"
import { Effect, References } from "effect"

const { CHAOS_MUTANT: mutant, CHAOS_RATE: rate, CHAOS_URL: url } = process.env
const queue = process.argv[2]!

/** How long the mutant keeps a message before it writes it, in milliseconds: so each kill meets some. */
const buffered = 100

/** A publisher that reports a confirm when a message is in its buffer. */
const careless = (consumer: AmqpConsumer.AmqpConsumer["Service"]): AmqpConsumer.AmqpConsumer["Service"] => ({
  ...consumer,
  publisher: {
    ...consumer.publisher,
    publish: (message, options) =>
      Effect.as(
        Effect.forkDetach(Effect.ignore(Effect.delay(consumer.publisher.publish(message, options), buffered))),
        {
          _tag: "Confirmed" as const
        }
      )
  }
})

const redrive = AmqpDeadLetters.of(queue, { timeout: "1 minute" }).redrive({
  rate: Number(rate),
  onProgress: ({ duplicates, redriven }) => Effect.sync(() => console.log(JSON.stringify({ redriven, duplicates })))
})

// What fails is reported, and tried again: the faults go on.
const again = Effect.forever(
  Effect.andThen(
    Effect.catchCause(redrive, (cause) => Effect.sync(() => console.error(String(cause)))),
    Effect.sleep(200)
  )
)

const program = mutant === undefined ? again : Effect.updateService(again, AmqpConsumer.AmqpConsumer, careless)

NodeRuntime.runMain(
  Effect.flatMap(AmqpConfig.fromUrl(url!, { heartbeat: "1 second", connectTimeout: "2 seconds" }), (config) =>
    Effect.provide(program, Amqp.fromConfig(config))
  ).pipe(
    // A fault may meet the start. The parent reads the standard output, and starts another process.
    Effect.tapCause((cause) => Effect.sync(() => console.error(String(cause)))),
    Effect.provideService(References.MinimumLogLevel, "None")
  ),
  { disableErrorReporting: true }
)
