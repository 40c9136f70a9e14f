/**
 * The live link of a connection: for the pool, not for applications, whose types must not know the driver. So it is not
 * among the service's fields, but beside them.
 */
import type * as Effect from "effect/Effect"
import type { AmqpConnection } from "../AmqpConnection.ts"
import type { AmqpError } from "../AmqpError.ts"
import type { Link } from "./amqplib.ts"
import { Preparations } from "./preparations.ts"

export interface Links {
  /** The live link, once there is one. Fails when there will be none any more. */
  readonly next: Effect.Effect<Link, AmqpError>
  /** The live link, if there is one now. */
  readonly current: () => Link | undefined
  /** What is declared again on a new link before anything is published or consumed on it. */
  readonly preparations: Preparations
}

const links = new WeakMap<AmqpConnection["Service"], Links>()

export const register = (
  connection: AmqpConnection["Service"],
  of: Omit<Links, "preparations">
): AmqpConnection["Service"] => {
  links.set(connection, { ...of, preparations: new Preparations(of.current) })
  return connection
}

/** Makes a connection wait for what is prepared on another one, to the same broker. */
export const prepareBy = (connection: AmqpConnection["Service"], other: AmqpConnection["Service"]): void => {
  links.set(connection, { ...linksOf(connection), preparations: linksOf(other).preparations })
}

export const linksOf = (connection: AmqpConnection["Service"]): Links => {
  const found = links.get(connection)
  if (found === undefined)
    throw new Error("This AmqpConnection was not made by AmqpConnection.make: it has no link to a broker")
  return found
}
