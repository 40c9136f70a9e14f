/** The bounds that publishers and RPC clients have in common, with the same defaults. */
import type { Options } from "../../model/publisher.ts"
import { integer, or, type Table } from "../wire/optionTable.ts"

export const boundRules = {
  maxInFlightBytes: or(integer(1, Number.MAX_SAFE_INTEGER), 64 * 1024 * 1024),
  maxWaitingBytes: or(integer(1, Number.MAX_SAFE_INTEGER), 32 * 1024 * 1024),
  // Not given: as the broker's product and version say.
  maxMessageSize: integer(1, Number.MAX_SAFE_INTEGER)
} satisfies Table<Pick<Options, "maxInFlightBytes" | "maxWaitingBytes" | "maxMessageSize">>
