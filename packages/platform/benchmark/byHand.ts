/**
 * amqplib in Effect 3, as an application writes it without a library: its own `Pool` of confirm channels, and a runtime
 * that starts a fiber per message. There are no deadlines, no checks, no recovery, and nothing follows a channel that closes.
 */
import amqplib from "amqplib"
import { Context, Effect, Layer, Pool, Runtime } from "effect"
import type { Peer, Setting } from "../../../benchmarks/src/peers/peer.ts"
import { by, outgoing, share, until } from "./run.ts"

class Connection extends Context.Tag("Connection")<Connection, amqplib.ChannelModel>() {}

const layer = ({ url }: Setting) =>
  Layer.scoped(
    Connection,
    Effect.acquireRelease(
      Effect.tryPromise(() => amqplib.connect(url, { noDelay: true })),
      (connection) => Effect.promise(() => connection.close())
    )
  )

const publishing = by(layer, (setting) =>
  Effect.gen(function* () {
    const connection = yield* Connection
    const pool = yield* Pool.make({
      acquire: Effect.acquireRelease(
        Effect.tryPromise(() => connection.createConfirmChannel()),
        (channel) => Effect.promise(() => channel.close())
      ),
      size: setting.channels
    })
    const message = outgoing(setting)
    const publish = (channel: amqplib.ConfirmChannel) =>
      Effect.async<void, Error>((resume) => {
        const { content, persistent, routingKey } = message()
        channel.publish("", routingKey, content, { persistent }, (error: Error | null) =>
          resume(error === null ? Effect.void : Effect.fail(error))
        )
      })
    return (messages, latencies) =>
      share(messages, setting.width, latencies, () => Effect.scoped(Effect.flatMap(pool.get, publish)))
  })
)

const consume = by(layer, ({ prefetch, queue }) =>
  Effect.gen(function* () {
    const connection = yield* Connection
    const handle = (handled: () => void) =>
      Effect.gen(function* () {
        const runtime = yield* Effect.runtime<never>()
        const run = Runtime.runFork(runtime)
        const channel = yield* Effect.acquireRelease(
          Effect.tryPromise(() => connection.createChannel()),
          (channel) => Effect.promise(() => channel.close())
        )
        yield* Effect.tryPromise(() => channel.prefetch(prefetch))
        yield* Effect.tryPromise(() =>
          channel.consume(queue, (message) => {
            if (message === null) return
            run(
              Effect.sync(() => {
                channel.ack(message)
                handled()
              })
            )
          })
        )
        return yield* Effect.never
      })
    return (messages) => until(messages, handle)
  })
)

export const peer: Peer = { confirm: publishing, borrowed: publishing, consume }
