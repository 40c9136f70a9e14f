/** What peek, redrive and discard share: the connection, the queues, and passes that begin again after a loss. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AmqpConfig } from "../../model/config.ts"
import type { AmqpConnection } from "../../model/connection.ts"
import type { AmqpConsumer } from "../../model/consumer.ts"
import * as AmqpError from "../../model/error.ts"
import { fail } from "../../model/failures.ts"
import type { Message } from "../../model/message.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import type { ChannelTimeouts } from "../channel/channelHandle.ts"
import { type ConnectionInternals, connectionInternals } from "../connection/connectionInternals.ts"
import { ForwardingPublisher } from "../consumer/forwardingPublisher.ts"
import { clockOf } from "../consumer/runningConsumers.ts"
import { Deadlines } from "../waiting/deadlines.ts"
import { type AsCaller, withCaller } from "../waiting/onClock.ts"
import type { DeliveredMessage } from "../driver/driver.ts"
import { sameAtEnd } from "../message/copies.ts"
import type { Settings } from "./options.ts"
import { exclusive, inspect, isExclusive, type QueueFacts } from "./queueFacts.ts"
import { maxAhead, QueueReader } from "./queueReader.ts"

/** The pauses between two passes after a loss, in milliseconds. */
const shortestPause = 50
const longestPause = 1000

/** A queue and what is known of it. */
export interface InspectedQueue {
  readonly queue: string
  readonly facts: QueueFacts
  /** Number of its messages at the start. */
  readonly total: number
}

/** Whether another connection or channel may help. */
const isLost = ({ reason }: AmqpError.AmqpError): boolean => {
  switch (reason._tag) {
    case "ChannelClosed":
    case "ConsumerCancelled":
    case "ReplyTimeout":
      return true
    default:
      return reason.severity === "connection" && reason.isRetryable
  }
}

/** An error with what to do about a queue that another connection keeps for itself. */
const explained = (queue: string) => (error: AmqpError.AmqpError) =>
  isExclusive(error.reason) ? AmqpError.fromReason(exclusive(queue, error.reason)) : error

export class Workbench {
  readonly asCaller: AsCaller
  readonly settings: Settings
  readonly timeouts: ChannelTimeouts
  readonly publisher: AmqpPublisher["Service"]
  /** The publisher for single messages, also those above the publisher's own limits. */
  readonly forwarding: AmqpPublisher["Service"]
  readonly #connection: AmqpConnection["Service"]
  readonly #internals: ConnectionInternals
  /** How many messages a reader may have ahead; fewer once they were larger than those before. */
  #mostAhead = maxAhead
  /** When the operation has last moved on, in milliseconds of the monotonic clock. */
  #movedAt: number

  constructor(
    asCaller: AsCaller,
    settings: Settings,
    timeouts: ChannelTimeouts,
    publisher: AmqpPublisher["Service"],
    connection: AmqpConnection["Service"]
  ) {
    this.asCaller = asCaller
    this.settings = settings
    this.timeouts = timeouts
    this.publisher = publisher
    this.#connection = connection
    this.#internals = connectionInternals(connection)
    this.forwarding = new ForwardingPublisher(publisher, this.#internals, timeouts, connection.config).service
    this.#movedAt = timeouts.deadlines.now
  }

  get config(): AmqpConfig {
    return this.#connection.config
  }

  /** Notes that the operation has moved on: its timeout starts again. */
  moved(): void {
    this.#movedAt = this.timeouts.deadlines.now
  }

  get #timeLeft(): number {
    return Math.max(1, this.#movedAt + this.settings.timeout - this.timeouts.deadlines.now)
  }

  /** Bounds a step by the timeout of the operation. */
  within<A, R>(step: Effect.Effect<A, AmqpError.AmqpError, R>): Effect.Effect<A, AmqpError.AmqpError, R> {
    return Effect.suspend(() =>
      Effect.timeoutOrElse(step, { duration: this.#timeLeft, orElse: () => fail(this.#noProgress()) })
    )
  }

  #noProgress(): AmqpError.AmqpErrorReason {
    const { value } = this.#connection.state
    if (value._tag !== "Open" && value.reason !== undefined) return value.reason
    return new AmqpError.ReplyTimeout({
      message: `AmqpDeadLetters: no progress for ${Duration.format(Duration.millis(this.settings.timeout))} (timeout). Nothing is lost: what was not handled is still in its queue.`,
      operation: "AmqpDeadLetters"
    })
  }

  /** Repeats a pass over a queue after a loss, until the timeout passes without progress. */
  repeat<A>(pass: Effect.Effect<A, AmqpError.AmqpError>): Effect.Effect<A, AmqpError.AmqpError> {
    const attempt = (pause: number): Effect.Effect<A, AmqpError.AmqpError> =>
      Effect.suspend(() => {
        const startedAt = this.#movedAt
        return Effect.catchIf(
          pass,
          (error) => isLost(error) && this.timeouts.deadlines.now < this.#movedAt + this.settings.timeout,
          () => {
            const next = this.#movedAt > startedAt ? shortestPause : Math.min(longestPause, 2 * pause)
            return Effect.andThen(Effect.sleep(next), attempt(next))
          }
        )
      })
    return attempt(shortestPause)
  }

  inspect(queue: string): Effect.Effect<InspectedQueue, AmqpError.AmqpError> {
    const { deliveryLimit } = this.settings
    return this.repeat(
      this.within(
        Effect.flatMap(
          Effect.mapError(inspect(this.timeouts, this.#internals, queue, deliveryLimit), explained(queue)),
          (facts) =>
            Effect.map(
              this.reading({ queue, facts, total: 0 }, 0, (reader) => reader.ready),
              (total) => ({ queue, facts, total })
            )
        )
      )
    )
  }

  /** Reads a queue on a channel of its own. What is unsettled in the end is returned. */
  reading<A>(
    inspected: InspectedQueue,
    budget: number,
    use: (reader: QueueReader) => Effect.Effect<A, AmqpError.AmqpError>
  ): Effect.Effect<A, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const { facts, queue } = inspected
      const { closeTimeout } = this.config
      const reader = new QueueReader(this.timeouts, queue, facts, budget, closeTimeout, this.#mostAhead)
      return Effect.ensuring(
        Effect.andThen(
          this.within(reader.open(this.#internals)),
          Effect.suspend(() => use(reader))
        ),
        Effect.suspend(() => {
          if (reader.isOverflown) this.#mostAhead = Math.max(1, Math.floor(this.#mostAhead / 8))
          return reader.close(this.#internals)
        })
      )
    }).pipe(
      // The queue is a quorum queue with a single active consumer. It was the first message, so nothing has happened yet.
      Effect.catchIf(
        ({ reason }) => reason._tag === "ResourceLocked" && reason.operation === "basic.get" && inspected.facts.canGet,
        () => {
          const facts = { ...inspected.facts, type: "quorum", reading: "consume", canGet: false } as const
          return this.reading({ ...inspected, facts }, budget, use)
        }
      ),
      Effect.mapError(explained(inspected.queue))
    )
  }

  /** Whether a message that its queue refuses is dead-lettered by it, as far as this application knows. */
  deadLettersRefused({ exchange = "", routingKey = "" }: Message): boolean {
    const overflow = exchange === "" ? this.timeouts.queues.get(routingKey)?.arguments["x-overflow"] : undefined
    return overflow === "reject-publish-dlx"
  }

  /** Leaves a message in its queue. If the broker might remove it when it is returned, it goes to the end instead. */
  leave(
    queue: string,
    reader: QueueReader,
    message: DeliveredMessage
  ): Effect.Effect<void, AmqpError.AmqpError> | void {
    if (!reader.isNearLimit(message)) return reader.keep(message.deliveryTag)
    const copy = this.forwarding.publish(sameAtEnd(queue, message, this.config), {
      mandatory: true,
      timeout: this.settings.timeout
    })
    return Effect.matchEffect(copy, {
      onSuccess: () => Effect.sync(() => void reader.acknowledge(message.deliveryTag)),
      onFailure: () => Effect.sync(() => reader.keep(message.deliveryTag))
    })
  }
}

/** Runs an operation with the connection of the consumers, which the broker does not block when it blocks publishers. */
export const operate = <A>(
  consumer: AmqpConsumer["Service"],
  settings: Settings,
  use: (bench: Workbench) => Effect.Effect<A, AmqpError.AmqpError, Scope.Scope>
): Effect.Effect<A, AmqpError.AmqpError> =>
  withCaller(clockOf(consumer), (asCaller) =>
    Effect.scoped(
      Effect.gen(function* () {
        const connection = yield* consumer.connection
        const clock = yield* Clock.Clock
        const { config } = connection
        const fork = Effect.runForkWith(yield* Effect.context<never>())
        const deadlines = new Deadlines(clock, fork)
        yield* Effect.addFinalizer(() => Effect.sync(() => deadlines.stop()))
        const timeouts: ChannelTimeouts = {
          continuationTimeout: config.continuationTimeout,
          publishTimeout: Duration.toMillis(config.publishTimeout),
          deadlines,
          queues: connectionInternals(connection).queues
        }
        return yield* use(new Workbench(asCaller, settings, timeouts, consumer.publisher, connection))
      })
    )
  )
