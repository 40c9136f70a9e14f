/**
 * What `messages` measures against: the same work, written by hand with nothing but amqplib. As little as will do: no
 * deadlines, no checks of what is sent, nothing for a connection that is lost.
 */
import amqplib from "amqplib"
import { Effect } from "effect"
import { once } from "node:events"

export type Channel = amqplib.Channel
export type Options = amqplib.Options.Publish

/** A connection that publishes and another that consumes, as `Amqp.layer` has them. */
export interface Bare {
  readonly publishing: amqplib.ChannelModel
  readonly consuming: amqplib.ChannelModel
}

const connection = (url: string) =>
  Effect.acquireRelease(
    Effect.promise(() => amqplib.connect(url, { noDelay: true })),
    (model) => Effect.promise(() => model.close())
  )

export const make = (url: string) => Effect.all({ publishing: connection(url), consuming: connection(url) })

/** Until the scope closes. */
export const confirmChannel = (model: amqplib.ChannelModel) =>
  Effect.acquireRelease(
    Effect.promise(() => model.createConfirmChannel()),
    (channel) => Effect.promise(() => channel.close())
  )

/** Completes with the confirm. */
export const publish = (channel: amqplib.ConfirmChannel, queue: string, content: Buffer, options: Options) =>
  new Promise<void>((resolve, reject) => {
    channel.publish("", queue, content, options, (error) => (error === null ? resolve() : reject(error)))
  })

/** `messages` times `one`, by so many at a time. */
export const share = (messages: number, width: number, one: () => Promise<unknown>) =>
  Promise.all(
    Array.from({ length: width }, async () => {
      for (let i = 0; i < messages / width; i++) await one()
    })
  )

/** All messages, as fast as the channel takes them, then all confirms. */
export const publishAll = async (
  channel: amqplib.ConfirmChannel,
  queue: string,
  messages: Iterable<{ readonly content: Buffer; readonly options: Options }>
) => {
  for (const { content, options } of messages) {
    if (!channel.publish("", queue, content, options)) await once(channel, "drain")
  }
  await channel.waitForConfirms()
}

/** Consumes and acknowledges until there were so many. The channel is closed with the scope. */
export const consume = (model: amqplib.ChannelModel, queue: string, prefetch: number, messages: number) =>
  Effect.acquireRelease(
    Effect.promise(() => model.createChannel()),
    (channel) => Effect.promise(() => channel.close())
  ).pipe(
    Effect.flatMap((channel) =>
      Effect.promise(async () => {
        await channel.prefetch(prefetch)
        await new Promise<void>((resolve, reject) => {
          let seen = 0
          const onMessage = (message: amqplib.ConsumeMessage | null) => {
            if (message === null) return reject(new Error("the consumer was cancelled"))
            channel.ack(message)
            if (++seen === messages) resolve()
          }
          channel.consume(queue, onMessage).catch(reject)
        })
      })
    )
  )

const read = (content: Buffer): unknown => JSON.parse(content.toString())
const written = (value: unknown) => Buffer.from(JSON.stringify(value))

/** A server by `handler`, whose requests are acknowledged when the reply is confirmed, and the calls to it. */
export const rpc = Effect.fnUntraced(function* (
  { consuming, publishing }: Bare,
  queue: string,
  prefetch: number,
  handler: (payload: unknown) => unknown
) {
  const [requests, replies, client] = yield* Effect.all([
    confirmChannel(consuming),
    confirmChannel(publishing),
    confirmChannel(publishing)
  ])
  const waiting = new Map<string, (value: unknown) => void>()
  const onRequest = (message: amqplib.ConsumeMessage | null) => {
    if (message === null) return
    const { correlationId, replyTo } = message.properties
    const options = { correlationId, contentType: "application/json" }
    replies.publish("", replyTo, written(handler(read(message.content))), options, () => requests.ack(message))
  }
  const onReply = (message: amqplib.ConsumeMessage | null) => {
    if (message === null) return
    const resolve = waiting.get(message.properties.correlationId)
    waiting.delete(message.properties.correlationId)
    resolve?.(read(message.content))
  }
  yield* Effect.promise(async () => {
    await requests.prefetch(prefetch)
    await requests.consume(queue, onRequest)
    await client.consume("amq.rabbitmq.reply-to", onReply, { noAck: true })
  })
  let last = 0
  return (payload: unknown) =>
    new Promise((resolve, reject) => {
      const correlationId = String(++last)
      waiting.set(correlationId, resolve)
      const options = {
        correlationId,
        replyTo: "amq.rabbitmq.reply-to",
        mandatory: true,
        expiration: "30000",
        contentType: "application/json"
      }
      client.publish("", queue, written(payload), options, (error) => error !== null && reject(error))
    })
})
