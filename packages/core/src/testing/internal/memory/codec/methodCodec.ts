/**
 * The payloads of method and content-header frames, by the table of methods.
 */
import type { FieldTable } from "./fieldTable.ts"
import { readTable, writeTable } from "./fieldTable.ts"
import type { Args, ClientMethod, FieldType, Method, Properties } from "./methods.ts"
import { properties, specs } from "./methods.ts"
import { WireError, WireReader, WireWriter } from "./wire.ts"

const methodsById = new Map<number, ClientMethod>(
  Object.entries(specs).flatMap(([method, { id, sender }]) =>
    sender === "server" ? [] : [[id, method as ClientMethod] as const]
  )
)

const names = new Map(Object.entries(specs).map(([method, { id }]) => [id, method as Method] as const))

/** The method of this number, of a client or of a broker. */
export const methodOf = (id: number): Method | undefined => names.get(id)

export const isClientMethod = (method: Method): method is ClientMethod => methodsById.has(specs[method].id)

type ReadTable = (reader: WireReader) => unknown

const readField = (reader: WireReader, type: Exclude<FieldType, "bit">, readTableField: ReadTable): unknown => {
  switch (type) {
    case "longlong":
    case "timestamp":
      return Number(reader.longlong())
    case "table":
      return readTableField(reader)
    default:
      return reader[type]()
  }
}

const writeField = (writer: WireWriter, type: Exclude<FieldType, "bit">, value: unknown): void => {
  switch (type) {
    case "longlong":
    case "timestamp":
      return writer.longlong(BigInt((value ?? 0) as number))
    case "table":
      return writeTable(writer, (value ?? {}) as FieldTable)
    case "shortstr":
    case "longstr":
      return writer[type]((value ?? "") as string)
    default:
      return writer[type]((value ?? 0) as number)
  }
}

export interface DecodedMethod {
  readonly method: ClientMethod
  readonly args: Readonly<Record<string, unknown>>
}

/** Decodes the payload of a method frame from a client. `readTableField` reads its tables. */
export const decodeMethod = (payload: Buffer, readTableField: ReadTable = readTable): DecodedMethod => {
  const reader = new WireReader(payload)
  const id = reader.long()
  const method = methodsById.get(id)
  if (method === undefined) throw new WireError(`no client sends method ${id >>> 16}.${id & 0xffff}`)
  const args: Record<string, unknown> = {}
  let bits = 0
  let octet = 0
  for (const [name, type] of Object.entries<FieldType>(specs[method].fields)) {
    if (type === "bit") {
      if (bits === 0) octet = reader.octet()
      args[name] = ((octet >> bits) & 1) === 1
      bits = (bits + 1) % 8
    } else {
      bits = 0
      args[name] = readField(reader, type, readTableField)
    }
  }
  if (!reader.done) throw new WireError(`${method} has octets beyond its last argument`)
  return { method, args }
}

/** The payload of a method frame. Arguments that are left out are zero, empty or false. */
export const encodeMethod = <M extends Method>(method: M, args: Partial<Args<M>>): Buffer => {
  const given = args as Readonly<Record<string, unknown>>
  const writer = new WireWriter()
  writer.long(specs[method].id)
  let bits: Array<boolean> = []
  const flush = () => {
    if (bits.length > 0) writer.octet(bits.reduce((octet, bit, index) => octet | (Number(bit) << index), 0))
    bits = []
  }
  for (const [name, type] of Object.entries<FieldType>(specs[method].fields)) {
    if (type === "bit") {
      bits.push(given[name] === true)
    } else {
      flush()
      writeField(writer, type, given[name])
    }
  }
  flush()
  return writer.finish()
}

/** The flags and values of a content header, after class, weight and body size. */
export const encodeProperties = (given: Properties): Buffer => {
  const values = given as Readonly<Record<string, unknown>>
  const writer = new WireWriter()
  let flags = 0
  const body = new WireWriter()
  for (const [index, [name, type]] of Object.entries(properties).entries()) {
    if (values[name] === undefined) continue
    flags |= 0x8000 >> index
    writeField(body, type, values[name])
  }
  writer.short(flags)
  writer.octets(body.finish())
  return writer.finish()
}

export const decodeProperties = (reader: WireReader): Properties => {
  const flags = reader.short()
  if ((flags & 3) !== 0) throw new WireError(`property flags 0x${flags.toString(16)} name properties that do not exist`)
  const values: Record<string, unknown> = {}
  for (const [index, [name, type]] of Object.entries(properties).entries()) {
    if ((flags & (0x8000 >> index)) !== 0) values[name] = readField(reader, type, readTable)
  }
  if (!reader.done) throw new WireError("content header has octets beyond its last property")
  return values
}
