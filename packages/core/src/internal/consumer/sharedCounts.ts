/**
 * Counts of attempts that all processes see, and that survive a killed process.
 *
 * A redelivered message was either handled by a process that was killed, or prefetched and never handled: the broker's
 * flags and counts are the same in both cases. So the difference has to be recorded between the delivery and the
 * handler. The message cannot carry the record. If it were published again with a count, it would be prefetched once
 * more before it is handled, and its count would grow with every lost connection, every deployment, and every other
 * message that kills the process. So the beginning of each attempt is recorded next to the queue: a small queue per
 * message, `<queue>.attempts.<hash>`, holds one record per attempt. The answer to its declaration gives the number of
 * records.
 *
 * Only a redelivered message is recorded. Its count queue exists while the message is being handled, or has failed and
 * waits for its next attempt. The broker removes a count queue that was left behind and not used for a day.
 *
 * Nothing here fails: a message whose attempts cannot be recorded is handled, and its attempts are counted in this
 * process only.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Semaphore from "effect/Semaphore"
import type { AmqpConfig } from "../../model/config.ts"
import * as AmqpError from "../../model/error.ts"
import type { AmqpPublisher } from "../../model/publisher.ts"
import { openChannel } from "../channel/openChannel.ts"
import { ChannelHandle, type ChannelTimeouts } from "../channel/channelHandle.ts"
import type { ConnectionInternals } from "../connection/connectionInternals.ts"
import * as Logging from "../telemetry/logging.ts"
import { companionQueueName } from "../topology/delayQueues.ts"
import type { AttemptMemory } from "./attemptMemory.ts"
import type { ConsumerDelivery, SharedCount } from "./delivery.ts"
import type { Restore } from "./settling.ts"

/** How long a delivery waits for its count, in milliseconds. */
const recordTimeout = 5000

/** The pause after the broker has refused or not answered, in milliseconds; it doubles each time. */
const minBackoff = 30_000
const maxBackoff = 3_600_000

/**
 * How many messages are recorded at once, and how many per second after that. A consumer that takes over a large
 * backlog of redelivered messages must not be slowed down by each of them. A message that kills its process is among
 * the first ones, because the messages that a killed process was handling return to the head of the queue.
 */
const burst = 1000
const perSecond = 10

/**
 * How long the removal of a count that is no longer needed may wait for a channel, in milliseconds. After that, its
 * records stay in the broker.
 */
const cleanupTimeout = 30_000

/** Maximum number of counts of messages that wait for their next attempt. Beyond it, the oldest one is removed. */
const mostWaiting = 1000

/** The broker removes a count that was not used for this time. */
const unusedFor = Duration.days(1)

// The queue type is explicit, because a virtual host may have another default type.
const noConditions = { ifEmpty: false, ifUnused: false }

const declaration = {
  durable: true,
  arguments: { "x-queue-type": "classic", "x-expires": Duration.toMillis(unusedFor) }
}

export const countQueueName = (queue: string, key: string): string =>
  companionQueueName(queue, `.attempts.${key.slice(0, 22)}`)

export class SharedCounts extends ChannelHandle {
  readonly #internals: ConnectionInternals
  readonly #publisher: AmqpPublisher["Service"]
  readonly #queue: string
  readonly #most: number
  readonly #fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly #annotations: Readonly<Record<string, unknown>>
  // Deliveries that arrive together need the same channel.
  readonly #oneAtATime = Semaphore.makeUnsafe(1)
  readonly #memory: AttemptMemory
  /** The keys of the messages that are being handled. */
  readonly #inHand = new Set<string>()
  /** The keys of the messages that have failed and wait for their next attempt. */
  readonly #waiting = new Set<string>()
  /** The running cleanups of counts whose messages are not being handled, by key. */
  readonly #cleanups = new Map<string, Fiber.Fiber<void>>()
  #tokens = burst
  #tokensAt: number
  #backoffUntil = 0
  #backoff = minBackoff
  #hasEnded = false

  constructor(options: {
    readonly internals: ConnectionInternals
    readonly timeouts: ChannelTimeouts
    readonly publisher: AmqpPublisher["Service"]
    readonly queue: string
    readonly memory: AttemptMemory
    readonly maxDeliveries: number
    readonly config: AmqpConfig
    readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  }) {
    super(
      options.timeouts,
      new AmqpError.ChannelClosed({ message: "queue.declare: the channel is not open yet. Nothing was sent." })
    )
    this.#internals = options.internals
    this.#publisher = options.publisher
    this.#queue = options.queue
    this.#memory = options.memory
    this.#most = options.maxDeliveries
    this.#fork = options.fork
    this.#annotations = { queue: options.queue, ...Logging.connectionAnnotations(options.config) }
    this.#tokensAt = options.timeouts.deadlines.now
  }

  /** Whether earlier attempts at this delivery are looked up, and this one is recorded, before it is handled. */
  shouldCount(delivery: ConsumerDelivery): boolean {
    if (!delivery.redelivered || delivery.isShared || this.#hasEnded || !this.#isCountable()) return false
    const { key } = delivery
    if (this.#memory.isAmbiguous(key)) {
      if (this.#waiting.has(key)) this.#forget(key)
      return false
    }
    // The key is being handled already: by the same message, whose channel was lost, or by one like it.
    if (this.#inHand.has(key)) {
      this.#memory.noteAmbiguous(key)
      return false
    }
    const { now } = this.timeouts.deadlines
    return now >= this.#backoffUntil && this.#tryTakeToken(now)
  }

  // The counts of a queue that ends with its connection would outlive the queue's messages.
  #isCountable(): boolean {
    const known = this.timeouts.queues.get(this.#queue)
    return known === undefined || !(known.exclusive || known.autoDelete || known.arguments["x-queue-type"] === "stream")
  }

  #tryTakeToken(now: number): boolean {
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#tokensAt) / 1000) * perSecond)
    this.#tokensAt = now
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }

  /**
   * Looks up how often an attempt at this delivery's message has begun, and records that one begins now. Returns
   * whether the delivery is still to be handled: after an interruption, or the end of its channel, it has gone back to
   * its queue.
   */
  begin(delivery: ConsumerDelivery, restore: Restore): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const { key } = delivery
      // The key may have been added since `shouldCount`, because one batch may contain several such messages.
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
          this.#cleanUp(key, this.#removeRecord(key))
        }
      }
      return Effect.matchCauseEffect(restore(this.#record(delivery, count)), {
        onSuccess: () => {
          if (!delivery.isSettled) return Effect.succeed(true)
          // The channel has ended in the meantime.
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

  /** Does the same for several deliveries at once. Returns those that are still to be handled. */
  beginAll(batch: ReadonlyArray<ConsumerDelivery>, restore: Restore): Effect.Effect<ReadonlyArray<ConsumerDelivery>> {
    const counted = new Set(batch.filter((delivery) => this.shouldCount(delivery)))
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
      const cleanup = this.#cleanups.get(key)
      if (cleanup !== undefined) yield* Fiber.await(cleanup)
      yield* this.#open
      const { messageCount } = yield* this.request("queue.declare", (driver) => driver.queueDeclare(name, declaration))
      // The message is given up, so no record is needed.
      const isEnough = delivery.failures + messageCount >= this.#most
      if (!isEnough) {
        yield* Effect.forEach(
          Array.from({ length: 1 + delivery.remembered }),
          () => this.#publisher.publish({ routingKey: name, content: "" }, { mandatory: true }),
          { concurrency: "unbounded", discard: true }
        ).pipe(
          // The attempt may have been recorded, but the message is not handled now.
          Effect.onInterrupt(() => Effect.sync(() => this.#cleanUp(key, this.#removeRecord(key))))
        )
      }
      this.#backoff = minBackoff
      delivery.share(messageCount, !isEnough, count)
    }).pipe(
      Effect.withTracerEnabled(false),
      Effect.timeoutOrElse({
        duration: recordTimeout,
        orElse: () =>
          Effect.fail(
            AmqpError.fromReason(
              new AmqpError.ReplyTimeout({
                message: `queue.declare: ${JSON.stringify(countQueueName(this.#queue, delivery.key))} expected the attempt to be recorded within ${recordTimeout} ms, got no confirmation`,
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
    return this.held?.isOpen === true && this.held.discardReason === undefined
  }

  readonly #openNow: Effect.Effect<void, AmqpError.AmqpError> = Effect.suspend(() => {
    if (this.#isOpen) return Effect.void
    if (this.held?.isOpen === true) this.held.abandon()
    return Effect.flatMap(this.#internals.nextLink, (link) =>
      openChannel(link, "regular", this.timeouts.continuationTimeout, (channel) => {
        if (this.#hasEnded) channel.abandon()
        else this.held = channel
      })
    )
  })

  /**
   * Pauses the recording after a failure that would repeat for each delivery. A lost connection does not mean that
   * recording fails.
   */
  #unavailable(cause: Cause.Cause<AmqpError.AmqpError>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { now } = this.timeouts.deadlines
      if (this.held?.link.closedBy !== undefined || now < this.#backoffUntil) return Effect.void
      const rest = this.#backoff
      this.#backoffUntil = now + rest
      this.#backoff = Math.min(maxBackoff, 2 * rest)
      return Effect.annotateLogs(
        Effect.logWarning(
          `AMQP consumer could not record an attempt in the broker: for ${Duration.format(Duration.millis(rest))} it counts attempts in this process only, so maxDeliveries does not include those of other processes. Check the cause, for example the user's permissions for the queues <queue>.attempts.*`,
          cause
        ),
        this.#annotations
      )
    })
  }

  // --- Cleaning up ---------------------------------------------------------------------------------------------------

  #wait(key: string): void {
    this.#waiting.add(key)
    if (this.#waiting.size <= mostWaiting) return
    for (const first of this.#waiting) return this.#forget(first)
  }

  #forget(key: string): void {
    this.#inHand.delete(key)
    this.#waiting.delete(key)
    this.#memory.share(key, false)
    this.#cleanUp(key, this.#delete(key))
  }

  #cleanUp(key: string, effect: Effect.Effect<unknown, AmqpError.AmqpError>): void {
    if (this.#hasEnded) return
    const before = this.#cleanups.get(key)
    const after = before === undefined ? Effect.void : Fiber.await(before)
    const cleaned = Effect.andThen(Effect.andThen(after, this.#open), effect)
    const fiber = this.#fork(Effect.asVoid(Effect.exit(Effect.timeoutOption(cleaned, cleanupTimeout))))
    if (fiber.pollUnsafe() !== undefined) return
    this.#cleanups.set(key, fiber)
    fiber.addObserver(() => {
      if (this.#cleanups.get(key) === fiber) this.#cleanups.delete(key)
    })
  }

  #delete(key: string): Effect.Effect<unknown, AmqpError.AmqpError> {
    return this.request("queue.delete", (driver) => driver.queueDelete(countQueueName(this.#queue, key), noConditions))
  }

  // Removes any one record, because all records of a message are equal.
  #removeRecord(key: string): Effect.Effect<unknown, AmqpError.AmqpError> {
    return Effect.flatMap(
      this.request("basic.get", (driver) => driver.get(countQueueName(this.#queue, key), true)),
      (record) => (record?.messageCount !== undefined && record.messageCount > 0 ? Effect.void : this.#delete(key))
    )
  }

  /** Waits for the cleanups and closes the channel; each is bounded by `timeout` milliseconds. */
  close(timeout: () => number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const cleaned = Effect.timeoutOption(Fiber.awaitAll(Array.from(this.#cleanups.values())), timeout())
      this.#hasEnded = true
      for (const key of [...this.#inHand, ...this.#waiting]) this.#memory.share(key, false)
      return Effect.andThen(
        cleaned,
        Effect.suspend(() => this.held?.close(Duration.millis(timeout())) ?? Effect.void)
      )
    })
  }
}
