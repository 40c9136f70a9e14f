/** Exchanges and bindings. */
import type { Queue } from "./queue.ts"
import { matchesHeaders, matchesTopic } from "./routing.ts"
import type * as Table from "./table.ts"

export const exchangeTypes = ["direct", "fanout", "topic", "headers"] as const
export type ExchangeType = (typeof exchangeTypes)[number]

export interface ExchangeFlags {
  readonly durable: boolean
  readonly autoDelete: boolean
  readonly internal: boolean
}

/** A route from an exchange to a queue or another exchange. */
export interface Binding {
  readonly destination: Queue | Exchange
  readonly routingKey: string
  readonly args: ReadonlyArray<Table.Entry>
}

export class Exchange {
  readonly name: string
  readonly type: ExchangeType
  readonly flags: ExchangeFlags
  readonly args: ReadonlyArray<Table.Entry>
  readonly alternate: string | undefined
  bindings: ReadonlyArray<Binding> = []
  isDeleted = false

  constructor(
    name: string,
    type: ExchangeType,
    flags: ExchangeFlags,
    args: ReadonlyArray<Table.Entry>,
    alternate: string | undefined
  ) {
    this.name = name
    this.type = type
    this.flags = flags
    this.args = args
    this.alternate = alternate
  }

  /** The destinations of the bindings that match. */
  match(keys: ReadonlyArray<string>, headers: () => ReadonlyArray<Table.Entry>): ReadonlyArray<Queue | Exchange> {
    const matches = ({ args, routingKey }: Binding): boolean => {
      switch (this.type) {
        case "direct":
          return keys.includes(routingKey)
        case "fanout":
          return true
        case "topic":
          return keys.some((key) => matchesTopic(routingKey, key))
        case "headers":
          return matchesHeaders(args, headers())
      }
    }
    return this.bindings.filter(matches).map(({ destination }) => destination)
  }
}
