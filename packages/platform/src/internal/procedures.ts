/** Procedures of Effect 3, and those of the core behind them. */
import { AmqpRpc as Core } from "@effect-amqp/core"
import * as Schema4 from "@effect-amqp/effect4/Schema"
import * as Schema from "effect/Schema"
import type { PayloadSchema, Procedure, ProcedureOptions } from "../model/rpc.ts"
import { toSchema4 } from "./schemas.ts"

type Any = Schema.Schema.All

type AnyProcedure4 = Core.Procedure<Schema4.Constraint, Schema4.Constraint, Schema4.Constraint>

/** Contents that are not JSON. Inside another schema it is JSON, with the bytes as Base64. */
export const Content = Schema.Struct({
  content: Schema.Uint8ArrayFromBase64,
  contentType: Schema.optional(Schema.String),
  contentEncoding: Schema.optional(Schema.String)
})

const schemaOf = (schema: unknown): Schema4.Constraint => {
  if (schema === Content) return Core.Content
  // The core's own refuses everything but `null` as its content.
  if (Schema.isSchema(schema) && schema.ast._tag === "VoidKeyword") return Schema4.Void
  return toSchema4(schema as Any)
}

const payloadOf = (payload: unknown): Schema.Schema.All => {
  const isFields =
    typeof payload === "object" &&
    payload !== null &&
    !Schema.isSchema(payload) &&
    Object.values(payload).every((field) => Schema.isSchema(field) || Schema.isPropertySignature(field))
  return isFields ? Schema.Struct(payload as Schema.Struct.Fields) : (payload as Schema.Schema.All)
}

const procedures = new WeakMap<object, AnyProcedure4>()

/** The procedure of the core; what `make` has not returned is left to the core, which refuses it. */
export const toProcedure4 = (procedure: unknown): AnyProcedure4 =>
  (typeof procedure === "object" && procedure !== null ? procedures.get(procedure) : undefined) ?? (procedure as never)

export const make = <
  Payload extends Any | Schema.Struct.Fields = typeof Schema.Void,
  Success extends Any = typeof Schema.Void,
  Error extends Any = typeof Schema.Never
>(
  name: string,
  options?: ProcedureOptions<Payload, Success, Error>
): Procedure<PayloadSchema<Payload>, Success, Error> => {
  const isRecord = typeof options === "object" && options !== null
  const payload = isRecord ? payloadOf(options.payload) : undefined
  const schemas = {
    payload,
    success: isRecord ? options.success : undefined,
    error: isRecord ? options.error : undefined
  }
  const translated: Record<string, unknown> = { ...options }
  for (const [key, schema] of Object.entries(schemas)) {
    if (schema !== undefined) translated[key] = schemaOf(schema)
  }
  const core = Core.make(name, (isRecord ? translated : options) as never)
  const procedure = {
    name: core.name,
    payloadSchema: payload ?? Schema.Void,
    successSchema: schemas.success ?? Schema.Void,
    errorSchema: schemas.error ?? Schema.Never,
    queue: core.queue,
    exchange: core.exchange,
    routingKey: core.routingKey
  }
  procedures.set(procedure, core as unknown as AnyProcedure4)
  return procedure as unknown as Procedure<PayloadSchema<Payload>, Success, Error>
}
