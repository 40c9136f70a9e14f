/** effect-amqp on Effect 3, as docs/effect-3.md uses it. */
import { Amqp, AmqpConfig, AmqpConsumer, AmqpPool, AmqpPublisher } from "@effect-amqp/platform"
import { Effect, Layer } from "effect"
import type { Peer, Setting } from "../../../benchmarks/src/peers/peer.ts"
import { by, outgoing, share, until } from "./run.ts"

const layer = ({ channels, url }: Setting) =>
  Layer.unwrapEffect(
    Effect.map(
      AmqpConfig.fromUrl(url, { pool: { max: channels, acquireTimeout: "1 minute", maxWaiting: 100_000 } }),
      Amqp.fromConfig
    )
  )

const confirm = by(layer, (setting) =>
  Effect.sync(() => {
    const message = outgoing(setting)
    return (messages, latencies) => share(messages, setting.width, latencies, () => AmqpPublisher.publish(message()))
  })
)

const borrowed = by(layer, (setting) =>
  Effect.gen(function* () {
    const { confirm } = yield* AmqpPool.AmqpPool
    const message = outgoing(setting)
    return (messages, latencies) =>
      share(messages, setting.width, latencies, () => confirm.use((channel) => channel.publish(message())))
  })
)

const consume = by(layer, ({ prefetch, queue }) =>
  Effect.succeed((messages) =>
    until(messages, (handled) => AmqpConsumer.consume(queue, () => Effect.sync(handled), { prefetch }))
  )
)

export const peer: Peer = { confirm, borrowed, consume }
