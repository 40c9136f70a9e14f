/**
 * Counts of attempts that all processes see, and that a process which is killed leaves behind.
 *
 * A redelivered message was handled by a process that was killed, or lay unseen in its prefetch: the broker's flags and
 * counts are the same. The difference has to be written down between the delivery and the handler, and the message cannot
 * carry it: published again, with a count, the message would lie in a prefetch once more before it is handled, and its
 * count would grow with every lost connection, every deployment, and every other message that kills the process. So the
 * beginning of each attempt is recorded beside the queue: a small queue per message, `<queue>.attempts.<hash>`, holds one
 * record per attempt. How many there are, its declaration answers.
 *
 * Only a redelivered message is recorded. It exists while the message is in hand, or failed and waits for its next
 * attempt; the broker removes what was left behind and not used for a day.
 *
 * Nothing here fails: a message whose attempts cannot be recorded is handled, and counted in this process only.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Semaphore from "effect/Semaphore"
import type { AmqpConfig } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import { openChannel } from "../channel/opening.ts"
import { Handle, type Terms } from "../channel/handle.ts"
import type { Links } from "../connection/links.ts"
import * as Logging from "../telemetry/logging.ts"
import { nameBeside } from "../topology/delayQueues.ts"
import type { AttemptMemory } from "./attemptMemory.ts"
import type { ConsumerDelivery, SharedCount } from "./delivery.ts"
import type { Restore } from "./settling.ts"

/** How long a delivery waits for its count, in milliseconds. */
const longestWait = 5000

/** After the broker has refused or not answered, in milliseconds: doubled each time. */
const shortestRest = 30_000
const longestRest = 3_600_000

/**
 * How many messages are recorded at once, and how many per second after that. A consumer that takes over a large backlog
 * of redelivered messages must not be slowed down by each of them. One that kills is among the first of them: what a
 * killed process had in hand goes back to the head of the queue.
 */
const burst = 1000
const perSecond = 10

/** How long a count that is not needed any more may wait for a channel, in milliseconds. What it holds then stays there. */
const longestTidying = 30_000

/** How many counts of messages that wait for their next attempt are kept. The oldest one gives way. */
const mostWaiting = 1000

/** The broker removes a count that was not used for so long. */
const unusedFor = Duration.days(1)

// As `queue.declare` wants it: a virtual host may have another default type.
const noConditions = { ifEmpty: false, ifUnused: false }

const declaration = {
  durable: true,
  arguments: { "x-queue-type": "classic", "x-expires": Duration.toMillis(unusedFor) }
}

export const countQueueName = (queue: string, key: string): string => nameBeside(queue, `.attempts.${key.slice(0, 22)}`)

export class SharedCounts extends Handle {
  readonly #links: Links
  readonly #publisher: AmqpPublisher["Service"]
  readonly #queue: string
  readonly #most: number
  readonly #fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly #annotations: Readonly<Record<string, unknown>>
  // Deliveries that come together want the same channel.
  readonly #oneAtATime = Semaphore.makeUnsafe(1)
  readonly #memory: AttemptMemory
  /** The messages in hand, by their keys. */
  readonly #inHand = new Set<string>()
  /** Those that have failed, and wait for their next attempt. */
  readonly #waiting = new Set<string>()
  /** What is under way with counts of messages that are not in hand, by their keys. */
  readonly #tidying = new Map<string, Fiber.Fiber<void>>()
  #left = burst
  #leftAt: number
  #restsUntil = 0
  #rest = shortestRest
  #hasEnded = false

  constructor(options: {
    readonly links: Links
    readonly terms: Terms
    readonly publisher: AmqpPublisher["Service"]
    readonly queue: string
    readonly memory: AttemptMemory
    readonly maxDeliveries: number
    readonly config: AmqpConfig
    readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  }) {
    super(options.terms, new AmqpError.ChannelClosed({ message: "queue.declare: there is no channel yet" }))
    this.#links = options.links
    this.#publisher = options.publisher
    this.#queue = options.queue
    this.#memory = options.memory
    this.#most = options.maxDeliveries
    this.#fork = options.fork
    this.#annotations = { queue: options.queue, ...Logging.ofConnection(options.config) }
    this.#leftAt = options.terms.deadlines.now
  }

  /** Whether the attempts at this delivery are looked up, and this one recorded, before it is handled. */
  counts(delivery: ConsumerDelivery): boolean {
    if (!delivery.redelivered || delivery.isShared || this.#hasEnded || !this.#isKept()) return false
    const { key } = delivery
    if (this.#memory.isAmbiguous(key)) {
      if (this.#waiting.has(key)) this.#forget(key)
      return false
    }
    // It is being handled already: the same message, whose channel was lost, or one like it.
    if (this.#inHand.has(key)) {
      this.#memory.noteAmbiguous(key)
      return false
    }
    const { now } = this.terms.deadlines
    return now >= this.#restsUntil && this.#isAffordable(now)
  }

  // The counts of a queue that goes with its connection would outlive its messages.
  #isKept(): boolean {
    const known = this.terms.queues.get(this.#queue)
    return known === undefined || !(known.exclusive || known.autoDelete || known.arguments["x-queue-type"] === "stream")
  }

  #isAffordable(now: number): boolean {
    this.#left = Math.min(burst, this.#left + ((now - this.#leftAt) / 1000) * perSecond)
    this.#leftAt = now
    if (this.#left < 1) return false
    this.#left--
    return true
  }

  /**
   * Looks up how often handling of this delivery's message has begun, and records that it begins now. Whether it is still
   * to be handled: if it was interrupted it has gone back, and with its channel, too.
   */
  begin(delivery: ConsumerDelivery, restore: Restore): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const { key } = delivery
      // Since it was asked for: in one batch may be several like it.
      if (this.#inHand.has(key)) {
        this.#memory.noteAmbiguous(key)
        return Effect.succeed(true)
      }
      this.#inHand.add(key)
      this.#waiting.delete(key)
      this.#memory.share(key, true)
      const count: SharedCount = {
        end: () => this.#forget(key),
        keep: () => {
          this.#inHand.delete(key)
          this.#wait(key)
        },
        undo: () => {
          this.#inHand.delete(key)
          this.#wait(key)
          this.#tidy(key, this.#takeBack(key))
        }
      }
      return Effect.matchCauseEffect(restore(this.#record(delivery, count)), {
        onSuccess: () => {
          if (!delivery.isSettled) return Effect.succeed(true)
          // Its channel has ended meanwhile.
          delivery.settle("giveBack")
          return Effect.succeed(false)
        },
        onFailure: (cause) => {
          this.#inHand.delete(key)
          this.#memory.share(key, false)
          const isInterrupted = Cause.hasInterruptsOnly(cause)
          if (isInterrupted || delivery.isSettled) {
            delivery.settle("giveBack")
            return Effect.succeed(false)
          }
          return Effect.as(this.#unavailable(cause), true)
        }
      })
    })
  }

  /** The same for several at once: those that are still to be handled. */
  beginAll(batch: ReadonlyArray<ConsumerDelivery>, restore: Restore): Effect.Effect<ReadonlyArray<ConsumerDelivery>> {
    const counted = new Set(batch.filter((delivery) => this.counts(delivery)))
    if (counted.size === 0) return Effect.succeed(batch)
    return Effect.filter(
      batch,
      (delivery) => (counted.has(delivery) ? this.begin(delivery, restore) : Effect.succeed(true)),
      { concurrency: "unbounded" }
    )
  }

  #record(delivery: ConsumerDelivery, count: SharedCount): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.gen({ self: this }, function* () {
      const { key } = delivery
      const name = countQueueName(this.#queue, key)
      const tidying = this.#tidying.get(key)
      if (tidying !== undefined) yield* Fiber.await(tidying)
      yield* this.#open
      const { messageCount } = yield* this.request("queue.declare", (driver) => driver.queueDeclare(name, declaration))
      // It is given up, and nothing has to be written down.
      const isEnough = delivery.failures + messageCount >= this.#most
      if (!isEnough) {
        yield* Effect.forEach(
          Array.from({ length: 1 + delivery.remembered }),
          () => this.#publisher.publish({ routingKey: name, content: "" }, { mandatory: true }),
          { concurrency: "unbounded", discard: true }
        ).pipe(
          // It may have been recorded, and is not handled now.
          Effect.onInterrupt(() => Effect.sync(() => this.#tidy(key, this.#takeBack(key))))
        )
      }
      this.#rest = shortestRest
      delivery.share(messageCount, !isEnough, count)
    }).pipe(
      Effect.withTracerEnabled(false),
      Effect.timeoutOrElse({
        duration: longestWait,
        orElse: () =>
          Effect.fail(
            AmqpError.fromReason(
              new AmqpError.ReplyTimeout({
                message: `queue.declare: ${JSON.stringify(countQueueName(this.#queue, delivery.key))} has not taken its record within ${longestWait} ms`,
                operation: "queue.declare"
              })
            )
          )
      })
    )
  }

  readonly #open: Effect.Effect<void, AmqpError.AmqpError> = Effect.suspend(() =>
    this.#isOpen ? Effect.void : this.#oneAtATime.withPermits(1)(this.#openNow)
  )

  get #isOpen(): boolean {
    return this.held?.isOpen === true && this.held.unfit === undefined
  }

  readonly #openNow: Effect.Effect<void, AmqpError.AmqpError> = Effect.suspend(() => {
    if (this.#isOpen) return Effect.void
    if (this.held?.isOpen === true) this.held.abandon()
    return Effect.flatMap(this.#links.next, (link) =>
      openChannel(link, "regular", this.terms.continuationTimeout, (channel) => {
        if (this.#hasEnded) channel.abandon()
        else this.held = channel
      })
    )
  })

  /** A lost connection says nothing about the counts; what else goes wrong would go wrong for each delivery. */
  #unavailable(cause: Cause.Cause<AmqpError.AmqpError>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { now } = this.terms.deadlines
      if (this.held?.link.closedBy !== undefined || now < this.#restsUntil) return Effect.void
      const rest = this.#rest
      this.#restsUntil = now + rest
      this.#rest = Math.min(longestRest, 2 * rest)
      return Effect.annotateLogs(
        Effect.logWarning(
          `AMQP consumer cannot share its count of attempts, and counts in this process only for ${Duration.format(Duration.millis(rest))}`,
          cause
        ),
        this.#annotations
      )
    })
  }

  // --- What is done with -----------------------------------------------------------------------------------------------

  #wait(key: string): void {
    this.#waiting.add(key)
    if (this.#waiting.size <= mostWaiting) return
    for (const first of this.#waiting) return this.#forget(first)
  }

  #forget(key: string): void {
    this.#inHand.delete(key)
    this.#waiting.delete(key)
    this.#memory.share(key, false)
    this.#tidy(key, this.#delete(key))
  }

  #tidy(key: string, effect: Effect.Effect<unknown, AmqpError.AmqpError>): void {
    if (this.#hasEnded) return
    const before = this.#tidying.get(key)
    const after = before === undefined ? Effect.void : Fiber.await(before)
    const tidied = Effect.andThen(Effect.andThen(after, this.#open), effect)
    const fiber = this.#fork(Effect.asVoid(Effect.exit(Effect.timeoutOption(tidied, longestTidying))))
    if (fiber.pollUnsafe() !== undefined) return
    this.#tidying.set(key, fiber)
    fiber.addObserver(() => {
      if (this.#tidying.get(key) === fiber) this.#tidying.delete(key)
    })
  }

  #delete(key: string): Effect.Effect<unknown, AmqpError.AmqpError> {
    return this.request("queue.delete", (driver) => driver.queueDelete(countQueueName(this.#queue, key), noConditions))
  }

  // One record, whichever: they are all alike.
  #takeBack(key: string): Effect.Effect<unknown, AmqpError.AmqpError> {
    return Effect.flatMap(
      this.request("basic.get", (driver) => driver.get(countQueueName(this.#queue, key), true)),
      (record) => (record?.messageCount !== undefined && record.messageCount > 0 ? Effect.void : this.#delete(key))
    )
  }

  /** Ends what is still to be tidied up, and the channel; each bounded by `timeout` milliseconds. */
  close(timeout: () => number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const tidied = Effect.timeoutOption(Fiber.awaitAll(Array.from(this.#tidying.values())), timeout())
      this.#hasEnded = true
      for (const key of [...this.#inHand, ...this.#waiting]) this.#memory.share(key, false)
      return Effect.andThen(
        tidied,
        Effect.suspend(() => this.held?.close(Duration.millis(timeout())) ?? Effect.void)
      )
    })
  }
}
