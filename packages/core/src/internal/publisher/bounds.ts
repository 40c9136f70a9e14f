/** The bounds that publishers and RPC clients share, with the same defaults. */
import type { Options } from "../../model/publisher.ts"
import { integer, withDefault, type Table } from "../wire/optionTable.ts"

export const boundRules = {
  maxInFlightBytes: withDefault(integer(1, Number.MAX_SAFE_INTEGER), 64 * 1024 * 1024),
  maxWaitingBytes: withDefault(integer(1, Number.MAX_SAFE_INTEGER), 32 * 1024 * 1024),
  // Without it, the default of the broker's product and version applies.
  maxMessageSize: integer(1, Number.MAX_SAFE_INTEGER)
} satisfies Table<Pick<Options, "maxInFlightBytes" | "maxWaitingBytes" | "maxMessageSize">>
