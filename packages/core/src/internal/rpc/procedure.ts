/** A procedure: its name, the route of its requests, and its codecs, which are compiled once. */
import * as Schema from "effect/Schema"
import { InvalidArgument } from "../../model/errorReason.ts"
import type { Json } from "../../model/message.ts"
import type { PayloadSchema, Procedure, ProcedureOptions } from "../../model/rpc.ts"
import { isName, invalidArgument, expectedName } from "../wire/fieldTable.ts"
import { isInvalidArgument, readerOf, rule, formatValue, type Table, type Values } from "../wire/optionTable.ts"
import { codecOf } from "./content.ts"

type Any = Schema.Constraint

const operation = "AmqpRpc.make"

/** Procedures are shared values, so they have this prototype only, and these fields only. */
class Declared<P extends Any, S extends Any, E extends Any> implements Procedure<P, S, E> {
  readonly name: string
  readonly payloadSchema: P
  readonly successSchema: S
  readonly errorSchema: E
  readonly queue: string
  readonly exchange: string
  readonly routingKey: string
  /** The mistake in its declaration; every use of the procedure fails with it. */
  readonly #refused: InvalidArgument | undefined
  readonly #payload: Json<P>
  readonly #success: Json<S>
  readonly #error: Json<E>

  constructor(
    name: string,
    schemas: { readonly payload: P; readonly success: S; readonly error: E },
    route: Pick<ProcedureOptions<P, S, E>, "queue" | "exchange" | "routingKey">,
    refused: InvalidArgument | undefined
  ) {
    this.name = name
    this.payloadSchema = schemas.payload
    this.successSchema = schemas.success
    this.errorSchema = schemas.error
    this.queue = route.queue ?? name
    this.exchange = route.exchange ?? ""
    this.routingKey = route.routingKey ?? this.queue
    this.#refused = refused
    this.#payload = codecOf(schemas.payload)
    this.#success = codecOf(schemas.success)
    this.#error = codecOf(schemas.error)
  }

  static codecsOf<P extends Any, S extends Any, E extends Any>(
    procedure: Procedure<P, S, E>
  ): Codecs<P, S, E> | InvalidArgument {
    if (typeof procedure !== "object" || procedure === null || !(#refused in procedure)) {
      return new InvalidArgument({
        message:
          "AmqpRpc: procedure: expected a value that AmqpRpc.make has returned, got another value or a copy. Nothing was sent.",
        operation: "AmqpRpc",
        argument: "procedure"
      })
    }
    const declared = procedure as unknown as Declared<P, S, E>
    return declared.#refused ?? { payload: declared.#payload, success: declared.#success, error: declared.#error }
  }
}

export interface Codecs<P extends Any, S extends Any, E extends Any> {
  readonly payload: Json<P>
  readonly success: Json<S>
  readonly error: Json<E>
}

/** The codecs of a procedure, or the reason why it cannot be used. */
export const codecsOf = Declared.codecsOf

const given = rule<string>(`${expectedName}, not empty`, (value) => (isName(value) && value !== "" ? value : undefined))
const schema = rule<Any>("a schema", (value) => (Schema.isSchema(value) ? value : undefined))

const rules = {
  payload: rule<Any | Schema.Struct.Fields, Any>("a schema, or the fields of a struct", (value) => {
    if (Schema.isSchema(value)) return value
    const isFields = typeof value === "object" && value !== null && Object.values(value).every(Schema.isSchema)
    return isFields ? Schema.Struct(value as Schema.Struct.Fields) : undefined
  }),
  success: schema,
  error: schema,
  queue: given,
  exchange: rule<string>(expectedName, (value) => (isName(value) ? value : undefined)),
  routingKey: rule<string>(expectedName, (value) => (isName(value) ? value : undefined))
} satisfies Table<ProcedureOptions<Any | Schema.Struct.Fields, Any, Any>>

const optionsOf = readerOf(rules)

export const make = <
  Payload extends Any | Schema.Struct.Fields = Schema.Void,
  Success extends Any = Schema.Void,
  Error extends Any = Schema.Never
>(
  procedureName: string,
  options?: ProcedureOptions<Payload, Success, Error>
): Procedure<PayloadSchema<Payload>, Success, Error> => {
  const read =
    given.read(procedureName, operation) === undefined
      ? invalidArgument(operation, "name", given.expected, formatValue(procedureName))
      : optionsOf(operation, options)
  const values: Partial<Values<typeof rules>> = isInvalidArgument(read) ? {} : read
  const schemas = {
    payload: (values.payload ?? Schema.Void) as PayloadSchema<Payload>,
    success: (values.success ?? Schema.Void) as Success,
    error: (values.error ?? Schema.Never) as Error
  }
  return new Declared(procedureName, schemas, values, isInvalidArgument(read) ? read : undefined)
}
