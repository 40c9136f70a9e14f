/**
 * General-purpose pools of amqplib's channels: generic-pool and tarn, which check each channel before they hand it out.
 */
import type amqplib from "amqplib"
import { createPool } from "generic-pool"
import { Pool } from "tarn"
import { connect, publish } from "./amqplib.ts"
import { pause, type Peer, type Prepared, type Setting, share, shareUntimed } from "./peer.ts"

interface Lender<Channel> {
  readonly acquire: () => Promise<Channel>
  readonly release: (channel: Channel) => unknown
  readonly close: () => Promise<unknown>
}

interface Source<Channel> {
  readonly create: () => Promise<Channel>
  readonly destroy: (channel: Channel) => Promise<void>
  readonly isOpen: (channel: Channel) => boolean
}

type Make = <Channel extends object>(source: Source<Channel>, max: number) => Lender<Channel>

const byGenericPool: Make = ({ create, destroy, isOpen }, max) => {
  const pool = createPool(
    { create, destroy, validate: (channel) => Promise.resolve(isOpen(channel)) },
    { max, testOnBorrow: true, acquireTimeoutMillis: 60_000 }
  )
  return {
    acquire: () => pool.acquire(),
    release: (channel) => pool.release(channel),
    close: () => pool.drain().then(() => pool.clear())
  }
}

const byTarn: Make = ({ create, destroy, isOpen }, max) => {
  const pool = new Pool({ create, destroy, validate: isOpen, min: 0, max, acquireTimeoutMillis: 60_000 })
  return {
    acquire: () => pool.acquire().promise,
    release: (channel) => pool.release(channel),
    close: () => pool.destroy()
  }
}

const lender = async <Channel extends amqplib.Channel>(
  make: Make,
  setting: Setting,
  open: (connection: amqplib.ChannelModel) => Promise<Channel>
) => {
  const connection = await connect(setting)
  const closed = new WeakSet<Channel>()
  const pool = make<Channel>(
    {
      create: async () => {
        const channel = await open(connection)
        channel.on("error", () => undefined)
        channel.on("close", () => closed.add(channel))
        return channel
      },
      destroy: (channel) => channel.close(),
      isOpen: (channel) => !closed.has(channel)
    },
    setting.channels
  )
  return {
    pool,
    close: async () => {
      await pool.close()
      await connection.close()
    }
  }
}

const regular = (make: Make, setting: Setting) => lender(make, setting, (connection) => connection.createChannel())

const borrow =
  (make: Make) =>
  async (setting: Setting): Promise<Prepared> => {
    const { close, pool } = await regular(make, setting)
    return {
      run: async (messages) => {
        for (let i = 0; i < messages; i++) await pool.release(await pool.acquire())
      },
      close
    }
  }

const contend =
  (make: Make) =>
  async (setting: Setting): Promise<Prepared> => {
    const { close, pool } = await regular(make, setting)
    const one = async () => {
      const channel = await pool.acquire()
      try {
        await pause()
      } finally {
        await pool.release(channel)
      }
    }
    return { run: (messages) => shareUntimed(messages, setting.width, one), close }
  }

const borrowed =
  (make: Make) =>
  async (setting: Setting): Promise<Prepared> => {
    const { close, pool } = await lender(make, setting, (connection) => connection.createConfirmChannel())
    const content = Buffer.alloc(setting.size, "x")
    const one = async () => {
      const channel = await pool.acquire()
      try {
        await publish(channel, setting.queue, content)
      } finally {
        await pool.release(channel)
      }
    }
    return { run: (messages, latencies) => share(messages, setting.width, latencies, one), close }
  }

const peer = (make: Make): Peer => ({ borrow: borrow(make), contend: contend(make), borrowed: borrowed(make) })

export const genericPool: Peer = peer(byGenericPool)

export const tarn: Peer = peer(byTarn)
