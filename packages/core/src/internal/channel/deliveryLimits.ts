/**
 * Delivery limits of quorum queues: how often a message can return to its queue before RabbitMQ removes it. A removed
 * message goes to the dead-letter exchange of the queue, and is lost if the queue has none.
 *
 * The declaration sets the limit (`x-delivery-limit`). Without it, the limit is 20 in RabbitMQ 4, and earlier versions
 * have none. A message is removed when it is returned once more after `x-delivery-count` has reached the limit. Up to
 * 4.2 every return counts, including returns of messages that were only prefetched. From 4.3 on `basic.nack` does not
 * count.
 */
import * as Effect from "effect/Effect"
import * as AmqpError from "../../model/error.ts"
import type { FieldTable, Headers } from "../../model/message.ts"
import type { QueueDeclared } from "../../model/channel.ts"
import { openChannel } from "./openChannel.ts"
import { assertFits, type readQueueDeclare } from "../wire/declarations.ts"
import { ChannelHandle, type ChannelTimeouts } from "./channelHandle.ts"
import { onClock } from "../waiting/onClock.ts"
import { type KnownQueue, typeOf } from "../connection/knownQueues.ts"
import type { Link } from "../connection/link.ts"
import { isAtLeast } from "../wire/versions.ts"

type Declaration = Exclude<ReturnType<typeof readQueueDeclare>, AmqpError.InvalidArgument>

const limit = "x-delivery-limit"
const deadLetterExchange = "x-dead-letter-exchange"

const hasDefaultLimit = (product: string): boolean => isAtLeast(product, 4, 0)

const countsNacks = (product: string): boolean => !isAtLeast(product, 4, 3)

/**
 * How often a delivery can still be returned to its queue with `basic.nack` before the broker drops it. Infinity means
 * that there is no limit, or that the queue has a dead-letter exchange: then the application has chosen what happens at
 * the limit.
 *
 * @param given the limit that the consumer states; undefined means the declared limit or the broker's default
 */
export const requeuesLeft = (
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
  // A message that was returned more often has a different limit from a policy, or none.
  return most < 0 || count > most ? Infinity : most - count
}

// --- Queues that this application declares ---------------------------------------------------------------------------

/** The same declaration without a limit; undefined if the declaration stays as it is. */
const withoutLimit = (product: string, declaration: Declaration): Declaration | undefined => {
  const { arguments: table } = declaration
  if (table["x-queue-type"] !== "quorum" || table[deadLetterExchange] !== undefined || table[limit] !== undefined) {
    return undefined
  }
  // RabbitMQ 3.10 treats -1 as 0.
  if (!hasDefaultLimit(product)) return undefined
  // A checked table may have keys in its prototype, so `for in` copies them and a spread would not.
  const all: Record<string, FieldTable[string]> = Object.create(null)
  for (const key in table) all[key] = table[key]
  all[limit] = -1
  return { ...declaration, arguments: all }
}

/** A channel for one declaration: the broker closes a channel when it refuses a declaration. */
class Declaring extends ChannelHandle {
  constructor(timeouts: ChannelTimeouts) {
    super(timeouts, new AmqpError.ChannelClosed({ message: "queue.declare: there is no channel yet" }))
  }

  declare(link: Link, queue: string, declaration: Declaration): Effect.Effect<QueueDeclared, AmqpError.AmqpError> {
    return openChannel(link, "regular", this.timeouts.continuationTimeout, (channel) => {
      this.held = channel
    }).pipe(
      Effect.andThen(
        this.request("queue.declare", (driver) => {
          assertFits("queue.declare", [queue], declaration.arguments, link.frameMax)
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
 * Declares a queue with `declare`. A quorum queue that has neither a dead-letter exchange nor a limit of its own is
 * declared without a limit. If it already exists with the broker's default limit, the broker refuses that declaration
 * and closes the channel. So the first attempt uses a separate channel, and after a refusal the queue is declared as it
 * exists.
 */
export const declareWithoutLimit = (
  timeouts: ChannelTimeouts,
  link: Link,
  queue: string,
  declaration: Declaration,
  declare: (declaration: Declaration) => Effect.Effect<QueueDeclared, AmqpError.AmqpError>
): Effect.Effect<QueueDeclared, AmqpError.AmqpError> => {
  const unlimited = withoutLimit(link.product, declaration)
  if (unlimited === undefined) return declare(declaration)
  // The broker generates a new name, so the queue cannot exist yet.
  if (queue === "") return declare(unlimited)
  const known = timeouts.queues.get(queue)
  if (known !== undefined && typeOf(known) === "quorum") {
    return Effect.tapError(declare(known.arguments[limit] === -1 ? unlimited : declaration), ({ reason }) =>
      Effect.sync(() => {
        if (reason._tag === "PreconditionFailed") timeouts.queues.forget(queue)
      })
    )
  }
  const attempt = Effect.suspend(() => new Declaring(timeouts).declare(link, queue, unlimited))
  return onClock(timeouts.deadlines.clock, attempt).pipe(
    Effect.tap((declared) => Effect.sync(() => timeouts.queues.declared(declared.queue, unlimited))),
    Effect.catchIf(isOlder, () =>
      Effect.tap(declare(declaration), () =>
        Effect.annotateLogs(
          Effect.logWarning(
            "AMQP queue has a delivery limit and no dead-letter exchange: the broker drops messages after 20 returns. Set delivery-limit to -1 or a dead-letter-exchange with a policy, or delete the empty queue, so that it is declared again without a limit"
          ),
          { queue, "amqp.connection": link.name ?? link.peer }
        )
      )
    )
  )
}
