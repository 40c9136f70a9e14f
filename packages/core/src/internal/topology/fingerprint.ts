/**
 * The wire form of the parts of a topology. Two descriptions with the same meaning have the same form: a default that
 * is given or left out, `1000` or `"1 second"`.
 */
import { isInvalidArgument, readBind, readExchangeDeclare, readQueueDeclare } from "../wire/declarations.ts"
import type { Binding, Exchange, External, Queue } from "../../model/topology.ts"

/** The name of a part in reports of mistakes. */
export const describe = (part: Exchange | Queue | Binding | External): string => {
  switch (part._tag) {
    case "Exchange":
      return `exchange ${JSON.stringify(part.name)}`
    case "Queue":
      return `queue ${JSON.stringify(part.name)}`
    case "External":
      return `external ${part.type} ${JSON.stringify(part.name)}`
    case "Binding": {
      const { destination, destinationType, routingKey, source } = part
      const key = routingKey === "" ? "" : ` by ${JSON.stringify(routingKey)}`
      return `binding of ${destinationType} ${JSON.stringify(destination)} to exchange ${JSON.stringify(source)}${key}`
    }
  }
}

/** The validated options of a declaration, or the mistake in them. */
export const readOptions = (part: Exchange | Queue) =>
  part._tag === "Exchange"
    ? readExchangeDeclare(part.options, describe(part))
    : readQueueDeclare(part.options, describe(part))

/** The properties of a declaration, keyed by the protocol's names. */
export const propertiesOf = (part: Exchange | Queue): ReadonlyMap<string, string> | undefined => {
  const read = readOptions(part)
  if (isInvalidArgument(read)) return undefined
  const { arguments: table, ...fields } = read
  const properties = new Map(part._tag === "Exchange" ? [["type", canonical(part.type)]] : [])
  for (const [name, value] of Object.entries(fields)) properties.set(name, canonical(value))
  for (const [name, value] of entries(table)) properties.set(name, canonical(value))
  return properties
}

/** A value that is equal for parts that declare the same; the part itself if it is invalid. */
export const fingerprint = (part: Exchange | Queue | Binding | External): unknown => {
  if (part._tag === "External") return canonical(["External", part.type, part.name])
  if (part._tag === "Binding") {
    const table = readBind("", part.options)
    const { destination, destinationType, routingKey, source } = part
    return isInvalidArgument(table)
      ? part
      : canonical(["Binding", destinationType, destination, source, routingKey, table])
  }
  const properties = propertiesOf(part)
  return properties === undefined ? part : canonical([part._tag, part.name, Object.fromEntries(properties)])
}

// A validated table may have its own keys in its prototype.
const entries = (table: object): ReadonlyArray<readonly [string, unknown]> => {
  const all: Array<readonly [string, unknown]> = []
  for (const name in table) all.push([name, (table as Record<string, unknown>)[name]])
  return all.sort(([a], [b]) => (a < b ? -1 : 1))
}

const canonical = (value: unknown): string => {
  if (typeof value === "bigint") return `${value}n`
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? String(value)
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString("hex")}`
  if (value instanceof Date) return `date ${value.getTime()}`
  return `{${entries(value)
    .map(([name, item]) => `${JSON.stringify(name)}:${canonical(item)}`)
    .join()}}`
}
