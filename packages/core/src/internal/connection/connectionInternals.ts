/**
 * The live link of a connection, and the state that one application shares. It is for the pool, publishers and
 * consumers, not for applications, whose types must not know the driver.
 */
import type * as Clock from "effect/Clock"
import type * as Effect from "effect/Effect"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpError } from "../../model/error.ts"
import { Inside } from "../../model/inside.ts"
import type { ChannelBudget } from "./channelBudget.ts"
import type { Conditions } from "./conditions.ts"
import type { TopologyRecovery } from "./topologyRecovery.ts"
import type { KnownQueues } from "./knownQueues.ts"
import type { Link } from "./link.ts"
import type { Login } from "./login.ts"
import type { Preparations } from "./preparations.ts"
import type { Shutdown } from "./shutdown.ts"

export interface ConnectionInternals {
  /** The clock of everything that waits for this connection. */
  readonly clock: Clock.Clock
  /** Waits for the live link. Fails when the connection is closed for good. */
  readonly nextLink: Effect.Effect<Link, AmqpError>
  /** The live link, if there is one now. */
  readonly currentLink: () => Link | undefined
  /** Declarations that are repeated on a new link before anything is published or consumed on it. */
  preparations: Preparations
  /** The time that all parts of an application share when they stop. */
  shutdown: Shutdown
  /** The queues that this application has declared. */
  queues: KnownQueues
  /** The bound of open channels, on all connections of the application together. */
  budget: ChannelBudget
  /** The topologies that this application declares again when they are missing. */
  topologyRecovery: TopologyRecovery
  /** Conditions that need an operator's attention. */
  conditions: Conditions
  /** Counts of messages that could not be read. */
  unread: UnreadCounts
  readonly login: Login
}

/** Counts of messages that could not be read. */
export interface UnreadCounts {
  /** Messages whose headers could not be decoded. */
  undecodable: number
}

/** The internal part of an `AmqpConnection`. */
export class ConnectionInside extends Inside<ConnectionInternals> {}

/**
 * Makes a connection share the state of another one to the same broker: it waits for the same preparations, and stops
 * within the same shutdown time.
 */
export const shareInternals = (connection: AmqpConnection["Service"], main: AmqpConnection["Service"]): void => {
  const { budget, conditions, topologyRecovery, preparations, queues, shutdown, unread } = connectionInternals(main)
  Object.assign(connectionInternals(connection), {
    budget,
    conditions,
    topologyRecovery,
    preparations,
    queues,
    shutdown,
    unread
  })
}

/**
 * Returns the internals of a connection, for code that opens channels on it. A connection that was made by hand has
 * none, which is a defect.
 */
export const connectionInternals = (connection: AmqpConnection["Service"]): ConnectionInternals => {
  const found = ConnectionInside.of(connection)
  if (found === undefined) {
    throw new Error(
      "AmqpConnection: expected one made by AmqpConnection.make, or a copy of one, got one made by hand, which has no link to a broker: use AmqpConnection.make or a layer, and override members of that"
    )
  }
  return found
}
