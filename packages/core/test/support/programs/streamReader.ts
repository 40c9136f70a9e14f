/**
 * An application that reads a stream and keeps its position in a folder. A test cuts its connections and kills it. It
 * writes `offset content` into a file for each message that it has handled: a message without a line was not handled.
 *
 * With `each` it handles messages one by one, ten at a time; with `batch` it handles two batches at a time. It ends in
 * order on SIGTERM.
 */
import { Amqp, AmqpConfig, AmqpConsumer, AmqpMessage, AmqpOffsetStore } from "@effect-amqp/core"
import { NodeFileSystem, NodePath, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Random, References } from "effect"
import { KeyValueStore } from "effect/persistence"
import { appendFileSync } from "node:fs"

const [mode, queue, file, folder] = process.argv.slice(2) as ["each" | "batch", string, string, string]

const handled = (deliveries: ReadonlyArray<AmqpConsumer.Delivery>) =>
  Effect.flatMap(Random.nextIntBetween(0, 4), (millis) =>
    Effect.andThen(
      Effect.sleep(millis),
      Effect.sync(() => {
        appendFileSync(file, deliveries.map((each) => `${each.offset} ${AmqpMessage.text(each)}\n`).join(""))
      })
    )
  )

const reading = Effect.gen(function* () {
  const store = AmqpOffsetStore.fromKeyValueStore(yield* KeyValueStore.KeyValueStore)
  const options = {
    queueType: "stream",
    offset: "first",
    offsets: { store, name: "reader", saveEvery: 100, saveWithin: "1 second" },
    prefetch: 100
  } as const
  return yield* mode === "each"
    ? AmqpConsumer.consume(queue, (delivery) => handled([delivery]), { ...options, concurrency: 10 })
    : AmqpConsumer.consumeBatch(queue, handled, { ...options, concurrency: 2, size: 20, within: "20 millis" })
})

const files = KeyValueStore.layerFileSystem(folder).pipe(
  Layer.provide(Layer.mergeAll(NodeFileSystem.layer, NodePath.layer))
)

const main = Effect.flatMap(
  AmqpConfig.fromUrl(process.env["AMQP_URL"] ?? "", { reconnect: { minDelay: 10, maxDelay: 50 } }),
  (config) => Effect.provide(reading, Layer.merge(Amqp.fromConfig(config), files))
)

NodeRuntime.runMain(Effect.provideService(main, References.MinimumLogLevel, "Error"))
