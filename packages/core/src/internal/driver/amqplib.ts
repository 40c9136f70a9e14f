/**
 * The only module that imports amqplib: the declared functions that the driver uses, and the one undeclared member.
 * amqplib is an exact dependency. Before an update, read `amqplib.test.ts`: it lists what the driver relies on.
 */
import amqplib from "amqplib"

export type Model = amqplib.ChannelModel
export type Channel = amqplib.Channel

export const open = (url: amqplib.Options.Connect, socketOptions: object): Promise<Model> =>
  amqplib.connect(url, socketOptions)

/**
 * Returns the number that identifies a channel in the frames of its connection. amqplib does not declare this member
 * (`ch`), and nothing else shows which of several channels that open at the same time the broker has opened.
 */
export const numberOf = (channel: Channel): number => {
  const { ch } = channel as { readonly ch?: unknown }
  if (Number.isInteger(ch) && Number(ch) > 0) return ch as number
  throw new Error(
    `amqplib: expected version ${version}, the exact dependency of effect-amqp, got one whose channels have no number (ch): remove the override that installs another version`
  )
}

const version = "2.3.1"
