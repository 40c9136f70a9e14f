/**
 * The only module that imports amqplib: what of it is used, and the one thing that is used without being declared.
 *
 * amqplib is an exact dependency. Who updates it reads `amqplib.test.ts` first, which says what to look at.
 */
import amqplib from "amqplib"

export type Model = amqplib.ChannelModel
export type Channel = amqplib.Channel

/** Opens a connection. */
export const open = (url: amqplib.Options.Connect, socketOptions: object): Promise<Model> =>
  amqplib.connect(url, socketOptions)

/**
 * A channel's number on its connection, by which frames name it. amqplib does not declare it (`ch`), and nothing else
 * tells which of several channels that open at a time is which.
 */
export const numberOf = (channel: Channel): number => {
  const { ch } = channel as { readonly ch?: unknown }
  if (Number.isInteger(ch) && Number(ch) > 0) return ch as number
  throw new Error(
    `effect-amqp needs amqplib ${version}, which is its exact dependency: another amqplib was loaded in its place, whose channels do not have a number (ch)`
  )
}

const version = "2.3.1"
