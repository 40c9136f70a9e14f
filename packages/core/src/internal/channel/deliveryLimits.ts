/**
 * Delivery limits of quorum queues: how often a message may come back to its queue before RabbitMQ takes it out, to the
 * dead-letter exchange, or for good in a queue that has none.
 *
 * A queue has the limit of its declaration (`x-delivery-limit`); without one it is 20 in RabbitMQ 4, and there is none
 * before. A message is taken out when it is returned once more after `x-delivery-count` has reached the limit. Every
 * return counts up to 4.2, also of what was only delivered ahead. From 4.3 on `basic.nack` does not count.
 */
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { FieldTable, Headers } from "../../model/message.ts"
import type { QueueDeclared } from "../../model/channel.ts"
import { openChannel } from "./opening.ts"
import { mustFit, type readQueueDeclare } from "../wire/declarations.ts"
import { Handle, type Terms } from "./handle.ts"
import { type KnownQueue, typeOf } from "../connection/knownQueues.ts"
import type { Link } from "../connection/link.ts"
import { isFrom } from "../wire/versions.ts"

type Declaration = Exclude<ReturnType<typeof readQueueDeclare>, AmqpError.InvalidArgument>

const limit = "x-delivery-limit"
const deadLetterExchange = "x-dead-letter-exchange"

const hasDefaultLimit = (product: string): boolean => isFrom(product, 4, 0)

const countsNacks = (product: string): boolean => !isFrom(product, 4, 3)

/**
 * How often a delivery can still go back to its queue by `basic.nack` before the broker takes it out for good. Infinity:
 * as often as it takes, or the queue has a dead-letter exchange, so its limit is where the application wants it to end.
 *
 * @param given the limit as the consumer states it; undefined: as it was declared, or the broker's own
 */
export const returnsLeft = (
  product: string,
  queue: KnownQueue | undefined,
  headers: Headers,
  given: number | undefined
): number => {
  if (!countsNacks(product)) return Infinity
  const header = headers["x-delivery-count"]
  const isCounted = typeof header === "number"
  if (given === undefined) {
    const isQuorum = typeOf(queue) === "quorum" || isCounted
    if (!isQuorum || queue?.arguments[deadLetterExchange] !== undefined) return Infinity
  }
  const declared = given ?? queue?.arguments[limit]
  const most = typeof declared === "number" ? declared : hasDefaultLimit(product) ? 20 : Infinity
  const count = isCounted ? header : 0
  // One that was returned more often than that has another limit, by a policy, or none.
  return most < 0 || count > most ? Infinity : most - count
}

// --- Queues that this application declares -----------------------------------------------------------------------------

/** The declaration of the same queue without a limit; undefined for what keeps what it has, or never had one. */
const withoutLimit = (product: string, declaration: Declaration): Declaration | undefined => {
  const { arguments: table } = declaration
  if (table["x-queue-type"] !== "quorum" || table[deadLetterExchange] !== undefined || table[limit] !== undefined) {
    return undefined
  }
  // RabbitMQ 3.10 takes -1 for 0.
  if (!hasDefaultLimit(product)) return undefined
  // A checked table may keep its own keys in its prototype.
  const all: Record<string, FieldTable[string]> = Object.create(null)
  for (const key in table) all[key] = table[key]
  all[limit] = -1
  return { ...declaration, arguments: all }
}

/** A channel for one declaration: the broker closes it over what it refuses. */
class Declaring extends Handle {
  constructor(terms: Terms) {
    super(terms, new AmqpError.ChannelClosed({ message: "queue.declare: there is no channel yet" }))
  }

  declare(link: Link, queue: string, declaration: Declaration): Effect.Effect<QueueDeclared, AmqpError.AmqpError> {
    return openChannel(link, "regular", this.terms.continuationTimeout, (channel) => {
      this.held = channel
    }).pipe(
      Effect.andThen(
        this.request("queue.declare", (driver) => {
          mustFit("queue.declare", [queue], declaration.arguments, link.frameMax)
          return driver.queueDeclare(queue, declaration)
        })
      ),
      Effect.ensuring(Effect.sync(() => this.held?.abandon()))
    )
  }
}

const isOlder = ({ reason }: AmqpError.AmqpError): boolean =>
  reason._tag === "PreconditionFailed" &&
  reason.message.includes(`inequivalent arg '${limit}'`) &&
  reason.message.includes("but current is none")

/**
 * Declares a queue by `declare`; a quorum queue that has neither a dead-letter exchange nor a limit of its own is declared
 * without one. One that exists with the limit of the broker is refused then, which costs a channel: so that is found out
 * on another one, and the queue is declared as it is.
 */
export const declareWithoutLimit = (
  terms: Terms,
  link: Link,
  queue: string,
  declaration: Declaration,
  declare: (declaration: Declaration) => Effect.Effect<QueueDeclared, AmqpError.AmqpError>
): Effect.Effect<QueueDeclared, AmqpError.AmqpError> => {
  const unlimited = withoutLimit(link.product, declaration)
  if (unlimited === undefined) return declare(declaration)
  // The broker chooses a name that no queue has.
  if (queue === "") return declare(unlimited)
  const known = terms.queues.get(queue)
  if (known !== undefined && typeOf(known) === "quorum") {
    return Effect.tapError(declare(known.arguments[limit] === -1 ? unlimited : declaration), ({ reason }) =>
      Effect.sync(() => {
        if (reason._tag === "PreconditionFailed") terms.queues.forget(queue)
      })
    )
  }
  return Effect.suspend(() => new Declaring(terms).declare(link, queue, unlimited)).pipe(
    Effect.tap((declared) => Effect.sync(() => terms.queues.declared(declared.queue, unlimited))),
    Effect.catchIf(isOlder, () =>
      Effect.tap(declare(declaration), () =>
        Effect.annotateLogs(
          Effect.logWarning(
            "AMQP queue has a delivery limit and no dead-letter exchange: the broker drops a message that has come back 20 times. Set delivery-limit to -1 or a dead-letter-exchange for it by a policy, or delete it while it is empty, and it is declared without a limit"
          ),
          { queue, "amqp.connection": link.name ?? link.peer }
        )
      )
    )
  )
}
