/** Queues under test: declared, read and purged by the pool in context. */
import { AmqpChannel, AmqpMessage } from "@effect-amqp/core"
import { Effect, Option, Queue } from "effect"

/** Declares a queue with a borrowed channel. */
export const declare = (queue: string, options?: AmqpChannel.QueueDeclareOptions) =>
  Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue, options)))

/** Borrows a channel and verifies that it works. The queue that it declares is removed. */
export const touch = declare("", { exclusive: true })

/** The next message of a queue that must have one. */
export const take = (
  channel: AmqpChannel.Operations,
  queue: string,
  options?: Parameters<AmqpChannel.Operations["get"]>[1]
) => Effect.map(channel.get(queue, options), Option.getOrThrow)

/** Takes all messages out of a queue with a channel. A channel sees the messages that it has published at once. */
export const drain = Effect.fnUntraced(function* (channel: AmqpChannel.AmqpChannel, queue: string) {
  const found: Array<string> = []
  while (true) {
    const delivery = yield* channel.get(queue, { noAck: true })
    if (Option.isNone(delivery)) return found
    found.push(AmqpMessage.text(delivery.value))
  }
})

/** Takes all messages out of a queue. */
export const contents = (queue: string) => Effect.scoped(AmqpChannel.use((channel) => drain(channel, queue)))

/** Takes all messages out of a queue without other users, faster than `drain` when there are thousands. */
export const takeAll = (queue: string) =>
  Effect.scoped(
    AmqpChannel.use((channel) =>
      Effect.gen(function* () {
        const { messageCount } = yield* channel.queueDeclarePassive(queue)
        const { consumerTag, deliveries } = yield* channel.consume(queue, { noAck: true })
        const all = yield* Queue.takeN(deliveries, messageCount)
        // Without this it would take new messages until its channel has closed.
        yield* channel.cancel(consumerTag)
        return all.map(AmqpMessage.text)
      })
    )
  )
