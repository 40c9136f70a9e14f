/** What a reply says, by its `type`. The convention is told to peers in `AmqpRpc`. */
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import { isUtf8 } from "node:buffer"
import * as AmqpError from "../../model/error.ts"
import type { Properties } from "../../model/message.ts"
import { fail } from "../../model/failures.ts"
import { viewOf } from "../wire/fieldTable.ts"
import type { Codecs } from "./procedure.ts"

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
