/**
 * Addresses of RabbitMQ's direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to), and names that only look
 * like one.
 *
 * A name that begins like an address and was not written by a broker may close the connection of the client that sends
 * it, with 541. This applies to a routing key of the default exchange, and to the headers `CC` and `BCC` of a message
 * to that exchange, where the name has two parts of which the first is not a process id (measured on 3.10 and 4.0, not
 * on 4.3). It also applies to the name of a queue that is declared (the same on 3.10 and 4.0; on 4.3 any name that is
 * not an address). A classic queue that dead-letters to such a name crashes. On 4.3, `basic.get` from an address,
 * well-formed or not, closes the connection (540).
 */
import type { FieldTable } from "../../model/message.ts"

/** The pseudo-queue: clients consume from it, and give its name as `replyTo`. */
export const directReplyTo = "amq.rabbitmq.reply-to"

const prefix = `${directReplyTo}.`

/** Whether a `replyTo` is the address of a channel and not the name of a queue. */
export const isDirectReplyTo = (replyTo: string): boolean => replyTo.startsWith(prefix)

/** LavinMQ's own name of the pseudo-queue. It accepts RabbitMQ's name as well. */
const lavinReplyTo = "amq.direct.reply-to"

/** LavinMQ replaces the name of the pseudo-queue with this prefix and the tag of the client's consumer. */
const lavinPrefix = `${lavinReplyTo}.`

/**
 * Whether a `replyTo` is the pseudo-queue, as RabbitMQ or LavinMQ calls it: the broker replaces it with the address of
 * the channel, and closes a channel that does not consume replies. To RabbitMQ LavinMQ's name is that of a queue that
 * no client can declare.
 */
export const isPseudoQueue = (replyTo: string | undefined): boolean =>
  replyTo === directReplyTo || replyTo === lavinReplyTo

/**
 * Whether a `replyTo` is the address of a client that consumes replies, as RabbitMQ or LavinMQ writes it.
 *
 * An untrusted client may send RabbitMQ one of LavinMQ's addresses, which RabbitMQ takes for the name of an ordinary
 * queue. RabbitMQ reserves names that begin with `amq.`, so no client can declare that queue, and a message to it is
 * unroutable. Therefore the rules that protect RabbitMQ's connection (`isWellFormedAddress`, `isMalformedAddress`) do
 * not cover these addresses.
 */
export const isReplyAddress = (replyTo: string): boolean => isDirectReplyTo(replyTo) || replyTo.startsWith(lavinPrefix)

/**
 * Whether a broker wrote this address: a process id, a dot, and a key. The process id is in Erlang's external term
 * format, encoded in base64: 131, the tag of a pid, the name of a node as an atom, and numbers
 * (https://www.erlang.org/doc/apps/erts/erl_ext_dist).
 */
export const isWellFormedAddress = (address: string): boolean => {
  const [pid, key, ...more] = address.slice(prefix.length).split(".")
  if (!isDirectReplyTo(address) || pid === undefined || key === undefined || key === "" || more.length > 0) return false
  const term = Buffer.from(pid, "base64")
  if (term.length < 5 || term.toString("base64") !== pid || term[0] !== 131) return false
  const numbers = term[1] === 88 ? 12 : term[1] === 103 ? 9 : undefined
  const isShort = term[2] === 119 || term[2] === 115
  if (numbers === undefined || !(isShort || term[2] === 118 || term[2] === 100)) return false
  const [from, length] = isShort ? [4, term.readUInt8(3)] : [5, term.readUInt16BE(3)]
  return term.length === from + length + numbers && term.subarray(from, from + length).includes("@")
}

/** Whether a name looks like an address and is not one. */
export const isMalformedAddress = (name: string): boolean =>
  name.length > directReplyTo.length && name.startsWith(directReplyTo) && !isWellFormedAddress(name)

/** What errors expect instead of a malformed address. */
export const expectedAddress = `an address of direct reply-to as a broker wrote it, or a name that does not begin with ${directReplyTo}`

export const malformedAddress = "a malformed address, for which RabbitMQ may close the connection"

/** Returns the header that would also send a message of the default exchange to a malformed address. */
export const malformedCopyHeader = (headers: FieldTable): "CC" | "BCC" | undefined => {
  for (const name of ["CC", "BCC"] as const) {
    const copies = headers[name]
    if (Array.isArray(copies) && copies.some((copy) => typeof copy === "string" && isMalformedAddress(copy)))
      return name
  }
  return undefined
}
