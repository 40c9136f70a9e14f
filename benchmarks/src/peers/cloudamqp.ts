/**
 * @cloudamqp/amqp-client, by its `AMQPSession`, which its documentation recommends, and by its channels, which are
 * faster. It has no pool.
 */
import { AMQPClient, AMQPSession } from "@cloudamqp/amqp-client"
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

// There is no option for this, but everything that is given for TLS is passed to `net.connect`, too.
const socketOptions = ({ ca }: Setting) => ({ noDelay: true, ...(ca === undefined ? {} : { ca }) })

const start = (setting: Setting) =>
  AMQPSession.connect(setting.url, { tlsOptions: socketOptions(setting), logger: null })

const connect = (setting: Setting) => new AMQPClient(setting.url, socketOptions(setting)).connect()

const transient = { deliveryMode: 1 }

const confirm = async (setting: Setting): Promise<Prepared> => {
  const session = await start(setting)
  const queue = await session.queue(setting.queue, { passive: true })
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: (messages, latencies) => share(messages, setting.width, latencies, () => queue.publish(content, transient)),
    close: () => session.stop()
  }
}

const channelConfirm = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const channel = await connection.channel()
  await channel.confirmSelect()
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: (messages, latencies) =>
      share(messages, setting.width, latencies, () => channel.basicPublish("", setting.queue, content, transient)),
    close: () => connection.close()
  }
}

// Its promise completes when the socket has taken the bytes, so one message at a time would be one per turn of the
// event loop.
const publish = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  const channel = await connection.channel()
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: async (messages) => {
      await shareUntimed(messages, 64, () => channel.basicPublish("", setting.queue, content, transient))
      await channel.queueDeclare(setting.queue, { passive: true })
    },
    close: () => connection.close()
  }
}

/** The library acknowledges after the callback. `prefetch` limits the number of concurrent callbacks. */
const consumer =
  (handler: () => Promise<void> | void, prefetch: (setting: Setting) => number) =>
  async (setting: Setting): Promise<Prepared> => {
    const session = await start(setting)
    const queue = await session.queue(setting.queue, { passive: true })
    return {
      run: async (messages) => {
        const { done, one } = countdown(messages)
        const subscription = await queue.subscribe({ prefetch: prefetch(setting) }, async () => {
          await handler()
          one()
        })
        await done
        // This closes its channel, too.
        return () => subscription.cancel()
      },
      close: () => session.stop()
    }
  }

const channelConsume = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  return {
    run: async (messages) => {
      const { done, fail, one } = countdown(messages)
      const channel = await connection.channel()
      await channel.prefetch(setting.prefetch)
      await channel.basicConsume(setting.queue, { noAck: false }, (message) => {
        message.ack().catch(fail)
        one()
      })
      await done
      return () => channel.close()
    },
    close: () => connection.close()
  }
}

/** Its iterator handles one message after the other, while `prefetch` continues to fill it. */
const handle = async (setting: Setting): Promise<Prepared> => {
  if (setting.concurrency > 1) return consumer(pause, ({ concurrency }) => concurrency)(setting)
  const session = await start(setting)
  const queue = await session.queue(setting.queue, { passive: true })
  return {
    run: async (messages) => {
      const subscription = await queue.subscribe({ prefetch: setting.prefetch })
      let left = messages
      for await (const message of subscription) {
        await pause()
        if (--left > 0) continue
        await message.ack()
        break
      }
    },
    close: () => session.stop()
  }
}

const text = new TextDecoder()
const read = (body: Uint8Array | null): unknown => JSON.parse(text.decode(body ?? new Uint8Array()))

const rpc = async (setting: Setting): Promise<Prepared> => {
  const session = await start(setting)
  await session.rpcServer(
    setting.queue,
    (message) => Promise.resolve(JSON.stringify(answer(read(message.body as Uint8Array) as Request))),
    setting.prefetch
  )
  const client = await session.rpcClient()
  return {
    run: (messages, latencies) =>
      share(messages, setting.width, latencies, async () => {
        const reply = await client.call(setting.queue, JSON.stringify(request), { timeout: 30_000 })
        verify(read(reply.body as Uint8Array))
      }),
    close: () => session.stop()
  }
}

const channels = async (setting: Setting): Promise<Prepared> => {
  const connection = await connect(setting)
  return keepOpen(
    () => connection.channel(),
    () => connection.close()
  )
}

/** Uses sessions, and channels where a session does not offer the operation. */
export const peer: Peer = {
  confirm,
  publish,
  consume: consumer(
    () => undefined,
    ({ prefetch }) => prefetch
  ),
  handle,
  rpc,
  channels
}

/** Uses channels also where a session offers the operation. */
export const byChannel: Peer = { confirm: channelConfirm, consume: channelConsume }
