/**
 * Publishing for clients that choose exchanges and properties themselves.
 *
 * The broker closes the channel over a message that it refuses, and the outcome of all others on that channel is unknown then.
 * So the application's publisher, whose channels all clients share, gets only such messages as the broker has taken before: to
 * the same exchange, no larger, by the same user. Any other goes alone, on a channel of the pool, until the broker has taken
 * one like it: a refusal costs nobody else anything.
 */
import { type AmqpChannel, AmqpError, type AmqpMessage, type AmqpPool, type AmqpPublisher } from "@effect-amqp/core"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

type Options = { readonly mandatory: boolean }

type Publish = Effect.Effect<AmqpChannel.Confirmed, AmqpError.AmqpError>

/** How many messages go alone at a time, each on a channel of its own. */
const mostAlone = 4

/** How long a refusal is remembered, in milliseconds: repeating a message that is refused costs no channel meanwhile. */
const refusalHolds = 1000

/** How many names are remembered. */
const mostNames = 10_000

/** What was last remembered, up to so many. */
class Recent<A> {
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

const refusedBy = (error: AmqpError.AmqpError): Refused => ({ error, until: performance.now() + refusalHolds })

const wayOf = (message: AmqpMessage.Message): string => JSON.stringify([exchangeOf(message), message.routingKey])

const busy = AmqpError.fromReason(
  new AmqpError.PoolExhausted({
    message: `basic.publish: nothing was sent: ${mostAlone} messages that the broker may refuse were always before it`,
    operation: "basic.publish"
  })
)

export class Publishing {
  readonly #publisher: AmqpPublisher.AmqpPublisher["Service"]
  readonly #pool: AmqpPool.AmqpPool["Service"]
  readonly #patience: Duration.Duration
  readonly #alone = Semaphore.makeUnsafe(mostAlone)
  /** One message alone for each exchange: what becomes of it is known to the next. */
  readonly #turns = new Map<string, { readonly turn: Semaphore.Semaphore; users: number }>()
  /** Exchanges that have taken a message. */
  readonly #taken = new Recent<true>()
  /** Exchanges that have refused a topic: there a routing key must have been taken, too. */
  readonly #choosy = new Recent<true>()
  readonly #takenWays = new Recent<true>()
  readonly #refused = new Recent<Refused>()
  readonly #refusedWays = new Recent<Refused>()
  readonly #users = new Recent<true>()
  /** The largest content that was taken, in bytes, or that no broker is expected to refuse. */
  #largest = 65_536

  /** @param patience how long a message waits for its turn */
  constructor(
    publisher: AmqpPublisher.AmqpPublisher["Service"],
    pool: AmqpPool.AmqpPool["Service"],
    patience: Duration.Duration
  ) {
    this.#publisher = publisher
    this.#pool = pool
    this.#patience = patience
  }

  /** Whether the broker has taken such a message: it may go beside others. */
  hasTaken(message: AmqpMessage.Message): boolean {
    const exchange = exchangeOf(message)
    return (
      this.#taken.get(exchange) === true &&
      (this.#choosy.get(exchange) === undefined || this.#takenWays.get(wayOf(message)) === true) &&
      sizeOf(message) <= this.#largest &&
      (message.userId === undefined || this.#users.get(message.userId) === true)
    )
  }

  publish(message: AmqpMessage.Message, options: Options): Publish {
    return Effect.suspend(() => {
      if (!this.hasTaken(message)) return this.#apart(message, options)
      return this.#noted(message, this.#publisher.publish(message, options))
    })
  }

  /** To be called when it is known what became of a message. */
  note(message: AmqpMessage.Message, failure: AmqpError.AmqpError | undefined): void {
    const reason = failure?.reason
    const exchange = exchangeOf(message)
    switch (reason?._tag) {
      case undefined:
      case "PublishReturned":
      case "PublishNacked":
        return this.#take(message)
      case "PublishTimeout":
        // The broker reads a channel in order, and refuses at once.
        return reason.sent ? this.#take(message) : undefined
      case "PublishUnknown":
        // Its exchange may be the one that is gone: where several messages went there, it cannot be told which one met that.
        return this.#taken.delete(exchange)
      case "NotFound":
        this.#taken.delete(exchange)
        return this.#refused.set(exchange, refusedBy(failure!))
      case "AccessRefused":
        if (!reason.message.includes("access to topic")) {
          this.#taken.delete(exchange)
          return this.#refused.set(exchange, refusedBy(failure!))
        }
        this.#choosy.set(exchange, true)
        this.#takenWays.delete(wayOf(message))
        return this.#refusedWays.set(wayOf(message), refusedBy(failure!))
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

  #take(message: AmqpMessage.Message): void {
    const exchange = exchangeOf(message)
    this.#taken.set(exchange, true)
    if (this.#choosy.get(exchange) !== undefined) this.#takenWays.set(wayOf(message), true)
    this.#largest = Math.max(this.#largest, sizeOf(message))
    if (message.userId !== undefined) this.#users.set(message.userId, true)
  }

  #refusalOf(message: AmqpMessage.Message): AmqpError.AmqpError | undefined {
    const refused = this.#refused.get(exchangeOf(message)) ?? this.#refusedWays.get(wayOf(message))
    return refused !== undefined && refused.until > performance.now() ? refused.error : undefined
  }

  #noted(message: AmqpMessage.Message, publish: Publish): Publish {
    return Effect.matchEffect(publish, {
      onFailure: (error) => {
        this.note(message, error)
        return Effect.fail(error)
      },
      onSuccess: (confirmed) => {
        this.note(message, undefined)
        return Effect.succeed(confirmed)
      }
    })
  }

  #apart(message: AmqpMessage.Message, options: Options): Publish {
    const exchange = exchangeOf(message)
    const refused = this.#refusalOf(message)
    if (refused !== undefined) return Effect.fail(refused)
    const alone = this.#alone.takeScoped(1).pipe(
      this.#within,
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
      Effect.flatMap((turn) => this.#within(turn.takeScoped(1))),
      Effect.andThen(
        // What the one before has learned.
        Effect.suspend(() => (this.hasTaken(message) || this.#refusalOf(message) !== undefined ? Effect.void : alone))
      )
    )
    // Beside others, not in turn, if it may.
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

  readonly #within = <R>(place: Effect.Effect<void, never, R>): Effect.Effect<void, AmqpError.AmqpError, R> =>
    Effect.timeoutOrElse(place, { duration: this.#patience, orElse: () => Effect.fail(busy) })
}
