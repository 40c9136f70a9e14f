/**
 * The upper bound: amqplib used directly, with as little code as possible. There are no deadlines, no checks of what is
 * sent, no recovery, and no bound on what is in flight except the number of workers.
 */
import amqplib from "amqplib"
import { once } from "node:events"
import {
  answer,
  countdown,
  keepOpen,
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

export const connect = ({ ca, url }: Pick<Setting, "url" | "ca">) =>
  amqplib.connect(url, { noDelay: true, ...(ca === undefined ? {} : { ca: [ca] }) })

const transient = { persistent: false }

/** Completes with the confirm. */
export const publish = (channel: amqplib.ConfirmChannel, queue: string, content: Buffer) =>
  new Promise<void>((resolve, reject) => {
    channel.publish("", queue, content, transient, (error) => (error === null ? resolve() : reject(error)))
  })

const confirm = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const channel = await connection.createConfirmChannel()
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: (messages, latencies) =>
      share(messages, setting.width, latencies, () => publish(channel, setting.queue, content)),
    close: () => connection.close()
  }
}

const publishOnly = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const channel = await connection.createChannel()
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: async (messages) => {
      for (let i = 0; i < messages; i++) {
        if (!channel.publish("", setting.queue, content, transient)) await once(channel, "drain")
      }
      await channel.checkQueue(setting.queue)
    },
    close: () => connection.close()
  }
}

/** A pool written by hand: a list of free channels, and a wait queue. */
export const freeList = <Channel>(channels: Array<Channel>) => {
  const waiting: Array<(channel: Channel) => void> = []
  return {
    acquire: () => {
      const channel = channels.pop()
      return channel === undefined
        ? new Promise<Channel>((resolve) => void waiting.push(resolve))
        : Promise.resolve(channel)
    },
    release: (channel: Channel) => {
      const next = waiting.shift()
      if (next === undefined) channels.push(channel)
      else next(channel)
    }
  }
}

const opened = <Channel>(count: number, open: () => Promise<Channel>) =>
  Promise.all(Array.from({ length: count }, open))

const borrowed = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const pool = freeList(await opened(setting.channels, () => connection.createConfirmChannel()))
  const content = Buffer.alloc(setting.size, "x")
  const one = async () => {
    const channel = await pool.acquire()
    try {
      await publish(channel, setting.queue, content)
    } finally {
      pool.release(channel)
    }
  }
  return {
    run: (messages, latencies) => share(messages, setting.width, latencies, one),
    close: () => connection.close()
  }
}

/** The messages are sent on `channels` channels in turn. */
const spread = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const channels = await opened(setting.channels, () => connection.createConfirmChannel())
  const content = Buffer.alloc(setting.size, "x")
  let next = 0
  return {
    run: (messages, latencies) =>
      share(messages, setting.width, latencies, () =>
        publish(channels[next++ % channels.length]!, setting.queue, content)
      ),
    close: () => connection.close()
  }
}

const contend = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const pool = freeList(await opened(setting.channels, () => connection.createChannel()))
  const one = async () => {
    const channel = await pool.acquire()
    try {
      await pause()
    } finally {
      pool.release(channel)
    }
  }
  return { run: (messages) => shareUntimed(messages, setting.width, one), close: () => connection.close() }
}

/** The channel closes when the run is over, which would requeue everything that was not acknowledged. */
const consumer = async (
  connection: amqplib.ChannelModel,
  setting: Setting,
  messages: number,
  handle: (channel: amqplib.Channel, message: amqplib.ConsumeMessage, handled: () => void) => void
) => {
  const channel = await connection.createChannel()
  await channel.prefetch(setting.prefetch)
  const { done, fail, one } = countdown(messages)
  await channel.consume(setting.queue, (message) =>
    message === null ? fail(new Error("the consumer was cancelled")) : handle(channel, message, one)
  )
  await done
  return () => channel.close()
}

const consume = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  return {
    run: (messages) =>
      consumer(connection, setting, messages, (channel, message, handled) => {
        channel.ack(message)
        handled()
      }),
    close: () => connection.close()
  }
}

const handle = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  return {
    run: (messages) => {
      const waiting: Array<() => Promise<void>> = []
      let running = 0
      const next = () => {
        while (running < setting.concurrency) {
          const task = waiting.shift()
          if (task === undefined) return
          running++
          void task().finally(() => {
            running--
            next()
          })
        }
      }
      return consumer(connection, setting, messages, (channel, message, handled) => {
        waiting.push(async () => {
          await pause()
          channel.ack(message)
          handled()
        })
        next()
      })
    },
    close: () => connection.close()
  }
}

const read = (content: Buffer): unknown => JSON.parse(content.toString())
const written = (value: unknown) => Buffer.from(JSON.stringify(value))

/**
 * Requests by direct reply-to. With `confirms` it gives the same guarantees as `AmqpRpc`: requests are mandatory and
 * confirmed, they expire, and the server acknowledges them when the reply is confirmed. Without, it gives none of them.
 */
const rpc =
  (confirms: boolean) =>
  async (setting: Setting): Promise<Prepared> => {
    const serving = await connect(setting)
    const calling = await connect(setting)
    const open = (connection: amqplib.ChannelModel) =>
      confirms ? connection.createConfirmChannel() : connection.createChannel()
    const [requests, replies, client] = await Promise.all([open(serving), open(calling), open(calling)])
    const waiting = new Map<string, (value: unknown) => void>()
    await requests.prefetch(setting.prefetch)
    await requests.consume(setting.queue, (message) => {
      if (message === null) return
      const { correlationId, replyTo } = message.properties
      const options = { correlationId, contentType: "application/json" }
      const reply = written(answer(read(message.content) as Request))
      if (confirms) {
        const channel = replies as amqplib.ConfirmChannel
        channel.publish("", replyTo as string, reply, options, () => requests.ack(message))
      } else {
        requests.publish("", replyTo as string, reply, options)
        requests.ack(message)
      }
    })
    const onReply = (message: amqplib.ConsumeMessage | null) => {
      if (message === null) return
      const correlationId = message.properties.correlationId as string
      const resolve = waiting.get(correlationId)
      waiting.delete(correlationId)
      resolve?.(read(message.content))
    }
    await client.consume("amq.rabbitmq.reply-to", onReply, { noAck: true })
    let last = 0
    const call = () =>
      new Promise((resolve, reject) => {
        const correlationId = String(++last)
        waiting.set(correlationId, resolve)
        const options = { correlationId, replyTo: "amq.rabbitmq.reply-to", contentType: "application/json" }
        if (confirms) {
          const all = { ...options, mandatory: true, expiration: "30000" }
          const channel = client as amqplib.ConfirmChannel
          channel.publish("", setting.queue, written(request), all, (error) => error !== null && reject(error as Error))
        } else {
          client.publish("", setting.queue, written(request), options)
        }
      })
    return {
      run: (messages, latencies) => share(messages, setting.width, latencies, async () => verify(await call())),
      close: async () => {
        await calling.close()
        await serving.close()
      }
    }
  }

const channels = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  return keepOpen(
    () => connection.createChannel(),
    () => connection.close()
  )
}

export const peer: Peer = {
  confirm,
  publish: publishOnly,
  borrowed,
  contend,
  consume,
  handle,
  spread,
  rpc: rpc(true),
  channels
}

/** Requests without confirms. */
export const unconfirmed: Peer = { rpc: rpc(false) }
