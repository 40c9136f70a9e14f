/**
 * rascal, by its `BrokerAsPromised` and default configuration. It borrows a channel of its pool for every message. The
 * channels of that pool limit what is in flight, and its default `channelMax` allows 100 of them.
 */
import rascal from "rascal"
import { connect } from "./amqplib.ts"
import {
  answer,
  countdown,
  pause,
  type Peer,
  type Prepared,
  type Request,
  request,
  type Setting,
  share,
  shareUntimed,
  verify
} from "./peer.ts"

const start = async (setting: Setting, channels: number) => {
  const vhost = decodeURIComponent(new URL(setting.url).pathname.slice(1)) || "/"
  const pool = { max: channels, min: 1 }
  const transient = { persistent: false, mandatory: false }
  const broker = await rascal.BrokerAsPromised.create(
    rascal.withDefaultConfig({
      vhosts: {
        [vhost]: {
          connection: {
            url: setting.url,
            socketOptions: { noDelay: true, ...(setting.ca === undefined ? {} : { ca: [setting.ca] }) }
          },
          publicationChannelPools: { confirmPool: pool, regularPool: pool },
          queues: {
            [setting.queue]: { assert: false, check: true },
            replies: { replyTo: true, options: { durable: false, exclusive: true } }
          },
          publications: {
            confirmed: { queue: setting.queue, confirm: true, options: transient },
            unconfirmed: { queue: setting.queue, confirm: false, options: transient },
            request: { queue: setting.queue, confirm: true, replyTo: "replies", options: transient },
            reply: { exchange: "", confirm: true, options: transient }
          },
          subscriptions: {
            messages: { queue: setting.queue, prefetch: setting.prefetch },
            replies: { queue: "replies", prefetch: setting.prefetch }
          }
        }
      }
    })
  )
  broker.on("error", (error) => {
    throw error
  })
  return broker
}

type Broker = Awaited<ReturnType<typeof start>>

/** Completes when rascal reports the message as published: for a confirmed publication, with the confirm. */
const publish = async (broker: Broker, ...args: Parameters<Broker["publish"]>) => {
  const publication = await broker.publish(...args)
  await new Promise<void>((resolve, reject) => {
    publication.on("success", () => resolve())
    publication.on("error", reject)
  })
}

const publishing =
  (name: string, channels: (setting: Setting) => number) =>
  async (setting: Setting): Promise<Prepared> => {
    const broker = await start(setting, channels(setting))
    const content = Buffer.alloc(setting.size, "x")
    return {
      run: (messages, latencies) => share(messages, setting.width, latencies, () => publish(broker, name, content)),
      close: () => broker.shutdown()
    }
  }

// Its channels are hidden, and it declares nothing passively, so another connection checks the queue until all messages
// are there.
const unconfirmed = async (setting: Setting): Promise<Prepared> => {
  const broker = await start(setting, 5)
  const connection = await connect(setting)
  const channel = await connection.createChannel()
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: async (messages) => {
      await shareUntimed(messages, 64, () => publish(broker, "unconfirmed", content))
      while ((await channel.checkQueue(setting.queue)).messageCount < messages);
    },
    close: async () => {
      await connection.close()
      await broker.shutdown()
    }
  }
}

/** `prefetch` limits the number of concurrent callbacks. */
const consumer =
  (handler: (() => Promise<void>) | undefined, prefetch: (setting: Setting) => number) =>
  async (setting: Setting): Promise<Prepared> => {
    const broker = await start(setting, 5)
    return {
      run: async (messages) => {
        const { done, fail, one } = countdown(messages)
        const subscription = await broker.subscribe("messages", { prefetch: prefetch(setting) })
        subscription.on("error", fail)
        subscription.on("message", async (_message, _content, ackOrNack) => {
          if (handler !== undefined) await handler()
          ackOrNack()
          one()
        })
        await done
        return () => subscription.cancel()
      },
      close: () => broker.shutdown()
    }
  }

const rpc = async (setting: Setting): Promise<Prepared> => {
  const broker = await start(setting, Math.min(setting.width, 40))
  const waiting = new Map<string, (value: unknown) => void>()
  const server = await broker.subscribe("messages")
  server.on("message", (message, content, ackOrNack) => {
    const { correlationId, replyTo } = message.properties as { correlationId: string; replyTo: string }
    publish(broker, "reply", answer(content as Request), { routingKey: replyTo, options: { correlationId } }).then(
      () => ackOrNack(),
      ackOrNack
    )
  })
  const replies = await broker.subscribe("replies")
  replies.on("message", (message, content, ackOrNack) => {
    const correlationId = message.properties.correlationId as string
    const resolve = waiting.get(correlationId)
    waiting.delete(correlationId)
    ackOrNack()
    resolve?.(content)
  })
  let last = 0
  const call = () =>
    new Promise((resolve, reject) => {
      const correlationId = String(++last)
      waiting.set(correlationId, resolve)
      publish(broker, "request", request, { options: { correlationId } }).catch(reject)
    })
  return {
    run: (messages, latencies) => share(messages, setting.width, latencies, async () => verify(await call())),
    close: () => broker.shutdown()
  }
}

export const peer: Peer = {
  confirm: publishing("confirmed", ({ width }) => Math.min(width, 90)),
  publish: unconfirmed,
  borrowed: publishing("confirmed", ({ channels }) => channels),
  consume: consumer(undefined, ({ prefetch }) => prefetch),
  handle: consumer(pause, ({ concurrency }) => concurrency),
  rpc
}
