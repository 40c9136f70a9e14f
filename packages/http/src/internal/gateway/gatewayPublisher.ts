/**
 * Publishing for clients that choose exchanges and properties themselves.
 *
 * The broker closes the channel when it refuses a message, and the outcome of all other messages on that channel is
 * unknown then. All clients share the channels of the application's publisher. The publisher therefore gets only
 * messages that are like one that the broker has accepted before: to the same exchange, no larger, and with the same
 * user. Any other message is isolated: it is published on a pooled channel of its own, until the broker has accepted
 * one like it. A refusal then affects no other client.
 */
import { type AmqpChannel, AmqpError, type AmqpMessage, type AmqpPool, type AmqpPublisher } from "@effect-amqp/core"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

type Options = { readonly mandatory: boolean }

type Publish = Effect.Effect<AmqpChannel.Confirmed, AmqpError.AmqpError>

/** Maximum number of messages that are isolated at once, each on a channel of its own. */
const maxIsolated = 4

/** How long a refusal is remembered, in milliseconds. Repeating a refused message uses no channel during this time. */
const refusalTtl = 1000

/** Maximum number of names that are remembered. */
const mostNames = 10_000

/** A map that keeps the last `mostNames` entries. */
class BoundedMap<A> {
  readonly #all = new Map<string, A>()

  get(key: string): A | undefined {
    return this.#all.get(key)
  }

  set(key: string, value: A): void {
    this.#all.delete(key)
    this.#all.set(key, value)
    if (this.#all.size <= mostNames) return
    for (const oldest of this.#all.keys()) {
      this.#all.delete(oldest)
      return
    }
  }

  delete(key: string): void {
    this.#all.delete(key)
  }
}

interface Refused {
  readonly error: AmqpError.AmqpError
  readonly until: number
}

const exchangeOf = ({ exchange = "" }: AmqpMessage.Message): string => exchange

const sizeOf = ({ content }: AmqpMessage.Message): number =>
  typeof content === "string" ? Buffer.byteLength(content) : content.byteLength

const refusedBy = (error: AmqpError.AmqpError): Refused => ({ error, until: performance.now() + refusalTtl })

const routeOf = (message: AmqpMessage.Message): string => JSON.stringify([exchangeOf(message), message.routingKey])

const busy = AmqpError.fromReason(
  new AmqpError.PoolExhausted({
    message:
      `basic.publish: expected one of the ${maxIsolated} channels for messages that the broker may refuse, ` +
      "got none in time. Nothing was sent.",
    operation: "basic.publish"
  })
)

export class GatewayPublisher {
  readonly #publisher: AmqpPublisher.AmqpPublisher["Service"]
  readonly #pool: AmqpPool.AmqpPool["Service"]
  readonly #timeout: Duration.Duration
  readonly #isolated = Semaphore.makeUnsafe(maxIsolated)
  /** One turn per exchange: each isolated message waits for the outcome of the one before it. */
  readonly #turns = new Map<string, { readonly turn: Semaphore.Semaphore; users: number }>()
  /** Exchanges to which the broker has accepted a message. */
  readonly #acceptedExchanges = new BoundedMap<true>()
  /** Exchanges for which the broker has refused a routing key. A message to them needs an accepted routing key too. */
  readonly #topicRestricted = new BoundedMap<true>()
  readonly #acceptedRoutes = new BoundedMap<true>()
  readonly #refused = new BoundedMap<Refused>()
  readonly #refusedRoutes = new BoundedMap<Refused>()
  readonly #users = new BoundedMap<true>()
  /** Size of the largest content that was accepted, in bytes; at first, a size that no broker is expected to refuse. */
  #largest = 65_536

  /** @param timeout how long a message waits for its turn */
  constructor(
    publisher: AmqpPublisher.AmqpPublisher["Service"],
    pool: AmqpPool.AmqpPool["Service"],
    timeout: Duration.Duration
  ) {
    this.#publisher = publisher
    this.#pool = pool
    this.#timeout = timeout
  }

  /** Whether the broker has accepted such a message, so that this one may share a channel with others. */
  hasAccepted(message: AmqpMessage.Message): boolean {
    const exchange = exchangeOf(message)
    return (
      this.#acceptedExchanges.get(exchange) === true &&
      (this.#topicRestricted.get(exchange) === undefined || this.#acceptedRoutes.get(routeOf(message)) === true) &&
      sizeOf(message) <= this.#largest &&
      (message.userId === undefined || this.#users.get(message.userId) === true)
    )
  }

  publish(message: AmqpMessage.Message, options: Options): Publish {
    return Effect.suspend(() => {
      if (!this.hasAccepted(message)) return this.#publishIsolated(message, options)
      return this.#noted(message, this.#publisher.publish(message, options))
    })
  }

  /** Records the outcome of a message. The caller calls it as soon as the outcome is known. */
  recordOutcome(message: AmqpMessage.Message, failure: AmqpError.AmqpError | undefined): void {
    const reason = failure?.reason
    const exchange = exchangeOf(message)
    switch (reason?._tag) {
      case undefined:
      case "PublishReturned":
      case "PublishNacked":
        return this.#recordAccepted(message)
      case "PublishTimeout":
        // The broker reads a channel in order and refuses immediately, so a sent message without a refusal is accepted.
        return reason.sent ? this.#recordAccepted(message) : undefined
      case "PublishUnknown":
        // The exchange of this message may be the deleted one. Among several messages to it, the refused one is
        // unknown.
        return this.#acceptedExchanges.delete(exchange)
      case "NotFound":
        this.#acceptedExchanges.delete(exchange)
        return this.#refused.set(exchange, refusedBy(failure!))
      case "AccessRefused":
        if (!reason.message.includes("access to topic")) {
          this.#acceptedExchanges.delete(exchange)
          return this.#refused.set(exchange, refusedBy(failure!))
        }
        this.#topicRestricted.set(exchange, true)
        this.#acceptedRoutes.delete(routeOf(message))
        return this.#refusedRoutes.set(routeOf(message), refusedBy(failure!))
      case "MessageTooLarge":
        if (reason.replyCode !== undefined) this.#largest = Math.min(this.#largest, sizeOf(message) - 1)
        return undefined
      case "PreconditionFailed":
        if (message.userId !== undefined) this.#users.delete(message.userId)
        return undefined
      default:
        return undefined
    }
  }

  #recordAccepted(message: AmqpMessage.Message): void {
    const exchange = exchangeOf(message)
    this.#acceptedExchanges.set(exchange, true)
    if (this.#topicRestricted.get(exchange) !== undefined) this.#acceptedRoutes.set(routeOf(message), true)
    this.#largest = Math.max(this.#largest, sizeOf(message))
    if (message.userId !== undefined) this.#users.set(message.userId, true)
  }

  #refusalOf(message: AmqpMessage.Message): AmqpError.AmqpError | undefined {
    const refused = this.#refused.get(exchangeOf(message)) ?? this.#refusedRoutes.get(routeOf(message))
    return refused !== undefined && refused.until > performance.now() ? refused.error : undefined
  }

  #noted(message: AmqpMessage.Message, publish: Publish): Publish {
    return Effect.matchEffect(publish, {
      onFailure: (error) => {
        this.recordOutcome(message, error)
        return Effect.fail(error)
      },
      onSuccess: (confirmed) => {
        this.recordOutcome(message, undefined)
        return Effect.succeed(confirmed)
      }
    })
  }

  #publishIsolated(message: AmqpMessage.Message, options: Options): Publish {
    const exchange = exchangeOf(message)
    const refused = this.#refusalOf(message)
    if (refused !== undefined) return Effect.fail(refused)
    const isolated = this.#isolated.takeScoped(1).pipe(
      this.#withTimeout,
      Effect.andThen(
        Effect.suspend(() =>
          this.#noted(
            message,
            this.#pool.confirm.use((channel) => channel.publish(message, options))
          )
        )
      )
    )
    const inTurn = Effect.acquireRelease(this.#enter(exchange), () => this.#leave(exchange)).pipe(
      Effect.flatMap((turn) => this.#withTimeout(turn.takeScoped(1))),
      Effect.andThen(
        // The outcome of the message before this one may have decided the question.
        Effect.suspend(() =>
          this.hasAccepted(message) || this.#refusalOf(message) !== undefined ? Effect.void : isolated
        )
      )
    )
    // A message that may share a channel is published after its turn has ended, so that others need not wait for it.
    return inTurn.pipe(
      Effect.scoped,
      Effect.flatMap((confirmed) =>
        confirmed === undefined ? this.publish(message, options) : Effect.succeed(confirmed)
      )
    )
  }

  #enter(exchange: string): Effect.Effect<Semaphore.Semaphore> {
    return Effect.sync(() => {
      const turns = this.#turns.get(exchange) ?? { turn: Semaphore.makeUnsafe(1), users: 0 }
      this.#turns.set(exchange, turns)
      turns.users++
      return turns.turn
    })
  }

  #leave(exchange: string): Effect.Effect<void> {
    return Effect.sync(() => {
      const turns = this.#turns.get(exchange)
      if (turns !== undefined && --turns.users === 0) this.#turns.delete(exchange)
    })
  }

  readonly #withTimeout = <R>(wait: Effect.Effect<void, never, R>): Effect.Effect<void, AmqpError.AmqpError, R> =>
    Effect.timeoutOrElse(wait, { duration: this.#timeout, orElse: () => Effect.fail(busy) })
}
