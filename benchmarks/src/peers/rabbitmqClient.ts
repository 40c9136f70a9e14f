/**
 * rabbitmq-client, by its `createPublisher`, `createConsumer` and `createRPCClient`, as its documentation recommends. A
 * channel of `acquire` is used where its publisher hides the channel that the final method needs. It has no pool.
 */
import { Connection } from "rabbitmq-client"
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
  verify
} from "./peer.ts"

const connect = async ({ ca, url }: Setting) => {
  const connection = new Connection({ url, noDelay: true, ...(ca === undefined ? {} : { tls: { ca } }) })
  connection.on("error", (error: unknown) => {
    throw error
  })
  await connection.onConnect(10_000)
  return connection
}

const confirm = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const publisher = connection.createPublisher({ confirm: true })
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: (messages, latencies) =>
      share(messages, setting.width, latencies, () => publisher.send({ routingKey: setting.queue }, content)),
    close: async () => {
      await publisher.close()
      await connection.close()
    }
  }
}

const publish = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const channel = await connection.acquire()
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: async (messages) => {
      for (let i = 0; i < messages; i++) await channel.basicPublish({ routingKey: setting.queue }, content)
      await channel.queueDeclare({ queue: setting.queue, passive: true })
    },
    close: async () => {
      await channel.close()
      await connection.close()
    }
  }
}

const consumer =
  (handler: () => Promise<void> | void, concurrency: (setting: Setting) => number | undefined) =>
  async (setting: Setting): Promise<Prepared> => {
    const connection = await connect(setting)
    return {
      run: async (messages) => {
        const { done, fail, one } = countdown(messages)
        const most = concurrency(setting)
        const sub = connection.createConsumer(
          {
            queue: setting.queue,
            queueOptions: { passive: true },
            qos: { prefetchCount: setting.prefetch },
            ...(most === undefined ? {} : { concurrency: most })
          },
          async () => {
            await handler()
            one()
          }
        )
        sub.on("error", fail)
        await done
        // This waits for the handlers, whose messages are acknowledged when they have returned.
        return () => sub.close()
      },
      close: () => connection.close()
    }
  }

const rpc = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const server = connection.createConsumer(
    { queue: setting.queue, queueOptions: { passive: true }, qos: { prefetchCount: setting.prefetch } },
    async (message, reply) => reply(answer(message.body as Request))
  )
  server.on("error", (error: unknown) => {
    throw error
  })
  const client = connection.createRPCClient({ confirm: true })
  return {
    run: (messages, latencies) =>
      share(messages, setting.width, latencies, async () => verify((await client.send(setting.queue, request)).body)),
    close: async () => {
      await client.close()
      await server.close()
      await connection.close()
    }
  }
}

const channels = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  return keepOpen(
    () => connection.acquire(),
    async (kept) => {
      await Promise.all(kept.map((channel) => channel.close()))
      await connection.close()
    }
  )
}

export const peer: Peer = {
  confirm,
  publish,
  consume: consumer(
    () => undefined,
    () => undefined
  ),
  handle: consumer(pause, ({ concurrency }) => concurrency),
  rpc,
  channels
}
