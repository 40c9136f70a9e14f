/** What a reply says, by its `type`. The convention is told to peers in `AmqpRpc`. */
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import { isUtf8 } from "node:buffer"
import * as AmqpError from "../../AmqpError.ts"
import type { Properties } from "../../AmqpMessage.ts"
import { fail } from "../handle.ts"
import { viewOf } from "../fieldTable.ts"
import type { Codecs } from "./procedure.ts"

/** The pseudo-queue of RabbitMQ's direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to). */
export const directReplyTo = "amq.rabbitmq.reply-to"

/** Whether a `replyTo` is the address of a channel, not the name of a queue. */
export const isDirect = (replyTo: string): boolean => replyTo.startsWith(`${directReplyTo}.`)

/**
 * Whether a broker has written this address. RabbitMQ up to 3.10 at least dies of one that has two parts of which the
 * first is no process id (`amq.rabbitmq.reply-to.a.b`): it closes the connection of whoever publishes to it, with 541. And
 * anybody can write that into a request.
 *
 * A process id is, in base64, Erlang's external term format of it: 131, the tag of a pid, the name of a node as an atom,
 * and numbers (https://www.erlang.org/doc/apps/erts/erl_ext_dist).
 */
export const isSound = (address: string): boolean => {
  const [pid, key, ...more] = address
    .slice(directReplyTo.length)
    .split(".")
    .filter((part) => part !== "")
  if (pid === undefined || key === undefined || more.length > 0) return true
  const term = Buffer.from(pid, "base64")
  if (term.length < 5 || term.toString("base64") !== pid || term[0] !== 131) return false
  const numbers = term[1] === 88 ? 12 : term[1] === 103 ? 9 : undefined
  const isShort = term[2] === 119 || term[2] === 115
  if (numbers === undefined || !(isShort || term[2] === 118 || term[2] === 100)) return false
  const [from, length] = isShort ? [4, term.readUInt8(3)] : [5, term.readUInt16BE(3)]
  return term.length === from + length + numbers && term.subarray(from, from + length).includes("@")
}

export interface Reply {
  readonly content: Uint8Array
  readonly properties: Properties
}

// From another program, so it may be of any length.
const longestMessage = 1000

const remoteFailure = (name: string, reply: Reply) =>
  new AmqpError.RemoteFailure({
    message: `${name}: the server could not answer the request: ${defectOf(reply)}`,
    operation: name
  })

const defectOf = ({ content }: Reply): string => {
  if (!isUtf8(content)) return "it does not say why"
  try {
    const { message } = JSON.parse(viewOf(content).toString()) as { readonly message: unknown }
    return typeof message === "string" ? message.slice(0, longestMessage) : "it does not say why"
  } catch {
    return "it does not say why"
  }
}

const decodeFailed = (name: string, message: string) =>
  AmqpError.fromReason(
    new AmqpError.DecodeFailed({ message: `${name}: the reply cannot be read: ${message}`, operation: name })
  )

/** The outcome that a reply tells. */
export const readReply = <P extends Schema.Constraint, S extends Schema.Constraint, E extends Schema.Constraint>(
  name: string,
  codecs: Codecs<P, S, E>,
  reply: Reply
): Effect.Effect<S["Type"], E["Type"] | AmqpError.AmqpError, S["DecodingServices"] | E["DecodingServices"]> => {
  const { type } = reply.properties
  switch (type) {
    case undefined:
    case "success":
      return Effect.mapError(codecs.success.decode(reply), (error) => decodeFailed(name, error.message))
    case "failure":
      return Effect.matchEffect(codecs.error.decode(reply), {
        onFailure: (error) => Effect.fail(decodeFailed(name, error.message)),
        onSuccess: (error: E["Type"]) => Effect.fail(error)
      })
    case "defect":
      return fail(remoteFailure(name, reply))
    default:
      return Effect.fail(
        decodeFailed(name, `its type is ${JSON.stringify(type.slice(0, 60))}, wants success, failure or defect`)
      )
  }
}
