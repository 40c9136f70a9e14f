/** Queues under test: made, looked at and emptied by the pool in context. */
import { AmqpChannel, AmqpMessage } from "@effect-amqp/core"
import { Effect, Option, Queue } from "effect"

/** Declares a queue by a borrowed channel. */
export const declare = (queue: string, options?: AmqpChannel.QueueDeclareOptions) =>
  Effect.scoped(AmqpChannel.use((channel) => channel.queueDeclare(queue, options)))

/** Borrows a channel, and sees that it works: of the queue that it declares nothing remains. */
export const touch = declare("", { exclusive: true })

/** The next message of a queue, which is there. */
export const take = (
  channel: AmqpChannel.Operations,
  queue: string,
  options?: Parameters<AmqpChannel.Operations["get"]>[1]
) => Effect.map(channel.get(queue, options), Option.getOrThrow)

/** Takes everything out of a queue by a channel: to the one that has published it, it is there at once. */
export const drain = Effect.fnUntraced(function* (channel: AmqpChannel.AmqpChannel, queue: string) {
  const found: Array<string> = []
  while (true) {
    const delivery = yield* channel.get(queue, { noAck: true })
    if (Option.isNone(delivery)) return found
    found.push(AmqpMessage.text(delivery.value))
  }
})

/** Takes everything out of a queue. */
export const contents = (queue: string) => Effect.scoped(AmqpChannel.use((channel) => drain(channel, queue)))

/** Takes everything out of a queue that nobody else uses: quicker, where there are thousands. */
export const takeAll = (queue: string) =>
  Effect.scoped(
    AmqpChannel.use((channel) =>
      Effect.gen(function* () {
        const { messageCount } = yield* channel.queueDeclarePassive(queue)
        const { consumerTag, deliveries } = yield* channel.consume(queue, { noAck: true })
        const all = yield* Queue.takeN(deliveries, messageCount)
        // Else it would take what comes until its channel has closed.
        yield* channel.cancel(consumerTag)
        return all.map(AmqpMessage.text)
      })
    )
  )
