/** Decodes replies by their `type`. The documentation of `AmqpRpc` describes the convention for peers. */
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import { isUtf8 } from "node:buffer"
import * as AmqpError from "../../model/error.ts"
import type { Properties } from "../../model/message.ts"
import { fail } from "../../model/failures.ts"
import { asBuffer } from "../wire/fieldTable.ts"
import type { Codecs } from "./procedure.ts"

export interface Reply {
  readonly content: Uint8Array
  readonly properties: Properties
}

// The message comes from another program, so it may have any length.
const longestMessage = 1000

const remoteFailure = (name: string, reply: Reply) =>
  new AmqpError.RemoteFailure({
    message: `${name}: the server could not handle the request: ${defectOf(reply)}`,
    operation: name
  })

const defectOf = ({ content }: Reply): string => {
  if (!isUtf8(content)) return "it gave no reason"
  try {
    const { message } = JSON.parse(asBuffer(content).toString()) as { readonly message: unknown }
    return typeof message === "string" ? message.slice(0, longestMessage) : "it gave no reason"
  } catch {
    return "it gave no reason"
  }
}

const decodeFailed = (name: string, message: string) =>
  AmqpError.fromReason(
    new AmqpError.DecodeFailed({ message: `${name}: the reply cannot be decoded: ${message}`, operation: name })
  )

/** The outcome of a call, from its reply. */
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
        decodeFailed(name, `type: expected "success", "failure" or "defect", got ${JSON.stringify(type.slice(0, 60))}`)
      )
  }
}
