/** amqp-connection-manager: amqplib behind a wrapper that queues messages. It has no pool and no RPC. */
import manager, { type ChannelWrapper } from "amqp-connection-manager"
import type amqplib from "amqplib"
import { countdown, pause, type Peer, type Prepared, type Setting, share, shareUntimed } from "./peer.ts"

const connect = ({ ca, url }: Setting) =>
  manager.connect([url], {
    connectionOptions: { noDelay: true, ...(ca === undefined ? {} : { ca: [ca] }) } as { noDelay: boolean }
  })

const open = async (setting: Setting, confirm: boolean) => {
  const connection = connect(setting)
  const channel = connection.createChannel({ confirm })
  await channel.waitForConnect()
  return { channel, close: () => connection.close() }
}

const transient = { persistent: false }

const confirm = async (setting: Setting): Promise<Prepared> => {
  const { channel, close } = await open(setting, true)
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: (messages, latencies) =>
      share(messages, setting.width, latencies, () => channel.sendToQueue(setting.queue, content, transient)),
    close
  }
}

// It passes up to a thousand messages to amqplib in one turn.
const publish = async (setting: Setting): Promise<Prepared> => {
  const { channel, close } = await open(setting, false)
  const content = Buffer.alloc(setting.size, "x")
  return {
    run: async (messages) => {
      await shareUntimed(messages, 1000, () => channel.sendToQueue(setting.queue, content, transient))
      await channel.checkQueue(setting.queue)
    },
    close
  }
}

/** `prefetch` limits the number of concurrent callbacks. */
const consumer =
  (
    handle: (channel: ChannelWrapper, message: amqplib.ConsumeMessage, handled: () => void) => void,
    prefetch: (setting: Setting) => number
  ) =>
  async (setting: Setting): Promise<Prepared> => {
    const connection = connect(setting)
    await connection.connect()
    return {
      run: async (messages) => {
        const { done, one } = countdown(messages)
        const channel = connection.createChannel({ confirm: false })
        await channel.waitForConnect()
        await channel.consume(setting.queue, (message) => handle(channel, message, one), {
          prefetch: prefetch(setting)
        })
        await done
        return () => channel.close()
      },
      close: () => connection.close()
    }
  }

const channels = async (setting: Setting): Promise<Prepared> => {
  const connection = connect(setting)
  await connection.connect()
  return {
    run: async (count) => {
      for (let i = 0; i < count; i++) await connection.createChannel({ confirm: false }).waitForConnect()
    },
    close: () => connection.close()
  }
}

export const peer: Peer = {
  confirm,
  publish,
  consume: consumer(
    (channel, message, handled) => {
      channel.ack(message)
      handled()
    },
    ({ prefetch }) => prefetch
  ),
  handle: consumer(
    async (channel, message, handled) => {
      await pause()
      channel.ack(message)
      handled()
    },
    ({ concurrency }) => concurrency
  ),
  channels
}
