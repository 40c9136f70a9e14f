/**
 * The live link of a connection, and what its application shares: for the pool, publishers and consumers, not for
 * applications, whose types must not know the driver.
 */
import type * as Effect from "effect/Effect"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpError } from "../../model/error.ts"
import { Inside } from "../../model/inside.ts"
import type { ChannelBudget } from "./channelBudget.ts"
import type { Conditions } from "./conditions.ts"
import type { Keepers } from "./keepers.ts"
import type { KnownQueues } from "./knownQueues.ts"
import type { Link } from "./link.ts"
import type { Login } from "./login.ts"
import type { Preparations } from "./preparations.ts"
import type { Shutdown } from "./shutdown.ts"

export interface Links {
  /** The live link, once there is one. Fails when there will be none any more. */
  readonly next: Effect.Effect<Link, AmqpError>
  /** The live link, if there is one now. */
  readonly current: () => Link | undefined
  /** What is declared again on a new link before anything is published or consumed on it. */
  preparations: Preparations
  /** The time that all parts of an application share when they stop. */
  shutdown: Shutdown
  /** What this application has declared. */
  queues: KnownQueues
  /** How many channels may be open, on all of the application's connections together. */
  budget: ChannelBudget
  /** What this application declares again when it is missing. */
  keepers: Keepers
  /** What needs an operator's attention. */
  conditions: Conditions
  /** What came and could not be read. */
  unread: Unread
  readonly login: Login
}

/** Counts messages that were not taken in. */
export interface Unread {
  /** Their headers could not be read. */
  undecodable: number
}

/** The inside of an `AmqpConnection`. */
export class ConnectionInside extends Inside<Links> {}

/** Makes a connection one application with another one, to the same broker: it waits for what is prepared there, and ends with it. */
export const joinTo = (connection: AmqpConnection["Service"], main: AmqpConnection["Service"]): void => {
  const { budget, conditions, keepers, preparations, queues, shutdown, unread } = linksOf(main)
  Object.assign(linksOf(connection), { budget, conditions, keepers, preparations, queues, shutdown, unread })
}

/** For what opens channels on a connection, which cannot do without its link. A connection made by hand is a defect there. */
export const linksOf = (connection: AmqpConnection["Service"]): Links => {
  const found = ConnectionInside.of(connection)
  if (found === undefined) {
    throw new Error(
      "AmqpConnection: expected one made by AmqpConnection.make, or a copy of one, got one made by hand, which has no link to a broker: use AmqpConnection.make or a layer, and override members of that"
    )
  }
  return found
}
