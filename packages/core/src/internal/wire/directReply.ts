/**
 * Addresses of RabbitMQ's direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to), and those that are none.
 *
 * Whatever begins like one and was not written by a broker may close the connection of whoever sends it, with 541: as a
 * routing key of the default exchange, or among the headers `CC` and `BCC` of a message to it, where there are two parts of
 * which the first is no process id (measured on 3.10 and 4.0, not on 4.3); as the name of a queue that is declared (the
 * same on 3.10 and 4.0; on 4.3 whatever is no address). A classic queue that is to dead-letter to one crashes. And
 * `basic.get` from an address, well-formed or not, is a 540 on 4.3.
 */
import type { FieldTable } from "../../model/message.ts"

/** The pseudo-queue: what a client consumes from, and gives as `replyTo`. */
export const directReplyTo = "amq.rabbitmq.reply-to"

const prefix = `${directReplyTo}.`

/** Whether a `replyTo` is the address of a channel, not the name of a queue. */
export const isDirect = (replyTo: string): boolean => replyTo.startsWith(prefix)

/** LavinMQ replaces the pseudo-queue's name by this and the tag of the client's consumer. */
const lavinPrefix = "amq.direct.reply-to."

/**
 * Whether a `replyTo` is the address of a client that consumes replies, as RabbitMQ or LavinMQ writes it.
 *
 * A stranger may write one of LavinMQ's for RabbitMQ, where it is the name of a queue like any other. RabbitMQ reserves names
 * that begin with `amq.`: nobody can declare that queue, and a message to it is unroutable. So these addresses are in none of
 * the rules that protect RabbitMQ's connection (`isSound`, `isMalformed`).
 */
export const isReplyAddress = (replyTo: string): boolean => isDirect(replyTo) || replyTo.startsWith(lavinPrefix)

/**
 * Whether a broker has written this address: a process id, a dot, and a key. The process id is, in base64, Erlang's
 * external term format of it: 131, the tag of a pid, the name of a node as an atom, and numbers
 * (https://www.erlang.org/doc/apps/erts/erl_ext_dist).
 */
export const isSound = (address: string): boolean => {
  const [pid, key, ...more] = address.slice(prefix.length).split(".")
  if (!isDirect(address) || pid === undefined || key === undefined || key === "" || more.length > 0) return false
  const term = Buffer.from(pid, "base64")
  if (term.length < 5 || term.toString("base64") !== pid || term[0] !== 131) return false
  const numbers = term[1] === 88 ? 12 : term[1] === 103 ? 9 : undefined
  const isShort = term[2] === 119 || term[2] === 115
  if (numbers === undefined || !(isShort || term[2] === 118 || term[2] === 100)) return false
  const [from, length] = isShort ? [4, term.readUInt8(3)] : [5, term.readUInt16BE(3)]
  return term.length === from + length + numbers && term.subarray(from, from + length).includes("@")
}

/** Whether a name looks like an address and is none. */
export const isMalformed = (name: string): boolean =>
  name.length > directReplyTo.length && name.startsWith(directReplyTo) && !isSound(name)

/** What is wanted instead of a malformed one. */
export const wantsAddress = `an address of direct reply-to as a broker has written it, or another name`

export const malformedAddress = "a malformed one, over which RabbitMQ may close the connection"

/** Whether a message to the default exchange would go to a malformed address as well. */
export const isCopiedToMalformed = (headers: FieldTable): "CC" | "BCC" | undefined => {
  for (const name of ["CC", "BCC"] as const) {
    const copies = headers[name]
    if (Array.isArray(copies) && copies.some((copy) => typeof copy === "string" && isMalformed(copy))) return name
  }
  return undefined
}
